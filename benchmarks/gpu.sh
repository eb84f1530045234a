#!/bin/sh
# Measure this machine's accelerator in about ten minutes, and leave a dated table in benchmarks/results to commit:
#   benchmarks/gpu.sh [--tiny] [--minutes M] [--out FILE]
# Makes the environment .venv if it is missing, with JAX for the GPU or TPU that it finds. PY=/path/to/python uses
# another environment as it is. With --tiny every measurement runs at a size that a CPU finishes in a few minutes.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PY:-}" ]; then
    make env
    PY=.venv/bin/python
    version=$($PY -c 'import jax; print(jax.__version__)')
    kind=
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null; then
        kind=cuda12
    elif ls /dev/accel* /dev/vfio/[0-9]* >/dev/null 2>&1; then
        kind=tpu
    fi
    # The locked requirements hold JAX for CPUs only.
    if [ -n "$kind" ] && [ "$($PY -c 'import jax; print(jax.default_backend())' 2>/dev/null)" = cpu ]; then
        $PY -m pip install --quiet "jax[$kind]==$version"
    fi
fi
exec "$PY" -m benchmarks.gpu "$@"
