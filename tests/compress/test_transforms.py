"""Wavelets against PyWavelets and its matrices, Fourier against cosines and sines."""

import contextlib
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipjax.compress import transforms
from gossipjax.compress.transforms import fourier, identity, wavelet

SETTINGS = settings(max_examples=150, deadline=None)
MODES = ["symmetric", "periodization"]
WAVELETS = ["haar", "db2", "sym2", "sym4", "db4", "bior2.2", "coif1"]
# Every length up to 120, then primes, powers of two and their neighbours, and the sizes of models.
LENGTHS = [*range(1, 121), 127, 128, 129, 211, 255, 256, 257, 499, 512, 997, 1000, 2047, 2048, 2049, 4099, 30242]
# Sums of at most 20 products of numbers near 1 at each of 5 levels, in another order.
CLOSE = {np.float64: {"rtol": 0, "atol": 1e-10}, np.float32: {"rtol": 0, "atol": 1e-5}}


@contextlib.contextmanager
def in_numpy():
    """Run the transforms' own lines on NumPy: JAX would compile anew for each of hundreds of lengths."""
    with (
        mock.patch.multiple(transforms, jnp=np, _materialize=lambda x: x),
        mock.patch.object(jaxtyping.config, "jaxtyping_disable", True),
    ):
        yield


def decomposed(x, name, levels, mode):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Level value")
        return pywt.wavedec(x, name, mode=mode, level=levels)


def reference(x, name, levels, mode):
    return np.concatenate(decomposed(x, name, levels, mode))


def reference_inverse(coefficients, d, name, levels, mode):
    cuts = np.cumsum([len(part) for part in decomposed(np.zeros(d), name, levels, mode)])[:-1]
    return pywt.waverec(np.split(coefficients, cuts), name, mode=mode)[:d]


def matrices(d, *setting):
    """Forward and inverse of unit vectors, column by column."""
    forward = np.stack([reference(unit, *setting) for unit in np.eye(d)], axis=1)
    return forward, np.stack([reference_inverse(unit, d, *setting) for unit in np.eye(len(forward))], axis=1)


def drawn(d, *setting, kind=np.float64):
    """A vector, and coefficients that are no transform of one."""
    rng = np.random.default_rng(d)
    size = len(reference(np.zeros(d), *setting))
    return rng.standard_normal(d).astype(kind), rng.standard_normal(size).astype(kind)


# Wavelets: the formulas, at every length


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WAVELETS)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_formulas_against_pywavelets_at_hundreds_of_lengths(name, mode, kind):
    with in_numpy():
        for d in LENGTHS if kind is np.float64 else LENGTHS[::5]:
            setting = name, 1 + d % 5, mode
            transform = wavelet(*setting)
            x, coefficients = drawn(d, *setting, kind=kind)
            forward, inverse = transform.forward(x), transform.inverse(coefficients, d)
            assert transform.size(d) == len(forward) == len(coefficients)
            assert forward.dtype == inverse.dtype == kind
            np.testing.assert_allclose(forward, reference(x, *setting), **CLOSE[kind])
            np.testing.assert_allclose(inverse, reference_inverse(coefficients, d, *setting), **CLOSE[kind])


@SETTINGS
@given(st.sampled_from(pywt.wavelist(kind="discrete")), st.integers(1, 6), st.sampled_from(MODES), st.integers(1, 300))
def test_every_discrete_wavelet(name, levels, mode, d):
    setting = name, levels, mode
    transform = wavelet(*setting)
    x, coefficients = drawn(d, *setting)
    with in_numpy():
        forward, inverse = transform.forward(x), transform.inverse(coefficients, d)
    for ours, exact in (
        (forward, reference(x, *setting)),
        (inverse, reference_inverse(coefficients, d, *setting)),
    ):
        # Biorthogonal filters grow from level to level, and the rounding with them.
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-12 * max(1, abs(exact).max()) * 2**levels)


# Wavelets: compiled


