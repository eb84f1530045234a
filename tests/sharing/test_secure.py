"""Secure aggregation against sums of whole numbers in Python, one receiver after another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import X0, D, N, exact_quadratic

import gossipjax as gj
from gossipjax import timeline, topology
from gossipjax._base import counter
from gossipjax.facts import check_requires
from gossipjax.mixing import lazy, metropolis
from gossipjax.sharing import _secure, error_feedback, secure_aggregation
from gossipjax.sharing._edges import edges_at
from gossipjax.sharing._masking import HEADROOM, neighborhood_sum, pairwise_masks, threefry
from gossipjax.sharing._secure_traffic import attend
from gossipjax.timeline._events import event_of

KEY = jax.random.key(3)
GRAPH = topology.random_regular(N, 4, seed=0)
UNEVEN = topology.from_adjacency(
    [
        [0, 1, 1, 0, 0, 1],
        [1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 1],
        [0, 0, 1, 0, 1, 1],
        [0, 0, 1, 1, 0, 1],
        [1, 0, 1, 1, 1, 0],
    ]
)  # degrees 3, 2, 5, 3, 3, 4


def event_at(plan, t):
    return event_of(KEY, plan, jax.tree.map(lambda leaf: jnp.asarray(leaf[t]), plan.xs))


@jax.jit
def one_round(sharing, key, state, x, event):
    state, (sent, bits) = sharing.encode(key, state, x, x, event)
    state, merged = sharing.merge(key, state, (x, sent, event))
    return state, merged, sent, bits


def rounded(sharing, plan, x, t=0, key=KEY):
    x = jnp.asarray(x)
    return one_round(sharing, key, sharing.init(x), x, event_at(plan, t))


def simulated(key, protocol, plan, x0, **options):
    return gj.simulate(key, protocol, plan, jax.tree.map(jnp.asarray, x0), **options)


def messages_to(graph, words, receiver):
    """What a receiver gets, by sender."""
    places = {sender: graph.neighbors(sender).tolist().index(receiver) for sender in graph.neighbors(receiver).tolist()}
    return {sender: np.asarray(words)[sender, place] for sender, place in places.items()}


def whole_number_sums(W, x, senders, bits):
    """The sum of fixed-point models, in Python's integers of any size."""
    return [sum(round(float(W[j] * x[j, c]) * 2**bits) for j in senders) for c in range(x.shape[1])]


def plain_round(graph, W, x, present, bits):
    """A round in the clear: sums of whole numbers; the weights of absent nodes return to the receiver."""
    result = x.copy()
    for i in range(len(x)):
        members = graph.neighbors(i)
        here = [j for j in members if present[j]]
        if not present[i] or len(here) < 2:
            continue
        own = W[i, i] + sum(W[i, j] for j in members if not present[j])
        result[i] = own * x[i] + np.array(whole_number_sums(W[i], x, here, bits)) * 2.0**-bits
    return result


