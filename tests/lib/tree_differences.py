"""How far the values of two trees of arrays are apart."""

import jax
import numpy as np


def _plain(leaf):
    return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def difference(one, other, floor=1e-3):
    """Return the largest difference in any leaf of numbers, relative to the largest number there or to ``floor``.

    Keys, flags and whole numbers, and where numbers are NaN or infinite, must be equal.
    """
    found = [0.0]
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        where = jax.tree_util.keystr(path)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), where
        a, b = _plain(a), _plain(b)
        if not np.issubdtype(a.dtype, np.inexact):
            np.testing.assert_array_equal(a, b, err_msg=where)
            continue
        finite = np.isfinite(a)
        np.testing.assert_array_equal(np.where(finite, 0, a), np.where(np.isfinite(b), 0, b), err_msg=where)
        a, b = a[finite].astype(float), b[finite].astype(float)
        found.append(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), floor))
    return float(max(found))
