"""The two works of the DecentralizePy measurements: W1 (MLP) and W2 (GN-LeNet), on a random 4-regular graph.

The data are the same: synthetic, 10 classes, x = 0.3 · prototype[y] + N(0, 1), stored as float32 in one pool of 5,000
samples; each node has indices of 500. Full sharing with Metropolis weights 1/5; all nodes start from the same model.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import Protocol, Task, Timeline
from gossipjax.tasks import Dataset, Examples
from gossipjax.types import Params


class Work(NamedTuple):
    """One work: its model, its steps, and the floating-point operations of one sample (2 per multiply-add)."""

    name: str
    shape: tuple[int, int, int]
    batch_size: int
    local_steps: int
    learning_rate: float
    flops_per_sample: float

    @property
    def flops_per_round(self) -> float:
        """Floating-point operations of one node in one round."""
        return self.flops_per_sample * self.batch_size * self.local_steps


W1 = Work("W1", (28, 28, 1), 16, 5, 0.05, 2 * (2 * 784 * 32 + 3 * 32 * 10))
_CONV = [(32 * 32, 3, 32), (16 * 16, 32, 32), (8 * 8, 32, 64)]
_MACS = [positions * 25 * inputs * outputs for positions, inputs, outputs in _CONV]
W2 = Work("W2", (32, 32, 3), 8, 3, 0.01, 2 * (2 * _MACS[0] + 3 * (_MACS[1] + _MACS[2] + 1024 * 10)))
WORKS = {"W1": W1, "W2": W2}
"""Per layer, the forward pass, weight gradient and input gradient cost the same; the first has no input gradient."""


def model_of(work: Work) -> gj.tasks.Model:
    """Return the model of a work."""
    return gj.tasks.mlp(784, (32,), 10) if work.name == "W1" else gj.tasks.gn_lenet()


def pool(work: Work, *, samples: int = 5000, seed: int = 0) -> Dataset:
    """Draw the synthetic pool."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, samples).astype(np.int32)
    prototypes = rng.standard_normal((10, *work.shape), dtype=np.float32)
    inputs = rng.standard_normal((samples, *work.shape), dtype=np.float32)
    for sample, label in zip(inputs, labels, strict=True):  # in place: the pool is half the memory of a small run
        sample += np.float32(0.3) * prototypes[label]
    examples = Examples(inputs, labels)
    channels = work.shape[-1]
    few = Examples(examples.inputs[:100], labels[:100])
    return Dataset("synthetic", examples, few, 10, (0.0,) * channels, (1.0,) * channels, "synthetic", None)


def shards(num_nodes: int, *, samples: int = 5000, each: int = 500, seed: int = 0) -> gj.tasks.Partition:
    """Assign 500 indices of the pool to every node; nodes share samples, because the pool is too small otherwise."""
    rng = np.random.default_rng(seed)
    indices = np.concatenate([rng.choice(samples, each, replace=False) for _ in range(num_nodes)]).astype(np.int32)
    return gj.tasks.Partition(indices, np.arange(0, each * num_nodes + 1, each, dtype=np.int32))


class Setting(NamedTuple):
    """The arguments of a run of a work."""

    task: Task
    protocol: Protocol
    timeline: Timeline
    params: Params
    """Initial model of every node."""


def setting(work: Work, num_nodes: int, num_rounds: int) -> Setting:
    """Build a work for n nodes."""
    task = gj.tasks.classification(pool(work), shards(num_nodes), model_of(work), batch_size=work.batch_size)
    graph = gj.topology.random_regular(num_nodes, 4, seed=0, tries=20)
    optimizer = Partial(optax.sgd, work.learning_rate)
    protocol = gj.dpsgd(task, optimizer, local_steps=work.local_steps)
    timeline = gj.timeline.rounds(gj.mixing.metropolis(graph), num_rounds)
    return Setting(task, protocol, timeline, task.init(jax.random.key(0)))
