"""Strict JAX for all tests: 64-bit floats, no silent rank or dtype promotion, two CPU devices, annotations checked.

Workers, subprocesses and the next run share compiled programs, in a folder of the checkout.
"""

import os
import pathlib

_PROGRAMS = {
    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(__file__).parents[1] / ".programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}
for _name, _value in _PROGRAMS.items():
    os.environ.setdefault(_name, _value)  # JAX reads them when it is imported, and so do subprocesses

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Before the first import of the packages: only modules imported later are checked.
_HOOK = install_import_hook(["gossipjax", "theory"], "beartype.beartype")

import gossipjax  # noqa: E402

gossipjax.configure(host_devices=2, x64=True)
