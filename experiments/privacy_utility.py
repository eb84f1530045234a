"""What accuracy is left at a given ε, by mechanism and adversary, when ε is exact, or bounded for ZIP-DL?

D-PSGD on digits; every sample's gradient is clipped, and all samples of a shard are in every step. Privacy of one
sample: unit, a sample; relation, its gradient counts as 0 in all steps; δ as configured; ε of all T steps follows from
μ of Gaussian differential privacy. Mechanisms: independent noise in every step, the same with secure sums, DECOR's
noise of pairs, and ZIP-DL's noise that sums to zero over the receivers of a node. Two adversaries: an eavesdropper
of all messages, and one curious node, of which the worst pair of observer and victim counts.

μ is in proportion to 1/σ, so that one audit of the plan at σ = 1 says how much noise each mechanism needs for an ε. The
audit of ZIP-DL, which :func:`gossipjax.audit` does not read, stands here: its upper bound ``Σ |M_st|`` counts. Equal
steps reach ``Σ M_st``, a lower bound: where it is above μ of local noise, one node learns more from ZIP-DL. Against an
eavesdropper ZIP-DL and secure sums promise nothing new: the messages of ZIP-DL add up to the model itself, and masks
hide all, so that only the sums count.

The claim and its bands were stated before the runs. A quick run had DECOR with σ_p = 4σ only, and was undecided; the
pairs of σ_p = σ, and the smaller number of rounds, came after that. The row of the lower bound came after all runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

from experiments.lib import trivial
from experiments.lib.report import Row, over_seeds
from gossipjax import (
    Sharing,
    Task,
    audit,
    dpsgd,
    mixing,
    observe,
    privacy,
    replicate,
    sharing,
    simulate,
    tasks,
    topology,
)
from gossipjax.timeline import rounds
from theory.check.policy import Band, above, decide
from theory.privacy import pairwise_mu_squared

CLAIM = "At the same ε, DECOR's pairs, secure sums and noise that sums to zero leave more accuracy than local noise"
LOCAL, SECURE, ZIP = "local noise", "secure sums", "ZIP-DL"
DECOR = {"DECOR, σ_p = σ": 1.0, "DECOR, σ_p = 4σ": 4.0}
"""Standard deviation of the noise of a pair, over that of a node's own."""
WIRE, NODE = "eavesdropper", "one node"
CASES = (
    (WIRE, LOCAL),
    *((WIRE, name) for name in DECOR),
    (NODE, LOCAL),
    (NODE, SECURE),
    *((NODE, name) for name in DECOR),
    (NODE, ZIP),
)
"""Adversaries with the mechanisms that protect against them."""


class Config(NamedTuple):
    """Settings."""

    num_nodes: int = 16
    degree: int = 4
    num_rounds: int = 20
    epsilons: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    delta: float = 1e-5
    clip: float = 1.0
    learning_rate: float = 2.0
    num_seeds: int = 5
    seed: int = 0


QUICK = Config(num_nodes=8, num_rounds=12, epsilons=(1.0, 10.0), num_seeds=3)


def graph_of(config: Config) -> topology.Topology:
    """Return the graph, the same for all seeds."""
    return topology.random_regular(config.num_nodes, config.degree, seed=config.seed, tries=100)


def task_of(config: Config) -> tuple[Task, str]:
    """Give every node as many digits as the others, at random, so that a whole shard can be in every step."""
    data = tasks.digits()
    count = len(data.train.labels) // config.num_nodes * config.num_nodes
    shards = tasks.iid(count, config.num_nodes, seed=config.seed)
    return tasks.classification(data, shards, tasks.softmax_regression(64, data.num_classes)), data.source


def shard_size(config: Config) -> int:
    """Return the number of samples of a node, all of which are in every step."""
    return len(tasks.digits().train.labels) // config.num_nodes


# How much a mechanism tells at σ = 1


def mu_at_one(config: Config, adversary: str, mechanism: str) -> float:
    """Return the largest μ over pairs of adversary and node, for noise and steps of one unit."""
    graph, plan = graph_of(config), rounds(mixing.metropolis(graph_of(config)), config.num_rounds)
    if mechanism == ZIP:
        return zip_mu(config)[1]
    noise: Any = privacy.pairwise_noise(graph, 1.0, DECOR[mechanism]) if mechanism in DECOR else 1.0
    watchers: list[Any] = [privacy.Wire()] if adversary == WIRE else list(range(config.num_nodes))
    hears: Any = "sums" if mechanism == SECURE else "messages"
    return float(np.nanmax(audit(plan, privacy.steps(), observers=watchers, noise=noise, hears=hears).mu))


