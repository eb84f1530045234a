"""Print the ``XLA_FLAGS`` under which ``make test`` compiles: tiny programs take longer to optimize than to run.

``make slow`` compiles those slow tests under them too that do little but compile, and the rest with XLA's defaults, as
do ``make quick``, a plain ``pytest``, and users. XLA aborts on a flag that it does not know, and flags differ between
versions, so a short process tries them first.
"""

import os
import subprocess
import sys

UNOPTIMIZED = ("--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true")
SIMPLE_FUSIONS = ("--xla_cpu_use_fusion_emitters=false",)
"""Emit loop fusions as LLVM code directly instead of through MLIR passes. XLA of JAX 0.12 lacks this flag."""
ONE_PIECE = ("--xla_cpu_parallel_codegen_split_count=1",)
"""Compile a program in one piece: threads for parts of a tiny one cost more than they save."""
PROGRAM = "import jax.numpy as jnp; (jnp.ones(2) + 1).block_until_ready()"


def accepted(flags):
    """Whether the installed XLA runs a program under these flags."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True).returncode == 0


def flags_after(own):
    """The caller's own flags, then as many of ours as the installed XLA accepts."""
    for ours in ([*UNOPTIMIZED, *ONE_PIECE, *SIMPLE_FUSIONS], [*UNOPTIMIZED, *ONE_PIECE], UNOPTIMIZED):
        if accepted([*own, *ours]):
            return [*own, *ours]
    return own


if __name__ == "__main__":
    print(*flags_after(os.environ.get("XLA_FLAGS", "").split()))
