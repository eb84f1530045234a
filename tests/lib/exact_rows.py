"""Linear algebra in fractions: what a set of rows determines, in exact arithmetic."""

from fractions import Fraction
from typing import NamedTuple


class Rows(NamedTuple):
    """What is known from some rows."""

    projector: list[list[Fraction]]
    """Onto their span."""
    rank: int

    @property
    def squared_parts(self) -> list[float]:
        """The squared length of each unit vector inside the span."""
        return [float(row[c]) for c, row in enumerate(self.projector)]

    @property
    def determined(self) -> list[bool]:
        """Whether each unit vector lies in the span."""
        return [row[c] == 1 for c, row in enumerate(self.projector)]


def reduced(rows):
    """The rows of the reduced echelon form, by Gauss and Jordan."""
    found, pivots = [], []
    for row in dict.fromkeys(map(tuple, rows)):
        for c, lead in zip(pivots, found, strict=True):
            if row[c]:
                row = [a - row[c] * b for a, b in zip(row, lead, strict=True)]
        c = next((c for c, value in enumerate(row) if value), None)
        if c is None:
            continue
        lead = [value / row[c] for value in row]
        found = [[a - old[c] * b for a, b in zip(old, lead, strict=True)] if old[c] else old for old in found]
        found.append(lead)
        pivots.append(c)
    return found


def known_from(rows, covariance=None):
    """Project on the span of rows of fractions: ``Rᵀ (R N Rᵀ)⁻¹ R`` with R their echelon form, N = I by default."""
    size, R = len(rows[0]), reduced(rows)
    under = R if covariance is None else [[dot(row, column) for column in covariance] for row in R]
    solved = reduced([[*(dot(x, y) for y in R), *right] for x, right in zip(under, R, strict=True)])
    S = [row[len(R) :] for row in sorted(solved, key=lambda row: row.index(1))]
    P = [[sum((R[r][a] * S[r][b] for r in range(len(R))), Fraction(0)) for b in range(size)] for a in range(size)]
    return Rows(P, len(R))


def dot(a, b):
    """The inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True) if x and y)
