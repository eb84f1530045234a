"""Networks for devices: exact rounds, planned seconds, a search as good as enumeration, and honest verdicts."""

import contextlib
import itertools
import math

import jax
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from scipy import stats

import gossipjax as gj
from gossipjax import design, devices, mixing, observe, systems, tasks, timeline, topology
from gossipjax.design import _anneal, _pace, _score, _search
from theory import round_time

# The four machines of the table: seconds of a training, bytes a second up and down; a training takes three inferences.
FOUR = devices.from_arrays(np.array([1.0, 2, 3, 4]) / 3, np.array([4.0, 2, 8, 1]) * 1e6, np.array([4.0, 4, 8, 2]) * 1e6)
LOAD = {"model_bytes": 4_000_000, "local_steps": 1}
GRAPHS = {name: getattr(topology, name)(4) for name in ("ring", "path", "star", "complete")}
HALVES = np.repeat([1.0, -1.0], 8)
SIXTEEN = {"ring": topology.ring(16), "torus": topology.torus(4, 4), "complete": topology.complete(16)}
COSTS = {"ring": 2.0, "torus": 3.0, "complete": 8.5}
NEVER = np.inf
TOY = {
    4.0: (19, 18, 18),
    1.0: (34, 32, 32),
    0.5: (43, 39, 39),
    0.1: (NEVER, 55, 54),
    0.02: (NEVER, 73, 70),
    1e-3: (NEVER, NEVER, 99),
    1e-4: (NEVER, NEVER, 122),
}
"""Rounds of ring, torus and complete graph to each accuracy."""


def dense(graph):
    return mixing.metropolis(graph).toarray()


def random_graph(n, seed):
    return topology.barabasi_albert(n, 2, seed=seed)


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", TOY)
def test_the_winner_changes_with_the_accuracy(error):
    target = design.quadratic(HALVES, step=0.05, start=5.0, error=error)
    rounds = dict(zip(SIXTEEN, (target.rounds(dense(graph)) for graph in SIXTEEN.values()), strict=True))
    assert tuple(rounds.values()) == TOY[error]
    seconds = {name: COSTS[name] * each for name, each in rounds.items()}
    winner = "ring" if error >= 0.5 else "torus" if error >= 0.02 else "complete"
    assert min(seconds, key=seconds.get) == winner


def test_the_toy_through_simulate():
    """Nodes that train before they mix, on quadratics without noise, in the engine: every cell of the table."""
    task = tasks.quadratic(HALVES[:, None], curvature=1.0)
    protocol = gj.dpsgd(task, Partial(optax.sgd, 0.05))
    x0 = jax.numpy.full((16, 1), 5.0)
    for column, graph in enumerate(SIXTEEN.values()):
        plan = timeline.rounds(mixing.metropolis(graph), 122, form="dense")
        run = gj.simulate(
            jax.random.key(0), protocol, plan, x0, observers=[observe.distance_to(jax.numpy.zeros(1))], record_every=1
        )
        errors = np.asarray(run["squared_error"])
        for error, cells in TOY.items():
            reached = np.flatnonzero(errors <= error)
            assert (reached[0] if reached.size else NEVER) == cells[column]


@pytest.mark.parametrize("seed", range(3))
def test_rounds_are_those_of_a_loop(seed):
    rng, n = np.random.default_rng(seed), 7
    W, b = dense(random_graph(n, seed)), rng.normal(size=(n, 2))
    X, rounds = np.eye(n), 0
    while np.sum((X - 1 / n) ** 2) / n > 0.03 * (n - 1) / n:
        X, rounds = W @ X, rounds + 1
    assert design.consensus(0.03).rounds(W) == rounds
    x, rounds = np.full((n, 2), 2.0), 0
    error = 1.3 * np.mean(np.sum((np.linalg.solve(np.eye(n) - 0.8 * W, 0.2 * W @ b) - b.mean(0)) ** 2, axis=1))
    while np.mean(np.sum((x - b.mean(0)) ** 2, axis=1)) > error:
        x, rounds = W @ (0.8 * x + 0.2 * b), rounds + 1
    assert design.quadratic(b, step=0.2, start=2.0, error=error).rounds(W) == rounds > 1


