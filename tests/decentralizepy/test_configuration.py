"""Configurations of DecentralizePy: those of its repository build and run, and what has no counterpart is named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax._base.calls import record_of
from gossipjax.decentralizepy import read_configuration
from gossipjax.decentralizepy._data import SOURCES
from gossipjax.decentralizepy._training import Training, optimizer_of
from gossipjax.tasks import Examples

N = 6
GRAPH = gj.topology.random_regular(N, 3, seed=0, tries=20)
TOP = "[DATASET]\ndataset_package = decentralizepy.datasets.{0}\ndataset_class = {0}\nmodel_class = {1}\n"
FOLDERS = "train_dir = /data\ntest_dir = /data\n; fractions\nsizes =\n"
REST = """
[OPTIMIZER_PARAMS]
optimizer_package = torch.optim
optimizer_class = SGD
lr = {lr}

[TRAIN_PARAMS]
training_package = decentralizepy.training.Training
training_class = Training
rounds = {rounds}
full_epochs = False
batch_size = {batch_size}
shuffle = True
loss_package = torch.nn
loss_class = {loss}

[COMMUNICATION]
comm_package = decentralizepy.communication.TCP
comm_class = TCP
addresses_filepath = ip.json

[SHARING]
sharing_package = decentralizepy.sharing
"""
JWINS = """sharing_class = JWINS
change_based_selection = True
alpha_list = [0.1,0.15,0.2,0.25,0.3,0.4,1.0]
wavelet=sym2
level= 4
accumulation = True
accumulate_averaging_changes = True
metadata_cap = 0.5
compression_package = decentralizepy.compression.EliasFpzip
compression_class = EliasFpzip
compress = True
"""
FULL = "sharing_class = Sharing\n"


def ini(name, model, more="", sharing=FULL, *, lr=0.01, rounds=3, batch_size=8, loss="CrossEntropyLoss"):
    """A file as those of the repository are laid out."""
    rest = REST.format(lr=lr, rounds=rounds, batch_size=batch_size, loss=loss)
    return TOP.format(name, model) + FOLDERS + more + rest + sharing


def some(kind, alpha):
    return f"sharing_class = {kind}\nalpha = {alpha}\n"


CIFAR = ("CIFAR10", "LeNet")
LETTERS = {"lr": 0.1, "rounds": 10, "batch_size": 16}
RATINGS = LETTERS | {"loss": "MSELoss"}
DIGITS = {"lr": 0.001, "rounds": 47, "batch_size": 16}
PLAIN = "sharing_class = PlainAverageSharing ; no Metropolis-Hastings\ncompress = False\n\n[NODE]\ngraph_degree = 3 ; s"
TUTORIAL = "random_seed = 90\npartition_niid = {}\n"
VALIDATION = "shards = 4\nvalidation_source = Test\nvalidation_size = 0.1\n"
FILES = {
    "tutorial": ini(*CIFAR, TUTORIAL.format(False) + VALIDATION),
    "tutorial JWINS": ini(*CIFAR, TUTORIAL.format("kshard") + "shards = 4\n", JWINS),
    "tutorial Epidemic Learning": ini(
        *CIFAR, TUTORIAL.format("dirichlet") + "alpha = 0.1 ; parameter\n", PLAIN, lr=0.05, rounds=10, batch_size=5
    ),
    "CIFAR subsampling": ini(
        *CIFAR, "partition_niid = dirichlet\nalpha = 1\n", some("SubSampling", 0.5), lr=0.001, rounds=65
    ),
    "FEMNIST partial model": ini("Femnist", "CNN", "random_seed = 97\n", some("PartialModel", 0.1), **DIGITS),
    "CelebA partial model": ini("Celeba", "CNN", "images_dir = /data\n", some("PartialModel", 0.1), rounds=4),
    "MovieLens JWINS": ini("MovieLens", "MatrixFactorization", "", JWINS, **RATINGS),
    "MovieLens subsampling": ini("MovieLens", "MatrixFactorization", "", some("SubSampling", 0.3), **RATINGS),
    "Shakespeare JWINS": ini("Shakespeare", "LSTM", "random_seed = 97\n", JWINS, **LETTERS),
    "Shakespeare partial model": ini("Shakespeare", "LSTM", "", some("PartialModel", 0.1), **LETTERS),
}
"""Settings of ten files of the repository."""
QUICK = {"MovieLens subsampling"}


def images(side, channels, classes):
    """Images with writers, of which the labels can be told by their brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 120).astype(np.int32)
    inputs = (20 * labels[:, None, None, None] + rng.integers(0, 20, (120, side, side, channels))).astype(np.uint8)
    train = Examples(inputs[:96], labels[:96], np.repeat(np.arange(12, dtype=np.int32), 8))
    return gj.tasks.Dataset("drawn", train, Examples(inputs[96:], labels[96:]), classes, (50.0,), (50.0,), "drawn")


