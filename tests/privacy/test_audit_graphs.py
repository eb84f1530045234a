"""Audits of whole graphs: who is reconstructed in rounds, by arithmetic in fractions, and the memory for 256 nodes."""

import json
import subprocess
import sys
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from exact_rows import known_from

import gossipjax as gj
from gossipjax.topology import from_networkx


def metropolis(graph):
    """Metropolis weights 1/(1 + max degree), exactly."""
    n = graph.number_of_nodes()
    W = [[Fraction(0)] * n for _ in range(n)]
    for i, j in graph.edges:
        W[i][j] = W[j][i] = Fraction(1, 1 + max(graph.degree[i], graph.degree[j]))
    for i in range(n):
        W[i][i] = 1 - sum(W[i])
    return W


def heard(W, graph, attackers, num_rounds):
    """Coefficients of all that attackers hear, without their own: row j of W^t for each neighbour j and round t."""
    n, power = len(W), [[Fraction(int(i == j)) for j in range(len(W))] for i in range(len(W))]
    near = {j for a in attackers for j in graph.neighbors(a)} - set(attackers)
    rows = []
    for _ in range(num_rounds):
        rows += [[Fraction(0) if c in attackers else power[j][c] for c in range(n)] for j in sorted(near)]
        power = [[sum(W[i][k] * power[k][c] for k in range(n) if W[i][k]) for c in range(n)] for i in range(n)]
    return rows


def solved(rows):
    """The unknowns with one solution."""
    return {c for c, known in enumerate(known_from(rows).determined) if known}


def graphs():
    """The Florentine families of the published attacks, and random graphs of 8 to 19 nodes."""
    yield nx.convert_node_labels_to_integers(nx.florentine_families_graph(), ordering="sorted")
    for n in (8, 11, 15, 19):
        seed = 0
        while not nx.is_connected(graph := nx.gnp_random_graph(n, 2.6 / n, seed=seed)):
            seed += 1
        yield graph


@pytest.mark.parametrize("graph", list(graphs()), ids=lambda graph: f"{graph.number_of_nodes()} nodes")
def test_who_is_reconstructed_in_rounds(graph):
    """One attacker and two that collude, after two rounds and three: the published attack, in exact arithmetic."""
    n, W = graph.number_of_nodes(), metropolis(graph)
    topology = from_networkx(graph)
    matrix = gj.mixing.metropolis(topology)
    np.testing.assert_allclose(np.asarray(W, float), matrix.toarray(), rtol=0, atol=1e-15)
    watchers = [(0,), (n // 2,), (0, n // 2), (1, n - 1)]
    sizes = set()
    for num_rounds in (2, 3):
        found = gj.audit(gj.timeline.rounds(matrix, num_rounds), observers=watchers)
        for row, attackers in zip(found.reconstructed, watchers, strict=True):
            expected = solved(heard(W, graph, attackers, num_rounds))
            assert set(np.flatnonzero(row)) - set(attackers) == expected
            sizes.add(len(expected))
    assert len(sizes) > 1


MEASURED = """
import json
import gossipjax as gj
from benchmarks.memory import peak_memory_bytes
plan = gj.timeline.poisson_pairs(gj.topology.random_regular(256, 4, seed=0), 4096, seed=0)
gj.audit(plan, gj.privacy.start_values())
found = gj.audit(plan, gj.privacy.steps())
gap = float((found.mu / found.mu_lower - 1)[found.mu_lower > 0].max())
print(json.dumps({"bytes": peak_memory_bytes(), "gap": gap}))
"""


@pytest.mark.slow
def test_all_pairs_of_256_nodes_fit_in_two_gigabytes():
    """In a process of its own, for its memory; the bounds of μ are close to each other."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["bytes"] < 2e9
    assert 0 <= measured["gap"] < 0.005
