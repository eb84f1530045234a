"""An attack on one node must reach it in some event of the plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax import robust as R
from gossipjax.sharing import _aims
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


def unreached(plan, match):
    """An error where one graph proves it, else a warning, for the plan may be a piece of a longer one."""
    if "fixed" in plan.properties:
        return pytest.raises(ValueError, match=match)
    return pytest.warns(R.Unreached, match=match)


@pytest.mark.parametrize("name", PLANS)
def test_a_victim_that_hears_no_attacker_is_told_of(name):
    plan, near = PLANS[name]
    assert ("fixed" in plan.properties) == (name in ("dense", "table"))
    with unreached(plan, r"its victim, node 4, hears none of the attackers \[0\] in .*: make a node"):
        check_aims(protocol([0], R.targeted_echo(4)), plan)
    with unreached(plan, r"attackers \[0, 1\]"):
        check_aims(protocol([1, 0], R.strongest(R.targeted_echo(4))), plan)
    for attackers, attack in (([near], R.targeted_echo(4)), ([0, near], R.targeted_echo(4)), ([0], R.targeted_echo())):
        check_aims(protocol(attackers, attack), plan)
    check_aims(protocol([0], R.echo()), plan)
    check_aims(gj.gossip_averaging(), plan)


def test_a_message_on_its_way_is_that_of_its_last_author():
    plan = transfers([(5, 8), (8, 1), (0, 8), (8, 4)], slots=1)
    check_aims(protocol([0], R.targeted_echo(4)), plan)
    with pytest.warns(R.Unreached, match="node 4, hears none"):
        check_aims(protocol([5], R.targeted_echo(4)), plan)


def test_a_piece_of_a_plan_runs_and_goes_on_in_the_longer_one():
    plan, x0 = tl.rounds([PATH, RING], 4), jnp.arange(16.0).reshape(8, 2)
    aimed = protocol([7], R.targeted_echo(0))
    with pytest.warns(R.Unreached, match=r"node 0, hears none of the attackers \[7\] in .* a longer plan") as told:
        piece = gj.simulate(KEY, aimed, plan[:1], x0)
    assert len(told) == 1
    whole = gj.simulate(KEY, aimed, plan, x0)
    np.testing.assert_allclose(gj.simulate(KEY, aimed, plan, piece).x, whole.x, rtol=0, atol=1e-12)


def test_a_piece_may_begin_with_the_message_of_an_attacker_on_its_way():
    plan = transfers([(5, 8), (8, 4), (0, 1)], slots=1)
    check_aims(protocol([5], R.targeted_echo(4)), plan)
    with pytest.warns(R.Unreached, match="unless a message of theirs is on its way"):
        check_aims(protocol([5], R.targeted_echo(4)), plan[1:])


def test_many_events_are_read_at_once(monkeypatch):
    read, widths = _aims._read, []

    def counted(functions, shared, xs, *rest):
        widths.append(len(jax.tree.leaves(xs)[0]))
        return read(functions, shared, xs, *rest)

    monkeypatch.setattr(_aims, "_read", counted)
    check_aims(protocol([5], R.targeted_echo(4)), PLANS["last of many"][0])
    assert widths == [64, 7]


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
