"""A thousand nodes and more that learn from images: one problem, many networks and sharings, results for every node.

All nodes train the same small network on a few stretches of the list sorted by label, so that most of them see few
classes. Where it is asked for, images are averaged over squares of pixels: the model then has fewer weights,
and two cores finish in minutes what would take hours. One run is one seed, which draws the random graphs, the start and
the batches; the shards stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import scipy.sparse as sp
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Float

from experiments.lib import real_data
from experiments.lib.kept import kept_run
from experiments.lib.problems import Problem
from experiments.lib.report import Row, over_seeds
from gossipjax import Sharing, dpsgd, metered, mixing, observe, simulate, tasks, topology
from gossipjax.mixing._weights import is_averaging
from gossipjax.results._plot_nodes import worst_tenth
from gossipjax.timeline import rounds
from theory.check.policy import Band, decide

LEARNED = 0.2
"""How far above the trivial predictor, which always names the most frequent class, a model counts as trained."""
LAST = 0.2
"""The last part of the run, over which a curve that has ended gains less than :data:`ENDED`."""
ENDED = 0.01


DISAGREEMENT = "from the matrices: of y ← W (y + b), lasting differences b of variance 1"
COMPLETE, STATIC, FRESH = "complete", "random 4-regular", "fresh 4-regular"
DEGREE = 4


class Scale(NamedTuple):
    """How large the network is, and how its nodes train."""

    dataset: str
    num_nodes: int
    num_rounds: int
    shrink: int = 1
    """Side of the squares of pixels that are averaged."""
    hidden: int = 32
    model: Literal["mlp", "gn_lenet"] = "mlp"
    shards_per_node: int = 4
    learning_rate: float = 0.2
    batch_size: int = 16
    local_steps: int = 3
    num_records: int = 20
    test_samples: int | None = 1000
    seed: int = 0
    """Of the shards and of the test samples."""


TWO_CORES = Scale("auto", 1024, 240, shrink=4, num_records=12, test_samples=500)
"""What two cores have time for."""
QUICK = Scale("digits", 32, 100, shards_per_node=2, num_records=10, test_samples=None)
PAPER = Scale("fashion_mnist", 4096, 1000, learning_rate=0.05, local_steps=5, num_records=40)
"""The work W1 of the measurements of DecentralizePy, on real images."""
PAPER_CNN = Scale(
    "cifar10", 1024, 2000, model="gn_lenet", shards_per_node=4, learning_rate=0.01, batch_size=8, num_records=40
)
"""Its tutorial: GN-LeNet on CIFAR-10."""


def _torus(n: int, rounds: int, seed: int) -> list[sp.csr_array]:
    rows = next(side for side in range(int(n**0.5), 0, -1) if n % side == 0)
    return [mixing.metropolis(topology.torus(rows, n // rows))]


def _fresh(n: int, rounds: int, seed: int) -> list[sp.csr_array]:
    """Draw a graph for each round, with seeds that those of no other run of up to 100,000 rounds use."""
    graphs = (topology.random_regular(n, DEGREE, seed=100_000 * (seed + 1) + t, tries=50) for t in range(rounds))
    return [mixing.metropolis(graph) for graph in graphs]


NETWORKS: dict[str, Callable[[int, int, int], list[sp.csr_array]]] = {
    "ring": lambda n, rounds, seed: [mixing.metropolis(topology.ring(n))],
    "torus": _torus,
    "small world": lambda n, rounds, seed: [
        mixing.metropolis(topology.watts_strogatz(n, DEGREE, 0.1, seed=seed, tries=50))
    ],
    STATIC: lambda n, rounds, seed: [mixing.metropolis(topology.random_regular(n, DEGREE, seed=seed, tries=50))],
    "exponential": lambda n, rounds, seed: [mixing.uniform(topology.exponential(n))],
    "one-peer exponential": lambda n, rounds, seed: [
        mixing.uniform(graph) for graph in topology.one_peer_exponential(n)
    ],
    COMPLETE: lambda n, rounds, seed: [mixing.averaging(n)],
    FRESH: _fresh,
}
"""``matrices(num_nodes, num_rounds, seed)`` of each network: one, or a cycle of them."""


def disagreement(matrices: Sequence[sp.csr_array], num_rounds: int, *, probes: int = 64) -> float:
    """Compute how far apart lasting differences between the nodes' updates leave them: ``y ← W_t (y + b)`` from y = 0.

    The entries of b are independent, of variance one, and the same in every round, as the gradients of nodes with
    different data roughly are. Returns ``(1/n) Σ_i (y_i − ȳ)²`` after the rounds, mean over ``probes`` vectors b and
    over the last pass through a cycle of matrices. 0 for an exact mean.
    """
    n = matrices[0].shape[0]
    b = np.random.default_rng(0).standard_normal((n, probes))
    y, found = np.zeros_like(b), []
    for t in range(num_rounds):
        y = matrices[t % len(matrices)] @ (y + b)
        if t >= num_rounds - len(matrices):
            found.append(float(y.var(0).mean()))
    return float(np.mean(found))


def models_sent(matrices: Sequence[sp.csr_array]) -> float:
    """Count the models that a node sends in a round, mean over nodes and rounds; an exact mean is a ring all-reduce."""
    n = matrices[0].shape[0]
    if len(matrices) == 1 and is_averaging(matrices[0]):
        return 2 * (n - 1) / n
    return float(np.mean([(W.count_nonzero() - np.count_nonzero(W.diagonal())) / n for W in matrices]))


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Average images ``(N, height, width, channels)`` over squares of pixels, rounded to whole grey levels."""
    count, height, width, channels = images.shape
    squares = images.reshape(count, height // side, side, width // side, side, channels)
    return np.round(squares.mean((2, 4))).astype(images.dtype)


def problem_of(scale: Scale) -> Problem:
    """Build the learning problem."""
    data = real_data.load(scale.dataset)
    source = data.source
    if scale.shrink > 1:
        inputs, test = (shrunk(part.inputs, scale.shrink) for part in (data.train, data.test))
        source = f"{source}, averaged over {scale.shrink} × {scale.shrink} pixels"
        data = tasks.from_arrays(inputs, data.train.labels, test, data.test.labels, name=data.name, source=source)
    if scale.model == "mlp":
        model = tasks.mlp(real_data.inputs_of(data), (scale.hidden,), data.num_classes)
    else:
        model = tasks.gn_lenet(data.train.inputs.shape[1:], data.num_classes)
    shards = tasks.by_shards(data.train.labels, scale.num_nodes, shards_per_node=scale.shards_per_node, seed=scale.seed)
    task = tasks.classification(data, shards, model, batch_size=scale.batch_size)
    return Problem(data.name, task, source, "accuracy", True, scale.learning_rate, scale.batch_size, scale.local_steps)


def run_of(given: Problem, scale: Scale, network: str, said: Sharing, seed: int, keep: str | None) -> xr.Dataset:
    """Train on a network with a sharing, and return the curves of every node; the run is kept.

    Args:
        given: of :func:`problem_of`.
        scale: its settings.
        network: one of :data:`NETWORKS`.
        said: what nodes send.
        seed: of graphs, start and batches.
        keep: folder of finished runs; None: none is kept.
    """
    settings = {"scale": scale._asdict(), "seed": seed, "network": network}

    def make(checkpoint: Any) -> xr.Dataset:
        return _learn(given, scale, network, said, seed, checkpoint)

    return kept_run(keep, settings, make, given.task, said)


def _learn(given: Problem, scale: Scale, network: str, said: Sharing, seed: int, checkpoint: Any) -> xr.Dataset:
    task, matrices = given.task, NETWORKS[network](scale.num_nodes, scale.num_rounds, seed)
    watch = (
        observe.metrics_by_node(task, samples=_samples(task, scale), seed=scale.seed),
        observe.average_model_metrics(task, samples=_samples(task, scale), seed=scale.seed),
        observe.consensus_distance(),
        observe.traffic_by_node(),
    )
    protocol = dpsgd(task, Partial(optax.sgd, scale.learning_rate), local_steps=scale.local_steps, sharing=said)
    trajectory = simulate(
        jax.random.key(seed),
        metered(protocol),
        rounds(matrices, scale.num_rounds),
        task,
        observers=watch,
        record_every=max(1, scale.num_rounds // scale.num_records),
        checkpoint=checkpoint,
        throw=False,
    )
    names = ["accuracy_by_node", "average_model_accuracy", "consensus_distance", "bytes_sent_by_node", "train_loss"]
    found = trajectory.dataset[names].drop_vars("time").drop_attrs(deep=False)
    facts = {"disagreement": disagreement(matrices, scale.num_rounds), "models_sent": models_sent(matrices)}
    return found.assign({name: ((), value) for name, value in facts.items()})


def _samples(task: Any, scale: Scale) -> int | None:
    """Return the number of test samples, or None where the test set has no more."""
    few = scale.test_samples
    return few if few is not None and few < len(task.test["inputs"]) else None


def facts_of(given: Problem, scale: Scale) -> dict[str, Any]:
    """Return what the tables and figures say about the problem, as attributes of a dataset."""
    labels = np.asarray(observe.subset(given.task, _samples(given.task, scale), seed=scale.seed)["labels"])
    trivial = float(np.bincount(labels).max() / labels.size)
    facts = {"data": given.source, "parameters": given.parameters, "num_nodes": scale.num_nodes, "trivial": trivial}
    return facts | {"num_rounds": scale.num_rounds, "local_steps": scale.local_steps, "model": scale.model}


def check_names(argument: str, names: Sequence[str], known: Sequence[str] | dict[str, Any], needed: str) -> None:
    """Raise ValueError unless all names are known and the one that the others are compared with is among them."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{argument} {unknown}: choose among {', '.join(known)}")
    if needed not in names:
        raise ValueError(f"{argument}={tuple(names)}: add {needed}, with which the others are compared")


def with_summaries(joined: xr.Dataset) -> xr.Dataset:
    """Add the means over nodes that figures draw: accuracy, that of the worst tenth, megabytes sent."""
    rest = joined.accuracy_by_node
    last = worst_tenth(rest.transpose(..., "node").values.astype(np.float64))
    names = tuple(name for name in rest.dims if name != "node")
    return joined.assign(
        mean_accuracy=rest.astype(np.float64).mean("node"),
        worst_decile=(names, last),
        mean_megabytes=joined.bytes_sent_by_node.astype(np.float64).mean("node") / 1e6,
    )


def mean_accuracy(at: xr.Dataset) -> Float[np.ndarray, "record seed"]:
    """Return the mean accuracy over the nodes."""
    return at.mean_accuracy.transpose("record", "seed").values


def final_accuracy(at: xr.Dataset) -> Float[np.ndarray, " seed"]:
    """Return the mean accuracy over the nodes at the end, seed by seed."""
    return mean_accuracy(at)[-1]


def gained_last(at: xr.Dataset) -> Float[np.ndarray, " seed"]:
    """Return what the mean accuracy gains over the last part of the run."""
    curve = mean_accuracy(at)
    before = int(np.ceil((1 - LAST) * (len(curve) - 1)))
    return curve[-1] - curve[before]


def megabytes(at: xr.Dataset) -> Float[np.ndarray, " seed"]:
    """Return the megabytes that a node has sent at the end, mean over the nodes."""
    return at.mean_megabytes.isel(record=-1).values


def node_rows(name: str, at: xr.Dataset, trivial: float) -> list[Row]:
    """Tabulate what the mean hides, what was learned, and whether the curve has ended."""
    ends = at.accuracy_by_node.isel(record=-1).transpose("seed", "node").values.astype(np.float64)
    last = 100 * at.worst_decile.isel(record=-1).values
    learned = decide(final_accuracy(at) - trivial, Band(low=LEARNED))
    ended = decide(gained_last(at), Band(high=ENDED))
    margin = 100 * (final_accuracy(at) - trivial)
    return [
        over_seeds(f"{name}: worst tenth of the nodes (%)", last, np.nan, "mean of them, at the end"),
        over_seeds(f"{name}: spread over nodes (points)", 100 * ends.std(1), np.nan, "standard deviation"),
        over_seeds(f"{name}: above the trivial predictor (points)", margin, np.nan, f"learned: {learned}"),
        over_seeds(
            f"{name}: gain in the last fifth (points)", 100 * gained_last(at), np.nan, f"the curve has ended: {ended}"
        ),
    ]
