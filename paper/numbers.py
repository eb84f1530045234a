"""Write every number of the paper from the tables in ``benchmarks/results``, as macros of ``numbers.tex``.

A number that is not there, or that stands in an older table than the newest one of the same name, is an error. So is a
committed ``numbers.tex`` that differs from what the tables say.
"""

from __future__ import annotations

import decimal
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.tables import RESULTS, VERDICT, is_heading, section, tables

TARGET = pathlib.Path(__file__).parent / "numbers.tex"
SYMBOLS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "±": r"$\pm$",
    "×": r"$\times$",
    "λ": r"$\lambda$",
    "√": r"$\surd$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "−": r"$-$",
    "–": "--",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "^": r"\textasciicircum{}",
    "\u00a0": "~",
    "\u202f": r"\,",
}


class Place(NamedTuple):
    """A row of a committed table."""

    file: str
    """Name of the file."""
    heading: str | None
    """Heading of the table; None: the file has one table without a heading of its own."""
    row: str
    """First column, in full."""

    def __str__(self) -> str:
        """Name it as messages do."""
        return f"{self.file}, {self.heading or 'its table'}, row {self.row!r}"


class Number(NamedTuple):
    """A number of the text: macro ``\\N<name>``."""

    name: str
    place: Place
    column: str
    digits: int | None = None
    """Significant digits; None: as the table writes it."""
    half: str | None = None
    """Column of the half-width that follows it."""
    pattern: str | None = None
    """Of a column with words: the part that is wanted, as the one group."""


class Sentence(NamedTuple):
    """A number that stands in a sentence of a file: the one group of a pattern."""

    name: str
    file: str
    pattern: str


class Judged(NamedTuple):
    """A row of the table of verdicts."""

    paper: str
    claim: str
    place: Place
    measured: str = "measured"
    half: str | None = "± 95 %"
    published: str | None = "predicted"
    verdict: str | None = None
    """Column of the verdict; None: the word in the row's last column."""


def cells_of(line: str) -> list[str]:
    """Split a line of a table into its columns."""
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def newest(place: Place, results: pathlib.Path) -> None:
    """Refuse a table when a newer file has one of the same name.

    Raises:
        ValueError: the file is missing, or a newer one has the same name or the same heading.
    """
    path = results / place.file
    if not path.is_file():
        raise ValueError(f"missing: there is no {path}")
    date, name = place.file[:10], place.file[11:]
    for other in sorted(results.glob("*.md")):
        if other.name[:10] <= date:
            continue
        lines = other.read_text(encoding="utf-8").splitlines()
        same = place.heading is not None and any(is_heading(line, place.heading) for line in lines)
        if same or other.name[11:] == name:
            raise ValueError(f"stale: {place} is older than {other.name}; name that file in paper/spec.py")


def row_of(place: Place, results: pathlib.Path = RESULTS) -> dict[str, str]:
    """Return a row of a table, by the names of its columns.

    Raises:
        ValueError: the row is missing, stands there more than once, or is stale.
    """
    newest(place, results)
    lines = section((results / place.file).read_text(encoding="utf-8"), place.heading)
    found = [
        dict(zip(cells_of(table[0]), cells_of(line), strict=True))
        for table in tables(lines)
        for line in table[2:]
        if cells_of(line)[0] == place.row
    ]
    if len(found) != 1:
        raise ValueError(f"{'missing' if not found else 'ambiguous'}: {place} stands there {len(found)} times")
    return found[0]


def column_of(row: dict[str, str], column: str, place: Place) -> str:
    """Return a column of a row.

    Raises:
        ValueError: there is no such column, or it is empty.
    """
    if row.get(column, "–") in ("–", ""):
        raise ValueError(f"missing: {place} has no {column!r}; it has {', '.join(row)}")
    return row[column]


