"""Robust mixing in runs: lies, graphs, exact first moves, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import robust as R
from gossipjax.robust._attacks import Victim
from theory import robust as theory

pytestmark = pytest.mark.slow  # each compiles a run of its own; rules and attacks alone are in test_rules.py
T, tl, KEY = gj.topology, gj.timeline, jax.random.key(0)
PRINTED = {"rtol": 0, "atol": 1e-6}
HONEST = np.asarray([[1.0, 0.0], [1.2, 0.1], [0.8, -0.2], [1.1, 0.3], [0.9, 0.1]])


HEARD = np.vstack([HONEST[1:], [[9.0, 9.0]]])


def victim(own=HONEST[0], others=HEARD, lying=(4,), rule=None):
    k = len(others)
    honest = ~np.isin(np.arange(k), lying)
    arrays = (jnp.asarray(a) for a in (own, others, np.full(k, 1 / 6), honest))
    return Victim(KEY, jnp.int32(0), *arrays, rule, None)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (R.sign_flip(), (-1, -0.06)),
        (R.sign_flip(of="own"), (-9, -9)),
        (R.ipm(), (-0.1, -0.006)),
        (R.alie(), (0.762829, -0.212489)),
        (R.dissensus(), (1.0, -0.3)),
        (R.isolation(), (1.0, -0.3)),
        (R.echo(), (1.0, 0.0)),
    ],
)
def test_lies(attack, expected):
    np.testing.assert_allclose(attack.lie(victim(), None)[4], expected, **PRINTED)


def test_gaussian_lies():
    far = victim(others=np.zeros((4000, 2)), lying=range(4000))
    lies = np.asarray(R.gaussian(30.0).lie(far, None))
    # Standard errors of the mean and of the variance of 8,000 numbers.
    assert abs((lies - HONEST[0]).mean()) < 4 * 30 / np.sqrt(8000)
    assert abs(((lies - HONEST[0]) ** 2).mean() / 900 - 1) < 4 * np.sqrt(2 / 8000)


def one_round(rule, attackers, attack, graph, x0, mixing=gj.mixing.metropolis, **words):
    plan = tl.rounds(mixing(graph), 1, **words)
    protocol = gj.gossip_averaging(gj.sharing.robust(rule, attackers, attack, topology=graph))
    return np.asarray(gj.simulate(KEY, protocol, plan, jnp.asarray(x0), observers=[]).x)


@pytest.mark.parametrize("form", ["dense", "table"])
def test_dissensus_stops_the_mean_and_not_the_rest(form):
    graph, attackers = T.random_regular(10, 4, seed=1), (3, 7)
    x0 = np.random.default_rng(0).standard_normal((10, 3))
    honest = np.setdiff1d(np.arange(10), attackers)
    touched = graph.adjacency().toarray()[np.ix_(honest, attackers)].any(1)
    assert touched.any()
    stalled = one_round(R.gts(0.0), attackers, R.dissensus(), graph, x0, form=form)
    np.testing.assert_allclose(stalled[honest][touched], x0[honest][touched], rtol=0, atol=1e-12)
    moved = one_round(R.gts(0.2), attackers, R.dissensus(), graph, x0, form=form)
    assert np.abs(moved - x0)[honest][touched].max() > 1e-3


@pytest.mark.parametrize("rule", [R.clipped_gossip(np.inf), R.cs_plus(0.0), R.gts(0.0), R.ios(0)])
def test_without_liars_it_is_mix(rule):
    graph = T.barabasi_albert(9, 2, seed=0)
    x0 = np.random.default_rng(1).standard_normal((9, 2))
    expected = gj.mixing.metropolis(graph).toarray() @ x0
    np.testing.assert_allclose(one_round(rule, (), None, graph, x0), expected, rtol=0, atol=1e-12)


def test_meetings_groups_and_changing_graphs():
    x0 = jnp.asarray(np.random.default_rng(2).standard_normal((8, 2)))
    pairs = tl.poisson_pairs(T.ring(8), 30, seed=0)
    flights = tl.push_gossip(T.ring(8), 9.0, compute=None, gossip=1.0, latency=0.3, seed=0)
    for plan in (pairs, flights):
        plain = gj.simulate(KEY, gj.gossip_averaging(), plan, x0, observers=[]).x
        wide = gj.gossip_averaging(gj.sharing.robust(R.clipped_gossip(1e9)))
        np.testing.assert_allclose(gj.simulate(KEY, wide, plan, x0, observers=[]).x, plain, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="compares several"):
        gj.simulate(KEY, gj.gossip_averaging(gj.sharing.robust(R.nna(1))), pairs, x0)
    regular = tl.changing_rounds(tl.overlays.regular(8, 4, seed=0), 6, weights="uniform")
    changing = gj.gossip_averaging(gj.sharing.robust(R.nnm(1, R.trimmed_mean(1)), (5,), R.sign_flip()))
    watch = [gj.observe.honest_consensus((5,), x0)]
    run = gj.simulate(KEY, changing, regular, x0, observers=watch, record_every=1)
    assert float(run["honest_consensus_distance"][-1]) < 0.2 * float(run["honest_consensus_distance"][0])
    group = {"time": np.zeros(1), "nodes": np.full((1, 1), gj.types.NOBODY), "members": np.asarray([[[0, 1, 2, 3, 4]]])}
    group |= {"weights": np.full((1, 1, 5), 0.2), "targets": np.asarray([[[0, 1]]])}
    plan = tl.from_events(group, gj.Properties(8, 8, "a group", {"own_rows", "row_stochastic"}))
    mean = gj.gossip_averaging(gj.sharing.robust(R.trimmed_mean(0)))
    found = gj.simulate(KEY, mean, plan, x0, observers=[]).x
    np.testing.assert_allclose(found[:2], np.broadcast_to(np.mean(x0[:5], axis=0), (2, 2)), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found[2:], x0[2:])


# Two worlds: the exact first move, with liars that repeat the victim's own value

M, K = 13, 8


def first_move(rule, b):
    graph = np.zeros((2 * M + b, 2 * M + b))
    graph[: 2 * M, : 2 * M] = theory.two_worlds(M, K)
    graph[: 2 * M, 2 * M : 2 * M + b] = graph[2 * M : 2 * M + b, : 2 * M] = 1
    x0 = np.zeros((len(graph), 1))
    x0[M : 2 * M] = 1
    W = graph / (M + K + b)
    W[np.diag_indices(len(W))] = 1 - W.sum(1)
    plan = tl.rounds(W, 1)
    protocol = gj.gossip_averaging(gj.sharing.robust(rule, range(2 * M, 2 * M + b), R.echo()))
    return float(gj.simulate(KEY, protocol, plan, jnp.asarray(x0), observers=[]).x[0, 0])


def rules_of(b):
    beta = b / (M + K + b)
    return {
        "cs_plus": R.cs_plus(beta),
        "released": R.cs_plus(beta, released=True),
        "gts": R.gts(beta),
        "nna": R.nna(b),
        "he": R.clipped_gossip(beta=beta),
        "trimmed": R.trimmed_mean(b),
        "median": R.coordinate_median(),
    }


@pytest.mark.parametrize(
    ("b", "name"),
    [(b, name) for b in (1, 4, 5, 8) for name in rules_of(1)],
)
def test_first_moves_between_two_worlds(b, name):
    found, expected = first_move(rules_of(b)[name], b), theory.first_move(name, M, K, b)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    if b == K:
        assert found == pytest.approx(0, abs=1e-12)
    if name == "nna":
        np.testing.assert_allclose(first_move(R.ios(b), b), expected, rtol=0, atol=1e-9)
    if name == "median":
        np.testing.assert_allclose(first_move(R.geometric_median(), b), 0, rtol=0, atol=1e-9)


ATTACKS = {
    "echo": R.echo(),
    "sign flip": R.sign_flip(),
    "ipm": R.ipm(),
    "alie": R.alie(),
    "dissensus": R.dissensus(2.0),
    "gaussian": R.gaussian(),
    "replay": R.echo(node=0),
    "strongest": R.strongest(R.dissensus()),
    "targeted echo": R.targeted_echo(),
}


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted([*ATTACKS, "spectral", "strongest spectral"])))
def test_robust_sums_contract(seed, name):
    """Σ ‖x_i − x̄‖² shrinks by 1 − η (μ₂ − 2 ρ b) or more in every round, whatever the lies."""
    rng = np.random.default_rng(seed)
    n, liars = 11, 1
    A = np.zeros((n + liars, n + liars))
    upper = np.triu(rng.random((n, n)) < 0.9, 1)
    A[:n, :n] = upper + upper.T
    A[n:, :n] = rng.random((liars, n)) < 0.5
    A[:n, n:] = A[n:, :n].T
    L = np.diag(A[:n, :n].sum(1)) - A[:n, :n]
    mu_2, largest = theory.spectrum(L)
    eta, b = 1 / largest, 1
    W = eta * A / 1.0
    W[np.diag_indices(len(W))] = 1 - W.sum(1)
    assume(4 * b < mu_2)  # nearly all of these graphs
    graph = T.from_adjacency(A)
    attack = R.spectral(graph) if "spectral" in name else ATTACKS[name]
    attack = R.strongest(attack) if name == "strongest spectral" else attack
    x0 = rng.standard_normal((n + liars, 2))
    plan = tl.rounds(W, 6)
    for rule_name, rule in (("cs_plus", R.cs_plus(eta * b)), ("gts", R.gts(eta * b))):
        if 2 * theory.robustness(rule_name) * b >= mu_2:
            continue
        factor = theory.contraction(rule_name, b, mu_2, eta)
        protocol = gj.gossip_averaging(gj.sharing.robust(rule, (n,), attack, topology=graph))
        watch = [gj.observe.honest_consensus((n,), jnp.asarray(x0))]
        run = gj.simulate(KEY, protocol, plan, jnp.asarray(x0), observers=watch, record_every=1)
        seen = np.asarray(run["honest_consensus_distance"])
        assert np.all(seen[1:] <= factor * seen[:-1] * (1 + 1e-9) + 1e-15)


def test_the_strongest_lie_moves_the_victim_more():
    others = HEARD
    rule = R.cs_plus(1 / 6)
    at = victim(others=others, rule=rule)
    attack = R.dissensus(0.01)
    for chosen in (attack, R.dissensus(1.0), R.dissensus(100.0)):
        lies = [np.asarray(a.lie(at, None)) for a in (chosen, R.strongest(attack))]
        moves = []
        for lie in lies:
            heard = np.where(np.asarray(at.honest)[:, None], others, lie)
            moves.append(np.asarray(rule.apply(at.own, jnp.asarray(heard), at.weights, None)) - HONEST[0])
        direction = lies[0][4] - HONEST[0]
        assert moves[1] @ direction >= moves[0] @ direction - 1e-9


def test_spectral_lies_follow_the_slowest_mode():
    """Two worlds that differ: lies push each node away from the other world."""
    A = theory.two_worlds(5, 2)
    A = np.block([[A, np.ones((10, 1))], [np.ones((1, 10)), np.zeros((1, 1))]])
    x = np.asarray([0.0] * 5 + [1.0] * 5 + [7.0])[:, None]
    attack = R.spectral(T.from_adjacency(A), scale=0.25).start(np.asarray([10]), 11)
    common = attack.prepare(jnp.arange(11) == 10, jnp.asarray(x))
    for node, sign in ((0, -1), (7, 1)):
        at = victim(own=x[node], others=x)._replace(node=jnp.int32(node))
        np.testing.assert_allclose(attack.lie(at, common)[10], x[node] + sign * 0.25, rtol=0, atol=1e-9)


def test_attackers_hear_the_truth_and_honest_rows_count():
    graph = T.complete(6)
    x0 = np.arange(6.0)[:, None]
    found = one_round(R.gts(0.0), (5,), R.echo(), graph, x0, mixing=gj.mixing.max_degree)
    assert found[5, 0] == pytest.approx(2.5)
    assert found[0, 0] == pytest.approx((0 + 0 + 1 + 2 + 3 + 4) / 6)
    watch = gj.observe.honest_consensus((5,), jnp.asarray(x0))
    assert {variable.name for variable in watch.variables} == {"honest_consensus_distance", "honest_error"}


def test_rounds_do_not_depend_on_how_many_rows_run_at_once(monkeypatch):
    from gossipjax.sharing import _robust

    x0 = np.random.default_rng(0).standard_normal((9, 2))
    arguments = R.nnm(1, R.trimmed_mean(1)), (2,), R.gaussian(), T.complete(9), x0, gj.mixing.max_degree
    at_once = one_round(*arguments)
    monkeypatch.setattr(_robust, "_BATCH_BYTES", 1000)
    np.testing.assert_allclose(one_round(*arguments), at_once, rtol=0, atol=1e-12)


def test_ubar_takes_near_models_that_are_no_worse():
    """With exact losses ‖x − b‖²: of the two nearest of five, one is better."""
    task = gj.tasks.quadratic(np.zeros((6, 1)))
    rule = R.ubar(task, rho=0.4, alpha=0.5)
    x0 = np.asarray([1.0, 0.9, 1.05, 3.0, -2.0, 1.5])[:, None]
    plan = tl.rounds(gj.mixing.max_degree(T.complete(6)), 1)
    run = gj.simulate(KEY, gj.gossip_averaging(gj.sharing.robust(rule)), plan, jnp.asarray(x0), observers=[])
    assert float(run.x[0, 0]) == pytest.approx(0.5 * 1.0 + 0.5 * 0.9)
    # At 1.05 the two nearest, 1.0 and 0.9, are both better; at 0.9 none of 1.0 and 1.05 is: the nearest alone.
    assert float(run.x[2, 0]) == pytest.approx(0.5 * 1.05 + 0.5 * 0.95)
    assert float(run.x[1, 0]) == pytest.approx(0.5 * 0.9 + 0.5 * 1.0)


def test_flipped_labels():
    data = gj.tasks.digits(limit=(64, 32))
    task = gj.tasks.classification(data, gj.tasks.iid(64, 4, seed=0), gj.tasks.softmax_regression(64, 10))
    flipped = R.flip_labels(task, [2], 10)
    for node in (1, 2):
        before, after = (each.batch(KEY, each.data, jnp.int32(node)) for each in (task, flipped))
        np.testing.assert_array_equal(after["inputs"], before["inputs"])
        expected = 9 - before["labels"] if node == 2 else before["labels"]
        np.testing.assert_array_equal(after["labels"], expected)
    private = gj.privacy.sample_dp(flipped, clip=1.0, noise=0.0, batch_size=16)
    for node in range(4):  # all samples of each shard
        own = np.asarray(task.data["labels"])[np.asarray(task.data["indices"])[16 * node : 16 * node + 16]]
        drawn = private.batch(KEY, private.data, jnp.int32(node)).samples["labels"]
        np.testing.assert_array_equal(np.ravel(drawn), 9 - own if node == 2 else own)
    with pytest.raises(ValueError, match="labels"):
        R.flip_labels(gj.tasks.quadratic(np.zeros((4, 2))), [0], 10)
    for nodes, classes, words in (
        ([2], 3, "the data have the label 9"),
        ([], 10, "at least one node"),
        ([2, 2], 10, "once"),
        ([0, 1], 10, "half or more"),
        ([4], 10, "no node of 4"),
    ):
        with pytest.raises(ValueError, match=words):
            R.flip_labels(task, nodes, classes)


REFUSED = [
    (lambda: gj.sharing.robust(R.trimmed_mean(2), topology=T.ring(8)), "node 0"),
    (lambda: gj.sharing.robust(R.gts(0.1), [0, 1, 2, 3], R.echo(), topology=T.ring(8)), "half or more"),
    (lambda: gj.sharing.robust(R.gts(0.1), [0, 4], R.echo(), topology=T.ring(8)), "2 parts"),
    (lambda: gj.sharing.robust(R.gts(0.1), [9], R.echo(), topology=T.ring(8)), "no node"),
    (lambda: gj.sharing.robust(R.gts(0.1), [1, 1], R.echo()), "once"),
    (lambda: gj.sharing.robust(R.gts(0.1), (), R.echo()), "at least one attacker"),
    (lambda: gj.sharing.robust(R.gts(0.1), [1], R.targeted_echo(1)), "node 1, is an attacker"),
    (lambda: gj.sharing.robust(R.gts(0.1), [1], R.targeted_echo(4), topology=T.ring(8)), "hears no attacker in ring"),
    (lambda: gj.sharing.robust(R.gts(0.1), topology=[T.ring(8), T.ring(6)]), "different numbers of nodes"),
    (lambda: gj.observe.honest_consensus([0, 1], jnp.ones((2, 1))), "honest"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_what_is_refused_before_a_run(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_refused_in_a_run():
    x0, plan = jnp.ones((8, 1)), tl.rounds(gj.mixing.metropolis(T.ring(8)), 2)

    def simulate(sharing, plan=plan, x0=x0):
        return gj.simulate(KEY, gj.gossip_averaging(sharing), plan, x0, observers=[])

    with pytest.raises(gj.Diverged, match=r"node 0.*too few neighbours"):
        simulate(gj.sharing.robust(R.trimmed_mean(2)))
    with pytest.raises(ValueError, match="half or more"):
        simulate(gj.sharing.robust(R.gts(0.1), [0, 1, 2, 3], R.echo()))
    with pytest.raises(ValueError, match="no node"):
        simulate(gj.sharing.robust(R.gts(0.1), [8], R.echo()))
    with pytest.raises(ValueError, match="is for 8 nodes, and the protocol for 6"):
        simulate(gj.sharing.robust(R.gts(0.1), topology=T.ring(6)))
    with pytest.raises(ValueError, match=r"a lie for every lane, an array \(8, 1\), not an array \(1,\)"):
        simulate(gj.sharing.robust(R.gts(0.1), [0], R.Attack(Partial(lambda victim, common: victim.own))))
    flights = tl.push_gossip(T.ring(8), 9.0, compute=None, gossip=1.0, latency=0.3, seed=0)
    with pytest.raises(ValueError, match="compares several"):
        simulate(gj.sharing.robust(R.nna(0), [0], R.echo()), flights)
    best = tl.rounds(gj.mixing.best_constant(T.star(8)), 2)
    negative = tl.rounds(np.asarray([[1.5, -0.5], [-0.5, 1.5]]), 1)
    assert len(best)
    with pytest.raises(gj.Diverged, match="negative weight"):
        simulate(gj.sharing.robust(R.gts(0.1)), negative, jnp.ones((2, 1)))


def _broken(victim, common):
    del common
    return jnp.full_like(victim.others, jnp.nan)


def test_lies_that_are_not_finite():
    graph, x0 = T.complete(6), np.arange(6.0)[:, None]
    attack = R.Attack(Partial(_broken))
    found = one_round(R.nna(1), (5,), attack, graph, x0, mixing=gj.mixing.max_degree)
    np.testing.assert_allclose(found[:5, 0], 2, rtol=0, atol=1e-12)
    with pytest.raises(gj.Diverged, match="not finite than the rule tolerates"):
        one_round(R.nna(0), (5,), attack, graph, x0, mixing=gj.mixing.max_degree)


@pytest.mark.parametrize(
    "attack",
    [R.gaussian(2.0), R.strongest(R.gaussian(2.0)), R.alie(), R.targeted_echo()],
    ids=["gaussian", "best", "alie", "targeted"],
)
def test_packing_and_records_change_no_lie(attack):
    """At meetings each victim's draws are those of its own event, also where many are packed into one."""
    plan = tl.poisson_pairs(T.ring(24), 200, seed=3)
    protocol = gj.gossip_averaging(gj.sharing.robust(R.clipped_gossip(0.5), [3, 17], attack))
    x0 = jnp.arange(24.0)[:, None]
    runs = [
        np.asarray(gj.simulate(KEY, protocol, plan, x0, packing=packing, record_every=every).x)
        for packing, every in (("sequential", 200), ("packed", 200), ("packed", 7))
    ]
    for each in runs[1:]:
        np.testing.assert_allclose(each, runs[0], rtol=1e-5, atol=1e-4)  # float32 sums in another order, 200 events


