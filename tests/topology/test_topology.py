"""Graphs: known degrees, diameters and counts, every documented error, and files."""

import gzip
import inspect
import tracemalloc

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from gossipjax import topology as tp
from gossipjax.testing import connected_digraphs, connected_graphs, permutations
from gossipjax.topology._random import regular_ends


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


def paired(n, degree, rng):
    """Pair stubs one by one as the docstring of random_regular says; None if stubs remain that fit nowhere."""
    stubs, edges = np.repeat(np.arange(n), degree), set()
    while stubs.size:
        rng.shuffle(stubs)
        left = []
        for edge in np.sort(stubs.reshape(-1, 2), axis=1).tolist():
            if edge[0] == edge[1] or tuple(edge) in edges:
                left.extend(edge)
            edges.add(tuple(edge))
        edges -= {(i, i) for i in range(n)}
        if len(left) == stubs.size:
            return None
        stubs = np.array(left, int)
    return sorted(edges)


@pytest.mark.parametrize(("n", "degree"), [(12, 3), (40, 7), (500, 3)])
def test_random_regular_is_the_draw_of_pairing_one_by_one(n, degree):
    expected = [paired(n, degree, np.random.default_rng(seed)) for seed in range(8)]
    assert any(expected)
    for seed, edges in enumerate(expected):
        near, far = regular_ends(n, degree, np.random.default_rng(seed))
        assert edges is None or sorted(zip(near.tolist(), far.tolist(), strict=True)) == edges


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
        (lambda: tp.ring(0), "num_nodes=0.*at least one node"),
        (lambda: tp.path(-1), "num_nodes=-1"),
        (lambda: tp.star(0), "num_nodes=0"),
        (lambda: tp.complete(0), "num_nodes=0"),
        (lambda: tp.exponential(0), "num_nodes=0"),
        (lambda: tp.random_matching(0, seed=0), "num_nodes=0"),
        (lambda: tp.torus(0, 3), "rows=0.*of at least 1"),
        (lambda: tp.hypercube(-1), "dimension=-1.*0 … 30"),
        (lambda: tp.random_regular(5, 5, seed=0), "degree=5.*less than num_nodes=5"),
        (lambda: tp.random_regular(5, 3, seed=0), "must be even"),
        (lambda: tp.random_regular(5, 0, seed=0), "no node would have an edge"),
        (lambda: tp.random_regular(6, 1, seed=0), "cannot be connected"),
        (lambda: tp.random_regular(60, 2, seed=1), "components.*degree of at least 3, another seed"),
        (lambda: tp.erdos_renyi(5, 1.5, seed=0), "probability=1.5.*at least 0 and at most 1"),
        (lambda: tp.erdos_renyi(50, 0.01, seed=0, tries=3), r"components.*tries=3.*ln\(n\)/n = 0.0782"),
        (lambda: tp.erdos_renyi(50, 0.01, seed=0, tries=0), "tries=0"),
        (lambda: tp.watts_strogatz(9, 3, 0.1, seed=0), "must be even"),
        (lambda: tp.watts_strogatz(9, 2, 1.1, seed=0), "rewiring=1.1.*a probability"),
        (lambda: tp.barabasi_albert(5, 5, seed=0), "attachments"),
        (lambda: tp.random_matching_of(tp.exponential(4), seed=0), "undirected"),
        (lambda: tp.from_networkx(nx.Graph()), "zero nodes"),
        (lambda: tp.from_networkx(nx.Graph([(0, 0), (0, 1)])), "self-loop at node 0"),
        (lambda: tp.from_networkx(nx.MultiGraph([(0, 1), (0, 1)])), "listed twice"),
        (lambda: tp.from_networkx(nx.Graph([(0, 1), (2, 3)])), "2 components.*allow_disconnected"),
        (lambda: tp.from_networkx(nx.DiGraph([(0, 1)])), "2 strongly connected components"),
        (lambda: tp.Topology(3, np.array([0]), np.array([3]), True, "x"), r"receivers\[0\]=3.*0 … 2"),
        (lambda: tp.Topology(3, np.array([0]), np.array([1]), False, "x"), "lacks its reverse"),
        (lambda: tp.Topology(3, np.array([0, 1]), np.array([1]), True, "x"), "2 senders and 1 receivers"),
        (lambda: tp.Topology(3, np.array([0.5]), np.array([1]), True, "x"), "senders=.*whole numbers"),
        (lambda: tp.exponential(5).degrees, "in_degrees or out_degrees"),
        (lambda: tp.ring(5).neighbors(5), "node=5.*0 … 4"),
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


