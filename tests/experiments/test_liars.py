"""Grids of rules and liars refuse what they cannot run or tabulate before any run."""

import numpy as np
import pytest

from experiments import byzantine_learning
from experiments.lib.liars import chosen_attack, chosen_rule
from gossipjax import robust


def test_numbers_of_liars_beyond_the_theorem_are_refused_before_the_runs():
    config = byzantine_learning.QUICK._replace(worlds_liars=(30, 40))
    with pytest.raises(ValueError, match="worlds_liars"):
        byzantine_learning.run(config)


def test_rules_of_one_program_are_for_one_network_and_meet_only_if_all_do():
    clipped, mean = robust.clipped_gossip(0.3), robust.gts(0.0)
    assert clipped.pairs.value
    assert not mean.pairs.value
    assert not chosen_rule({"clipped": clipped, "mean": mean}, "clipped").pairs.value
    sized = mean._replace(num_nodes=type(mean.num_nodes)(8))
    with pytest.raises(ValueError, match="different numbers of nodes"):
        chosen_rule({"mean": mean, "sized": sized}, "mean")


def test_a_chosen_attack_keeps_its_victim_and_remembers_if_any_does():
    known = {"aimed": robust.targeted_echo(2), "echo": robust.echo()}
    aimed, echo = (chosen_attack(known, name, np.array([1]), 8) for name in known)
    assert (aimed.remembers, aimed.victim) == (True, 2)
    assert (echo.remembers, echo.victim) == (True, None)