@pytest.mark.parametrize("attack", [R.spectral(T.ring(24)), R.echo(8)], ids=["spectral", "echo"])
def test_attacks_made_from_all_models_are_not_packed(attack):
    plan = tl.poisson_pairs(T.ring(24), 200, seed=3)
    protocol = gj.gossip_averaging(gj.sharing.robust(R.clipped_gossip(0.5), [3, 17], attack))
    x0 = jnp.arange(24.0)[:, None]
    with pytest.raises(ValueError, match="models of the whole network at one time, which packed events do not have"):
        gj.simulate(KEY, protocol, plan, x0, packing="packed")
    assert np.isfinite(np.asarray(gj.simulate(KEY, protocol, plan, x0, packing="sequential").x)).all()


def test_parts_built_for_other_networks_are_refused():
    ring, x0 = T.ring(6), jnp.zeros((6, 3))
    plan = tl.rounds(gj.mixing.metropolis(ring), 4)

    def run(*words):
        return gj.simulate(KEY, gj.gossip_averaging(gj.sharing.robust(*words)), plan, x0)

    task = gj.tasks.quadratic(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="is for 6 nodes, and the protocol for 5"):
        run(R.ubar(task))
    with pytest.raises(ValueError, match="is for 6 nodes, and the protocol for 7"):
        run(R.trimmed_mean(0), [1], R.spectral(T.ring(7)))
    with pytest.raises(ValueError, match="are for 5 and 7 nodes"):
        run(R.ubar(task), [1], R.spectral(T.ring(7)))
    with pytest.raises(ValueError, match="node=9: echo copies a node of 6"):
        run(R.trimmed_mean(0), [1], R.echo(9))
    with pytest.raises(ValueError, match="node 9, is no node of 6"):
        run(R.trimmed_mean(0), [1], R.targeted_echo(9))


