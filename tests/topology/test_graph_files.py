"""Files of graphs from other programs, of weighted graphs, and of the graphs of many rounds."""

import io

import networkx as nx
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from gossipjax import mixing
from gossipjax import topology as tp
from gossipjax.testing import connected_graphs

PATH3 = tp.path(3)
BANNER = "%%MatrixMarket matrix coordinate"
METIS_OF_THE_MANUAL = """% the graph of the manual of METIS
7 11
5 3 2
1 3 4
5 4 2 1
2 3 6 7
1 3 6
5 4 7
6 4
"""
ITS_WEIGHTS = (
    "7 11 001\n5 1 3 2 2 1\n1 1 3 2 4 1\n5 3 4 2 2 2 1 2\n2 1 3 2 6 2 7 5\n1 1 3 3 6 2\n5 2 4 2 7 6\n6 6 4 5\n"
)
WITH_WEIGHTS_OF_NODES = "7 11 010 2\n" + "".join(
    f"4 1 {line}\n" for line in ("5 3 2", "1 3 4", "5 4 2 1", "2 3 6 7", "1 3 6", "5 4 7", "6 4")
)


def read(tmp_path, text, name="g.txt", reader=tp.read_graph, **options):
    (tmp_path / name).write_text(text)
    return reader(tmp_path / name, **options)


def test_metis(tmp_path):
    edges = {(1, 5), (1, 3), (1, 2), (2, 3), (2, 4), (3, 5), (3, 4), (4, 6), (4, 7), (5, 6), (6, 7)}
    expected = tp.from_networkx(nx.Graph([(x - 1, y - 1) for x, y in sorted(edges)]))
    graphs = [
        read(tmp_path, METIS_OF_THE_MANUAL, "g.graph"),
        read(tmp_path, METIS_OF_THE_MANUAL, format="metis"),
        read(tmp_path, ITS_WEIGHTS, "g.metis", ignore_weights=True),
        read(tmp_path, WITH_WEIGHTS_OF_NODES, "g.metis"),
    ]
    assert all(graph.same_edges(expected) for graph in graphs)
    alone = read(tmp_path, "3 1\n2\n1\n\n", "g.metis", allow_disconnected=True)
    assert alone.degrees.tolist() == [1, 1, 0]
    W = read(tmp_path, "3 2 1\n2 .5\n1 .5 3 .25\n2 .25\n", "g.metis", mixing.read_weights, kind="symmetric")
    np.testing.assert_allclose(W.toarray(), [[0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0.25, 0.75]])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(connected_graphs(min_nodes=2))
def test_what_scipy_and_networkx_write_is_read(tmp_path, topology):
    scipy.io.mmwrite(tmp_path / "g.mtx", sparse.coo_array(topology.adjacency()))
    assert tp.read_graph(tmp_path / "g.mtx").same_edges(topology)
    nx.write_edgelist(topology.to_networkx(), tmp_path / "g.txt", data=False)
    assert tp.read_graph(tmp_path / "g.txt", num_nodes=topology.num_nodes).same_edges(topology)
    W = mixing.metropolis(topology)
    scipy.io.mmwrite(tmp_path / "w.mtx", sparse.coo_array(W), precision=17)
    np.testing.assert_allclose(mixing.read_weights(tmp_path / "w.mtx", "symmetric").toarray(), W.toarray(), atol=1e-15)


def test_matrix_market_by_suffix_banner_and_direction(tmp_path):
    text = f"{BANNER} pattern symmetric\n% by hand\n3 3 2\n2 1\n3 2\n"
    assert read(tmp_path, text).same_edges(PATH3)
    assert read(tmp_path, text, "g.mtx").same_edges(PATH3)
    array = io.BytesIO()
    scipy.io.mmwrite(array, PATH3.adjacency().toarray())
    assert read(tmp_path, array.getvalue().decode()).same_edges(PATH3)
    cycle = read(tmp_path, f"{BANNER} pattern general\n3 3 3\n1 2\n2 3\n3 1\n", directed=True)
    assert set(zip(cycle.senders.tolist(), cycle.receivers.tolist(), strict=True)) == {(1, 0), (2, 1), (0, 2)}
    weighted = f"{BANNER} real symmetric\n3 3 2\n2 1 .5\n3 2 .25\n"
    assert read(tmp_path, weighted, ignore_weights=True).same_edges(PATH3)


def test_weighted_edges(tmp_path):
    expected = [[0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0.25, 0.75]]
    for name, text, options in (
        ("g.txt", "3\n0 1 .5\n1 2 .25\n", {}),
        ("g.txt", "# x y w\n1 2 .5\n2 3 .25\n2 1 0.5\n", {"num_nodes": 3, "first_node": 1}),
        ("g.csv", "source,target,weight\n0,1,.5\n1,2,.25\n", {}),
        ("g.csv", "0,1,.5\n1,2,.25\n", {}),
    ):
        W = read(tmp_path, text, name, mixing.read_weights, kind="symmetric", **options)
        np.testing.assert_allclose(W.toarray(), expected)
        assert read(tmp_path, text, name, ignore_weights=True, **options).same_edges(PATH3)
    W = read(tmp_path, "2\n0 1 .25\n1 0 .5\n", reader=mixing.read_weights, directed=True)
    np.testing.assert_allclose(W.toarray(), [[0.5, 0.5], [0.25, 0.75]])  # node 1 gives .25 to what node 0 sends
    W = read(tmp_path, "2\n0 1 .25\n1 0 .5\n0 0 .5\n1 1 .75\n", reader=mixing.read_weights, directed=True)
    np.testing.assert_allclose(W.toarray(), [[0.5, 0.5], [0.25, 0.75]])