def test_what_never_gets_there_is_infinite():
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert design.consensus(0.5).rounds(swap) == np.inf
    assert design.consensus(0.5).rounds(np.eye(1)) == 0
    assert design.consensus(1e-3, horizon=46).rounds(dense(topology.ring(16))) == np.inf
    assert design.consensus(1e-3, horizon=47).rounds(dense(topology.ring(16))) == 47
    assert design.quadratic(np.ones(2), step=0.5, start=0.0, error=2.0).rounds(swap) == 0


# --- seconds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bandwidth", "seconds"),
    [
        ("unlimited", (6.5, 6.5, 5.5, 6.5)),
        ("fair", (10.0, 6.5, 6.0, 14.0)),
        ("greedy", (8.5, 6.5, 6.5, 12.0)),
    ],
)
def test_seconds_of_four_machines(bandwidth, seconds):
    for graph, expected in zip(GRAPHS.values(), seconds, strict=True):
        # Sums of some hundred floats; rates are whole bytes a second.
        found = design.seconds_per_round(FOUR, graph, bandwidth=bandwidth, num_rounds=64, **LOAD)
        assert found == pytest.approx(expected, rel=1e-9)


def test_equal_split_of_four_machines():
    found = [design.equal_split(FOUR, graph, **LOAD) for graph in GRAPHS.values()]
    assert found == pytest.approx([9.5, 6.5, 6.0, 12.5], rel=1e-12)  # means of at most four sums


@pytest.mark.parametrize("seed", range(3))
def test_without_shared_links_the_screen_is_exact(seed):
    rng, n = np.random.default_rng(seed), 6
    compute, (up, down) = rng.exponential(size=n), np.floor(1e6 * rng.exponential(size=(2, n)) + 1e5)
    graph = random_graph(n, seed)
    way = np.where(graph.adjacency().toarray() > 0, 4e6 / np.minimum(up[None], down[:, None]), np.inf)
    found = design.equal_split(devices.from_arrays(compute / 3, up, down), graph, bandwidth="unlimited", **LOAD)
    assert found == pytest.approx(round_time.seconds_per_round(compute, way), rel=1e-12)  # the same few sums


@pytest.mark.parametrize("bandwidth", ["greedy", "fair", "unlimited"])
def test_a_score_is_the_end_of_the_plan(bandwidth):
    graph, target = GRAPHS["ring"], design.quadratic(HALVES[::4], step=0.3, start=5.0, error=0.5)
    score = design.score(FOUR, target, graph, bandwidth=bandwidth, **LOAD)
    rounds = int(score.rounds)
    plan = systems.synchronous(FOUR, graph, rounds, round_seconds=None, bandwidth=bandwidth, **LOAD)
    assert rounds > 2
    assert score.seconds == plan.end_s
    assert score.seconds_per_round == plan.end_s / rounds
    assert score.bytes == plan.total_bytes(plan.end_s)
    # A pattern of period two; the mean of an even number of rounds is exact up to rounding.
    longer = design.score(FOUR, design.consensus(1e-12), graph, bandwidth="unlimited", num_rounds=8, **LOAD)
    assert longer.rounds > 8
    assert longer.seconds_per_round == pytest.approx(6.5, rel=1e-12)


@pytest.mark.parametrize("bandwidth", ["greedy", "unlimited"])
def test_cycles_are_planned_as_systems_do(bandwidth):
    cycle = [*mixing.base_graph(4, 1), mixing.metropolis(GRAPHS["ring"])]
    site = _pace.site_of(FOUR, **LOAD, time_batch=1, bandwidth=bandwidth)
    adjacency = np.array([W.toarray() > 0 for W in cycle]) & ~np.eye(4, dtype=bool)
    plan = systems.synchronous(FOUR, cycle, 7, round_seconds=None, bandwidth=bandwidth, **LOAD)
    np.testing.assert_array_equal(_pace.planned_ends(site, adjacency, 7), plan.round_end_s)


