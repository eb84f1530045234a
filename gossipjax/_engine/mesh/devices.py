"""The devices over which the nodes of a run are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from gossipjax._base.arguments import instance, sequence_of, shown, whole
from gossipjax._base.local import AXIS


def mesh(devices: int | Sequence[Any] | np.ndarray | None = None) -> Mesh:
    """Make a mesh of devices, over which :func:`gossipjax.simulate` spreads the nodes of a run.

    >>> import gossipjax as gj
    >>> gj.mesh(1).axis_names, gj.mesh(1).size
    (('nodes',), 1)

    Args:
        devices: of ``jax.devices()``; a number: as many of the first; None: all devices of all processes.

    Returns:
        A mesh with the one axis ``nodes``.

    Raises:
        ValueError: fewer devices than asked for, or one of them twice.
        TypeError: something else than devices.
    """
    there = jax.devices()
    if devices is None:
        chosen = there
    elif isinstance(devices, int | np.integer):
        remedy = f"JAX has {len(there)} device(s); on CPUs see gossipjax.configure(host_devices=...)"
        chosen = there[: whole("devices", devices, least=1, most=len(there), remedy=remedy)]
    else:
        given = devices.tolist() if isinstance(devices, np.ndarray) else devices
        chosen = list(sequence_of("devices", given, jax.Device, "some of jax.devices(), or how many of them"))
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"devices={shown(chosen)}: give at least one device, and each of them once")
    return Mesh(np.asarray(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def as_mesh(given: Any) -> Mesh:
    """Rebuild a mesh of one axis: ``jax.make_mesh`` makes axes of another kind, with which loops here do not compile.

    Raises:
        TypeError: no mesh.
        ValueError: a mesh of several axes.
    """
    given = instance("mesh", given, Mesh, "make one with gossipjax.mesh()")
    if given.devices.ndim != 1:
        raise ValueError(
            f"mesh of axes {dict(given.shape)}: nodes are spread over one axis; pass "
            "gossipjax.mesh(mesh.devices.ravel())"
        )
    return Mesh(given.devices, (AXIS,), axis_types=(AxisType.Auto,))
