"""Networks that change from round to round, long searches that can be interrupted, and devices that are lost."""

import itertools
import math
import sys

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

import gossipjax
from gossipjax import design, devices, mixing, systems, timeline, topology
from gossipjax.design import _anneal, _cycles, _device_losses, _pace, _search, _sequence

FOUR = devices.from_arrays(np.array([1.0, 2, 3, 4]) / 3, np.array([4.0, 2, 8, 1]) * 1e6, np.array([4.0, 4, 8, 2]) * 1e6)
LOAD = {"model_bytes": 4_000_000, "local_steps": 1}
PHONES = devices.fitted(6, seed=0)
GOAL = design.consensus(0.03)


def dense(cycle):
    return np.stack([W.toarray() for W in cycle])


def dealt(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one-peer exponential", "Base-2", "Base-4", "OD-EquiDyn", "OU-EquiDyn"])
def test_rounds_of_cycles_are_those_of_a_loop(name):
    cycle, b, n = design.standard_sequences(8, seed=0)[name], dealt(8), 8
    X, rounds = np.eye(n), 0
    while np.sum((X - 1 / n) ** 2) / n > 0.03 * (n - 1) / n:
        X, rounds = cycle[rounds % len(cycle)].toarray() @ X, rounds + 1
    assert GOAL.cycle_rounds(dense(cycle)) == rounds > 1
    x, rounds, error = np.full((n, 2), 2.0), 0, 0.2
    while np.mean(np.sum((x - b.mean(0)) ** 2, axis=1)) > error:
        x, rounds = cycle[rounds % len(cycle)].toarray() @ (0.9 * x + 0.1 * b), rounds + 1
    assert design.quadratic(b, step=0.1, start=2.0, error=error).cycle_rounds(dense(cycle)) == rounds > 1


@pytest.mark.parametrize("target", [GOAL, design.quadratic(dealt(4), step=0.1, start=2.0, error=0.8)])
def test_a_fixed_graph_is_a_cycle_of_one_matrix(target):
    for graph in (topology.ring(4), topology.star(4)):
        alone = design.score(FOUR, target, graph, **LOAD)
        assert 1 < alone.rounds < np.inf
        assert design.score(FOUR, target, [mixing.metropolis(graph)], **LOAD) == alone


@pytest.mark.parametrize("bandwidth", ["greedy", "fair", "unlimited"])
def test_scores_of_cycles_are_ends_of_plans(bandwidth):
    cycle = [*mixing.base_graph(6, 1), mixing.metropolis(topology.ring(6))]
    target = design.quadratic(dealt(6), step=0.1, start=4.0, error=1.0)
    score = design.score(PHONES, target, cycle, bandwidth=bandwidth, **LOAD)
    rounds = int(score.rounds)
    plan = systems.synchronous(PHONES, cycle, rounds, round_seconds=None, bandwidth=bandwidth, **LOAD)
    assert rounds > len(cycle)
    assert score.seconds == plan.end_s
    assert score.bytes == plan.total_bytes(plan.end_s)


def test_rounds_that_are_not_planned_take_the_pace_of_whole_periods():
    """Without shared links rounds are periodic; plans of 2 p k rounds then have the pace of the product of delays."""
    cycle = mixing.base_graph(6, 1)
    target = design.Target("many", lambda W: 0.0, 10**6, lambda matrices: 997.0)
    score = design.score(PHONES, target, cycle, bandwidth="unlimited", num_rounds=60, **LOAD)
    site = _pace.site_of(PHONES, **LOAD, time_batch=1, bandwidth="unlimited")
    pace = _pace.screen(site, _cycles.links_of(dense(cycle)))
    assert score.seconds_per_round == pytest.approx(pace, rel=1e-9)  # differences of sums of a hundred floats
    longer = systems.synchronous(PHONES, cycle, 997, round_seconds=None, bandwidth="unlimited", **LOAD)
    assert score.seconds == pytest.approx(longer.end_s, rel=1e-2)  # the last rounds are no whole period


@pytest.mark.parametrize("seed", range(3))
def test_the_screen_of_a_cycle_is_exact_without_shared_links(seed):
    """Against a recursion over 400 rounds of when nodes begin; the pace of a period that repeats."""
    rng = np.random.default_rng(seed)
    cycle = dense([mixing.metropolis(topology.random_tree(5, seed=int(s))) for s in rng.integers(1000, size=3)])
    site = _pace.site_of(devices.fitted(5, seed=seed), **LOAD, time_batch=1, bandwidth="unlimited")
    links, begin, at = _cycles.links_of(cycle), np.zeros(5), []
    for T in range(400 * 3):
        D = _pace.delays(site, links[T % 3])
        begin = (D + begin).max(axis=1)
        at.append(begin.max())
    pace = (at[-1] - at[-1 - 3 * 200]) / (3 * 200)
    assert _pace.screen(site, links) == pytest.approx(pace, rel=1e-9)


@pytest.mark.parametrize("bandwidth", ["greedy", "unlimited"])
def test_delays_of_links_of_one_direction(bandwidth):
    """Bandwidth is split among those that a node sends to, and among those that it hears from."""
    A = np.random.default_rng(0).random((6, 6)) < 0.4
    np.fill_diagonal(A, False)
    assert (A.sum(0) != A.sum(1)).any()
    site = _pace.site_of(PHONES, **LOAD, time_batch=1, bandwidth=bandwidth)
    up, down, train = PHONES.upload_bytes_per_second, PHONES.download_bytes_per_second, site.learning.train_seconds
    expected = np.full((6, 6), -np.inf)
    for i, j in itertools.product(range(6), repeat=2):
        if A[i, j]:
            sent, heard = (A[:, j].sum(), A[i].sum()) if bandwidth == "greedy" else (1, 1)
            expected[i, j] = train[j] + LOAD["model_bytes"] * max(sent / up[j], heard / down[i])
    np.fill_diagonal(expected, train)
    np.testing.assert_allclose(_pace.delays(site, A), expected, rtol=1e-12)  # a quotient and a sum


def test_cycles_that_never_get_there_end_early():
    """Two halves that never talk, and a ring whose optimum is too far off, in few rounds of ten million."""
    halves = [np.kron(np.eye(2), np.full((2, 2), 0.5))] * 2
    assert design.consensus(0.1, horizon=10**7).cycle_rounds(np.stack(halves)) == np.inf
    ring = dense([mixing.metropolis(topology.ring(4))] * 2)
    far = design.quadratic(np.array([9.0, 9, 0, 0]), step=0.5, start=0.0, error=0.01, horizon=10**7)
    assert far.cycle_rounds(ring) == np.inf
    assert np.isinf(design.quadratic(np.array([9.0, 9, 0, 0]), step=0.5, start=0.0, error=0.01).rounds(ring[0]))


@pytest.mark.parametrize("n", [2, 3, 5, 6, 8, 12, 16])
def test_usual_sequences(n):
    found = design.standard_sequences(n, seed=0)
    assert ("one-peer exponential" in found) == (n & (n - 1) == 0)
    for name, cycle in found.items():
        matrices = dense(cycle)
        np.testing.assert_allclose(matrices.sum(1), 1, atol=1e-12)
        np.testing.assert_allclose(matrices.sum(2), 1, atol=1e-12)
        if "EquiDyn" not in name:
            product = np.linalg.multi_dot([np.eye(n), *matrices[::-1], np.eye(n)])
            np.testing.assert_allclose(product, 1 / n, atol=1e-12)
    one = design.standard_sequences(n, max_degree=1, seed=0)
    assert all(_cycles.links_of(dense(cycle)).sum(-1).max() <= 1 for cycle in one.values())
    assert set(one) <= set(found)


# --- search -----------------------------------------------------------------------------------------------------------


def matchings():
    """The three perfect matchings of four nodes."""
    for a in (1, 2, 3):
        W = np.zeros((4, 4))
        rest = [k for k in (1, 2, 3) if k != a]
        for i, j in ((0, a), rest):
            W[np.ix_([i, j], [i, j])] = 0.5
        yield W


def test_a_search_finds_the_best_pairs_of_matchings():
    """Of all pairs of perfect matchings, six average exactly; the search is at least as fast as the best of them."""
    target = design.consensus(1e-6)
    scores = [design.score(FOUR, target, pair, **LOAD) for pair in itertools.product(matchings(), repeat=2)]
    best = min(score.seconds for score in scores)
    assert sum(score.rounds == 2 for score in scores) == 6
    found = design.sequence(FOUR, target, num_steps=150, restarts=2, seed=0, **LOAD)
    assert found.score.seconds <= best
    assert found.score == design.score(FOUR, target, found.matrices, **LOAD)
    assert found.gain >= 1
    assert (np.diff(found.history) <= 0).all()
    assert found.history[-1] == found.score.seconds
    assert found.history.shape == (300,)
    assert list(found.standard) == sorted(found.standard, key=lambda name: found.standard[name].seconds)
    assert {"ring", "Base-2"} <= set(found.standard)
    assert len(timeline.rounds(found.matrices, 4)) == 4


MOVES = {
    "trade": _sequence._trade,
    "trade once": _sequence._trade_once,
    "reorder": _sequence._reorder,
    "drop": _sequence._drop,
    "replace": lambda rng, cycle: _sequence._replace(list(dense(mixing.base_graph(5, 2))), rng, cycle),
    "insert": lambda rng, cycle: _sequence._insert(list(dense(mixing.base_graph(5, 2))), 6, rng, cycle),
}


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(MOVES)), st.integers(0, 2**32 - 1))
def test_moves_leave_rows_and_columns_as_they_are(move, seed):
    rng = np.random.default_rng(seed)
    cycle = dense(mixing.base_graph(5, 1))
    before, lengths = cycle.copy(), {"drop": -1, "insert": 1}
    other = MOVES[move](rng, cycle)
    np.testing.assert_array_equal(cycle, before)
    assert len(other) == len(cycle) + lengths.get(move, 0)
    np.testing.assert_allclose(other.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(other.sum(2), 1, atol=1e-12)
    if move in ("trade", "reorder"):
        np.testing.assert_allclose(
            sorted(np.linalg.norm(other, axis=(1, 2))), sorted(np.linalg.norm(cycle, axis=(1, 2))), rtol=1e-12
        )
    assert MOVES["drop"](rng, cycle[:1]) is None
    assert MOVES["insert"](rng, np.concatenate([cycle, cycle])) is None


def test_limits_of_sequences_hold():
    found = design.sequence(PHONES, GOAL, max_degree=1, num_steps=40, restarts=1, seed=0, **LOAD)
    assert _cycles.links_of(dense(found.matrices)).sum(-1).max() == 1
    assert "ring" not in found.standard
    with pytest.raises(ValueError, match="max_bytes=1: no usual network gets there"):
        design.sequence(PHONES, GOAL, max_bytes=1.0, num_steps=1, seed=0, **LOAD)
    with pytest.raises(ValueError, match="max_period=0"):
        design.sequence(PHONES, GOAL, max_period=0, num_steps=1, seed=0, **LOAD)


def test_rounds_are_inserted_up_to_max_period(monkeypatch):
    spaces, anneal = [], _sequence.anneal
    monkeypatch.setattr(_sequence, "anneal", lambda space, *rest: spaces.append(space) or anneal(space, *rest))
    design.sequence(PHONES, GOAL, max_period=3, num_steps=0, seed=0, **LOAD)
    insert, rng, lengths = spaces[0].moves[-1], np.random.default_rng(0), []
    cycle = dense([mixing.metropolis(topology.ring(6))])
    for _ in range(20):
        longer = insert(rng, cycle)
        cycle = cycle if longer is None else longer
        lengths.append(len(cycle))
    assert lengths == [2] + [3] * 19


@pytest.mark.parametrize("target", [GOAL, design.quadratic(np.tile([1.0, -1.0], 4), step=0.05, start=5.0, error=0.1)])
def test_on_identical_devices_a_sequence_gains_next_to_nothing(target):
    """Who has which place does not matter there, and the usual rounds are good ones."""
    load = {"model_bytes": 1_000_000, "local_steps": 5}
    found = design.sequence(devices.uniform(8), target, num_steps=60, restarts=1, seed=0, **load)
    assert 1 <= found.gain < 1.1


def test_sequences_are_confirmed_on_other_draws():
    found = design.sequence(PHONES, GOAL, num_steps=40, restarts=1, seed=0, **LOAD)
    draws = design.redrawn(PHONES, 3, spread=0.5, seed=1)
    verdict = design.confirm(found, draws)
    for ratio, draw in zip(verdict.ratios, draws, strict=True):
        own = design.score(draw, GOAL, found.matrices, **LOAD).seconds
        usual = min(design.score(draw, GOAL, found.standard_networks[name], **LOAD).seconds for name in found.standard)
        assert ratio == pytest.approx(usual / own, rel=1e-14)  # a logarithm and back
    assert "best usual network" in found.summary()
    labels = [label.get_text() for label in found.plot().axes[1].get_yticklabels()]
    assert labels == ["designed", *found.standard]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: design.score(FOUR, design.Target("mine", lambda W: 5.0, 9), mixing.base_graph(4, 1), **LOAD),
            "target=mine: has no cycle_rounds",
        ),
        (lambda: design.score(FOUR, GOAL, [], **LOAD), "graph is an empty list"),
        (lambda: design.score(FOUR, GOAL, mixing.base_graph(5, 1), **LOAD), r"graph\[0\] is of 5 nodes for 4 devices"),
        (lambda: design.score(FOUR, GOAL, [mixing.uniform(topology.star(4))], **LOAD), "column"),
        (
            lambda: design.score(
                FOUR, design.quadratic(dealt(3), step=0.1, start=0.0, error=0.1), mixing.base_graph(4, 1), **LOAD
            ),
            "targets of 3 nodes for a network of 4",
        ),
    ],
)
def test_cycles_without_a_score_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- long searches ----------------------------------------------------------------------------------------------------

