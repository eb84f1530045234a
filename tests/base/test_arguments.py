"""The helpers that check arguments: what passes, in which form, and what an error says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossipjax._base import arguments as a

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [3, np.int32(3), np.uint8(3), np.asarray(3), jnp.asarray(3)], ids=repr)
def test_whole_numbers_of_any_kind_pass(value):
    number = a.whole("k", value, least=3, most=3)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [3.0, 2.5, NAN, INF, True, "3", None, [3], np.asarray([3]), 2, 5, 1 << 70], ids=repr)
def test_what_is_no_whole_number_in_bounds_is_refused(value):
    with pytest.raises(ValueError, match=r"^k=.*: must be a whole number in 3 … 4; take 3$"):
        a.whole("k", value, least=3, most=4, remedy="take 3")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.asarray(0.5), jnp.asarray(0.5), 1, np.int8(1)], ids=repr)
def test_real_numbers_of_any_kind_pass(value):
    assert a.real("x", value, above=0, most=1) == float(value)


@pytest.mark.parametrize("value", [0, -1.0, 1.5, NAN, INF, -INF, "0.5", None, [0.5], True, 1j, {}], ids=repr)
def test_what_is_no_real_number_in_bounds_is_refused(value):
    with pytest.raises(ValueError, match=r"^x=.*: must be a finite number of seconds, above 0 and at most 1$"):
        a.real("x", value, above=0, most=1, unit="seconds")


def test_infinity_passes_where_it_is_legal():
    assert a.real("x", INF, above=0, infinite=True) == INF
    with pytest.raises(ValueError, match="x=nan"):
        a.real("x", NAN, infinite=True)


def test_traced_numbers_pass():
    assert jax.jit(lambda x: a.real("x", x, above=0) * 2)(-1.0) == -2.0


def test_arrays_name_the_first_bad_entry():
    np.testing.assert_array_equal(a.reals("x", [1, 2.5], shape=(2,)), [1, 2.5])
    np.testing.assert_array_equal(a.wholes("x", np.asarray([[1], [2]], np.uint8), shape=(2, None)), [[1], [2]])
    with pytest.raises(ValueError, match=r"^x\[1, 0\]=-2: must be finite numbers, at least 0$"):
        a.reals("x", [[1.0], [-2.0]], least=0)
    with pytest.raises(ValueError, match=r"^x\[1\]=9: must be whole numbers in 0 … 3$"):
        a.wholes("x", [1, 9], least=0, most=3)
    with pytest.raises(ValueError, match=r"^x of shape \(2,\): must be finite numbers of shape \(3,\); one per node$"):
        a.reals("x", [1.0, 2.0], shape=(3,), remedy="one per node")


@pytest.mark.parametrize("value", [[1.5], "ab", None, [[1], [1, 2]], [True], {}, [1.0]], ids=repr)
def test_arrays_of_other_things_are_refused(value):
    with pytest.raises(ValueError, match=r"^x=.*must be whole numbers"):
        a.wholes("x", value)


def test_words_and_flags():
    assert a.choice("form", "dense", ("dense", "table")) == "dense"
    assert a.flag("lazy", np.bool_(True)) is True
    with pytest.raises(ValueError, match=r"^form='sparse': must be one of 'dense', 'table'$"):
        a.choice("form", "sparse", ("dense", "table"))
    for value in ("no", 1, None):
        with pytest.raises(ValueError, match="must be True or False"):
            a.flag("lazy", value)


def test_things_of_the_wrong_sort_raise_type_errors():
    assert a.instance("x", 3, int, "") == 3
    with pytest.raises(TypeError, match=r"^x='3': must be an int or float, not a str; write 3$"):
        a.instance("x", "3", (int, float), "write 3")
    with pytest.raises(TypeError, match=r"^f=3: must be a function f\(step\), not an int$"):
        a.callable_("f", 3, "f(step)")
    with pytest.raises(TypeError, match=r"^xs=3: must be a list of int, not an int"):
        a.sequence_of("xs", 3, int, "put it in a list")
    with pytest.raises(TypeError, match=r"^xs\[1\]='b'"):
        a.sequence_of("xs", [1, "b"], int, "")


def test_long_values_are_cut():
    assert a.shown(np.zeros(100)) == "ndarray of shape (100,)"
    assert len(a.shown("x" * 1000)) <= 60
