"""Secure aggregation with shares, on changing graphs, on shared coordinates, and with planned absences."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gossipjax as gj
from gossipjax import timeline, topology
from gossipjax.mixing import metropolis
from gossipjax.sharing import _shamir, secure_aggregation
from gossipjax.sharing._edges import edges_at
from gossipjax.sharing._masking import own_seeds, pairwise_masks, seed_shares
from gossipjax.sharing._secure_traffic import default_threshold
from gossipjax.timeline._events import event_of

KEY, NODES, D = jax.random.key(3), 6, 4
FOUR_REGULAR = topology.random_regular(8, 4, seed=0)


def event_at(plan, t):
    return event_of(KEY, plan, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), plan.xs))


@jax.jit
def one_round(sharing, state, x, event):
    state, (sent, bits) = sharing.encode(KEY, state, x, x, event)
    state, merged = sharing.merge(KEY, state, (x, sent, event))
    return state, merged, sent, bits


def rounds_of(sharing, plan, x, times):
    """Run some rounds, and return the state and the models after each, and bits."""
    state, x, found = sharing.init(jnp.asarray(x)), jnp.asarray(x), []
    for t in times:
        state, x, sent, bits = one_round(sharing, state, x, event_at(plan, t))
        found.append((np.asarray(x), sent, np.asarray(bits)))
    return state, found


def wheel(rng):
    """A graph in which node 0 is tied to all others: tables of all such graphs have one width."""
    adjacency = np.triu(rng.random((NODES, NODES)) < rng.choice([0.2, 0.7]), 1)
    rim = np.arange(1, NODES)
    adjacency[0, 1:] = True
    adjacency[np.minimum(rim, np.roll(rim, 1)), np.maximum(rim, np.roll(rim, 1))] = True
    return topology.from_adjacency(adjacency | adjacency.T)


def weights_on(graph, rng):
    W = np.where(graph.adjacency().toarray() != 0, rng.uniform(0.01, 1, (NODES, NODES)), 0)
    W += np.diag(rng.uniform(0, 2, NODES))
    return W / W.sum(axis=1, keepdims=True)


def in_the_clear(graph, W, x, absent, left, bits, chosen):
    """A round in Python's integers: receivers that hear fewer than ``left(degree)`` keep their models."""
    result, aborted = x.copy(), np.zeros(len(x), int)
    for i in np.flatnonzero(~absent).tolist():
        members = graph.neighbors(i)
        here, gone = members[~absent[members]], members[absent[members]]
        if gone.size and len(here) < left(len(members)):
            aborted[i] = 1
            continue
        total = [sum(round(float(W[i, j] * x[j, c]) * 2**bits) for j in here) for c in chosen]
        result[i, chosen] = (W[i, i] + W[i, gone].sum()) * x[i, chosen] + np.array(total) * 2.0**-bits
    return result, aborted


FORMS = {
    "seeds": ({"recovery": "seeds"}, lambda d: 2),
    "shares of half": ({"recovery": "shares", "share": 0.5}, lambda d: max(2, d // 2 + 1)),
}


@pytest.mark.slow
@pytest.mark.exact
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.6]))
def test_every_form_is_the_plain_sum_of_whole_numbers(form, seed, dropout):
    """Two graphs in turn, absences as drawn here; with masks and without, bit for bit."""
    options, left = FORMS[form]
    rng = np.random.default_rng(seed)
    graphs = [wheel(rng), wheel(rng)]
    matrices = [weights_on(graph, rng) for graph in graphs]
    plan = timeline.rounds(matrices, 4, form="table")
    absent = rng.random((3, NODES)) < dropout
    start = rng.uniform(-100, 100, (NODES, D))
    made = [secure_aggregation(graphs, dropout=absent, masks=masks, **options) for masks in (True, False)]
    (state, masked), (_, plain) = (rounds_of(sharing, plan, start, range(4)) for sharing in made)
    x, aborted = start, np.zeros(NODES, int)
    for t, ((found, _, bits), (clear, _, same_bits)) in enumerate(zip(masked, plain, strict=True)):
        assert found.tobytes() == clear.tobytes()
        np.testing.assert_array_equal(bits, same_bits)
        chosen = range(D) if form == "seeds" else np.flatnonzero((found != x).any(axis=0))
        W = np.asarray(gj.mixing.to_dense(event_at(plan, t).mixing, NODES))
        x, more = in_the_clear(graphs[t % 2], W, x, absent[t % 3], left, 24, chosen)
        # The receiver's own product, and the decoded sum.
        np.testing.assert_allclose(found, x, rtol=0, atol=np.finfo(np.float64).eps * np.abs(start).max())
        x, aborted = found, aborted + more
    assert not state.faults.codes.any()
    assert state.aborted.tolist() == aborted.tolist()


