"""The tests' own check of annotations finds what does not fit, in arguments and in results."""

from __future__ import annotations

import typing

import annotations
import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

if typing.TYPE_CHECKING:
    import xarray as xr

as_the_hook_does = jaxtyping.jaxtyped(typechecker=beartype)


@as_the_hook_does
def longer(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, by: int = 0) -> Float[np.ndarray, " n"]:
    return np.append(x + y, np.zeros(by)) if by else x[: len(y)] + y[: len(x)]


@as_the_hook_does
def ones(n: int, extra: int) -> Float[np.ndarray, "{n} 1"]:
    return np.ones((n + extra, 1))


@as_the_hook_does
def second(x: xr.Dataset, y: int) -> int:
    return y


@pytest.mark.parametrize(
    ("x", "y", "by"),
    [
        pytest.param(np.zeros(2), np.zeros(3), 0, id="two sizes for one axis"),
        pytest.param(np.zeros(2), np.zeros(2), 1, id="a result of another size"),
        pytest.param(np.zeros(2), np.zeros(2), 0.0, id="another type"),
        pytest.param(np.zeros(2), np.zeros(2, np.int64), 0, id="another dtype"),
    ],
)
def test_what_does_not_fit_is_an_error(x, y, by):
    assert jaxtyping.jaxtyped is annotations._in_one_pass
    assert longer(np.zeros(2), y=np.zeros(2)).shape == (2,)
    assert longer(np.zeros(3), np.zeros(3)).shape == (3,)
    with pytest.raises(jaxtyping.TypeCheckError):
        longer(x, y, by=by)


def test_sizes_are_read_off_arguments():
    assert ones(3, 0).shape == (3, 1)
    with pytest.raises(jaxtyping.TypeCheckError):
        ones(3, 1)


def test_names_that_only_a_type_checker_imports_allow_everything():
    assert second("anything", 2) == 2
    with pytest.raises(jaxtyping.TypeCheckError):
        second("anything", "two")
