"""What benchmarks and tests read as the peak memory of a process."""

import subprocess
import sys

import numpy as np


def test_a_child_does_not_begin_with_the_peak_of_its_parent():
    held = np.ones(40_000_000)  # 320 MB, which this process holds while the child starts
    program = "from benchmarks.memory import peak_memory_bytes as f; a = f(); b = b'1' * 10**8; print(a, f())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 100e6 < after < 200e6
    assert held.nbytes == 320e6
