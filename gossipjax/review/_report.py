"""The result of a review: twelve rows, as a table and as a page."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from gossipjax._base.display import displayed
from gossipjax.review._row import Row, Verdict

MARKS: dict[Verdict, str] = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a"}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Review:
    """Twelve answers about one claim.

    Attributes:
        claim: in full.
        rows: the answers, in the order of the checklist; the first four of a quick review.
        folder: of the archive.
        seconds: that the review took.
        runs: number of runs, each seed counted.
        programs: number of training programs that this process compiled; those of an interrupted review are not known.
    """

    claim: str
    rows: tuple[Row, ...]
    folder: pathlib.Path
    seconds: float
    runs: int
    programs: int

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        """Return the row of a number."""
        for row in self.rows:
            if row.number == number:
                return row
        raise KeyError(f"row {number}: this review has {', '.join(str(row.number) for row in self.rows)}")

    @property
    def failed(self) -> tuple[int, ...]:
        """Numbers of the rows that failed."""
        return tuple(row.number for row in self.rows if row.verdict == "fail")

    def summary(self) -> str:
        """Say in a line for each row what was found."""
        return "\n".join(
            [
                self._headline(),
                *(f"{row.number:2} {row.title:14} {MARKS[row.verdict]:5} {row.reason}" for row in self.rows),
            ]
        )

    def markdown(self) -> str:
        """Write the page: the table, then the numbers of every row."""
        table = ["| row | | verdict | why |", "| --- | --- | --- | --- |"]
        table += [f"| {r.number} | {r.title} | {MARKS[r.verdict]} | {_cell(r.reason)} |" for r in self.rows]
        parts = [f"# Review: {self.claim}", self._headline(), "\n".join(table)]
        for row in self.rows:
            parts.append("\n".join([f"## {row.number} {row.title}", "", *(f"* {_cell(each)}" for each in row.details)]))
        parts.append(f"Archive: `{self.folder}`. Run a cell again: `python -m gossipjax review --rerun {self.folder}`.")
        return "\n\n".join(parts) + "\n"

    def _headline(self) -> str:
        counts = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in MARKS}
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        return (
            f"{self.claim}: {words}; {self.runs} runs, {self.programs} programs in this process, {self.seconds:.0f} s"
        )

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return f"review of: {self.claim}", {row.title: MARKS[row.verdict] for row in self.rows}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
