"""Strategies against vmap, their choice, and what must be set before JAX starts."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from gossipjax import placement
from gossipjax._base import configuration

STRATEGIES = ("vmap", "map", "shard", "auto")
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def run_python(program: str, *arguments: str) -> str:
    """Run a program in a process of its own, where JAX has not started."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def node(shift, key, x):
    y = jnp.tanh(x["a"] * shift) + jax.random.normal(key, x["a"].shape, jnp.float64)
    return {"y": y, "sum": jax.lax.scan(lambda total, term: (total + term, total), 0.0, y)[0] * x["b"]}


def stacked(k):
    a = jax.random.normal(jax.random.key(0), (k, 7), jnp.float64)
    return jax.random.split(jax.random.key(1), k), {"a": a, "b": jnp.arange(float(k))}


def assert_same(actual, expected):
    # The same float64 operations, fused differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), actual, expected)


@each_strategy
@pytest.mark.parametrize("k", [1, 5, 6])
def test_map_nodes_is_vmap(strategy, k):
    fn = Partial(node, jnp.linspace(0.5, 1.5, 7))
    with placement.using(strategy):
        assert_same(jax.jit(placement.map_nodes)(fn, *stacked(k)), jax.jit(jax.vmap(fn))(*stacked(k)))


def advance(shift, state, key, x):
    out = node(shift, key, x)
    return {"mean": (state["mean"] + out["y"]) / 2, "none": None}, out["sum"] + state["mean"][0]


@each_strategy
@pytest.mark.parametrize("k", [1, 5, 6])
def test_map_nodes_in_a_loop_is_vmap(strategy, k):
    """Also inside a loop over events, in which the state is overwritten."""
    fn, rest = Partial(advance, jnp.linspace(0.5, 1.5, 7)), stacked(k)
    state = {"mean": jax.random.normal(jax.random.key(2), (k, 7), jnp.float64), "none": None}

    def events(update):
        return jax.jit(lambda: jax.lax.scan(lambda state, _: update(fn, state, *rest), state, None, 3))()

    with placement.using(strategy):
        assert_same(events(placement.map_nodes), events(lambda fn, *rows: jax.vmap(fn)(*rows)))


def test_many_nodes_are_blocks_of_wide_operations(monkeypatch):
    rows = stacked(5)

    def fn(key, x):
        return jax.random.normal(key, (3,), jnp.float64)[0] * x["b"] * jnp.sin(x["a"])

    whole = jax.jit(jax.vmap(fn))(*rows)
    for block in (0, 2, 4, 5):
        monkeypatch.setattr(placement, "WIDE_BYTES", block * placement._bytes_per_node(rows, 5))
        with placement.using("vmap"):
            traced = jax.make_jaxpr(lambda *rows: placement.map_nodes(fn, *rows))(*rows)
            assert_same(jax.jit(lambda *rows: placement.map_nodes(fn, *rows))(*rows), whole)
        assert ("scan" in {equation.primitive.name for equation in traced.eqns}) == (block < 5)


def test_what_belongs_on_the_cpu_runs_there():
    with jax.default_device(jax.devices("cpu")[-1]), placement.on_cpu():
        assert jnp.zeros(1).devices() == {jax.devices("cpu")[0]}
    with mock.patch.object(jax, "local_devices", side_effect=RuntimeError("no CPU")), placement.on_cpu():
        assert jnp.zeros(1).shape == (1,)


@each_strategy
def test_map_nodes_works_outside_jit(strategy):
    with placement.using(strategy):
        assert_same(
            placement.map_nodes(Partial(jax.tree.map, jnp.sin), stacked(3)[1]), jax.tree.map(jnp.sin, stacked(3)[1])
        )


def loss(shift, keys, x):
    """Two scanned rounds of node work and a ring of gathers, on captured and on bound arrays."""

    def work(key, row, number):
        return node(shift, key, {"a": row, "b": number})["y"] * shift

    def step(a, number):
        a = placement.map_nodes(work, keys, a, jnp.full(len(a), number))
        return (a + jnp.roll(a, 1, axis=0)) / 2, None

    return jnp.sum(jax.lax.scan(step, x["a"], jnp.arange(2.0))[0] ** 2)


@each_strategy
def test_map_nodes_differentiates_inside_scan_and_under_vmap(strategy):
    keys, x = stacked(5)
    shift = jnp.linspace(0.5, 1.5, 7)
    shifts = jnp.stack([shift, 2 * shift])
    grad = jax.grad(loss, argnums=(0, 2))
    with placement.using("vmap"):
        lone, seeds = jax.jit(grad)(shift, keys, x), jax.jit(jax.vmap(grad, (0, None, None)))(shifts, keys, x)
    with placement.using(strategy):
        assert_same(jax.jit(grad)(shift, keys, x), lone)
        assert_same(jax.jit(jax.vmap(grad, (0, None, None)))(shifts, keys, x), seeds)


def neighbor_mean(x, own, neighbors):
    return jax.tree.map(
        lambda all_rows, mine: (mine + all_rows[neighbors[:, 0]] * all_rows[neighbors[:, 1]]) / 3, x, own
    )


@each_strategy
@pytest.mark.parametrize("k", [1, 5])
def test_map_blocks_is_a_call_on_all_rows(strategy, k):
    x = stacked(k)[1]
    neighbors = jnp.stack([jnp.roll(jnp.arange(k), 1), jnp.roll(jnp.arange(k), -1)], axis=1)

    def total(x):
        return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(placement.map_blocks(neighbor_mean, x, x, neighbors)))

    expected = neighbor_mean(x, x, neighbors)
    with placement.using("vmap"):
        slope = jax.jit(jax.grad(total))(x)
    with placement.using(strategy):
        assert_same(jax.jit(lambda x: placement.map_blocks(neighbor_mean, x, x, neighbors))(x), expected)
        assert_same(jax.jit(jax.grad(total))(x), slope)