def rounded(text: str, digits: int | None) -> str:
    """Write a number with some significant digits, without an exponent, as LaTeX text."""
    if digits is None:
        return escaped(text)
    value = float(text.replace(",", "").split()[0].rstrip("%"))
    shown = f"{value:#.{digits}g}".rstrip(".")
    return escaped(f"{float(shown):,.0f}" if "e+" in shown else f"{decimal.Decimal(shown):f}")


def escaped(text: str) -> str:
    """Write text in LaTeX."""
    shown = "".join(SYMBOLS.get(sign, sign) for sign in text.replace("**", "").replace("`", ""))
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", shown)


def value_of(number: Number | Sentence, results: pathlib.Path = RESULTS) -> str:
    """Return the text of a number.

    Raises:
        ValueError: it is missing or stale.
    """
    if isinstance(number, Sentence):
        newest(Place(number.file, None, ""), results)
        found = re.findall(number.pattern, (results / number.file).read_text(encoding="utf-8"))
        if len(found) != 1:
            raise ValueError(f"missing: {number.file} has {len(found)} matches of {number.pattern!r}")
        return escaped(found[0])
    row = row_of(number.place, results)
    cell = column_of(row, number.column, number.place)
    if number.pattern is not None:
        part = re.search(number.pattern, cell)
        if part is None:
            raise ValueError(f"missing: {number.place} has no {number.pattern!r} in {cell!r}")
        cell = part[1]
    text = rounded(cell, number.digits)
    if number.half is None:
        return text
    return rf"{text} $\pm$ {rounded(column_of(row, number.half, number.place), 2)}"


def verdict_of(judged: Judged, results: pathlib.Path = RESULTS) -> str:
    """Return a line of the table of verdicts.

    Raises:
        ValueError: the row is missing or stale, or has no verdict.
    """
    row, place = row_of(judged.place, results), judged.place
    measured = rounded(column_of(row, judged.measured, place), 3)
    if judged.half and row.get(judged.half, "–") != "–":
        measured += rf" $\pm$ {rounded(row[judged.half], 2)}"
    published = rounded(column_of(row, judged.published, place), 3) if judged.published else "--"
    if judged.verdict:
        word = column_of(row, judged.verdict, place)
    else:
        words = VERDICT.findall(list(row.values())[-1])
        if not words:
            raise ValueError(f"missing: {place} has no verdict")
        word = words[-1]
    return rf"{judged.paper} & {judged.claim} & {measured} & {published} & {escaped(word)} \\"


def text_of(numbers: Sequence[Number | Sentence], verdicts: Sequence[Judged], results: pathlib.Path = RESULTS) -> str:
    """Return ``numbers.tex``.

    Raises:
        ValueError: the first number that is missing or stale, with its name.
    """
    lines = ["% Written by: python -m paper write. Every number is from benchmarks/results."]
    for number in numbers:
        try:
            lines.append(rf"\newcommand{{\N{number.name}}}{{{value_of(number, results)}}}")
        except ValueError as error:
            raise ValueError(f"number {number.name}: {error}") from error
    rows = []
    for judged in verdicts:
        try:
            rows.append(verdict_of(judged, results))
        except ValueError as error:
            raise ValueError(f"verdict on {judged.claim!r}: {error}") from error
    lines += [r"\newcommand{\NVerdicts}{%", *rows, "}"]
    for word in ("reproduced", "contradicted", "undecided", "in part", "no verdict", "holds"):
        count = sum(row.endswith(rf"& {escaped(word)} \\") for row in rows)
        lines.append(rf"\newcommand{{\NCount{word.title().replace(' ', '')}}}{{{count}}}")
    return "\n".join(lines) + "\n"


def check(
    numbers: Sequence[Number | Sentence],
    verdicts: Sequence[Judged],
    results: pathlib.Path = RESULTS,
    target: pathlib.Path = TARGET,
) -> None:
    """Refuse a ``numbers.tex`` that is not what the tables say today.

    Raises:
        ValueError: a number is missing or stale, or the file is.
    """
    text = text_of(numbers, verdicts, results)
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        raise ValueError(f"stale: {target.name} is not what the tables say; run: python -m paper write")
