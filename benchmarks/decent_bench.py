"""Compare with decent-bench, iterate by iterate and second by second: ``python -m benchmarks.decent_bench PYTHON``.

PYTHON is the interpreter of an environment with decent-bench, which needs Python 3.13 or newer and none of gossipjax:
``python3.13 -m venv peer && peer/bin/pip install decent-bench``, then ``peer/bin/python``. Both get the same starts,
losses, graph and Metropolis weights in a file; nothing of one is imported by the other. All is in double precision on
the CPU.

Iterates: the largest difference of any coordinate after 30 rounds. In decent-bench 0.3.0 ``DLM`` and ``DiNNO`` add up
messages in place, in the array that the sender and its other neighbours hold, too; rows "messages copied" run the same
classes with agents that read copies. Methods that draw samples and coins get those of the run of gossipjax in the file.
``GT_SAGA`` writes a gradient at its new model into the table, gossipjax the one that it took; rows "table at the old
model" run the class so. ``ADMM`` and ``ATG`` start with the z of gossipjax, not with their own. Versions before 0.3.0
had an ``ATC`` whose own term is not adapted, which the last row of a problem computes.

Seconds: decent-bench runs the loop of ``Algorithm.run`` with its initialization; gossipjax runs ``simulate`` twice, and
the first run less the second is the time of compiling. A pair of measurements is taken one right after the other, so
that other work on the machine meets both; the table has the median of the pairs' ratios, and their range.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types
from typing import Any

import numpy as np

DIMENSION, SAMPLES, ROUNDS, PAIRS = 10, 20, 30, 3
THEIR_ROUNDS = {10: 200, 100: 40, 1000: 5}
OUR_ROUNDS = {10: 2000, 100: 2000, 1000: 500}
RATE, FAST = 0.1, ("DGD", "ATC_Tracking", "EXTRA")
PERIOD, SNAPSHOTS, BATCHES = 5, 0.3, {"GT_SAGA": 1, "GT_SARAH": 2, "GT_VR": 1, "LT_ADMM_VR": 1}
"""Rounds from full gradient to full gradient, probability of a snapshot, and sizes of the batches that are drawn."""

PEERS: dict[str, dict[str, Any]] = {
    "DGD": {"step_size": RATE},
    "ATC": {"step_size": RATE},
    "ATC_Tracking": {"step_size": RATE},
    "AugDGM": {"step_size": RATE},
    "SimpleGT": {"step_size": RATE},
    "WangElia": {"step_size": RATE},
    "ED": {"step_size": RATE},
    "EXTRA": {"step_size": RATE},
    "NIDS": {"step_size": RATE},
    "KGT": {"step_size": RATE / 3, "aux_step_size": 0.7, "num_local_steps": 3},
    "LED": {"step_size": RATE, "aux_step_size": 0.25, "num_local_steps": 3},
    "ProxSkip": {"step_size": RATE, "aux_step_size": 1.0, "comm_probability": 1.0, "chi": 2.0},
    "DLM": {"step_size": RATE, "penalty": 0.3},
    "DiNNO": {"step_size": RATE, "penalty": 0.2, "num_local_steps": 3},
    "ADMM": {"penalty": 0.5, "relaxation": 0.7},
    "ATG": {"delta": RATE, "gamma": 0.5, "penalty": 0.5, "relaxation": 0.7},
    # Its z starts at x_0, ours at ρ x_0.
    "LT_ADMM": {"step_size": RATE, "aux_step_size": 0.05, "penalty": 1.0, "relaxation": 0.7, "num_local_steps": 3},
    "LT_ADMM_VR": {"step_size": RATE, "aux_step_size": 0.05, "penalty": 1.0, "relaxation": 0.7, "num_local_steps": 3},
    "GT_SAGA": {"step_size": RATE},
    "GT_SARAH": {"step_size": RATE, "num_local_steps": PERIOD - 1},
    "GT_VR": {"step_size": RATE, "snapshot_prob": SNAPSHOTS},
}
"""Classes of decent-bench and their settings; the methods of ours stand in :func:`_our_methods`."""


# --- the peer's side: imports neither gossipjax nor JAX ---------------------------------------------------------------


def peer(source: str, answer: str) -> None:
    """Run decent-bench on the problem of a file, and write models or seconds."""
    networkx = importlib.import_module("networkx")
    algorithms = importlib.import_module("decent_bench.algorithms.p2p")
    agents_of = importlib.import_module("decent_bench.agents").Agent
    network_of = importlib.import_module("decent_bench.networks").P2PNetwork
    arrays = importlib.import_module("decent_array.interoperability")
    arrays.set_backend("numpy")
    data = np.load(source)
    rounds, names = int(data["rounds"]), [str(name) for name in data["methods"]]
    if data["patched"]:
        _read_copies(agents_of, arrays)
    found, settings = {}, json.loads(str(data["settings"]))
    for name in names:
        costs = _costs(data, arrays.from_numpy, BATCHES.get(name, "all"))
        if name in BATCHES:
            for cost, drawn in zip(costs, data[f"draws/{name}"], strict=True):
                _draw_from(cost, drawn)
        agents = [agents_of(cost, state_snapshot_period=10**9) for cost in costs]
        network = network_of(networkx.from_numpy_array(data["adjacency"]), agents)
        pairs = zip(network.agents(), data["start"], strict=True)
        start = {agent: arrays.from_numpy(row) for agent, row in pairs}
        given = settings[name]
        if name in ("ADMM", "ATG"):  # z starts at 0 by default, ours at ρ x_0
            given |= {"z0": {agent: row * given["penalty"] for agent, row in start.items()}}
        method = getattr(algorithms, name)(x0=start, **given)
        if name == "GT_SAGA" and data["patched"]:
            _write_what_was_taken(method)
        if name == "ATG":
            _start_gradients_at_zero(method)
        if name == "GT_VR":
            tossed = iter(data["coins"].ravel().tolist())
            importlib.import_module("decent_bench.algorithms.p2p._gt_vr").random = types.SimpleNamespace(
                random=lambda tossed=tossed: next(tossed)
            )
        _ = network.weights  # computed at the first access, which with 1,000 agents takes a while
        wall, cpu = time.perf_counter(), time.process_time()
        method.run(network, rounds)
        found[f"{name}/wall"], found[f"{name}/cpu"] = time.perf_counter() - wall, time.process_time() - cpu
        found[name] = np.stack([np.asarray(arrays.to_numpy(agent.x)) for agent in network.agents()])
    np.savez(answer, **found)


def _read_copies(agents_of: Any, arrays: Any) -> None:
    """Let agents read copies of their messages, which they may then change."""
    messages = agents_of.messages

    def copied(agent: Any, channel: str = "default") -> dict[Any, Any]:
        return {sender: arrays.copy(message) for sender, message in messages(agent, channel).items()}

    agents_of.messages = copied


def _draw_from(cost: Any, drawn: np.ndarray) -> None:
    """Let a cost draw the batches of a list in turn."""
    given, batches = cost._sample_batch_indices, iter(drawn.tolist())

    def sample(indices: Any = "batch") -> list[int]:
        if isinstance(indices, str) and indices == "batch":
            cost._last_batch_used = next(batches)
            return cost._last_batch_used
        return given(indices)

    cost._sample_batch_indices = sample


def _start_gradients_at_zero(method: Any) -> None:
    """Let the z of gradients start at 0, which the peer starts as those of models."""
    given = method.initialize

    def initialize(network: Any) -> None:
        given(network)
        for agent in network.agents():
            agent.aux_vars["z_s"] = agent.aux_vars["z_s"] * 0.0

    method.initialize = initialize


def _write_what_was_taken(method: Any) -> None:
    """Let GT-SAGA write the gradient of its estimate into the table, at the same model and sample."""
    estimate = method._update_gradient_estimator

    def estimate_and_write(agent: Any) -> None:
        estimate(agent)
        used = agent.cost.batch_used
        agent.aux_vars["z_grads"][used] = agent.cost.gradient(agent.x, indices=used, reduction=None)

    method._update_gradient_estimator, method._update_gradient_table = estimate_and_write, lambda agent: None


def _costs(data: Any, array: Any, batch_size: int | str) -> list[Any]:
    costs = importlib.import_module("decent_bench.costs")
    if "curvature" in data:
        pairs = zip(data["curvature"], data["targets"], strict=True)
        return [costs.QuadraticCost(array(np.diag(a)), array(-a * b)) for a, b in pairs]
    labels = (data["responses"] + 1) / 2
    return [
        costs.LogisticRegressionCost(
            [(array(row), array(np.array([label]))) for row, label in zip(*shard, strict=True)], batch_size
        )
        for shard in zip(data["features"], labels, strict=True)
    ]


# --- our side ---------------------------------------------------------------------------------------------------------


def _our_methods(task: Any, graph: Any, prox: Any) -> dict[str, Any]:
    import optax
    from jax.tree_util import Partial

    import gossipjax as gj

    sgd, set_ = Partial(optax.sgd, RATE), PEERS
    tracking = {name: gj.gradient_tracking(task, sgd, order=order) for name, order in _ORDERS.items()}
    methods = tracking | {
        "DGD": gj.dpsgd(task, sgd, order="combine_then_adapt"),
        "ATC": gj.dpsgd(task, sgd),
        "SimpleGT": gj.simple_gt(task, sgd),
        "WangElia": gj.wang_elia(task, sgd),
        "ED": gj.exact_diffusion(task, sgd),
        "EXTRA": gj.extra(task, sgd),
        "NIDS": gj.nids(task, RATE),
        "KGT": gj.k_gt(task, RATE / 3, local_steps=3, communication_step_size=set_["KGT"]["aux_step_size"]),
        "LED": gj.led(task, sgd, local_steps=3, beta=set_["LED"]["aux_step_size"]),
        "ProxSkip": gj.prox_skip(task, sgd, probability=1.0, chi=2.0),
        "DLM": gj.dlm(task, RATE, penalty=set_["DLM"]["penalty"]),
        "DiNNO": gj.dinno(task, sgd, local_steps=3, penalty=set_["DiNNO"]["penalty"]),
        "ATG": gj.admm_tracking(task, RATE, graph, gamma=0.5, penalty=0.5, relaxation=0.7),
        "LT_ADMM": gj.lt_admm(task, sgd, graph, local_steps=3, penalty=1.0, beta=0.05, relaxation=0.7),
    }
    if prox is not None:
        return methods | {"ADMM": gj.admm(graph, prox, penalty=0.5, relaxation=0.7)}
    sampled, dual = gj.tasks.finite_sum(task), {"local_steps": 3, "penalty": 1.0, "beta": 0.05, "relaxation": 0.7}
    return methods | {
        "LT_ADMM_VR": gj.lt_admm_vr(sampled, RATE, graph, keep_table=True, **dual),
        "GT_SAGA": gj.gt_saga(sampled, RATE),
        "GT_SARAH": gj.gt_sarah(sampled, RATE, period=PERIOD, batch_size=BATCHES["GT_SARAH"]),
        "GT_VR": gj.gt_vr(sampled, RATE, snapshot_probability=SNAPSHOTS),
    }


_ORDERS = {"ATC_Tracking": "next", "AugDGM": "aug_dgm"}


def _problem(kind: str, num_nodes: int) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Return a task with exact gradients, a proximal operator where there is one, and the arrays for the peer."""
    import jax.numpy as jnp
    from jax.tree_util import Partial

    import gossipjax as gj

    if kind == "quadratic":
        rng = np.random.default_rng(0)
        targets = rng.standard_normal((num_nodes, DIMENSION))
        curvature = rng.uniform(0.5, 2.0, (num_nodes, DIMENSION))
        prox = Partial(_quadratic_prox, jnp.asarray(curvature), jnp.asarray(targets))
        return gj.tasks.quadratic(targets, curvature=curvature), prox, {"curvature": curvature, "targets": targets}
    task = gj.tasks.logistic_regression(num_nodes, SAMPLES, DIMENSION, heterogeneity=1.0)
    task = dataclasses.replace(task, data={**task.data, "penalty": jnp.zeros_like(task.data["penalty"])})
    return task, None, {name: np.asarray(task.data[name]) for name in ("features", "responses")}


