"""Do configurations of DecentralizePy learn here what they learn in its own code?

Three configurations of its tutorials, for 16 nodes, GN-LeNet and CIFAR-10: whole models on independent shards, JWINS on
shards of four stretches of sorted labels, and Epidemic Learning with an oracle on shards of Dirichlet(0.1). Its own
code has run them in a process a node (``python -m benchmarks.decentralizepy``); the curves are kept with the commit,
the versions and the settings. :func:`gossipjax.decentralizepy.read_configuration` reads the same text here. Graph,
rounds, test images and form of the images are equal; starts, shards and batches are drawn by each in its own way, so
that only distributions can agree. Its nodes draw batches without replacement from a shuffled shard, and here with
replacement.

The band was stated before any of these runs: the mean accuracy of the nodes at the end may differ by four points,
which is less than either gains from one record to the next while it learns.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from experiments.lib import trivial
from experiments.lib.report import Row, over_seeds
from gossipjax import Task, metered, observe, simulate, tasks, topology
from gossipjax.decentralizepy import Configuration, read_configuration
from theory.check.policy import Band, decide

CLAIM = "Configurations of DecentralizePy reach here the accuracy that they reach in its own code"
PUBLISHED = pathlib.Path(__file__).parent.parent / "benchmarks" / "published" / "decentralizepy.json"
"""Curves of the published code."""
FIRST_SEED = 90
"""``random_seed`` of the tutorials."""
BAND = Band(-0.04, 0.04)
_HEAD = """
[DATASET]
dataset_package = decentralizepy.datasets.CIFAR10
dataset_class = CIFAR10
model_class = LeNet
train_dir = .
test_dir = .
sizes =
random_seed = {seed}
{partition}

[OPTIMIZER_PARAMS]
optimizer_package = torch.optim
optimizer_class = SGD
lr = {rate}

[TRAIN_PARAMS]
training_package = decentralizepy.training.Training
training_class = Training
rounds = {steps}
full_epochs = False
batch_size = {batch}
shuffle = True
loss_package = torch.nn
loss_class = CrossEntropyLoss

[COMMUNICATION]
comm_package = decentralizepy.communication.TCP
comm_class = TCP
addresses_filepath = ip.json

[SHARING]
{sharing}
"""
_FULL = "sharing_package = decentralizepy.sharing.Sharing\nsharing_class = Sharing"
_JWINS = """sharing_package = decentralizepy.sharing.JWINS.JWINS
sharing_class = JWINS
change_based_selection = True
alpha_list = [0.1,0.15,0.2,0.25,0.3,0.4,1.0]
wavelet = sym2
level = 4
accumulation = True
accumulate_averaging_changes = True
metadata_cap = 0.5
compression_package = decentralizepy.compression.EliasFpzip
compression_class = EliasFpzip
compress = True"""
_EPIDEMIC = """sharing_package = decentralizepy.sharing.PlainAverageSharing
sharing_class = PlainAverageSharing
compress = False