SEARCHES = {"network": design.network, "sequence": design.sequence}
SHORT = {"num_steps": 30, "restarts": 2, "seed": 0, **LOAD}


def same(a, b):
    """Tell whether two designs are one."""
    networks = [_device_losses.contenders(each)["designed"] for each in (a, b)]
    if isinstance(a, design.Design):
        assert networks[0].same_edges(networks[1])
    else:
        np.testing.assert_array_equal(*map(dense, networks))
    assert (a.score, a.num_planned) == (b.score, b.num_planned)
    np.testing.assert_array_equal(a.history, b.history)


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("planned", [1, 17])
def test_an_interrupted_search_continues_as_if_nothing_had_been(kind, planned, tmp_path, monkeypatch):
    search, file = SEARCHES[kind], tmp_path / "search.npz"
    whole = search(PHONES, GOAL, **SHORT)
    plan, calls = _anneal.score_of, []

    def interrupted(*given):
        calls.append(None)
        if len(calls) > planned:
            raise KeyboardInterrupt
        return plan(*given)

    with monkeypatch.context() as patch:
        patch.setattr(_anneal, "score_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(PHONES, GOAL, checkpoint=file, **SHORT)
    same(search(PHONES, GOAL, checkpoint=file, **SHORT), whole)
    monkeypatch.setattr(_anneal, "score_of", None)  # a search that has ended plans nothing
    same(search(PHONES, GOAL, checkpoint=file, **SHORT), whole)


@pytest.mark.parametrize("kind", SEARCHES)
def test_more_restarts_continue_a_search(kind, tmp_path):
    search, file = SEARCHES[kind], tmp_path / "search.npz"
    search(PHONES, GOAL, checkpoint=file, **(SHORT | {"restarts": 1}))
    same(search(PHONES, GOAL, checkpoint=file, **SHORT), search(PHONES, GOAL, **SHORT))


def test_a_file_of_another_search_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "search.npz"
    design.network(PHONES, GOAL, checkpoint=file, **SHORT)
    others = [{"seed": 1}, {"num_steps": 31}, {"max_degree": 3}, {"weights": mixing.max_degree}, {"local_steps": 2}]
    for other in others:
        with pytest.raises(ValueError, match="is of a search with other arguments"):
            design.network(PHONES, GOAL, checkpoint=file, **(SHORT | other))
    with pytest.raises(ValueError, match="is of a search with other arguments"):
        design.network(PHONES, design.consensus(0.02), checkpoint=file, **SHORT)
    with pytest.raises(ValueError, match="is of a search with other arguments"):
        design.sequence(PHONES, GOAL, checkpoint=file, **SHORT)
    for wrong in (tmp_path / "search.txt", tmp_path / "nowhere" / "search.npz"):
        with pytest.raises(ValueError, match=r"checkpoint=.*must be the path of an .npz file in a folder that exists"):
            design.network(PHONES, GOAL, checkpoint=wrong, **SHORT)
    monkeypatch.setattr(gossipjax, "__version__", "0.0.1")
    with pytest.raises(ValueError, match="or of another version"):
        design.network(PHONES, GOAL, checkpoint=file, **SHORT)


class Degree:
    """Rounds by the largest degree; the records of two of these are the same."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, W):
        return float(self.factor * len(W) - (W != 0).sum(1).max())


FACTOR = 2


def by_a_global(W):
    return Degree(FACTOR)(W)


def test_a_file_of_a_callable_with_other_settings_is_refused(tmp_path):
    file = tmp_path / "search.npz"
    design.network(PHONES, design.Target("mine", Degree(2), 99), checkpoint=file, **SHORT)
    with pytest.raises(ValueError, match="is of a search with other arguments"):
        design.network(PHONES, design.Target("mine", Degree(3), 99), checkpoint=file, **SHORT)
    design.network(PHONES, design.Target("mine", Degree(2), 99), checkpoint=file, **SHORT)


def test_a_file_of_a_function_that_reads_a_changed_global_is_refused(tmp_path, monkeypatch):
    file, target = tmp_path / "search.npz", design.Target("mine", by_a_global, 99)
    design.network(PHONES, target, checkpoint=file, **SHORT)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    with pytest.raises(ValueError, match="is of a search with other arguments"):
        design.network(PHONES, target, checkpoint=file, **SHORT)


@pytest.mark.parametrize("kind", SEARCHES)
def test_fewer_restarts_than_a_file_has_begun_are_refused(kind, tmp_path):
    search, file = SEARCHES[kind], tmp_path / "search.npz"
    whole = search(PHONES, GOAL, checkpoint=file, **(SHORT | {"restarts": 3}))
    for fewer in (1, 2):
        with pytest.raises(ValueError, match=rf"restarts={fewer}: .*has begun 3; pass as many or more"):
            search(PHONES, GOAL, checkpoint=file, **(SHORT | {"restarts": fewer}))
    same(search(PHONES, GOAL, checkpoint=file, **(SHORT | {"restarts": 3})), whole)


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_thousand_moves_plan_no_network_twice(kind, monkeypatch):
    """And remember them by sixteen bytes; forgotten ones are planned again, with the same result."""
    plan, planned = _anneal.score_of, []

    def counted(problem, links, rounds):
        planned.append(links.tobytes() + np.float64(rounds).tobytes())
        return plan(problem, links, rounds)

    monkeypatch.setattr(_anneal, "score_of", counted)
    long = {"num_steps": 1000, "restarts": 1, "seed": 0, **LOAD}
    goal = design.consensus(0.1)
    found = SEARCHES[kind](FOUR, goal, **long)
    assert found.history.shape == (1000,)
    assert found.num_planned == len(planned) + len(found.standard)
    if kind == "network":
        assert len(set(planned)) == len(planned) <= 38
    monkeypatch.setattr(_anneal, "MOST_KNOWN", 5)
    again = SEARCHES[kind](FOUR, goal, **long)
    assert again.score == found.score
    assert again.num_planned > found.num_planned


def test_names_of_networks_are_their_own():
    rng = np.random.default_rng(0)
    graphs = [graph | graph.T for graph in np.triu(rng.random((200, 6, 6)) < 0.5, 1)]
    cycles = [rng.random((p, 3, 3)) for p in range(1, 50)]
    cycles += [cycles[3].reshape(-1, 3, 3)[::-1], cycles[3] + 1e-16 * 0]
    names = {_anneal._name(graph) for graph in graphs}
    assert len(names) == len({graph.tobytes() for graph in graphs})
    assert len({_anneal._name(cycle) for cycle in cycles}) == 50  # 49, one turned round, and one twice


# --- lost devices -----------------------------------------------------------------------------------------------------


def without(given, node):
    """Devices without one."""
    kept = np.delete(np.arange(given.num_nodes), node)
    fields = (given.seconds_per_sample, given.upload_bytes_per_second, given.download_bytes_per_second)
    return devices.from_arrays(fields[0][kept], fields[1][kept], fields[2][kept])


B = dealt(4, seed=5)


@pytest.mark.parametrize("target", [GOAL, design.quadratic(B, step=0.1, start=3.0, error=0.9)])
def test_losses_of_a_graph_are_scores_of_fewer_devices(target):
    found = design.network(FOUR, target, num_steps=40, restarts=1, seed=0, **LOAD)
    lost = design.device_losses(found)
    assert list(lost.with_all) == ["designed", *found.standard]
    names = {"designed": found.graph} | {name: found.standard_graphs[name] for name in found.standard}
    for node in range(4):
        less = without(FOUR, node)
        np.testing.assert_allclose(less.seconds_per_sample, np.delete(FOUR.seconds_per_sample, node), rtol=1e-12)
        goal = target if target is GOAL else design.quadratic(np.delete(B, node, 0), step=0.1, start=3.0, error=0.9)
        for name, graph in names.items():
            left = graph.adjacency().toarray()[np.ix_(*[np.delete(np.arange(4), node)] * 2)]
            if not _search.connected(left != 0):
                assert lost.seconds[name][node] == np.inf
                continue
            score = design.score(less, goal, topology.from_adjacency(left), **LOAD)
            assert lost.seconds[name][node] == pytest.approx(score.seconds, rel=1e-12)
    usual = np.min([each for name, each in lost.seconds.items() if name != "designed"], axis=0)
    np.testing.assert_array_equal(lost.ratios, usual / lost.seconds["designed"])
    assert "star" not in names or "star: " in lost.summary()
    assert lost.table().shape == (4, len(names))


def test_a_star_does_not_outlive_its_centre():
    lost = design.device_losses(design.network(FOUR, design.consensus(0.3), num_steps=0, seed=0, **LOAD))
    assert np.flatnonzero(np.isinf(lost.seconds["star"])).tolist() == [0]
    assert np.flatnonzero(np.isinf(lost.seconds["path"])).tolist() == [1, 2]
    assert "never without 1, 2" in lost.summary()
    assert np.isfinite(lost.seconds["complete"]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_stochastic_complements(n, seed):
    """Rows and columns still sum to one, for matrices of any kind; against the block formula."""
    rng = np.random.default_rng(seed)
    cycle = dense(
        [*mixing.base_graph(n, 2), *mixing.equi_dynamic(n, 2, seed=seed), mixing.equi_static(n, 2, seed=seed)]
    )
    node = int(rng.integers(n))
    found, kept = _device_losses.complement(cycle, node), np.delete(np.arange(n), node)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(found.sum(2), 1, atol=1e-12)
    for W, left in zip(cycle, found, strict=True):
        rest = 1 - W[node, node]
        jump = 0 if rest < 1e-12 else np.outer(W[kept, node], W[node, kept]) / rest
        np.testing.assert_allclose(left, W[np.ix_(kept, kept)] + jump, atol=1e-12)


def test_pairs_pause_and_groups_go_on_without_the_lost_node():
    pair, group = np.kron(np.eye(2), np.full((2, 2), 0.5)), np.full((1, 3, 3), 1 / 3)
    np.testing.assert_allclose(_device_losses.complement(pair[None], 0)[0][0], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(_device_losses.complement(group, 1), 0.5, rtol=1e-15)
    np.testing.assert_array_equal(_device_losses.complement(np.eye(3)[None], 1)[0], np.eye(2))


def test_losses_of_sequences():
    found = design.sequence(PHONES, GOAL, num_steps=20, restarts=1, seed=0, **LOAD)
    lost = design.device_losses(found)
    for node in (0, 4):
        kept = _device_losses.complement(dense(found.matrices), node)
        score = design.score(without(PHONES, node), GOAL, list(kept), **LOAD)
        assert lost.seconds["designed"][node] == pytest.approx(score.seconds, rel=1e-12)
    assert math.isfinite(lost.seconds["Base-2"].max())
    seconds = lost.seconds["designed"]
    words = f"{found.score.seconds:,.4g} s with all, {np.median(seconds):,.4g} s in the median without one"
    assert f"  designed: {words}, {seconds.max():,.4g} s at worst" in lost.summary().splitlines()


def test_losses_that_have_no_score_are_refused():
    mine = design.Target("mine", lambda W: 5.0, 9)
    found = design.network(FOUR, mine, num_steps=0, seed=0, **LOAD)
    with pytest.raises(ValueError, match=r"target=mine: has no without\(node\)"):
        design.device_losses(found)
    two = design.network(devices.uniform(2), GOAL, num_steps=0, seed=0, **LOAD)
    with pytest.raises(ValueError, match="has 2 devices, and one alone"):
        design.device_losses(two)
    wrong = design.network(FOUR, mine._replace(without=lambda node: 3), num_steps=0, seed=0, **LOAD)
    with pytest.raises(TypeError, match="target=3"):
        design.device_losses(wrong)
    with pytest.raises(TypeError, match="result"):
        design.device_losses(3)


def test_a_sequence_of_one_graph_loses_devices_as_the_graph_does():
    """The design is then one of the usual graphs, so that it is never faster, nor slower, than the same graph."""
    found = design.sequence(
        devices.fitted(9, seed=0),
        design.consensus(0.2),
        model_bytes=3000,
        local_steps=5,
        time_batch=8,
        num_steps=0,
        restarts=1,
        seed=0,
    )
    assert len(found.matrices) == 1
    lost = design.device_losses(found)
    best = next(iter(found.standard))
    np.testing.assert_array_equal(lost.seconds["designed"], lost.seconds[best])
    assert (lost.ratios <= 1).all()
    assert f"after 0 of 9 losses, and as fast after {(lost.ratios == 1).sum()}" in lost.summary()


def test_memory_is_checked_by_what_it_is_for():
    settings = {"model_bytes": 3000, "local_steps": 1, "num_steps": 0, "restarts": 1, "seed": 0}
    with pytest.raises(ValueError, match="lower max_period"):
        design.sequence(devices.uniform(6), design.consensus(0.2), max_period=10**10, **settings)


def test_a_file_that_cannot_be_written_is_told_before_the_search(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_anneal.npz, "save", full)
    monkeypatch.setattr(_anneal, "_step", None)  # the search does not begin
    with pytest.raises(ValueError, match=r"checkpoint=.*cannot be written .*No space left.*choose another place"):
        design.network(PHONES, GOAL, checkpoint=tmp_path / "search.npz", **SHORT)


@pytest.mark.parametrize("found", ["a", None, np.ones(2), 1.5, -1, float("nan")])
def test_rounds_that_are_no_whole_number_are_refused(found):
    with pytest.raises(ValueError, match=r"target=mine: rounds\(W\) is .*; must be a whole number"):
        design.score(FOUR, design.Target("mine", lambda W: found, 9), topology.ring(4), **LOAD)


def test_a_sequence_refuses_a_target_before_it_scores_a_graph():
    def rounds(W):
        raise AssertionError("a graph was scored")

    with pytest.raises(ValueError, match="target=mine: has no cycle_rounds"):
        design.sequence(FOUR, design.Target("mine", rounds, 9), num_steps=1, restarts=1, seed=0, **LOAD)


def test_a_sequence_is_confirmed_by_training():
    """D-PSGD in the engine, on the matrices that were found: the rounds of the score, and the seconds of their plan."""
    b, step, start, error = dealt(6), 0.1, 2.0, 0.4
    target = design.quadratic(b, step=step, start=start, error=error)
    found = design.sequence(PHONES, target, num_steps=20, restarts=1, seed=0, progress=False, **LOAD)
    rounds = int(found.score.rounds)
    task = gossipjax.tasks.quadratic(b)
    run = gossipjax.simulate(
        jax.random.key(0),
        gossipjax.dpsgd(task, Partial(optax.sgd, step)),
        timeline.rounds(found.matrices, rounds, form="dense"),
        jax.numpy.full(b.shape, start),
        observers=[gossipjax.observe.distance_to(task.test["optimum"])],
        record_every=1,
    )
    reached = np.flatnonzero(run["squared_error"].values <= error)
    assert reached[0] == rounds > 1
    plan = systems.synchronous(PHONES, found.matrices, rounds, round_seconds=None, **LOAD)
    assert timeline.event_times(plan.timeline)[-1] == pytest.approx(found.score.seconds, rel=1e-9)
