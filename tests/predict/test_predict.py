"""Predictions against the formulas of ``theory``, closed forms and loops, and against the engine on random queries."""

import math

import numpy as np
import pytest

from gossipjax import design, devices, mixing, predict, systems, topology
from gossipjax.__main__ import main
from gossipjax.predict import Check, Prediction
from theory import consensus, round_time, spectral, staleness

GRAPHS = [topology.ring(6), topology.star(5), topology.barabasi_albert(7, 2, seed=0)]


def ids(graph):
    return graph.name


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS, ids=ids)
def test_rounds_are_those_of_theory(graph):
    n, W = graph.num_nodes, mixing.metropolis(graph).toarray()
    errors = consensus.averaging_error(W, np.eye(n), 60) ** 2 / n
    forecast = predict.rounds(graph, 7, error=0.02)
    assert forecast["consensus_distance"].value == pytest.approx(errors[7], rel=1e-10)  # sums of n powers
    assert forecast["rounds_to_error"].value == np.argmax(errors <= 0.02 * errors[0])
    rho = spectral.contraction_factor(W)
    assert forecast["rounds_from_any_start"].high == math.ceil(math.log(0.02) / (2 * math.log(rho)))
    hops = np.array([np.linalg.matrix_power(np.eye(n) + graph.adjacency().toarray(), k) > 0 for k in range(n)])
    distance = (~hops).sum(0)[~np.eye(n, dtype=bool)]
    assert forecast["max_staleness"].value == distance.max() - 1
    assert forecast["mean_staleness"].value == pytest.approx(distance.mean() - 1, rel=1e-12)


@pytest.mark.parametrize("graph", GRAPHS, ids=ids)
def test_meetings_are_those_of_a_loop_over_second_moments(graph):
    n, A = graph.num_nodes, graph.adjacency().toarray()
    Z, expected = np.eye(n), []
    for _ in range(40):
        expected.append((np.trace(Z) - Z.sum() / n) / n)
        later = np.zeros((n, n))
        for i in range(n):
            for j in np.flatnonzero(A[i]):
                b = np.eye(n)[i] - np.eye(n)[j]
                M = np.eye(n) - np.outer(b, b) / 2
                later += M @ Z @ M / (n * A[i].sum())
        Z = later
    forecast = predict.meetings(graph, 9, rate=2.0, error=0.3)
    assert forecast["consensus_distance"].value == pytest.approx(expected[9], rel=1e-12)
    assert forecast["seconds"].value == 9 / (2 * n)
    assert forecast["meetings_to_error"].value == np.argmax(np.array(expected) <= 0.3 * expected[0])
    slowest = spectral.pairwise_contraction(A)
    assert forecast["meetings_from_any_start"].high == math.ceil(math.log(0.3) / math.log(slowest))
    assert forecast["meetings_to_error"].value <= forecast["meetings_from_any_start"].high


def test_meetings_of_everybody_have_a_closed_form():
    n, K = 6, 13
    value = predict.meetings(topology.complete(n), K)["consensus_distance"].value
    assert value == pytest.approx((1 - 1 / (n - 1)) ** K * (n - 1) / n, rel=1e-12)  # 21 eigenvalues


def test_pushes_of_everybody_are_those_of_theory():
    forecast = predict.pushes(9, gossip_rate=2.0, update_rate=0.7, model_bytes=10)
    rates = {"gossip_rate": 2.0, "update_rate": 0.7}
    assert forecast["mean_staleness"].value == pytest.approx(staleness.mean_staleness(9, **rates), rel=1e-13)
    assert forecast["max_staleness"].value == pytest.approx(staleness.max_staleness(9, **rates), rel=1e-13)
    assert forecast["bytes_per_second"].value == 180
    again = predict.pushes(topology.complete(9), **rates)
    assert again["mean_staleness"].value == forecast["mean_staleness"].value


@pytest.mark.parametrize("graph", [*GRAPHS, topology.path(2), topology.path(8), topology.exponential(8)], ids=ids)
def test_pushes_on_graphs_lie_between_the_bounds(graph):
    """The exact mean delays are those of the recursion over sets of nodes."""
    n = graph.num_nodes
    rates = graph.adjacency().toarray().T * (2.0 / graph.out_degrees[:, None])
    exact = 0.7 * np.mean([staleness.graph_delay(rates, source).sum() / (n - 1) for source in range(n)])
    found = predict.pushes(graph, gossip_rate=2.0, update_rate=0.7)["mean_staleness"]
    assert found.low <= exact * (1 + 1e-12)  # both are sums of a few terms, and equal on some graphs
    assert exact <= found.high * (1 + 1e-12)
    assert found.origin == ("exact" if n == 2 else "bound")