def test_strategy_is_part_of_the_compiled_function():
    mapped = jax.jit(lambda x: placement.map_nodes(jnp.sin, x))
    x = jnp.ones((4, 3))
    for strategy in ("vmap", "map", "vmap"):
        with placement.using(strategy):
            mapped(x)
    assert mapped._cache_size() == 2


def test_using_nests_and_ends():
    before = placement.choose(4, 8)
    with placement.using("map"):
        with placement.using("vmap"):
            assert placement.choose(4, 8) == ("vmap", "asked for")
        assert placement.choose(4, 8).strategy == "map"
    assert placement.choose(4, 8) == before


def test_bad_arguments_name_the_value():
    with pytest.raises(ValueError, match="'pmap'"):
        placement.using("pmap")
    with pytest.raises(ValueError, match="leading axes"):
        placement.map_nodes(jnp.add, jnp.ones(3), jnp.ones(4))
    with pytest.raises(ValueError, match="leading axes"):
        placement.map_nodes(lambda: 1)
    with pytest.raises(ValueError, match="leading axes"):
        placement.map_nodes(jnp.add, jnp.ones(()), jnp.ones(()))


@pytest.mark.slow
def test_three_devices_agree_with_one_and_thresholds_hold():
    # Three devices, more than cores or fewer nodes than devices; and the thresholds of "auto".
    out = run_python("""
        import jax, jax.numpy as jnp, numpy as np
        from gossipjax import placement
        from gossipjax import configure
        configure(host_devices=3, intra_op_threads=1, x64=True)
        import sys
        sys.path[:0] = ['tests/base', 'tests/lib']
        import test_placement as t
        for k in (2, 5, 6):
            t.test_map_nodes_is_vmap("shard", k)
        t.test_map_blocks_is_a_call_on_all_rows("shard", 5)
        t.test_map_nodes_differentiates_inside_scan_and_under_vmap("shard")
        with placement.using("shard"):
            y = jax.jit(lambda x: placement.map_nodes(jnp.sin, x))(jnp.ones((6, 2)))
            assert len(y.sharding.device_set) == 3 and not y.sharding.is_fully_replicated
        big = 10 * placement.SMALL_ROW
        print(*(placement.choose(k, size).strategy for k, size in ((9, 8), (2, big), (9, big))))
    """)
    assert out.split() == ["vmap", "map", "shard"]


def test_one_device_loops_over_large_rows():
    out = run_python("""
        from gossipjax import placement
        from gossipjax import configure
        configure(host_devices=1)
        print(placement.choose(9, 10 * placement.SMALL_ROW).strategy, placement.choose(9, 8).strategy)
    """)
    assert out.split() == ["map", "vmap"]


def test_configure_sets_devices_threads_and_width():
    out = run_python("""
        import jax, jax.numpy as jnp
        from gossipjax import configure
        from gossipjax._base.configuration import usable_cores
        configure(host_devices=5)
        configure(x64=True)
        print(jax.local_device_count() == usable_cores(), jnp.ones(1).dtype)
        configure()
        configure(host_devices=usable_cores())
        for wrong in ({"host_devices": usable_cores() + 1}, {"intra_op_threads": usable_cores() + 1}):
            try:
                configure(**wrong)
            except RuntimeError as error:
                print("before the first JAX computation" in str(error))
    """)
    assert out.split() == ["True", "float64", "True", "True"]


def test_one_thread_is_one_thread():
    # A matmul large enough for a pool of threads: CPU time over wall time is at most one per thread. Half a core is
    # left for the interpreter's own threads.
    out = run_python("""
        import time
        from gossipjax import configure
        configure(host_devices=1, intra_op_threads=1)
        import jax, jax.numpy as jnp
        product = jax.jit(lambda a: a @ a)
        a = product(jnp.ones((1500, 1500))).block_until_ready()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(10):
            product(a).block_until_ready()
        print((time.process_time() - cpu) / (time.perf_counter() - wall))
    """)
    assert float(out) < 1.5


def test_configure_refuses_numbers_below_one():
    with pytest.raises(ValueError, match="host_devices=0"):
        configuration.configure(host_devices=0)
    with pytest.raises(ValueError, match="intra_op_threads=-1"):
        configuration.configure(intra_op_threads=-1)


def test_configure_refuses_what_is_no_setting(tmp_path):
    free = inspect.unwrap(configuration.configure)
    (tmp_path / "file").write_text("")
    for wrong in (3, 1.5, ["folder"], b"folder"):
        with pytest.raises(TypeError, match="cache="):
            free(cache=wrong)
    for settings in (
        {"cache": tmp_path / "missing" / "folder"},
        {"cache": tmp_path / "file"},
        {"x64": "yes"},
        {"x64": 1},
        {"host_devices": 1.5},
        {"host_devices": "two"},
        {"intra_op_threads": True},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}="):
            free(**settings)


def test_wrong_sorts_are_named():
    choose, over = inspect.unwrap(placement.choose), inspect.unwrap(placement.map_nodes)
    for wrong in (1.5, "a", -1, None):
        with pytest.raises(ValueError, match="k="):
            choose(wrong, 8)
        with pytest.raises(ValueError, match="bytes_per_node="):
            choose(8, wrong)
        with pytest.raises(ValueError, match="strategy="):
            inspect.unwrap(placement.using)(wrong)
    with pytest.raises(TypeError, match="fn=3"):
        over(3, jnp.ones(3))
    with pytest.raises(TypeError, match="'a'"):
        over(jnp.sin, "a")