def test_rounds_in_one_file_and_in_many(tmp_path):
    text = "4\n0 0 1\n0 2 3\n1 1 2\n\n# later\n2 3 0\n0 1 0\n"
    graphs = read(tmp_path, text, reader=tp.read_graphs)
    assert [set(zip(g.senders.tolist(), g.receivers.tolist(), strict=True)) for g in graphs] == [
        {(0, 1), (1, 0), (2, 3), (3, 2)},
        {(1, 2), (2, 1)},
        {(0, 3), (3, 0)},
    ]
    table = "round,source,target\n0,0,1\n0,2,3\n1,1,2\n2,3,0\n"
    again = read(tmp_path, table, "g.csv", tp.read_graphs)
    assert all(a.same_edges(b) for a, b in zip(graphs, again, strict=True))
    for t, graph in enumerate(graphs):
        tp.write_graph(tmp_path / f"{t}.txt", graph)
    files = tp.read_graphs([tmp_path / f"{t}.txt" for t in range(3)])
    assert all(a.same_edges(b) for a, b in zip(graphs, files, strict=True))
    text = "round,source,target,weight\n0,0,1,.5\n1,1,2,.25\n"
    W = read(tmp_path, text, "w.csv", mixing.read_weights, kind="symmetric", rounds=True, num_nodes=3)
    np.testing.assert_allclose(W[0].toarray(), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(W[1].toarray(), [[1, 0, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]])


def test_a_ring_connects_what_falls_apart():
    graph = tp.from_networkx(nx.Graph([("a", "b"), ("c", "d")]), allow_disconnected=True)
    joined = tp.with_ring(graph)
    assert joined.same_edges(tp.ring(4))
    assert joined.labels == graph.labels
    assert tp.with_ring(tp.complete(5)).same_edges(tp.complete(5))
    with pytest.raises(ValueError, match="is directed"):
        tp.with_ring(tp.exponential(4))


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("g.metis", "", {}, "line 1: must be 'n m'"),
        ("g.metis", "3\n2\n1 3\n2\n", {}, "line 1: must be 'n m'"),
        ("g.metis", "3 2 002\n2\n1 3\n2\n", {}, "line 1: format 002"),
        ("g.metis", "3 2 1\n2 1\n1 1 3 1\n2 1\n", {}, "line 1: edges have weights; pass weights to .*read_weights"),
        ("g.metis", "3 2 1\n2\n1 1 3 1\n2 1\n", {"ignore_weights": True}, "line 2: 1 numbers, but each neighbour has"),
        ("g.metis", "3 2\n2\n1 3\n", {}, "line 3: 2 lines for 3 nodes"),
        ("g.metis", "3 2\n2\n1 3\n2\n1\n", {}, "line 5: 4 lines for 3 nodes"),
        ("g.metis", "3 5\n2\n1 3\n2\n", {}, "line 1: 5 edges are announced, and 2 are listed"),
        ("g.metis", "% c\n3 2\n2\n3\n2 1\n", {}, "line 3: node 1 lists 2, but 2 does not list 1"),
        ("g.metis", "3 2\n2\n1 4\n2\n", {}, r"line 3: node 4 is not in 1\.\.3"),
        ("g.metis", "3 2\n2 2\n1 3\n2\n", {}, "line 2: neighbour 2 of node 1 is listed twice"),
        ("g.metis", "3 2\n2\n1 3\n2\n", {"first_node": 1}, "first_node=1.*counts from 1"),
        ("g.mtx", "3 3 2\n2 1\n3 2\n", {}, "line 1: does not begin with %%MatrixMarket"),
        ("g.mtx", f"{BANNER} real general\n3 3 2\n2 1 1\n4 1 1\n", {}, "line 4: is no MatrixMarket matrix"),
        ("g.mtx", f"{BANNER} real general\n3 3 5\n2 1 1\n", {}, "is no MatrixMarket matrix .Truncated"),
        ("g.mtx", f"{BANNER} pattern general\n% c\n3 2 1\n2 1\n", {}, r"line 3: a matrix of shape \(3, 2\)"),
        ("g.mtx", f"{BANNER} complex general\n2 2 1\n2 1 1 0\n", {}, "line 2: a matrix of shape .* must be square and"),
        ("g.mtx", f"{BANNER} real symmetric\n3 3 2\n2 1 .5\n3 2 1\n", {}, "line 2: entries other than 1; pass weights"),
        ("g.mtx", f"{BANNER} pattern general\n3 3 1\n2 1\n", {}, r"\(2, 1\) and \(1, 2\) differ: pass directed"),
        ("g.mtx", f"{BANNER} pattern symmetric\n2 2 2\n2 1\n1 1\n", {}, "self-loop at node 0"),
        ("g.mtx", f"{BANNER} pattern general\n2 2 3\n2 1\n2 1\n1 2\n", {}, r"entry \(2, 1\) is listed twice"),
        ("g.txt", "3\n0 1 0.5\n1 2 0.5\n", {"format": "edges"}, "line 2: '0 1 0.5' must be node numbers"),
        ("g.txt", "3\n0 1 2\n", {"format": "edges"}, "3 numbers, but an edge 'x y' has 2; pass weights to "),
        ("g.txt", "3\n0 1 -1\n1 2 1\n", {"ignore_weights": True, "format": "edges"}, "line 2: '-1' is not a weight"),
    ],
)  # fmt: skip
def test_malformed_graphs_are_refused_by_line(tmp_path, name, text, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read(tmp_path, text, name, **options)


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("g.txt", "3\n0 1\n", {}, "line 2: edge 0 1 has no weight"),
        ("g.txt", "3\n0 1 .5\n1 0 .4\n", {}, "line 3: edge 1 0 has the weights 0.5 and 0.4; give one, or"),
        ("g.txt", "3\n0 1 .5\n0 1 .4\n", {"directed": True}, "line 2: edge 0 1 has the weights"),
        ("g.txt", "3\n0 1 .8\n1 2 .8\n", {}, "weights of row 1 sum to 1.6"),
        ("g.txt", "3\n0 1 nan\n", {}, "line 2: 'nan' is not a weight"),
        ("g.txt", "3\n0 0 1 .5\n2 0 1 .5\n", {"rounds": True}, "line 3: round 2, but no line has round 1"),
        ("g.txt", "3\n0 0 1 .8\n1 0 1 .8\n1 1 2 .8\n", {"rounds": True}, "round 1: graph: the weights of row 1 sum to"),
        ("g.txt", "3\n", {"rounds": True}, "line 1: the file has no edge"),
        ("g.txt", "2\n1\n0\n", {"format": "adjacency"}, "format='adjacency': lists of neighbours have no weights"),
        ("g.mtx", f"{BANNER} pattern symmetric\n2 2 1\n2 1\n", {"rounds": True}, "format='matrix_market' of path"),
    ],
)  # fmt: skip
def test_malformed_weights_are_refused_by_line(tmp_path, name, text, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text, name, mixing.read_weights, **options)


