"""Outages: who is offline when, against a count by hand."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.devices import online, outages, transitions, uniform, with_availability


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_devices_are_offline_in_their_outages_only(data):
    n = data.draw(st.integers(1, 5))
    rows = []
    for node in range(n):
        edges = sorted(data.draw(st.sets(st.integers(0, 40), max_size=6)))
        rows += [(node, begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=False)]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    devices = with_availability(uniform(n), outages(n, columns[0], columns[1], columns[2]))
    for t in (0.0, 3.0, 7.5, 20.0, 41.0):
        expected = [not any(node == i and begin <= t < end for i, begin, end in rows) for node in range(n)]
        assert online(devices, t).tolist() == expected
    state = online(devices, 0.0)
    for time, node, joins in zip(*transitions(devices, 100.0), strict=True):
        assert state[node] != joins
        state[node] = joins
        assert online(devices, float(time))[node] == joins


def test_an_outage_without_end_lasts():
    devices = with_availability(uniform(2), outages(2, np.array([1]), np.array([3.0]), np.array([np.inf])))
    assert online(devices, 1e9).tolist() == [True, False]
    assert [column.tolist() for column in transitions(devices, 1e9)] == [[3.0], [1], [False]]


BAD = [
    ({"nodes": [2]}, r"nodes\[0\]=2"),
    ({"begin_s": [-1.0]}, r"begin_s\[0\]=-1"),
    ({"end_s": [1.0]}, r"begin_s\[0\]=1, end_s\[0\]=1: the outage of device 0 must end"),
    ({"end_s": [np.nan]}, r"end_s\[0\]=nan"),
    ({"nodes": [0, 0], "begin_s": [1.0, 2.0], "end_s": [3.0, 4.0]}, "outages of device .0. overlap"),
    ({"nodes": [0, 1]}, "2 nodes, 1 of begin_s, 1 of end_s"),
    ({"n": 0}, "n=0"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_outages_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        inspect.unwrap(outages)(**{"n": 2, "nodes": [0], "begin_s": [1.0], "end_s": [2.0], **change})
