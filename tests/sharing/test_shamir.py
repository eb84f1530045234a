"""Shares of secrets against Python's integers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.sharing import _shamir
from gossipjax.sharing._shamir import PRIME

EDGES = [0, 1, 2, 2**16 - 1, 2**16, 2**30, PRIME - 1]


def elements(*numbers):
    return jnp.asarray(np.array(numbers, np.uint32))


PAIRS = np.array(
    [(a, b) for a in EDGES for b in EDGES] + np.random.default_rng(0).integers(0, PRIME, (500, 2)).tolist()
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (_shamir.add, lambda a, b: (a + b) % PRIME),
        (_shamir.subtract, lambda a, b: (a - b) % PRIME),
        (_shamir.multiply, lambda a, b: a * b % PRIME),
    ],
    ids=["add", "subtract", "multiply"],
)
def test_arithmetic_is_that_of_the_field(found, expected):
    a, b = (jnp.asarray(column.astype(np.uint32)) for column in PAIRS.T)
    assert found(a, b).tolist() == [expected(int(one), int(other)) for one, other in PAIRS]


def test_inverses():
    numbers = elements(*EDGES[1:], 123456789)
    assert _shamir.multiply(numbers, _shamir.invert(numbers)).tolist() == [1] * len(numbers)


def holders(*places):
    return jnp.asarray(np.isin(np.arange(5), places)[None])


def test_published_vector():
    held = _shamir.shares(elements(123456789), jnp.asarray([[987654321, 555555555]], jnp.uint32), 5)
    assert held.tolist() == [[1666666665, 26020357, 1643968806, 78061071, 1770748093]]
    for chosen in ((0, 1, 2), (1, 3, 4), (0, 2, 4), (0, 1, 2, 3, 4)):
        assert _shamir.reconstruct(_shamir.weights_at_zero(holders(*chosen)), held).tolist() == [123456789]
    assert _shamir.reconstruct(_shamir.weights_at_zero(holders(0, 2)), held).tolist() == [604273771]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, PRIME - 1), min_size=3, max_size=3), st.integers(0, PRIME - 1), st.permutations(range(5))
)
def test_fewer_shares_fit_every_secret(polynomial, other, order):
    """Of t = 3, two shares leave every secret possible: another polynomial has the same two, and only those two."""
    secret, *coefficients = polynomial
    first, second, third = (place + 1 for place in order[:3])
    held = _shamir.shares(elements(secret), jnp.asarray([coefficients], jnp.uint32), 5)[0].tolist()
    assert held == [sum(a * point**power for power, a in enumerate(polynomial)) % PRIME for point in range(1, 6)]
    # Add a multiple of (z − z1)(z − z2), which is 0 at the two shares.
    factor = (other - secret) * pow(first * second, -1, PRIME) % PRIME
    moved = [other, (coefficients[0] - factor * (first + second)) % PRIME, (coefficients[1] + factor) % PRIME]
    again = _shamir.shares(elements(moved[0]), jnp.asarray([moved[1:]], jnp.uint32), 5)[0].tolist()
    assert [again[first - 1], again[second - 1]] == [held[first - 1], held[second - 1]]
    assert (again[third - 1] == held[third - 1]) == (other == secret)