# Shares


def byte_score(words):
    """The largest standard score of χ² of the four bytes of words, against uniform ones."""
    counts = [np.bincount((words >> np.uint32(8 * k)) & np.uint32(255), minlength=256) for k in range(4)]
    expected = words.size / 256
    return max(abs(np.sum((count - expected) ** 2 / expected) - 255) / np.sqrt(2 * 255) for count in counts)


@pytest.mark.parametrize("recovery", ["seeds", "shares"])
def test_a_late_message_after_the_recovery(recovery):
    """The classical attack: node 0 takes node 1 for lost, has its masks removed, and then its message arrives."""
    graph, x = topology.complete(4), np.random.default_rng(0).standard_normal((4, 9000))
    plan, absent = timeline.rounds(metropolis(graph), 1), np.array([[False, True, False, False]])
    sent = {
        name: rounds_of(secure_aggregation(graph, recovery=recovery, dropout=table, masks=masks), plan, x, [0])[1][0][1]
        for name, table, masks in (("late", ~absent & absent, True), ("plain", ~absent & absent, False))
    }
    late, plain = (np.asarray(sent[name].words)[1, 0] for name in ("late", "plain"))
    assert byte_score(late) < 4
    # What the receiver can compute: the masks of all pairs with node 1, whose seeds or key it was given.
    edges = edges_at(secure_aggregation(graph).encode.args[0].edges, 0)
    revealed = np.asarray(pairwise_masks(KEY, edges, event_at(plan, 0), 9000))[0, 0]
    seen = late - revealed
    assert (seen == plain).all() == (recovery == "seeds")
    assert (byte_score(seen) < 4) == (recovery == "shares")


def test_own_seeds_are_never_used_twice():
    plan, members = timeline.rounds(metropolis(topology.complete(8)), 5), jnp.arange(8, dtype=jnp.int32)
    seeds = [np.asarray(own_seeds(KEY, event_at(plan, t), jnp.roll(members, k))) for t in range(5) for k in range(8)]
    assert len(np.unique(np.concatenate(seeds), axis=0)) == 5 * 8 * 8


def test_fewer_members_than_the_threshold_do_not_have_the_seed():
    edges = edges_at(secure_aggregation(topology.complete(NODES)).encode.args[0].edges, 0)
    event, members = event_at(timeline.rounds(np.full((6, 6), 1 / 6), 1), 0), edges.neighbors[:, 2]
    thresholds, seeds = jnp.full(NODES, 3, jnp.int32), own_seeds(KEY, event, members)
    held = seed_shares(KEY, edges, event, thresholds, members)
    for last, right in ((2, True), (1, False)):
        weights = _shamir.weights_at_zero(jnp.broadcast_to(jnp.arange(5)[None] <= last, (NODES, 5)))
        limbs = [np.asarray(_shamir.reconstruct(weights, held[..., k])) for k in range(4)]
        found = np.stack([limbs[0] + 65536 * limbs[1], limbs[2] + 65536 * limbs[3]], axis=1)
        assert (found == np.asarray(seeds)).all() == right
        assert (found == np.asarray(seeds)).any() == right


