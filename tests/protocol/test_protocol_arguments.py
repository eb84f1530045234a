"""What builders are given: good, or refused in a sentence that names the argument."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import X0, N, exact_quadratic

import gossipjax as gj
from gossipjax import compress, observe, sharing, wrappers

TASK, SGD = exact_quadratic(), optax.sgd(0.1)
W = gj.mixing.metropolis(gj.topology.ring(N)).toarray()
Q = compress.top_k(1)


@pytest.mark.slow
def test_bad_arguments_are_named():
    """In a process of its own, where annotations are not checked: no error of NumPy, JAX or Python comes out."""
    script = pathlib.Path(__file__).parents[1] / "lib" / "argument_cases.py"
    here = os.environ | {"PYTHONPATH": str(script.parents[2])}
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, env=here)
    assert found.returncode == 0, found.stderr
    calls, *wrong = found.stdout.split("\n")
    assert int(calls) > 1200
    assert [line for line in wrong if line] == []


def _loss(key, params, batch):
    return exact_quadratic().loss(key, params, batch)


def test_plain_functions_may_stand_in_observers_and_sharings():
    """jit takes pytrees only: they are wrapped."""
    full = sharing.full()
    said = gj.Sharing(full.init, lambda *arguments: full.encode(*arguments), full.merge, full.requires)
    seen = observe.Observer(lambda snapshot: {"top": jnp.max(snapshot.x)}, (observe.Variable("top", "the largest"),))
    plan, x0 = gj.timeline.rounds(W, 3), jnp.asarray(X0)
    found = gj.simulate(jax.random.key(0), gj.dpsgd(TASK, SGD, sharing=said), plan, x0, observers=[seen])
    expected = gj.simulate(jax.random.key(0), gj.dpsgd(TASK, SGD), plan, x0)
    np.testing.assert_array_equal(found.x, expected.x)
    assert float(found["top"][-1]) == float(found.x.max())


def test_weights_of_ones_own_are_refused_where_the_timelines_count():
    for method in (gj.gradient_tracking(TASK, SGD), gj.push_sum(), gj.gossip_averaging(sharing.choco(Q, 0.5))):
        with pytest.raises(ValueError, match="reweight changes the mixing"):
            wrappers.track_versions(method, reweight=wrappers.age_weighted)
