"""An empty timeline is a timeline; and what planners say of their messages is what the loop counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plans import PLANS, still

from gossipjax import pack, run, simulate, with_slots
from gossipjax import timeline as tl
from gossipjax.mixing import metropolis
from gossipjax.observe import consensus_distance, models
from gossipjax.topology import ring

KEY = jax.random.key(0)
LONG = 9.0


def start_of(plan):
    return jnp.arange(float(plan.properties.num_rows))


def simulated(plan, **given):
    return simulate(KEY, still(plan), plan, start_of(plan), progress=False, **given)


EMPTY = {name: (lambda build=build: build(LONG)[0:0]) for name, build in PLANS.items()}
EMPTY |= {f"{name}, too short": (lambda build=build: build(1e-9)) for name, build in PLANS.items()}
SERVERS = ("a buffer", "fresh gradients", "batches", "batches of all", "the first")
for _name in SERVERS:  # these refuse it
    del EMPTY[f"{_name}, too short"]
EMPTY |= {
    "nobody averages": lambda: tl.swift(ring(8), 1e-3, compute=tl.clocks.poisson(1.0), period=3, seed=0),
    "rounds": lambda: tl.rounds(metropolis(ring(6)), 9)[4:4],
    "changing": lambda: tl.changing_rounds(ring(6), 9, activity=tl.activity.cyclic(2))[9:],
    "matchings": lambda: tl.matching_rounds(6, 9, seed=0)[9:],
    "drawn matchings": lambda: tl.drawn_matchings(6, 9)[9:],
    "clients": lambda: tl.client_sampling(9, 3, 9, seed=0)[:0],
    "teleportation": lambda: tl.teleportation(metropolis(ring(3)), 6, 3, seed=0)[3:],
    "shatter": lambda: tl.shatter(6, 3, virtual_nodes=2, degree=2, seed=0)[3:],
    "drawn": lambda: tl.drawn_gossip(6, 50, update_rate=1.0, gossip_rate=1.0)[7:7],
    "push rounds": lambda: tl.push_rounds(6, 3, compute=1.0, gossip_rate=1.0, seed=0)[:0],
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_happens(name, tmp_path):
    plan = EMPTY[name]()
    assert len(plan) == 0
    assert tl.event_times(plan).shape == (0,)
    kept = tl.load(tl.save(plan, tmp_path / "plan.npz"))
    found = simulated(kept, observers=[models(), consensus_distance()])
    assert (found.dataset.event.values.tolist(), found.dataset.time.values.tolist()) == ([0], [0.0])
    np.testing.assert_array_equal(found["model"][0, :, 0], start_of(plan))
    np.testing.assert_array_equal(found.x, start_of(plan))
    assert found.dataset.messages_sent.values.tolist() == [0]
    assert len(plan[:]) == 0


@pytest.mark.parametrize("name", ["pushes", "a buffer", "drawn", "pairs, too short"])
def test_nothing_is_packed_run_and_recorded(name):
    plan = EMPTY[name]()
    wide = pack(plan, key=KEY)
    assert (len(wide), wide.properties.packing.events, wide.properties.packing.mean_width) == (0, 0, 0.0)
    start = with_slots(start_of(plan), plan.properties)
    (after, status), records = run(KEY, still(plan), plan, still(plan).init(KEY, start))
    np.testing.assert_array_equal(after, start)
    assert records.event.shape == (0,)
    assert int(status.bits) == 0
    for given in ({"record_every": 5}, {"record_times": [1.0, 2.0]}, {"packing": "packed"}):
        assert simulated(plan, **given).dataset.event.values.tolist() == [0]
    keys = jax.random.split(KEY, 2)
    many = simulate(keys, still(plan), plan, start_of(plan), progress=False)
    assert many.dataset.messages_sent.shape == (1, 2)


def test_empty_plans_are_aligned_with_others():
    plans = [PLANS["pushes"](d) for d in (LONG, 1e-9)]
    filled, every = tl.align(plans, np.array([2.0, 4.0]))
    assert [len(plan) for plan in filled] == [2 * every] * 2
    assert simulated(filled[1], record_every=every).dataset.time.values.tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_would_not_learn_is_refused(name):
    with pytest.raises(ValueError, match=r"duration=1e-09: .* first time after [\d.]+ seconds.* longer time"):
        PLANS[name](1e-9)


COUNTED = [name for name in PLANS if PLANS[name](LONG).properties.traffic is not None]


@pytest.mark.parametrize(
    ("name", "duration"), [(name, d) for name in COUNTED for d in (LONG, 1e-9) if d == LONG or name not in SERVERS]
)
def test_planners_count_the_messages_that_the_loop_counts(name, duration):
    plan = PLANS[name](duration)
    counts = plan.properties.traffic
    fates = (counts.delivered, counts.dropped, counts.overflow, counts.superseded, counts.in_flight)
    assert min(fates) >= 0
    assert sum(fates) == counts.sent
    run = simulated(plan, **({"record_every": len(plan)} if len(plan) else {}))
    assert int(run.dataset.messages_sent[-1]) == counts.sent