@pytest.mark.parametrize(
    "setting",
    [
        ("sym2", 4, "symmetric"),
        ("sym2", 4, "periodization"),
        ("db4", 2, "symmetric"),
        ("bior2.2", 2, "periodization"),
    ],
)
def test_compiled_against_pywavelets(setting):
    lengths = (1, 16, 37)
    transform, pairs = wavelet(*setting), [drawn(d, *setting) for d in lengths]

    @jax.jit
    def both(pairs):
        return [
            (transform.forward(x), transform.inverse(coefficients, d), transform.inverse(transform.forward(x), d))
            for d, (x, coefficients) in zip(lengths, pairs, strict=True)
        ]

    for d, (x, coefficients), (forward, inverse, again) in zip(lengths, pairs, both(pairs), strict=True):
        np.testing.assert_allclose(forward, reference(x, *setting), **CLOSE[np.float64])
        np.testing.assert_allclose(inverse, reference_inverse(coefficients, d, *setting), **CLOSE[np.float64])
        np.testing.assert_allclose(again, x, **CLOSE[np.float64])


def test_the_size_of_a_model_in_single_precision():
    d, setting = 89_834, ("sym2", 4, "symmetric")
    transform, (x, coefficients) = wavelet(), drawn(d, *setting, kind=np.float32)
    forward = jax.jit(transform.forward)(x)
    inverse = jax.jit(transform.inverse, static_argnums=1)(coefficients, d)
    assert forward.dtype == inverse.dtype == jnp.float32
    assert forward.shape == (transform.size(d),)
    np.testing.assert_allclose(forward, reference(x, *setting), **CLOSE[np.float32])
    np.testing.assert_allclose(inverse, reference_inverse(coefficients, d, *setting), **CLOSE[np.float32])


@pytest.mark.parametrize("setting", [("sym2", 4, "symmetric"), ("bior2.2", 2, "periodization")])
def test_rows_under_vmap_and_map(setting):
    d, transform = 37, wavelet(*setting)
    rows = np.random.default_rng(0).standard_normal((5, d))
    there, back = matrices(d, *setting)
    for mapped in (jax.vmap, lambda function: lambda rows: jax.lax.map(function, rows)):
        forward = jax.jit(mapped(transform.forward))(jnp.asarray(rows))
        np.testing.assert_allclose(forward, rows @ there.T, **CLOSE[np.float64])
        inverse = jax.jit(mapped(lambda row: transform.inverse(row, d)))(forward)
        np.testing.assert_allclose(inverse, rows @ there.T @ back.T, **CLOSE[np.float64])


@pytest.mark.parametrize("setting", [("sym2", 4, "symmetric"), ("bior2.2", 2, "periodization")])
def test_gradient_is_the_transposed_matrix(setting):
    d, transform = 21, wavelet(*setting)
    there, back = matrices(d, *setting)
    x, coefficients = drawn(d, *setting)
    gradient = jax.jit(jax.grad(lambda x: transform.forward(x) @ coefficients))(x)
    np.testing.assert_allclose(gradient, there.T @ coefficients, **CLOSE[np.float64])
    gradient = jax.jit(jax.grad(lambda c: transform.inverse(c, d) @ x))(coefficients)
    np.testing.assert_allclose(gradient, back.T @ x, **CLOSE[np.float64])


def test_periodization_of_an_orthogonal_wavelet_keeps_inner_products():
    d, transform = 32, wavelet("sym2", 4, "periodization")
    there = np.asarray(jax.jit(jax.vmap(transform.forward))(jnp.eye(d))).T
    assert there.shape == (d, d)
    # PyWavelets has the filters of sym2 to about 1e-12.
    np.testing.assert_allclose(there.T @ there, np.eye(d), rtol=0, atol=1e-11)


# Fourier and none


