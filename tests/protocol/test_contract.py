"""What every protocol must satisfy on every timeline it is meant for: one row per protocol, one test per promise."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from plexus_runs import network
from problems import CURVATURE, TARGETS, X0, D, N, exact_quadratic, identical_samples
from two_leaves import joined, split, two_leaves

from gossipjax import (
    Protocol,
    Task,
    Timeline,
    ad_psgd,
    admm,
    admm_tracking,
    allreduce_sgd,
    beer,
    c_gt,
    clique_averaging,
    d2,
    decentlam,
    dinno,
    dlm,
    dpsgd,
    exact_diffusion,
    extra,
    fedadagrad,
    fedadam,
    fedavg,
    fedbuff,
    feddyn,
    fednova,
    fedprox,
    fedyogi,
    gossip_averaging,
    gossip_learning,
    gradient_tracking,
    gt_saga,
    gt_sarah,
    gt_svrg,
    gt_vr,
    hadfl,
    k_gt,
    lead,
    led,
    local_sgd,
    lt_admm,
    lt_admm_vr,
    nids,
    prox_skip,
    push_sum,
    quasi_global_momentum,
    random_walk,
    relay_averaging,
    relay_sgd,
    scaffold,
    sgp,
    sharing,
    simple_gt,
    simulate,
    swift,
    systems,
    timeline,
    wang_elia,
)
from gossipjax._engine import chunks, loop
from gossipjax._engine.checkpoint import Checkpoint
from gossipjax._engine.checks import compare_structure
from gossipjax.compress import identity, scaled_sign, sign_top_k, top_k
from gossipjax.compress.transforms import wavelet
from gossipjax.mixing import averaging, lazy, metropolis, uniform
from gossipjax.observe import models
from gossipjax.sharing import choco, deep_squeeze, fragments, jwins, power_gossip, sparq
from gossipjax.tasks import quadratic
from gossipjax.testing import relabel_timeline
from gossipjax.timeline import (
    client_sampling,
    clocks,
    matching_rounds,
    poisson_edges,
    poisson_pairs,
    poisson_push,
    rounds,
)
from gossipjax.timeline._events import event_of
from gossipjax.topology import barabasi_albert, one_peer_exponential, path, random_tree

T, SAMPLED = 12, 4
RATE = 0.15
# No two nodes of this graph look alike, so that a mistaken index shows.
GRAPH, TREE = barabasi_albert(N, 2, seed=1), random_tree(N, seed=1)
W = lazy(metropolis(GRAPH)).toarray()


class Case(NamedTuple):
    """One row of the table."""

    name: str
    protocol: Callable[[Task, object], Protocol]
    """Of a task and an optimizer."""
    timeline: Callable[[np.ndarray], Timeline]
    """Of an order of the nodes: the new node i is the old node order[i]."""
    optimizer: Callable = optax.sgd
    slots: int | None = None
    """Model rows, where they are no nodes."""
    early: int = 2
    """Events after which something has happened."""
    conserves: bool = True
    """Whether mixing keeps the mean where W is doubly stochastic."""
    on_graph: bool = False
    """Whether the protocol is built for the order of the nodes, too: on a graph, or with settings of each node."""
    slow: bool = False
    """Whether its tests are slow tests, to keep the others short."""
    noisy: bool = False
    """Whether gradients are drawn with keys where keys matter: three rows, for the generator takes long to compile."""


def on_rounds(matrices, form="auto"):
    def build(order):
        return rounds([m[np.ix_(order, order)] for m in matrices], T, form=form)

    return build


def on_pairs(builder, **settings):
    def build(order):
        timeline, new = builder(GRAPH, T, seed=5, **settings), np.argsort(order).astype(np.int32)
        ends = {name: new[timeline.xs[name]] for name in ("first", "second")}
        return dataclasses.replace(timeline, xs=timeline.xs | ends)

    return build


def on_matchings(order):
    timeline, new = matching_rounds(N, T, seed=6), np.argsort(order).astype(np.int32)
    partner = new[timeline.xs["partner"][:, order]]
    return dataclasses.replace(timeline, xs=timeline.xs | {"partner": partner})


def on_samples(order):
    sizes = np.arange(1.0, N + 1)
    timeline, new = client_sampling(N, SAMPLED, T, seed=5, shard_sizes=sizes), np.argsort(order).astype(np.int32)
    nodes = new[timeline.xs["nodes"]]
    return dataclasses.replace(timeline, xs=timeline.xs | {"nodes": nodes})


def on_plan(builder, *network, nodes_are_rows=True, **settings):
    """The first events of a planned timeline: its nodes, and its model rows if they are nodes, get new names."""

    def build(order):
        plan, new = builder(*network, **settings, seed=5)[:T], np.argsort(order).astype(np.int32)
        named = ("nodes", "begin")
        named += ("rows", "senders", "receivers", "members", "targets", "speakers") if nodes_are_rows else ()
        xs = {
            name: np.where(array < N, new[np.minimum(array, N - 1)], array) if name in named else array
            for name, array in plan.xs.items()
        }
        return dataclasses.replace(plan, xs=xs)

    return build


def on_shatter(order):
    return relabel_timeline(timeline.shatter(N, T, virtual_nodes=2, degree=3, seed=5), np.argsort(order))


def on_changing(order):
    overlays, activity, losses = timeline.overlays, timeline.activity, timeline.losses
    absences, bursts = activity.markov(5, 2, seed=1), losses.gilbert(4, 2, seed=2, both_ways=True)
    plan = timeline.changing_rounds(overlays.regular(N, 4, seed=5), T, activity=absences, loss=bursts)
    return relabel_timeline(plan, np.argsort(order))


def on_swift(order):
    return on_plan(timeline.swift, GRAPH, 9.0, compute=CLOCK, latency=0.1)(order)


def on_masses(order):
    return on_plan(timeline.directed_push, GRAPH, 9.0, compute=CLOCK, send=1.0, latency=0.2)(order)


def on_teleports(order):
    plan, new = (
        timeline.teleportation(lazy(metropolis(path(SAMPLED))), N, T, seed=5),
        np.argsort(order).astype(np.int32),
    )
    return dataclasses.replace(plan, xs=plan.xs | {"nodes": new[plan.xs["nodes"]]})


def on_hadfl(order):
    """Two cycles; rows stay where they are, the last mean behind those of the nodes."""
    devices = network(N, seconds=0.1 / (1 + np.arange(N) % 2))
    window = systems.stand_in(systems.hadfl(devices, 12.0, local_steps=2, model_bytes=100, seed=5))[: 4 * T]
    nodes, new = window.xs["nodes"], np.argsort(order).astype(np.int32)
    named = np.where(nodes < N, new[np.minimum(nodes, N - 1)], nodes)
    return dataclasses.replace(window, xs=window.xs | {"nodes": named, "rows": nodes})


def gossip(task, optimizer):
    del task, optimizer
    return gossip_averaging()


CHANGING = jwins((0.6,), cap=1.0, transform=wavelet("haar", levels=1), rank_by="value")


def choco_gossip(task, optimizer):
    del task, optimizer
    return gossip_averaging(choco(top_k(2), 0.4))


def squeezed_gossip(task, optimizer):
    del task, optimizer
    return gossip_averaging(deep_squeeze(top_k(2), 0.3))


def mass(task, optimizer):
    del task, optimizer
    return push_sum()


def bound(builder, **settings):
    return lambda task, optimizer: builder(task, optimizer, **settings)


def with_rate(builder, **settings):
    """A builder that takes a step size in the place of an optimizer."""
    return lambda task, optimizer: builder(task, *optimizer.args, **settings)


def with_samples(builder, count, **settings):
    """A builder that takes a finite sum, here of equal samples, and a step size."""
    return lambda task, optimizer: builder(identical_samples(task, count), *optimizer.args, **settings)


def prox_of(task, node, z, step_size):
    """Of the quadratic loss of a node, whose model is one leaf or two."""
    batch = task.batch(KEY, task.data, node)
    a, b = ((split(leaf) if isinstance(z, dict) else leaf) for leaf in (batch["curvature"], batch["target"]))
    return jax.tree.map(lambda z, a, b: (z + step_size * a * b) / (1 + step_size * a), z, a, b)


def normalized_method(task, optimizer, order):
    steps = 1 + np.arange(N) % 3
    return fednova(task, *optimizer.args, local_steps=steps[order], momentum=0.5)


def dual_method(task, optimizer, order):
    return admm(GRAPH.relabel(np.argsort(order)), Partial(prox_of, task), penalty=optimizer.args[0], relaxation=0.6)


def local_dual_method(task, optimizer, order):
    graph = GRAPH.relabel(np.argsort(order))
    return lt_admm(task, optimizer, graph, local_steps=2, penalty=0.5, beta=0.1)


def sampled_dual_method(task, optimizer, order):
    graph, samples = GRAPH.relabel(np.argsort(order)), identical_samples(task, 1)
    return lt_admm_vr(samples, optimizer.args[0], graph, local_steps=2, penalty=0.5, beta=0.1, keep_table=True)


def tracking_dual_method(task, optimizer, order):
    graph = GRAPH.relabel(np.argsort(order))
    return admm_tracking(task, optimizer.args[0], graph, gamma=0.6, penalty=0.5, relaxation=0.7)


def tree_method(task, optimizer, order):
    return relay_sgd(task, optimizer, TREE.relabel(np.argsort(order)), local_steps=2)


def tree_average(task, optimizer, order):
    del task, optimizer
    return relay_averaging(TREE.relabel(np.argsort(order)))


def on_tree(order):
    return relabel_timeline(rounds(metropolis(TREE), T), np.argsort(order))


def on_losses(order):
    activity, losses = timeline.activity.markov(5, 2, seed=1), timeline.losses.gilbert(4, 2, seed=2)
    return relabel_timeline(timeline.changing_rounds(GRAPH, T, activity=activity, loss=losses), np.argsort(order))


def on_fresh(order):
    return relabel_timeline(timeline.changing_rounds(timeline.overlays.regular(N, 4, seed=5), T), np.argsort(order))


CLOCK = clocks.shifted_exponential(0.2, 0.6)
ONE_PEER = [uniform(topology).toarray() for topology in one_peer_exponential(N)]
CASES = [
    Case("gossip_rounds", gossip, on_rounds([W])),
    Case("gossip_matchings", gossip, on_matchings),
    Case("gossip_pairs", gossip, on_pairs(poisson_pairs)),
    Case("gossip_push", gossip, on_pairs(poisson_push, weight=0.3)),
    Case("gossip_choco", choco_gossip, on_rounds([W])),
    Case("dpsgd_atc_rounds", bound(dpsgd), on_rounds([W])),
    Case("dpsgd_choco_top_k", bound(dpsgd, sharing=choco(top_k(2), 0.4)), on_rounds([W])),
    Case(
        "dpsgd_choco_sign", bound(dpsgd, order="combine_then_adapt", sharing=choco(scaled_sign(), 0.4)), on_rounds([W])
    ),
    Case("jwins", bound(dpsgd, sharing=CHANGING), on_rounds([W]), conserves=False),
    Case("dpsgd_sparq", bound(dpsgd, sharing=sparq(sign_top_k(2), 0.4, 0.2)), on_rounds([W])),
    Case("gossip_deep_squeeze", squeezed_gossip, on_rounds([W])),
    Case("dpsgd_power_gossip", bound(dpsgd, sharing=power_gossip(GRAPH)), on_rounds([W])),
    Case("dpsgd_shatter", bound(dpsgd, sharing=fragments(2)), on_shatter),
    Case("beer_top_k", bound(beer, compressor=top_k(2), gamma=0.4), on_rounds([W])),
    Case("dpsgd_cta_table", bound(dpsgd, order="combine_then_adapt"), on_rounds([W], "table")),
    Case("dpsgd_local_steps", bound(dpsgd, local_steps=3), on_rounds([W]), noisy=True),
    Case("dpsgd_adam", bound(dpsgd), on_rounds([W]), optax.adam),
    Case("dpsgd_one_peer", bound(dpsgd), on_rounds(ONE_PEER, "table")),
    Case("dpsgd_changing", bound(dpsgd), on_changing),
    Case("dpsgd_pairs", bound(dpsgd), on_pairs(poisson_pairs), noisy=True),
    Case("dpsgd_cta_pairs_adam", bound(dpsgd, order="combine_then_adapt"), on_pairs(poisson_pairs), optax.adam),
    Case("dpsgd_edges", bound(dpsgd), on_pairs(poisson_edges)),
    Case("dpsgd_push", bound(dpsgd), on_pairs(poisson_push)),
    Case("local_sgd_averaging", bound(local_sgd, local_steps=2), on_rounds([averaging(N).toarray()])),
    Case("fedavg_sampling", bound(fedavg, local_steps=2), on_samples, slots=SAMPLED, noisy=True),
    Case("fedprox", bound(fedprox, local_steps=2, mu=0.5), on_samples, slots=SAMPLED, slow=True),
    *(
        Case(
            build.__name__,
            bound(build, local_steps=2, server_step_size=0.1, tau=0.1),
            on_samples,
            slots=SAMPLED,
            slow=True,
        )
        for build in (fedadam, fedyogi, fedadagrad)
    ),
    Case("fednova", normalized_method, on_samples, slots=SAMPLED, on_graph=True, slow=True),
    Case("feddyn", bound(feddyn, local_steps=2, alpha=0.5), on_samples, slots=SAMPLED, slow=True),
    Case(
        "fed_scaffold", with_rate(scaffold, local_steps=2, server_step_size=0.8), on_samples, slots=SAMPLED, slow=True
    ),
    Case("allreduce", bound(allreduce_sgd), on_rounds([W])),
    Case("gradient_tracking_cta", bound(gradient_tracking), on_rounds([W])),
    Case("gradient_tracking_atc", bound(gradient_tracking, order="adapt_then_combine"), on_rounds([W])),
    Case("gradient_tracking_next", bound(gradient_tracking, order="next"), on_rounds([W])),
    Case("gradient_tracking_aug_dgm", bound(gradient_tracking, order="aug_dgm"), on_rounds([W])),
    Case("d2", bound(d2), on_rounds([W])),
    Case("exact_diffusion", bound(exact_diffusion), on_rounds([metropolis(GRAPH).toarray()])),
    Case("led", bound(led, local_steps=3), on_rounds([W])),
    Case("extra", bound(extra), on_rounds([W])),
    Case("simple_gt", bound(simple_gt), on_rounds([W]), slow=True),
    Case("wang_elia", bound(wang_elia), on_rounds([W]), slow=True),
    Case("k_gt", with_rate(k_gt, local_steps=3, communication_step_size=0.8), on_rounds([W])),
    Case("prox_skip", bound(prox_skip, probability=0.6), on_rounds([W]), noisy=True),
    Case("clique_averaging", bound(clique_averaging, cliques=[[node] for node in range(N)]), on_rounds([W])),
    Case("quasi_global_momentum", bound(quasi_global_momentum), on_rounds([W])),
    Case("nids", with_rate(nids), on_rounds([W])),
    Case("lead", with_rate(lead, compressor=identity()), on_rounds([W]), slow=True),
    Case("gt_saga", with_samples(gt_saga, 1), on_rounds([W]), slow=True),
    Case("gt_svrg", with_samples(gt_svrg, 2, period=2), on_rounds([W]), slow=True),
    Case("gt_sarah", with_samples(gt_sarah, 2, period=2), on_rounds([W]), slow=True),
    Case("gt_vr", with_samples(gt_vr, 2, snapshot_probability=0.5), on_rounds([W]), slow=True),
    Case("c_gt", with_rate(c_gt, compressor=top_k(2), gamma=0.4, alpha=1.0), on_rounds([W]), slow=True),
    Case("decentlam", bound(decentlam), on_rounds([W]), slow=True),
    Case("admm", dual_method, on_rounds([W]), conserves=False, on_graph=True),
    Case("admm_losses", dual_method, on_losses, conserves=False, on_graph=True, slow=True),
    Case("lt_admm", local_dual_method, on_losses, conserves=False, on_graph=True, slow=True),
    Case("lt_admm_vr", sampled_dual_method, on_losses, conserves=False, on_graph=True, slow=True),
    Case("admm_tracking", tracking_dual_method, on_losses, conserves=False, on_graph=True, slow=True),
    Case("dlm", with_rate(dlm, penalty=0.3), on_rounds([W]), slow=True),
    Case("dinno", bound(dinno, local_steps=3, penalty=0.2), on_fresh, slow=True),
    Case("relay_sgd", tree_method, on_tree, conserves=False, on_graph=True, slow=True),
    Case("relay_averaging", tree_average, on_tree, on_graph=True, slow=True),
    Case(
        "ad_psgd_flights",
        bound(ad_psgd),
        on_plan(timeline.push_gossip, GRAPH, 9.0, compute=CLOCK, gossip=1.0, latency=0.2),
        early=4,
    ),
    Case(
        "ad_psgd_largest_in_flight",
        bound(ad_psgd, sharing=sharing.top_k(0.6)),
        on_plan(timeline.push_gossip, GRAPH, 9.0, compute=CLOCK, gossip=1.0, latency=0.2),
        early=4,
    ),
    Case(
        "learning_by_largest",
        bound(gossip_learning, merge="age", sharing=sharing.top_k(0.6)),
        on_plan(timeline.gossip_learning, GRAPH, 9.0, period=1.0, latency=0.1),
        early=5,
    ),
    Case("swift_largest", bound(swift, sharing=sharing.top_k(0.6)), on_swift),
    Case("sgp_largest", bound(sgp, sharing=sharing.top_k(0.6)), on_masses),
    Case(
        "push_sum_flights",
        mass,
        on_plan(timeline.directed_push, GRAPH, 9.0, compute=None, send=1.0, latency=0.1),
        early=4,
    ),
    Case("sgp_flights", bound(sgp), on_masses),
    Case(
        "ormandi_by_age",
        bound(gossip_learning, merge="age"),
        on_plan(
            timeline.gossip_learning,
            GRAPH,
            9.0,
            period=1.0,
            create="update_merge",
            merge="last_received",
            latency=0.1,
        ),
        early=5,
    ),
    Case(
        "walks_mixing",
        bound(random_walk),
        on_plan(
            timeline.random_walks,
            GRAPH,
            T,
            num_walks=SAMPLED,
            service=1.0,
            mix_on_arrival=True,
            nodes_are_rows=False,
        ),
        slots=SAMPLED,
    ),
    Case("walks_teleporting", bound(random_walk), on_teleports, slots=SAMPLED, slow=True),
    Case("swift", bound(swift), on_swift),
    Case("hadfl", bound(hadfl, local_steps=2), on_hadfl, slots=N + 1, early=4),
    Case(
        "divshare",
        bound(dpsgd, sharing=fragments(2), local_steps=2),
        on_plan(
            timeline.divshare,
            N,
            9.0,
            compute=CLOCK,
            num_fragments=2,
            recipients=2,
            uplink_messages_per_second=10.0,
        ),
    ),
    Case(
        "fedbuff",
        bound(fedbuff),
        on_plan(timeline.fedbuff, N, 9.0, concurrency=2, train_time=CLOCK, buffer_size=1, nodes_are_rows=False),
        slots=1,
        early=4,
    ),
]

SAME_ORDER = np.arange(N)
KEY = jax.random.key(3)


def marked(case):
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])


@pytest.fixture(params=map(marked, CASES), scope="module")
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def plan(case) -> Timeline:
    return case.timeline(SAME_ORDER)


@pytest.fixture(autouse=True)
def _promotion(case):
    """Optax's Adam raises a Python float to the power of an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard" if case.optimizer is optax.adam else "strict"):
        yield


