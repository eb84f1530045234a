"""A plan and the run on it count the same: size of a message, local steps, bytes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plexus_runs import uneven
from problems import X0, D, exact_quadratic

import gossipjax as gj
from gossipjax import sharing, systems
from gossipjax.mixing import metropolis
from gossipjax.sharing import random_subset
from gossipjax.topology import ring

KEY, SGD, N = jax.random.key(0), optax.sgd(0.1), len(X0)
SIZE = 8 * D
"""Bytes of a model in float64."""
TASK = exact_quadratic()
GRAPH = ring(N)


def rounds_of(**learn):
    return systems.synchronous(uneven(N), metropolis(GRAPH), 4, **learn).timeline


def plexus_of(**learn):
    return systems.plexus(uneven(N), num_rounds=4, sample_size=4, seed=0, **learn).timeline


def ad_psgd_of(*, local_steps=1, **learn):
    assert local_steps == 1
    return systems.ad_psgd(uneven(N), N, 3.0, time_batch=4, seed=0, **learn).timeline


def learn(**steps):
    return gj.local_sgd(TASK, SGD, **steps)


PLANS = {
    "rounds": (rounds_of, learn),
    "barriers": (lambda **learn: rounds_of(round_seconds=None, **learn), learn),
    "epidemic": (lambda **learn: systems.epidemic(uneven(N), 3, 4, seed=0, **learn).timeline, learn),
    "all-reduce": (
        lambda **learn: systems.allreduce(uneven(N), 4, **learn).timeline,
        lambda **steps: gj.fedavg(TASK, SGD, **steps),
    ),
    "gossip learning": (
        lambda **learn: systems.gossip_learning(uneven(N), 12.0, period_s=2.0, seed=0, **learn).timeline,
        lambda **steps: gj.gossip_learning(TASK, SGD, merge="age", **steps),
    ),
    "HADFL": (
        lambda **learn: systems.hadfl(uneven(N), 12.0, seed=0, **learn).timeline,
        lambda **steps: gj.hadfl(TASK, SGD, **steps),
    ),
    "Plexus": (plexus_of, lambda **steps: gj.fedavg(TASK, SGD, **steps)),
    "AD-PSGD": (ad_psgd_of, lambda *, local_steps: gj.ad_psgd(TASK, SGD)),
}


def run(protocol, timeline):
    x0 = gj.replicate(jnp.asarray(X0[0]), timeline.properties.num_rows)
    return gj.simulate(KEY, protocol, timeline, x0, record_every=len(timeline), progress=False)


@pytest.mark.parametrize("name", PLANS)
def test_messages_of_another_size_are_refused(name):
    plan, protocol = PLANS[name]
    steps = 1 if name == "AD-PSGD" else 2
    right, wrong = (plan(local_steps=steps, model_bytes=size) for size in (SIZE, 100 * SIZE))
    found = run(protocol(local_steps=steps), right)
    with pytest.raises(ValueError, match=rf"has {SIZE} bytes, but .* model_bytes={100 * SIZE:,}"):
        run(protocol(local_steps=steps), wrong)
    with pytest.raises(ValueError, match=rf"has {SIZE} bytes, but .* model_bytes={100 * SIZE:,}"):
        run(gj.track_versions(protocol(local_steps=steps)), wrong)
    standing = run(protocol(local_steps=steps), systems.stand_in(wrong))
    share = 2 * (N - 1) / N if name == "all-reduce" else 1
    assert standing["bytes_sent"][-1] == share * SIZE * standing["messages_sent"][-1]
    assert found["bytes_sent"][-1] > 0


@pytest.mark.parametrize("name", PLANS)
def test_bytes_and_steps_are_read_off_the_learner(name):
    """The plan for a protocol is that for its numbers, and the protocol runs on it."""
    plan, protocol = PLANS[name]
    steps = 1 if name == "AD-PSGD" else 3
    learner = protocol(local_steps=steps)
    made, typed = plan(learner=learner), plan(local_steps=steps, model_bytes=SIZE)
    assert made.properties == typed.properties
    jax.tree.map(np.testing.assert_array_equal, (made.xs, made.shared), (typed.xs, typed.shared))
    assert plan(learner=gj.track_versions(learner)).properties == typed.properties
    for extra in ({"model_bytes": SIZE}, {} if name == "AD-PSGD" else {"local_steps": steps}):
        if extra:
            with pytest.raises(ValueError, match=f"{next(iter(extra))}=.*: the learner has its own; leave"):
                plan(learner=learner, **extra)
    with pytest.raises(ValueError, match=r"model_bytes=None: .* or pass learner=protocol"):
        plan(local_steps=steps)


@pytest.mark.parametrize(
    ("name", "sharing", "size"),
    [
        ("rounds", sharing.moniqua(5, theta=1.0, gamma=0.5), -(-5 * D // 8)),
        ("gossip learning", sharing.fragments(D), 8),
    ],
)
def test_a_message_is_as_large_as_the_sharing_of_the_learner_makes_it(name, sharing, size):
    learner = (gj.gossip_learning if name == "gossip learning" else gj.dpsgd)(TASK, SGD, sharing=sharing)
    timeline = PLANS[name][0](learner=learner)
    assert timeline.properties.message_bytes == size
    run(learner, timeline)


@pytest.mark.parametrize(
    ("name", "learner", "words"),
    [
        ("rounds", gj.gossip_averaging(), "no task is bound in it"),
        ("rounds", gj.dpsgd(TASK, SGD, sharing=random_subset(0.5)), "size of its messages changes .*stand_in"),
        ("rounds", gj.allreduce_sgd(TASK, SGD), "counts its messages itself"),
        ("rounds", gj.dpsgd(TASK, SGD)._replace(requires=gj.Requires(mixing=True)), "how many local steps"),
        ("rounds", gj.fedbuff(TASK, SGD), "a protocol of FedBuff; .* one of D-PSGD"),
        ("rounds", gj.ad_psgd(TASK, SGD), "a protocol of AD-PSGD; .* one of D-PSGD"),
        ("HADFL", gj.dpsgd(TASK, SGD, sharing=sharing.power_gossip(GRAPH)), "does not run on the events of HADFL"),
        ("AD-PSGD", gj.dpsgd(TASK, SGD, local_steps=3), r"local_steps=3: .* a gradient at a time"),
        ("Plexus", gj.fedavg(exact_quadratic(X0[:4], 1.0), SGD, local_steps=1), "has 4 shards for 8 devices"),
    ],
)
def test_a_learner_that_a_plan_cannot_be_read_off_is_refused(name, learner, words):
    with pytest.raises(ValueError, match=words):
        PLANS[name][0](learner=learner)


@pytest.mark.parametrize("name", PLANS)
def test_another_number_of_local_steps_is_refused(name):
    plan, protocol = PLANS[name]
    if name == "AD-PSGD":
        timeline = plan(local_steps=1, model_bytes=SIZE)
        protocol, steps, planned = learn, 3, 1
    else:
        timeline, steps, planned = plan(local_steps=5, model_bytes=SIZE), 1, 5
    words = f"local_steps={steps}, but .* local_steps={planned}"
    with pytest.raises(ValueError, match=words):
        run(protocol(local_steps=steps), timeline)
    with pytest.raises(ValueError, match=words):
        run(protocol(local_steps=steps), systems.stand_in(timeline))


@pytest.mark.parametrize(
    "protocol",
    [gj.gradient_tracking(TASK, SGD), gj.allreduce_sgd(TASK, SGD), gj.d2(TASK, SGD), gj.metered(gj.dpsgd(TASK, SGD))],
    ids=["gradient tracking", "all-reduce", "D2", "metered D-PSGD"],
)
def test_one_gradient_is_one_local_step(protocol):
    timeline = rounds_of(local_steps=5, model_bytes=SIZE)
    if "fixed" in protocol.requires:
        W = gj.mixing.lazy(metropolis(GRAPH))
        timeline = systems.synchronous(uneven(N), W, 4, local_steps=5, model_bytes=SIZE).timeline
    with pytest.raises(ValueError, match=r"local_steps=1, but .* local_steps=5"):
        run(protocol, timeline)


def test_a_plan_of_another_family_is_refused():
    gossip = systems.gossip_learning(uneven(N), 12.0, period_s=2.0, seed=0, local_steps=1, model_bytes=SIZE)
    words = "the protocol is AD-PSGD, but gossip learning: .* planned for gossip learning"
    with pytest.raises(ValueError, match=words):
        run(gj.ad_psgd(TASK, SGD), gossip.timeline)
    families = {name: plan(local_steps=1, model_bytes=SIZE).properties.made_for for name, (plan, _) in PLANS.items()}
    rounds = dict.fromkeys(("rounds", "barriers", "epidemic"), "D-PSGD") | {"all-reduce": "local SGD"}
    events = {"gossip learning": "gossip learning", "AD-PSGD": "AD-PSGD", "Plexus": "FedAvg", "HADFL": "HADFL"}
    assert families == rounds | events


@pytest.mark.parametrize("name", ["rounds", "Plexus"])
def test_a_plan_runs_where_a_timeline_does(name):
    """``simulate`` and ``run`` take its timeline off the plan."""
    plan = {
        "rounds": lambda: systems.synchronous(uneven(N), GRAPH, 4, local_steps=2, model_bytes=SIZE),
        "Plexus": lambda: systems.plexus(
            uneven(N), num_rounds=4, sample_size=4, seed=0, local_steps=2, model_bytes=SIZE
        ),
    }[name]()
    protocol = PLANS[name][1](local_steps=2)
    x0 = gj.replicate(jnp.asarray(X0[0]), plan.timeline.properties.num_rows)
    one, other = (gj.simulate(KEY, protocol, each, x0, progress=False) for each in (plan, plan.timeline))
    np.testing.assert_array_equal(one.x, other.x)
    state = protocol.init(KEY, gj.replicate(jnp.asarray(X0[0]), plan.timeline.properties.num_rows))
    if not plan.timeline.properties.num_slots:
        (end, _), _ = gj.run(KEY, protocol, plan, state)
        np.testing.assert_allclose(protocol.model(end), one.x, rtol=1e-12)  # another program


def test_sizes_that_vary_are_refused_unless_they_stand_in():
    protocol, plan = gj.dpsgd(TASK, SGD, sharing=random_subset(0.5)), rounds_of(local_steps=1, model_bytes=SIZE)
    with pytest.raises(ValueError, match=rf"vary in size.*model_bytes={SIZE:,}.*stand_in"):
        run(protocol, plan)
    found = run(protocol, systems.stand_in(plan))
    assert 0 < found["bytes_sent"][-1] < SIZE * found["messages_sent"][-1]


def test_one_ledger():
    """What the plan says was sent is what the run counts, where nothing is lost or under way at the end."""
    plan = systems.synchronous(uneven(N), metropolis(GRAPH), 4, local_steps=1, model_bytes=SIZE)
    assert plan.round_dropped.sum() == 0
    found = gj.simulate(KEY, learn(local_steps=1), plan.timeline, jnp.asarray(X0), record_every=1, progress=False)
    np.testing.assert_array_equal(found["bytes_sent"][1:], np.cumsum(plan.round_bytes))


def test_what_a_plan_rests_on_is_kept_in_its_file(tmp_path):
    for plan in (
        systems.synchronous(uneven(N), GRAPH, 3, local_steps=2, model_bytes=SIZE),
        systems.plexus(uneven(N), num_rounds=3, sample_size=4, seed=0, model_bytes=SIZE, local_steps=2),
    ):
        read = systems.load_plan(plan.save(tmp_path / "plan.npz"))
        facts = read.timeline.properties
        assert (facts.message_bytes, facts.local_steps) == (SIZE, 2)


def test_only_timelines_stand_in():
    with pytest.raises(TypeError, match=r"gossipjax\.timeline"):
        inspect.unwrap(systems.stand_in)(5)