def test_seconds_are_those_of_the_planner_and_of_theory():
    up, down = np.array([4.0, 2, 8, 1]) * 1e6, np.array([4.0, 4, 8, 2]) * 1e6
    machines = devices.from_arrays(np.array([1.0, 2, 3, 4]) / 3, up, down)
    load = {"model_bytes": 4_000_000, "local_steps": 1}
    ring = topology.ring(4)
    way = np.where(ring.adjacency().toarray() > 0, 4e6 / np.minimum(up[None], down[:, None]), np.inf)
    pace = round_time.seconds_per_round(np.array([1.0, 2, 3, 4]), way)
    for bandwidth in ("greedy", "unlimited"):
        forecast = predict.rounds(ring, 5, devices=machines, bandwidth=bandwidth, error=0.1, **load)
        plan = systems.synchronous(machines, ring, 5, round_seconds=None, bandwidth=bandwidth, **load)
        assert forecast["seconds"].value == plan.end_s
        alone = bandwidth == "unlimited"
        long_run = forecast["seconds_per_round" if alone else "least_seconds_per_round"]
        assert long_run.low == pytest.approx(pace, rel=1e-12)
        assert long_run.origin == ("exact" if alone else "bound")
        score = design.score(machines, design.consensus(0.1), ring, bandwidth=bandwidth, **load)
        assert forecast["seconds_to_error"].value == score.seconds
    assert forecast["bytes_to_error"].value == score.bytes
    batches = predict.rounds(ring, 5, devices=machines, time_batch=8, **load)
    steps = predict.rounds(ring, 5, devices=machines, model_bytes=4_000_000, local_steps=8)
    assert batches["seconds"].value == steps["seconds"].value


# --- the form ---------------------------------------------------------------------------------------------------------


def made(check, low=2.0, high=2.0, origin="exact"):
    return Prediction("a", high, low, high, "s", origin, "here", "none", check)


def test_what_agrees():
    assert made(Check(2.3, 0.1, "runs")).z == pytest.approx(3.0)
    assert made(Check(2.3, 0.1, "runs")).agrees
    assert not made(Check(2.5, 0.1, "runs")).agrees
    inside = made(Check(1.5, 0.1, "runs"), low=1.0, origin="bound")
    assert inside.z == 0
    assert inside.agrees
    assert not made(Check(2.5, 0.1, "runs"), low=1.0, origin="bound").agrees
    assert made(Check(2.0 + 1e-6, 0.0, "a plan")).agrees
    assert not made(Check(2.1, 0.0, "a plan")).agrees
    assert math.isnan(made(None).z)
    assert math.isnan(made(None).ratio)
    with pytest.raises(ValueError, match="a was not checked"):
        _ = made(None).agrees
    with pytest.raises(ValueError, match="origin='guessed'"):
        made(None, origin="guessed")
    fitted = made(Check(2.1, 0.0, "one run"), low=1.0, origin="fitted")
    assert str(fitted) == "a: 2, 1 to 2 s (fitted); simulated 2.1, ratio 1.05"
    assert not fitted.agrees
    assert not made(Check(math.inf, 0.0, "one run")).agrees
    with pytest.raises(ValueError, match=r"a=2\.0: must be between"):
        Prediction("a", 2.0, 3.0, 4.0, "s", "bound", "here", "none")


