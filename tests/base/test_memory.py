"""What is too large is refused before the work, and what is large is counted exactly."""

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from gossipjax import Info, Protocol, gossip_averaging, replicate, simulate, track_versions
from gossipjax._base import counter, memory
from gossipjax._engine import checks, loop
from gossipjax.mixing import metropolis
from gossipjax.observe import models
from gossipjax.timeline import poisson_pairs, rounds
from gossipjax.timeline._events import first_event
from gossipjax.topology import complete, ring

KEY = jax.random.key(0)
PLAN = rounds(metropolis(ring(8)), 10)
LARGE = 10**12


def _large(key):
    del key
    return jnp.zeros((8, LARGE))


@pytest.mark.parametrize(
    "call",
    [
        lambda: jax.eval_shape(lambda: replicate(jnp.zeros(LARGE), 8)),
        lambda: simulate(KEY, gossip_averaging(), PLAN, _large),
        lambda: simulate(jax.random.split(KEY, 10**6), gossip_averaging(), PLAN, jnp.zeros((8, 10**5))),
        lambda: simulate(
            KEY, gossip_averaging(), rounds(metropolis(ring(8)), 10**6), jnp.zeros((8, 10**5)), observers=[models()],
            record_every=1,
        ),
    ],
    ids=["replicate", "start", "seeds", "records"],
)  # fmt: skip
def test_more_than_there_is_is_refused_with_both_numbers(call):
    with pytest.raises(ValueError, match=r"would take about \S+ GiB of memory, and \S+ GiB are free; take fewer"):
        call()


def test_a_small_machine_is_respected_and_an_unknown_one_is_not(monkeypatch):
    """8 models of 3 float64 numbers, and two records of the same, before any program is compiled."""
    needed = 8 * 24 + 2 * 8 * 24
    x0 = jnp.ones((8, 3))
    monkeypatch.setattr(memory, "_ALWAYS_THERE", 0)

    def run(free):
        monkeypatch.setattr(memory, "free_bytes", lambda: free)
        simulate(KEY, gossip_averaging(), PLAN, x0, observers=[models()], record_every=10)

    run(1e6)
    with pytest.raises(ValueError, match=r"8 models of 24 bytes.* would take about .* of memory"):
        run(float(needed - 1))
    run(float("inf"))


def test_the_machine_tells_its_memory():
    assert 0 < memory.free_bytes() <= memory._physical()
    for left in (memory._meminfo(), memory._control_group()):
        assert left is None or 0 <= left < 2**60


@pytest.mark.parametrize("plan", [rounds(metropolis(complete(2)), 1), poisson_pairs(complete(2), 1, seed=0)])
@pytest.mark.parametrize("parameters", [2**26, 2**27, 2**31, 2**40])
@pytest.mark.parametrize("wrap", [lambda protocol: protocol, track_versions])
def test_large_messages_are_counted_exactly(plan, parameters, wrap):
    """The program is only traced, so that nothing large is made: it adds a constant of more than 32 bits."""
    protocol = wrap(gossip_averaging())
    x0 = jax.ShapeDtypeStruct((2, parameters), jnp.float32)
    state = jax.eval_shape(protocol.init, KEY, x0)
    checks.check_step(KEY, protocol, plan, x0)
    bits = []

    def step(state):
        event = first_event(KEY, plan)
        info = protocol.step(KEY, state, event)[1]
        sent = jnp.asarray([1, 1], jnp.uint32)
        bits.append(info.bits)
        return loop._add_total(counter.pack(counter.zero(), counter.zero()), info.bits, sent)

    program = jax.make_jaxpr(step)(state)
    assert bits == [32 * parameters]
    # What the traced state does not enter can be computed.
    total, _ = counter.unpack(
        loop._add_total(counter.pack(counter.zero(), counter.zero()), bits[0], jnp.ones(2, jnp.uint32))
    )
    assert int(counter.value(total)) == 2 * 32 * parameters
    assert program.out_avals[0].shape == (4,)
    jax.eval_shape(lambda state: loop.run(KEY, protocol, plan, state), state)


def test_messages_of_changing_size_that_are_too_large_to_count_are_refused():
    def step(key, x, event):
        del key, event
        return x, Info(bits=jnp.zeros(2, jnp.uint32))

    state = jax.ShapeDtypeStruct((2, 2**27), jnp.float32)
    plan = rounds(metropolis(complete(2)), 1)
    protocol = Protocol(Partial(lambda key, x: x), Partial(step), Partial(lambda x: x))
    with pytest.raises(ValueError, match=r"a model has 4,294,967,296 bits: sizes that change.*counted in 32 bits"):
        checks.check_step(KEY, protocol, plan, state)


@pytest.mark.slow
def test_a_real_run_of_large_models():
    if memory.free_bytes() < 6 * 2**30:
        pytest.skip("needs 6 GiB")
    x0 = jnp.ones((2, 2**26), jnp.float32)
    for plan in (rounds(metropolis(complete(2)), 1), poisson_pairs(complete(2), 1, seed=0)):
        assert simulate(KEY, gossip_averaging(), plan, x0)["bytes_sent"].values[-1] == 2 * 2**28