def stand_in(text):
    """Small data of the sort that a file names."""
    if "= MovieLens" in text:
        return gj.tasks.synthetic_ratings(20, 30, seed=0)
    if "= Shakespeare" in text:
        return gj.tasks.synthetic_text(8, mean_length=300.0, rule=gj.tasks.WindowRule(context=8), seed=0)
    if "= Celeba" in text:
        return images(36, 1, 2)
    return images(8, 1, 4)


def read(tmp_path, text, **others):
    path = tmp_path / "config.ini"
    path.write_text(text)
    return read_configuration(path, **({"graph": GRAPH, "num_rounds": 2, "data": stand_in(text)} | others))


def test_colours_are_from_minus_one_to_one_as_in_its_own_reader(monkeypatch):
    black_and_white = np.repeat(np.array([0, 255], np.uint8), 32 * 32 * 3).reshape(2, 32, 32, 3)
    both = Examples(np.tile(black_and_white, (N, 1, 1, 1)), np.arange(2 * N) % 2)
    stored = gj.tasks.Dataset("cifar10", both, both, 10, (120.0,) * 3, (60.0,) * 3, "as stored")
    monkeypatch.setattr(gj.tasks, "cifar10", lambda: stored)
    found = SOURCES["CIFAR10"].load(90)
    scaled = (both.inputs[:2] - np.asarray(found.mean)) / np.asarray(found.std)
    np.testing.assert_array_equal(np.unique(scaled), [-1.0, 1.0])


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FILES])
def test_a_configuration_of_the_repository_runs(name, tmp_path):
    # With fewer local steps than the file asks for: the same programs, run for less long.
    few_steps = re.sub(r"^rounds = \d+$", "rounds = 2", FILES[name], flags=re.MULTILINE)
    found = read(tmp_path, few_steps)
    run = gj.simulate(jax.random.key(0), found.protocol, found.timeline, found.task)
    assert np.isfinite(run["train_loss"].values[1:]).all()
    assert float(run["bytes_sent"][-1]) > 0
    assert found.notes


def test_numbers_of_the_file_are_those_of_the_run(tmp_path):
    text = FILES["MovieLens subsampling"]
    found = read(tmp_path, text, num_rounds=7)
    by_hand = gj.tasks.matrix_factorization(stand_in(text), gj.tasks.ratings_by_user(stand_in(text), N), batch_size=16)
    sgd = Partial(optax.sgd, 0.1)
    protocol = gj.dpsgd(by_hand, sgd, local_steps=10, sharing=gj.sharing.random_subset(0.3))
    plan = gj.timeline.rounds(gj.mixing.metropolis(GRAPH), 7)
    runs = [
        gj.simulate(jax.random.key(1), *each, by_hand) for each in ((protocol, plan), (found.protocol, found.timeline))
    ]
    for own, read_off in zip(*(jax.tree.leaves(run.x) for run in runs), strict=True):
        np.testing.assert_array_equal(own, read_off)
    assert runs[0]["bytes_sent"].equals(runs[1]["bytes_sent"])


