"""How stale models are under push gossip: exact where everybody is a neighbour of everybody, else between bounds."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from gossipjax._base.arguments import flag, instance, optional_whole, real, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._engine.simulate import simulate
from gossipjax.observe import staleness_summary
from gossipjax.predict._forecast import Check, Forecast, Prediction, exact, mean_of
from gossipjax.protocol import gossip_averaging
from gossipjax.timeline import drawn_gossip
from gossipjax.timeline._checks import connected
from gossipjax.topology import Topology
from gossipjax.wrappers import track_versions

MOST_NODES = 5000
"""Delays of all pairs are a matrix."""
RUNS, RECORDS = 32, 8
"""Simulated plans, and records of each after it has settled."""
SETTLED = 8
"""Mean delays until a record, and between two of them."""


@recorded("mitra2024timely")
def pushes(
    peers: Topology | int,
    *,
    gossip_rate: float,
    update_rate: float,
    model_bytes: int | None = None,
    check: bool = False,
    seed: int = 0,
) -> Forecast:
    """Predict staleness when nodes update at rate m and push to a random neighbour at rate λ.

    ``S_i^j`` counts the updates of i that j has not heard of, and is m times the mean first passage of news from i to
    j, in the long run. With ``H_k = 1 + … + 1/k``:

    * every other node is a neighbour: ``mean_staleness = m H_{n−1}/λ`` and ``max_staleness = 2 m (n−1)/n · H_{n−1}/λ``,
      the mean over sources of the stalest node's, exactly;
    * on other graphs ``mean_staleness`` is bounded. From above by one path of least mean delay for each pair, on which
      a hop from u takes ``d_u/λ``. From below since k nodes push at the rate kλ at most, so that the l-th node to hear
      does so after ``H_l/λ`` or later;
    * with ``model_bytes``: ``bytes_per_second`` of all nodes, in the mean.

    >>> import gossipjax as gj
    >>> print(gj.predict.pushes(5, gossip_rate=2.0, update_rate=1.0)["mean_staleness"])
    mean_staleness: 1.0417 updates (exact)

    Args:
        peers: a connected topology, or n ≥ 2: every other node is a neighbour.
        gossip_rate: λ, pushes per node and second.
        update_rate: m, updates per node and second.
        model_bytes: of one message.
        check: whether to simulate 32 plans beside the formulas.
        seed: of the simulated plans.

    Raises:
        ValueError: if a number is out of range, or a graph is not connected.

    Reference: Mitra and Ulukus 2024, arXiv 2404.19749 (the model); formulas as in ``theory.staleness``.
    """
    if isinstance(peers, Topology):
        n = connected(peers, "peers").num_nodes
    else:
        n = peers
    n = whole("peers", n, least=2, most=MOST_NODES, remedy="a topology, or a number of nodes")
    push = real("gossip_rate", gossip_rate, above=0, unit="pushes per node and second")
    update = real("update_rate", update_rate, above=0, unit="updates per node and second")
    size, check, seed = optional_whole("model_bytes", model_bytes, least=1), flag("check", check), checked_seed(seed)
    everybody = not isinstance(peers, Topology) or peers.senders.size == n * (n - 1)
    run = _simulated(peers, n, push, update, seed) if check else {}
    if everybody:
        found = _complete(n, update / push, run)
    else:
        found = [_between(instance("peers", peers, Topology, ""), push, update, run.get("mean"))]
    if size is not None:
        words = f"a model of {size:,} bytes a push; Poisson clocks"
        found.append(exact("bytes_per_second", n * push * size, "bytes/s", "n λ · model_bytes", words, None))
    name = peers.name if isinstance(peers, Topology) else f"{n} nodes"
    return Forecast(f"pushes at {push:g} and updates at {update:g} per node and second, {name}", tuple(found))


def _complete(n: int, ratio: float, run: dict[str, Check]) -> list[Prediction]:
    mean = ratio * _harmonic(n - 1)
    words = "in the long run; Poisson clocks, uniform peers among all others, no flight times"
    return [
        exact(
            "mean_staleness", mean, "updates", "m H_{n−1}/λ; theory.staleness.mean_staleness", words, run.get("mean")
        ),
        exact(
            "max_staleness",
            2 * (n - 1) / n * mean,
            "updates",
            "2 m (n−1)/n H_{n−1}/λ; theory.staleness.max_staleness",
            f"mean over sources of the stalest node's; {words}",
            run.get("max"),
        ),
    ]


def _delays(graph: Topology, push: float) -> Float[np.ndarray, "n n"]:
    """Return the mean delays of the fastest paths, on which a hop from u takes ``d_u/λ`` seconds."""
    n, waits = graph.num_nodes, graph.out_degrees[graph.senders] / push
    return sparse.csgraph.dijkstra(sparse.csr_array((waits, (graph.senders, graph.receivers)), shape=(n, n)))


def _between(graph: Topology, push: float, update: float, check: Check | None) -> Prediction:
    n = graph.num_nodes
    high = update * float(_delays(graph, push).sum()) / (n * (n - 1))
    low = update / push * sum(_harmonic(k) for k in range(1, n)) / (n - 1)
    return Prediction(
        "mean_staleness",
        high,
        min(low, high),
        high,
        "updates",
        "bound",
        "m Σ d_u/λ on the shortest path; m Σ H_l/λ/(n − 1)",
        "mean over pairs, in the long run; Poisson clocks, uniform neighbours, no flight times",
        check,
    )


def _harmonic(k: int) -> float:
    return float(np.sum(1 / np.arange(1, k + 1)))


def _simulated(peers: Topology | int, n: int, push: float, update: float, seed: int) -> dict[str, Check]:
    """Run plans until news has gone round several times, and average what each records from then on."""
    farthest = _delays(peers, push).max() if isinstance(peers, Topology) else 0.0
    every = math.ceil(max(_harmonic(n - 1) / push, farthest) * n * (push + update))
    plan = drawn_gossip(peers, every * (SETTLED + RECORDS), update_rate=update, gossip_rate=push)
    keys = jax.random.split(jax.random.key(seed), RUNS)
    protocol = track_versions(gossip_averaging(), num_nodes=n)
    run = simulate(
        keys, protocol, plan, jnp.zeros(n), observers=[staleness_summary()], record_every=every, progress=False
    )
    later = run.dataset.isel(record=slice(-RECORDS, None))
    words = f"{RUNS} plans of {len(plan)} events"
    mean = later["staleness"].sel(statistic="mean").mean("record")
    return {"mean": mean_of(mean, words), "max": mean_of(later["max_staleness"].mean("record"), words)}
