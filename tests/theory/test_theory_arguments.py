"""Every formula refuses what it cannot mean, in words that name the argument: a walk through all public functions."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from theory import arguments, spectral

WALK = pathlib.Path(__file__).parents[1] / "lib" / "theory_walk.py"


def test_bad_arguments_are_named_or_right():
    done = subprocess.run(
        [sys.executable, str(WALK)], cwd=WALK.parents[2], env=_paths(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *faults = done.stdout.splitlines()
    calls, functions = map(int, re.findall(r"\d+", first))
    assert calls > 600
    assert functions > 130
    assert faults == []


def _paths():
    import os

    return os.environ | {"PYTHONPATH": str(WALK.parents[2])}


def test_the_walk_visits_every_module():
    files = {path.stem for path in pathlib.Path(arguments.__file__).parent.glob("*.py")}
    named = set(re.findall(r'"([a-z_]+)"', "".join(re.findall(r"^MODULES.*$", WALK.read_text(), re.MULTILINE))))
    assert files == named | {"arguments", "output", "__init__", "__main__"}


# The helpers themselves


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: arguments.whole("n", 2.0, least=1), "n=2.0: must be a whole number of at least 1"),
        (lambda: arguments.whole("n", True), "n=True: must be a whole number"),
        (
            lambda: arguments.whole("n", 5, least=1, most=4, remedy="fewer"),
            "n=5: must be a whole number in 1 … 4; fewer",
        ),
        (lambda: arguments.wholes("n", [1.0], least=1), r"n=\[1.0\]: must be whole numbers"),
        (lambda: arguments.real("x", np.inf), "x=inf: must be a finite number"),
        (lambda: arguments.real("x", 1, above=1, most=3), "x=1: must be a finite number, above 1 and at most 3"),
        (lambda: arguments.reals("x", [1, np.nan]), r"x\[1\]=nan: must be finite numbers"),
        (
            lambda: arguments.reals("x", np.ones(3), shape=(2,)),
            r"x of shape \(3,\): must be finite numbers of shape \(2,\)",
        ),
        (
            lambda: arguments.square("W", np.eye(3), nodes=(1, 2)),
            r"W of shape \(3, 3\): must be a square .* 1 to 2 nodes",
        ),
        (lambda: arguments.square("W", 2 * np.eye(3), sums="rows"), "the sum of a row of W is off by 1: must be one"),
        (
            lambda: arguments.square("W", np.eye(2)[[1, 0]] + [[0, 1], [0, 0]], symmetric=True),
            "differs from its transpose",
        ),
        (lambda: arguments.pmf("p", [0.5, 0.4]), "p sums to 0.9: must be probabilities"),
        (lambda: arguments.flag("two_way", "no"), "two_way='no': must be True or False"),
        (lambda: arguments.choice("law", "cubic", ("a", "b")), "law='cubic': must be one of 'a', 'b'"),
    ],
)
def test_messages_name_the_argument_the_value_and_the_rule(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_plain_forms():
    assert type(arguments.whole("n", np.int32(3))) is int
    assert type(arguments.real("x", np.float32(0.5))) is float
    assert arguments.wholes("n", 3, least=1).shape == ()
    assert arguments.reals("x", (1, 2)).dtype == np.float64


def test_sparse_matrices_stay_sparse_and_are_checked():
    halves = sparse.csr_array(np.array([[0.75, 0.25], [0.25, 0.75]]))
    assert spectral.contraction_factor(halves) == pytest.approx(0.5, rel=1e-12)  # rounding
    with pytest.raises(ValueError, match="the entries of W"):
        spectral.contraction_factor(sparse.csr_array(np.full((2, 2), np.nan)))