def test_shards_are_those_of_the_partition(tmp_path):
    data = images(8, 1, 4)
    labels = data.train.labels
    by_name = {
        "iid": gj.tasks.iid(96, N, seed=5),
        "kshard\nshards = 2": gj.tasks.by_stretches(labels, N, shards_per_node=2, seed=5),
        "dirichlet\nalpha = 0.5": gj.tasks.dirichlet(labels, N, alpha=0.5, balanced=True, seed=5),
        "simple": gj.tasks.Partition(np.arange(96, dtype=np.int32), np.arange(0, 97, 16, dtype=np.int32)),
    }
    for name, expected in by_name.items():
        task = read(tmp_path, ini(*CIFAR, f"random_seed = 5\npartition_niid = {name}\n")).task
        np.testing.assert_array_equal(task.data["indices"], expected.indices)
        np.testing.assert_array_equal(task.data["offsets"], expected.offsets)


def test_epochs_become_steps(tmp_path):
    text = ini(*CIFAR, "partition_niid = iid\n", batch_size=5).replace("full_epochs = False", "full_epochs = True")
    twelve = read(tmp_path, text)  # 3 epochs of ⌈16/5⌉ batches
    other = read(tmp_path, ini(*CIFAR, "partition_niid = iid\n", batch_size=5, rounds=12))
    assert jax.tree.structure(twelve.protocol) == jax.tree.structure(other.protocol)
    uneven = gj.topology.ring(7)
    with pytest.raises(ValueError, match=r"full_epochs.*equal numbers of steps"):
        read(tmp_path, text.replace("batch_size = 5", "batch_size = 13"), graph=uneven)


def test_an_optimizer_with_a_state_begins_anew_in_every_round(tmp_path):
    """PyTorch's rules of momentum and weight decay, written out: v ← m v + g + w x, x ← x − l v, v = 0 at the start."""
    training = Training("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01}, 1, 1, False, "")
    optimizer = optimizer_of(training, 2)
    x, state, expected = jnp.asarray([1.0]), optimizer.init(jnp.asarray([1.0])), 1.0
    for _ in range(2):
        velocity = 0.0
        for gradient in (0.5, -0.25):
            velocity = 0.9 * velocity + gradient + 0.01 * expected
            expected -= 0.1 * velocity
            updates, state = optimizer.update(jnp.asarray([gradient]), state, x)
            x = optax.apply_updates(x, updates)
    np.testing.assert_allclose(x, [expected], rtol=1e-12)


def test_a_graph_file_is_read(tmp_path):
    (tmp_path / "graph.edges").write_text("6\n" + "".join(f"{i} {(i + 1) % 6}\n" for i in range(6)))
    found = read(tmp_path, FILES["MovieLens JWINS"], graph=tmp_path / "graph.edges")
    ring = gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(6)), 2)
    for own, expected in zip(jax.tree.leaves(found.timeline), jax.tree.leaves(ring), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_sharings_are_mapped_with_their_settings(tmp_path):
    def sharing(text):
        return dict(record_of(read(tmp_path, ini(*CIFAR, "", text)).protocol).arguments)["sharing"]

    S, plain = gj.sharing, gj.compress.transforms.identity()
    fixed, gamma = gj.compress.codes.int32_indices, gj.compress.codes.elias_gamma
    wire = gj.compress.codes.Wire
    alphas = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 1.0)
    sym2 = gj.compress.transforms.wavelet("sym2", levels=4)
    most = {"transform": plain, "rank_by": "change", "wire": wire(fixed)}
    for text, expected in (
        (
            "sharing_class = Choco\nstep_size = 0.3\nalpha = 0.1\n",
            S.choco(gj.compress.top_k(share=0.1, indices=fixed), 0.3),
        ),
        (some("PartialModel", 0.1), S.jwins((0.1,), cap=1.0, accumulate="nothing", **most)),
        (
            some("PartialModel", 0.1) + "accumulation = True\n",
            S.jwins((0.1,), cap=1.0, accumulate="training", **most),
        ),
        (
            JWINS,
            S.jwins(
                alphas,
                cap=0.5,
                transform=sym2,
                accumulate="round",
                rank_by="change",
                wire=wire(gamma, value_ratio=(37, 40)),
            ),
        ),
        (some("SubSampling", 0.3), S.random_subset(0.3)),
        (FULL, S.full()),
    ):
        assert sharing(text) == record_of(expected)


