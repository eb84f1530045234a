"""Run a plan on real processes."""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import secrets
import socket
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Key, PyTree

from gossipjax._base.arguments import flag, instance, real, reals, sequence_of, shown
from gossipjax._base.rows import finite_rows
from gossipjax._base.streams import STARTS
from gossipjax._engine.driver import Diverged
from gossipjax._engine.prepare import Execution, Recording, prepare
from gossipjax._engine.programs import Job as Run
from gossipjax.deploy import _steps
from gossipjax.deploy._clocks import longest_wait
from gossipjax.deploy._job import Job
from gossipjax.deploy._link import Link, each_node
from gossipjax.deploy._programs import Plan, plan_of
from gossipjax.deploy._report import Report, report_of
from gossipjax.deploy._supervisor import run_nodes
from gossipjax.deploy._wire import TOKEN_BYTES, Codec
from gossipjax.types import Params, Planned, Protocol, Task, Timeline, as_timeline

LOOPBACK = "127.0.0.1"
MOST_NODES = 256
"""Processes beyond this number would not find the memory of one machine."""


def execute(
    key: Key[Array, ""],
    protocol: Protocol,
    timeline: Timeline | Planned,
    x0: Params | Task | Partial,
    *,
    link: Link | None = None,
    compute_seconds: ArrayLike | None = None,
    overlap: bool = True,
    time_scale: int | float = 1.0,
    patience: int | float | None = None,
    addresses: Sequence[str] = (LOOPBACK,),
) -> Report:
    """Run a protocol over a timeline on one operating-system process per node, with messages over TCP.

    The plan is the one that :func:`gossipjax.simulate` runs, with the same keys, draws and steps, and so are the models
    at the end: bit for bit if the weights of the mixing are powers of two, else up to rounding, because another program
    may contract ``a + w b`` to one multiply-add (1e-6 of a parameter). Run the simulation with ``strategy="map"`` and
    on XLA's same flags for the former.

    Computation and links are emulated: with ``compute_seconds`` a node trains, then sleeps to the end of that time, and
    its uplink sleeps to the rate of the link. The report says how well processes keep this clock, and nothing about how
    fast hardware or a network is.

    In rounds, a node trains, sends its message to its neighbours, and goes on when theirs have arrived, whatever round
    the others are in. The times are compared with the model of :func:`gossipjax.metered`, with the same ``overlap``.
    At the events of :func:`~gossipjax.timeline.pairwise` and :func:`~gossipjax.timeline.push_gossip`, a node acts at
    the planned time, or later, when its messages have arrived. Messages are the raw bytes of models; nodes accept those
    of this run only, and nothing that comes from a socket is unpickled. All processes run on this machine, on its CPUs.

    ::

        link = gj.deploy.Link(bytes_per_second=1e6, latency_seconds=0.01)
        report = gj.deploy.execute(key, protocol, timeline, task, link=link, compute_seconds=0.1)
        print(report, report.share_within(0.05))

    Args:
        key: of the run.
        protocol: :func:`gossipjax.dpsgd`, :func:`gossipjax.local_sgd`, :func:`gossipjax.gossip_averaging` or
            :func:`gossipjax.ad_psgd`, sharing full models, a random subset, or the coordinates of top-k or JWINS.
        timeline: rounds on any graph, fixed or changing, pairwise averaging or pushes; or a plan of such rounds.
        x0: where to start, as in :func:`gossipjax.simulate`.
        link: uplinks of the nodes, emulated by a token bucket in each sender; None: as fast as the machine allows.
        compute_seconds: in rounds, time of the local computation of a round, a number or one per node ``(n,)``: nodes
            train really, then sleep to its end. None: as long as it takes. Events have the clocks of their plan.
        overlap: whether a node goes on while its uplink still sends; otherwise a turn ends when the uplink is idle.
        time_scale: real seconds for each simulated second. Below 1, a run is faster than what it emulates.
        patience: real seconds without a sign of life, or of waiting for one message, after which the run is given up;
            None: 10 times the longest planned wait and the longest compilation, and 5 more. A node that
            starts has 300 seconds, or ``patience`` if that is longer.
        addresses: of this machine's interfaces on which nodes listen, one for all or one per node. Messages and the
            token travel in the clear, and whoever reaches a port can fill the memory of its node; use other addresses
            only on a network you trust.

    Returns:
        Models, messages, and measured beside predicted times.

    Raises:
        ValueError: whatever does not fit, before a process starts: a protocol, a sharing or a timeline that cannot be
            deployed (named), numbers out of range, an address that is none of this machine or stands for all its
            interfaces, or functions that no other process can import.
        ImportError: pyzmq is not installed.
        OSError: the system is Windows, which cannot fork processes.
        NodeFailed: a node died, hung, fell behind or raised an error; names it, its pid, and how far each node got. All
            processes have ended.
        Diverged: a model became infinite or NaN.

    Reference: Dhasade et al. 2023, arXiv 2304.08322 (a process per node over ZeroMQ).
    """
    _check_system()
    timeline = as_timeline(timeline)
    _check_key(key)
    run, _, _ = prepare(key, protocol, timeline, x0, [], Recording(None, None, None), Execution("auto", "sequential"))
    plan = plan_of(key, timeline)
    settings = _settings(timeline, plan, link, compute_seconds, addresses)
    settings |= {"overlap": flag("overlap", overlap)}
    settings |= {"time_scale": real("time_scale", time_scale, above=0, unit="real seconds per simulated second")}
    if patience is not None:
        patience = real("patience", patience, above=0, unit="seconds")
    _steps.sharing_of(run.protocol)
    _steps.check_order(run.protocol, plan)
    _check_installed()
    job = _job(run, plan, settings)
    results = run_nodes(job, patience, longest_wait(plan, job.compute_seconds, _burst_s(job)) * job.time_scale)
    report = report_of(job, results)
    bad = np.flatnonzero(~np.asarray(finite_rows(report.x)))
    if bad.size:
        raise Diverged(f"parameters of node {bad[0]} became infinite or NaN: lower the learning rate")
    return report


