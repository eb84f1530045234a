"""Models of two leaves of different shapes: the same numbers as one vector of three."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from problems import X0

from gossipjax import Task


def split(vectors):
    """Cut vectors ``(..., 3)`` into a matrix of two and one number."""
    vectors = jnp.asarray(vectors)
    return {"a": vectors[..., None, :2], "b": vectors[..., 2]}


def joined(models):
    """Lay the leaves of models behind one another."""
    if isinstance(models, dict):
        models = jnp.concatenate([models["a"][..., 0, :], models["b"][..., None]], axis=-1)
    return np.asarray(models)


def _vector(params):
    return jnp.concatenate([params["a"][0], params["b"][None]])


def _init(init, key):
    return split(init(key))


def _loss(loss, key, params, batch):
    return loss(key, _vector(params), batch)


def _metrics(metrics, params, data):
    return metrics(_vector(params), data)


def two_leaves(task: Task) -> Task:
    """The problem of a task of vectors of three, on models of two leaves."""
    return dataclasses.replace(
        task, init=Partial(_init, task.init), loss=Partial(_loss, task.loss), metrics=Partial(_metrics, task.metrics)
    )


START = jax.tree.map(np.asarray, split(X0))
