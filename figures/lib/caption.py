"""Captions: a file beside the figures, with the same facts for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib.store import manifest_of

INTERVAL = "95 % intervals of the mean over seeds (Student t)"
RANGE = "range over seeds around their mean"


class Caption(NamedTuple):
    """The facts that a reader of a figure needs."""

    shows: str
    """Content of the panels."""
    data: str
    """Data set and its source, or what is simulated instead of learning."""
    nodes: str
    seeds: str
    bands: str
    """Meaning of bands and bars."""
    target: str
    """Value and meaning of the target, or that there is none."""


def numbers(values: Iterable[int], unit: str = "n") -> str:
    """Format numbers of nodes: ``n = 16``, ``n = 16, 64``."""
    return f"{unit} = " + ", ".join(f"{int(value):,}" for value in np.atleast_1d(np.asarray(list(values))))


def seeds_of(dataset: xr.Dataset) -> str:
    """Format the number of seeds of a dataset."""
    return seeds(dataset.sizes["seed"])


def seeds(number: int) -> str:
    """Format a number of seeds."""
    return "1 seed" if number == 1 else f"{number} seeds"


def bands(dataset: xr.Dataset, words: str) -> str:
    """Describe bands, or say that one seed has none."""
    return words if dataset.sizes["seed"] > 1 else "none: one seed"


def setting(dataset: xr.Dataset, name: str) -> int:
    """Return a whole number from the configuration of a result."""
    return int(manifest_of(dataset)["configuration"][name])


def text(stem: str, caption: Caption) -> str:
    """Format a caption as Markdown, with one fact per line."""
    facts = [f"- {name}: {words}" for name, words in caption._asdict().items() if name != "shows"]
    return "\n".join([f"# {stem}", "", caption.shows, "", *facts, ""])