def problem(targets=TARGETS, curvature=CURVATURE, noisy=False) -> Task:
    """Quadratics; without noise the key is not used at all, which spares compiling the generator."""
    return quadratic(targets, curvature=curvature, noise_std=0.3) if noisy else exact_quadratic(targets, curvature)


def make(case, rate=RATE, order=SAME_ORDER, within=lambda task: task, **settings):
    """A protocol whose numbers are all arguments: data, learning rate."""
    graph = (order,) if case.on_graph else ()
    return case.protocol(within(problem(**settings)), Partial(case.optimizer, jnp.asarray(rate)), *graph)


def start(case, x0=X0):
    """Start models; slots start equal, as FedAvg's server model does."""
    return jnp.asarray(x0 if case.slots is None else np.repeat(x0[:1], case.slots, axis=0))


TRACES = []


@jax.jit
def final_state(key, protocol, timeline, x0):
    TRACES.append(1)
    facts = timeline.properties
    (state, status), _ = loop.run(key, protocol, timeline, protocol.init(key, loop.with_slots(x0, facts)))
    return state, loop.models(protocol, state, facts.num_rows), status.bits


def test_jit_changes_nothing(case, plan):
    protocol, plan = make(case), plan[: case.early]
    _, compiled, bits = final_state(KEY, protocol, plan, start(case))
    key = jax.random.fold_in(KEY, loop.STEPS)
    state = protocol.init(KEY, loop.with_slots(start(case), plan.properties))
    for t in range(case.early):
        event = event_of(KEY, plan, jax.tree.map(lambda leaf, t=t: jnp.asarray(leaf[t]), plan.xs))
        state, _ = protocol.step(key, state, event)
    # Compiled code fuses multiply and add: the last digits differ.
    models_found = loop.models(protocol, state, plan.properties.num_rows)
    np.testing.assert_allclose(compiled, models_found, rtol=1e-11, atol=1e-12)
    assert bits == 0
    assert np.abs(compiled - start(case)).max() > 1e-3  # something happened


