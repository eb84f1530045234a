"""Checks that the functions of this room share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gossipjax._base.arguments import shown


def float_tree(name: str, tree: Any) -> Any:
    """Return a pytree of floating-point numbers and arrays.

    Raises:
        TypeError: if it is empty or holds anything else.
    """
    leaves = jax.tree.leaves(tree)
    if not any(jnp.size(leaf) for leaf in leaves) or not all(_is_float(leaf) for leaf in leaves):
        raise TypeError(f"{name}={shown(tree)}: must be a pytree of floating-point numbers, such as 0.5 or an array")
    return tree


def float_array(name: str, numbers: Any) -> Any:
    """Return an array of floating-point numbers of JAX.

    Raises:
        TypeError: if it holds anything else.
    """
    if not _is_float(numbers):
        raise TypeError(
            f"{name}={shown(numbers)}: must be an array of floating-point numbers; whole numbers have no slope"
        )
    return jnp.asarray(numbers)


def _is_float(leaf: Any) -> bool:
    try:
        return leaf is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    except TypeError:
        return False
