"""An attack on one node must reach it in some event of the plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax import robust as R
from gossipjax.sharing._aims import check_aims
from gossipjax.timeline import clocks

T, tl, KEY = gj.topology, gj.timeline, jax.random.key(0)
RING, PATH = (gj.mixing.metropolis(graph) for graph in (T.ring(8), T.path(8)))
NOBODY = gj.types.NOBODY


def protocol(attackers, attack, rule=R.clipped_gossip(0.5)):  # noqa: B008, a rule is a constant
    return gj.gossip_averaging(gj.sharing.robust(rule, attackers, attack))


def transfers(pairs, slots=0):
    """Messages between 8 nodes, one after another; row 8 holds one that is on its way."""
    events = {"time": np.arange(len(pairs)) + 1.0, "nodes": np.full((len(pairs), 1), NOBODY)}
    events |= {"senders": np.asarray(pairs)[:, :1], "receivers": np.asarray(pairs)[:, 1:]}
    away = events["receivers"] >= 8
    events |= {"weights": np.where(away, 1.0, 0.5), "keep": np.where(away, 0.0, 0.5)}
    return tl.from_events(events, gj.Properties(8, 8, "messages", {"own_rows"}, num_slots=slots))


PLANS = {
    "dense": (tl.rounds(RING, 3), 3),
    "table": (tl.rounds(RING, 3, form="table"), 5),
    "cycle": (tl.rounds([RING, PATH], 4), 5),
    "last of many": (transfers([(0, 1)] * 70 + [(5, 4)]), 5),
    "flights": (transfers([(0, 8), (8, 1), (5, 8), (8, 4), (0, 8)], slots=1), 5),
    "inboxes": (tl.swift(T.ring(8), 9.0, compute=clocks.poisson(1.0), seed=0), 3),
    "packed": (gj.pack(transfers([(0, 1), (2, 3), (5, 4), (6, 7)])), 5),
    "changing": (tl.changing_rounds(T.ring(8), 4, loss=tl.losses.independent(0.5, seed=1)), 3),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_victim_that_hears_no_attacker_is_refused(name):
    plan, near = PLANS[name]
    with pytest.raises(ValueError, match=r"its victim, node 4, hears none of the attackers \[0\] in .*: make a node"):
        check_aims(protocol([0], R.targeted_echo(4)), plan)
    with pytest.raises(ValueError, match=r"attackers \[0, 1\]"):
        check_aims(protocol([1, 0], R.strongest(R.targeted_echo(4))), plan)
    for attackers, attack in (([near], R.targeted_echo(4)), ([0, near], R.targeted_echo(4)), ([0], R.targeted_echo())):
        check_aims(protocol(attackers, attack), plan)
    check_aims(protocol([0], R.echo()), plan)
    check_aims(gj.gossip_averaging(), plan)


def test_a_message_on_its_way_is_that_of_its_last_author():
    plan = transfers([(5, 8), (8, 1), (0, 8), (8, 4)], slots=1)
    check_aims(protocol([0], R.targeted_echo(4)), plan)
    with pytest.raises(ValueError, match="node 4, hears none"):
        check_aims(protocol([5], R.targeted_echo(4)), plan)


def test_an_edge_of_one_round_suffices():
    plan = tl.rounds([PATH, RING], 2)
    check_aims(protocol([7], R.targeted_echo(0)), plan)
    with pytest.raises(ValueError, match="node 0, hears none"):
        check_aims(protocol([7], R.targeted_echo(0)), plan[:1])


def test_plans_that_are_drawn_in_the_run_are_not_read():
    for plan in (tl.drawn_pairs(T.ring(8), 9), tl.drawn_matchings(8, 3)):
        check_aims(protocol([0], R.targeted_echo(4)), plan)
    check_aims(protocol([0], R.targeted_echo(4)), tl.rounds(RING, 3)[:0])


def test_simulate_refuses_before_the_run():
    x0, watch = jnp.zeros((8, 2)), [gj.observe.consensus_distance()]
    aimed = gj.track_versions(gj.metered(protocol([0], R.targeted_echo(4))))
    with pytest.raises(ValueError, match="node 4, hears none of the attackers"):
        gj.simulate(KEY, aimed, tl.rounds(RING, 3), x0, observers=watch)
    assert gj.simulate(KEY, protocol([3], R.targeted_echo(4)), tl.rounds(RING, 3), x0).x.shape == (8, 2)