# Lies that remember


def _echoes(rounds, W, targets, liars, rate, x0, node=None):
    """D-PSGD on quadratics with liars that tell ``2 (x_t − x_{t−1})``, in float64."""
    x, before = x0.copy(), x0.copy()
    for _ in range(rounds):
        x = x - rate * (x - targets)
        new = W @ x
        for i in np.setdiff1d(np.arange(len(x)), liars):
            heard = x.copy()
            heard[liars] = 2 * (x[i] - before[i]) if node in (None, i) else x[i]
            new[i] = W[i] @ heard
        x, before = new, x
    return x


@pytest.mark.parametrize("node", [None, 2])
@pytest.mark.parametrize("form", ["dense", "table"])
def test_targeted_echoes_are_the_plain_loop(form, node):
    """Twice the change since the model that the victim said before; at first, since its start."""
    graph, liars, rate = T.random_regular(8, 4, seed=0), (3, 6), 0.3
    rng = np.random.default_rng(5)
    targets, x0 = rng.standard_normal((2, 8, 3))
    W = gj.mixing.metropolis(graph)
    attack = R.targeted_echo(node)
    task = gj.tasks.quadratic(targets)
    protocol = gj.dpsgd(task, Partial(optax.sgd, rate), sharing=gj.sharing.robust(R.gts(0.0), liars, attack))
    found = gj.simulate(KEY, protocol, tl.rounds(W, 5, form=form), jnp.asarray(x0), observers=[], record_every=2).x
    expected = _echoes(5, W.toarray(), targets, list(liars), rate, x0, node)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def _reversed(victim, common):
    """Undo what the victim has changed by."""
    del common
    return jnp.broadcast_to((2 * victim.before - victim.own)[None], victim.others.shape)