def _check_system() -> None:
    if sys.platform == "win32":
        raise OSError("gossipjax.deploy forks processes, which Windows cannot: use Linux, macOS or WSL")


def _check_key(key: Any) -> None:
    if getattr(key, "ndim", 0):
        raise ValueError(f"key={shown(key)}: must be one typed key, jax.random.key(0); processes run one seed")


def _check_installed() -> None:
    if importlib.util.find_spec("zmq") is None:
        raise ImportError('gossipjax.deploy sends messages with pyzmq: pip install "gossipjax[deploy]"')


def _settings(timeline: Timeline, plan: Plan, link: Any, compute_seconds: Any, addresses: Any) -> dict[str, Any]:
    """Check what is given for each node."""
    n = timeline.properties.num_nodes
    if n > MOST_NODES:
        raise ValueError(f"{timeline.properties.name} has {n} nodes: deploy at most {MOST_NODES}, one process each")
    link = Link() if link is None else instance("link", link, Link, "such as gossipjax.deploy.Link(1e6, 0.01)")
    if compute_seconds is not None:
        if not plan.rounds:
            raise ValueError(
                f"compute_seconds={shown(compute_seconds)}: {timeline.properties.name} has planned when nodes compute; "
                "leave it out"
            )
        numbers = reals("compute_seconds", compute_seconds, least=0, unit="seconds")
        compute_seconds = each_node("compute_seconds", numbers, n)
    return {
        "bytes_per_second": each_node("bytes_per_second", np.asarray(link.bytes_per_second), n),
        "latency_seconds": each_node("latency_seconds", np.asarray(link.latency_seconds), n),
        "compute_seconds": compute_seconds,
        "addresses": _addresses(addresses, n),
    }


def _addresses(addresses: Any, n: int) -> tuple[str, ...]:
    """Return one address per node, each of an interface of this machine."""
    found = sequence_of("addresses", addresses, str, "such as ('127.0.0.1',)")
    if len(found) not in (1, n):
        raise ValueError(f"addresses={shown(found)}: give one for all nodes, or {n}, one per node")
    for address in sorted(set(found)):
        _check_one_interface(address)
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(kind) as probe:
                probe.bind((address, 0))
        except OSError as error:
            raise ValueError(
                f"addresses={shown(found)}: {address!r} is no address of this machine ({error}); use '127.0.0.1'"
            ) from error
    return found if len(found) == n else found * n


def _check_one_interface(address: str) -> None:
    """Refuse names, and addresses that stand for every interface."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError as error:
        raise ValueError(f"addresses: {address!r} is no IPv4 or IPv6 address; use '127.0.0.1'") from error
    if number.is_unspecified or (number.version == 6 and number.ipv4_mapped == ipaddress.IPv4Address(0)):
        raise ValueError(f"addresses: {address!r} stands for every interface of this machine; use '127.0.0.1'")


def _job(run: Run, plan: Plan, settings: dict[str, Any]) -> Job:
    """Put together what the nodes need."""
    x0 = _start(run)
    return Job(
        key_data=np.asarray(jax.random.key_data(run.key)),
        key_kind=str(jax.random.key_impl(run.key)),
        protocol=run.protocol,
        timeline=dataclasses.replace(run.timeline, xs=None),
        x0=x0,
        plan=plan,
        codec=_codec(run, plan, x0),
        token=secrets.token_bytes(TOKEN_BYTES),
        **settings,
    )


def _codec(run: Run, plan: Plan, x0: Any) -> Codec:
    """Return the form of a message: of a model, or in rounds of the coefficients that a sharing makes of it."""
    if plan.rounds and len(plan.indices):
        timeline = dataclasses.replace(run.timeline, xs=jax.tree.map(lambda leaf: leaf[0], plan.xs))
        state = jax.eval_shape(run.protocol.init, run.key, x0)
        said = jax.eval_shape(_steps.speak, run.key, run.protocol, timeline, state, np.int32(0))[2]
        leaves = jax.tree.leaves(said.values)
    else:
        leaves = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(x0)]
    masked = _steps.has_masks(_steps.sharing_of(run.protocol))
    return Codec(tuple(leaf.shape for leaf in leaves), tuple(leaf.dtype for leaf in leaves), masked)


@jax.jit
def _drawn(start: Partial, key: Key[Array, ""]) -> Params:
    return start(key)


def _start(run: Run) -> PyTree[np.ndarray]:
    """Return the stacked models at the start, as a simulation draws them."""
    x0 = _drawn(run.start, jax.random.fold_in(run.key, STARTS)) if isinstance(run.start, Partial) else run.start
    return jax.tree.map(np.asarray, x0)


def _burst_s(job: Job) -> float:
    """Return the longest time that the messages of one turn can take."""
    counts = [sum(len(send.receivers) for send in turn.sends) for turns in job.plan.turns for turn in turns]
    sent = max(counts, default=0) * job.codec.most_bytes / job.bytes_per_second
    return float((sent + job.latency_seconds).max())