def test_bytes_of_shares_in_the_specification():
    graph = topology.random_regular(16, 4, seed=0)
    plan, words = timeline.rounds(metropolis(graph), 2), 25_450
    found = rounds_of(secure_aggregation(graph, recovery="shares", masks=False), plan, np.zeros((16, words)), [0, 1])[1]
    for _, _, bits in found:
        assert bits.sum() == 8 * 16 * (4 * 102_192 + 1_552)


def counted_with_shares(graph, absent, words):
    """Bytes that each node sends in a round, message by message."""
    sent, degrees = np.zeros(graph.num_nodes, int), graph.in_degrees
    for i in range(graph.num_nodes):
        members, d = graph.neighbors(i), degrees[i]
        left = members[~absent[members]]
        unmasks = not absent[i] and len(left) >= max(2, d // 2 + 1)
        for j in members:
            sent[j] += 2 * 32 + (d - 1) * 2 * 32  # two keys; two shares for each other member
            sent[i] += (d - 1) * (2 * 32 + 2 * 32)  # passed on: the keys of the others, and their shares
            sent[j] += 0 if absent[j] else 4 * words + 8
            sent[j] += 32 * d if unmasks and not absent[j] else 0
            sent[i] += 4 if unmasks and not absent[j] else 0
    return sent


def test_bytes_of_shares_with_absences():
    rng = np.random.default_rng(5)
    graph, absent = wheel(rng), rng.random((8, NODES)) < 0.4
    sharing = secure_aggregation(graph, recovery="shares", dropout=absent, masks=False)
    _, found = rounds_of(sharing, timeline.rounds(metropolis(graph), 8), np.zeros((NODES, D)), range(8))
    for t, (_, _, bits) in enumerate(found):
        assert (bits.sum(axis=1) / 8).tolist() == counted_with_shares(graph, absent[t], D).tolist()


@pytest.mark.slow
def test_the_threshold_decides_what_is_aborted():
    graph, absent = topology.complete(NODES), np.arange(NODES)[None] >= 4
    plan, x = timeline.rounds(metropolis(graph), 1), np.random.default_rng(0).standard_normal((NODES, D))
    for threshold, aborts in ((3, 0), (4, 1)):
        sharing = secure_aggregation(graph, recovery="shares", threshold=threshold, dropout=absent)
        state, [(found, _, _)] = rounds_of(sharing, plan, x, [0])
        assert state.aborted.tolist() == [aborts] * 4 + [0, 0]
        assert (found[:4] == x[:4]).all() == bool(aborts)


# Changing graphs


def fresh(number, n=10, degree=3):
    return [topology.random_regular(n, degree, seed=seed, tries=50) for seed in range(number)]


def counted_keys(graphs, times):
    """Bytes of keys that each node sends, from the sets of keys that nodes hold."""
    n = graphs[0].num_nodes
    holds, found = [set() for _ in range(n)], []
    for t in times:
        graph, sent, news = graphs[t % len(graphs)], np.zeros(n, int), [set() for _ in range(n)]
        for i in range(n):
            for j in graph.neighbors(i):
                sent[j] += 32 * (j not in holds[i])
                news[i].add(j)
                for k in graph.neighbors(i):
                    if k != j:
                        sent[i] += 32 * (k not in holds[j])
                        news[j].add(k)
        holds = [old | new for old, new in zip(holds, news, strict=True)]
        found.append(sent)
    return np.array(found)


@pytest.mark.parametrize("times", [range(12), range(3, 12)], ids=["from the start", "from the middle"])
def test_keys_of_new_pairs_are_counted_once(times):
    graphs = fresh(5)
    plan = timeline.rounds([metropolis(graph) for graph in graphs], 12)
    _, found = rounds_of(secure_aggregation(graphs, masks=False), plan, np.zeros((10, D)), times)
    keys = np.array([bits.sum(axis=1) for _, _, bits in found]) / 8 - 3 * (4 * D + 8)
    np.testing.assert_array_equal(keys, counted_keys(graphs, list(times)))
    assert keys[1].any()
    assert not keys[6:].any()


def test_a_run_on_fresh_graphs():
    graphs = fresh(6)
    plan = timeline.rounds([metropolis(graph) for graph in graphs], 6)
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((10, D)))
    runs = [
        gj.simulate(KEY, gj.gossip_averaging(sharing), plan, x0, record_every=6)
        for sharing in (secure_aggregation(graphs), None)
    ]
    # Six rounds of three neighbours, at half a step of 2^-24 each.
    np.testing.assert_allclose(runs[0].x, runs[1].x, rtol=0, atol=6 * 3 * 2.0**-25)
    assert float(runs[0]["bytes_sent"][-1]) == counted_keys(graphs, range(6)).sum() + 6 * 30 * (4 * D + 8)
    with pytest.raises(gj.Diverged, match=r"a list of their topologies \(event 0; throw"):
        gj.simulate(KEY, gj.gossip_averaging(secure_aggregation(graphs[1:])), plan, x0)
    with pytest.raises(ValueError, match="one fixed mixing matrix"):
        gj.simulate(KEY, gj.gossip_averaging(secure_aggregation(graphs[0])), plan, x0)


