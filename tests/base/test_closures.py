"""Functions and optimizers that are built alike are equal, and say what they captured."""

import dataclasses
import inspect
import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compiled
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic

from gossipjax import dpsgd, simulate, tasks
from gossipjax._base.binding import Frozen, as_factory
from gossipjax._base.call_json import to_json
from gossipjax._base.calls import write_down
from gossipjax._base.closures import closure_key
from gossipjax.mixing import metropolis
from gossipjax.timeline import rounds
from gossipjax.topology import ring

RATE = 0.1
MASK = {"a": True}


def scaled(factor):
    return lambda x: factor * x


def counted(factor, *, by=1.0):
    def count(x, start=factor, *, step=by):
        return start + step * x

    return count


def looping(factor):
    def loop(x):
        return factor if x == 0 else loop(x - 1)

    return loop


def reads_a_global():
    return lambda x: RATE * x


def chosen(where):
    return optax.masked(optax.sgd(0.1), where)


ALIKE = {
    "sgd": lambda a: optax.sgd(a),
    "momentum": lambda a: optax.sgd(0.1, momentum=a, nesterov=True),
    "adam": lambda a: optax.adam(a),
    "adam's beta": lambda a: optax.adam(0.1, b1=a),
    "adamw": lambda a: optax.adamw(0.1, weight_decay=a),
    "adagrad": lambda a: optax.adagrad(0.1, initial_accumulator_value=a),
    "schedule": lambda a: optax.sgd(optax.cosine_decay_schedule(a, 100)),
    "joined schedules": lambda a: optax.adam(optax.warmup_cosine_decay_schedule(0.0, a, 5, 50)),
    "chain": lambda a: optax.chain(optax.clip_by_global_norm(a), optax.sgd(0.1)),
    "masked": lambda a: optax.masked(optax.sgd(a), {"weights": True, "bias": False}),
    "of its own arguments": lambda a: optax.inject_hyperparams(optax.sgd)(learning_rate=a),
    "closure": scaled,
    "default": counted,
    "keyword": lambda a: counted(1.0, by=a),
    "itself": looping,
    "array": lambda a: scaled(np.full(3, a)),
    "array on the device": lambda a: scaled(jnp.full(3, a)),
    "key": lambda a: scaled(jax.random.key(int(8 * a))),
    "functools": lambda a: partial(optax.sgd, a),
    "partial": lambda a: Partial(optax.sgd, a),
    "tuple": lambda a: (1, scaled(a)),
}


@pytest.mark.parametrize("name", ALIKE)
def test_equal_numbers_make_equal_functions(name):
    make = ALIKE[name]
    one, again, other = (Frozen(make(a)) for a in (0.125, 0.125, 0.25))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        (0.0, -0.0),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2), np.zeros((2, 1))),
        (scaled(1), scaled(1.0)),
        (optax.sgd(0.1), optax.adam(0.1)),
        (scaled([1.0]), scaled([1.0])),
        (scaled(MASK), scaled(dict(MASK))),
        (chosen(scaled(MASK)), chosen(scaled(dict(MASK)))),
        (scaled(object()), scaled(object())),
        (lambda x: x + 1.0, lambda x: x + 2.0),
    ],
)
def test_other_values_are_other_functions(one, other):
    """Types count; what can change behind one's back, and what is unknown, equals itself only."""
    assert Frozen(one) != Frozen(other)
    assert Frozen(one) == Frozen(one)


def test_the_same_mutable_object_is_equal():
    shared = [1.0]
    assert Frozen(scaled(shared)) == Frozen(scaled(shared))
    assert Frozen(float("nan")) == Frozen(float("nan"))


def _classification(hidden=4, batch_size=2):
    data = tasks.digits()
    shards = tasks.iid(len(data.train.labels), 2, seed=0)
    return tasks.classification(data, shards, tasks.mlp(64, (hidden,), 10), batch_size=batch_size)


def test_tasks_that_are_built_alike_share_their_programs():
    """Their model is a flax module, whose graph holds lists."""
    task = _classification()
    assert jax.tree.structure(task) == jax.tree.structure(_classification())
    assert jax.tree.structure(task) != jax.tree.structure(_classification(hidden=5))
    assert jax.tree.structure(task) != jax.tree.structure(_classification(batch_size=3))


@dataclasses.dataclass(frozen=True, eq=False)
class _ByIdentity:
    values: list


@dataclasses.dataclass(frozen=True)
class _ByContents:
    values: list

    def __hash__(self):
        return hash(tuple(self.values))


def test_lists_are_compared_by_their_parts_only_inside_what_does_not_change():
    assert Frozen(_ByIdentity([1])) != Frozen(_ByIdentity([1]))
    assert Frozen(_ByContents([1])) == Frozen(_ByContents([1])) != Frozen(_ByContents([2]))


def test_globals_that_a_closure_reads_count(monkeypatch):
    before, again = closure_key(reads_a_global()), closure_key(reads_a_global())
    monkeypatch.setitem(globals(), "RATE", 0.2)
    assert before == again
    assert before != closure_key(reads_a_global())


def test_functions_with_a_name_are_themselves():
    assert closure_key(optax.sgd) == closure_key(optax.sgd) != closure_key(optax.adam)
    assert closure_key(operator.add) == closure_key(operator.add) != closure_key(operator.sub)


@pytest.mark.parametrize("name", ALIKE)
def test_records_tell_numbers_apart(name):
    one, again, other = (to_json(write_down(ALIKE[name](a)))[0] for a in (0.125, 0.125, 0.25))
    assert one == again != other


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (0.1, "must be an optax transformation"),
        (optax.sgd, "must be an optax transformation"),
        (None, "must be an optax transformation"),
        (Partial(optax.sgd), "cannot be called"),
        (Partial(jnp.cos, 0.1), "must make an optax transformation"),
    ],
)
def test_what_is_no_optimizer_is_refused(wrong, why):
    with pytest.raises(TypeError, match=f"optimizer=.*{why}.*optax.sgd"):
        inspect.unwrap(as_factory)(wrong)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: optax.sgd(0.1), lambda: optax.sgd(0.1)),
        (lambda: Partial(optax.sgd, 0.1), lambda: Partial(optax.sgd, 0.2)),
        (
            lambda: Partial(optax.sgd, optax.linear_schedule(0.1, 0.0, 9), momentum=0.5, nesterov=True),
            lambda: Partial(optax.sgd, optax.linear_schedule(0.1, 0.0, 9), momentum=0.9, nesterov=True),
        ),
    ],
    ids=["written again", "another number", "a schedule inside"],
)
def test_nothing_is_compiled_twice(first, second):
    task, plan = exact_quadratic(), rounds(metropolis(ring(N)), 4)
    done = []

    def run(optimizer):
        done.append(simulate(jax.random.key(0), dpsgd(task, optimizer), plan, jnp.asarray(X0)).x)

    run(first())
    with compiled() as names:
        run(second())
    assert names == []
    with compiled() as names:
        jax.jit(lambda x: x + done[0].size)(1.0)
    assert names  # the listener listens
    assert np.array_equal(*done) == (write_down(first()) == write_down(second()))