def cosines_and_sines(d):
    """The orthonormal basis, row by row."""
    t, paired = np.arange(d), np.arange(1, (d + 1) // 2)
    angle = 2 * np.pi * paired[:, None] * t / d
    alone = [np.ones(d)] + ([(-1.0) ** t] if d % 2 == 0 else [])
    real = [alone[0] / np.sqrt(d), *(np.sqrt(2 / d) * np.cos(angle)), *(row / np.sqrt(d) for row in alone[1:])]
    return np.array([*real, *(-np.sqrt(2 / d) * np.sin(angle))])


@pytest.mark.parametrize("d", [1, 2, 3, 8, 37])
def test_fourier_is_an_orthonormal_basis(d):
    basis, transform = cosines_and_sines(d), fourier()
    x, coefficients = np.random.default_rng(d).standard_normal((2, d))

    @jax.jit
    def both(x, coefficients):
        gradient = jax.grad(lambda x: transform.forward(x) @ coefficients)(x)
        return transform.forward(x), transform.inverse(coefficients, d), gradient

    forward, inverse, gradient = both(x, coefficients)
    np.testing.assert_allclose(basis @ basis.T, np.eye(d), **CLOSE[np.float64])
    np.testing.assert_allclose(forward, basis @ x, **CLOSE[np.float64])
    np.testing.assert_allclose(inverse, basis.T @ coefficients, **CLOSE[np.float64])
    np.testing.assert_allclose(gradient, basis.T @ coefficients, **CLOSE[np.float64])


def test_fourier_keeps_single_precision():
    x = jnp.asarray(np.random.default_rng(0).standard_normal(1000), jnp.float32)
    coefficients = jax.jit(fourier().forward)(x)
    again = jax.jit(fourier().inverse, static_argnums=1)(coefficients, 1000)
    assert coefficients.dtype == again.dtype == jnp.float32
    np.testing.assert_allclose(again, x, **CLOSE[np.float32])
    # The norm is a sum of 1000 squares, each with the rounding of single precision.
    np.testing.assert_allclose(np.linalg.norm(coefficients), np.linalg.norm(x), rtol=1e-5)


def test_identity_changes_nothing():
    x = jnp.arange(3.0)
    transform = identity()
    assert transform.size(3) == 3
    assert transform.forward(x) is x
    assert transform.inverse(x, 3) is x


# Building


def test_transforms_built_alike_share_one_program():
    traces = []

    @jax.jit
    def forward(transform, x):
        traces.append(transform.name)
        return transform.forward(x)

    for transform in (wavelet(), wavelet("sym2", 4), wavelet(levels=3), fourier(), fourier(), identity(), identity()):
        forward(transform, jnp.ones(9))
    assert traces == [
        "wavelet(sym2, levels=4, symmetric)",
        "wavelet(sym2, levels=3, symmetric)",
        "fourier()",
        "identity()",
    ]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: wavelet("sym1"), "name='sym1'.*discrete wavelet"),
        (lambda: wavelet("morl"), "name='morl'.*discrete wavelet"),
        (lambda: wavelet(levels=0), "levels=0.*at least 1"),
        (lambda: wavelet(levels=True), "levels=True.*whole number"),
    ],
)
def test_bad_settings(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


def test_unknown_mode():
    # Unchecked annotations: a user has no beartype between.
    with in_numpy(), pytest.raises(ValueError, match=r"mode='reflect'.*symmetric"):
        wavelet(mode="reflect")


@pytest.mark.parametrize("transform", [wavelet(), fourier(), identity()])
def test_bad_vectors(transform):
    with pytest.raises(ValueError, match=r"d=0.*at least one number"):
        transform.forward(jnp.zeros(0))
    with pytest.raises(ValueError, match=r"d=0.*at least one number"):
        transform.size(0)
    coefficients = jnp.zeros(transform.size(40))
    with pytest.raises(ValueError, match=rf"{transform.size(40)} coefficients.*{transform.size(44)}.*d=44"):
        transform.inverse(coefficients, 44)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_single_precision_as_in_pywavelets(kind, mode):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(211), kind)
    for transform in (wavelet("sym2", 4, mode), fourier()):
        coefficients = transform.forward(x)
        assert coefficients.dtype == transform.inverse(coefficients, 211).dtype == jnp.float32
        np.testing.assert_array_equal(transform.inverse(coefficients, 211).astype(kind), x)
        assert transform.inverse(coefficients.astype(kind), 211).dtype == jnp.float32
    single = np.asarray(x, np.float32)
    np.testing.assert_allclose(wavelet("sym2", 4, mode).forward(x), reference(single, "sym2", 4, mode), atol=1e-5)
