"""Checks, while a step is traced, of what the functions of a user's protocol and sharing return."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gossipjax._base.arguments import shown
from gossipjax.types import Event, Info, Params, Protocol, Sharing


class Bits(NamedTuple):
    """What the report of a step shows of the messages of every run, when the step is traced."""

    constant: int | None
    """Bits of every message, if constant; None: they vary, or are not reported."""
    reported: bool
    """Whether the step reports what it sends."""
    numbered: bool
    """Whether the step counts its messages itself; otherwise the event says how many there are."""

    @property
    def num_bytes(self) -> int | None:
        """Bytes of every message, if constant."""
        return None if self.constant is None else -(-self.constant // 8)


def bits_of(info: Info) -> Bits:
    """Read what a traced step reports about its messages."""
    constant = info.bits if isinstance(info.bits, int) else None
    return Bits(constant, info.bits is not None, info.messages is not None)


def step(protocol: Protocol, key: Key[Array, ""], state: Any, event: Event) -> tuple[Any, Info]:
    """Return ``protocol.step(key, state, event)``.

    Raises:
        TypeError: if it is not ``(state, Info)``, or a report of the wrong sort or shape.
    """
    output = protocol.step(key, state, event)
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Info):
        _check_report(output[1])
        return output
    if type(output) is tuple and len(output) == 2:
        what = f"{_sort(output[1])} in the place of Info"
    else:
        what = f"{_sort(output)} alone"
    raise TypeError(
        f"protocol.step returned {what}: it must return (state, info), with info=gossipjax.Info(bits=..., loss=...), "
        "or gossipjax.Info() where there is nothing to report"
    )


def _check_report(info: Info) -> None:
    """Check what a step reports, as far as it shows while it is traced."""
    bits, loss, finite = info.bits, info.loss, info.finite
    if bits is not None and not _is_size(bits):
        rule = "the size of one message, a whole number of at least 0, or an integer array of one per sender"
        raise TypeError(f"protocol.step returned Info(bits={shown(bits)}): must be {rule}")
    if loss is not None and not (_is_kind(loss, jnp.floating) and loss.ndim == 1):
        raise TypeError(f"protocol.step returned Info(loss={shown(loss)}): must be floats (k,), one per acting node")
    if finite is not None and not _is_kind(finite, jnp.bool_):
        raise TypeError(
            f"protocol.step returned Info(finite={shown(finite)}): must be bools, in all or per acting node"
        )
    if info.allreduce is not None and type(info.allreduce) is not tuple:
        raise TypeError(
            f"protocol.step returned Info(allreduce={shown(info.allreduce)}): must be () for the messages of a ring "
            "all-reduce, or None"
        )


def encode(
    sharing: Sharing, key: Key[Array, ""], state: Any, x_start: Params, x: Params, event: Event
) -> tuple[Any, tuple[Any, Any]]:
    """Return ``sharing.encode(key, state, x_start, x, event)``.

    Raises:
        TypeError: if it is not ``(state, (payload, bits))`` with bits an integer or an array of integers.
    """
    output = sharing.encode(key, state, x_start, x, event)
    rule = "sharing.encode must return (state, (payload, bits))"
    if type(output) is not tuple or len(output) != 2:
        raise TypeError(f"sharing.encode returned {_sort(output)}: {rule}; () is the state of a sharing without memory")
    said = output[1]
    if type(said) is not tuple or len(said) != 2 or not _is_size(said[1]):
        found = f"bits={shown(said[1])}" if type(said) is tuple and len(said) == 2 else f"{_sort(said)} and no bits"
        raise TypeError(
            f"sharing.encode returned {found}: {rule}, with bits the size of one message, a whole number or an array "
            "of one per speaker; a whole model has gossipjax.bits_per_row(x)"
        )
    return output


def _is_size(bits: Any) -> bool:
    if isinstance(bits, int):
        return not isinstance(bits, bool) and bits >= 0
    return _is_kind(bits, jnp.integer)


def _is_kind(value: Any, kind: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, kind)


def _sort(value: Any) -> str:
    if value is None:
        return "None"
    if type(value) is tuple:
        return f"a tuple of {len(value)}"
    return f"an array {value.dtype}{list(value.shape)}" if isinstance(value, jax.Array) else f"a {type(value).__name__}"
