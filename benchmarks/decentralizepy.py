"""Run configurations of DecentralizePy by its own code: ``python -m benchmarks.decentralizepy PYTHON REPOSITORY``.

REPOSITORY is a checkout of github.com/sacs-epfl/decentralizepy. PYTHON is the interpreter of an environment with what
it imports and none of gossipjax: ``python3 -m venv peer && peer/bin/pip install torch torchvision pyzmq networkx pandas
localconfig smallworld matplotlib scikit-learn pywavelets lz4 fpzip crudini``, then ``peer/bin/python``.

Every node is a process of the published code, unchanged but for three things: CIFAR-10 comes from the arrays that
gossipjax reads, since its own reader downloads; nodes draw no plots; messages travel over the loopback address. The
configurations, the graph, the rounds and the test images are those of the experiment ``decentralizepy_curves``, which
compares runs of gossipjax with the curves that are kept here.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
from typing import Any

import numpy as np

# --- the peer's side: imports neither gossipjax nor JAX ---------------------------------------------------------------


def peer(source: str, answer: str) -> None:
    """Run a configuration in a process a node, and write accuracy and loss of all nodes at all records."""
    data = dict(np.load(source))
    rounds, every = int(data["rounds"]), int(data["every"])
    sys.path.insert(0, str(data["repository"]))
    torch = importlib.import_module("torch")
    importlib.import_module("torch._dynamo")  # once, before nodes fork
    multiprocessing = importlib.import_module("torch.multiprocessing")
    _give_data(torch, data)
    importlib.import_module("decentralizepy.node.Node").Node.save_plot = lambda *_: None
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file, text in (("ip.json", '{"0": "127.0.0.1"}'), ("graph.edges", data["graph"]), ("run.ini", data["ini"])):
            (folder / file).write_text(str(text))
        os.chdir(folder)
        found = importlib.import_module("localconfig").LocalConfig("run.ini")
        sections = {section: dict(found.items(section)) for section in found}
        graph = importlib.import_module("decentralizepy.graphs.Graph").Graph()
        graph.read_graph_from_file("graph.edges", "edges")
        nodes = _nodes(sections, graph, rounds, every)
        processes = [multiprocessing.Process(target=target, args=arguments) for target, arguments in nodes]
        for process in processes:
            process.start()
        _join(processes)
        told = [json.loads((folder / f"{rank}_results.json").read_text()) for rank in range(graph.n_procs)]
    records = sorted(map(int, told[0]["test_acc"]))
    columns = {
        "accuracy": [[one["test_acc"][str(record)] / 100 for record in records] for one in told],
        "loss": [[one["test_loss"][str(record)] for record in records] for one in told],
    }
    np.savez(answer, records=records, torch=torch.__version__, **{key: np.array(one) for key, one in columns.items()})


def _join(processes: list[Any]) -> None:
    """Wait for all nodes; if one fails, end the others, which would wait for its messages for ever."""
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
            raise SystemExit("a node failed, see above; run the command again, it goes on with what is missing")
        time.sleep(0.5)


def _nodes(sections: dict[str, Any], graph: Any, rounds: int, every: int) -> list[tuple[Any, list[Any]]]:
    """Return the processes of a run, with their arguments."""
    linear = importlib.import_module("decentralizepy.mappings.Linear").Linear
    never, quiet = 10**9, 40  # rounds from one loss on the training set to the next; level of ERROR
    after = [".", ".", quiet, every, never, 1]
    if "NODE" not in sections:
        node = importlib.import_module("decentralizepy.node.DPSGDNode").DPSGDNode
        mapping = linear(1, graph.n_procs)
        return [(node, [rank, 0, mapping, graph, sections, rounds, *after]) for rank in range(graph.n_procs)]
    room = "decentralizepy.node.EpidemicLearning."
    server = importlib.import_module(f"{room}EL_Oracle_TopologyBuilder").EL_Oracle_TopologyBuilder
    node = importlib.import_module(f"{room}EL_Oracle_Client").EL_Oracle_Client
    mapping = linear(1, graph.n_procs, global_service_machine=0, current_machine=0)
    clients = [(node, [rank, 0, mapping, graph, sections, rounds, *after]) for rank in range(graph.n_procs)]
    return [(server, [-1, 0, mapping, graph, sections, rounds, ".", quiet]), *clients]


def _give_data(torch: Any, data: dict[str, np.ndarray]) -> None:
    """Let the published code find CIFAR-10 in arrays, in the form of its own transform: values from -1 to 1."""
    stored = {}  # made once, before nodes fork, which share it
    for part in ("train", "test"):
        images = torch.from_numpy(data[f"{part}/inputs"]).permute(0, 3, 1, 2)
        stored[part] = (images.float() / 255 - 0.5) / 0.5, data[f"{part}/labels"].tolist()

    class Images(torch.utils.data.Dataset):
        def __init__(self, root: str, train: bool, download: bool, transform: Any) -> None:
            del root, download, transform
            self.images, self.targets = stored["train" if train else "test"]

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.images[index], self.targets[index]

        def __len__(self) -> int:
            return len(self.targets)

    importlib.import_module("decentralizepy.datasets.CIFAR10").torchvision = types.SimpleNamespace(
        datasets=types.SimpleNamespace(CIFAR10=Images)
    )


# --- this side --------------------------------------------------------------------------------------------------------


def curves(python: str, repository: pathlib.Path, name: str, seed: int, config: Any) -> dict[str, Any]:
    """Run one configuration of the experiment with one seed by the published code."""
    from experiments import decentralizepy_curves as experiment

    data, graph = experiment.data_of(config), experiment.graph_of(config)
    with tempfile.TemporaryDirectory() as folder:
        source, answer = (str(pathlib.Path(folder) / name) for name in ("source.npz", "answer.npz"))
        np.savez(
            source,
            ini=experiment.ini(name, seed),
            graph="\n".join([str(graph.num_nodes), *(f"{a} {b}" for a, b in experiment.edges_of(config))]) + "\n",
            repository=str(repository / "src"),
            rounds=config.num_rounds,
            every=config.record_every,
            **{
                f"{part}/{kind}": getattr(getattr(data, part), kind)
                for part in ("train", "test")
                for kind in ("inputs", "labels")
            },
        )
        subprocess.run([python, "-P", __file__, "peer", source, answer], check=True)
        found = np.load(answer)
        return {
            "records": found["records"].tolist(),
            "torch": str(found["torch"]),
            "accuracy": found["accuracy"].round(5).tolist(),
            "loss": found["loss"].round(5).tolist(),
        }


def commit_of(repository: pathlib.Path, given: str | None) -> str:
    """Return the commit of a checkout; where there is no history, the one that is named."""
    words = ["git", "-C", str(repository), "rev-parse", "--short=7", "--verify", "HEAD"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if (repository / ".git").exists() and found.returncode == 0:
        return found.stdout.strip()
    if given is None:
        raise SystemExit(f"{repository} has no history: name the commit of the files by --commit")
    return given


def main() -> None:
    """Run all configurations with all seeds, and add each finished one to the file of curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("python", help="interpreter of an environment with PyTorch and what DecentralizePy imports")
    parser.add_argument("repository", type=pathlib.Path, help="a checkout of DecentralizePy")
    parser.add_argument("--commit", default=None, help="of the files, where they have no history")
    arguments = parser.parse_args()
    from experiments import decentralizepy_curves as experiment
    from theory.output import replacing

    config, target = experiment.Config(), experiment.PUBLISHED
    facts = {
        "code": "github.com/sacs-epfl/decentralizepy",
        "commit": commit_of(arguments.repository, arguments.commit),
        "data": experiment.data_of(config).source,
        "settings": experiment.settings_of(config),
    }
    kept = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {"runs": {}} | facts
    if other := [name for name, value in facts.items() if kept[name] != value]:
        raise SystemExit(f"{target} has curves of another {', '.join(other)}; move it away to make new ones")
    for seed in range(experiment.FIRST_SEED, experiment.FIRST_SEED + config.num_seeds):
        for name in experiment.NAMES:
            if f"{name}/{seed}" in kept["runs"]:
                continue
            one = curves(arguments.python, arguments.repository.absolute(), name, seed, config)
            if kept.setdefault("torch", one["torch"]) != one["torch"]:
                raise SystemExit(f"{target} has curves of torch {kept['torch']}, not {one['torch']}; move it away")
            kept["made"] = datetime.date.today().isoformat()
            kept["runs"][f"{name}/{seed}"] = {key: value for key, value in one.items() if key != "torch"}
            with replacing(target) as temporary:
                temporary.write_text(json.dumps(kept) + "\n", encoding="utf-8")
            print(f"{name}, seed {seed}: accuracy {np.mean(one['accuracy'], axis=0).round(3).tolist()}", flush=True)


if __name__ == "__main__":
    peer(*sys.argv[2:]) if sys.argv[1:2] == ["peer"] else main()