def _quadratic_prox(curvature: Any, targets: Any, node: Any, z: Any, step_size: Any) -> Any:
    a = curvature[node]
    return (z + step_size * a * targets[node]) / (1 + step_size * a)


def _draws(num_nodes: int, *, table_twice: bool) -> dict[str, np.ndarray]:
    """Return the samples ``(n, draws, B)`` and coins ``(rounds, n)`` that methods of ours draw, in the peer's order."""
    import jax
    import jax.numpy as jnp

    from gossipjax._engine import loop
    from gossipjax.protocol import _gt_vr

    nodes, rounds = jnp.arange(num_nodes, dtype=jnp.uint32), jnp.arange(ROUNDS + 1, dtype=jnp.uint32)
    fold, base = jax.random.fold_in, jax.random.fold_in(jax.random.key(0), loop.STEPS)

    def each(stream: Any, draw: Any) -> np.ndarray:
        return np.asarray(jax.vmap(lambda node: jax.vmap(lambda t: draw(fold(fold(stream, node), t)))(rounds))(nodes))

    def samples(size: int) -> np.ndarray:
        return each(base, lambda key: jax.random.randint(jax.random.split(key)[0], (size,), 0, SAMPLES, jnp.int32))

    def local(key: Any) -> Any:
        """Draw a sample for each of the three local steps."""
        keys = [fold(key, number) for number in range(3)]
        return jnp.stack([jax.random.randint(jax.random.split(k)[0], (1,), 0, SAMPLES, jnp.int32) for k in keys])

    coins = each(fold(base, _gt_vr.SNAPSHOTS), jax.random.uniform)
    inner = [t for t in range(ROUNDS) if t % PERIOD]
    return {
        # The peer draws again for the table.
        "draws/GT_SAGA": np.repeat(samples(BATCHES["GT_SAGA"]), 2 if table_twice else 1, axis=1),
        "draws/LT_ADMM_VR": each(base, local)[:, :ROUNDS].reshape(num_nodes, -1, 1),
        "draws/GT_SARAH": samples(BATCHES["GT_SARAH"])[:, inner],
        # Its first snapshot and gradient precede its loop.
        "draws/GT_VR": samples(BATCHES["GT_VR"])[:, 1:],
        "coins": coins[:, 1:].T,
    }


