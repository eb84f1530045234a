"""A picture of a plan: who trains, sends, averages and is offline, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from gossipjax._base import palette
from gossipjax._base.arguments import instance, real, wholes
from gossipjax.devices import Devices
from gossipjax.systems._activity import CUT, Activity, within
from gossipjax.systems._hadfl.history import HADFLHistory
from gossipjax.systems._hadfl.tables import BROADCAST, EXCHANGING, WAITING
from gossipjax.systems._kernel.machines import Machines, checked_machines
from gossipjax.systems._plan import Plan, activity, checked_plan

if TYPE_CHECKING:  # functions import Matplotlib when they draw, because it is slow to import
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from gossipjax._base.figure import Figure

_TRAINED, _SENT, _OFFLINE = palette.BLUE, palette.RED, palette.ABSENT
_LOST, _DROPPED = palette.paler(_TRAINED, 0.65), palette.paler(_SENT, 0.65)
_WAITS, _IN_RING, _BROADCASTS = palette.paler(palette.YELLOW, 0.55), palette.TEAL, palette.WINE
_MOST_NODES = 60
_THIN = 2e-3
"""Share of the window, about two pixels, below which the white edges of a bar would cover it."""


def picture(
    plan: Plan,
    *,
    nodes: Sequence[int] | Int[np.ndarray, " k"],
    first_s: int | float,
    last_s: int | float,
    devices: Devices | Machines | None = None,
) -> Figure:
    """Draw what some nodes do in a window of time.

    A row per node. Its upper bar: trainings, pale if interrupted. Its lower one: models that it sends, from the time
    at which a transfer is asked for, pale if cut. Ticks: it takes a mean. Grey: it is offline. In a plan of HADFL the
    upper bar also shows who waits for a ring and who is in it, and the lower one tells broadcasts from other models.

    Args:
        plan: of any system.
        nodes: up to 60 of them, from top to bottom.
        first_s: where the window begins.
        last_s: where it ends.
        devices: of the plan, to show who is offline; None: not shown.

    Returns:
        The figure, which a notebook shows; write it with ``figure.savefig(path)``.

    Raises:
        TypeError: no plan, or no devices.
        ValueError: nodes that do not exist, none, too many, or twice; an empty window, or one after the end of the
            plan; devices of another network.
    """
    from gossipjax._base.figure import Figure

    chosen = _nodes(checked_plan(plan), nodes)
    first_s, last_s = _window(first_s, last_s, plan.end_s)
    if devices is not None:
        instance("devices", devices, (Devices, Machines), "pass those that the plan was made of, or None")
    found, ring = activity(plan, first_s, last_s), isinstance(plan.details, HADFLHistory)
    figure = Figure(figsize=(8.0, 1.3 + 0.3 * chosen.size), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(first_s, last_s)
    if devices is not None:
        _draw_offline(axes, devices, plan.num_nodes, chosen, first_s, last_s)
    _draw_activity(axes, found, chosen, plan.num_nodes)
    if isinstance(plan.details, HADFLHistory):
        _draw_rings(axes, plan.details, plan.activities[0], (first_s, last_s), _rows(chosen, plan.num_nodes))
    axes.set_ylim(chosen.size - 0.5, -0.5)
    axes.set_yticks(np.arange(chosen.size), [str(node) for node in chosen.tolist()])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel("node")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(
        handles=_legend(devices is not None, ring), loc="outside upper left", ncols=6, frameon=False, fontsize=8
    )
    return figure


def _nodes(plan: Plan, nodes: Any) -> Int[np.ndarray, " k"]:
    chosen = wholes("nodes", nodes, shape=(None,), least=0, most=plan.num_nodes - 1)
    if not 1 <= chosen.size <= _MOST_NODES:
        raise ValueError(f"nodes names {chosen.size} of them: name 1 to {_MOST_NODES} nodes by their numbers")
    if np.unique(chosen).size < chosen.size:
        raise ValueError(f"nodes={chosen.tolist()}: must be different numbers, each node having one row")
    return chosen


def _window(first_s: Any, last_s: Any, end_s: float) -> tuple[float, float]:
    first, last = real("first_s", first_s, least=0, unit="seconds"), real("last_s", last_s, unit="seconds")
    if first >= last:
        raise ValueError(f"first_s={first_s}, last_s={last_s}: the window must begin before its end")
    if first > end_s:
        raise ValueError(
            f"first_s={first_s}: nothing happens after the end of the plan at {end_s:g} s; begin before it"
        )
    return first, last


def _rows(chosen: np.ndarray, num_nodes: int) -> np.ndarray:
    """Row of each node, -1 for those that are not shown, such as a coordinator, which is node n."""
    rows = np.full(num_nodes + 1, -1)
    rows[chosen] = np.arange(chosen.size)
    return rows


def _draw_activity(axes: Axes, found: Activity, chosen: np.ndarray, num_nodes: int) -> None:
    rows = _rows(chosen, num_nodes)
    training = rows[found.training_node]
    for done, colour in ((True, _TRAINED), (False, _LOST)):
        kept = (training >= 0) & (found.training_completed == done)
        _bars(axes, training[kept] - 0.19, found.training_start_s[kept], found.training_end_s[kept], colour)
    sending = rows[found.sender]
    for cut, colour in ((False, _SENT), (True, _DROPPED)):
        kept = (sending >= 0) & ((found.state == CUT) == cut)
        _bars(axes, sending[kept] + 0.19, found.asked_s[kept], found.ended_s[kept], colour)
    averaging = rows[found.mean_node]
    kept = averaging >= 0
    axes.scatter(found.mean_s[kept], averaging[kept], marker="|", s=130, color="black", linewidths=1.2, zorder=3)


def _draw_rings(
    axes: Axes, history: HADFLHistory, whole: Activity, window: tuple[float, float], rows: Int[np.ndarray, " n1"]
) -> None:
    row = rows[history.span_node]
    seen = (row >= 0) & (history.span_end_s >= window[0]) & (history.span_start_s <= window[1])
    for state, colour in ((WAITING, _WAITS), (EXCHANGING, _IN_RING)):
        kept = seen & (history.span_state == state)
        _bars(axes, row[kept] - 0.19, history.span_start_s[kept], history.span_end_s[kept], colour)
    broadcasts = history.transfer_kind == BROADCAST
    columns = (column[broadcasts] for column in whole[4:10])
    sent = within(whole._replace(**dict(zip(Activity._fields[4:10], columns, strict=True))), *window)
    kept = (rows[sent.sender] >= 0) & (sent.state != CUT)
    _bars(axes, rows[sent.sender][kept] + 0.19, sent.asked_s[kept], sent.ended_s[kept], _BROADCASTS)


def _bars(axes: Axes, centre: np.ndarray, begin: np.ndarray, end: np.ndarray, colour: str, height: float = 0.32):
    """Draw bars with white edges, and those with their own colour that such edges would hide."""
    first, last = axes.get_xlim()
    thin = end - begin < _THIN * (last - first)
    for kept, edge in ((~thin, "white"), (thin, colour)):
        at = begin[kept]
        axes.barh(centre[kept], end[kept] - at, height=height, left=at, color=colour, edgecolor=edge, linewidth=0.4)


def _draw_offline(
    axes: Axes, devices: Devices | Machines, num_nodes: int, chosen: np.ndarray, first_s: float, last_s: float
) -> None:
    given = checked_machines(devices)
    if given.online.size != num_nodes:
        raise ValueError(f"{given.online.size} devices for a plan of {num_nodes} nodes: pass those that it was made of")
    times, nodes, joins = (np.asarray(column) for column in given.transitions(last_s))
    for row, node in enumerate(chosen.tolist()):
        mine = nodes == node
        edges = np.concatenate([[0.0], times[mine], [last_s]])
        states = np.concatenate([[given.online[node]], joins[mine]]).astype(bool)
        begin, end = np.maximum(edges[:-1], first_s)[~states], np.maximum(edges[1:], first_s)[~states]
        axes.barh(np.full(begin.size, row), end - begin, height=0.9, left=begin, color=_OFFLINE, zorder=0)


def _legend(offline: bool, ring: bool) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Artist] = [
        Patch(color=_TRAINED, label="trains"),
        Patch(color=_LOST, label="interrupted"),
        Patch(color=_SENT, label="sends"),
        Patch(color=_DROPPED, label="cut"),
        Line2D([], [], marker="|", markersize=9, color="black", linestyle="none", label="averages"),
    ]
    if ring:
        rings = ((_WAITS, "waits for the ring"), (_IN_RING, "in the ring"), (_BROADCASTS, "broadcasts"))
        entries += [Patch(color=colour, label=label) for colour, label in rings]
    return [*entries, Patch(color=_OFFLINE, label="offline")] if offline else entries
