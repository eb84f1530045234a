"""Records as a long table, one row for each record, seed and node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossipjax._base.arguments import instance

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

RUN = ("record", "seed")
"""Dimensions of every run."""


def long_table(dataset: Dataset, by: Any) -> DataFrame:
    """Return the variables that have a dimension, besides those of every run, as a tidy table.

    Args:
        dataset: of a trajectory.
        by: the dimension, such as ``"node"``; None: variables with no other dimension.

    Raises:
        TypeError: if ``by`` is not a name.
        ValueError: if no variable has the dimension, and only that.
    """
    dims = () if by is None else (instance("by", by, str, "the name of a dimension, or None"),)
    wanted = set(dims)
    names = [str(name) for name, each in dataset.data_vars.items() if set(map(str, each.dims)) - set(RUN) == wanted]
    if not names or by in RUN:
        others = sorted({str(dim) for each in dataset.data_vars.values() for dim in each.dims} - set(RUN))
        raise ValueError(
            f"by={by!r}: nothing is recorded by that dimension alone; there are {', '.join(others) or 'none'}. For "
            "results of every node use observe.metrics_by_node(task); None gives one row for each record"
        )
    present = [dim for dim in (*RUN, *dims) if any(dim in dataset[name].dims for name in names)]
    frame = dataset[names].to_dataframe(dim_order=present).reset_index()
    first = [name for name in ("record", "event", "time", "seed", *dims) if name in frame]
    return frame[[*first, *names]]