def test_the_summary_says_origin_and_assumptions():
    forecast = predict.rounds(topology.ring(6), 4, error=0.1, model_bytes=100)
    assert "consensus_distance" in forecast.summary()
    assert "(bound)" in forecast.summary()
    assert "fixed symmetric W" in forecast.summary()
    assert forecast.table().loc["bytes_per_round", "value"] == 1200
    with pytest.raises(KeyError, match="there are consensus_distance, mean_staleness"):
        forecast["seconds"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: predict.rounds(topology.exponential(8), 3), "directed"),
        (lambda: predict.rounds(topology.star(4), 3, weights=mixing.uniform), "weights: W differs from a symmetric"),
        (lambda: predict.rounds(topology.ring(4), 3, devices=devices.uniform(4)), "devices: .*model_bytes"),
        (lambda: predict.rounds(topology.ring(4), 3, time_batch=8), "time_batch=8: samples take time on devices"),
        (lambda: predict.rounds(topology.ring(4), 3, local_steps=2), "local_steps=2"),
        (lambda: predict.meetings(topology.ring(49), 3), "graph"),
        (lambda: predict.rounds(topology.complete(4), 3, error=1.0), "error=1.0"),
        (lambda: predict.pushes(1, gossip_rate=1.0, update_rate=1.0), "peers=1"),
    ],
)
def test_what_is_not_known_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_command(capsys):
    assert main(["predict", "rounds", "--graph", "torus", "--nodes", "9", "--rounds", "4", "--model-bytes", "10"]) == 0
    assert "consensus_distance" in capsys.readouterr().out
    assert main(["predict", "meetings", "--nodes", "5", "--events", "7", "--error", "0.1"]) == 0
    assert "meetings_to_error" in capsys.readouterr().out
    assert main(["predict", "pushes", "--graph", "complete", "--nodes", "5", "--gossip-rate", "2"]) == 0
    assert "mean_staleness: 1.0417 updates (exact)" in capsys.readouterr().out
    words = ["predict", "rounds", "--nodes", "6", "--rounds", "3", "--model-bytes", "1000", "--local-steps", "1"]
    assert main(words) == 0
    assert "seconds_per_round" in capsys.readouterr().out
    assert main(["predict", "rounds", "--graph", "moebius", "--nodes", "5", "--rounds", "4"]) == 2
    assert "graph='moebius'" in capsys.readouterr().err


# --- against the engine -----------------------------------------------------------------------------------------------


def checked(forecast):
    """Return the scores of what was simulated, after a check of all numbers that have no sampling error."""
    some = [each for each in forecast.predictions if each.check is not None]
    assert some
    for each in some:
        assert each.agrees, str(each)
    return [each.z for each in some if each.origin == "exact" and each.check.standard_error]


def test_the_simulation_says_so_to_twenty_queries():
    """Random graphs of six nodes, which share their programs; each score is below 4 if the formula is right."""
    scores = []
    for seed in range(9):
        graph = topology.random_tree(6, seed=seed) if seed % 2 else topology.barabasi_albert(6, 2, seed=seed)
        scores += checked(predict.rounds(graph, 4, model_bytes=8, check=True, seed=seed))
    for seed in range(6):
        scores += checked(predict.meetings(topology.random_regular(6, 3, seed=seed), 8, check=True, seed=seed))
    for seed in range(5):
        scale = 2.0**seed
        scores += checked(predict.pushes(6, gossip_rate=scale, update_rate=scale, check=True, seed=seed))
    assert len(scores) == 9 + 6 + 10
    assert max(map(abs, scores)) > 0.5  # and they are scores, not zeros


@pytest.mark.slow
def test_the_accuracy_is_reached_when_it_is_said():
    checked(predict.rounds(topology.path(4), 3, error=0.05, check=True))


def tree_of_degree_three(rng):
    """A random tree of seven nodes; tables of neighbours of one width share a program."""
    while True:
        tree = topology.random_tree(7, seed=int(rng.integers(2**31)))
        if tree.degrees.max() == 3:
            return tree


@pytest.mark.slow
def test_the_simulation_says_so_to_two_hundred_queries():
    rng, scores = np.random.default_rng(0), []
    for query in range(200):
        seed = int(rng.integers(2**31))
        if query % 10 == 0:
            scores += checked(predict.meetings(tree_of_degree_three(rng), 9, check=True, seed=seed))
        elif query % 20 == 1:
            rate = float(rng.lognormal())
            scores += checked(predict.pushes(7, gossip_rate=2 * rate, update_rate=rate, check=True, seed=seed))
        elif query % 20 == 11:
            rate = float(rng.lognormal())
            checked(
                predict.pushes(tree_of_degree_three(rng), gossip_rate=rate, update_rate=rate, check=True, seed=seed)
            )
        else:
            graph = tree_of_degree_three(rng) if query % 2 else topology.random_regular(8, 3, seed=seed, tries=20)
            scores += checked(predict.rounds(graph, 5, check=True, seed=seed))
    assert len(scores) == 20 + 2 * 10 + 160
    # Scores of one query are positively related: at most as if each counted twice.
    assert abs(np.mean(scores)) < 4 * math.sqrt(2 / len(scores))


def test_weights_that_contract_slowly_are_predicted_and_those_that_do_not_are_refused():
    assert predict.rounds(topology.path(400), 10, error=1e-6)["rounds_to_error"].value > 10_000
    ring = topology.ring(4)
    with pytest.raises(ValueError, match="use weights that contract"):
        predict.rounds(ring, 10, error=0.5, weights=lambda graph: graph.adjacency().toarray() / 2)
