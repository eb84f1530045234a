"""Tables of benchmarks/results on other pages, so that a number stands in one file: the directive ``measured``."""

import datetime
import typing

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from benchmarks.tables import RESULTS, rows, section


class Measured(SphinxDirective):
    """``{measured} FILE [HEADING]`` with ``:rows: REGEX`` (of the first column) and ``:verdicts:`` (only those)."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: typing.ClassVar = {"rows": directives.unchanged, "verdicts": directives.flag}

    def run(self):
        """Return the table, and a line that says where it is from."""
        words = self.arguments[0].split(maxsplit=1) + self.arguments[1:]
        path, name = RESULTS / words[0], words[1] if len(words) > 1 else None
        self.env.note_dependency(str(path))
        try:
            lines = section(path.read_text(encoding="utf-8"), name)
            table, total = rows(lines, self.options.get("rows"), "verdicts" in self.options)
        except (OSError, ValueError) as error:
            raise self.error(f"{words[0]}: {error}") from error
        date = datetime.date.fromisoformat(path.name[:10])
        kept = len(table) - 2
        part = f"{kept} of {total} rows" if kept < total else "All rows"
        where = f"{part} of {{download}}`benchmarks/results/{path.name} </../benchmarks/results/{path.name}>`"
        where += f" ({date.day} {date:%B %Y})" + ("." if name is None else f", `{name}`.")
        return self.parse_text_to_nodes("\n".join([":::{div} measured", *table, "", where, ":::"]))


def setup(app):
    """Register the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