BY_TENSOR = {"dpsgd_power_gossip", "dpsgd_shatter", "divshare"}
"""Cases whose messages depend on how a model is cut into tensors."""


def test_two_leaves_are_one_vector(case, plan):
    """The same numbers in two leaves of different shapes make the same run, so that all that follows holds for them."""
    method = make(case, within=two_leaves)
    _, found, bits = final_state(KEY, method, plan, split(start(case)))
    assert bits == 0
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, split(start(case)))
    if case.name in BY_TENSOR:
        assert np.isfinite(joined(found)).all()
        assert np.abs(joined(found) - start(case)).max() > 1e-3
        return
    expected = final_state(KEY, make(case), plan, start(case))[1]
    # Compiled code adds in another order.
    np.testing.assert_allclose(joined(found), expected, rtol=1e-11, atol=1e-12)


def test_keys_vmap_like_a_loop(case, plan):
    protocol, keys = make(case, noisy=case.noisy), jax.random.split(KEY, 3)
    run = jax.vmap(lambda key: final_state(key, protocol, plan, start(case))[1])
    loop = [final_state(key, protocol, plan, start(case))[1] for key in keys]
    np.testing.assert_allclose(run(keys), jnp.stack(loop), rtol=1e-11, atol=1e-12)
    assert (np.abs(loop[0] - loop[1]).max() > 1e-3) == case.noisy