def test_an_attack_of_a_user_remembers():
    """Plain values say that it does and whom it is aimed at; the best of it remembers, too."""
    graph, liars, rate = T.random_regular(8, 4, seed=0), [3, 6], 0.3
    targets, x0 = np.random.default_rng(5).standard_normal((2, 8, 3))
    W, attack = gj.mixing.metropolis(graph), R.Attack(Partial(_reversed), remembers=True, victim=0)
    sharing = gj.sharing.robust(R.gts(0.0), liars, attack, topology=graph)
    protocol = gj.dpsgd(gj.tasks.quadratic(targets), Partial(optax.sgd, rate), sharing=sharing)
    found = gj.simulate(KEY, protocol, tl.rounds(W, 5), jnp.asarray(x0), observers=[]).x
    x, before, dense = x0, x0, W.toarray()
    for _ in range(5):
        x = x - rate * (x - targets)
        new = dense @ x
        for i in np.setdiff1d(np.arange(8), liars):
            heard = x.copy()
            heard[liars] = 2 * before[i] - x[i]
            new[i] = dense[i] @ heard
        x, before = new, x
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)
    assert R.strongest(attack)[3:] == (True, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"remembers": 1}, "attack.remembers=1"),
        ({"victim": -1}, "attack.victim=-1"),
        ({"victim": "first"}, "attack.victim='first'"),
        ({"victim": 8}, "node 8, is no node of 8"),
    ],
)
def test_fields_of_an_attack_are_checked_before_a_run(fields, words):
    with pytest.raises(ValueError, match=words):
        gj.sharing.robust(R.gts(0.1), [1], R.Attack(Partial(_reversed), **fields), topology=T.ring(8))