def test_scores_of_no_rounds_and_of_too_many():
    target = design.quadratic(np.zeros(4), step=0.5, start=0.0, error=1.0)
    assert design.score(FOUR, target, GRAPHS["ring"], **LOAD)[:1] == (0.0,)
    never = design.score(FOUR, design.consensus(1e-9, horizon=3), GRAPHS["path"], **LOAD)
    assert never.seconds == np.inf
    assert "never reached" in repr(never)


# --- search -----------------------------------------------------------------------------------------------------------


def labelled_graphs(n):
    pairs = list(itertools.combinations(range(n), 2))
    for chosen in itertools.product([False, True], repeat=len(pairs)):
        graph = np.zeros((n, n), bool)
        graph[tuple(np.array(pairs)[list(chosen)].T)] = True
        if _search.connected(graph | graph.T):
            yield graph | graph.T


@pytest.mark.parametrize(("bandwidth", "error"), [("greedy", 0.1), ("unlimited", 1.0)])
def test_annealing_finds_the_best_of_all_connected_graphs(bandwidth, error):
    target = design.consensus(error) if error < 1 else design.quadratic(HALVES[::4], step=0.05, start=5.0, error=error)
    options = {"bandwidth": bandwidth, "num_rounds": 8, **LOAD}
    problem = _score.problem_of(FOUR, target, 4_000_000, 1, 1, bandwidth, mixing.metropolis, 8)
    scores = [_score.score_of(problem, graph).seconds for graph in labelled_graphs(4)]
    found = design.network(FOUR, target, num_steps=80, restarts=1, seed=0, **options)
    assert len(scores) == 38
    assert found.score.seconds == min(scores)
    assert found.num_planned <= 38 + len(found.standard)
    assert found.score == design.score(FOUR, target, found.graph, **options)
    assert (np.diff(found.history) <= 0).all()
    assert found.history[-1] == found.score.seconds


MIXED = design.quadratic(np.tile([1.0, -1.0], 4), step=0.05, start=5.0, error=0.1)


@pytest.mark.parametrize("target", [design.consensus(0.03), pytest.param(MIXED, marks=pytest.mark.slow)])
def test_on_identical_devices_nothing_is_claimed(target):
    """Only the graph counts there, and the usual graphs are good ones, if they have both sorts of targets around."""
    same = devices.uniform(8)
    found = design.network(same, target, model_bytes=1_000_000, local_steps=5, num_steps=60, restarts=1, seed=0)
    assert 1 <= found.gain < 1.1
    usual = next(iter(found.standard.values())).seconds
    verdict = design.judge(np.full(2, usual), np.full(2, found.score.seconds))
    assert verdict.ratios == pytest.approx(found.gain, rel=1e-14)  # a logarithm and back
    assert not verdict.claimed
    assert ("does not beat" if found.gain == 1 else "too little") in verdict.summary()


def test_limits_hold():
    target = design.consensus(0.01)
    found = design.network(FOUR, target, max_degree=2, num_steps=40, seed=0, **LOAD)
    assert found.graph.degrees.max() <= 2
    assert set(found.standard) == {"ring", "path"}
    free = design.network(FOUR, target, num_steps=40, seed=0, **LOAD)
    most = free.score.bytes
    bound = design.network(FOUR, target, max_bytes=most, num_steps=40, seed=0, **LOAD)
    assert bound.score.bytes <= most
    with pytest.raises(ValueError, match=r"max_degree=1.*no usual graph gets there"):
        design.network(FOUR, target, max_degree=1, num_steps=1, seed=0, **LOAD)
    with pytest.raises(ValueError, match="max_bytes=1:"):
        design.network(FOUR, target, max_bytes=1.0, num_steps=1, seed=0, **LOAD)


@pytest.mark.parametrize("move", _search.MOVES, ids=lambda move: move.__name__.strip("_"))
def test_moves_are_graphs_again(move):
    rng = np.random.default_rng(0)
    graph = _pace.adjacency_of(topology.random_regular(8, 4, seed=0), 8)
    changes = {"_add": 2, "_remove": -2, "_rewire": 0, "_exchange": 0, "_trade": 0}
    for _ in range(50):
        other = move(rng, graph)
        if other is None:
            continue
        assert np.array_equal(other, other.T)
        assert not other.diagonal().any()
        assert other.sum() - graph.sum() == changes[move.__name__]
        if move.__name__ == "_exchange":
            assert (other.sum(1) == 4).all()
        if move.__name__ == "_trade":  # eigenvalues of a graph with other numbers, in float64
            np.testing.assert_allclose(np.linalg.eigvalsh(other * 1.0), np.linalg.eigvalsh(graph * 1.0), atol=1e-12)