class Case:
    """One problem on one graph, for both."""

    def __init__(self, kind: str, num_nodes: int, python: str) -> None:
        import gossipjax as gj

        self.graph = gj.topology.random_regular(num_nodes, 4, seed=0)
        self.task, prox, self.arrays = _problem(kind, num_nodes)
        self.start = np.random.default_rng(1).standard_normal((num_nodes, DIMENSION))
        self.mixing, self.python, self.kind = gj.mixing.metropolis(self.graph), python, kind
        self.methods = _our_methods(self.task, self.graph, prox)

    def theirs(self, names: list[str], rounds: int, *, patched: bool = False) -> dict[str, np.ndarray]:
        """Run decent-bench in its own process, as it is or with copies of messages and tables at the old model."""
        n = len(self.start)
        adjacency = np.zeros((n, n))
        adjacency[self.graph.senders, self.graph.receivers] = 1
        given = {"adjacency": adjacency, "start": self.start, "rounds": rounds, "methods": names, "patched": patched}
        given |= _draws(n, table_twice=not patched)
        with tempfile.TemporaryDirectory() as folder:
            source, answer = (str(pathlib.Path(folder) / name) for name in ("problem.npz", "answer.npz"))
            np.savez(source, settings=json.dumps(PEERS), **self.arrays, **given)
            # -P: the folder of this file is not searched for packages, for the file has the name of one.
            subprocess.run([self.python, "-P", __file__, "peer", source, answer], check=True)
            return dict(np.load(answer))

    def ours(self, name: str, rounds: int) -> np.ndarray:
        """Return the models after some rounds."""
        import jax
        import jax.numpy as jnp

        import gossipjax as gj

        plan = gj.timeline.rounds(self.mixing, rounds)
        run = gj.simulate(jax.random.key(0), self.methods[name], plan, jnp.asarray(self.start))
        return np.asarray(run.x)

    def seconds(self, name: str, rounds: int) -> tuple[float, float]:
        """Return wall and CPU seconds of a run of ours."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.ours(name, rounds)
        return time.perf_counter() - wall, time.process_time() - cpu


def _atc_before(case: Case, rounds: int) -> np.ndarray:
    """Adapt then combine in which the own term is not adapted: x⁺ = W (x − γ g) + diag(W) γ g."""
    weights, x = case.mixing.toarray(), case.start
    for _ in range(rounds):
        g = _gradients(case, x)
        x = weights @ (x - RATE * g) + np.diag(weights)[:, None] * RATE * g
    return x


def _gradients(case: Case, x: np.ndarray) -> np.ndarray:
    if case.kind == "quadratic":
        return case.arrays["curvature"] * (x - case.arrays["targets"])
    features, responses = case.arrays["features"], case.arrays["responses"]
    margins = responses * np.einsum("nmd,nd->nm", features, x)
    return -np.einsum("nm,nmd->nd", responses / (1 + np.exp(margins)), features) / features.shape[1]


ITERATIONS = {"DLM": ROUNDS + 1, "GT_SARAH": ROUNDS // PERIOD}
"""Where they are not rounds: the first of DLM only exchanges models, and one of GT-SARAH is an outer loop."""
PATCHED = {"DLM": "messages copied", "DiNNO": "messages copied", "GT_SAGA": "table at the old model"}


def compare(python: str, num_nodes: int) -> list[str]:
    """Compare iterates: one row for each method in common."""
    rows = ["| decent-bench | problem | largest difference | largest coordinate |", "| --- | --- | --- | --- |"]
    for kind in ("quadratic", "logistic"):
        case = Case(kind, num_nodes, python)
        names = [name for name in PEERS if name in case.methods]
        ours = {name: case.ours(name, ROUNDS) for name in names}
        theirs = case.theirs([name for name in names if name not in ITERATIONS], ROUNDS)
        for name in ITERATIONS.keys() & names:
            theirs |= case.theirs([name], ITERATIONS[name])
        rows += [_row(f"`{name}`", kind, ours[name], theirs[name]) for name in names]
        for name, words in PATCHED.items():
            if name in names:
                patched = case.theirs([name], ITERATIONS.get(name, ROUNDS), patched=True)[name]
                rows.append(_row(f"`{name}`, {words}", kind, ours[name], patched))
        rows.append(_row("`ATC` before 0.3.0, computed", kind, ours["ATC"], _atc_before(case, ROUNDS)))
    return rows


def _row(name: str, kind: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    return f"| {name} | {kind} | {np.abs(ours - theirs).max():.1e} | {np.abs(ours).max():.2f} |"


def pace(python: str, sizes: list[int]) -> list[str]:
    """Compare seconds for each iteration on quadratics."""
    head = "| agents | method | decent-bench, ms a round | gossipjax, ms a round | compiling, s | ratio | CPU ratio |"
    rows = [head, "|" + " --- |" * 7]
    for num_nodes in sizes:
        case, steps, rounds = Case("quadratic", num_nodes, python), THEIR_ROUNDS[num_nodes], OUR_ROUNDS[num_nodes]
        for name in FAST:
            first = case.seconds(name, rounds)[0]
            pairs = []
            for _ in range(PAIRS):
                theirs, ours = case.theirs([name], steps), case.seconds(name, rounds)
                pairs.append([theirs[f"{name}/wall"] / steps, theirs[f"{name}/cpu"] / steps, *np.array(ours) / rounds])
            wall, cpu, our_wall, our_cpu = np.array(pairs).T
            middle = [1e3 * statistics.median(each) for each in (wall, our_wall)]
            compiling = first - rounds * float(np.median(our_wall))
            rows.append(
                f"| {num_nodes:,} | `{name}` | {middle[0]:.3g} | {middle[1]:.3g} | {compiling:.1f} "
                f"| {_spread(wall / our_wall)} | {_spread(cpu / our_cpu)} |"
            )
    return rows


def _spread(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.0f} ({ratios.min():.0f} … {ratios.max():.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("python", help="interpreter of an environment with decent-bench")
    parser.add_argument("--agents", type=int, nargs="*", default=[10, 100, 1000], choices=list(THEIR_ROUNDS))
    arguments = parser.parse_args()
    known = subprocess.run([arguments.python, "-P", "-c", "import decent_bench"], capture_output=True, check=False)
    if known.returncode != 0:
        raise SystemExit(f"{arguments.python} cannot import decent_bench: pip install decent-bench (Python 3.13) there")
    import jax

    jax.config.update("jax_enable_x64", True)
    version = "from importlib.metadata import version; print(version('decent-bench'))"
    told = subprocess.run([arguments.python, "-P", "-c", version], capture_output=True, check=True, text=True).stdout
    print(f"decent-bench {told.strip()}\n")
    print("\n".join(compare(arguments.python, 16)), end="\n\n", flush=True)
    if arguments.agents:
        print("\n".join(pace(arguments.python, arguments.agents)))


if __name__ == "__main__":
    peer(*sys.argv[2:]) if sys.argv[1:2] == ["peer"] else main()
