"""D-PSGD with a mixing strength: a local step, then a part of the way to the average of the neighbourhood.

    x_{t+1/2} = x_t − η ∇f(x_t; batch)
    x_{t+1}   = x_{t+1/2} + γ (W x_{t+1/2} − x_{t+1/2})

γ = 1 is D-PSGD (Lian et al. 2017).
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

import gossipjax as gj


def _init(key, x0):
    del key
    return x0


def _step(task, rate, gamma, key, x, event):
    loss, gradients = gj.node_gradients(key, task, x, event)
    half = jax.tree.map(lambda leaf, gradient: leaf - jnp.asarray(rate, leaf.dtype) * gradient, x, gradients)
    mixed = gj.mixing.mix(event.mixing, half)
    x = jax.tree.map(lambda old, new: old + jnp.asarray(gamma, old.dtype) * (new - old), half, mixed)
    return x, gj.Info(bits=gj.bits_per_row(x), loss=loss)


def _model(x):
    return x


def careful_dpsgd(task: gj.Task, rate: float, gamma: float) -> gj.Protocol:
    """Build the protocol; rate and gamma are arguments of the compiled program, not constants in it.

    Args:
        task: what nodes learn.
        rate: η.
        gamma: γ, from 0 (nobody listens) to 1 (D-PSGD).

    Raises:
        ValueError: if gamma is outside 0 … 1.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma={gamma}: must be from 0 to 1")
    needs = gj.Requires(
        {"synchronous", "row_stochastic", "own_rows"},
        mixing=True,
        num_nodes=task.num_nodes,
        local_steps=1,
        builder="timeline.rounds",
    )
    return gj.Protocol(Partial(_init), Partial(_step, task, rate, gamma), Partial(_model), needs)
