"""Rounds of cycles are those of targets and of loops; seconds of rounds beyond a plan take its pace."""

import numpy as np
import pytest

from experiments.lib import in_seconds
from gossipjax import design, devices, mixing, topology

LABELS = in_seconds.labels_of(8, 4, seed=0)
ERRORS = np.array([[0.1, 1e-3], [1.0, 0.05]])


def test_labels_are_dealt_evenly():
    assert LABELS.sum(0).tolist() == [2.0] * 4
    assert (LABELS.sum(1) == 1).all()
    assert not np.array_equal(LABELS, in_seconds.labels_of(8, 4, seed=1))


@pytest.mark.parametrize("graph", [topology.ring(8), topology.star(8), topology.complete(8)], ids=lambda g: g.name)
def test_rounds_of_a_fixed_graph_are_those_of_the_targets(graph):
    W = mixing.metropolis(graph)
    found = in_seconds.rounds_to(ERRORS, [W], LABELS, 0.1, 200)
    for column in range(2):
        share, error = ERRORS[:, column]
        consensus = design.consensus(share, horizon=200)
        quadratic = design.quadratic(LABELS, step=0.1, start=in_seconds.START, error=error, horizon=200)
        assert found[:, column].tolist() == [consensus.rounds(W.toarray()), quadratic.rounds(W.toarray())]


def test_an_exact_cycle_is_done_after_its_last_matrix():
    cycle = mixing.base_graph(6, 1)
    errors = np.array([[1e-20], [1e-9]])
    found = in_seconds.rounds_to(errors, cycle, LABELS[:6], 0.1, 30)
    assert found[0, 0] == len(cycle)
    assert found[1, 0] == np.inf


def test_seconds_beyond_a_plan():
    ends = np.array([3.0, 5.0, 7.0, 9.0])
    assert in_seconds.seconds_of(np.array([1, 4, 10, np.inf]), ends).tolist() == [3.0, 9.0, 21.0, np.inf]
    assert in_seconds.seconds_of(np.array(1), ends[:1]) == 3.0
    assert [in_seconds.planned_for(np.array([n, np.inf]), 12) for n in (1, 7, 40, np.inf)] == [4, 8, 12, 12]


def test_devices_of_a_kind():
    kinds = {
        kind: in_seconds.devices_of(kind, 5, 0) for kind in (in_seconds.PHONES, in_seconds.CENTRE, in_seconds.EDGE)
    }
    phones = devices.fitted(5, seed=0)
    np.testing.assert_array_equal(kinds[in_seconds.PHONES].seconds_per_sample, phones.seconds_per_sample)
    centre, edge = kinds[in_seconds.CENTRE], kinds[in_seconds.EDGE]
    assert np.ptp(centre.seconds_per_sample) < 0.3 * centre.seconds_per_sample.mean()
    np.testing.assert_array_equal(edge.download_bytes_per_second, 4 * edge.upload_bytes_per_second)