def edges_of(topology):
    return set(zip(topology.senders.tolist(), topology.receivers.tolist(), strict=True))


@pytest.mark.parametrize("edges", [[(0, 2), (1, 3)], [(3, 0), (2, 1), (1, 3)], [(2, 1), (1, 0), (0, 2)]])
@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph])
def test_nodes_called_by_their_numbers_keep_them(kind, edges):
    graph = kind(edges)
    topology = tp.from_networkx(graph, allow_disconnected=True)
    both = set() if graph.is_directed() else {edge[::-1] for edge in edges}
    assert edges_of(topology) == {*edges} | both
    assert topology.labels is None
    again = topology.to_networkx()
    assert nx.utils.graphs_equal(kind(again), kind(graph))
    assert list(again) == sorted(graph)


def test_numbers_of_numpy_and_floats_are_numbers_too():
    edges = np.array([(3, 1), (1, 0), (0, 2)])
    for labels in (edges, edges.astype(float)):
        topology = tp.from_networkx(nx.Graph([tuple(edge) for edge in labels]))
        assert topology.same_edges(tp.from_networkx(nx.Graph(edges.tolist())))
        assert topology.labels is None


@given(connected_digraphs(max_nodes=8), st.data())
def test_labelled_graphs_round_trip(topology, data):
    """Labels that are no numbers 0 … n − 1 are numbered as listed, and come back."""
    n = topology.num_nodes
    kind = data.draw(st.sampled_from([str, lambda k: (k, k), lambda k: k + 1]))
    names = tuple(kind(int(k)) for k in data.draw(permutations(n)))
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from((names[i], names[j]) for i, j in edges_of(topology))
    found = tp.from_networkx(graph)
    assert found.labels == names
    assert found.same_edges(topology)
    assert nx.utils.graphs_equal(found.to_networkx(), graph)
    order = data.draw(permutations(n))
    moved = found.relabel(order)
    assert [moved.labels[k] for k in order] == list(names)
    assert nx.utils.graphs_equal(moved.to_networkx(), graph)


def test_graphs_on_the_same_nodes_can_share_their_numbers():
    first = tp.from_networkx(nx.Graph([("a", "b"), ("b", "c")]))
    second = tp.from_networkx(nx.Graph([("c", "a"), ("a", "b")]), labels=first.labels)
    assert edges_of(second) == {(2, 0), (0, 2), (0, 1), (1, 0)}
    with pytest.raises(ValueError, match="labels: 'd' is not a node of the graph"):
        tp.from_networkx(nx.Graph([("a", "b"), ("b", "c")]), labels=["a", "b", "d"])
    with pytest.raises(ValueError, match=r"labels=.*nodes named 0 to 2 keep their numbers"):
        tp.from_networkx(nx.path_graph(3), labels=[2, 0, 1])


def weighted(kind, *edges):
    graph = kind()
    graph.add_weighted_edges_from(edges)
    return graph


