"""Pictures of all nodes: deciles and the worst tenth over time, and the end against a property of the nodes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from gossipjax._base import palette
from gossipjax._base.arguments import choice, instance, reals
from gossipjax._base.display import headline
from gossipjax._base.figure import Figure
from gossipjax.results._trajectory import configuration

TENTH = 0.1
_FEW = 24
"""Different values of a property up to which their means are drawn."""
Worst = Literal["lowest", "highest"]


class _Nodes(NamedTuple):
    """One variable of all nodes."""

    values: Float[np.ndarray, "record seed node"]
    label: str
    worst: str


def worst_tenth(values: Float[np.ndarray, "*batch node"], worst: Worst | str = "lowest") -> Float[np.ndarray, "*batch"]:
    """Return the mean of the worst tenth of the nodes, at least one of them.

    >>> import numpy as np
    >>> float(worst_tenth(np.arange(20.0)))
    0.5

    Args:
        values: of the nodes, along the last axis.
        worst: whether the ``"lowest"`` values are the worst, as of an accuracy, or the ``"highest"``, as of a loss.
    """
    ordered = np.sort(values, axis=-1)
    count = max(1, int(TENTH * ordered.shape[-1]))
    lowest = choice("worst", worst, ("lowest", "highest")) == "lowest"
    return np.asarray((ordered[..., :count] if lowest else ordered[..., -count:]).mean(-1))


def plot_nodes(
    dataset: xr.Dataset, *, variable: str, against: Any = None, label: str = "degree", worst: Worst | str = "lowest"
) -> Figure:
    """Draw deciles of the nodes and their worst tenth over time, and all nodes at the end.

    Args:
        dataset: of a trajectory.
        variable: recorded for each node, such as ``"accuracy_by_node"``.
        against: one number for each node, such as ``topology.degrees``, for the horizontal axis of the second panel;
            None: it shows the share of nodes below each value.
        label: what ``against`` is.
        worst: which end of the values is the worst, ``"lowest"`` or ``"highest"``.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the variable or ``against`` is not one number for each node, or ``worst`` is unknown.
    """
    nodes = _nodes_of(dataset, variable, choice("worst", worst, ("lowest", "highest")))
    count = nodes.values.shape[-1]
    if against is not None:
        against = reals("against", against, shape=(count,), remedy=f"{count}, one for each node")
    figure = Figure(figsize=(7.6, 3.2), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)
    _over_time(left, dataset, nodes)
    if against is None:
        _distribution(right, nodes)
    else:
        _scatter(right, nodes, against, instance("label", label, str, "words for the axis"))
    for ax in (left, right):
        ax.grid(True, color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    figure.suptitle(headline(configuration(dataset)), fontsize=9, color="0.35")
    return figure


def _nodes_of(dataset: xr.Dataset, variable: Any, worst: str) -> _Nodes:
    there = [str(name) for name, each in dataset.data_vars.items() if set(each.dims) - {"seed"} == {"record", "node"}]
    remedy = f"these are recorded for each node: {', '.join(there) or 'none'}; use observe.metrics_by_node(task)"
    name = choice("variable", variable, there) if there else _none(variable, remedy)
    found = dataset[name]
    found = found if "seed" in found.dims else found.expand_dims("seed")
    percent = name.startswith("accuracy") and found.attrs.get("units", "1") == "1"
    values = found.transpose("record", "seed", "node").to_numpy().astype(np.float64) * (100.0 if percent else 1.0)
    units = "%" if percent else str(found.attrs.get("units", "1"))
    words = name.removesuffix("_by_node").replace("_", " ")
    return _Nodes(values, words if units == "1" else f"{words} ({units})", worst)


def _none(variable: Any, remedy: str) -> str:
    raise ValueError(f"variable={variable!r}: {remedy}")


def _over_time(ax: Axes, dataset: xr.Dataset, nodes: _Nodes) -> None:
    rounds = bool(configuration(dataset).get("synchronous"))
    x = dataset["event"].to_numpy()
    deciles = np.quantile(nodes.values, np.linspace(0, 1, 11), axis=-1).mean(-1)
    for low in range(5):
        words = "a tenth of the nodes in each shade" if low == 0 else f"_{low}"
        shade = palette.paler(palette.BLUE, 0.85 - 0.13 * low)
        ax.fill_between(x, deciles[low], deciles[10 - low], color=shade, linewidth=0, label=words)
    ax.plot(x, nodes.values.mean((1, 2)), color=palette.BLUE, linewidth=1.4, label="mean")
    last = worst_tenth(nodes.values, nodes.worst).mean(-1)
    ax.plot(x, last, color=palette.RED, linewidth=1.2, linestyle="--", label="mean of the worst tenth")
    ax.set_xlabel("round" if rounds else "event", fontsize=9)
    ax.set_ylabel(nodes.label, fontsize=9)
    ax.set_title("Over time", fontsize=10, loc="left")
    ax.legend(fontsize=7, frameon=False)


def _scatter(ax: Axes, nodes: _Nodes, against: np.ndarray, label: str) -> None:
    ends = nodes.values[-1].mean(0)
    ax.plot(against, ends, ".", color=palette.BLUE, markersize=3, alpha=0.5, label="a node")
    known, place = np.unique(against, return_inverse=True)
    if len(known) <= _FEW:
        means = np.bincount(place, ends) / np.bincount(place)
        ax.plot(known, means, "o-", color=palette.RED, markersize=4, linewidth=1.0, label=f"mean at that {label}")
    ax.set_xlabel(label, fontsize=9)
    ax.set_title("At the end", fontsize=10, loc="left")
    ax.legend(fontsize=7, frameon=False)


def _distribution(ax: Axes, nodes: _Nodes) -> None:
    ends = np.sort(nodes.values[-1], axis=None)
    ax.plot(ends, 100 * np.arange(1, ends.size + 1) / ends.size, color=palette.BLUE, linewidth=1.4)
    at = 100 * TENTH if nodes.worst == "lowest" else 100 - 100 * TENTH
    ax.axhline(at, color=palette.RED, linewidth=1.0, linestyle="--")
    ax.text(0.01, at, "worst tenth", transform=ax.get_yaxis_transform(), fontsize=7, color=palette.RED, va="bottom")
    ax.set_xlabel(nodes.label, fontsize=9)
    ax.set_ylabel("nodes below (%)", fontsize=9)
    ax.set_ylim(0, 100)
    ax.set_title("At the end", fontsize=10, loc="left")
