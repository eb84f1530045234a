"""Plans that cannot fit into memory are refused before the work, in words."""

import numpy as np
import pytest
from plexus_runs import network
from system_runs import LEARN

from gossipjax import devices, systems
from gossipjax.topology import one_peer_exponential, ring

MANY = 10**13
HUGE = 10**6
FEW = network(8)
COMING = devices.with_availability(devices.uniform(8), devices.charging(8, seed=0))

CALLS = {
    "rounds": (lambda: systems.synchronous(FEW, ring(8), MANY, **LEARN), "num_rounds=10000000000000"),
    "rounds on a cycle": (lambda: systems.synchronous(FEW, one_peer_exponential(8), MANY, **LEARN), "num_rounds=1000"),
    "barriers": (lambda: systems.synchronous(FEW, ring(8), 10**10, round_seconds=None, **LEARN), "num_rounds=1000"),
    "rounds with churn": (lambda: systems.synchronous(COMING, ring(8), MANY, **LEARN), "num_rounds=1000"),
    "recipients": (lambda: systems.epidemic(FEW, 3, MANY, seed=0, **LEARN), "num_rounds=1000.*, fanout=3"),
    "others of many": (lambda: systems.epidemic(network(HUGE), 3, 2, seed=0, **LEARN), "fanout=3: the recipients of"),
    "all-reduce": (lambda: systems.allreduce(FEW, MANY, **LEARN), "num_rounds=1000"),
    "gossip": (
        lambda: systems.gossip_learning(FEW, 1e15, period_s=1.0, seed=0, **LEARN),
        "duration_s=1e.15, period_s=1:",
    ),
    "gossip at once": (lambda: systems.gossip_learning(FEW, 1.0, period_s=1e-15, seed=0, **LEARN), "period_s=1e-15"),
    "AD-PSGD": (lambda: systems.ad_psgd(FEW, 8, 1e15, model_bytes=9, seed=0), "duration_s=1e.15"),
    "AD-PSGD of many": (lambda: systems.ad_psgd(network(HUGE), HUGE, 1.0, model_bytes=9, seed=0), "duration_s=1: "),
    "Plexus": (lambda: systems.plexus(FEW, num_rounds=MANY, model_bytes=9, seed=0, sample_size=3), "num_rounds=1e.13"),
    "Plexus for ever": (
        lambda: systems.plexus(FEW, duration_s=1e18, model_bytes=9, seed=0, sample_size=3),
        "duration_s=1e.18",
    ),
    "phones": (lambda: devices.fitted(10**14, seed=0), "n=100000000000000"),
    "sessions": (lambda: devices.charging(10**14, seed=0), "n=100000000000000"),
    "changes": (lambda: COMING.transitions(1e18), "until_s=1e.18"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_refused_at_once(name):
    call, words = CALLS[name]
    with pytest.raises(ValueError, match=rf"{words}.* GiB of memory, .* GiB"):
        call()


def test_long_plans_of_rounds_that_go_alike_fit():
    """A hundred thousand rounds cost a few numbers each."""
    plan = systems.synchronous(FEW, ring(8), 100_000, **LEARN)
    assert len(plan.activities) == 1
    assert np.isclose(plan.end_s, 6e6)