def test_state_keeps_its_structure(case, plan):
    protocol = make(case)
    before = jax.eval_shape(protocol.init, KEY, loop.with_slots(start(case), plan.properties))
    after = jax.eval_shape(lambda: final_state(KEY, protocol, plan, start(case))[0])
    compare_structure(before, after, case.name)
    rows = (case.slots or N) + plan.properties.num_slots
    assert all(leaf.shape[0] in (rows, N) for leaf in jax.tree.leaves(before))
    assert jax.eval_shape(protocol.model, before).shape == (rows, D)


def test_other_data_and_learning_rate_do_not_recompile(case, plan):
    final_state(KEY, make(case), plan, start(case))
    count = len(TRACES)
    other = make(case, targets=TARGETS[::-1], curvature=CURVATURE[::-1], rate=0.05)
    _, x, _ = final_state(jax.random.key(9), other, plan, start(case, -X0))
    assert len(TRACES) == count
    assert np.isfinite(x).all()


def test_names_of_nodes_do_not_matter(case):
    order = np.random.default_rng(2).permutation(N)
    assert not np.array_equal(order, SAME_ORDER)
    plain = final_state(KEY, make(case), case.timeline(SAME_ORDER), start(case))[1]
    renamed = make(case, order=order, targets=TARGETS[order], curvature=CURVATURE[order])
    x0 = X0[order] if case.slots is None else X0
    other = final_state(KEY, renamed, case.timeline(order), start(case, x0))[1]
    expected = plain[order] if case.slots is None else plain
    # Sums over neighbours run in another order.
    np.testing.assert_allclose(other, expected, rtol=1e-11, atol=1e-12)
    equal = ("local_sgd", "fed", "allreduce", "relay_averaging")
    assert np.ptp(plain, axis=0).max() > 1e-6 or case.name.startswith(equal)


