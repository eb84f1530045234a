"""UBAR: near models that are no worse on one's own data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gossipjax._base.arguments import instance, real
from gossipjax._base.calls import recorded
from gossipjax.robust._build import rule_of
from gossipjax.robust._lanes import Context, Rule, lanes_of, number_of
from gossipjax.types import Task


def _apply(
    task: Task,
    rho: Float[Array, ""],
    alpha: Float[Array, ""],
    own: Array,
    others: Array,
    weights: Array,
    context: Context | None,
) -> Array:
    assert context is not None  # a run always gives one
    lanes = lanes_of(own, others, weights)
    k = (number_of(lanes.present) - 1).astype(jnp.float32)
    count = jnp.maximum(jnp.floor(rho.astype(jnp.float32) * k + 1e-4).astype(jnp.int32), 1)
    # Which models are good has no derivative, and no reverse mode goes through a loop of unknown length.
    judge, models, model = jax.lax.stop_gradient((task, lanes.others, own))
    drawn, batch_key = jax.random.split(context.key)
    batch = judge.batch(batch_key, judge.data, context.node)

    def loss(model: Array) -> Array:
        return judge.loss(drawn, context.unravel(model), batch)

    most = loss(model)

    # One after another from the nearest, so that only near models are evaluated.
    def judged(place: Array, good: Array) -> Array:
        lane = lanes.order[place]
        return good.at[lane].set(lanes.finite[lane] & (loss(models[lane]) <= most))

    good = jax.lax.fori_loop(0, count, judged, jnp.zeros_like(lanes.finite))
    first = lanes.order[0]
    kept = good.at[first].set(good[first] | ~jnp.any(good))
    mean = jnp.sum(jnp.where(kept[:, None], lanes.others, 0), axis=0) / jnp.sum(kept).astype(own.dtype)
    share = alpha.astype(own.dtype)
    return jnp.where(lanes.finite[first], share * own + (1 - share) * mean, own)


@recorded("guo2022ubar")
def ubar(task: Task, *, rho: float = 0.4, alpha: float = 0.5) -> Rule:
    """Build UBAR: of the ⌊ρ k⌋ nearest models, average those whose loss on a batch of one's own is no larger than own.

    ``x ← α x + (1 − α) mean``; if none is as good, the nearest alone. The gradient step ``−γ ∇`` is the protocol's:
    use ``dpsgd(order="combine_then_adapt")``. The batch is drawn anew for the comparison.

    Args:
        task: whose data nodes compare on.
        rho: ρ in (0, 1], the share of neighbours believed honest.
        alpha: α in [0, 1], weight of the own model.

    Raises:
        TypeError: if task is not a task.
        ValueError: if a number is out of range.

    Reference: Guo et al. 2022, arXiv 2002.12569; the settings of the public code of arXiv 2202.01545.
    """
    instance("task", task, Task, "build one with gossipjax.tasks")
    share, weight = real("rho", rho, above=0, most=1), real("alpha", alpha, least=0, most=1)
    apply = Partial(_apply, task, jnp.asarray(share), jnp.asarray(weight))
    return rule_of(apply, 2, 0.0, "nothing", num_nodes=task.num_nodes)
