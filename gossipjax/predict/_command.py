"""The command ``python -m gossipjax predict``: predictions for the usual graphs, without a program."""

from __future__ import annotations

import argparse
from typing import Any

from gossipjax.design import standard_graphs
from gossipjax.devices import fitted
from gossipjax.predict._forecast import Forecast
from gossipjax.predict._meetings import meetings
from gossipjax.predict._pushes import pushes
from gossipjax.predict._rounds import rounds
from gossipjax.topology import Topology


def add_command(commands: Any) -> None:
    """Add the command and its three kinds of timeline."""
    parser = commands.add_parser("predict", help="say what will happen: agreement, staleness, bytes, seconds")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, words in (("rounds", "synchronous rounds"), ("meetings", "of random pairs"), ("pushes", "push gossip")):
        _add_shared(kinds.add_parser(kind, help=words), kind)


def _add_shared(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("--graph", default="ring", help="ring, path, star, torus, complete, 4-regular, … (ring)")
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--model-bytes", type=int, help="of one message")
    parser.add_argument("--seed", type=int, default=0, help="of random graphs, phones and the simulation (0)")
    parser.add_argument("--check", action="store_true", help="simulate as well, and compare")
    if kind == "rounds":
        parser.add_argument("--rounds", type=int, required=True)
        parser.add_argument("--error", type=float, help="share of the first disagreement to reach")
        parser.add_argument("--local-steps", type=int, help="on fitted phones; needs --model-bytes")
    elif kind == "meetings":
        parser.add_argument("--events", type=int, required=True)
        parser.add_argument("--rate", type=float, default=1.0, help="wake-ups per node and second (1)")
        parser.add_argument("--error", type=float, help="share of the first disagreement to reach")
    else:
        parser.add_argument("--gossip-rate", type=float, required=True, help="pushes per node and second")
        parser.add_argument("--update-rate", type=float, default=1.0, help="updates per node and second (1)")


def answer(given: argparse.Namespace) -> Forecast:
    """Predict what a command asks for.

    Raises:
        ValueError: if there is no such graph, or a number is out of range.
    """
    graph, shared = _graph(given.graph, given.nodes, given.seed), {"check": given.check, "seed": given.seed}
    shared["model_bytes"] = given.model_bytes
    if given.kind == "meetings":
        return meetings(graph, given.events, rate=given.rate, error=given.error, **shared)
    if given.kind == "pushes":
        return pushes(graph, gossip_rate=given.gossip_rate, update_rate=given.update_rate, **shared)
    phones = None if given.local_steps is None else fitted(given.nodes, seed=given.seed)
    return rounds(graph, given.rounds, error=given.error, devices=phones, local_steps=given.local_steps, **shared)


def _graph(name: str, num_nodes: int, seed: int) -> Topology:
    graphs = {title.split()[0]: graph for title, graph in standard_graphs(num_nodes, seed=seed).items()}
    if name not in graphs:
        raise ValueError(f"graph={name!r}: {num_nodes} nodes have {', '.join(graphs)}")
    return graphs[name]
