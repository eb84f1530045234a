"""The directive ``gallery``: cards of all experiments, or of all families of claims."""

from cards import card_of_experiment, card_of_family, experiments, tables
from sphinx.util.docutils import SphinxDirective


class Gallery(SphinxDirective):
    """``{gallery} experiments`` or ``{gallery} theory``."""

    required_arguments = 1

    def run(self):
        """Return a grid of cards."""
        if self.arguments[0] == "experiments":
            measured = tables()
            cards = [card_of_experiment(stem, path, measured.get(stem, [])) for stem, path in experiments().items()]
            for path in experiments().values():
                self.env.note_dependency(str(path))
        else:
            from theory.check.run import FAMILIES

            cards = [card_of_family(family) for family in FAMILIES]
        return self.parse_text_to_nodes("\n".join([":::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, ":::::"]))


def setup(app):
    """Register the directive."""
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