def test_malformed_rounds_are_refused(tmp_path):
    for text, message in (
        ("3\n0 0 1\n1 2\n", "line 3: 2 numbers, but a round and an edge 't x y' have 3"),
        ("3\n1 0 1\n", "line 2: round 1, but no line has round 0"),
        ("0 0 1\n", "line 1: must be the number of nodes"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, text, reader=tp.read_graphs)
    tp.write_graph(tmp_path / "a", tp.ring(3))
    tp.write_graph(tmp_path / "b", tp.ring(4))
    with pytest.raises(ValueError, match=r"paths: graphs of \[3, 4\] nodes"):
        tp.read_graphs([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match=r"paths=.*at least one file"):
        tp.read_graphs([])


TOKENS = st.sampled_from(
    ["0", "1", "2", "3", "4", "-1", ".5", "1e9", "x", "", "#", "%", ",", "1,2", "0,1,.5", "\t", "9" * 30]
)
LINES = st.lists(st.lists(TOKENS, max_size=4).map(" ".join), max_size=6).map("\n".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["g.txt", "g.csv", "g.metis", "g.mtx"]), LINES, st.booleans(), st.booleans(), st.booleans())
@example("g.mtx", f"{BANNER} pattern symmetric\n2 2 1\n2 1", False, False, True)
@example("g.mtx", f"{BANNER} real general\n-1 2 1\n2 1 1", False, False, False)
@example("g.mtx", f"{BANNER} real general\n2 2 1\n2 1 nan", False, True, False)
@example("g.mtx", BANNER, False, False, False)
@example("g.metis", "2 1 011 9\n1 2\n2 1", False, True, False)
@example("g.metis", "2 1 011 9999999999999999999999\n1 2\n2 1", False, True, False)
@example("g.txt", "", False, False, True)
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(tmp_path, name, text, directed, ignore_weights, rounds):
    """Random lines: a graph, or a ValueError that names the file or the graph; nothing is raised from inside."""
    readers = [lambda: read(tmp_path, text, name, directed=directed, ignore_weights=ignore_weights)]
    readers.append(lambda: read(tmp_path, text, name, mixing.read_weights, directed=directed, rounds=rounds))
    messages = []
    for reader in readers:
        try:
            reader()
        except ValueError as error:
            messages.append(str(error))
    assert all((name in message or "format=" in message) and len(message) < 1000 for message in messages)