def zip_mu(config: Config) -> tuple[float, float]:
    """Return a lower and an upper bound of the largest μ of ZIP-DL over pairs of observer and node, for σ = Δ = 1."""
    W = mixing.metropolis(graph_of(config)).toarray()
    found = np.array([zip_bounds(W, config.num_rounds, node) for node in range(config.num_nodes)])
    low, high = np.sqrt(found.max(axis=(0, 2)))
    return float(low), float(high)


def zip_bounds(W: np.ndarray, num_rounds: int, observer: int) -> np.ndarray:
    """Bound μ² of all steps of each node against one receiver of ZIP-DL from below and above, ``(2, n)``; σ = Δ = 1.

    All is linear in the steps u and the normals g: node j sends ``x_j + u_j + n_jk`` to k, with ``n_jk = √(m/(m − 1))
    (g_jk − ḡ_j)``, and keeps ``x_j + u_j`` itself. With A and B the coefficients of what the observer hears, without
    its own: ``M_j = A_jᵀ (B Bᵀ)⁻¹ A_j``, and ``Σ M_st ≤ μ² ≤ Σ |M_st|``: the lower bound is that of equal steps. Both
    are 0 of the observer. Equal weights on all edges.
    """
    n, edges = len(W), np.argwhere((W > 0) & ~np.eye(len(W), dtype=bool))
    senders, receivers = edges.T
    same = senders[:, None] == senders[None]
    m = same.sum(axis=1)[:, None]
    mask = np.sqrt(m / (m - 1)) * (np.eye(len(edges)) - same / m)
    width = n + len(edges)
    x, heard = np.zeros((n, num_rounds * width)), []
    for step in range(num_rounds):
        u, g = (slice(step * width + low, step * width + high) for low, high in ((0, n), (n, width)))
        x[:, u] += np.eye(n)
        sent = x[senders].copy()
        sent[:, g] += mask
        heard.append(sent[receivers == observer])
        x = np.diag(W)[:, None] * x
        np.add.at(x, receivers, W[receivers, senders][:, None] * sent)
    columns = np.concatenate(heard).reshape(-1, num_rounds, width)
    B = columns[:, :, n:][:, :, senders != observer].reshape(len(columns), -1)
    inverse = np.linalg.inv(B @ B.T)
    found = np.zeros((2, n))
    for j in range(n):
        if j != observer:
            M = columns[:, :, j].T @ inverse @ columns[:, :, j]
            found[:, j] = M.sum(), np.abs(M).sum()
    return found


def mu_for(epsilon: float, delta: float) -> float:
    """Return the μ of which ε is the exact ε at δ."""
    low, high = 1e-6, 1e3
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if privacy.epsilon(middle, delta) < epsilon else (low, middle)
    return float(low)


# Learning


def learner(config: Config, task: Task, mechanism: str, noise: float) -> Any:
    """Return D-PSGD with a mechanism; ``noise`` is σ over what a sample can move, clip over the size of a shard."""
    step, graph = config.clip / shard_size(config), graph_of(config)
    inside = noise if mechanism in (LOCAL, SECURE) else 0.0
    private = privacy.sample_dp(task, clip=config.clip, noise=inside, batch_size=shard_size(config))
    std = config.learning_rate * noise * step
    said: Sharing | None = None
    if mechanism in DECOR:
        said = sharing.decor(graph, std, DECOR[mechanism] * std)
    elif mechanism == ZIP:
        said = sharing.zip_dl(graph, std)
    return dpsgd(private, Partial(optax.sgd, config.learning_rate), sharing=said)


def accuracy(config: Config, task: Task, mechanism: str, noise: float) -> np.ndarray:
    """Return the mean test accuracy of the nodes at the end, by seed. Secure sums learn what plain sums learn."""
    plan = rounds(mixing.metropolis(graph_of(config)), config.num_rounds)
    start = replicate(task.init(jax.random.key(config.seed)), config.num_nodes)
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)
    protocol = learner(config, task, mechanism, noise)
    watch = [observe.node_metrics(task)]
    run = simulate(keys, protocol, plan, start, observers=watch, record_every=config.num_rounds)
    return run.dataset.test_accuracy.sel(statistic="mean").isel(record=-1).values


