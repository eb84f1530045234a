"""Strict JAX for all tests: 64-bit floats, no silent rank or dtype promotion, two CPU devices, annotations checked."""

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before the first import of the packages: only modules imported later are checked.
_HOOK = install_import_hook(["gossipjax", "theory"], "beartype.beartype")

import gossipjax  # noqa: E402

gossipjax.configure(host_devices=2, x64=True)
