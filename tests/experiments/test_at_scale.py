"""Tables of the experiments with a thousand nodes, from curves written by hand."""

import numpy as np
import pytest
import xarray as xr

from experiments import dynamic_vs_static
from experiments.lib import at_scale


def test_megabytes_of_each_graph_are_tabulated():
    """8 nodes, 1,000 parameters, 10 rounds: 4 models a round on the sparse graphs, 2 · 7/8 on the complete one."""
    models = np.array([4.0, 4.0, 14 / 8])
    sizes = {"graph": list(dynamic_vs_static.NETWORKS), "seed": range(3), "record": range(4), "node": range(8)}
    shape = tuple(map(len, sizes.values()))
    sent = np.broadcast_to((models[:, None] * 4000 * np.array([0, 3, 6, 10]))[:, None, :, None], shape)
    curves = {"accuracy_by_node": (tuple(sizes), np.full(shape, 0.5)), "bytes_sent_by_node": (tuple(sizes), sent)}
    of_run = np.broadcast_to(models[:, None], shape[:2])
    facts = {"disagreement": (("graph", "seed"), np.ones(shape[:2])), "models_sent": (("graph", "seed"), of_run)}
    to_all = {"megabytes_to_neighbors": ("graph", 0.04 * np.array([4.0, 4.0, 7.0]))}
    attrs = {"trivial": 0.1, "num_nodes": 8, "parameters": 1000, "num_rounds": 10}
    dataset = at_scale.with_summaries(xr.Dataset(curves | facts | to_all, sizes, attrs))
    rows = {row.quantity: row for row in dynamic_vs_static.table(dataset)}
    for name, count in zip(dynamic_vs_static.NETWORKS, models, strict=True):
        row = rows[f"{name}: MB per node"]
        # Sums in another order.
        assert [row.measured, row.predicted] == pytest.approx([0.04 * count] * 2, rel=1e-12)
    assert "0.28 MB" in rows[f"{at_scale.COMPLETE}: MB per node"].source
