"""Faults planted in the engine turn claims red: each names what a wrong number would have looked like."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gossipjax as gj
from gossipjax.mixing import _apply
from gossipjax.protocol import _ad_psgd, _local
from gossipjax.systems._hadfl import learning as hadfl_learning
from gossipjax.systems._hadfl import planner as hadfl_planner
from gossipjax.timeline import _drawn, _push_gossip, clocks
from gossipjax.wrappers import _counters
from theory.check import run_claim, select

RED = ("violated", "assumption not met")
TESTS = 200
"""Comparisons of a run of all claims, about."""


class Fault(NamedTuple):
    """A wrong line, where it stands, and the claims that it turns red."""

    module: object
    name: str
    wrong: Callable
    """Makes the wrong function from the right one."""
    claims: tuple[str, ...]


def off_by_one_neighbour(right):
    """Models of the neighbours' neighbours: sums of weights are right."""
    return lambda leaf, form: right(leaf, form._replace(W=jnp.roll(form.W, 1, axis=1)))


def in_float32(right):
    def mixed(leaf, form):
        return right(leaf.astype(jnp.float32).astype(leaf.dtype), form)

    return mixed


def one_way_only(right):
    def mixed(form, leaf):
        keep = form.keep.at[0].set(1.0) if len(form.keep) > 1 else form.keep
        weights = form.weights.at[0].set(0.0) if len(form.keep) > 1 else form.weights
        return right(form._replace(keep=keep, weights=weights), leaf)

    return mixed


def towards_low_numbers(right):
    """The smaller of two draws, about: low numbers are met more often."""
    return lambda words, below: jnp.minimum(right(words, below), right(words * np.uint32(2654435761), below))


def never_refreshed(right):
    """A snapshot that is kept at the first."""
    del right
    return lambda tree, at, values: tree


def one_key_for_all_nodes(right):
    def keys(key, event, num_nodes):
        found = right(key, event, num_nodes)
        return jnp.broadcast_to(found[:1], found.shape)

    return keys


def one_key_for_all_events(right):
    def keys(key, event, num_nodes):
        return right(key, event._replace(index=jnp.zeros_like(event.index)), num_nodes)

    return keys


def copied_over(right):
    """What the receiver knew better is lost."""

    def newer(own, other, farther=1):
        taken = right(own, other, farther)
        arrived = other.held >= 0
        return taken._replace(held=jnp.where(arrived, other.held, own.held))

    return newer


def without_the_fixed_part(right):

    def scheduled(clock, *rest, **named):
        return right(dataclasses.replace(clock, shift=0.0), *rest, **named)

    return scheduled


def at_once(right):
    def flown(*arguments, latency=None, **rest):
        return right(*arguments, latency=0.0 if latency is not None else None, **rest)

    return flown


def lost_but_counted(right):
    """The dropped are reported as delivered."""

    def counted(found):
        facts = right(found)
        return facts.__class__(facts.sent, facts.delivered + facts.dropped, 0, facts.overflow, 0, facts.in_flight)

    return counted


def any_node(right):
    """Partners from all nodes, neighbours or not."""

    def drawn_peers(peers, rng, nodes):
        return right(peers if isinstance(peers, int) else peers.num_nodes, rng, nodes)

    return drawn_peers


def slow_in_proportion(right):
    """Powers are taken for seconds."""

    def from_powers(powers, **rest):
        return right(1.0 / np.asarray(powers), **rest)

    return from_powers


def without_latency(right):
    """Every message arrives as soon as it has left."""

    def delays(devices, coordinator_at):
        return [0.0 * row for row in right(devices, coordinator_at)]

    return delays


def patient(right):
    """Members wait for their neighbours four times as long as they are told to."""

    def settings(*arguments):
        found = right(*arguments)
        return found._replace(timeout_s=4 * found.timeout_s)

    return settings


def forgetful(right):
    """The last member of a ring is left out of its mean, which it takes all the same."""

    def ring(run, seconds, mean):
        members, living = run.members[mean]
        run.members[mean] = members[:-1], living
        return right(run, seconds, mean)

    return ring


FAULTS = {
    "weights off by one neighbour": Fault(_apply, "_mix_dense", off_by_one_neighbour, ("dpsgd_consensus_local_steps",)),
    "float32 accumulation": Fault(_apply, "_mix_dense", in_float32, ("dpsgd_mean_follows_gradient_descent",)),
    "an exchange that works one way": Fault(_apply, "_mix_few_pairs", one_way_only, ("pairwise_*",)),
    "biased partner choice": Fault(_drawn, "scaled", towards_low_numbers, ("staleness_mean_push",)),
    "stale snapshot used twice": Fault(_ad_psgd, "put", never_refreshed, ("stale_gradients_consensus",)),
    "gradient noise shared by nodes": Fault(
        _local, "node_keys", one_key_for_all_nodes, ("dpsgd_consensus_adapt_then_combine", "dpsgd_linear_speed_up")
    ),
    "key reuse: the same noise at every event": Fault(
        _local, "node_keys", one_key_for_all_events, ("dpsgd_consensus_adapt_then_combine",)
    ),
    "counters of the receiver copied over": Fault(_counters, "_newer", copied_over, ("staleness_mean_push",)),
    "a clock without its fixed part": Fault(clocks, "schedule", without_the_fixed_part, ("updates_in_window",)),
    "messages that arrive at once": Fault(_push_gossip, "fly", at_once, ("staleness_flight_time",)),
    "a dropped message counted as delivered": Fault(
        _push_gossip, "traffic", lost_but_counted, ("messages_conserved", "messages_counted")
    ),
    "seconds in proportion to power": Fault(gj.devices, "from_powers", slow_in_proportion, ("hadfl_compute_bound",)),
    "a ring without its latency": Fault(hadfl_planner, "_delays", without_latency, ("hadfl_ring_seconds",)),
    "a timeout that is too long": Fault(hadfl_planner, "_settings", patient, ("hadfl_death_in_the_ring",)),
    "a mean that forgets a member": Fault(hadfl_learning, "_ring", forgetful, ("hadfl_ring_conserves_the_sum",)),
    "partners drawn uniformly from all nodes": Fault(
        _push_gossip, "uniform_peers", any_node, ("staleness_ring", "staleness_irregular_graph")
    ),
}


@pytest.fixture
def fresh_programs():
    """What was compiled before a fault was planted would hide it, and what is compiled with it must not stay."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_programs")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_its_claims_red(monkeypatch, fault):
    where, name, wrong, names = FAULTS[fault]
    monkeypatch.setattr(where, name, wrong(getattr(where, name)))
    for claim in select(names):
        result = run_claim(claim, quick=True, seed=3, tests=TESTS)
        if result.verdict in RED:
            return
    pytest.fail(f"{fault}: none of {names} noticed")


def test_claims_that_name_a_fault_are_the_ones_that_notice_it():
    """The suite says which fault each claim would catch; planted faults that it names are looked for there."""
    named = {fault for claim in select([]) for fault in claim.catches}
    assert len(FAULTS) >= 10
    assert {"biased partner choice", "float32 accumulation", "weights off by one neighbour"} <= named
    for fault, planted in FAULTS.items():
        if fault in named:
            assert any(fault in claim.catches for claim in select(planted.claims)), fault