GOALS = np.random.default_rng(2).normal(size=(6, 3))
DIFFERENTIATED = {
    "median": lambda: R.coordinate_median(1),
    "trimmed": lambda: R.trimmed_mean(1),
    "smoothed": lambda: R.geometric_median(1, smoothed=True),
    "Krum": lambda: R.krum(0),
    "clipped": lambda: R.clipped_gossip(1.0),
    "he": lambda: R.clipped_gossip(beta=0.2),
    "CS+": lambda: R.cs_plus(0.2),
    "GTS": lambda: R.gts(0.2),
    "NNA": lambda: R.nna(1),
    "IOS": lambda: R.ios(1),
    "FABA": lambda: R.faba(1),
    "NNM": lambda: R.nnm(1, R.trimmed_mean(1)),
    "UBAR": lambda: R.ubar(gj.tasks.quadratic(GOALS), rho=0.7),
}


def moved(rule, form):
    """Build a function of the start whose value is a weighted sum of all models after a round on a wheel.

    Nodes of the rim have absent lanes in a table, and all nodes their own in a dense matrix: models at distance 0.
    """
    wheel = np.zeros((6, 6))
    for i in range(5):
        wheel[1 + i, 1 + (i + 1) % 5] = wheel[1 + (i + 1) % 5, 1 + i] = wheel[0, 1 + i] = wheel[1 + i, 0] = 1
    plan = tl.rounds(gj.mixing.metropolis(T.from_adjacency(wheel)), 1, form=form)
    protocol = gj.gossip_averaging(gj.sharing.robust(rule))

    def value(x):
        (state, _), _ = gj.run(KEY, protocol, plan, protocol.init(KEY, x))
        return jnp.sum(jnp.asarray(GOALS) * protocol.model(state))

    return value


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_a_round_with_a_rule_can_be_differentiated(name):
    """Central differences with h = 1e-6: an error of about h² and of 1e-16 / h; no rule changes its choice so near."""
    x0, along = np.random.default_rng(0).normal(size=(2, 6, 3))
    for form in ("dense", "table"):
        value = jax.jit(moved(DIFFERENTIATED[name](), form))
        slope = (value(x0 + 1e-6 * along) - value(x0 - 1e-6 * along)) / 2e-6
        np.testing.assert_allclose(jnp.sum(jax.grad(value)(x0) * along), slope, rtol=0, atol=1e-7)


def test_the_exact_geometric_median_has_no_reverse_mode():
    """As its docstring and docs/faq.md say."""
    value, x0 = moved(R.geometric_median(1), "table"), np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match="Reverse-mode"):
        jax.grad(value)(x0)
