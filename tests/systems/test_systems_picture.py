"""Pictures of plans: their bars are what the plan says."""

import inspect

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from plexus_runs import network, run, uneven

from gossipjax.systems import activity, gossip_learning, picture, synchronous
from gossipjax.systems._picture import _OFFLINE, _SENT, _TRAINED
from gossipjax.topology import ring


def spans(figure, colour):
    """Begin and end of all bars of a colour, by their row."""
    boxes = [bar.get_bbox() for bar in figure.axes[0].patches if bar.get_facecolor() == to_rgba(colour)]
    return sorted((round((box.y0 + box.y1) / 2), box.x0, box.x1) for box in boxes)


def test_bars_are_the_plan():
    """Rows in the order asked for; only what touches the window."""
    changes = [(30.0, 2, False), (70.0, 2, True)]
    devices = uneven(6, changes=changes)
    plan = synchronous(devices, ring(6), 5, local_steps=3, model_bytes=10_000, round_seconds=20.0)
    nodes, first, last = [4, 2], 25.0, 90.0
    figure = picture(plan, nodes=nodes, first_s=first, last_s=last, devices=devices)
    found = activity(plan, first, last)
    for colour, owner, begin, end in (
        (_TRAINED, found.training_node, found.training_start_s, found.training_end_s),
        (_SENT, found.sender, found.asked_s, found.ended_s),
    ):
        expected = sorted(
            (nodes.index(i), s, e) for i, s, e in zip(owner.tolist(), begin, end, strict=True) if i in nodes
        )
        drawn = spans(figure, colour)
        np.testing.assert_allclose(drawn, expected, rtol=1e-12)  # an end is drawn as begin + length
    assert {row for row, *_ in spans(figure, _TRAINED)} == {0, 1}
    np.testing.assert_allclose(spans(figure, _OFFLINE), [(1, 30.0, 70.0)])
    ticks = figure.axes[0].collections[0].get_offsets()
    assert len(ticks) == np.isin(found.mean_node, nodes).sum() > 0
    FigureCanvasAgg(figure).draw()


def test_a_bar_below_a_pixel_is_still_seen():
    plan = synchronous(network(4), ring(4), 2, local_steps=3, model_bytes=1000)
    for last, edge in ((plan.end_s, "white"), (1e6 * plan.end_s, _TRAINED)):
        bars = picture(plan, nodes=[0], first_s=0, last_s=last).axes[0].patches
        edges = {bar.get_edgecolor() for bar in bars if bar.get_facecolor() == to_rgba(_TRAINED)}
        assert edges == {to_rgba(edge)}


def test_any_plan_can_be_drawn():
    gossip = gossip_learning(network(4), 20.0, period_s=2.0, model_bytes=9, local_steps=1, seed=0)
    for plan in (run(uneven(12), num_rounds=4), gossip):
        figure = picture(plan, nodes=np.arange(4), first_s=0, last_s=10)
        assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list("0123")


BAD = [
    ({"nodes": []}, "1 to 60"),
    ({"nodes": [0, 9]}, r"nodes\[1\]=9: .* 0 … 3"),
    ({"nodes": [0, -1]}, r"nodes\[1\]=-1"),
    ({"nodes": [1.0]}, "nodes="),
    ({"nodes": [[1]]}, "nodes of shape"),
    ({"nodes": 2}, "nodes of shape"),
    ({"nodes": None}, "nodes=None"),
    ({"nodes": [1, 1]}, "different"),
    ({"last_s": 0.0}, "window"),
    ({"last_s": np.inf}, "last_s=inf"),
    ({"last_s": None}, "last_s=None"),
    ({"first_s": -1.0}, "first_s=-1"),
    ({"first_s": np.nan}, "first_s=nan"),
    ({"first_s": "0"}, "first_s='0'"),
    ({"first_s": 1e6, "last_s": 1e6 + 1}, r"first_s=1000000.0: nothing happens after the end of the plan at \d"),
    ({"devices": network(3)}, "3 devices"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_input(change, words):
    plan = synchronous(network(4), ring(4), 2, local_steps=1, model_bytes=100)
    good = {"nodes": [0], "first_s": 0.0, "last_s": 9.0} | change
    with pytest.raises(ValueError, match=words):
        inspect.unwrap(picture)(plan, **good)


@pytest.mark.parametrize("given", [None, 3, "plan", ring(4)])
def test_things_of_the_wrong_sort(given):
    plan = synchronous(network(4), ring(4), 2, local_steps=1, model_bytes=100)
    with pytest.raises(TypeError, match="plan="):
        inspect.unwrap(picture)(given, nodes=[0], first_s=0, last_s=1)
    if given is not None:
        with pytest.raises(TypeError, match="devices="):
            inspect.unwrap(picture)(plan, nodes=[0], first_s=0, last_s=1, devices=given)
