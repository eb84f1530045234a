"""Version counters against models that carry dictionaries, and against exact laws of staleness and version age."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic

from gossipjax import Properties, dpsgd, gossip_averaging, observe, simulate, track_versions
from gossipjax._engine import loop
from gossipjax.mixing import metropolis
from gossipjax.timeline import clocks, drawn_gossip, from_events, poisson_push, push_gossip, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import barabasi_albert, complete, ring
from gossipjax.types import NOBODY
from gossipjax.wrappers import age_weighted, contained
from gossipjax.wrappers import complete as completed
from theory import staleness as exact

KEY = jax.random.key(7)
T, SLOTS = 30, 3


@jax.jit
def run(key, protocol, timeline, x0):
    (state, _), _ = loop.run(key, protocol, timeline, protocol.init(key, x0))
    return protocol.versions(state)


def random_plan(seed: int, lanes: int, restricted: bool):
    """Acting nodes and transfers between any rows: models and slots, kept or not, and maybe of one source only."""
    rng = np.random.default_rng(seed)
    rows = rng.permuted(np.tile(np.arange(N + SLOTS), (T, 1)), axis=1)
    senders, receivers = rows[:, :lanes], rows[:, lanes : 2 * lanes]
    receivers = np.where(rng.random(receivers.shape) < 0.8, receivers, NOBODY)
    keep = np.where(rng.random(receivers.shape) < 0.3, 0.0, 0.5)
    xs = {
        "time": np.sort(rng.random(T)),
        "nodes": np.where(rng.random((T, 1)) < 0.6, rng.integers(0, N, (T, 1)), N),
        "senders": senders,
        "receivers": receivers,
        "weights": np.where(rng.random(receivers.shape) < 0.9, 1.0 - keep, 0.0),
        "keep": keep,
        "messages": np.ones((T, 1), np.uint32),
    }
    if restricted:
        xs["sources"] = rng.integers(0, N, receivers.shape)
    return from_events(xs, Properties(num_nodes=N, num_rows=N, num_slots=SLOTS, name="random plan")), xs


def replay(xs):
    """Every model carries {source: (version, hops)}."""
    models = [{} for _ in range(N + SLOTS)]
    own = np.zeros(N, int)
    for t in range(T):
        (node,) = xs["nodes"][t]
        if node < N:
            own[node] += 1
            models[node][node] = (own[node], 0)
        before = [dict(model) for model in models]
        for lane, receiver in enumerate(xs["receivers"][t]):
            if receiver == NOBODY:
                continue
            kept = before[receiver] if xs["keep"][t, lane] else {}
            kept = dict(kept)
            if receiver < N and own[receiver]:
                kept[receiver] = (own[receiver], 0)
            given = before[xs["senders"][t, lane]] if xs["weights"][t, lane] else {}
            for source, (version, hops) in given.items():
                if "sources" in xs and source != xs["sources"][t, lane]:
                    continue
                if version > kept.get(source, (-1 if not xs["keep"][t, lane] else 0, 0))[0]:
                    kept[source] = (version, hops + (1 if xs["keep"][t, lane] else 0))
            models[receiver] = kept
    return models, own


@settings(max_examples=10, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 5]), st.booleans())
def test_counters_equal_models_that_carry_dictionaries(seed, lanes, restricted):
    plan, xs = random_plan(seed, lanes, restricted)
    protocol = track_versions(gossip_averaging(), num_nodes=N, hops=True)
    found = run(KEY, protocol, plan, loop.with_slots(jnp.asarray(X0), plan.properties))
    models, own = replay(xs)
    np.testing.assert_array_equal(found.own, own)
    for row, model in enumerate(models):
        for source in range(N):
            version, hops = model.get(source, (0, None))
            assert max(int(found.held[row, source]), 0) == version, (row, source)
            if hops is not None and version > 0:
                assert int(found.hops[row, source]) == hops, (row, source)


def test_invariants_along_a_run():
    """0 ≤ N_i^j ≤ N_i^i, N never decreases, and after a push k → j: N^j ≥ N^k."""
    plan = poisson_push(barabasi_albert(N, 2, seed=0), 60, seed=3)
    protocol = track_versions(gossip_averaging())
    state = protocol.init(KEY, jnp.asarray(X0))
    step = jax.jit(protocol.step)
    before = protocol.versions(state)
    for t in range(60):
        event = first_event(KEY, plan[t : t + 1])
        state, _ = step(KEY, state, event)
        after = protocol.versions(state)
        assert (after.held >= before.held).all()
        assert (after.held <= after.own[None]).all()
        sender, receiver = int(event.mixing.senders[0]), int(event.mixing.receivers[0])
        assert (after.held[receiver] >= after.held[sender]).all()
        assert (np.diag(after.held) == after.own).all()
        before = after


@pytest.mark.parametrize("form", ["dense", "table"])
def test_rounds_hand_on_along_the_graph(form):
    """After t rounds of a ring, version t − d of a node d steps away is known, after d hops."""
    protocol = track_versions(dpsgd(exact_quadratic(), Partial(optax.sgd, 0.1)), hops=True)
    found = run(KEY, protocol, rounds(metropolis(ring(N)), 6, form=form), jnp.asarray(X0))
    gap = np.abs(np.arange(N)[:, None] - np.arange(N)[None])
    distance = np.minimum(gap, N - gap)
    # A round's own update is mixed in the same round: a neighbour's newest version arrives at once.
    np.testing.assert_array_equal(found.held, 6 - np.maximum(distance - 1, 0))
    np.testing.assert_array_equal(found.hops, distance)


def test_some_sources_are_columns_of_all():
    plan = poisson_push(complete(N), 80, seed=1)
    whole, some = (
        run(KEY, track_versions(gossip_averaging(), sources), plan, jnp.asarray(X0)) for sources in (None, [5, 2])
    )
    np.testing.assert_array_equal(some.held, whole.held[:, [5, 2]])
    np.testing.assert_array_equal(some.own, whole.own[jnp.asarray([5, 2])])
    assert some.sources.tolist() == [5, 2]


def test_another_push_never_makes_anything_staler():
    rng = np.random.default_rng(0)
    xs = random_plan(4, 1, restricted=False)[1]
    xs["weights"], xs["keep"] = np.full((T, 1), 0.5), np.full((T, 1), 0.5)
    fewer = dict(xs) | {"receivers": np.where(rng.random((T, 1)) < 0.3, NOBODY, xs["receivers"])}
    facts = Properties(num_nodes=N, num_rows=N, num_slots=SLOTS, name="tape")
    protocol = track_versions(gossip_averaging(), num_nodes=N)
    x0 = loop.with_slots(jnp.asarray(X0), facts)
    more, less = (run(KEY, protocol, from_events(tape, facts), x0) for tape in (xs, fewer))
    assert (more.held >= less.held).all()
    assert (more.held > less.held).any()


def test_relabelled_nodes_have_relabelled_counters():
    order = np.random.default_rng(1).permutation(N)
    new = np.argsort(order).astype(np.int32)
    plan = poisson_push(complete(N), 60, seed=2)
    renamed = {name: new[plan.xs[name]] for name in ("first", "second")}
    other = type(plan)(plan.xs | renamed, plan.shared, plan.event, plan.properties)
    protocol = track_versions(gossip_averaging())
    a, b = (run(KEY, protocol, p, jnp.asarray(X0)) for p in (plan, other))
    np.testing.assert_array_equal(b.held, a.held[np.ix_(order, order)])


def test_age_weights_follow_the_updates_contained():
    """By hand: 0 acts twice, pushes to 1 (which acted once): a = 2/3, and the result contains three updates."""
    xs = {
        "time": np.arange(4.0),
        "nodes": np.array([[0], [0], [1], [N]]),
        "senders": np.array([[N], [N], [N], [0]]),
        "receivers": np.array([[NOBODY], [NOBODY], [NOBODY], [1]]),
        "weights": np.full((4, 1), 0.5),
        "keep": np.full((4, 1), 0.5),
    }
    plan = from_events(xs, Properties(num_nodes=N, num_rows=N, name="by hand"))
    protocol = track_versions(gossip_averaging(), reweight=age_weighted)
    (state, _), _ = loop.run(KEY, protocol, plan, protocol.init(KEY, jnp.arange(float(N))))
    assert float(protocol.model(state)[1]) == pytest.approx(1 / 3)
    assert int(contained(state.versions, jnp.asarray([1])).held.sum()) == 3
    with pytest.raises(TypeError, match="not for DenseMixing"):
        simulate(KEY, protocol, rounds(metropolis(ring(N)), 2, form="dense"), jnp.arange(float(N)))


def test_what_is_wrong_is_named():
    for sources, message in (([1, 1], "distinct"), ([-1], "distinct"), ([], "distinct"), (3, "give num_nodes")):
        with pytest.raises(ValueError, match=message):
            track_versions(gossip_averaging(), sources)
    with pytest.raises(ValueError, match="source 99 is no node"):
        simulate(KEY, track_versions(gossip_averaging(), [99]), poisson_push(ring(N), 5, seed=0), jnp.asarray(X0))
    big = track_versions(gossip_averaging(), num_nodes=20_000)
    with pytest.raises(ValueError, match="all pairs of 20000"):
        big.init(KEY, jnp.zeros(20_000))
    with pytest.raises(ValueError, match="wrap the protocol in track_versions"):
        simulate(
            KEY,
            gossip_averaging(),
            poisson_push(ring(N), 5, seed=0),
            jnp.asarray(X0),
            observers=[observe.staleness_summary()],
        )


# --- observers --------------------------------------------------------------------------------------------------------


def test_observers_against_numpy():
    plan = poisson_push(complete(N), 100, seed=4)
    protocol = track_versions(gossip_averaging(), [0, 3, 6], hops=True)
    watch = [
        observe.staleness_summary(),
        observe.staleness_by_source(),
        observe.staleness_matrix(),
        observe.staleness_histogram(4),
        observe.mean_hops(),
    ]
    found = simulate(KEY, protocol, plan, jnp.asarray(X0), observers=watch, record_at=[50])
    matrix = found["staleness_matrix"].values[-1]
    versions = completed(found.state.versions)
    np.testing.assert_array_equal(matrix, versions.own[None] - versions.held)
    others = np.ones((N, 3), bool)
    others[[0, 3, 6], [0, 1, 2]] = False
    values = matrix[others]
    summary = found["staleness"].sel(statistic=["mean", "min", "max", "p50"]).values[-1]
    np.testing.assert_allclose(summary, [values.mean(), values.min(), values.max(), np.median(values)], rtol=1e-6)
    np.testing.assert_allclose(found["staleness_of_source"][-1], matrix.sum(axis=0) / (N - 1), rtol=1e-6)
    np.testing.assert_array_equal(found["max_staleness_of_source"][-1], matrix.max(axis=0))
    assert float(found["max_staleness"][-1]) == pytest.approx(matrix.max(axis=0).mean(), rel=1e-6)
    counts = np.bincount(np.minimum(values, 3), minlength=4)
    np.testing.assert_array_equal(found["staleness_histogram"][-1], counts)
    heard = others & (np.asarray(versions.held) > 0)
    assert float(found["hops"][-1]) == pytest.approx(np.asarray(versions.hops)[heard].mean(), rel=1e-6)
    with pytest.raises(ValueError, match="bins=1"):
        observe.staleness_histogram(1)


def test_records_at_simulated_times():
    plan = push_gossip(N, 20.0, compute=clocks.poisson(1.0), gossip=1.0, seed=0)
    times = np.asarray(plan.xs["time"][:, 0])
    run_at = simulate(KEY, gossip_averaging(), plan, jnp.asarray(X0), record_times=[5.0, 12.5])
    expected = [0, (times <= 5.0).sum(), (times <= 12.5).sum(), len(times)]
    assert run_at["event"].values.tolist() == expected
    with pytest.raises(ValueError, match="record_times"):
        simulate(KEY, gossip_averaging(), plan, jnp.asarray(X0), record_times=[3.0, 1.0])
    window = simulate(KEY, gossip_averaging(), plan[10:20], jnp.asarray(X0), observers=[observe.models()])
    assert window["event"].values[[0, -1]].tolist() == [10, 20]


# --- laws -------------------------------------------------------------------------------------------------------------


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Over snapshots far enough apart to be independent."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def observed_staleness(plan, sources, seconds_apart, burn_in, nodes):
    """Mean over holders and sources of each snapshot, and mean over sources of the maximum over holders."""
    protocol = track_versions(gossip_averaging(), sources, num_nodes=nodes)
    end = float(np.asarray(plan.xs["time"][-1, 0]))
    found = simulate(
        KEY,
        protocol,
        plan,
        jnp.zeros(nodes),
        observers=[observe.staleness_by_source()],
        record_times=np.arange(burn_in, end, seconds_apart).tolist(),
    )
    return found["staleness_of_source"][1:].mean("source").values, found["max_staleness_of_source"][1:].mean(
        "source"
    ).values


@pytest.mark.slow
def test_mean_and_maximum_staleness_of_push_gossip():
    n, rate, shift, extra = 60, 3.0, 0.5, 0.5
    clock = clocks.shifted_exponential(shift, extra)
    plan = push_gossip(n, 1500.0, compute=clock, gossip=rate, seed=5)
    delay = exact.delay_moments(n, gossip_rate=rate)[0]
    means, maxima = observed_staleness(plan, None, 3 * delay, 12 * delay, n)
    m = exact.update_rate(extra, shift)
    for values, predicted in (
        (means, exact.mean_staleness(n, gossip_rate=rate, update_rate=m)),
        (maxima, exact.max_staleness(n, gossip_rate=rate, update_rate=m)),
    ):
        mean, error = mean_and_error(values)
        assert error < 0.01 * predicted
        assert abs(mean - predicted) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_mean_staleness_up_to_ten_thousand_nodes(n):
    rate, sources, snapshots = float(np.log(n)), 16, 40
    delay = exact.delay_moments(n, gossip_rate=rate)[0]
    per_second, apart = n * (1.0 + rate), 2.0 * delay
    every = int(apart * per_second)
    burn = int(np.ceil(8 * np.log(n) / rate / apart))
    plan = drawn_gossip(n, every * (snapshots + burn), update_rate=1.0, gossip_rate=rate)
    protocol = track_versions(gossip_averaging(), sources, num_nodes=n)
    found = simulate(
        KEY, protocol, plan, jnp.zeros(n, jnp.float32), observers=[observe.staleness_by_source()], record_every=every
    )
    units = found["staleness_of_source"].values[burn + 1 :].ravel()  # one source in one snapshot
    mean, error = mean_and_error(units)
    assert abs(mean - exact.mean_staleness(n, gossip_rate=rate, update_rate=1.0)) < 4 * error
    assert error < 0.05


@pytest.mark.slow
def test_updates_seen_late_are_surely_bounded_with_a_fixed_shift():
    """S ≤ ⌊T/c⌋ + 1 on every path: T is the time since the newest push path from the source began."""
    n, shift = 12, 0.4
    plan = push_gossip(n, 60.0, compute=clocks.shifted_exponential(shift, 0.2), gossip=1.0, seed=9)
    protocol = track_versions(gossip_averaging())
    watch = [observe.staleness_matrix()]
    found = simulate(KEY, protocol, plan, jnp.zeros(n), observers=watch, record_every=5)
    time, acts = plan.xs["time"][:, 0], plan.xs["nodes"][:, 0]
    heard = np.full((n, n), -np.inf)  # heard[j, i]: when the newest of i that reached j left i
    records = {int(event): k for k, event in enumerate(found["event"].values)}
    for t in range(len(plan)):
        if acts[t] >= n:
            sender, receiver = int(plan.xs["senders"][t, 0]), int(plan.xs["receivers"][t, 0])
            np.fill_diagonal(heard, time[t])
            heard[receiver] = np.maximum(heard[receiver], heard[sender])
        if (k := records.get(t + 1)) is not None:
            np.fill_diagonal(heard, time[t])
            delay = np.where(np.isfinite(heard), time[t] - heard, time[t])
            stale = found["staleness_matrix"].values[k]
            assert (stale <= np.floor(delay / shift + 1e-6) + 1).all()