[NODE]
graph_degree = 7"""
_TEXTS: dict[str, dict[str, Any]] = {
    "whole models, IID": {"partition": "partition_niid = iid", "rate": 0.01, "steps": 3, "batch": 8, "sharing": _FULL},
    "JWINS, stretches of labels": {
        "partition": "partition_niid = kshard\nshards = 4",
        "rate": 0.01,
        "steps": 3,
        "batch": 8,
        "sharing": _JWINS,
    },
    "Epidemic Learning, Dirichlet(0.1)": {
        "partition": "partition_niid = dirichlet\nalpha = 0.1",
        "rate": 0.05,
        "steps": 10,
        "batch": 5,
        "sharing": _EPIDEMIC,
    },
}
NAMES = tuple(_TEXTS)


class Config(NamedTuple):
    """Settings. The published curves are of the defaults."""

    data: str = "cifar10"
    """Or ``"digits"``: small pictures that stand for CIFAR-10, of which nothing is published."""
    num_nodes: int = 16
    degree: int = 4
    num_rounds: int = 160
    record_every: int = 40
    test_samples: int = 2000
    num_seeds: int = 5


QUICK = Config(data="digits", num_nodes=8, num_rounds=12, record_every=6, test_samples=100, num_seeds=3)


def ini(name: str, seed: int) -> str:
    """Write a configuration."""
    return _HEAD.format(seed=seed, **_TEXTS[name])


def data_of(config: Config) -> tasks.Dataset:
    """Load the pictures, and the first of the test pictures; values become −1 to 1, as the published code has them."""
    if config.data == "cifar10":
        data = tasks.cifar10(limit=(50_000, config.test_samples))
        return dataclasses.replace(data, mean=(127.5,) * 3, std=(127.5,) * 3)
    data = tasks.digits()
    train, test = (
        tasks.Examples(_enlarged(one.inputs[:count]), one.labels[:count])
        for one, count in ((data.train, None), (data.test, config.test_samples))
    )
    return dataclasses.replace(data, train=train, test=test, mean=(8.0,) * 3, std=(8.0,) * 3)


def _enlarged(inputs: np.ndarray) -> np.ndarray:
    """Enlarge pictures of 8 × 8 to 32 × 32 in three colours, all the same."""
    pictures = inputs.reshape(-1, 8, 8, 1)
    return pictures.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)


def graph_of(config: Config) -> topology.Topology:
    """Return the graph; Epidemic Learning takes its number of nodes only."""
    return topology.random_regular(config.num_nodes, config.degree, seed=0, tries=20)


def edges_of(config: Config) -> list[tuple[int, int]]:
    """List the edges of the graph, in both directions."""
    graph = graph_of(config)
    return list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


def settings_of(config: Config) -> dict[str, Any]:
    """Return all that the curves depend on, besides seeds."""
    told = config._replace(num_seeds=0)._asdict() | {
        "edges": edges_of(config),
        "texts": [ini(name, 0) for name in NAMES],
    }
    return json.loads(json.dumps(told))


def published(config: Config) -> dict[str, Any] | None:
    """Read the curves of the published code; None if there are none of these settings.

    Raises:
        ValueError: curves of some seeds are missing.
    """
    kept = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    if kept["settings"] != settings_of(config):
        return None
    wanted = {f"{name}/{seed}" for name in NAMES for seed in range(FIRST_SEED, FIRST_SEED + config.num_seeds)}
    if missing := sorted(wanted - set(kept["runs"])):
        raise ValueError(f"{PUBLISHED} lacks {', '.join(missing)}; make them by python -m benchmarks.decentralizepy")
    return kept


def configuration(config: Config, name: str, seed: int, data: tasks.Dataset) -> Configuration:
    """Read a configuration as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.ini"
        path.write_text(ini(name, seed), encoding="utf-8")
        return read_configuration(path, graph=graph_of(config), num_rounds=config.num_rounds, data=data)


def learn(config: Config, name: str, seed: int, data: tasks.Dataset) -> xr.Dataset:
    """Run a configuration; accuracy, loss and megabytes sent of all nodes at all records but the start."""
    found = configuration(config, name, seed, data)
    run = simulate(
        jax.random.key(seed),
        metered(found.protocol),
        found.timeline,
        found.task,
        observers=[observe.metrics_by_node(found.task), observe.traffic_by_node()],
        record_every=config.record_every,
    )
    kept = run.dataset[["accuracy_by_node", "loss_by_node", "bytes_sent_by_node"]].isel(record=slice(1, None))
    return kept.assign(megabytes_by_node=kept.bytes_sent_by_node.astype(np.float64) / 1e6)


