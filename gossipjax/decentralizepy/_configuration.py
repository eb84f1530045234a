"""A configuration of DecentralizePy as a task, a protocol and a timeline."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from gossipjax import mixing, timeline, topology
from gossipjax._base.arguments import instance, whole
from gossipjax._base.paths import as_path
from gossipjax.decentralizepy._data import problem_of
from gossipjax.decentralizepy._ini import Kind, Section, count, read_sections, seed, word
from gossipjax.decentralizepy._sharing import Sent, sharing_of
from gossipjax.decentralizepy._training import local_steps, optimizer_of, training_of
from gossipjax.protocol import dpsgd
from gossipjax.topology import Topology
from gossipjax.types import Protocol, Task, Timeline

SECTIONS = ("DATASET", "OPTIMIZER_PARAMS", "TRAIN_PARAMS", "COMMUNICATION", "SHARING")

NODE_SEED = 97
"""Of the graphs, where the file has no random_seed: DecentralizePy's nodes and data sets have defaults of their own."""
DYNAMIC = (
    "[NODE]: a fresh regular graph in every round, of the dynamic peer sampler. No key of the file asks for EL-Local; "
    "it is timeline.changing_rounds(timeline.overlays.epidemic(n, s, seed=seed), num_rounds, weights='uniform')"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Configuration:
    """A run of DecentralizePy: ``gj.simulate(key, found.protocol, found.timeline, found.task)``.

    Attributes:
        task: data, split over the nodes, and model.
        protocol: D-PSGD with the local steps and the sharing of the file.
        timeline: rounds on the graph, or on a fresh one in every round.
        notes: what differs from DecentralizePy, and which keys have no effect, in words.
    """

    task: Task
    protocol: Protocol
    timeline: Timeline
    notes: tuple[str, ...]


def _check_communication(section: Section) -> None:
    section.choose("comm_class", {"TCP": None, "TCP_ACK": None}, {})
    number = Kind(int, "a whole number", None)
    section.take(
        {"comm_package": word(), "comm_class": word(), "addresses_filepath": word(), "offset": number}
        | {"recv_timeout": number}
    )


def _plan(
    sections: dict[str, Section], graph: Topology, sent: Sent, num_rounds: int
) -> tuple[Timeline, tuple[str, ...]]:
    if "NODE" not in sections:
        weigh = mixing.uniform if sent.plain else mixing.metropolis
        return timeline.rounds(weigh(graph), num_rounds), ()
    node, n = sections["NODE"], graph.num_nodes
    degree = node.take({"graph_degree": count()})["graph_degree"]
    if degree >= n or degree * n % 2:
        node.refuse("graph_degree", f"use a number from 1 to {n - 1} whose product with the {n} nodes is even")
    number = sections["DATASET"].one("random_seed", seed(NODE_SEED))
    overlay = timeline.overlays.decentralizepy_regular(n, degree, seed=number)
    plan = timeline.changing_rounds(overlay, num_rounds, weights="uniform" if sent.plain else "metropolis")
    return plan, (DYNAMIC,)


def _graph_of(graph: Any) -> Topology:
    found: Any = instance("graph", graph, (Topology, str, os.PathLike), "a topology, or the path of a graph file")
    if isinstance(found, Topology):
        return found
    try:
        return topology.read_graph(found)
    except ValueError as error:
        raise ValueError(f"graph={str(found)!r}: {error}") from error


def read_configuration(
    path: str | os.PathLike[str], *, graph: Topology | str | os.PathLike[str], num_rounds: int, data: Any = None
) -> Configuration:
    """Read an INI file of DecentralizePy, and build the task, the protocol and the timeline that it describes.

    Every key is used, belongs to the machines that DecentralizePy runs on (packages, folders, addresses), is listed in
    ``notes`` because it has no effect here, or is refused by name with what is known. Values are parsed by type;
    nothing in the file is imported or executed.

    Args:
        path: file with the sections DATASET, OPTIMIZER_PARAMS, TRAIN_PARAMS, COMMUNICATION, SHARING, and NODE for a
            fresh regular graph in every round (:func:`gossipjax.timeline.overlays.decentralizepy_regular`).
        graph: who can talk to whom, or the path of one of DecentralizePy's graph files
            (:func:`gossipjax.topology.read_graph`). With NODE, only its number of nodes counts.
        num_rounds: communication rounds, an argument of DecentralizePy's command line.
        data: stands for the data set that the file names, of the same sort (images, with writers for Femnist and
            Celeba; texts; ratings). None: it is loaded where this package can.

    Returns:
        What to run, and ``notes`` on what differs from DecentralizePy.

    Raises:
        ValueError: no such file; a section, key or value that is not known or has no counterpart here. The message
            names it, says why, and lists what is known.
        TypeError: a graph or data of the wrong sort.
        DataUnavailable: if the data set is neither in the user's folder nor available for download.

    Reference: Dhasade et al. 2023, arXiv 2304.08322 (DecentralizePy).
    """
    source = as_path("path", path)
    num_rounds = whole("num_rounds", num_rounds, least=1)
    graph = _graph_of(graph)
    sections = read_sections(source, SECTIONS, ("NODE",))
    sent = sharing_of(sections["SHARING"])
    training = training_of(sections["OPTIMIZER_PARAMS"], sections["TRAIN_PARAMS"])
    _check_communication(sections["COMMUNICATION"])
    plan, more = _plan(sections, graph, sent, num_rounds)
    problem = problem_of(sections["DATASET"], graph.num_nodes, training.batch_size, data)
    if sections["TRAIN_PARAMS"].values["loss_class"] != problem.loss:
        sections["TRAIN_PARAMS"].refuse("loss_class", f"this data set is learned with {problem.loss}; use it")
    steps = local_steps(sections["TRAIN_PARAMS"], training, problem.shard_sizes)
    protocol = dpsgd(problem.task, optimizer_of(training, steps), local_steps=steps, sharing=sent.sharing)
    return Configuration(problem.task, protocol, plan, (*problem.notes, *sent.notes, *more))
