"""Which samples a device of a mesh holds: cuts of one pool, padding, checks of what ``shards`` returns, bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from gossipjax._base.placement import by_rows, by_shards
from gossipjax._engine.mesh.data import OwnPart, Spreading
from gossipjax._engine.mesh.layout import choose_parts, layout
from gossipjax.types import Task

N = 5
OWNER = np.array([0, 1, 1, 1, 2, 3, 3, 3, 3, 4])
POOL = jnp.asarray(np.outer(np.arange(1.0, 11.0), np.ones(3)))


def task_of(batch, data):
    nothing = Partial(lambda *given: {})
    return Task(nothing, batch, nothing, nothing, data, {}, N)


def spreading(devices=3):
    where = layout(choose_parts("blocks", N, devices, None), devices)
    return Spreading(where, lambda spec, leaf: leaf)


def held(leaf, device, devices=3):
    assert isinstance(leaf, OwnPart)
    return np.split(np.asarray(leaf.array), devices)[device]


def of_owner(data, nodes):
    keep = np.isin(np.asarray(data["owner"]), nodes)
    return {name: np.asarray(leaf)[keep] for name, leaf in data.items()}


@by_shards(of_owner)
def own_mean(key, data, node):
    mine = data["owner"].astype(node.dtype) == node
    return jnp.sum(jnp.where(mine[:, None], data["x"], 0.0), axis=0) / jnp.sum(mine).astype(float)


@by_shards(of_owner)
def own_sum_of_products(key, data, node):
    return (data["owner"].astype(node.dtype) == node).astype(data["x"].dtype) @ data["x"]


@by_shards(of_owner)
def mean_of_all(key, data, node):
    return jnp.mean(data["x"])


@by_shards(of_owner)
def number_of_zeros(key, data, node):
    return jnp.sum(data["owner"] <= 0)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int8])
@pytest.mark.parametrize("batch", [own_mean, own_sum_of_products])
def test_rows_of_padding_belong_to_no_node(batch, kind):
    """What a node draws on its device is what it draws from all samples, however numbers of owners are stored."""
    data = {"x": POOL, "owner": jnp.asarray(OWNER, kind)}
    spread = spreading().spread(task_of(Partial(batch), data))
    for device, nodes in enumerate(spreading().nodes):
        part = {name: jnp.asarray(held(leaf, device)) for name, leaf in spread.data.items()}
        assert len(part["owner"]) == 5
        for node in nodes:
            np.testing.assert_array_equal(batch(None, part, np.int32(node)), batch(None, data, np.int32(node)))


@pytest.mark.parametrize("batch", [mean_of_all, number_of_zeros])
def test_a_batch_that_depends_on_padding_is_refused(batch):
    task = task_of(Partial(batch), {"x": POOL, "owner": jnp.asarray(OWNER)})
    with pytest.raises(ValueError, match=rf"batch of node 0, drawn by .*{batch.__name__}.*rows of padding"):
        spreading().spread(task)
    even = {"x": POOL, "owner": jnp.asarray(np.repeat(np.arange(N), 2))}
    spreading(devices=5).spread(task_of(Partial(batch), even))  # nothing to fill up


def by_place(place, data, nodes):
    kept = np.zeros_like(np.asarray(data))
    own = np.asarray(place)[nodes]
    kept[own] = np.asarray(data)[own]
    return kept


@by_shards(by_place)
def placed(place, key, data, node):
    return data[place[node]]


@by_shards(lambda place, data, nodes: by_place(place, data, nodes) + 1)
def placed_and_one(place, key, data, node):
    return data[place[node]]


@by_rows
def negative(key, data, node, *, batch):
    return -batch(key, data, node)


def test_tasks_on_one_pool_have_cuts_of_their_own():
    """They differ by what a batch binds, by the function that cuts, or by neither: then there is one cut."""
    place, back = jnp.arange(N), jnp.arange(N)[::-1]
    pool = POOL[:N]
    batches = {
        "forth": Partial(placed, place),
        "back": Partial(placed, back),
        "function": Partial(placed_and_one, place),
        "by keyword": Partial(negative, batch=Partial(placed, back)),
    }
    spread = spreading()
    cuts = {name: spread.spread(task_of(batch, pool)).data for name, batch in batches.items()}
    for device, nodes in enumerate(spread.nodes):
        for name, where in (("forth", place), ("back", back), ("by keyword", back)):
            np.testing.assert_array_equal(held(cuts[name], device), by_place(where, pool, nodes))
        np.testing.assert_array_equal(held(cuts["function"], device), by_place(place, pool, nodes) + 1)
    assert cuts["by keyword"] is cuts["back"]


def test_arrays_in_other_places_are_another_cut():
    """Two trees of the same arrays, with names exchanged."""
    spread, one, other = spreading(), jnp.asarray(OWNER), jnp.asarray(OWNER[::-1].copy())
    for owner, x in ((one, other), (other, one)):
        cut = spread.spread(task_of(Partial(_first), {"owner": owner, "x": x})).data
        assert cut["owner"] is owner


def _first(key, data, node):
    return data["x"][0]


RESULTS = {
    "a scalar": (lambda data, nodes: {"x": np.float32(3.0)}, TypeError, r"data\['x'\]=.*must be an array"),
    "an array without an axis": (lambda data, nodes: np.asarray(3.0), TypeError, "must be an array"),
    "numbers": (lambda data, nodes: [1.0, 2.0], TypeError, r"data\[0\]=1.0: must be an array"),
    "nothing": (lambda data, nodes: None, TypeError, "data=None: must be an array"),
    "objects": (lambda data, nodes: np.array([None, {}]), TypeError, "must be an array"),
    "other names": (lambda data, nodes: {str(nodes[0]): np.ones(2)}, ValueError, "must be the same for all"),
    "other types": (
        lambda data, nodes: np.ones(2, "if"[int(nodes[0] == 0)]),
        ValueError,
        "int32.*float32|float32.*int32",
    ),
    "other shapes": (lambda data, nodes: np.ones((2, nodes[0])), ValueError, "must be the same for all"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_of_shards_are_checked(name):
    shards, kind, words = RESULTS[name]

    @by_shards(shards)
    def batch(key, data, node):
        return jnp.zeros(())

    with pytest.raises(kind, match=words):
        spreading().spread(task_of(Partial(batch), {"x": POOL}))


def test_bytes_are_those_on_the_devices():
    """Double precision is halved where JAX has none; what all devices hold is counted once."""
    everywhere = np.ones(7)

    def shards(data, nodes):
        return {"x": np.ones((len(nodes), 3), np.int64), "all": data["all"]}

    @by_shards(shards)
    def batch(key, data, node):
        return data["all"]

    for x64, width in ((False, 4), (True, 8)):
        with jax.enable_x64(x64):
            spread = spreading(devices=2)
            for _ in range(2):
                cut = spread.spread(task_of(Partial(batch), {"x": POOL, "all": everywhere})).data
            assert cut["x"].array.dtype.itemsize == width
        assert spread.report == {"data": [9 * width, 6 * width], "data_padding": 3 * width, "data_copied": 7 * width}