def run(config: Config) -> xr.Dataset:
    """Learn all configurations with all seeds, and put the published curves beside them."""
    data = data_of(config)
    seeds = [FIRST_SEED + number for number in range(config.num_seeds)]
    ours = [[learn(config, name, seed, data) for seed in seeds] for name in NAMES]
    records = np.arange(config.record_every, config.num_rounds + 1, config.record_every)
    by = ("configuration", "seed", "record", "node")
    columns = {
        metric: (by, np.array([[_by_record(one[f"{metric}_by_node"]) for one in row] for row in ours]))
        for metric in ("accuracy", "loss", "megabytes")
    }
    theirs = published(config)
    if theirs is not None:
        runs = [[theirs["runs"][f"{name}/{seed}"] for seed in seeds] for name in NAMES]
        for metric in ("accuracy", "loss"):
            values = np.array([[one[metric] for one in row] for row in runs])
            columns[f"published_{metric}"] = (by, values.transpose(0, 1, 3, 2))
    task: Task = configuration(config, NAMES[0], FIRST_SEED, data).task
    facts = ("code", "commit", "torch", "data", "made")
    told = {} if theirs is None else {f"published_{key}": theirs[key] for key in facts}
    return xr.Dataset(
        columns,
        {"configuration": list(NAMES), "seed": seeds, "record": records},
        told
        | {
            "data": data.source,
            "num_nodes": config.num_nodes,
            "num_rounds": config.num_rounds,
            "test_samples": len(data.test.labels),
            "model_megabytes": config.degree * config.num_rounds * 4e-6 * parameters_of(task),
            "trivial": trivial.noted(task, "accuracy"),
        },
    )


def parameters_of(task: Task) -> int:
    """Count the parameters of a model."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0))))


def _by_record(values: xr.DataArray) -> np.ndarray:
    return values.transpose("record", "node").values


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare accuracies at the end, and curves."""
    known = trivial.stored(dataset)
    rows = trivial.rows("accuracy, ", known, True)
    sent, whole = dataset.megabytes.sel(configuration=NAMES[0]).isel(record=-1).mean("node"), dataset.model_megabytes
    rows.append(
        over_seeds("MB sent by a node, whole models", sent.values, whole, "models to all neighbours in all rounds")
    )
    for name in dataset.configuration.values:
        rows += _rows(dataset.sel(configuration=name), str(name), known)
    return rows


def _rows(one: xr.Dataset, name: str, known: dict[str, float]) -> list[Row]:
    ends = one.accuracy.mean("node").isel(record=-1).values
    spread = one.accuracy.std("node").isel(record=-1).values
    rows = [
        over_seeds(f"accuracy, {name}", ends, source="mean of the nodes at the end, here"),
        over_seeds(f"spread of nodes, {name}", spread, source="standard deviation of accuracies at the end, here"),
        over_seeds(f"MB, {name}", one.megabytes.mean("node").isel(record=-1).values, source="sent by a node, here"),
    ]
    if "published_accuracy" not in one:  # of other settings than those that the published code ran
        return rows
    theirs = one.published_accuracy.mean("node").isel(record=-1).values
    verdict = trivial.gated(decide(ends - theirs, BAND), np.minimum(ends, theirs), known, True)
    gaps = (one.accuracy - one.published_accuracy).mean("node").mean("seed").values
    worst = int(np.abs(gaps).argmax())
    loss = (one.loss - one.published_loss).mean("node").isel(record=-1).values
    other = one.published_accuracy.std("node").isel(record=-1).values
    return [
        *rows,
        over_seeds(f"published accuracy, {name}", theirs, source="the same of the published code"),
        over_seeds(f"published spread of nodes, {name}", other, source="the same of the published code"),
        over_seeds(f"ours − published, {name}", ends - theirs, 0.0, verdict),
        Row(f"largest gap of the curves, {name}", gaps[worst], np.nan, 0.0, f"at round {int(one.record[worst])}"),
        over_seeds(f"loss, ours − published, {name}", loss, 0.0, "at the end; measured"),
    ]