def run(config: Config) -> xr.Dataset:
    """Audit every mechanism once, give it the noise that each ε needs, and learn."""
    task, source = task_of(config)
    unit = np.array([mu_at_one(config, *case) for case in CASES])
    noise = unit[:, None] / np.array([mu_for(epsilon, config.delta) for epsilon in config.epsilons])
    found = [
        [accuracy(config, task, mechanism, float(z)) for z in row]
        for (_, mechanism), row in zip(CASES, noise, strict=True)
    ]
    graph = graph_of(config).adjacency().toarray()
    closed = [
        np.sqrt(pairwise_mu_squared(graph, 1.0, ratio, config.num_rounds).max()) for ratio in (0.0, *DECOR.values())
    ]
    return xr.Dataset(
        {
            "accuracy": (("case", "epsilon", "seed"), np.array(found)),
            "unit_mu": ("case", unit),
            "closed_mu": ("mechanism_of_pairs", closed),
            "zip_least_mu": zip_mu(config)[0],
            "noise": (("case", "epsilon"), noise),
            "without": ("seed", accuracy(config, task, LOCAL, 0.0)),
        },
        {
            "adversary": ("case", [adversary for adversary, _ in CASES]),
            "mechanism": ("case", [mechanism for _, mechanism in CASES]),
            "epsilon": list(config.epsilons),
            "mechanism_of_pairs": [LOCAL, *DECOR],
        },
        {
            "num_nodes": config.num_nodes,
            "degree": config.degree,
            "num_rounds": config.num_rounds,
            "delta": config.delta,
            "data": source,
            "shard_size": shard_size(config),
            "trivial": trivial.noted(task, "accuracy"),
            "floor": trivial.floor_of(trivial.predictors(task, "accuracy"), True),
        },
    )


def case(dataset: xr.Dataset, adversary: str, mechanism: str) -> xr.Dataset:
    """Return the results of one adversary and mechanism."""
    return dataset.isel(case=CASES.index((adversary, mechanism)))


def table(dataset: xr.Dataset) -> list[Row]:
    """What is known exactly, accuracy without noise, and accuracy at equal ε beside that of local noise."""
    rows = _exact(dataset)
    rows.append(over_seeds("accuracy, clipped, without noise", dataset.without.values, source="ε = ∞"))
    rows += trivial.rows("accuracy, ", trivial.stored(dataset), True)
    for adversary, mechanism in CASES:
        for epsilon in dataset.epsilon.values:
            rows.append(_against_local(dataset, adversary, mechanism, float(epsilon)))
    return rows


def _exact(dataset: xr.Dataset) -> list[Row]:
    """Compare audits with closed forms; noise that a mechanism needs, in that of local noise for the same ε."""
    rows = []
    for name in (LOCAL, *DECOR):
        ratio = float(case(dataset, WIRE, name).unit_mu / dataset.closed_mu.sel(mechanism_of_pairs=name))
        same = np.full(dataset.sizes["seed"], ratio)  # an audit has no seeds
        words = f"closed form; {decide(same, Band(1 - 1e-6, 1 + 1e-6))}"
        rows.append(over_seeds(f"μ at σ = 1, {WIRE}, {name}, over its closed form", same, 1.0, words))
    for adversary, mechanism in CASES:
        ratio = float(case(dataset, adversary, mechanism).unit_mu / case(dataset, adversary, LOCAL).unit_mu)
        if mechanism != LOCAL:
            rows.append(
                Row(f"noise for one ε, {adversary}, {mechanism}", ratio, np.nan, np.nan, "in that of local noise")
            )
    least = float(dataset.zip_least_mu / case(dataset, NODE, LOCAL).unit_mu)
    rows.append(Row(f"least μ, {NODE}, {ZIP}", least, np.nan, np.nan, "in that of local noise; above 1: it tells more"))
    return rows


def _against_local(dataset: xr.Dataset, adversary: str, mechanism: str, epsilon: float) -> Row:
    """At the smallest ε the claim is more accuracy; elsewhere the change is measured."""
    at = case(dataset, adversary, mechanism).accuracy.sel(epsilon=epsilon).values
    if mechanism == LOCAL:
        return over_seeds(f"accuracy at ε = {epsilon:g}, {adversary}, {mechanism}", at, source="measured")
    change = at - case(dataset, adversary, LOCAL).accuracy.sel(epsilon=epsilon).values
    claimed = epsilon == dataset.epsilon.values[0]
    words = str(decide(change, above(0.0))) if claimed else "measured"
    return over_seeds(f"accuracy at ε = {epsilon:g}, {adversary}, {mechanism} − {LOCAL}", change, source=words)