@pytest.mark.parametrize("move", _search.MOVES, ids=lambda move: move.__name__.strip("_"))
def test_moves_of_two_nodes(move):
    pair = np.array([[False, True], [True, False]])
    other = move(np.random.default_rng(0), pair)
    assert other is None or not other.diagonal().any()


@pytest.mark.parametrize("n", [*range(2, 13), 16, 18])
def test_usual_graphs(n):
    graphs = design.standard_graphs(n, seed=0)
    assert "complete" in graphs
    assert all(graph.num_nodes == n and not graph.directed and graph.num_components() == 1 for graph in graphs.values())
    assert all(not a.same_edges(b) for a, b in itertools.combinations(graphs.values(), 2))


def test_the_picture_shows_every_graph():
    found = design.network(FOUR, design.consensus(0.1), num_steps=5, restarts=1, seed=0, **LOAD)
    figure = found.plot()
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["designed", *found.standard]
    assert "best usual network" in found.summary()


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_the_rule_of_a_claim():
    better, worse = np.full(10, 1.5) + 0.01 * np.arange(10), np.array([0.97, 0.98])
    ten = design.judge(np.concatenate([better, worse]), np.ones(12))
    assert ten.wins == 10
    assert ten.sign_test == pytest.approx((66 + 12 + 1) / 4096, rel=1e-15)
    assert ten.claimed
    nine = design.judge(np.concatenate([better[1:], worse, worse[:1]]), np.ones(12))
    assert nine.sign_test == pytest.approx((220 + 66 + 12 + 1) / 4096, rel=1e-15)
    assert not nine.claimed
    assert "sign test" in nine.summary()
    assert not design.judge(np.concatenate([better[:8], worse]), np.ones(10)).claimed  # 8 of 10: P = 0.055
    small = design.judge(1.1 + 0.01 * np.arange(12) / 12, np.ones(12))
    assert small.wins == 12
    assert not small.claimed
    assert "median is below 1.2" in small.summary()


def test_the_interval_is_that_of_student():
    rng = np.random.default_rng(0)
    baseline, other = rng.lognormal(size=(2, 9))
    verdict = design.judge(baseline, other)
    expected = stats.ttest_1samp(np.log(baseline / other), 0.0).confidence_interval(0.95)
    assert (math.log(verdict.low), math.log(verdict.high)) == pytest.approx(tuple(expected), rel=1e-12)


def test_draws_are_paired_with_the_best_usual_graph_of_each():
    found = design.network(FOUR, design.consensus(0.1), num_steps=40, restarts=1, seed=0, **LOAD)
    draws = design.redrawn(FOUR, 3, spread=0.5, seed=1)
    verdict = design.confirm(found, draws)
    for ratio, draw in zip(verdict.ratios, draws, strict=True):
        own = design.score(draw, design.consensus(0.1), found.graph, **LOAD).seconds
        usual = min(design.score(draw, design.consensus(0.1), graph, **LOAD).seconds for graph in GRAPHS.values())
        assert ratio == pytest.approx(usual / own, rel=1e-14)  # a logarithm and back
    with pytest.raises(ValueError, match="draws: one has 5 devices"):
        design.confirm(found, [FOUR, devices.uniform(5)])


def test_machines_are_redrawn_and_judged_as_devices_are():
    found = design.network(FOUR, design.consensus(0.1), num_steps=5, restarts=1, seed=0, **LOAD)
    draws = design.redrawn(FOUR, 2, spread=0.5, seed=1)
    machines = design.redrawn(systems.machines(FOUR), 2, spread=0.5, seed=1)
    for draw, each in zip(draws, machines, strict=True):
        np.testing.assert_array_equal(each.seconds_per_sample, draw.seconds_per_sample)
        np.testing.assert_array_equal(each.upload_bytes_per_second, draw.upload_bytes_per_second)
        np.testing.assert_array_equal(each.download_bytes_per_second, draw.download_bytes_per_second)
    np.testing.assert_array_equal(design.confirm(found, machines).ratios, design.confirm(found, draws).ratios)