@st.composite
def cases(draw):
    """A graph of degree two or more, random weights on its edges, models that its fixed point holds, and settings."""
    n = draw(st.sampled_from([3, 6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = rng.permutation(n)
    edges = {frozenset(pair) for pair in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True)}
    edges |= {frozenset((i, j)) for i in range(n) for j in range(i) if rng.random() < draw(st.sampled_from([0.0, 0.4]))}
    W = np.zeros((n, n))
    for i, j in (tuple(edge) for edge in edges):
        W[i, j], W[j, i] = rng.uniform(0.01, 1, 2)
    W += np.diag(rng.uniform(0, 2, n))
    bits = draw(st.sampled_from([8, 24, 30]))
    x = rng.uniform(-1, 1, (n, 3)) * 0.999 * 2.0 ** (31 - bits)
    return W / W.sum(1, keepdims=True), x, bits, draw(st.sampled_from(["dense", "table"]))


@settings(max_examples=12, deadline=None)
@given(cases(), st.sampled_from([0.0, 0.3]), st.integers(0, 99))
def test_a_round_is_that_of_whole_numbers(case, dropout, seed):
    W, x, bits, form = case
    graph = topology.from_adjacency((W > 0) & ~np.eye(len(W), dtype=bool))
    plan, key = timeline.rounds(W, 1, form=form), jax.random.key(seed)
    W = np.asarray(gj.mixing.to_dense(event_at(plan, 0).mixing, len(x)))
    sharing = secure_aggregation(graph, fraction_bits=bits, dropout=dropout)
    state, merged, sent, _ = rounded(sharing, plan, x, key=key)
    present = np.asarray(sent.present)
    assert present.all() or dropout
    assert not np.any(state.faults.codes)
    for i in range(len(x)):
        members = graph.neighbors(i)
        if present[members].all():
            received = sum(messages_to(graph, sent.words, i).values(), np.zeros(3, np.uint32))
            exact = whole_number_sums(W[i], x, members, bits)
            assert max(map(abs, exact)) < 2**31
            assert received.tolist() == [total % 2**32 for total in exact]
    # The receiver's own product and the decoded sum: compiled code may fuse the multiplication and the addition.
    rounding = np.finfo(np.float64).eps * np.abs(x).max()
    np.testing.assert_allclose(merged, plain_round(graph, W, x, present, bits), rtol=0, atol=rounding)
    if not dropout:
        most = 2.0 ** -(bits + 1) * graph.in_degrees[:, None] + 8 * rounding
        assert (np.abs(merged - W @ x) <= most).all()


@pytest.mark.exact
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_masks_change_no_bit(dropout):
    plan, x0 = timeline.rounds(metropolis(UNEVEN), 30), np.random.default_rng(0).standard_normal((6, 5))
    masked, plain = (
        simulated(KEY, gj.gossip_averaging(secure_aggregation(UNEVEN, dropout=dropout, masks=masks)), plan, x0)
        for masks in (True, False)
    )
    assert np.asarray(masked.x).tobytes() == np.asarray(plain.x).tobytes()
    assert float(masked["bytes_sent"][-1]) == float(plain["bytes_sent"][-1])
    assert np.abs(masked.x - x0).max() > 0.1


@pytest.mark.exact
def test_masks_change_no_bit_of_learning():
    graph = topology.ring(8)
    task, plan = (
        gj.tasks.quadratic(np.random.default_rng(0).standard_normal((8, 3))),
        timeline.rounds(metropolis(graph), 20),
    )
    masked, plain = (
        simulated(KEY, gj.dpsgd(task, optax.sgd(0.1), sharing=secure_aggregation(graph, masks=masks)), plan, task)
        for masks in (True, False)
    )
    assert np.asarray(masked.x).tobytes() == np.asarray(plain.x).tobytes()
    assert np.abs(masked.x).max() > 0.1


def test_published_vector():
    """Three neighbours with weight 1/4 each."""
    x = np.array([[0.0, 0, 0], [0.5, -1.25, 3], [100, -127.9, 1e-8], [-0.1, 0.2, -0.3]])
    graph = topology.complete(4)
    W = np.full((4, 4), 0.25)
    sent = rounded(secure_aggregation(graph, masks=False), timeline.rounds(lazy(W, 0.0), 1, form="table"), x)[2]
    received = messages_to(graph, sent.words, 0)
    assert received[1].tolist() == [2097152, 4289724416, 12582912]
    total = sum(received.values(), np.zeros(3, np.uint32)).view(np.int32) / 2**24
    # Rounded to steps of 2^-24, three times.
    np.testing.assert_allclose(total, [25.1, -32.2375, 0.675], rtol=0, atol=3 * 2.0**-25)


# Masks


def byte_score(words):
    """The largest standard score of χ² of the four bytes of words, against uniform ones."""
    scores = []
    for place in range(4):
        counts = np.bincount((words.ravel() >> np.uint32(8 * place)) & np.uint32(255), minlength=256)
        expected = words.size / 256
        statistic = np.sum((counts - expected) ** 2 / expected)
        scores.append(abs(statistic - 255) / np.sqrt(2 * 255))
    return max(scores)


@functools.cache
def long_messages(masks, t):
    """Messages of 9,000 words of nodes with similar models."""
    x = 1 + 0.1 * np.random.default_rng(1).standard_normal((N, 9000))
    sent = rounded(secure_aggregation(GRAPH, masks=masks), timeline.rounds(metropolis(GRAPH), 9), x, t)[2]
    return np.asarray(sent.words)


def test_a_message_alone_is_uniform():
    """|z| < 4 in each of 4 bytes: false alarms in fewer than 1 in 1,000 choices of the key."""
    assert byte_score(long_messages(True, 0)[2, 1]) < 4
    assert byte_score(long_messages(False, 0)[2, 1]) > 100


@pytest.mark.parametrize(
    "pair",
    [((2, 1), 0, (2, 1), 1), ((2, 1), 0, (2, 0), 0), ((2, 1), 0, (3, 1), 0)],
    ids=["the next round", "another receiver", "another sender"],
)
def test_masks_do_not_repeat(pair):
    """The same models with repeated masks would show the difference of models, not uniform words."""
    one, t, other, later = pair
    assert byte_score(long_messages(True, t)[one] - long_messages(True, later)[other]) < 4
    assert byte_score(long_messages(False, t)[one] - long_messages(False, later)[other]) > 100


def test_receivers_of_the_same_neighbours_get_other_masks():
    """On a ring of four, nodes 1 and 3 hear the same two: two of them who pool equal masks would see no mask at all."""
    x = 1 + 0.1 * np.random.default_rng(1).standard_normal((4, 9000))
    graph = topology.ring(4)
    for masks in (True, False):
        words = np.asarray(
            rounded(secure_aggregation(graph, masks=masks), timeline.rounds(metropolis(graph), 1), x)[2].words
        )
        apart = words[0, 0] - words[0, 1]
        assert byte_score(apart) < 4 if masks else not apart.any()


def test_masks_cancel_at_each_receiver():
    sharing = secure_aggregation(UNEVEN)
    edges = edges_at(sharing.encode.args[0].edges, 0)
    masks = np.asarray(pairwise_masks(KEY, edges, event_at(timeline.rounds(metropolis(UNEVEN), 1), 0), 4))
    assert not masks.sum(axis=0, dtype=np.uint32).any()
    lanes = np.arange(len(masks))[:, None] < UNEVEN.in_degrees
    assert (masks.any(axis=2) == lanes).all()


def test_a_message_does_not_depend_on_who_else_is_in_the_network():
    """Seeds are folded from numbers of nodes. Node 1 has new neighbours, but is none of those of 3, 4 and 5."""
    larger = np.zeros((9, 9), int)
    larger[:6, :6] = UNEVEN.adjacency().toarray()
    larger[6:, 6:] = 1 - np.eye(3, dtype=int)
    larger[1, 6] = larger[6, 1] = 1
    x = np.random.default_rng(0).standard_normal((9, 4))
    found = []
    for graph in (UNEVEN, topology.from_adjacency(larger)):
        plan = timeline.rounds(metropolis(graph), 1)
        words = rounded(secure_aggregation(graph), plan, x[: graph.num_nodes])[2].words
        found.append([messages_to(graph, words, receiver) for receiver in (3, 4, 5)])
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_has_its_published_words(key, counter, expected):
    """Known answers of the Random123 library."""
    first, second = np.array(counter, np.uint32)[:, None]
    found = threefry(jnp.array(key, jnp.uint32), jnp.asarray(first), jnp.asarray(second))
    assert [int(words[0]) for words in found] == list(expected)


# Nodes that drop out


ABSENT = 0.25


@functools.cache
def with_absences(t, **options):
    x = np.random.default_rng(2).standard_normal((6, 40))
    sharing = secure_aggregation(UNEVEN, dropout=ABSENT, **options)
    return sharing, x, rounded(sharing, timeline.rounds(metropolis(UNEVEN), 40), x, t)


def test_absences_have_their_probability():
    x0, plan = jnp.zeros((N, 1)), timeline.rounds(metropolis(GRAPH), 500)
    sharing = secure_aggregation(GRAPH, dropout=ABSENT, masks=False)
    state = sharing.init(x0)
    events = jax.vmap(functools.partial(plan.event, KEY, plan.shared))(plan.xs)
    absent = jax.vmap(lambda index: ~_secure._present(sharing.encode.args[0], KEY, gj.Event(index, index), N))(
        events.index
    )
    # Independent draws of 8 nodes in 500 rounds.
    z = (float(absent.mean()) - ABSENT) / np.sqrt(ABSENT * (1 - ABSENT) / absent.size)
    assert abs(z) < 4
    assert len(np.unique(np.asarray(absent), axis=0)) > 50
    assert not state.aborted.any()


def some_round(lost_at_most=2):
    """The number of a round in which receivers with three or more neighbours lose one or two of them."""
    for t in range(40):
        present = np.asarray(with_absences(t)[2][2].present)
        if present[2] and 0 < (~present).sum() <= lost_at_most:
            return t
    raise AssertionError("no such round among 40")


def test_recovery_is_exact_and_the_stray_masks_are_not_small():
    sharing, x, (_, merged, sent, _) = with_absences(some_round())
    present, W = np.asarray(sent.present), metropolis(UNEVEN).toarray()
    expected = plain_round(UNEVEN, W, x, present, 24)
    # As above; and the mixing holds weights in float64.
    np.testing.assert_allclose(merged, expected, rtol=0, atol=8 * np.finfo(np.float64).eps * np.abs(x).max())
    rules = sharing.encode.args[0]
    edges, event = edges_at(rules.edges, 0), event_at(timeline.rounds(metropolis(UNEVEN), 1), 0)
    attendance = attend(rules, event, edges, sent.present)
    stray = neighborhood_sum(event, edges, attendance.heard, sent.words)
    wrong = np.asarray(stray)[2].view(np.int32) / 2**24
    assert np.abs(wrong).max() > 10  # plain sums of these models are below 4


def test_a_planted_error_in_the_recovery_shows(monkeypatch):
    t = some_round()
    _, x, (_, right, _, _) = with_absences(t)
    monkeypatch.setattr(_secure, "without_stray_masks", lambda key, edges, event, heard, recovers, total: total)
    sharing = secure_aggregation(UNEVEN, dropout=ABSENT)
    event = event_at(timeline.rounds(metropolis(UNEVEN), 40), t)
    state, (sent, _) = sharing.encode(KEY, sharing.init(jnp.asarray(x)), jnp.asarray(x), jnp.asarray(x), event)
    _, wrong = sharing.merge(KEY, state, (jnp.asarray(x), sent, event))
    assert np.abs(wrong - right).max() > 10


def test_a_dropout_without_recovery_ends_the_run():
    x0, plan = jnp.asarray(X0), timeline.rounds(metropolis(GRAPH), 30)
    method = gj.gossip_averaging(secure_aggregation(GRAPH, dropout=0.1, recovery="none"))
    with pytest.raises(
        gj.Diverged, match=r"node \d cannot remove the masks .* pass recovery='seeds' or 'shares' \(event \d+; throw"
    ):
        simulated(KEY, method, plan, x0)
    t = some_round()
    _, _, (state, merged, sent, _) = with_absences(t, recovery="none")
    present = np.asarray(sent.present)
    concerned = [present[i] and not present[UNEVEN.neighbors(i)].all() for i in range(6)]
    assert np.isnan(merged).all(axis=1).tolist() == concerned
    assert np.isnan(merged).any(axis=1).tolist() == concerned
    assert (np.asarray(state.faults.codes) == 3).tolist() == concerned
    assert np.asarray(state.faults.events)[concerned].tolist() == [t] * sum(concerned)


def test_too_few_neighbours_left_are_counted():
    plan, x0 = timeline.rounds(metropolis(UNEVEN), 40), np.random.default_rng(2).standard_normal((6, 2))
    for colluders in (0, 1):
        graph = UNEVEN if colluders == 0 else topology.complete(6)
        plan = timeline.rounds(metropolis(graph), 40)
        sharing = secure_aggregation(graph, dropout=ABSENT, colluders=colluders)
        state, expected = sharing.init(jnp.asarray(x0)), np.zeros(6, int)
        for t in range(40):
            state, x, sent, _ = one_round(sharing, KEY, state, jnp.asarray(x0), event_at(plan, t))
            present = np.asarray(sent.present)
            for i in range(6):
                left, degree = present[graph.neighbors(i)].sum(), graph.in_degrees[i]
                aborts = bool(present[i]) and left < min(degree, colluders + 2)
                expected[i] += aborts
                if aborts or not present[i]:
                    np.testing.assert_array_equal(x[i], x0[i])
        assert state.aborted.tolist() == expected.tolist()
        assert expected.max() > 0


# Range


def test_range_is_exact_and_beyond_it_the_run_ends():
    graph, most = topology.ring(4), (2.0**31 - HEADROOM) / 2.0**24
    W, x0 = metropolis(graph), np.full((4, 2), most)
    plan = timeline.rounds(W, 3)
    run = simulated(KEY, gj.gossip_averaging(secure_aggregation(graph)), plan, x0)
    # A fixed point of W: each of two neighbours is rounded to half a step of 2^-24, in three rounds.
    np.testing.assert_allclose(run.x, x0, rtol=0, atol=3 * 2 * 2.0**-25)
    x0[2, 1] = -np.nextafter(most, np.inf)
    message = r"node 2 has parameters beyond ±127.938, .*fraction_bits=24.*fewer fraction_bits.* \(event 0; throw=False"
    with pytest.raises(gj.Diverged, match=message):
        simulated(KEY, gj.gossip_averaging(secure_aggregation(graph)), plan, x0)
    state, merged, sent, _ = rounded(secure_aggregation(graph), plan, x0)
    assert np.isnan(merged).any(axis=1).tolist() == [False, True, True, True]
    assert sent.legal.tolist() == [True, True, False, True]
    assert state.faults.codes.tolist() == [0, 0, 1, 0]


def test_weights_above_one_narrow_the_range():
    graph = topology.ring(4)
    W = np.eye(4) * -1.0 + graph.adjacency().toarray() * 1.0
    most = (2.0**31 - HEADROOM) / 2.0**24 / 2
    for size, fits in ((most, True), (np.nextafter(most, np.inf), False)):
        x = np.full((4, 1), size)
        sent = rounded(secure_aggregation(graph), timeline.rounds(W, 1), x)[2]
        assert sent.legal.all() == fits


def test_the_first_fault_of_a_seed_is_named():
    graph = topology.ring(4)
    protocol = gj.gossip_averaging(secure_aggregation(graph, dropout=0.05, recovery="none"))
    with pytest.raises(gj.Diverged, match=r"cannot remove the masks.*\(event \d+ of seed \d; throw"):
        simulated(jax.random.split(KEY, 2), protocol, timeline.rounds(metropolis(graph), 100), np.ones((4, 1)))


# Learning


@pytest.mark.parametrize("order", ["adapt_then_combine", "combine_then_adapt"])
def test_dpsgd_learns_as_with_full_models(order):
    rounds, task = 200, exact_quadratic()
    plan = timeline.rounds(metropolis(GRAPH), rounds)
    runs = [
        simulated(KEY, gj.dpsgd(task, optax.sgd(0.1), order=order, sharing=sharing), plan, X0)
        for sharing in (None, secure_aggregation(GRAPH))
    ]
    # A step with exact gradients and a positive W does not enlarge differences: errors of a round add up, at most.
    np.testing.assert_allclose(runs[1].x, runs[0].x, rtol=0, atol=rounds * 4 * 2.0**-25)
    assert np.abs(runs[0].x - X0).max() > 0.1


def test_models_in_float32_and_in_two_leaves():
    x0 = {"a": X0.astype(np.float32), "b": np.float32(X0[:, :1, None])}
    plan = timeline.rounds(metropolis(GRAPH), 5)
    full, secure = (
        simulated(KEY, gj.gossip_averaging(sharing), plan, x0) for sharing in (None, secure_aggregation(GRAPH))
    )
    for name in x0:
        assert secure.x[name].dtype == np.float32
        # 5 rounds of 4 neighbours at half a step of 2^-24, and of float32 sums of numbers below 4.
        np.testing.assert_allclose(secure.x[name], full.x[name], rtol=0, atol=5 * (4 * 2.0**-25 + 5 * 2.0**-22))


# Bytes


def test_bytes_of_the_specification():
    graph, dimension = topology.random_regular(16, 4, seed=0), 25_450
    plan = timeline.rounds(metropolis(graph), 3)
    run = simulated(
        KEY, gj.gossip_averaging(secure_aggregation(graph, masks=False)), plan, np.zeros((16, dimension)),
        record_every=1,
    )  # fmt: skip
    first, *others = np.diff(run["bytes_sent"]).tolist()
    assert others == [6_515_712, 6_515_712]
    assert first == 6_515_712 + 8_192
    assert np.diff(run["messages_sent"]).tolist() == [64, 64, 64]


def counted_bytes(graph, present, dimension, first):
    """Bytes that each node sends in a round, message by message."""
    sent = np.zeros(graph.num_nodes, int)
    for i in range(graph.num_nodes):
        members = graph.neighbors(i).tolist()
        here = [j for j in members if present[j]]
        for j in members:
            if first:
                sent[j] += 32  # its key
                sent[i] += 32 * (len(members) - 1)  # the keys of the others
            if present[j]:
                sent[j] += 4 * dimension + 8
        if present[i] and 2 <= len(here) < len(members):
            lost = len(members) - len(here)
            for j in here:
                sent[i] += 8 + 4 * lost
                sent[j] += 8 + 32 * lost
    return sent


def test_bytes_with_absent_nodes():
    rounds, dimension = 25, 3
    plan, x0 = timeline.rounds(metropolis(UNEVEN), rounds), np.zeros((6, dimension))
    sharing = secure_aggregation(UNEVEN, dropout=ABSENT)
    run = simulated(KEY, gj.metered(gj.gossip_averaging(sharing)), plan, x0)
    key = jax.random.fold_in(KEY, gj._base.streams.STEPS)
    state, expected = sharing.init(jnp.asarray(x0)), np.zeros(6, int)
    for t in range(rounds):
        state, _, sent, _ = one_round(sharing, key, state, jnp.asarray(x0), event_at(plan, t))
        expected += counted_bytes(UNEVEN, np.asarray(sent.present), dimension, t == 0)
    assert (counter.value(run.state.meter.traffic.sent) / 8).tolist() == expected.tolist()
    assert float(run["bytes_sent"][-1]) == expected.sum()
    assert float(run["messages_sent"][-1]) == rounds * UNEVEN.in_degrees.sum()


def test_a_run_in_two_parts_exchanges_keys_once():
    plan, x0 = timeline.rounds(metropolis(UNEVEN), 8), np.random.default_rng(2).standard_normal((6, 2))
    method = gj.gossip_averaging(secure_aggregation(UNEVEN, dropout=ABSENT))
    whole = simulated(KEY, method, plan, x0, record_every=4)
    half = simulated(KEY, method, plan[:4], x0, record_every=4)
    both = gj.simulate(KEY, method, plan, half, record_every=4)
    assert np.asarray(both.x).tobytes() == np.asarray(whole.x).tobytes()
    assert both["bytes_sent"].values.tolist() == whole["bytes_sent"].values.tolist()
    np.testing.assert_array_equal(both.state.sharing.aborted, whole.state.sharing.aborted)


# Refusals


@pytest.mark.parametrize(
    ("graph", "nodes"),
    [(topology.star(5), "1, 2, 3, 4"), (topology.path(4), "0, 3"), (topology.star(9), "1, 2, 3, 4, 5, …")],
)
def test_a_single_neighbour_is_refused(graph, nodes):
    with pytest.raises(ValueError, match=rf"node\(s\) {nodes} have fewer than 2 neighbours .* a single model; use"):
        secure_aggregation(graph)


def test_refusals():
    with pytest.raises(ValueError, match=r"fewer than 4 neighbours \(colluders \+ 2\)"):
        secure_aggregation(topology.ring(8), colluders=2)
    secure_aggregation(GRAPH, colluders=2)
    with pytest.raises(ValueError, match="directed"):
        secure_aggregation(topology.exponential(8))
    for bits in (7, 31):
        with pytest.raises(ValueError, match="fraction_bits"):
            secure_aggregation(GRAPH, fraction_bits=bits)
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        secure_aggregation(GRAPH, dropout=1.0)
    with pytest.raises(ValueError, match="build secure_aggregation for the graph"):
        secure_aggregation(topology.ring(5)).init(jnp.zeros((8, D)))
    with pytest.raises(ValueError, match="error feedback needs messages that are the models"):
        error_feedback(secure_aggregation(GRAPH)).init(jnp.asarray(X0))
    with pytest.raises(ValueError, match="sharing"):
        gj.push_sum(secure_aggregation(GRAPH))
    sharing = secure_aggregation(GRAPH)
    for plan in (timeline.poisson_pairs(GRAPH, 9, seed=0), timeline.matching_rounds(N, 9, seed=0)):
        with pytest.raises(ValueError, match="the protocol needs"):
            check_requires(gj.gossip_averaging(sharing).requires, plan.properties)


def test_another_graph_ends_the_run():
    """Edges without weight would hide that a sum has fewer members."""
    method = gj.gossip_averaging(secure_aggregation(topology.random_regular(N, 4, seed=5)))
    with pytest.raises(gj.Diverged, match="has other neighbours than the topology of secure_aggregation says"):
        simulated(KEY, method, timeline.rounds(metropolis(GRAPH), 3), X0)


@pytest.mark.parametrize("other", [topology.complete(N), topology.ring(N)])
def test_a_graph_of_another_degree_is_refused_before_the_run(other):
    method = gj.gossip_averaging(secure_aggregation(other))
    with pytest.raises(ValueError, match=r"up to 4 neighbours on a topology with .*build"):
        simulated(KEY, method, timeline.rounds(metropolis(GRAPH), 3, form="table"), X0)
    pairs = timeline.matching_rounds(N, 3, seed=0)
    with pytest.raises(ValueError, match="a mixing with up to 1 neighbours on a topology"):
        simulated(KEY, gj.gossip_averaging(secure_aggregation([other, other])), pairs, X0)


def test_the_smallest_weight_on_no_edge_ends_the_run():
    W = metropolis(topology.ring(6)).toarray()
    W[0, 3] = W[3, 0] = 1e-9
    W -= np.diag(W.sum(axis=1) - 1)
    plan = timeline.rounds(W, 1, form="dense")
    state, merged, _, _ = rounded(secure_aggregation(topology.ring(6)), plan, np.ones((6, 1)))
    assert state.faults.codes.tolist() == [2, 0, 0, 2, 0, 0]
    assert np.isnan(merged[:, 0]).tolist() == [True, False, False, True, False, False]