# Coordinates


def test_all_nodes_send_the_same_new_coordinates():
    x = np.random.default_rng(0).standard_normal((8, 100))
    plan, sharing = timeline.rounds(metropolis(FOUR_REGULAR), 40), secure_aggregation(FOUR_REGULAR, share=0.1)
    _, found = rounds_of(sharing, plan, x, range(40))
    before, sets = x, []
    for after, sent, bits in found:
        moved = before != after
        assert moved.sum(axis=1).tolist() == [10] * 8
        assert (moved == moved[0]).all()
        # Ten sums of four numbers, each rounded to half a step of 2^-24.
        np.testing.assert_allclose(after.mean(0), before.mean(0), rtol=0, atol=4 * 2.0**-25)
        assert sent.words.shape == (8, 4, 10)
        assert bits.tolist() == [320 + 64 + (4 * 256 if not sets else 0)] * 8
        before = after
        sets.append(np.flatnonzero(moved[0]))
    assert len({tuple(each) for each in sets}) == 40
    # Each of 100 coordinates has a binomial number of turns, with standard deviation √(40 · 0.1 · 0.9).
    turns = np.bincount(np.concatenate(sets), minlength=100)
    assert np.abs(turns - 4).max() < 4.5 * np.sqrt(3.6)


def test_at_least_one_coordinate_is_sent():
    plan = timeline.rounds(metropolis(FOUR_REGULAR), 1)
    _, [(_, sent, _)] = rounds_of(secure_aggregation(FOUR_REGULAR, share=0.01), plan, np.zeros((8, 3)), [0])
    assert sent.words.shape == (8, 4, 1)


# Absences


@pytest.mark.parametrize("recovery", ["seeds", "shares"])
def test_every_node_absent_once_then_all(recovery):
    absent = np.concatenate([np.eye(NODES, dtype=bool), np.ones((1, NODES), bool)])
    graph = topology.complete(NODES)
    plan, x = timeline.rounds(metropolis(graph), 7), np.random.default_rng(0).standard_normal((NODES, D))
    state, found = rounds_of(secure_aggregation(graph, recovery=recovery, dropout=absent), plan, x, range(7))
    before = x
    for t, (after, sent, _) in enumerate(found):
        assert sent.present.tolist() == (~absent[t]).tolist()
        expected, _ = in_the_clear(graph, metropolis(graph).toarray(), before, absent[t], lambda d: 2, 24, range(D))
        # The mixing holds weights in float64; the product and the sum are rounded.
        np.testing.assert_allclose(after, expected, rtol=0, atol=4 * np.finfo(np.float64).eps * np.abs(x).max())
        before = after
    assert (found[6][0] == found[5][0]).all()
    assert not state.aborted.any()


