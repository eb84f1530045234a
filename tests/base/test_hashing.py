"""Hashes of arrays: equal for equal dtype, shape and values, on every machine; different otherwise."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from gossipjax._base.hashing import array_hash, named_arrays_hash

NUMBERS = np.arange(6, dtype="<f8").reshape(2, 3)


def test_a_hash_is_that_of_dtype_shape_and_bytes():
    assert array_hash(NUMBERS) == hashlib.sha256(b"<f8(2, 3)" + NUMBERS.tobytes()).hexdigest()
    named = {"x": NUMBERS, "nothing": None, "k": 3}
    written = b"x <f8(2, 3)" + NUMBERS.tobytes() + b"k <i8()" + (3).to_bytes(8, "little")
    assert named_arrays_hash(named) == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize(
    "same",
    [NUMBERS.astype(">f8"), np.asfortranarray(NUMBERS), np.repeat(NUMBERS, 2, axis=1)[:, ::2], jnp.asarray(NUMBERS)],
    ids=["big-endian", "by columns", "a view", "on the device"],
)
def test_layout_does_not_matter(same):
    assert array_hash(same) == array_hash(NUMBERS)


OTHERS = {
    "shape": NUMBERS.reshape(3, 2),
    "value": NUMBERS + np.eye(2, 3),
    "dtype": NUMBERS.astype(np.float32),
    "integers": NUMBERS.astype(np.int64),
    "empty": NUMBERS[:0],
    "none": np.zeros((0, 0)),
    "half": jnp.zeros((2, 3), jnp.float16),
    "brain": jnp.zeros((2, 3), jnp.bfloat16),
    "eighth": jnp.zeros((2, 6), jnp.float8_e4m3fn),
    "other eighth": jnp.zeros((2, 6), jnp.float8_e5m2),
}


def test_all_else_does():
    hashes = [array_hash(NUMBERS), *map(array_hash, OTHERS.values())]
    assert len(set(hashes)) == len(hashes)