def test_mixing_alone_conserves_the_mean(case, plan):
    """With a vanishing learning rate only the mixing acts, for which a doubly stochastic W keeps the mean."""
    _, x, _ = final_state(KEY, make(case, rate=1e-300), plan, start(case))
    change = np.abs(x.mean(0) - start(case).mean(0)).max()
    if case.conserves and ("doubly_stochastic" in plan.properties or case.slots is not None):
        assert change < 1e-14
    else:
        assert change > 1e-3  # one-way pushes and parts of models conserve it in expectation at best


def test_common_optimum_is_a_fixed_point(case, plan):
    targets = np.repeat(TARGETS[:1], N, axis=0)
    protocol = make(case, targets=targets)
    # Adam divides by the size of the gradient: rounding errors of the first event are steps of the third.
    part = plan[:1] if case.optimizer is optax.adam else plan
    _, x, _ = final_state(KEY, protocol, part, start(case, targets))
    # Rows of W sum to one up to rounding, twelve times over.
    np.testing.assert_allclose(x, np.broadcast_to(targets[:1], np.shape(x)), rtol=0, atol=1e-14)


def test_differentiable_and_vmappable_over_learning_rates(case, plan):
    """Derivatives by start and learning rate equal central differences; all of them are one vmap."""
    x0, way = start(case), start(case, np.random.default_rng(4).standard_normal((N, D)))
    part = jax.tree.map(jnp.asarray, plan[: case.early + 3])

    def final_loss(numbers):
        step, rate = numbers
        protocol = make(case, rate)
        state = protocol.init(KEY, loop.with_slots(x0 + step * way, part.properties))
        (state, _), _ = loop.run(KEY, protocol, part, state)
        return jnp.mean(jnp.square(loop.models(protocol, state, part.properties.num_rows) - 0.3))

    here, h = jnp.asarray([0.0, RATE]), 1e-5
    points = here[None] + h * jnp.asarray([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(final_loss)))(points)
    slopes = np.asarray([values[1] - values[2], values[3] - values[4]]) / (2 * h)
    # h² truncation and 1e-16/h rounding: both about 1e-10.
    np.testing.assert_allclose(grads[0], slopes, rtol=1e-5, atol=1e-8)
    grad = grads[0]
    assert abs(grad[0]) > 1e-4
    assert (abs(grad[1]) > 1e-4) == (case.protocol not in (gossip, choco_gossip, squeezed_gossip, mass, tree_average))