def test_a_planned_absence_without_recovery_ends_the_run():
    absent = np.zeros((4, NODES), bool)
    absent[2, 5] = True
    graph = topology.ring(NODES)
    method = gj.gossip_averaging(secure_aggregation(graph, dropout=absent, recovery="none"))
    with pytest.raises(gj.Diverged, match=r"node 0 cannot remove the masks .*recovery='seeds' or 'shares' \(event 2;"):
        gj.simulate(KEY, method, timeline.rounds(metropolis(graph), 4), jnp.ones((NODES, 1)))


@pytest.mark.parametrize("recovery", ["seeds", pytest.param("shares", marks=pytest.mark.slow)])
def test_in_single_precision(recovery):
    """Numbers of rounds and words are unsigned: without 64 bits, plain integers above 2^31 would be an error."""
    with jax.enable_x64(False):
        graphs, absent = [topology.complete(NODES), topology.complete(NODES)], np.arange(NODES)[None] == 2
        plan = timeline.rounds([metropolis(graph) for graph in graphs], 2)
        x = np.random.default_rng(0).standard_normal((NODES, D)).astype(np.float32)
        found = [
            rounds_of(secure_aggregation(graphs, recovery=recovery, dropout=absent, masks=masks), plan, x, [0, 1])[1]
            for masks in (True, False)
        ]
    assert found[0][1][0].dtype == np.float32
    assert found[0][1][0].tobytes() == found[1][1][0].tobytes()


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recovery": "shares", "threshold": 6}, r"threshold=6: must be .* in 1 … 5; above the colluders"),
        ({"recovery": "shares", "threshold": 1, "colluders": 1}, "threshold=1: must be .* in 2 … 5"),
        ({"threshold": 3}, "threshold=3: only shares have one; pass recovery='shares'"),
        ({"recovery": "reveal"}, "recovery='reveal': must be one of 'seeds', 'shares', 'none'"),
        ({"share": 0.0}, "share=0.0: must be"),
        ({"dropout": np.zeros((3, 5), bool)}, r"dropout of shape \(3, 5\) and type bool: must be booleans"),
        ({"dropout": np.zeros((0, 6), bool)}, r"dropout of shape \(0, 6\)"),
        ({"dropout": np.zeros((3, 6), np.int32)}, r"dropout of shape \(3, 6\) and type int32"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(secure_aggregation)(topology.complete(NODES), **options)


@pytest.mark.parametrize(("graphs", "needs"), [(1, "one fixed mixing matrix"), (2, "synchronous rounds")])
def test_a_plan_that_loses_messages_is_refused(graphs, needs):
    """Phones that charge at different hours: their absences belong into dropout."""
    phones = dataclasses.replace(gj.devices.fitted(8, seed=0), availability=gj.devices.charging(8, seed=0))
    W = metropolis(FOUR_REGULAR)
    plan = gj.systems.synchronous(phones, W, 3, round_seconds=600.0, local_steps=1, model_bytes=1000)
    method = gj.gossip_averaging(secure_aggregation([FOUR_REGULAR] * graphs if graphs > 1 else FOUR_REGULAR))
    with pytest.raises(ValueError, match=needs):
        gj.simulate(KEY, method, plan, jnp.zeros((8, 250)))


def test_refusals_of_lists():
    with pytest.raises(ValueError, match=r"must be graphs of one number of nodes, not of \[6, 8\]"):
        secure_aggregation([topology.ring(6), topology.ring(8)])
    with pytest.raises(ValueError, match="must be graphs of one number of nodes"):
        secure_aggregation([])
    with pytest.raises(ValueError, match=r"topology=path\(6\): node\(s\) 0, 5 have fewer than 2"):
        secure_aggregation([topology.ring(6), topology.path(6)])


def test_default_thresholds_hold_against_colluders():
    """⌊(d + c)/2⌋ + 1 is above c and half of d + c, and no more than d, wherever c + 2 ≤ d."""
    for degree in range(2, 40):
        for colluders in range(degree - 1):
            t = default_threshold(degree, colluders)
            assert max(colluders, (degree + colluders) / 2) < t <= degree
            assert t - 1 <= (degree + colluders) / 2