def rounds_of(found):
    plan = found.timeline
    for t in range(len(plan.xs["index"])):
        event = plan.event(
            jax.random.key(0), plan.shared, jax.tree.map(lambda leaf, t=t: jnp.asarray(leaf[t]), plan.xs)
        )
        yield np.asarray(gj.mixing.to_dense(event.mixing, N))


@pytest.mark.parametrize(("number", "seed"), [("random_seed = 5\n", 5), ("", 97)])
def test_fresh_graphs_are_those_of_the_dynamic_peer_sampler(number, seed, tmp_path):
    overlay = gj.timeline.overlays.decentralizepy_regular(N, 2, seed=seed)  # some rounds fall apart, and get a ring
    assert len({overlay.graph(t).num_edges for t in range(8)}) > 1
    metropolis, uniform = gj.mixing.metropolis, gj.mixing.uniform
    for name, weigh in (("Sharing", metropolis), ("PlainAverageSharing", uniform)):
        text = ini(*CIFAR, number, f"sharing_class = {name}\n[NODE]\ngraph_degree = 2\n")
        found = read(tmp_path, text, num_rounds=8)
        for t, W in enumerate(rounds_of(found)):
            np.testing.assert_allclose(W, weigh(overlay.graph(t)).toarray(), atol=1e-15)
        assert any("EL-Local" in note for note in found.notes)


def test_keys_without_an_effect_are_listed(tmp_path):
    more = "validation_source = Test\nvalidation_size = 0.1\ntest_batch_size = 64\n"
    kept = "dict_ordered = False\nsave_shared = True\n"
    for sharing in (some("PartialModel", 0.1) + kept + "save_accumulated = x\n", some("SubSampling", 0.1) + kept):
        named = {note.partition(" ")[0] for note in read(tmp_path, ini(*CIFAR, more, sharing)).notes}
        keys = {"validation_size", "test_batch_size", "dict_ordered", "save_shared"}
        assert keys <= named
        assert ("save_accumulated" in named) == ("save_accumulated" in sharing)
    assert not any("no effect" in note for note in read(tmp_path, ini(*CIFAR)).notes)


def test_zeros_of_the_optimizer_are_plain_sgd(tmp_path):
    text = FILES["MovieLens subsampling"]
    zeros = text.replace("lr = 0.1", "lr = 0.1\nmomentum = 0.0\nweight_decay = 0\nnesterov = False")
    plain, found = (record_of(read(tmp_path, each).protocol).arguments for each in (text, zeros))
    assert found == plain


