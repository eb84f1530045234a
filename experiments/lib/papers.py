"""The list of paper-scale cells, in order of value.

An entry takes cells of one experiment's paper configuration by their labels; a cell belongs to the first entry that
takes it. What no entry takes is not made by the queue, because two cores cannot finish it; the report says so.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from experiments.lib.cells import Cell, Shelf
from experiments.lib.hadfl_runs import OF_PAPER
from experiments.lib.sharing_schemes import FULL, JWINS, SAMPLING, TOP_K
from experiments.plexus_vs_baselines import PLEXUS, SERVER

JWINS_STEM, HADFL_STEM, PLEXUS_STEM = "jwins_accuracy_vs_bytes", "hadfl_time_to_accuracy", "plexus_vs_baselines"
SIZES_STEM = "jwins_scalability"


class Entry(NamedTuple):
    """Cells of one experiment, by their labels."""

    stem: str
    hours: float
    """Of one cell on two cores; an estimate until the first one is finished."""
    only: dict[str, tuple[Any, ...]]
    """Values of labels; a cell without such a label is not taken."""

    def takes(self, cell: Cell) -> bool:
        """Whether a cell belongs to it."""
        return cell.stem == self.stem and all(cell.labels.get(name) in values for name, values in self.only.items())


ORDER = (
    Entry(JWINS_STEM, 2.0, {"task": ("cifar10",), "scheme": (FULL, JWINS), "seed": (0,)}),
    Entry(HADFL_STEM, 0.25, {"rate": (0.02, 0.06, 0.2)}),
    *(Entry(HADFL_STEM, 0.25, {"scheme": OF_PAPER, "seed": (seed,)}) for seed in range(3)),
    Entry(PLEXUS_STEM, 0.1, {"task": ("writers",)}),
    Entry(JWINS_STEM, 0.2, {"task": ("writers",), "seed": (0, 1, 2)}),
    *(Entry(SIZES_STEM, n / 960, {"nodes": (n,)}) for n in (96, 192, 384)),
    Entry(JWINS_STEM, 2.0, {"task": ("cifar10",), "scheme": (SAMPLING, TOP_K), "seed": (0,)}),
    Entry(HADFL_STEM, 0.25, {}),
    Entry(PLEXUS_STEM, 0.1, {"task": ("movielens",)}),
    Entry(JWINS_STEM, 0.2, {"task": ("movielens",)}),
    Entry(PLEXUS_STEM, 1.0, {"task": ("cifar10",), "system": (PLEXUS, SERVER)}),
    Entry(JWINS_STEM, 0.2, {"task": ("writers",)}),
    *(Entry(JWINS_STEM, 2.0, {"task": ("cifar10",), "seed": (seed,)}) for seed in (1, 2, 3, 4)),
)
"""In order of value. Times of CIFAR-10 are 75 to 150 minutes a scheme and seed for JWINS."""
STEMS = tuple(dict.fromkeys(entry.stem for entry in ORDER))


class Job(NamedTuple):
    """A cell in the queue."""

    cell: Cell
    hours: float
    """Estimated, as its entry says."""


def configuration(stem: str, size: str, shelf: Shelf) -> Any:
    """Return the paper's configuration of an experiment, or its quick one, with its cells on a shelf."""
    module = importlib.import_module(f"experiments.{stem}")
    return {"paper": module.PAPER, "quick": module.QUICK}[size]._replace(keep=shelf)


def cells(stem: str, size: str, shelf: Shelf) -> list[Cell]:
    """List all cells of an experiment."""
    return importlib.import_module(f"experiments.{stem}").cells(configuration(stem, size, shelf))


def jobs(stems: tuple[str, ...], size: str, shelf: Shelf) -> list[Job]:
    """List the cells to make in order of value; of quick configurations, a rehearsal, all of them."""
    every = [cell for stem in stems for cell in cells(stem, size, shelf)]
    if size == "quick":
        return [Job(cell, 0.01) for cell in every]
    found: dict[str, Job] = {}
    for entry in ORDER:
        for cell in filter(entry.takes, every):
            found.setdefault(cell.name, Job(cell, entry.hours))
    return list(found.values())
