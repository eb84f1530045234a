"""Conversion of the leaves of a state to arrays that files can hold, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossipjax._base.arguments import shown


def one_key(key: Any) -> Any:
    """Return a typed key.

    Raises:
        TypeError: if it is none, or several.
    """
    if not isinstance(key, jax.Array) or not is_key(key) or key.shape:
        raise TypeError(f"key={shown(key)}: must be one typed key, such as jax.random.key(0)")
    return key


def is_key(leaf: Any) -> bool:
    """Return whether an array holds typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def form_of(leaf: Any) -> jax.ShapeDtypeStruct | None:
    """Return shape and dtype of an array or number, traced or not; None for other values."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
        return None
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm":
        return None
    return jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf))


def near(leaf: Any) -> bool:
    """Whether NumPy can read an array where it lies: then a short look at it needs no program compiled."""
    if isinstance(leaf, jax.Array):
        return not isinstance(leaf, jax.core.Tracer) and leaf.is_fully_addressable and _is_on_cpu(leaf)
    return True


def _is_on_cpu(leaf: jax.Array) -> bool:
    return all(device.platform == "cpu" for device in leaf.devices())


def plain(leaf: Any) -> np.ndarray:
    """Copy a leaf to the host in a dtype that NumPy can write: keys as key data, narrow floats as bytes."""
    array = np.asarray(jax.device_get(jax.random.key_data(leaf) if is_key(leaf) else leaf))
    if array.dtype.isbuiltin == 1:
        return array
    return np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8)


def in_form(leaves: Sequence[Any], like: Any) -> Any:
    """Build a pytree from copies of leaves, or of results of :func:`plain`.

    Args:
        leaves: leaves in the pytree's order.
        like: pytree of arrays or shapes with the structure, dtypes and shardings of the result.
    """
    forms, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [_leaf(leaf, form) for leaf, form in zip(leaves, forms, strict=True)])


def _leaf(leaf: Any, form: Any) -> Any:
    if is_key(form):
        if is_key(leaf):
            return jax.random.wrap_key_data(jnp.copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.random.wrap_key_data(jnp.asarray(leaf), impl=form.dtype._impl)
    if isinstance(leaf, jax.Array) and leaf.dtype == form.dtype:
        return jnp.copy(leaf)
    leaf = np.asarray(leaf)
    leaf = leaf if leaf.dtype == form.dtype else np.ascontiguousarray(leaf).view(form.dtype)
    return jnp.copy(jax.device_put(leaf.reshape(form.shape), form.sharding))  # a copy: NumPy's memory may be shared