M = FILES["MovieLens JWINS"]
REFUSED = {
    "Reddit": (ini("Reddit", "RNN"), r"dataset_class = Reddit: neither its data.*use one of CIFAR10"),
    "ResNet": (ini("CIFAR10", "ResNet8"), "model_class = ResNet8.*use one of LeNet"),
    "a misspelt key": (
        ini(*CIFAR, "partition_niid = kshard\nshard = 2\n"),
        "shard = 2: unknown key; use one of.*shards",
    ),
    "another partition": (ini(*CIFAR, "partition_niid = dirichlett\n"), "dirichlett: unknown; use one of False, iid"),
    "uneven shares": (M.replace("sizes =", "sizes = [0.5, 0.5]"), r"sizes = \[0.5, 0.5\].*leave it empty"),
    "validation": (ini(*CIFAR, "validation_source = Train\n"), "validation_source = Train.*use Test"),
    "local data": (ini(*CIFAR, "only_local = True\n"), "only_local.*use False"),
    "AdamW": (M.replace("= SGD", "= AdamW"), "optimizer_class = AdamW.*use one of SGD, Adam"),
    "dampening": (
        M.replace("lr = 0.1", "lr = 0.1\ndampening = 0.9"),
        "dampening = 0.9: unknown key; use one of.*momentum",
    ),
    "another loss": (M.replace("MSELoss", "CrossEntropyLoss"), "loss_class = CrossEntropyLoss.*MSELoss"),
    "no number": (M.replace("lr = 0.1", "lr = fast"), "lr = fast: use a number above 0"),
    "an expression": (
        M.replace("[0.1,0.15", "[__import__('os').getpid(),0.15"),
        "alpha_list = .*use a list of numbers",
    ),
    "a share above 1": (M.replace("[0.1,0.15", "[1.1,0.15"), "alpha_list.*up to 1"),
    "a yes": (M.replace("compress = True", "compress = yes"), "compress = yes: use True or False"),
    "lossy values": (M.replace("= EliasFpzip", "= EliasQuantization"), "EliasQuantization: its quantisation decodes"),
    "lossy fpzip": (M.replace("= EliasFpzip", "= EliasFpzipLossy"), "EliasFpzipLossy.*use one of Elias, EliasFpzip"),
    "FFT": (M.replace("= JWINS", "= FFT"), "sharing_class = FFT: it loses a coefficient"),
    "a server": (M.replace("= JWINS", "= STC"), "sharing_class = STC: needs a server"),
    "layers": (ini(*CIFAR, "", some("SubSampling", 0.1) + "layerwise = True\n"), "layerwise = True.*use False"),
    "other sockets": (M.replace("comm_class = TCP", "comm_class = UDP"), "comm_class = UDP: unknown; use one of TCP"),
    "no rate": (M.replace("lr = 0.1", ""), r"\[OPTIMIZER_PARAMS\] has no lr; use a number above 0"),
    "no section": (M.replace("[SHARING]", "[SHARE]"), r"unknown section \[SHARE\]; use DATASET"),
    "a missing section": (M.split("[SHARING]")[0], r"no section \[SHARING\]"),
    "twice": (M.replace("lr = 0.1", "lr = 0.1\nlr = 0.2"), "is not an INI file.*already exists"),
    "a degree": (
        FILES["tutorial Epidemic Learning"].replace("graph_degree = 3", "graph_degree = 6"),
        "graph_degree.*1 to 5",
    ),
    "a seed that is none": (FILES["tutorial Epidemic Learning"].replace("= 90", "= x"), "random_seed = x: use a whole"),
    "a seed below 0": (
        FILES["tutorial Epidemic Learning"].replace("= 90", "= -1"),
        r"config.ini, \[DATASET\] random_seed = -1: use a whole number from 0 on",
    ),
    "a decay below 0": (M.replace("lr = 0.1", "lr = 0.1\nweight_decay = -1"), "weight_decay = -1: use a number from 0"),
    "nesterov alone": (M.replace("lr = 0.1", "lr = 0.1\nnesterov = True"), "nesterov = True: there is no momentum"),
    "no shuffling": (M.replace("shuffle = True", "shuffle = False"), "shuffle = False: batches are drawn.*use True"),
    "no pickle": (ini(*CIFAR, "", some("SubSampling", 0.1) + "pickle = False\n"), "pickle = False: .*use True"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_named(name, tmp_path):
    text, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        read(tmp_path, text, data=images(8, 1, 4) if "= Reddit" in text else stand_in(text))


def test_a_wrong_path_graph_or_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="use the path of an INI file"):
        read_configuration(tmp_path / "nothing.ini", graph=GRAPH, num_rounds=1)
    with pytest.raises(TypeError, match=r"data.*stand for MovieLens"):
        read(tmp_path, M, data=images(8, 1, 4))
    with pytest.raises(ValueError, match=r"LEAF.*pass data="):
        read(tmp_path, FILES["FEMNIST partial model"], data=None)
    without = images(8, 1, 4)
    no_writers = gj.tasks.from_arrays(
        without.train.inputs, without.train.labels, without.test.inputs, without.test.labels
    )
    with pytest.raises(ValueError, match="no writers"):
        read(tmp_path, FILES["FEMNIST partial model"], data=no_writers)
    with pytest.raises(ValueError, match="learns images"):
        read(
            tmp_path,
            ini(*CIFAR),
            data=gj.tasks.from_arrays(np.eye(24), np.arange(24) % 4, np.eye(24), np.arange(24) % 4),
        )
    with pytest.raises(ValueError, match="num_rounds"):
        read(tmp_path, M, num_rounds=0)
