"""Tables in the files of benchmarks/results, read as text."""

import itertools
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VERDICT = re.compile(r"\b(reproduced|contradicted|undecided|in part|no verdict)\b")


def section(text, name):
    """Return the lines of a file below one of its headings; the whole file if there is no name.

    Raises:
        ValueError: if no heading has this name.
    """
    lines = text.splitlines()
    if name is None:
        return lines
    starts = [i for i, line in enumerate(lines) if is_heading(line, name)]
    if not starts:
        raise ValueError(f"no heading {name!r}; there are {[line for line in lines if line.startswith('#')]}")
    level = lines[starts[0]].split(" ")[0]
    end = next((i for i in range(starts[0] + 1, len(lines)) if lines[i].startswith(level + " ")), len(lines))
    return lines[starts[0] + 1 : end]


def is_heading(line, name):
    """Return whether a line is a heading with this name."""
    return line.startswith("#") and line.strip("# `") == name


def tables(lines):
    """Split the tables off some lines: lists of lines, head first."""
    groups = itertools.groupby(lines, key=lambda line: line.startswith("|"))
    return [list(group) for is_table, group in groups if is_table]


def rows(lines, pattern=None, verdicts=False):
    """Return the head and the wanted rows of the first table that has any, and the number of its rows.

    Args:
        lines: with tables.
        pattern: regular expression that the first column must contain.
        verdicts: only rows with a verdict.

    Raises:
        ValueError: if no table has such a row.
    """
    quantity = re.compile(pattern or "")
    for table in tables(lines):
        wanted = [line for line in table[2:] if quantity.search(line.split("|")[1].strip())]
        kept = [line for line in wanted if not verdicts or VERDICT.search(line)]
        if kept:
            return table[:2] + kept, len(table) - 2
    raise ValueError(f"no row of a table fits rows={pattern!r}, verdicts={verdicts}")


def files_of(stem):
    """Return the files with a table of an experiment: under a heading with its name, or named before all headings."""
    found = []
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        about = text.split("\n## ", 1)[0]
        if any(is_heading(line, stem) for line in text.splitlines()) or re.search(rf"`(?:[^`\n]* )?{stem}`", about):
            found.append(path)
    return found


def section_of(stem, path):
    """Return the lines of a file that are about an experiment: below its heading, or all of them."""
    text = path.read_text(encoding="utf-8")
    return section(text, stem if any(is_heading(line, stem) for line in text.splitlines()) else None)


def verdicts_of(stem, path):
    """Return the rows with a verdict of an experiment's table, head first; nothing if there are none."""
    try:
        return rows(section_of(stem, path), verdicts=True)[0]
    except ValueError:
        return []


def claims_of_last_run():
    """Return the newest file of claims of the theory, and the verdict of every claim in it by name."""
    path = sorted(RESULTS.glob("*-claims.md"))[-1]
    (table,) = tables(path.read_text(encoding="utf-8").splitlines())
    head, *judged = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in (table[0], *table[2:]))
    return path, {row[0]: row[head.index("verdict")] for row in judged}


def cost_of(stem, path):
    """Return what a run of an experiment took, as a file says; None if it does not.

    It stands in a line ``Cost: `stem` 4 minutes; `other` and `another` 20 s on one core.``, or as ``143 s, code ...``
    below the heading of the experiment.
    """
    text = path.read_text(encoding="utf-8")
    for entry in (entry for line in re.findall(r"^Cost: (.*)\.$", text, re.M) for entry in line.split("; ")):
        names = re.findall(r"`(\w+)`", entry)
        if stem in names:
            others = ", ".join(f"`{name}`" for name in names if name != stem)
            return entry.rpartition("`")[2].strip() + (f" with {others}" if others else "")
    below = section(text, stem) if any(is_heading(line, stem) for line in text.splitlines()) else []
    found = [line for line in below if re.match(r"\d+ s, code ", line)]
    return f"{int(found[0].split()[0]):,} s" if found else None


def seconds_of_claims():
    """Return the seconds that each claim took in the newest full run, by name."""
    path = sorted(RESULTS.glob("*-claims.md"))[-1]
    (table,) = tables(path.read_text(encoding="utf-8").splitlines())
    judged = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:])
    return {row[0]: int(row[-1]) for row in judged}
