"""Rounds behind barriers: Karp's cycle mean against all cycles, against the recursion, and against the planner."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax import devices, systems, topology
from theory import round_time

SIZE = 4e6
UP, DOWN = np.array([4.0, 2, 8, 1]) * 1e6, np.array([4.0, 4, 8, 2]) * 1e6
COMPUTE = np.array([1.0, 2, 3, 4])
GRAPHS = {
    "ring": (topology.ring(4), 6.5),
    "path": (topology.path(4), 6.5),
    "star": (topology.star(4), 5.5),
    "complete": (topology.complete(4), 6.5),
}


def transfer_of(graph, up, down):
    way = SIZE / np.minimum(up[None], down[:, None])
    return np.where(graph.adjacency().toarray() > 0, way, np.inf)


@pytest.mark.parametrize("name", GRAPHS)
def test_four_machines(name):
    graph, seconds = GRAPHS[name]
    assert round_time.seconds_per_round(COMPUTE, transfer_of(graph, UP, DOWN)) == pytest.approx(seconds, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_it_is_the_largest_mean_of_a_cycle(n, seed, density):
    rng = np.random.default_rng(seed)
    transfer = np.where(rng.random((n, n)) < density, rng.exponential(size=(n, n)), np.inf)
    D = round_time.delays(rng.exponential(size=n), transfer)
    graph = nx.DiGraph([(j, i, {"weight": D[i, j]}) for i in range(n) for j in range(n) if np.isfinite(D[i, j])])
    cycles = [np.mean([D[b, a] for a, b in zip(c, c[1:] + c[:1], strict=True)]) for c in nx.simple_cycles(graph)]
    # Sums of at most six numbers.
    assert round_time.seconds_per_round(np.diag(D), transfer) == pytest.approx(max(cycles), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_recursion_and_the_planner_go_at_that_pace(seed):
    """Transfers that do not slow each other down: every end of every round, and the pace in the long run."""
    n, rounds, rng = 7, 60, np.random.default_rng(seed)
    compute = rng.exponential(size=n)
    up, down = np.floor(1e6 * rng.exponential(size=(2, n)) + 1e5)  # plans count whole bytes a second
    graph = topology.barabasi_albert(n, 2, seed=seed)
    transfer = transfer_of(graph, up, down)
    ends = round_time.round_ends(compute, transfer, rounds)
    machines = devices.from_arrays(compute / 3, up, down)  # training takes three inferences
    plan = systems.synchronous(
        machines, graph, rounds, local_steps=1, model_bytes=int(SIZE), round_seconds=None, bandwidth="unlimited"
    )
    np.testing.assert_allclose(plan.round_end_s, ends.max(axis=1), rtol=1e-9)  # sums of up to 120 floats
    pace = round_time.seconds_per_round(compute, transfer)
    # After the start, ends repeat with the period of a critical cycle of at most n nodes.
    later = [(ends[-1] - ends[-1 - period]) / period for period in range(1, n + 1)]
    assert min(np.abs(each - pace).max() for each in later) < 1e-9 * pace


@pytest.mark.parametrize(
    ("compute", "transfer", "words"),
    [
        ([1.0, -1.0], np.ones((2, 2)), "compute"),
        ([1.0, 1.0], -np.ones((2, 2)), "0 or more"),
    ],
)
def test_what_is_no_time_is_refused(compute, transfer, words):
    with pytest.raises(ValueError, match=words):
        round_time.seconds_per_round(np.asarray(compute), transfer)
