"""Graphs: known degrees, diameters and counts, every documented error, and files."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipjax import topology as tp
from gossipjax.testing import connected_digraphs, connected_graphs, permutations


def isomorphic(topology, graph):
    return nx.is_isomorphic(topology.to_networkx(), graph)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_families_equal_networkx(n):
    # NetworkX makes cycle_graph(1) a self-loop, so one node is checked by itself.
    assert n == 1 or n == 2 or isomorphic(tp.ring(n), nx.cycle_graph(n))
    assert isomorphic(tp.path(n), nx.path_graph(n))
    assert isomorphic(tp.star(n), nx.star_graph(n - 1))
    assert isomorphic(tp.complete(n), nx.complete_graph(n))


@pytest.mark.parametrize(("n", "edges"), [(1, 0), (2, 1), (3, 3), (8, 8)])
def test_ring_edges(n, edges):
    assert tp.ring(n).num_edges == edges


@pytest.mark.parametrize(
    ("rows", "columns", "degree"), [(1, 1, 0), (1, 2, 1), (2, 2, 2), (1, 5, 2), (2, 5, 3), (3, 3, 4), (4, 5, 4)]
)
def test_torus(rows, columns, degree):
    topology = tp.torus(rows, columns)
    assert topology.num_nodes == rows * columns
    assert np.all(topology.degrees == degree)
    assert nx.diameter(topology.to_networkx()) == rows // 2 + columns // 2
    assert np.array_equal(tp.torus(columns, rows).degrees, topology.degrees)


@pytest.mark.parametrize("dimension", [0, 1, 2, 3, 5])
def test_hypercube(dimension):
    topology = tp.hypercube(dimension)
    assert topology.num_nodes == 2**dimension
    assert np.all(topology.degrees == dimension)
    assert nx.diameter(topology.to_networkx()) == dimension
    assert dimension == 0 or isomorphic(topology, nx.hypercube_graph(dimension))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 8, 33])
def test_exponential(n):
    topology, rounds = tp.exponential(n), tp.one_peer_exponential(n)
    hops = int(np.ceil(np.log2(n)))
    assert topology.directed
    assert np.all(topology.in_degrees == hops)
    assert np.all(topology.out_degrees == hops)
    assert topology.num_components() == 1
    assert len(rounds) == max(hops, 1)
    pairs = {(s, r) for t in rounds for s, r in zip(t.senders, t.receivers, strict=True)}
    assert pairs == set(zip(topology.senders, topology.receivers, strict=True))
    assert sum(t.num_edges for t in rounds) == topology.num_edges


def test_adjacency_is_receiver_by_sender():
    topology = tp.exponential(6)
    A = topology.adjacency().toarray()
    assert A[1, 0] == A[2, 0] == A[4, 0] == 1
    assert A[0, 1] == 0
    assert topology.neighbors(0).tolist() == [2, 4, 5]
    assert set(topology.to_networkx().predecessors(0)) == {2, 4, 5}


@given(connected_digraphs())
def test_views_agree(topology):
    A = topology.adjacency().toarray()
    assert np.array_equal(topology.in_degrees, A.sum(axis=1))
    assert np.array_equal(topology.out_degrees, A.sum(axis=0))
    assert A.sum() == topology.num_edges
    assert np.array_equal(nx.to_numpy_array(topology.to_networkx()).T, A)
    assert tp.from_networkx(topology.to_networkx()).same_edges(topology)
    assert topology.num_components() == 1
    order = topology.receivers.astype(int) * topology.num_nodes + topology.senders
    assert np.all(np.diff(order) > 0)


@given(connected_graphs(), st.data())
def test_relabel(topology, data):
    order = data.draw(permutations(topology.num_nodes))
    A, B = topology.adjacency().toarray(), topology.relabel(order).adjacency().toarray()
    assert np.array_equal(B[np.ix_(order, order)], A)
    assert topology.relabel(order).relabel(np.argsort(order)).same_edges(topology)
    assert np.array_equal(A, A.T)


@pytest.mark.parametrize(
    ("n", "degree"), [(1, 0), (2, 1), (4, 3), (5, 2), (8, 3), (10, 5), (11, 6), (30, 28), (64, 31)]
)
def test_random_regular_degrees(n, degree):
    topology = tp.random_regular(n, degree, seed=3, tries=50)
    assert np.all(topology.degrees == degree)
    assert topology.num_components() == 1


def test_random_regular_is_uniform_on_a_small_case():
    # 70 labelled 3-regular graphs on 6 nodes, all connected: 60 prisms and 10 of type K_{3,3}. A uniform draw gives the
    # latter with probability 1/7; of 600 draws the share has standard error 0.0143.
    share = np.mean([nx.is_bipartite(tp.random_regular(6, 3, seed=s).to_networkx()) for s in range(600)])
    assert abs(share - 1 / 7) < 4 * 0.0143


def test_erdos_renyi_edge_count():
    # Binomial(4950, 0.2): mean 990, standard deviation 28.1; the mean of 40 graphs has standard error 4.45.
    counts = [tp.erdos_renyi(100, 0.2, seed=s).num_edges for s in range(40)]
    assert abs(np.mean(counts) - 990) < 4 * 4.45


def test_erdos_renyi_pairs_are_equally_likely():
    # 400 graphs on 5 nodes with p = 0.8, given that they are connected: by symmetry all ten pairs are equally likely.
    total = sum(tp.erdos_renyi(5, 0.8, seed=s, tries=50).adjacency().toarray() for s in range(400))
    counts = total[np.triu_indices(5, 1)]
    share = counts.mean() / 400
    assert np.all(np.abs(counts - counts.mean()) < 4 * np.sqrt(400 * share * (1 - share)))


def test_random_families():
    small_world = tp.watts_strogatz(40, 4, 0.1, seed=0)
    assert small_world.num_edges == 80
    assert tp.watts_strogatz(9, 2, 0.0, seed=0).same_edges(tp.ring(9))
    scale_free = tp.barabasi_albert(50, 3, seed=0)
    assert scale_free.num_edges == 3 + 3 * 46
    assert scale_free.num_components() == 1
    assert tp.erdos_renyi(1, 0.5, seed=0).num_edges == 0
    assert tp.erdos_renyi(9, 1.0, seed=0).same_edges(tp.complete(9))


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: tp.random_regular(40, 4, seed=seed),
        lambda seed: tp.erdos_renyi(40, 0.3, seed=seed),
        lambda seed: tp.watts_strogatz(40, 4, 0.3, seed=seed),
        lambda seed: tp.barabasi_albert(40, 2, seed=seed),
        lambda seed: tp.random_matching(40, seed=seed),
        lambda seed: tp.random_matching_of(tp.complete(40), seed=seed),
    ],
)
def test_seeds(draw):
    assert draw(1).same_edges(draw(1))
    assert not draw(1).same_edges(draw(2))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_random_matching(n):
    topology = tp.random_matching(n, seed=0)
    assert topology.num_edges == n // 2
    assert np.all(topology.degrees <= 1)


@given(connected_graphs(), st.integers(0, 100))
def test_random_matching_of_is_a_maximal_matching(topology, seed):
    matching = tp.random_matching_of(topology, seed=seed)
    edges = {tuple(sorted(edge)) for edge in matching.to_networkx().edges}
    assert nx.is_maximal_matching(topology.to_networkx(), edges)


def test_million_nodes_in_vectorised_time():
    assert tp.torus(300, 300).num_edges == 180_000
    assert np.all(tp.random_regular(100_000, 4, seed=0).degrees == 4)


def test_repr_and_read_only():
    topology = tp.ring(5)
    assert repr(topology) == "Topology(ring(5): 5 nodes, 5 undirected edges)"
    assert topology.senders.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        topology.senders[0] = 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tp.ring(0), "zero nodes"),
        (lambda: tp.path(-1), "-1 nodes"),
        (lambda: tp.star(0), "zero nodes"),
        (lambda: tp.complete(0), "zero nodes"),
        (lambda: tp.exponential(0), "zero nodes"),
        (lambda: tp.random_matching(0, seed=0), "zero nodes"),
        (lambda: tp.torus(0, 3), "must be at least 1"),
        (lambda: tp.hypercube(-1), "from 0 to 30"),
        (lambda: tp.random_regular(5, 5, seed=0), "less than the 5 nodes"),
        (lambda: tp.random_regular(5, 3, seed=0), "must be even"),
        (lambda: tp.random_regular(5, 0, seed=0), "without edges"),
        (lambda: tp.random_regular(6, 1, seed=0), "cannot connect"),
        (lambda: tp.random_regular(60, 2, seed=1), "components.*degree of at least 3, another seed"),
        (lambda: tp.erdos_renyi(5, 1.5, seed=0), "from 0 to 1"),
        (lambda: tp.erdos_renyi(50, 0.01, seed=0, tries=3), r"components.*3 tries.*ln\(n\)/n = 0.0782"),
        (lambda: tp.erdos_renyi(50, 0.01, seed=0, tries=0), "tries 0"),
        (lambda: tp.watts_strogatz(9, 3, 0.1, seed=0), "must be even"),
        (lambda: tp.watts_strogatz(9, 2, 1.1, seed=0), "rewiring probability"),
        (lambda: tp.barabasi_albert(5, 5, seed=0), "attachments"),
        (lambda: tp.random_matching_of(tp.exponential(4), seed=0), "undirected"),
        (lambda: tp.from_networkx(nx.Graph()), "zero nodes"),
        (lambda: tp.from_networkx(nx.Graph([(0, 0), (0, 1)])), "self-loop at node 0"),
        (lambda: tp.from_networkx(nx.MultiGraph([(0, 1), (0, 1)])), "listed twice"),
        (lambda: tp.from_networkx(nx.Graph([(0, 1), (2, 3)])), "2 components.*allow_disconnected"),
        (lambda: tp.from_networkx(nx.DiGraph([(0, 1)])), "2 strongly connected components"),
        (lambda: tp.Topology(3, np.array([0]), np.array([3]), True, "x"), r"not in 0\.\.2"),
        (lambda: tp.Topology(3, np.array([0]), np.array([1]), False, "x"), "lacks its reverse"),
        (lambda: tp.Topology(3, np.array([0, 1]), np.array([1]), True, "x"), "2 senders and 1 receivers"),
        (lambda: tp.Topology(3, np.array([0.5]), np.array([1]), True, "x"), "vector of integers"),
        (lambda: tp.exponential(5).degrees, "in_degrees or out_degrees"),
        (lambda: tp.ring(5).neighbors(5), r"not in 0\.\.4"),
        (lambda: tp.ring(3).relabel(np.array([0, 1, 1])), "permutation"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tries_says_which_draw():
    topology = tp.random_regular(12, 2, seed=0, tries=100)
    assert topology.num_components() == 1
    assert "seed=0" in topology.name


def test_networkx_nodes_are_numbered_in_order():
    graph = nx.DiGraph([("b", "a"), ("a", "c"), ("c", "b")])
    topology = tp.from_networkx(graph, name="abc")
    assert topology.name == "abc"
    assert list(zip(topology.senders, topology.receivers, strict=True)) == [(2, 0), (0, 1), (1, 2)]
    assert tp.from_networkx(nx.Graph([(0, 1), (2, 3)]), allow_disconnected=True).num_components() == 2


@pytest.mark.parametrize("format", ["edges", "adjacency"])
@given(data=st.data())
def test_files_round_trip(tmp_path_factory, format, data):
    directed = data.draw(st.booleans())
    topology = data.draw((connected_digraphs if directed else connected_graphs)())
    path = tmp_path_factory.mktemp("graph") / "graph.txt"
    tp.write_graph(path, topology, format=format)
    assert tp.read_graph(path, format=format, directed=directed).same_edges(topology)
    assert [entry.name for entry in path.parent.iterdir()] == ["graph.txt"]


def test_isolated_nodes_survive_a_file(tmp_path):
    topology = tp.random_matching(5, seed=4)
    for format in ("edges", "adjacency"):
        tp.write_graph(tmp_path / "g", topology, format=format)
        assert tp.read_graph(tmp_path / "g", format=format, allow_disconnected=True).same_edges(topology)


@pytest.mark.parametrize(
    ("text", "edges"),
    [("3\n0 1\n1 2\n", 2), ("3\n0 1\n1 0\n\n1 2\n2 1", 2), ("3\n0 1\n1 2\n0 2\n2 0\n", 3), ("1\n", 0)],
)
def test_edge_lists_are_symmetrised(tmp_path, text, edges):
    (tmp_path / "g").write_text(text)
    topology = tp.read_graph(tmp_path / "g")
    assert topology.num_edges == edges
    assert not topology.directed


def test_adjacency_list(tmp_path):
    (tmp_path / "g").write_text("3\n1 2\n0\n0\n")
    assert tp.read_graph(tmp_path / "g", format="adjacency").same_edges(tp.star(3))
    (tmp_path / "g").write_text("3\n1\n2\n0\n")
    cycle = tp.read_graph(tmp_path / "g", format="adjacency", directed=True)
    assert list(zip(cycle.senders, cycle.receivers, strict=True)) == [(2, 0), (0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("edges", "", "line 1: must be the number of nodes"),
        ("edges", "0\n", "line 1: must be the number of nodes"),
        ("edges", "0 1\n1 2\n", "line 1"),
        ("edges", "3\n0 1\n1 x\n", "line 3: '1 x' must be node numbers"),
        ("edges", "3\n0 1\n1 -2\n", "line 3"),
        ("edges", "3\n0 1 2\n", "line 2: 3 numbers"),
        ("edges", "3\n0 1\n1 3\n", r"line 3: node 3 is not in 0\.\.2"),
        ("edges", "3\n0 1\n1 1\n", "line 3: self-loop at node 1"),
        ("edges", "4\n0 1\n2 3\n", "2 components"),
        ("adjacency", "3\n1\n0 2\n", "line 3: node 1 lists 2, but line 4 does not list 1"),
        ("adjacency", "3\n1\n", "1 adjacency lines for 3 nodes"),
        ("adjacency", "2\n1\n0\n0\n", "line 4: more lines than the 2 nodes"),
        ("adjacency", "2\n1\n5\n", "line 3: node 5"),
        ("matrix", "2\n0 1\n", "choose 'edges' or 'adjacency'"),
    ],
)
def test_malformed_files(tmp_path, format, text, message):
    path = tmp_path / "graph.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        tp.read_graph(path, format=format)
    assert "graph.txt" in str(error.value) or format == "matrix"


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "graph.txt"
    tp.write_graph(path, tp.ring(3))
    before = path.read_text()
    with pytest.raises(ValueError, match="choose 'edges' or 'adjacency'"):
        tp.write_graph(path, tp.ring(4), format="matrix")
    assert path.read_text() == before