@pytest.mark.parametrize(
    "graph",
    [
        weighted(nx.Graph, (0, 1, 0.9), (1, 2, 0.1), (0, 2, 0.5)),
        weighted(nx.DiGraph, (0, 1, 1.0), (1, 2, 1.0), (2, 0, 0)),
        weighted(nx.Graph, (0, 1, 1), (1, 2, float("nan"))),
        weighted(nx.Graph, (0, 1, 2), (1, 2, 2)),
    ],
    ids=["three weights", "a weight of 0", "nan", "all alike"],
)
def test_edge_weights_are_not_dropped_in_silence(graph):
    with pytest.raises(ValueError, match=r"edge \(.*weight.*from_edge_weights.*ignore_weights=True"):
        tp.from_networkx(graph)
    plain = type(graph)(list(graph.edges))
    assert tp.from_networkx(graph, ignore_weights=True).same_edges(tp.from_networkx(plain))


def test_weights_of_one_say_nothing():
    graph = nx.from_numpy_array(nx.to_numpy_array(nx.petersen_graph()))
    assert graph[0][1]["weight"] == 1
    assert tp.from_networkx(graph).num_edges == 15


@given(st.booleans(), st.data())
def test_adjacency_matrices_round_trip(directed, data):
    topology = data.draw((connected_digraphs if directed else connected_graphs)())
    A = topology.adjacency()
    for form in (A, A.toarray(), A.tocoo(), sparse.csc_matrix(A), A.toarray().astype(bool), A.toarray().tolist()):
        assert tp.from_adjacency(form, directed=directed).same_edges(topology)
    before = A.copy()
    A.data[:] = 1
    assert (A != before).nnz == 0


RING = tp.ring(3).adjacency().toarray()


@pytest.mark.parametrize(
    ("A", "options", "message"),
    [
        (0.5 * RING, {}, r"A\[0, 1\] = 0.5: use 1 for an edge.*from_edge_weights.*ignore_weights=True"),
        (-RING, {"ignore_weights": True}, r"A\[0, 1\] = -1: use 1 for an edge"),
        (RING * np.nan, {"ignore_weights": True}, r"A\[0, 0\] = nan: every number must be a finite number"),
        (RING + np.eye(3), {}, r"A\[0, 0\] is not 0, a self-loop"),
        (np.triu(RING), {}, r"A\[0, 1\] = 1: A is not symmetric: pass directed=True"),
        (np.triu(RING), {"directed": True}, "3 strongly connected components"),
        (RING[:2], {}, r"A of shape \(2, 3\): must be square"),
        (np.zeros((0, 0)), {}, r"A of shape \(0, 0\)"),
        (np.ones(3), {}, r"A of shape \(3,\): must be a matrix"),
        (np.zeros((2, 2)), {}, "2 components"),
        (RING.astype(complex), {}, "A of type complex128"),
        (sparse.coo_array((np.ones(2), ([0, 0], [1, 1])), shape=(2, 2)), {}, r"A\[0, 1\] = 2"),
    ],
)
def test_adjacency_matrices_that_are_none(A, options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(tp.from_adjacency)(A, **options)


def test_adjacency_with_weights_to_ignore():
    W = sparse.csr_array((np.array([0.5, 0.0, 0.5]), (np.array([0, 0, 1]), np.array([1, 2, 0]))), shape=(3, 3))
    topology = tp.from_adjacency(W, ignore_weights=True, allow_disconnected=True)
    assert edges_of(topology) == {(0, 1), (1, 0)}
    assert W.nnz == 3  # the caller's explicit zero is still there


@pytest.mark.parametrize("format", ["edges", "adjacency", "csv"])
@given(data=st.data())
def test_files_round_trip(tmp_path_factory, format, data):
    directed = data.draw(st.booleans())
    topology = data.draw((connected_digraphs if directed else connected_graphs)(2 if format == "csv" else 1))
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


RING_AS_LISTS = "5\n4 1\n0 2\n1 3\n2 4\n3 0\n"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (RING_AS_LISTS, {}),
        (RING_AS_LISTS, {"directed": True}),
        ("5\n1 2\n2 3\n3 4\n4 0\n0 1\n", {}),  # as lists, every edge is named at one end only
        ("4\n2 3\n2 3\n0 1\n0 1\n", {}),
        ("4\n# lists\n1 3\n2 0\n3 1\n2 0\n", {}),
    ],
)
def test_a_file_that_can_be_two_graphs_is_refused(tmp_path, text, options):
    path = tmp_path / "graph.txt"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"graph.txt, line 2: .*two different graphs: pass format='edges' or .*from_netw"
    ):
        tp.read_graph(path, allow_disconnected=True, **options)
    edges = tp.read_graph(path, format="edges", allow_disconnected=True, **options)
    lists = tp.read_graph(path, format="adjacency", allow_disconnected=True, directed=True)
    assert not edges.same_edges(lists)


