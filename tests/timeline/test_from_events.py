"""A plan of one's own is checked, and the first event that cannot be is named."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossipjax import Properties, gossip_averaging, simulate
from gossipjax.timeline import from_events
from gossipjax.types import NOBODY

unchecked = inspect.unwrap(from_events)
FACTS = Properties(4, 4, "mine", num_slots=2, num_fragments=3)


def pairs(**changes):
    """Three events of two transfers, 0 ↔ 1, then 2 ↔ 3, then a copy into the slots."""
    fields = {
        "time": [0.0, 1.5, 1.5],
        "nodes": [[0, 4], [2, 3], [NOBODY, 4]],
        "senders": [[0, 1], [2, 3], [0, 1]],
        "receivers": [[1, 0], [3, 2], [4, 5]],
        "weights": np.full((3, 2), 0.5),
        "keep": np.full((3, 2), 0.5),
        "messages": np.ones((3, 2), int),
        "sources": [[0, 1], [2, 3], [0, NOBODY]],
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def groups(**changes):
    fields = {
        "time": [0.0, 1.0],
        "nodes": [[0], [1]],
        "members": [[[0, 1]], [[2, NOBODY]]],
        "weights": [[[0.5, 0.5]], [[1.0, 0.0]]],
        "targets": [[[0, 1]], [[3, NOBODY]]],
        "parts": [[[-1, 2]], [[0, -1]]],
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def test_what_can_be_is_planned():
    plan = unchecked(pairs(), FACTS)
    assert plan.xs["nodes"].tolist() == [[0, NOBODY], [2, 3], [NOBODY, NOBODY]]
    assert (plan.xs["time"].dtype, plan.xs["index"][:, 0].tolist()) == (np.float64, [0, 1, 2])
    whole = unchecked(pairs(), dataclasses.replace(FACTS, num_fragments=None))
    x = simulate(jax.random.key(0), gossip_averaging(), whole, jnp.arange(4.0), progress=False).x
    np.testing.assert_array_equal(x, [0.5, 0.5, 2.5, 2.5])
    assert len(unchecked(groups(), FACTS)) == 2
    shared = {"weights": np.full(2, 0.5), "keep": np.full(2, 0.5)}
    assert unchecked(pairs(weights=None, keep=None), FACTS, shared=shared).shared.keys() == shared.keys()
    nothing = {name: np.asarray(value)[:0] for name, value in pairs().items()}
    assert len(unchecked(nothing, FACTS)) == 0


BAD = {
    "node −1": (pairs(nodes=[[0, 4], [2, -1], [4, 4]]), "event 1: nodes=-1"),
    "receiver 2³³ + 1": (pairs(receivers=[[1, 0], [3, 2], [4, 2**33 + 1]]), "event 2: receivers=8.58993e\\+09"),
    "sender −3": (pairs(senders=[[-3, 1], [2, 3], [0, 1]]), "event 0: senders=-3"),
    "messages −1": (pairs(messages=[[1, 1], [1, -1], [1, 1]]), "event 1: messages=-1"),
    "messages 2³²": (pairs(messages=[[1, 1], [1, 1], [2**32, 1]]), "event 2: messages=4.29497e\\+09"),
    "two equal receivers": (pairs(receivers=[[1, 0], [3, 3], [4, 5]]), "event 1: receivers=3 receives twice"),
    "one node twice": (pairs(nodes=[[0, 4], [2, 2], [4, 4]]), "event 1: nodes=2 acts twice"),
    "one row twice": (pairs(rows=[[0, 4], [5, 5], [4, 4]]), "event 1: rows=5 acts twice"),
    "nobody's row": (pairs(rows=[[0, 4], [2, 6], [4, 4]]), "event 1: rows=6 is not one of the 6 rows"),
    "times that go back": (pairs(time=[0.0, 2.0, 1.0]), "event 2: time=1 is earlier"),
    "a time that is not finite": (pairs(time=[0.0, np.nan, 1.0]), "event 1: time=nan"),
    "a time before 0": (pairs(time=[-1.0, 0.0, 1.0]), "event 0: time=-1"),
    "NaN weights": (pairs(weights=[[0.5, 0.5], [0.5, np.nan], [1, 1]]), "event 1: weights=nan"),
    "infinite keep": (pairs(keep=[[0.5, 0.5], [0.5, 0.5], [np.inf, 1]]), "event 2: keep=inf"),
    "a source out of range": (pairs(sources=[[0, 1], [2, 4], [0, 1]]), "event 1: sources=4 must be a node, 0 … 3"),
    "a source −1": (pairs(sources=[[0, 1], [2, 3], [-1, 1]]), "event 2: sources=-1"),
    "half a node": (pairs(nodes=[[0.0, 1.5]] * 3), "nodes=.*: must be an array of whole numbers"),
    "mask": (pairs(nodes=[[True, False]] * 3), "nodes=.*: is a mask, but must hold indices"),
    "mask of members": (groups(members=[[[True, False]]] * 3), "members=.*: is a mask, but must hold indices"),
    "mask of beginners": (pairs(begin=[[True, False]] * 3), "begin=.*: is a mask, but must hold indices"),
    "words": (pairs(senders=[["a", "b"]] * 3), "senders=.*: must be an array of whole numbers"),
    "ragged": (pairs(senders=[[0], [1, 2], [0, 1]]), "senders=.*: must be an array of whole numbers"),
    "a length of its own": (pairs(time=[0.0, 1.0]), "fields of lengths"),
    "a number": (pairs(time=0.0), "fields of lengths"),
    "another shape": (pairs(weights=np.full((3, 1), 0.5)), "weights of mine must have the shape of receivers"),
    "an axis less": (pairs(nodes=[0, 1, 2]), "nodes of mine has 1 axes"),
    "a field missing": (pairs(keep=None), "lack 'keep'"),
    "no time": (pairs(time=None), "lacks 'time'"),
    "no nodes": (pairs(nodes=None), "lacks 'nodes'"),
    "an unknown field": (pairs(colour=[1, 2, 3]), "no field 'colour'"),
    "numbers of events": (pairs(index=[3, 4, 5]), "no field 'index'"),
    "both forms": (groups(senders=[[0], [1]]), "have members and 'senders'"),
    "an absent member with weight": (groups(weights=[[[0.5, 0.5]], [[0.5, 0.5]]]), "event 1: members=.* weight 0"),
    "two results": (groups(targets=[[[0, 1]], [[3, 3]]]), "event 1: targets=3 takes two results"),
    "a fragment too many": (groups(parts=[[[-1, 3]], [[0, -1]]]), "event 0: parts=3 must be one of 3 fragments"),
    "a fragment −2": (groups(parts=[[[-1, 2]], [[-2, -1]]]), "event 1: parts=-2"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_with_its_event(name):
    fields, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        unchecked(fields, FACTS)


def test_things_of_another_sort():
    with pytest.raises(TypeError, match=r"xs=.*: must be a dict"):
        unchecked([1, 2], FACTS)
    with pytest.raises(TypeError, match="properties=8: must be a Properties"):
        unchecked(pairs(), 8)
    with pytest.raises(TypeError, match="shared=3: must be a dict"):
        unchecked(pairs(), FACTS, shared=3)
    with pytest.raises(ValueError, match="'keep' is in xs and in shared"):
        unchecked(pairs(), FACTS, shared={"keep": np.ones(2)})
    shared = {"senders": np.array([0]), "receivers": np.array([-1])}
    fields = {"time": [0.0], "nodes": [[0]], "weights": np.ones((1, 1)), "keep": np.ones((1, 1))}
    with pytest.raises(ValueError, match="event 0: receivers=-1"):
        unchecked(fields, FACTS, shared=shared)