def test_redrawn_speeds_have_the_spread_asked_for():
    draws = design.redrawn(devices.uniform(50), 40, spread=0.3, seed=0)
    logs = np.log([draw.upload_bytes_per_second / devices.uniform(50).upload_bytes_per_second for draw in draws])
    error = 0.3 / np.sqrt(2 * logs.size)  # of the standard deviation of so many normal numbers
    assert abs(logs.std() - 0.3) < 4 * error
    assert not np.array_equal(draws[0].seconds_per_sample, draws[1].seconds_per_sample)


# --- halving ----------------------------------------------------------------------------------------------------------


def test_halving_runs_the_best_again_on_seeds_of_each_stage():
    """Against a loop: sixteen candidates once, four twice, two five times; 34 runs."""
    calls = []

    def seconds(mean, seed):
        calls.append((mean, seed))
        return mean * np.exp(0.3 * np.random.default_rng(seed + int(1000 * mean)).normal())

    candidates = {f"graph {i}": 1.0 + i / 20 for i in range(16)}
    found = design.successive_halving(candidates, seconds, seed=0)
    left, begin = list(candidates), 0
    for stage, (count, after) in enumerate(((1, 4), (2, 2), (5, 1))):
        own = calls[begin : begin + count * len(left)]
        begin += count * len(left)
        assert [mean for mean, _ in own] == [candidates[name] for name in left for _ in range(count)]
        seeds = {seed for _, seed in own}
        assert all({seed for mean, seed in own if mean == candidates[name]} == seeds for name in left)
        assert len(seeds) == count
        means = {name: np.mean([np.log(seconds(candidates[name], seed)) for seed in seeds]) for name in left}
        del calls[-count * len(left) :]
        left = sorted(left, key=means.get)
        assert found.stages[stage] == tuple(left)
        left = left[:after]
    assert begin == len(calls) == found.num_runs == 34
    assert found.winner == left[0]
    assert len({seed for _, seed in calls}) == 1 + 2 + 5
    assert sorted(map(len, found.seconds.values())) == [1] * 12 + [3] * 2 + [8] * 2


def test_luck_in_one_stage_does_not_count_in_the_next():
    given = iter([0.1, 1.0, 2.0, 3.0, 3.0, 1.0, 1.0])
    found = design.successive_halving(
        dict.fromkeys("abc"), lambda _, seed: next(given), runs=(1, 2), survivors=(2,), seed=0
    )
    assert found.stages == (("a", "b", "c"), ("b", "a"))
    assert found.winner == "b"
    assert found.seconds["a"].tolist() == [0.1, 3.0, 3.0]