def test_lists_are_told_from_edges_where_only_one_can_be(tmp_path):
    path = tmp_path / "graph.txt"
    for topology in (tp.star(4), tp.path(4), tp.hypercube(3), tp.complete(3), tp.ring(2), tp.ring(1)):
        for format in ("edges", "adjacency"):
            tp.write_graph(path, topology, format=format)
            assert tp.read_graph(path).same_edges(topology)
    tp.write_graph(path, tp.ring(5), format="adjacency")
    assert tp.read_graph(path, format="adjacency").same_edges(tp.ring(5))


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("g.txt", "\ufeff3\n0 1\n1 2\n0 2\n", {}),
        ("g.txt", "0 1\n1 2\n2 0\n", {"num_nodes": 3}),
        ("g.txt", "# Nodes: 3 Edges: 3\n0\t1\n0\t2\n1\t2\n", {"num_nodes": 3}),
        ("g.txt", "% of another kind\n3\n0 1\n0 2\n1 2\n", {}),
        ("g.txt", "3\n1 2\n2 3\n3 1\n", {"first_node": 1}),
        ("g.txt", "3\n2 3\n1 3\n1 2\n", {"first_node": 1, "format": "adjacency"}),
        ("g.txt", "3\r\n0 1\r\n1 2\r\n0 2\r\n", {}),
        ("g.csv", "0,1\n1,2\n2,0\n", {}),
        ("g.CSV", 'source,target\n"0","1"\n1, 2\n\n2,0\n', {}),
        ("g.txt", "\ufeffsource,target\n1,2\n2,3\n3,1\n", {"format": "csv", "first_node": 1}),
    ],
)
def test_triangles_in_many_forms(tmp_path, name, text, options):
    (tmp_path / name).write_bytes(text.encode())
    assert tp.read_graph(tmp_path / name, **options).same_edges(tp.ring(3))
    assert tp.read_graph(str(tmp_path / name), **options).same_edges(tp.ring(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("3\n0 1\n1 2\n".encode("utf-16"), "line 1: not UTF-8 text, perhaps UTF-16"),
        ("3\n0 1\n1 2\n".encode("utf-16-le"), "line 1: contains a zero byte"),
        (b"3\n0 1\n1 \xff\n", "line 3: not UTF-8 text"),
        (gzip.compress(b"3\n0 1\n1 2\n", mtime=0), "line 1: the file is compressed; unpack"),
        (b"BZh91AY", "line 1: the file is compressed"),
        (b"100000000000000000000\n0 1\n", "line 1: 100000000000000000000 nodes: .*at most 2147483647"),
        (b"2147483648\n0 1\n", "line 1: 2147483648 nodes"),
        (b"9" * 5000 + b"\n0 1\n", "line 1: .*at most 100 digits"),
        (b"# Nodes: 3\n0\t1\n1\t2\n", "line 2: must be the number of nodes; pass num_nodes"),
        (b"0 1\n1 2\n", "line 1: must be the number of nodes; pass num_nodes"),
        (b"3\n1 2\n2 3\n3 1\n", r"line 3: node 3 is not in 0\.\.2; pass first_node=1"),
        (b"3 3\n2 3\n1 3\n1 2\n", "line 1: must be the number of nodes"),  # METIS
        (b"0,1\n1,2\n", "line 1: '0,1' must be node numbers separated by spaces, or pass format='csv'"),
        (b"3\n0 1 0.5\n1 2 0.5\n", "line 2: '0 1 0.5' must be node numbers"),
        (b"3\n0 1 2\n1 2 2\n", "line 2: neighbour|line 2: 3 numbers|adjacency lines|is not in|self-loop"),
        (b"", "line 1: must be the number of nodes"),
    ],
)
def test_files_of_other_forms_are_refused_with_the_way_to_read_them(tmp_path, content, message):
    path = tmp_path / "graph.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"graph.txt, (?s:.*)({message})") as error:
        tp.read_graph(path)
    assert "expected: " in str(error.value)
    assert "from_networkx" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,target,weight\n0,1,0.5\n", "line 1: .*3 columns, but an edge has 2, pass weights to"),
        ("0;1\n1;2\n", "line 1: .*1 columns, but an edge has 2, separated by a comma"),
        ("source,target\nalice,bob\n", "line 2: 'alice,bob' must be node numbers"),
        ("0,1\n1,2.5\n", "line 2: '1,2.5' must be node numbers"),
        ("0,-1\n", "line 1: '0,-1' must be node numbers"),
        ("1,2\n2,3\n3,1\n", "at least 2 components|2 components"),
        ("source,target\n", "line 1: the file has no edge"),
        ("target,source\n0,1\n", "line 1: 'target,source' puts the receiver first"),
        ("To,From\n0,1\n", "line 1: 'To,From' puts the receiver first"),
        ("weight,src\n0,1\n", "line 1: .*puts the receiver first"),
        ("0,1\n1,99999999999\n", "line 2: 100000000000 nodes"),
        ("0,0\n", "line 1: self-loop"),
        ('0,"1\n', "line 1: .*not valid CSV"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    path = tmp_path / "graph.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"graph.csv.*({message})"):
        tp.read_graph(path)


def test_many_nodes_of_a_file_are_counted_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr("gossipjax._base.memory.free_bytes", lambda: 2.0**30)
    (tmp_path / "g.txt").write_text("1000000000\n0 1\n")
    (tmp_path / "g.csv").write_text("0,1\n0,999999999\n")
    for name, line in (("g.txt", 1), ("g.csv", 2)):
        with pytest.raises(
            ValueError, match=f"{name}, line {line}: a graph of 1000000000 nodes would take about 29.8 GiB"
        ):
            tp.read_graph(tmp_path / name, allow_disconnected=True)


def test_paths_that_are_no_files(tmp_path):
    for path, message in ((tmp_path, "a folder"), (tmp_path / "none", "no such file"), ("x" * 5000, "no such file")):
        with pytest.raises(ValueError, match=f"path=.*{message}.*from_networkx"):
            tp.read_graph(path)
    for path in (tmp_path, tmp_path / "none" / "g.txt"):
        with pytest.raises(ValueError, match=r"path=.*must name a file in a folder that exists"):
            tp.write_graph(path, tp.ring(3))
    with pytest.raises(TypeError, match="path=5: must be a str or PathLike"):
        inspect.unwrap(tp.read_graph)(5)


def test_csv_cannot_tell_of_a_last_node_without_edges(tmp_path):
    lonely = tp.from_networkx(nx.Graph({0: [1], 2: []}), allow_disconnected=True)
    with pytest.raises(ValueError, match=r"node 2 of .* has no edge"):
        tp.write_graph(tmp_path / "g.csv", lonely, format="csv")
    assert not list(tmp_path.iterdir())
    (tmp_path / "g.csv").write_text("0,1\n")
    found = tp.read_graph(tmp_path / "g.csv", num_nodes=3, allow_disconnected=True)
    assert found.same_edges(lonely)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tp.complete(200_000), "num_nodes=200000: the complete graph would take about .*GiB.*random_regular"),
        (lambda: tp.random_regular(300_000, 150_000, seed=0), "num_nodes=300000, degree=150000.*would take"),
        (lambda: tp.erdos_renyi(300_000, 0.4, seed=0), "num_nodes=300000, probability=0.4.*would take"),
        (lambda: tp.hypercube(30), "dimension=30.*would take"),
        (lambda: tp.watts_strogatz(2_000_000_000, 2, 0.1, seed=0), "num_nodes=2000000000.*would take"),
        (lambda: tp.ring(2**31), "num_nodes=2147483648.*1 … 2147483647"),
        (lambda: tp.torus(10**5, 10**5), r"rows \* columns=10000000000"),
    ],
)
def test_graphs_that_do_not_fit_are_refused_before_the_work(build, message, monkeypatch):
    monkeypatch.setattr("gossipjax._base.memory.free_bytes", lambda: 2.0**34)
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: tp.complete(700),
        lambda: tp.torus(100, 100),
        lambda: tp.hypercube(13),
        lambda: tp.exponential(10_000),
        lambda: tp.random_regular(20_000, 4, seed=0),
        lambda: tp.erdos_renyi(1000, 0.3, seed=0),
        lambda: tp.barabasi_albert(3000, 5, seed=0),
    ],
)
def test_estimates_of_memory_hold(build, monkeypatch):
    estimates = []
    monkeypatch.setattr("gossipjax.topology._graph.check_memory", lambda what, size, remedy: estimates.append(size))
    tracemalloc.start()
    build()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= estimates[0] + 2**16  # what annotations and names take


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((2.0, [0], [1], True, "x"), "num_nodes=2.0"),
        ((2, [0], [1], "no", "x"), "directed='no'"),
        ((2, [-1], [1], True, "x"), r"senders\[0\]=-1"),
        ((2, [0.0], [1], True, "x"), r"senders=\[0.0\]: must be whole numbers"),
        ((2, [[0]], [[1]], True, "x"), r"senders of shape \(1, 1\)"),
        ((2, [2**33], [1], True, "x"), r"senders\[0\]=8.58993e\+09"),
        ((2, [0, 0], [1, 1], True, "x"), "edge 0 -> 1 is listed twice"),
        ((2, [0], [0], True, "x"), "self-loop at node 0"),
        ((2, [0], [1], True, "x", ("a",)), "labels=.*2 distinct labels"),
        ((2, [0], [1], True, "x", ("a", "a")), "labels=.*2 distinct labels"),
    ],
)
def test_topologies_check_themselves(fields, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(tp.Topology.__init__)(object.__new__(tp.Topology), *fields)


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("edges", "", "line 1: must be the number of nodes"),
        ("edges", "0\n", "line 1: 0 nodes: must be the number of nodes"),
        ("edges", "0 1\n1 2\n", "line 1"),
        ("edges", "3\n0 1\n1 x\n", "line 3: '1 x' must be node numbers"),
        ("edges", "3\n0 1\n1 -2\n", "line 3"),
        ("edges", "3\n0 1 2\n", "line 2: 3 numbers"),
        ("edges", "3\n0 1\n1 3\n", r"line 3: node 3 is not in 0\.\.2"),
        ("edges", "3\n0 1\n1 1\n", "line 3: self-loop at node 1"),
        ("edges", "4\n0 1\n2 3\n", "2 components"),
        ("adjacency", "3\n1\n0 2\n", "line 3: node 1 lists 2, but 2 does not list 1"),
        ("adjacency", "3\n1\n", "1 adjacency lines for 3 nodes"),
        ("adjacency", "2\n1\n0\n0\n", "line 4: more lines than the 2 nodes"),
        ("adjacency", "2\n1\n5\n", "line 3: node 5"),
        ("matrix", "2\n0 1\n", "format='matrix': must be one of 'edges', 'adjacency', 'csv'"),
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
    with pytest.raises(ValueError, match="must be one of 'edges', 'adjacency', 'csv'"):
        tp.write_graph(path, tp.ring(4), format="matrix")
    assert path.read_text() == before
