"""Audits of long runs against arithmetic in fractions: what is certain is right, and a bound is a bound.

After long mixing, messages are equal up to rounding, and what an observer can still separate lies below it.
"""

from fractions import Fraction

import jax
import numpy as np
import pytest
from exact_rows import known_from, reduced
from hypothesis import given, settings
from hypothesis import strategies as st

import gossipjax as gj
from gossipjax import privacy
from gossipjax.privacy import _residues as residues
from gossipjax.privacy._events import plain_events
from gossipjax.privacy._sensitivity import largest_shift
from gossipjax.privacy._tape import write_tape

T, tl = gj.topology, gj.timeline
KEY, HALF, THIRD = jax.random.key(0), Fraction(1, 2), Fraction(1, 3)
ROUNDING = 1e-9
"""Of sums and projections of a few hundred numbers near 1; results that are called certain are right to 1e-6."""
TAP = privacy.Wire(((0, 1),))


def meetings(pairs, n, weight=0.5):
    pairs = np.asarray(pairs)
    events = {"time": np.arange(len(pairs)) + 1.0, "nodes": np.full((len(pairs), 1), gj.types.NOBODY)}
    events |= {"senders": pairs, "receivers": pairs[:, ::-1]}
    shared = {"weights": np.full(2, weight), "keep": np.full(2, 1 - weight)}
    return tl.from_events(events, gj.Properties(n, n, "meetings", {"symmetric", "doubly_stochastic"}), shared=shared)


class Exact:
    """The plain loop in fractions: each row is a dict from contribution to coefficient."""

    def __init__(self, n, steps, order="adapt_then_combine", momentum=Fraction(0)):
        self.n, self.steps, self.order, self.momentum = n, steps, order, momentum
        self.owner = [] if steps else list(range(n))
        self.rows = [{} if steps else {i: Fraction(1)} for i in range(n)]
        self.heard = {i: [] for i in range(n)} | {TAP: []}

    def train(self, nodes):
        for i in nodes:
            self.owner.append(i)
            own = [c for c, owner in enumerate(self.owner) if owner == i]
            for age, c in enumerate(reversed(own)):
                change = self.momentum**age
                self.rows[i][c] = self.rows[i].get(c, 0) + change

    def mix(self, new):
        """Take ``{receiver: {sender: weight}}``."""
        old = [dict(row) for row in self.rows]
        for i, weights in new.items():
            for j, weight in weights.items():
                if weight and j != i:
                    self.heard[i].append(old[j])
                    if (j, i) == (0, 1):
                        self.heard[TAP].append(old[j])
            columns = {c for j in weights for c in old[j]}
            self.rows[i] = {c: sum(w * old[j].get(c, 0) for j, w in weights.items() if w) for c in columns}

    def event(self, nodes, new):
        if self.steps and self.order == "adapt_then_combine":
            self.train(nodes)
        self.mix(new)
        if self.steps and self.order == "combine_then_adapt":
            self.train(nodes)

    def known(self, observer, sums=False, covariance=None):
        columns = [c for c, owner in enumerate(self.owner) if owner != observer]
        heard = [[row.get(c, Fraction(0)) for c in columns] for row in self.heard[observer]]
        if sums:  # of the two neighbours in each round
            heard = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(heard[::2], heard[1::2], strict=True)]
        return np.asarray([self.owner[c] for c in columns]), known_from(
            heard or [[Fraction(0)] * len(columns)], covariance
        )


def ring(n):
    return {i: {(i - 1) % n: THIRD, i: THIRD, (i + 1) % n: THIRD} for i in range(n)}


def pairs_of(plan):
    return [tuple(np.asarray(event.mixing.senders).tolist()) for event in plain_events(plan, KEY)]


def swap(i, j, weight=HALF):
    return {i: {i: 1 - weight, j: weight}, j: {j: 1 - weight, i: weight}}


def hold(found, k, owner, known, n, observer):
    """Compare one observer with the fractions; return whether its result is certain."""
    certain = bool(found.certain[k])
    for j in range(n):
        if j == observer:
            continue
        own = np.flatnonzero(owner == j)
        sure = sum(known.determined[c] for c in own)
        assert found.num_reconstructed[k, j] == sure
        if not len(own):
            continue
        M = np.asarray([[float(known.projector[a][b]) for b in own] for a in own])
        exact = largest_shift(M[None])
        assert found.mu[k, j] ** 2 >= exact.lower[0] - ROUNDING
        assert found.mu_lower[k, j] ** 2 <= exact.upper[0] + ROUNDING
        if certain:  # the certificates of several contributions are that far apart
            slack = len(own) * 1e-6 + (1e-5 * len(own) if len(own) > 1 else 0)
            assert found.mu[k, j] ** 2 <= exact.upper[0] + slack
    return certain


