"""What is refused before a run, where the graph is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from gossipjax._base.arguments import instance, shown, wholes
from gossipjax.robust._lanes import Rule
from gossipjax.topology import Topology


def checked_attackers(attackers: Any) -> Int[np.ndarray, " a"]:
    """Return the attackers in increasing order.

    Raises:
        ValueError: numbers that are negative, no whole numbers, or twice.
    """
    nodes = wholes("attackers", attackers, shape=(None,), least=0, remedy="numbers of nodes, such as (0, 3)")
    if len(np.unique(nodes)) < len(nodes):
        raise ValueError(f"attackers={shown(nodes.tolist())}: must name each node once")
    return np.sort(nodes)


def check_share(attackers: Int[np.ndarray, " a"], num_nodes: int) -> None:
    """Check that attackers are nodes, and fewer than half of all.

    Raises:
        ValueError: an attacker that is no node, or half of the nodes or more.
    """
    if len(attackers) and attackers[-1] >= num_nodes:
        raise ValueError(f"attackers: {attackers[-1]} is no node of {num_nodes}; nodes are 0 … {num_nodes - 1}")
    if 2 * len(attackers) >= num_nodes:
        raise ValueError(
            f"attackers: {len(attackers)} of {num_nodes} nodes are half or more, so that nobody can tell who is "
            "honest; name fewer"
        )


def check_victim(victim: int | None, attackers: Int[np.ndarray, " a"], graph: Topology | None) -> None:
    """Check that an attacker can lie to the one node that an attack is aimed at.

    Args:
        victim: the node; None: nothing to check.
        attackers: nodes.
        graph: of the plan, or None: unknown.

    Raises:
        ValueError: a victim that is an attacker; where the graph is known, one that is no node or hears no attacker.
    """
    if victim is None:
        return
    if victim in attackers:
        raise ValueError(f"attack: its victim, node {victim}, is an attacker; aim it at an honest node")
    if graph is not None:
        check_is_node(victim, graph.num_nodes)
        heard = graph.senders[graph.receivers == victim]
        if not np.isin(heard, attackers).any():
            raise ValueError(
                f"attack: its victim, node {victim}, hears no attacker in {graph.name}; its neighbours are "
                f"{shown(np.unique(heard).tolist())}: make one of them an attacker"
            )


def check_is_node(victim: int, num_nodes: int) -> None:
    """Check that the victim of an attack is a node.

    Raises:
        ValueError: a number that is no node.
    """
    if victim >= num_nodes:
        raise ValueError(
            f"attack: its victim, node {victim}, is no node of {num_nodes}; aim it at one of 0 … {num_nodes - 1}"
        )


def check_graphs(topology: Any, rule: Rule, attackers: Int[np.ndarray, " a"]) -> Topology:
    """Refuse graphs on which a rule cannot work, and attackers that cut them in two; return the union of the graphs.

    Raises:
        TypeError: no topology, and no list of them.
        ValueError: a node with too few neighbours for the rule, or honest nodes that are not connected.
    """
    graphs = list(topology) if isinstance(topology, list | tuple) else [topology]
    if not graphs:
        raise ValueError("topology=[]: must hold at least one graph; None means that nothing is checked")
    for graph in graphs:
        instance("topology", graph, Topology, "build one with gossipjax.topology, such as ring(8), or a list of them")
        check_share(attackers, graph.num_nodes)
        honest = np.setdiff1d(np.arange(graph.num_nodes), attackers)
        lonely = honest[graph.in_degrees[honest] + 1 < int(rule.least)]
        if len(lonely):
            raise ValueError(
                f"b={float(rule.tolerated):g}: node {lonely[0]} of {graph.name} has {graph.in_degrees[lonely[0]]} "
                f"neighbours, and the rule needs {int(rule.least) - 1}: lower b, or give every node more neighbours"
            )
    if len({graph.num_nodes for graph in graphs}) > 1:
        sizes = ", ".join(f"{graph.name}: {graph.num_nodes}" for graph in graphs)
        raise ValueError(f"topology: graphs that take turns have different numbers of nodes ({sizes})")
    union = _union(graphs)
    parts, _ = sp.csgraph.connected_components(union.adjacency()[np.ix_(honest, honest)], directed=False)
    if parts > 1:
        raise ValueError(
            f"attackers={shown(attackers.tolist())}: without them the honest nodes fall into {parts} parts that never "
            "hear of each other; name others, or connect the graph better"
        )
    return union


def _union(graphs: Sequence[Topology]) -> Topology:
    receivers, senders = sum(graph.adjacency() for graph in graphs).nonzero()
    return Topology(graphs[0].num_nodes, senders, receivers, True, " or ".join(graph.name for graph in graphs))
