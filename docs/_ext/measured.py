"""Tables of benchmarks/results on other pages, so that a number stands in one file: the directive ``measured``."""

import datetime
import itertools
import pathlib
import re
import typing

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"
VERDICT = re.compile(r"\b(reproduced|contradicted|undecided|in part|no verdict)\b")


def section(text, name):
    """Return the lines of a file below one of its headings; the whole file if there is no name.

    Raises:
        ValueError: if no heading has this name.
    """
    lines = text.splitlines()
    if name is None:
        return lines
    starts = [i for i, line in enumerate(lines) if line.startswith("#") and line.strip("# `") == name]
    if not starts:
        raise ValueError(f"no heading {name!r}; there are {[line for line in lines if line.startswith('#')]}")
    level = lines[starts[0]].split(" ")[0]
    end = next((i for i in range(starts[0] + 1, len(lines)) if lines[i].startswith(level + " ")), len(lines))
    return lines[starts[0] + 1 : end]


def tables(lines):
    """Split the tables off some lines: lists of lines, head first."""
    groups = itertools.groupby(lines, key=lambda line: line.startswith("|"))
    return [list(group) for is_table, group in groups if is_table]


def rows(lines, pattern, verdicts):
    """Return the head and the wanted rows of the first table that has any, and the number of its rows."""
    quantity = re.compile(pattern or "")
    for table in tables(lines):
        wanted = [line for line in table[2:] if quantity.search(line.split("|")[1].strip())]
        kept = [line for line in wanted if not verdicts or VERDICT.search(line)]
        if kept:
            return table[:2] + kept, len(table) - 2
    raise ValueError(f"no row of a table fits rows={pattern!r}, verdicts={verdicts}")


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
