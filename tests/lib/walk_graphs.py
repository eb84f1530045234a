"""Functions of graphs, weights and mixings with right arguments, and wrong values, for ``walk.py``."""

import pathlib

import jax.numpy as jnp
import networkx as nx
import numpy as np
from scipy import sparse

import gossipjax as gj

WRONG = (
    None, "a", "", b"a", 1.5, -1, 0, True, float("nan"), float("inf"), -2.5, 10**30, 1j, [], (), {}, object(), len, int,
    [1.5], ["a"], [None], [[1, 2], [3]], np.zeros(0), np.zeros((2, 3)), np.full((3, 3), np.nan), np.full((3, 3), -1.0),
    np.zeros((3, 3), complex), np.array(["a", "b"]), np.ones((2, 2, 2)), np.asarray(2.5), jnp.ones(3), sparse.eye(3),
    gj.topology.one_peer_exponential(4), nx.path_graph(3), gj.topology.ring(4),
)  # fmt: skip


def trials():
    """Yield calls in which every wrong value takes the place of every argument; some values are right in some."""
    for function, arguments in cases(pathlib.Path.cwd()):
        for name in [each for each in arguments if each not in (("form", "fields") if function is of_form else ())]:
            for value in WRONG:
                if not (name == "f" and callable(value)):
                    yield function, arguments, name, value, False


def cases(folder: pathlib.Path):
    """Every function of topology, weights and mixing with arguments that are right."""
    t, w, m = gj.topology, gj.mixing, gj.mixing
    ring, W, x = t.ring(3), w.metropolis(t.ring(3)), jnp.ones((3, 2))
    dense, stacked = m.from_matrix(W), m.stack_mixings([m.from_matrix(W)] * 2)
    group = m.GroupMixing(jnp.asarray([[0, 1]]), jnp.asarray([[0.5, 0.5]]), jnp.asarray([[0, 1]]))
    table = m.from_matrix(W, form="table")
    t.write_graph(folder / "ring.txt", ring)
    for builder in (t.ring, t.path, t.star, t.complete, t.exponential, t.one_peer_exponential, w.averaging):
        yield builder, {"num_nodes": 4}
    yield t.torus, {"rows": 2, "columns": 3}
    yield t.hypercube, {"dimension": 2}
    yield t.random_regular, {"num_nodes": 8, "degree": 3, "seed": 0, "tries": 9}
    yield t.erdos_renyi, {"num_nodes": 8, "probability": 0.9, "seed": 0, "tries": 9}
    yield t.watts_strogatz, {"num_nodes": 8, "neighbors": 4, "rewiring": 0.1, "seed": 0, "tries": 9}
    yield t.barabasi_albert, {"num_nodes": 8, "attachments": 2, "seed": 0}
    yield t.random_matching, {"num_nodes": 8, "seed": 0}
    yield t.random_matching_of, {"topology": ring, "seed": 0}
    fields = {"num_nodes": 2, "senders": np.array([0, 1]), "receivers": np.array([1, 0]), "directed": False}
    yield t.Topology, fields | {"name": "x", "labels": ("a", "b")}
    yield ring.neighbors, {"node": 1}
    yield ring.relabel, {"permutation": np.array([2, 0, 1])}
    yield ring.same_edges, {"other": ring}
    graph = nx.Graph([("a", "b"), ("b", "c")])
    options = {"ignore_weights": False, "name": "x", "allow_disconnected": False}
    yield t.from_networkx, {"graph": graph, "labels": ["c", "b", "a"], **options}
    yield t.from_adjacency, {"A": ring.adjacency(), "directed": False, **options}
    reading = {"format": "edges", "num_nodes": None, "first_node": 0, "directed": False}
    reading |= {"ignore_weights": False, "allow_disconnected": False}
    yield t.read_graph, {"path": folder / "ring.txt", **reading}
    yield t.read_graphs, {"paths": [folder / "ring.txt"]} | {k: reading[k] for k in reading if k[0] != "a"}
    yield t.with_ring, {"topology": ring}
    yield t.write_graph, {"path": folder / "other.txt", "topology": ring, "format": "edges"}
    for rule in (w.metropolis, w.max_degree, w.best_constant, w.fastest, w.uniform, w.column_stochastic):
        yield rule, {"topology": ring}
    yield w.lazy, {"W": W, "share": 0.5}
    for question in (w.is_row_stochastic, w.is_column_stochastic, w.is_doubly_stochastic, w.is_symmetric):
        yield question, {"W": W, "tolerance": 1e-8}
    yield w.check_weights, {"W": W, "kind": "row", "allow_negative": False, "tolerance": 1e-8}
    weighted = nx.Graph([("a", "b", {"weight": 0.5})])
    yield w.from_edge_weights, {"graph": weighted, "kind": "row", "attribute": "weight", "labels": None}
    yield m.neighbor_sum, {"mixing": table, "f": jnp.add, "x": x}
    yield m.messages, {"mixing": group, "num_rows": 3}
    yield m.to_dense, {"mixing": m.exchange(0, 1), "num_rows": 3}
    yield m.from_matrix, {"W": W, "form": "auto", "dtype": jnp.float32}
    yield m.describe, {"mixing": dense}
    yield m.stack_mixings, {"mixings": [dense, dense]}
    yield m.take_mixing, {"stacked": stacked, "r": 1}
    yield m.exchange, {"i": 0, "j": 1, "weight": 0.5}
    yield m.push, {"i": 0, "j": 1, "weight": 0.5}
    for mixing in (dense, m.exchange(0, 1), group, table):
        yield m.mix, {"mixing": mixing, "x": x}
        for field in mixing._fields:
            yield of_form, {"form": type(mixing), "fields": mixing._asdict(), field: getattr(mixing, field)}


def of_form(form, fields, **changed):
    """Mix with one field of a mixing changed."""
    return gj.mixing.mix(form(**fields | changed), jnp.ones((3, 2)))
