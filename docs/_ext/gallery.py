"""The directive ``gallery``: cards of all experiments, or of all families of claims, with their pictures."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import pictures
from cards import Picture, card_of_experiment, card_of_family, experiments
from sphinx.util.docutils import SphinxDirective

from benchmarks.tables import ROOT, claims_of_last_run, files_of
from experiments.__main__ import module_of
from experiments.lib import store
from experiments.lib.code import digest_of_code
from figures.__main__ import module_of as drawing_of
from figures.lib import style
from theory.check.run import FAMILIES

AT_ONCE = 2
"""Quick runs at the same time."""


def make(app):
    """Draw the tables, and make quick runs of what has none, before Sphinx reads the page.

    Results of quick runs stay for the next build. Where the cells of pages do not run, experiments do not either.
    """
    folder = pathlib.Path(app.srcdir) / "_build"
    app.gallery = {stem: drawn for stem in experiments() if (drawn := _of_table(stem, folder))}
    if app.config.nb_execution_mode == "off":
        return
    others = [stem for stem in experiments() if not files_of(stem)]
    # Before the threads, because Python 3.11 cannot parse in two of them at once.
    results = [folder / "quick" / digest_of_code(module_of(stem).run) for stem in others]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_quick_run, others, results))
    for stem, result in zip(others, results, strict=True):
        found = store.load(stem, result)
        path = style.save(drawing_of(stem).draw(found), stem, result)
        seconds = store.manifest_of(found)["seconds"]
        app.gallery[stem] = Picture(_within(app, path), "a quick run of today's code, made with this page", seconds)


def _of_table(stem, folder):
    """Draw the newest table of an experiment; None if there is none, or nothing to draw in it."""
    files = files_of(stem)
    found = pictures.draw(stem, files[-1]) if files else None
    if found is None:
        return None
    target = folder / "pictures" / f"{stem}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    found.figure.savefig(target, metadata={"Software": None})
    return Picture(f"/_build/pictures/{stem}.png", found.words)


def _quick_run(stem, result):
    """Run an experiment in its quick form, unless the folder of its result has one.

    Raises:
        RuntimeError: the experiment failed.
    """
    if store.path_of(stem, result).is_file():
        return
    words = [sys.executable, "-m", "experiments", "run", stem, "--quick", "--out", str(result)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")


def _within(app, path):
    """Write a path as pages name it."""
    return f"/{path.relative_to(app.srcdir).as_posix()}"


class Gallery(SphinxDirective):
    """``{gallery} experiments`` or ``{gallery} theory``."""

    required_arguments = 1

    def run(self):
        """Return a grid of cards."""
        if self.arguments[0] == "experiments":
            drawn = self.env.app.gallery
            cards = [card_of_experiment(stem, path, drawn.get(stem)) for stem, path in experiments().items()]
            for stem, path in experiments().items():
                for source in (path, *files_of(stem)):
                    self.env.note_dependency(str(source))
        else:
            self.env.note_dependency(str(claims_of_last_run()[0]))
            cards = [card_of_family(family) for family in FAMILIES]
        head = ["::::::{grid} 1 1 2 2", ":gutter: 3", ":class-container: gallery", ""]
        return self.parse_text_to_nodes("\n".join([*head, *cards, "::::::"]))


def setup(app):
    """Register the directive."""
    app.connect("builder-inited", make)
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
