"""Searches planned as a whole, and timers that need not wait: the same plans as with every ping and timer an event."""

from unittest import mock

import numpy as np
import pytest
from plexus_runs import same, uneven

from gossipjax import devices
from gossipjax.systems import Membership, Timers, plexus
from gossipjax.systems._plexus import find, simulation

SETTINGS = {"model_bytes": 340_000, "seed": 1, "sample_size": 7}


def runs_of(monkeypatch):
    """Note how each run of the kernel ends, and whether it planned whole searches."""
    ends = []

    def noting(sim, machines):
        run(sim, machines)
        ends.append((sim.whole_searches and sim.views is None, sim.kernel.stopped))

    run = simulation._run
    monkeypatch.setattr(simulation, "_run", noting)
    return ends


def event_by_event(*arguments, **settings):
    """The oracle: each ping, answer and timer is an event of the queue."""
    with (
        mock.patch.object(find, "_plan_whole", return_value=False),
        mock.patch.object(find, "_answered_before", return_value=False),
    ):
        return plexus(*arguments, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_rounds": 60, "membership": Membership(activity_window=None)},
        {"num_rounds": 60},
        {"num_rounds": 60, "success_fraction": 1.0, "bandwidth": "unlimited", "hashing": "md5"},
        {"duration_s": 400.0, "aggregators": "current", "bandwidth": "fair"},
        {"num_rounds": 40, "aggregators": "server"},
        {"num_rounds": 40, "aggregators": 3},
        {"num_rounds": 40, "timers": Timers(resend_s=0.15)},
    ],
    ids=lambda settings: "-".join(map(str, settings)),
)
def test_whole_searches_are_the_pings(monkeypatch, settings):
    machines = devices.fitted(60, seed=2)
    ends = runs_of(monkeypatch)
    plan = plexus(machines, **SETTINGS, **settings)
    assert ends == [(True, plan.history.outcome)]
    same(plan, event_by_event(machines, **SETTINGS, **settings))


def test_a_run_may_end_while_answers_are_on_their_way():
    """At any time of a search: what it counted early is taken back."""
    machines = devices.fitted(60, seed=2)
    whole = plexus(machines, num_rounds=3, **SETTINGS)
    begin = whole.round_end_s[1]  # the search for those who train next follows
    flying = set()
    for seconds in np.linspace(begin, begin + 0.4, 17).tolist():
        plan = plexus(machines, duration_s=seconds, **SETTINGS)
        same(plan, event_by_event(machines, duration_s=seconds, **SETTINGS))
        flying.add(tuple(plan.history.messages_in_flight[[find.PING, find.PONG]] > 0))
    assert flying >= {(True, False), (False, True)}


def test_ties_are_settled_event_by_event(monkeypatch):
    """Equal machines do everything at the same time; then only the numbers of events tell which comes first."""
    machines = devices.uniform(30)
    ends = runs_of(monkeypatch)
    plan = plexus(machines, num_rounds=20, **SETTINGS)
    assert ends == [(True, find.TIED), (False, "rounds")]
    same(plan, event_by_event(machines, num_rounds=20, **SETTINGS))


def restless(n=14, seconds=80.0, times=60):
    """Machines that leave or come back at random times; four always stay."""
    rng = np.random.default_rng(4)
    online, changes = np.ones(n, bool), []
    for at, node in zip(
        np.sort(rng.uniform(1, seconds, times)).tolist(), rng.integers(4, n, times).tolist(), strict=True
    ):
        online[node] ^= True
        changes.append((at, node, bool(online[node])))
    return uneven(n, seconds=np.linspace(0.01, 0.05, n), changes=changes)


@pytest.mark.parametrize(
    "settings",
    [
        {"membership": Membership(activity_window=20)},
        {"membership": Membership(departures="crash", activity_window=20)},
        {"membership": Membership(departures="crash", activity_window=None), "aggregators": 2},
        {"membership": Membership(departures="crash"), "timers": Timers(resend_s=0.2, ping_timeout_s=0.5)},
    ],
    ids=["window", "crash", "modest", "impatient"],
)
def test_a_timer_that_an_answer_forestalls_need_not_wait(settings):
    machines, given = restless(), SETTINGS | settings | {"sample_size": 5, "model_bytes": 10_000, "duration_s": 90.0}
    plan = plexus(machines, **given)
    assert plan.history.messages_lost[find.PING] > 0
    assert plan.history.messages_delivered[find.PONG] > 0
    same(plan, event_by_event(machines, **given))
