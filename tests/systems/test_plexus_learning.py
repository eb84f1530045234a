"""From plans of Plexus to learning: against FedAvg, and against a replay with one model per training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plexus_runs import network, run, uneven
from problems import CURVATURE, TARGETS, D, N, exact_quadratic

from gossipjax import fedavg, replicate, simulate
from gossipjax.systems import stand_in
from gossipjax.systems._plexus.sizes import AGGREGATED, TRAINED
from gossipjax.tasks import quadratic
from gossipjax.timeline import client_sampling
from gossipjax.types import NOBODY

KEY, RATE, STEPS = jax.random.key(3), 0.1, 3
START = np.linspace(-1.0, 1.0, D)
# Sums run in another order, some hundred times over, on numbers near 1.
CLOSE = {"rtol": 0, "atol": 1e-12}


def learned(task, plan, *, every=1):
    """Run FedAvg from the same start in all rows."""
    x0 = replicate(jnp.asarray(START), plan.properties.num_rows)
    protocol = fedavg(task, optax.sgd(RATE), local_steps=STEPS)
    return simulate(KEY, protocol, stand_in(plan), x0, record_every=every, progress=False)


def test_all_equal_clients_are_fedavg():
    """s = n, all models needed, no churn: FedAvg with all clients; the same noise, whose keys fold in r = 1, 2, …"""
    task = quadratic(TARGETS, curvature=CURVATURE, noise_std=0.5)
    rounds = 12
    plan = run(network(N), sample_size=N, success_fraction=1.0, num_rounds=rounds, local_steps=STEPS)
    found = learned(task, plan.timeline)
    sampled = client_sampling(N, N, rounds, seed=0)
    sampled = dataclasses.replace(sampled, xs=sampled.xs | {"index": sampled.xs["index"] + np.uint32(1)})
    expected = learned(task, sampled)
    np.testing.assert_allclose(found.x[0], expected.x[0], **CLOSE)
    np.testing.assert_allclose(
        found["time"][1:].to_numpy(), np.append(0.0, plan.history.aggregation_s), rtol=1e-6
    )  # float32


def replayed(plan):
    """Keep every model: the start of each training, its end, each mean; return the global model after each mean."""
    means, best, best_round, history = [], START, 0, []

    def trained(training):
        source, node = plan.history.training_source[training], plan.history.training_node[training]
        x = START if source < 0 else means[source]
        for _ in range(STEPS):
            x = x - RATE * CURVATURE[node] * (x - TARGETS[node])
        return x

    for number, round_ in enumerate(plan.history.aggregation_round):
        means.append(np.mean([trained(training) for training in plan.history.members_of(number)], axis=0))
        if round_ > best_round:
            best, best_round = means[-1], round_
        history.append(best)
    return np.array(history)


def churn(seed):
    rng = np.random.default_rng(seed)
    return [(float(t), int(i), bool(b)) for t, i, b in zip(*rng.uniform(0, [[60], [N], [2]], (3, 60)), strict=True)]


SYSTEMS = [
    {},
    {"changes": churn(0)},
    {"aggregators": 3, "success_fraction": 0.5},
    {"aggregators": 2, "changes": churn(2)},
    {"bandwidth": "fair", "threshold": "ceil", "changes": churn(3)},
]


@pytest.mark.parametrize("options", SYSTEMS)
def test_slots_hold_the_right_models(options):
    options = dict(options)
    devices = uneven(N, changes=options.pop("changes", ()), bandwidth=2e4)
    plan = run(devices, num_rounds=25, duration_s=80.0, stall_s=90.0, local_steps=STEPS, **options)
    assert plan.history.aggregation_s.size >= 8
    plan_timeline = plan.timeline
    watched = learned(exact_quadratic(), plan_timeline, every=len(plan_timeline))
    np.testing.assert_allclose(watched.x[0], replayed(plan)[-1], **CLOSE)
    models = plan.history.messages_sent[[TRAINED, AGGREGATED]].sum()
    assert watched["messages_sent"][-1] == models
    assert plan_timeline.properties.traffic.sent == models
    check_slots(plan, plan_timeline)


def check_slots(plan, made):
    """Every training that enters a mean which matters is done once, at its node, and no other one."""
    facts, xs = made.properties, made.xs
    acting = xs["nodes"] != NOBODY
    assert ((xs["rows"] != NOBODY) == acting).all()
    assert acting.sum() <= np.unique(plan.history.members).size
    assert xs["rows"][acting].max() <= facts.num_slots
    assert xs["rows"][acting].min() >= 1
    for event in range(1, len(made)):
        nodes = set(xs["nodes"][event][acting[event]].tolist())
        assert nodes <= set(plan.history.training_node[plan.history.members_of(event - 1)].tolist())
        live = xs["members"][event, 0] != NOBODY
        assert xs["weights"][event, 0][~live].sum() == 0
        if live.any():
            np.testing.assert_allclose(xs["weights"][event, 0].sum(), 1.0, rtol=1e-15)
        targets = xs["targets"][event, 0]
        targets = targets[targets != NOBODY]
        assert np.unique(targets).size == targets.size
    assert "averages" in facts
    assert facts.num_rows == 1


def test_as_many_slots_as_models_alive():
    """Equal views: only the ⌊s φ⌋ models that enter the next mean are held, whatever n is."""
    plan = run(uneven(30), sample_size=10, num_rounds=40)
    made = plan.timeline
    assert made.properties.num_slots == 8
    assert np.count_nonzero(made.xs["nodes"] != NOBODY) == 8 * 40
    assert len(made) == 41


def test_a_model_in_two_means_is_trained_once():
    plan = run(uneven(N), aggregators=3, success_fraction=0.5, num_rounds=15)
    uses = np.bincount(plan.history.members, minlength=plan.history.training_node.size)
    made = plan.timeline
    assert (uses > 1).any()
    done = np.count_nonzero(made.xs["nodes"] != NOBODY)
    assert done < plan.history.members.size
    assert done <= np.count_nonzero(uses)


def test_nothing_was_averaged():
    """The initial model is handed out, and stays."""
    plan = run(network(N, changes=[(1.0, i, False) for i in range(N)]), num_rounds=3, local_steps=STEPS)
    assert plan.history.outcome == "stalled"
    assert len(plan.timeline) == 1
    found = learned(exact_quadratic(), plan.timeline)
    np.testing.assert_array_equal(found.x[0], START)
    assert found["messages_sent"][-1] == plan.history.messages_sent[[TRAINED, AGGREGATED]].sum()