def test_who_gets_there_more_often_comes_first():
    seconds = {"often": iter([9.0, 9.0, np.inf]), "fast": iter([1.0, np.inf, np.inf])}
    found = design.successive_halving(seconds, lambda mine, seed: next(mine), runs=(3,), survivors=(), seed=0)
    assert found.winner == "often"
    with pytest.raises(ValueError, match="no run of the last stage gets there"):
        design.successive_halving({"a": 0, "b": 0}, lambda mine, seed: np.inf, seed=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"candidates": {"a": 1.0}}, "must be two or more"),
        ({"runs": ()}, r"runs=\(\): must have"),
        ({"runs": (1, 0)}, r"runs\[1\]=0"),
        ({"survivors": (2,)}, "survivors of shape"),
        ({"survivors": (1, 2)}, "must not grow"),
        ({"seconds": lambda mine, seed: -mine}, "seconds of a with seed .*=-1.0: .* above 0"),
        ({"seconds": lambda mine, seed: np.nan}, "seconds of a with seed"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_halving_says_what_is_wrong(settings, words):
    given = {"candidates": {"a": 1.0, "b": 2.0}, "seconds": lambda mine, seed: mine, "seed": 0}
    with pytest.raises(ValueError, match=words):
        design.successive_halving(**(given | settings))
    for others in (["a", "b"], {1: 1.0, 2: 2.0}):
        with pytest.raises(TypeError, match="candidates"):
            design.successive_halving(others, given["seconds"], seed=0)


def test_a_search_shows_how_far_it_is():
    done = []
    watched = contextlib.nullcontext(done.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_anneal, "progress_bar", lambda shown, name, total: (done.append((shown, total)), watched)[1])
        design.network(FOUR, design.consensus(0.1), num_steps=3, restarts=2, seed=0, progress=True, **LOAD)
    assert done == [(True, 6), 1, 2, 3, 4, 5, 6]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: design.consensus(0.0), "error=0.0"),
        (lambda: design.quadratic(np.ones((2, 2, 2)), step=0.1, start=0.0, error=1.0), "targets of shape"),
        (lambda: design.score(FOUR, design.consensus(0.1), topology.ring(5), **LOAD), "ring.5.*5 nodes for 4"),
        (lambda: design.score(FOUR, design.consensus(0.1), topology.exponential(4), **LOAD), "directed"),
        (
            lambda: design.score(FOUR, design.consensus(0.1), GRAPHS["star"], weights=mixing.uniform, **LOAD),
            "weights: W differs from a symmetric",
        ),
        (
            lambda: design.score(
                FOUR, design.quadratic(np.ones(3), step=0.1, start=0.0, error=0.5), GRAPHS["star"], **LOAD
            ),
            "targets of 3 nodes",
        ),
        (
            lambda: design.score(FOUR, design.Target("mine", lambda W: float("nan"), 5), GRAPHS["star"], **LOAD),
            "target=mine",
        ),
        (
            lambda: design.score(FOUR, design.Target("mine", lambda W: 5.0, 0), GRAPHS["star"], **LOAD),
            "target.horizon=0",
        ),
        (
            lambda: design.score(FOUR, design.Target("mine", lambda W: 7.5, 8), GRAPHS["star"], **LOAD),
            r"rounds\(W\) is 7.5; must be a whole number",
        ),
        (
            lambda: design.score(
                FOUR, design.consensus(0.1), GRAPHS["star"], weights=lambda graph: np.full((4, 4), 0.25), **LOAD
            ),
            r"W\[1, 2\] is 0.25, and .* has no edge there",
        ),
        (
            lambda: design.score(FOUR, design.consensus(0.1), GRAPHS["star"], weights=lambda graph: np.eye(4), **LOAD),
            "has an edge there",
        ),
        (
            lambda: design.seconds_per_round(
                devices.with_availability(FOUR, devices.charging(4, seed=0)), GRAPHS["ring"], **LOAD
            ),
            "devices: come and go",
        ),
        (lambda: design.judge(np.ones(1), np.ones(1)), "number of baseline_seconds"),
        (lambda: design.judge(np.ones(3), np.zeros(3)), "design_seconds"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_draws_that_prove_nothing_are_refused():
    phones = devices.fitted(5, seed=0)
    found = design.network(phones, design.consensus(0.1), num_steps=5, restarts=1, seed=0, **LOAD)
    with pytest.raises(ValueError, match=r"draws\[0\]: equals the devices of the search"):
        design.confirm(found, [phones] * 12)
    (draw,) = design.redrawn(phones, 1, spread=0.3, seed=1)
    with pytest.raises(ValueError, match=r"draws\[1\]: equals draws\[0\]"):
        design.confirm(found, [draw] * 12)
    with pytest.raises(ValueError, match="spread=0"):
        design.redrawn(phones, 12, spread=0.0, seed=1)


def test_a_target_that_is_reached_at_the_start_takes_no_time():
    phones = devices.fitted(5, seed=0)
    target = design.quadratic(np.zeros(5), step=0.1, start=0.0, error=0.1)
    found = design.network(phones, target, num_steps=5, restarts=1, seed=0, **LOAD)
    assert found.gain == 1.0
    assert "no network found beats" in found.summary()