@pytest.mark.slow
@pytest.mark.exact
def test_parts_of_a_run_make_the_whole(case, plan):
    """Bit for bit: three calls, each from the state of the one before, and one call of all events."""
    protocol, x0 = make(case), start(case)
    state = jax.jit(protocol.init)(KEY, loop.with_slots(x0, plan.properties))
    whole = advanced(KEY, protocol, plan, state)
    third = len(plan) // 3
    for first in (0, third, 2 * third):
        state = advanced(KEY, protocol, plan[first : first + third], state)
    jax.tree.map(np.testing.assert_array_equal, state, whole)


@jax.jit
def advanced(key, protocol, timeline, state):
    return loop.run(key, protocol, timeline, state, record_every=2)[0][0]


class Interrupted(Exception):
    pass


DRIVEN = {
    "gossip_matchings",
    "dpsgd_adam",
    "dpsgd_pairs",
    "fedavg_sampling",
    "gradient_tracking_cta",
    "d2",
    "divshare",
    "jwins",
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in DRIVEN], ids=lambda case: case.name)
@pytest.mark.slow
def test_records_chunks_and_restarts_change_nothing(case, tmp_path, monkeypatch):
    """Bit for bit: the model after 4 and after 12 events, however simulate cuts the run."""
    thorough = case.name in ("gossip_matchings", "dpsgd_pairs")  # every length of a chunk is compiled anew
    protocol, x0, plan = make(case, noisy=case.noisy and thorough), start(case), case.timeline(SAME_ORDER)

    def models_at(**settings):
        result = simulate(KEY, protocol, plan, x0, observers=[models()], **settings)
        at = {int(event): number for number, event in enumerate(result.dataset.event)}
        picked = result.dataset.isel(record=[at[0], at[4], at[12]])
        return {name: picked[name].values for name in ("model", "time", "bytes_sent", "messages_sent")}

    expected = models_at(record_every=4)
    found = {"record_at, longer chunks": models_at(record_at=[4, 12])}
    if thorough:
        found["record_every"] = models_at(record_every=2)
        monkeypatch.setattr(chunks, "CHUNKS", 1)
        found["one chunk"] = models_at(record_every=4)
        monkeypatch.setattr(chunks, "CHUNK_EVENTS", 2)
        found["short chunks"] = models_at(record_every=4)
        monkeypatch.undo()

    def failing_save(self, done, *rest):
        if done == 8:
            raise Interrupted
        return save(self, done, *rest)

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", failing_save)
    with pytest.raises(Interrupted):
        models_at(record_every=4, checkpoint=tmp_path / "run")
    monkeypatch.undo()
    found["restart"] = models_at(record_every=4, checkpoint=tmp_path / "run")
    for how, values in found.items():
        for name, array in expected.items():
            np.testing.assert_array_equal(values[name], array, err_msg=f"{how}: {name}")