@pytest.mark.parametrize("n", [5, 6, pytest.param(7, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_start_values_on_rings_after_many_rounds(n):
    run, done = Exact(n, steps=False), 0
    for num_rounds in (5, 20, 40, 80):
        for _ in range(num_rounds - done):
            run.event((), ring(n))
        done = num_rounds
        plan = tl.rounds(gj.mixing.metropolis(T.ring(n)), num_rounds)
        nodes = gj.audit(plan, observers=[0, TAP])
        assert hold(nodes, 0, *run.known(0), n, 0)
        assert hold(nodes, 1, *run.known(TAP), n, None)
        assert hold(gj.audit(plan, observers=[0], hears="sums"), 0, *run.known(0, sums=True), n, 0)


@pytest.mark.parametrize("n", [5, pytest.param(8, marks=pytest.mark.slow)])
def test_start_values_after_many_meetings(n):
    for total in (10, 60, 400):
        plan, run = tl.poisson_pairs(T.ring(n), total, seed=total), Exact(n, steps=False)
        for i, j in pairs_of(plan):
            run.event((), swap(i, j))
        found = gj.audit(plan, observers=[*range(n), TAP])
        for k, observer in enumerate([*range(n), TAP]):
            hold(found, k, *run.known(observer), n, observer)


@pytest.mark.parametrize(
    "weight", [HALF, THIRD, Fraction(1, 10), pytest.param(Fraction(7, 10), marks=pytest.mark.slow)]
)
def test_an_observer_that_comes_late(weight):
    """The others meet, up to 400 times, before it hears the first message: what it can tell apart is below rounding."""
    rng, certain = np.random.default_rng(1), {}
    for n in (5, 6, 8):
        for before in (0, 20, 60, 80, 120, 200, 400):
            pairs = [(1 + i, 1 + (i + 1) % (n - 1)) for i in rng.integers(0, n - 1, before).tolist()]
            for _ in range(int(rng.integers(2, 8))):
                pairs.append((0, int(rng.integers(1, n))))
                pairs += [(1 + i, 1 + (i + 1) % (n - 1)) for i in rng.integers(0, n - 1, 2).tolist()]
            run = Exact(n, steps=False)
            for i, j in pairs:
                run.event((), swap(i, j, weight))
            found = gj.audit(meetings(pairs, n, float(weight)), observers=[0])
            certain.setdefault(before, []).append(hold(found, 0, *run.known(0), n, 0))
    assert all(certain[0])
    assert not all(map(all, certain.values()))  # rounding does hide something here


def test_what_is_uncertain_is_local():
    """Four nodes agree up to rounding, not exactly, before node 0 hears three of them."""
    pairs = [(1, 2), (2, 3), (3, 4)] * 100 + [(0, 1), (0, 2), (0, 4)]
    run = Exact(5, steps=False)
    for i, j in pairs:
        run.event((), swap(i, j))
    found = gj.audit(meetings(pairs, 5), observers=[0])
    assert not hold(found, 0, *run.known(0), 5, 0)
    assert 1 < run.known(0)[1].rank < 4
    assert not found.certain[0]
    np.testing.assert_array_equal(found.mu[0, 1:], 1)
    assert np.all(found.mu_lower[0, 1:] ** 2 < 0.26)
    assert "rank being unclear" in found.statement(0, 4, 1e-5)


@pytest.mark.parametrize("weight", [1e-2, 1e-4, 1e-6, 1e-8, 1e-12])
def test_almost_reconstructed_is_not_reconstructed(weight):
    """Node 0 hears ``(1 − w) x_1 + w x_2``; with a second meeting it can solve for both."""
    found = gj.audit(meetings([(1, 2), (0, 1)], 3, weight), observers=[0])
    assert found.certain[0]
    assert not found.reconstructed.any()
    np.testing.assert_allclose(found.mu[0, 1] ** 2, 1 / (1 + (weight / (1 - weight)) ** 2), rtol=0, atol=ROUNDING)
    both = gj.audit(meetings([(1, 2), (0, 1), (0, 2)], 3, weight), observers=[0])
    assert both.reconstructed[0, 1:].all()
    np.testing.assert_array_equal(both.mu[0, 1:], 1)


@pytest.mark.parametrize("order", ["adapt_then_combine", pytest.param("combine_then_adapt", marks=pytest.mark.slow)])
def test_steps_in_rounds(order):
    n, run = 5, Exact(5, steps=True, order=order)
    for _ in range(10):
        run.event(range(n), ring(n))
    plan = tl.rounds(gj.mixing.metropolis(T.ring(n)), 10)
    found = gj.audit(plan, privacy.steps(order=order), observers=[0, TAP])
    assert hold(found, 0, *run.known(0), n, 0)
    assert hold(found, 1, *run.known(TAP), n, None)


@pytest.mark.parametrize("momentum", [Fraction(0), pytest.param(Fraction(9, 10), marks=pytest.mark.slow)])
@pytest.mark.parametrize("total", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_steps_at_meetings(momentum, total):
    n, plan = 6, tl.poisson_pairs(T.ring(6), total, seed=1)
    run = Exact(n, steps=True, momentum=momentum)
    for event, (i, j) in zip(plain_events(plan, KEY), pairs_of(plan), strict=True):
        run.event(event.nodes[event.nodes < n].tolist(), swap(i, j))
    found = gj.audit(plan, privacy.steps(momentum=float(momentum)), observers=[0, 2, TAP])
    for k, observer in enumerate((0, 2, TAP)):
        assert hold(found, k, *run.known(observer), n, observer)


def test_noise_of_pairs_after_many_rounds():
    """Of start values: ``N = σ² I + σ_p² L``, without what the observer shares."""
    n, graph = 5, T.ring(5)
    others = list(range(1, n))
    shared = [[4 * Fraction(int(a != b and abs(a - b) == 1)) for b in others] for a in others]
    N = [[1 + sum(shared[a]) if a == b else -shared[a][b] for b in range(n - 1)] for a in range(n - 1)]
    for num_rounds in (1, 2, 30):
        run = Exact(n, steps=False)
        for _ in range(num_rounds):
            run.event((), ring(n))
        plan = tl.rounds(gj.mixing.metropolis(graph), num_rounds)
        for sums in (False, True):
            found = gj.audit(
                plan,
                observers=[0],
                noise=privacy.pairwise_noise(graph, 1.0, 2.0),
                hears="sums" if sums else "messages",
            )
            exact = run.known(0, sums=sums, covariance=N)[1].squared_parts
            np.testing.assert_allclose(found.mu[0, 1:] ** 2, exact, rtol=0, atol=ROUNDING)
            assert found.certain[0]


# Numbers that float64 does not hold


def tiny_path(n, weight):
    """Rounds on a path, with that weight on its links."""
    W = np.diag(np.full(n - 1, weight), 1)
    W += W.T
    return np.diag(1 - W.sum(axis=1)) + W


def test_what_is_too_small_for_float64_is_heard():
    """The last nodes of a path enter at 1e-330 and less: each is known exactly after those before it."""
    n = 40
    found = gj.audit(tl.rounds(tiny_path(n, 1e-10), n - 1), observers=[0])
    assert found.certain[0]
    np.testing.assert_array_equal(found.num_reconstructed[0, 1:], 1)
    np.testing.assert_array_equal(found.mu[0, 1:], 1)


def test_one_message_of_a_path_tells_something_of_every_node():
    """``Σ_k w^k x_k``, of which the last coefficients are no floats: μ is above zero, as it should."""
    n, pairs = 40, [(k, k + 1) for k in range(38, -1, -1)]
    found = gj.audit(meetings(pairs, n, 1e-10), observers=[0])
    assert np.all(found.mu[0, 1:] > 0)
    assert np.all(found.mu_lower[0, 2:] ** 2 <= 1e-20)


def test_a_model_that_is_halved_until_it_vanishes_is_known_exactly():
    """Node 0 keeps one half of its sum 1,100 times, as in push-sum, and then sends it."""
    total, NOBODY = 1101, gj.types.NOBODY
    events = {"time": np.arange(float(total)), "nodes": np.full((total, 1), NOBODY)}
    events |= {"senders": np.zeros((total, 1), int), "receivers": np.zeros((total, 1), int)}
    events |= {"weights": np.zeros((total, 1)), "keep": np.full((total, 1), 0.5)}
    events["receivers"][-1], events["weights"][-1] = 1, 1.0
    found = gj.audit(tl.from_events(events, gj.Properties(2, 2, "halves")), observers=[1])
    assert found.num_reconstructed[0, 0] == 1
    assert found.mu[0, 0] == 1


@pytest.mark.parametrize("beta", [Fraction(9, 10), Fraction(188, 189), Fraction(951, 956)])
def test_the_bound_on_rounding_holds_with_momentum(beta):
    """A node steps, copies the model of another that has made no step, and steps again: ``β^t`` is off by t times β."""
    total, NOBODY = 1000, gj.types.NOBODY
    events = {"time": np.arange(float(total)), "nodes": np.zeros((total, 1), int)}
    events |= {"senders": np.full((total, 1), NOBODY), "receivers": np.full((total, 1), NOBODY)}
    events["senders"][-1], events["receivers"][-1] = 1, 0
    shared = {"weights": np.ones(1), "keep": np.zeros(1)}
    plan = tl.from_events(events, gj.Properties(2, 2, "copies"), shared=shared)
    what = privacy.steps(order="combine_then_adapt", momentum=float(beta))
    tape = write_tape(plan, what, "messages", KEY)
    wrong = [abs(Fraction(float(tape.final[0, s])) - beta ** (total - 1 - s)) for s in range(total)]
    assert 0 < max(wrong) <= tape.final_rounding[0]


def test_unclear_directions_tell_of_the_noise_of_pairs():
    """Node 1 knows the value of node 0, noise included; what it hears of 2 and 3 is near rounding, and tells of it."""
    W = np.zeros((4, 4))
    W[0, 1] = W[1, 0] = 0.25
    W[0, 2:] = W[2:, 0] = 1e-9
    W += np.diag(1 - W.sum(axis=1))
    noise = privacy.pairwise_noise(T.star(4), 1.0, 100.0)
    found = gj.audit(tl.rounds(W, 2), observers=[1], noise=noise)
    # x_0 and w (x_2 + x_3); of noise: z_0 + v_2 + v_3 (v_1 is known) and z_2 + z_3 − v_2 − v_3.
    pair = Fraction(2) * 100**2
    N = [[1 + pair, -pair / 2, -pair / 2], [-pair / 2, 1 + pair / 2, 0], [-pair / 2, 0, 1 + pair / 2]]
    one = Fraction(1)
    exact = known_from([[one, 0 * one, 0 * one], [0 * one, one, one]], N).squared_parts
    assert found.reconstructed[0].tolist() == [True, False, False, False]
    assert np.all(found.mu[0, [0, 2, 3]] ** 2 >= np.asarray(exact) - ROUNDING)
    assert np.all(found.mu_lower[0, [0, 2, 3]] ** 2 <= np.asarray(exact) + ROUNDING)


# The arithmetic itself

SMALL = st.integers(-3, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.data())
def test_ranks_are_those_of_fractions(r, k, dependent, data):
    rows = [[Fraction(data.draw(SMALL), 1 + abs(data.draw(SMALL))) for _ in range(k)] for _ in range(r)]
    for _ in range(dependent):
        a, b = (rows[data.draw(st.integers(0, len(rows) - 1))] for _ in range(2))
        rows.append([x / 2 + 3 * y for x, y in zip(a, b, strict=True)])
    A = np.asarray([[residues.residue(value) for value in row] for row in rows], np.int64)
    known = known_from(rows)
    assert residues.rank(A.copy()) == len(reduced(rows))
    rank, sure = residues.determined(A.copy())
    assert rank == known.rank
    assert sure.tolist() == known.determined


def test_products_are_exact():
    rng = np.random.default_rng(0)
    A, B = (rng.integers(0, residues.PRIME, shape) for shape in ((7, 300), (300, 5)))
    A[0], B[:, 0] = residues.PRIME - 1, residues.PRIME - 1
    expected = [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) % residues.PRIME for column in B.T] for row in A
    ]
    assert residues.product(A, B).tolist() == expected


def test_the_modulus_is_a_prime_in_which_two_and_three_have_no_small_order():
    p = residues.PRIME
    assert all(p % d for d in range(2, int(p**0.5) + 1))
    for base in (2, 3, 10):
        power = 1
        for _ in range(100_000):
            power = power * base % p
            assert power != 1
