"""Small learning problems that tests share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from gossipjax import Task
from gossipjax.tasks import finite_sum, quadratic

N, D = 8, 3
_rng = np.random.default_rng(0)
TARGETS, X0 = _rng.standard_normal((N, D)), _rng.standard_normal((N, D))
CURVATURE = _rng.uniform(0.5, 2.0, (N, D))


def _exact_batch(key, data, node):
    del key
    zero = jnp.zeros_like(data["targets"][0])
    return {"curvature": data["curvature"][node], "target": data["targets"][node], "noise": zero}


def exact_quadratic(targets=TARGETS, curvature=CURVATURE) -> Task:
    """Quadratics with exact gradients a (x − b). Keys are not used at all, which spares compiling their generator."""
    return dataclasses.replace(quadratic(targets, curvature=curvature), batch=Partial(_exact_batch))


def quadratic_prox(curvature, targets, node, z, step_size):
    """argmin_x of a (x − b)²/2 + (x − z)²/(2 s), of one node."""
    a = jnp.asarray(curvature)[node]
    return (z + step_size * a * jnp.asarray(targets)[node]) / (1 + step_size * a)


def _same_sample(batch, data, node, numbers):
    del numbers
    return batch(jax.random.key(0), data, node)


def identical_samples(task: Task, num_samples: int = 2):
    """A finite sum whose nodes have one batch, always the same, as each of their samples."""
    return finite_sum(task, sample=Partial(_same_sample, task.batch), num_samples=num_samples)
