"""JAX's default width, in a process of its own: nothing here may depend on 64-bit floats or integers."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROGRAM = """
import sys, tempfile, pathlib
import jax, numpy as np, optax
from jax.tree_util import Partial
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
import gossipjax as gj
from gossipjax.observe import consensus_distance, node_metrics
from gossipjax.topology import barabasi_albert
from gossipjax.mixing import lazy, metropolis

N, RATE, T = 8, 0.2, 40
rng = np.random.default_rng(0)
targets, x0 = rng.standard_normal((N, 3)), rng.standard_normal((N, 3)).astype(np.float32)
graph = barabasi_albert(N, 2, seed=1)
W = lazy(metropolis(graph)).toarray()
task = gj.tasks.quadratic(targets)
sgd, key, fixed = Partial(optax.sgd, RATE), jax.random.key(0), gj.timeline.rounds(W, T)
folder = pathlib.Path(tempfile.mkdtemp())

def run(protocol, timeline, x0=x0, **settings):
    observers = [consensus_distance(), node_metrics(task)]
    result = gj.simulate(key, protocol, timeline, jax.numpy.asarray(x0), observers=observers, **settings)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(result.state)} <= {"float32", "int32"}
    return result

x = x0.astype(float)
for _ in range(T):
    x = W @ (x - RATE * (x - targets))
result = run(gj.dpsgd(task, sgd), fixed, record_every=10)
# Forty rounds of rounding to 6e-8.
np.testing.assert_allclose(result.x, x, rtol=0, atol=5e-6)
total = int(graph.degrees.sum())
np.testing.assert_array_equal(result["bytes_sent"], np.asarray([0, 10, 20, 30, 40]) * total * 3 * 4.0)

for order in ("adapt_then_combine", "combine_then_adapt"):
    tracked = run(gj.gradient_tracking(task, sgd, order=order), gj.timeline.rounds(W, 1500))
    np.testing.assert_allclose(tracked.x, np.broadcast_to(targets.mean(0), (N, 3)), rtol=0, atol=1e-5)
np.testing.assert_allclose(run(gj.d2(task, sgd), gj.timeline.rounds(W, 1500)).x[0], targets.mean(0), atol=1e-5)

for plan in (
    gj.timeline.poisson_pairs(graph, 50, seed=0),
    gj.timeline.poisson_edges(graph, 50, seed=0),
    gj.timeline.matching_rounds(N, 10, seed=0),
    gj.timeline.changing_rounds(gj.timeline.overlays.regular(N, 4, seed=0), 10),
):
    x = run(gj.gossip_averaging(), plan).x
    np.testing.assert_allclose(x.mean(0), x0.mean(0), rtol=0, atol=1e-6)
run(gj.dpsgd(task, sgd, local_steps=2), gj.timeline.poisson_push(graph, 20, weight=0.3, seed=0))
run(gj.allreduce_sgd(task, sgd), fixed)
sampled = run(gj.fedavg(task, sgd, local_steps=2), gj.timeline.client_sampling(N, 4, 100, seed=0), x0[:4])
np.testing.assert_array_equal(sampled.x, np.broadcast_to(sampled.x[:1], (4, 3)))

# Totals above 2^32 bits outlive a checkpoint: they are kept as 64-bit integers whatever JAX's width.
from gossipjax._engine.checkpoint import Checkpoint
from gossipjax import Info, Protocol
def claim(key, x, event):
    bits = jax.numpy.full((64,), 2**31, jax.numpy.uint32)
    return x, Info(bits, jax.numpy.ones_like(bits))
loud, save = Protocol(lambda key, x: x, claim, lambda x: x), Checkpoint.save
def failing(self, done, *rest):
    save(self, done, *rest)
    if done == T // 2:
        raise KeyboardInterrupt
whole = run(loud, fixed, record_every=1)
Checkpoint.save = failing
try:
    run(loud, fixed, record_every=1, checkpoint=folder / "run")
    raise AssertionError("not interrupted")
except KeyboardInterrupt:
    Checkpoint.save = save
resumed = run(loud, fixed, record_every=1, checkpoint=folder / "run")
assert resumed["bytes_sent"].values[-1] == T * 64 * 2.0**28
assert resumed.dataset.equals(whole.dataset)
print("all well")
"""


@pytest.mark.slow
def test_the_default_width_suffices(tmp_path):
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip().endswith("all well"), done.stderr[-3000:]
