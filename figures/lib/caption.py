"""What a picture is made of, in words: a file of captions beside the pictures, the same five facts for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.lib.store import manifest_of

INTERVAL = "95 % intervals of the mean over seeds (Student t)"
RANGE = "range over seeds around their mean"


class Caption(NamedTuple):
    """The facts without which a curve says little."""

    shows: str
    """What is drawn where."""
    data: str
    """Data set, and where it comes from; or what is simulated instead of learning."""
    nodes: str
    seeds: str
    bands: str
    """What bands and bars are."""
    target: str
    """Its value and what it is, or that there is none."""


def numbers(values: Iterable[int], unit: str = "n") -> str:
    """Write numbers of nodes: ``n = 16``, ``n = 16, 64``."""
    return f"{unit} = " + ", ".join(f"{int(value):,}" for value in np.atleast_1d(np.asarray(list(values))))


def seeds_of(dataset: xr.Dataset) -> str:
    """Write the number of seeds."""
    return seeds(dataset.sizes["seed"])


def seeds(number: int) -> str:
    """Write a number of seeds."""
    return "1 seed" if number == 1 else f"{number} seeds"


def bands(dataset: xr.Dataset, words: str) -> str:
    """Say what bands are, or that one seed has none."""
    return words if dataset.sizes["seed"] > 1 else "none: one seed"


def setting(dataset: xr.Dataset, name: str) -> int:
    """Read a whole number of the configuration that a result was made with."""
    return int(manifest_of(dataset)["configuration"][name])


def text(stem: str, caption: Caption) -> str:
    """Write a caption as Markdown, one fact on a line."""
    facts = [f"- {name}: {words}" for name, words in caption._asdict().items() if name != "shows"]
    return "\n".join([f"# {stem}", "", caption.shows, "", *facts, ""])
