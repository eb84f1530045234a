"""Models in netCDF files: the containers of a pytree as JSON, and arrays of any dtype as variables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gossipjax._base.arguments import shown
from gossipjax._base.leaves import plain

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset


def containers(tree: Any, leaves: list[Any]) -> str:
    """Encode the dicts, lists and tuples of a pytree as JSON, and append its leaves to the list."""

    def kind(value: Any) -> Any:
        if isinstance(value, dict) and all(type(name) in (str, int) for name in value):
            return {"dict": [[name, kind(each)] for name, each in value.items()]}
        if type(value) in (list, tuple):
            return {type(value).__name__: [kind(each) for each in value]}
        if not hasattr(value, "dtype"):
            raise ValueError(
                f"models=True: the models hold {shown(value)}, a {type(value).__name__}; a file can hold dicts, lists "
                "and tuples of arrays: save without models, or convert the models to these"
            )
        leaves.append(plain(value))
        return {"leaf": len(leaves) - 1, "dtype": str(value.dtype)}

    return json.dumps(kind(tree))


def from_containers(kind: dict[str, Any], leaves: Sequence[np.ndarray]) -> Any:
    """Put arrays back into the containers that ``kind`` describes; the inverse of :func:`containers`."""
    match kind:
        case {"dict": inside}:
            return {name: from_containers(each, leaves) for name, each in inside}
        case {"list": inside}:
            return [from_containers(each, leaves) for each in inside]
        case {"tuple": inside}:
            return tuple(from_containers(each, leaves) for each in inside)
    array, dtype = leaves[kind["leaf"]], jax.numpy.dtype(kind["dtype"])
    if array.dtype != dtype:
        array = np.ascontiguousarray(array).view(dtype).reshape(array.shape[:-1])
    return array


def arrays_dataset(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Dataset:
    """Put arrays into a Dataset with separate axis names; dtypes that netCDF lacks are stored as bytes."""
    from xarray import Dataset

    def variable(name: str, array: Any) -> tuple[list[str], np.ndarray, dict[str, str]]:
        array = np.asarray(array)
        words = {} if array.dtype.kind in "iuf" and array.dtype != np.float16 else {"bytes_of": array.dtype.str}
        array = np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint8) if words else array
        return [f"{name}_{axis}" for axis in range(array.ndim)], array, words

    return Dataset({name: variable(name, array) for name, array in arrays.items()}, attrs=dict(about))


def arrays_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Undo :func:`arrays_dataset`."""
    arrays = {}
    for name, variable in dataset.data_vars.items():
        array = variable.values
        if "bytes_of" in variable.attrs:
            array = np.ascontiguousarray(array).view(np.dtype(variable.attrs["bytes_of"])).reshape(array.shape[:-1])
        arrays[str(name)] = array
    return arrays
