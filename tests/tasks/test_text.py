"""Text: symbols, windows against brute force, files and generator, the task, and the LSTM against NumPy."""

import dataclasses
import hashlib
import json
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from data_files import needs
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gossipjax import dpsgd, replicate, simulate
from gossipjax.mixing import metropolis
from gossipjax.observe import node_metrics
from gossipjax.tasks import (
    Model,
    Partition,
    WindowRule,
    by_user,
    lstm,
    natural,
    next_character,
    shakespeare,
    synthetic_text,
    text_by_role,
    tiny_shakespeare,
)
from gossipjax.tasks._data import files, text
from gossipjax.tasks._models.model import num_parameters
from gossipjax.tasks._problems import next_character as next_character_module
from gossipjax.timeline import rounds
from gossipjax.topology import ring

KEY = jax.random.key(0)
SHORT = WindowRule(context=5)
properties = settings(deadline=None, max_examples=50)


# --- symbols ----------------------------------------------------------------------------------------------------------


def test_there_are_ninety_two_symbols_and_one_is_the_unknown():
    assert text.NUM_SYMBOLS == 92
    assert len(set(text.SYMBOLS)) == 91
    assert text.SYMBOLS[0] == "\n"
    assert list(text.SYMBOLS[1:]) == sorted(text.SYMBOLS[1:])


@properties
@given(st.text(max_size=60))
def test_codes_are_places_in_the_list_and_others_are_unknown(written):
    codes = text.encode(written)
    assert list(codes) == [text.SYMBOLS.find(character) + 1 for character in written]  # find: −1 where absent
    shown = "".join(character if character in text.SYMBOLS else "\N{REPLACEMENT CHARACTER}" for character in written)
    assert text.decode(codes) == shown


def test_codes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"codes\[1\]=92: must be whole numbers in 0 … 91"):
        text.decode(np.array([3, 92], np.uint8))


# --- windows ----------------------------------------------------------------------------------------------------------


def brute_force(texts, rule):
    """Windows as (role, context, next character), by slicing each role's two parts."""
    parts = ([], [])
    for role, written in texts.items():
        border = len(written) * 8 // 10
        for samples, part, stride in (
            (parts[0], written[:border], rule.stride),
            (parts[1], written[border:], rule.test_stride or rule.context),
        ):
            for k in range(0, len(part) - rule.context, stride):
                samples.append((role, part[k : k + rule.context], part[k + rule.context]))
    return parts


def read_back(data, windows):
    c = data.rule.context
    return [
        (data.role_names[role], text.decode(data.codes[s : s + c]), text.decode(data.codes[s + c : s + c + 1]))
        for s, role in zip(*windows, strict=True)
    ]


@properties
@given(
    st.lists(st.text("abc \n", min_size=11, max_size=70), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.none() | st.integers(1, 5),
)
def test_windows_equal_slices_and_none_crosses_a_border(written, context, stride, test_stride):
    rule = WindowRule(context, stride=stride, test_stride=test_stride)
    texts = {f"role {k}": part for k, part in enumerate(written)}
    kept = {role: part for role, part in texts.items() if len(part) > 5 * context}
    if not kept:
        with pytest.raises(ValueError, match=f"no role has the minimum of {5 * context + 1} characters"):
            text_by_role(texts, rule, name="t", source="s")
        return
    data = text_by_role(texts, rule, name="t", source="s")
    assert data.role_names == tuple(kept)
    assert text.decode(data.codes) == "".join(kept.values())
    for windows, expected in zip((data.train, data.test), brute_force(kept, rule), strict=True):
        assert read_back(data, windows) == expected
        assert set(windows.roles) == set(range(len(kept)))  # every role trains and tests


@properties
@given(st.integers(1, 30), st.floats(0.05, 0.95))
def test_the_default_minimum_is_the_fewest_that_leave_both_parts_a_window(context, share):
    least = text.check_rule(WindowRule(context, train_share=share))
    for length, fits in ((least, True), (least - 1, False)):
        trained = int(text._train_lengths(np.array([length]), share)[0])
        assert (min(trained, length - trained) > context) == fits


def test_the_papers_context_needs_401_characters():
    assert text.check_rule(WindowRule()) == 401
    with pytest.raises(ValueError, match="minimum=400 must be at least 401"):
        synthetic_text(rule=WindowRule(minimum=400))
    texts = {"short": "a" * 999, "long": "b" * 1000}
    data = text_by_role(texts, WindowRule(minimum=1000), name="t", source="s")
    assert data.role_names == ("long",)
    assert (len(data.train.starts), len(data.test.starts)) == (800 - 80, 2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (WindowRule(context=0), "context=0: must .* in 1"),
        (WindowRule(stride=0), "stride=0"),
        (WindowRule(test_stride=-1), "test_stride=-1"),
        (WindowRule(train_share=1.0), r"train_share=1\.0: must .* below 1"),
    ],
)
@pytest.mark.parametrize("build", [synthetic_text, tiny_shakespeare, shakespeare])
def test_bad_rules_are_named_before_any_work(monkeypatch, rule, message, build):
    monkeypatch.setattr(files, "fetch", lambda file: pytest.fail("fetched"))
    with pytest.raises(ValueError, match=message):
        build(rule=rule)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Lay a file into an otherwise empty data folder, downloads being forbidden."""
    (tmp_path / "shakespeare").mkdir()
    monkeypatch.setenv("GOSSIPJAX_DATA", str(tmp_path))
    monkeypatch.setenv("GOSSIPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOSSIPJAX_OFFLINE", "1")

    def put(name, content):
        file = dataclasses.replace(getattr(files, name), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(files, name, file)
        (tmp_path / "shakespeare" / file.name).write_bytes(content)

    return put


def test_speeches_are_gathered_by_speaker(put):
    blocks = ["First Citizen:\nBefore we proceed\nany further, hear me.", "All:\nSpeak, speak.", "All:", ""]
    blocks += ["\nFirst Citizen:\nYou are all resolved: to die\nthan to famish?", "All:\nResolved. resolved.\n"]
    put("TINY_SHAKESPEARE", "\n\n".join(blocks).encode())
    data = tiny_shakespeare(WindowRule(context=3))
    said = [
        "Before we proceed\nany further, hear me.\nYou are all resolved: to die\nthan to famish?",
        "Speak, speak.\n\nResolved. resolved.",
    ]
    assert data.role_names == ("First Citizen", "All")
    assert text.decode(data.codes) == "".join(said)


def test_roles_are_read_from_the_list(put):
    roles = [{"user": "play__A", "text": "to be or\nnot"}, {"user": "play__B", "text": "x"}]
    put("SHAKESPEARE_ROLES", lzma.compress(json.dumps(roles).encode()))
    data = shakespeare(WindowRule(context=1))
    assert (data.role_names, text.decode(data.codes)) == (("play__A",), "to be or\nnot")


def test_without_files_the_errors_name_them(put):
    with pytest.raises(files.DataUnavailable, match=r"tinyshakespeare\.txt.*char-rnn"):
        tiny_shakespeare()
    with pytest.raises(files.DataUnavailable, match=r"shakespeare_by_role\.json\.xz.*cannot be downloaded by itself"):
        shakespeare()


@needs("shakespeare")
def test_published_plays():
    data = shakespeare()
    assert len(data.role_names) == 861
    assert not np.any(data.codes == 0)
    assert text.decode(data.codes[:21]) == "So shaken as we are, "
    partition = by_user(data.train.roles, 96, seed=90)
    people = [len(np.unique(data.train.roles[partition.shard(node)])) for node in range(96)]
    assert sorted(people) == [8] * 3 + [9] * 93


@needs("tiny_shakespeare")
def test_published_tiny_shakespeare():
    everyone = tiny_shakespeare(WindowRule(context=1))
    assert len(everyone.role_names) <= 309
    assert not np.any(everyone.codes == 0)
    assert len(np.unique(everyone.codes)) == 65
    assert len(tiny_shakespeare(WindowRule(context=31, minimum=160)).role_names) == 232
    assert len(tiny_shakespeare(WindowRule(minimum=1000)).role_names) == 141


# --- the generator ----------------------------------------------------------------------------------------------------


def test_generated_letters_follow_the_stated_law():
    """Letters after each pair are counted: a multinomial of known law, so Pearson's χ² has known mean and variance."""
    rng = np.random.default_rng(0)
    common, own = rng.dirichlet(np.full(3, 2.0), (3, 3)), rng.dirichlet(np.full(3, 2.0), (2, 3))
    chains = text._chains(np.random.default_rng(1), common, own, 0.4, 20_000)
    for role in range(2):
        law = 0.6 * common + 0.4 * own[role][None]
        counts = np.zeros((3, 3, 3))
        np.add.at(counts, (chains[role, :-2], chains[role, 1:-1], chains[role, 2:]), 1)
        expected = counts.sum(-1, keepdims=True) * law
        chi2, freedom = np.sum((counts - expected) ** 2 / expected), 9 * 2
        assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


def test_generated_text_is_fixed_by_its_seed_and_long_enough():
    first, again, other = (synthetic_text(5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.codes, again.codes)
    assert not np.array_equal(first.codes[:400], other.codes[:400])
    assert len(first.role_names) == 5
    assert set(text.decode(first.codes)) <= set("abcdefghijklmnopqrst ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_roles": 0}, "num_roles=0: must .* in 1"),
        ({"mean_length": float("inf")}, "mean_length=inf"),
        ({"concentration": 0.0}, r"concentration=0\.0"),
        ({"heterogeneity": 1.5}, r"heterogeneity=1\.5"),
        ({"letters": "aba"}, "letters='aba': must be at least two distinct"),
        ({"letters": "a"}, "letters='a'"),
        ({"letters": "aé"}, "letters='aé'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic_text(**options)


# --- the task ---------------------------------------------------------------------------------------------------------

TEXT = synthetic_text(6, mean_length=60.0, rule=SHORT, seed=2)


def bigram():
    """Logits by the last character alone: the smallest model of text."""

    def init(key):
        return jax.random.normal(key, (92, 92), jnp.float32)

    return Model(init, lambda params, x: params[x[:, -1]])


def test_batches_are_windows_of_the_nodes_own_roles():
    partition = natural(TEXT.train.roles, 3)
    task = next_character(TEXT, partition, bigram(), batch_size=8)
    draw = jax.jit(lambda key, node: task.batch(key, task.data, node))
    assert task.data["codes"].dtype == jnp.uint8
    for node in range(3):
        picked = partition.shard(node)
        own = {sample[1:] for sample in read_back(TEXT, text.Windows(*(column[picked] for column in TEXT.train)))}
        seen = set()
        for seed in range(250):
            batch = jax.tree.map(np.asarray, draw(jax.random.key(seed), jnp.asarray(node, jnp.int32)))
            seen |= {(text.decode(x), text.decode(y[None])) for x, y in zip(batch["inputs"], batch["labels"])}  # noqa: B905
        assert seen == own  # 2,000 draws of at most 150 windows miss one with probability below 3e-4, here none


@pytest.mark.parametrize("block", [4, 1000])
def test_metrics_equal_a_loop_however_the_windows_are_blocked(monkeypatch, block):
    monkeypatch.setattr(next_character_module, "_BLOCK", block)
    task = next_character(TEXT, natural(TEXT.train.roles), bigram())
    params = task.init(KEY)
    metrics = jax.jit(task.metrics)(params, task.test)
    hits, losses = [], []
    for _, context, following in read_back(TEXT, TEXT.test):
        logits = np.asarray(params, np.float64)[text.encode(context)[-1]]
        label = text.encode(following)[0]
        hits.append(np.argmax(logits) == label)
        losses.append(np.log(np.exp(logits).sum()) - logits[label])
    # Float32 means of some tens of terms.
    np.testing.assert_allclose(metrics["accuracy"], np.mean(hits), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)


def test_bad_tasks_are_refused():
    shards = natural(TEXT.train.roles)
    empty = Partition(np.zeros(1, np.int32), np.array([0, 1, 1], np.int32))
    cases = [
        (lambda: next_character(TEXT, shards, bigram(), batch_size=0), "batch_size=0"),
        (lambda: next_character(TEXT, by_user(np.arange(10**4), 2, seed=0), bigram()), "beyond the .* synthetic_text"),
        (lambda: next_character(TEXT, empty, bigram()), "node 1 holds no sample"),
        (
            lambda: next_character(TEXT, shards, lstm(50, 2, 3, 1, 5)),
            r"\(16, 50\) .* must give \(16, 92\)",
        ),
        (lambda: next_character(TEXT, shards, lstm(92, 2, 3, 1, 6)), r"does not take inputs of shape \(5,\)"),
    ]
    for build, message in cases:
        with pytest.raises(ValueError, match=message):
            build()


def test_nodes_learn_to_write():
    """Gossip of a table of two letters before on a ring: better than frequencies can be, on a subset too."""
    # The codes of a, b, c and d differ modulo 4.
    table = Model(lambda key: jnp.zeros((4, 4, 92), jnp.float32), lambda table, x: table[x[:, -2] % 4, x[:, -1] % 4])
    data = synthetic_text(8, letters="abcd", concentration=0.2, mean_length=300.0, rule=SHORT, seed=4)
    task = next_character(data, by_user(data.train.roles, 4, seed=0), table, batch_size=16)
    protocol = dpsgd(task, Partial(optax.sgd, 2.0))
    watch = [node_metrics(task, samples=50)]
    start = replicate(task.init(jax.random.key(3)), 4)
    run = simulate(KEY, protocol, rounds(metropolis(ring(4)), 200), start, observers=watch, record_every=200)
    share = np.bincount(data.codes[data.test.starts + 5], minlength=92) / len(data.test.starts)
    entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
    metrics = jax.jit(jax.vmap(task.metrics, in_axes=(0, None)))(run.x, task.test)
    assert float(jnp.max(metrics["loss"])) < entropy
    first, last = (run["test_loss"].isel(record=record).sel(statistic="mean") for record in (0, -1))
    assert float(last) < entropy < float(first)


# --- the LSTM ---------------------------------------------------------------------------------------------------------


def test_parameters_are_as_many_as_published():
    """Embedding 92 × 8; per layer 4 gates of 256 with two biases; 80 × 256 numbers to 92 symbols."""
    params = jax.eval_shape(lstm().init, KEY)
    layers = sum(4 * 256 * (inputs + 256) + 2 * 4 * 256 for inputs in (8, 256))
    assert num_parameters(params) == 92 * 8 + layers + 20480 * 92 + 92 == 2_683_708
    assert params["lstm"][1]["w"].shape == params["lstm"][1]["u"].shape == (1024, 256)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_logits(params, x):
    """The model one sequence, one position and one hidden unit at a time."""
    rows = []
    for sequence in np.asarray(x):
        y = [params["embedding"][code] for code in sequence]
        for layer in params["lstm"].values():
            size = layer["u"].shape[1]
            h, c, outputs = np.zeros(size), np.zeros(size), []
            for value in y:
                new_h, new_c = np.zeros(size), np.zeros(size)
                for k in range(size):
                    i, f, g, o = (
                        layer["w"][gate * size + k] @ value
                        + layer["b_w"][gate * size + k]
                        + layer["u"][gate * size + k] @ h
                        + layer["b_u"][gate * size + k]
                        for gate in range(4)
                    )
                    new_c[k] = sigmoid(f) * c[k] + sigmoid(i) * np.tanh(g)
                    new_h[k] = sigmoid(o) * np.tanh(new_c[k])
                h, c = new_h, new_c
                outputs.append(h)
            y = outputs
        flat = np.maximum(np.concatenate(y), 0)
        rows.append(params["dense"]["kernel"] @ flat + params["dense"]["bias"])
    return np.stack(rows)


def test_lstm_equals_a_numpy_restatement():
    model = lstm(7, 3, 4, 2, 6)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(model.init)(jax.random.key(1)))
    x = np.random.default_rng(0).integers(0, 7, (5, 6)).astype(np.int32)
    expected = numpy_logits(jax.tree.map(np.asarray, params), x)
    # Float64 sums of at most 24 terms in two orders.
    np.testing.assert_allclose(jax.jit(model.apply)(params, jnp.asarray(x)), expected, rtol=1e-11, atol=1e-13)


def test_lstm_gradients_equal_differences():
    model = lstm(5, 2, 3, 1, 3)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(model.init)(jax.random.key(2)))
    x = jnp.asarray(np.random.default_rng(1).integers(0, 5, (2, 3)), jnp.int32)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    def loss(flat):
        return jnp.sum(jnp.square(model.apply(unflatten(flat), x)))

    direction = jax.random.normal(KEY, flat.shape, jnp.float64)
    slope = (loss(flat + 1e-6 * direction) - loss(flat - 1e-6 * direction)) / 2e-6
    # Central differences: truncation 1e-12 and rounding 1e-16 / 1e-6, relative to values of order one.
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(flat) @ direction, slope, rtol=1e-7)


def test_lstm_starts_as_pytorch_starts_it():
    params = jax.jit(lstm(92, 8, 64, 2, 10).init)(jax.random.key(5))
    bounds = [(leaf, 1 / 8) for layer in params["lstm"].values() for leaf in layer.values()]
    bounds += [(leaf, 1 / np.sqrt(640)) for leaf in params["dense"].values()]
    for leaf, bound in bounds:
        values = np.asarray(leaf, np.float64)
        assert np.abs(values).max() <= bound * (1 + 1e-6)  # float32 rounding of the bound
        # Variance of U(±a) is a²/3; its estimate has standard error a² sqrt(4 / 45 / N).
        assert abs(np.mean(values**2) - bound**2 / 3) < 4 * bound**2 * np.sqrt(4 / 45 / values.size)
    embedding = np.asarray(params["embedding"], np.float64)
    assert abs(embedding.mean()) < 4 / np.sqrt(embedding.size)
    assert abs(np.mean(embedding**2) - 1) < 4 * np.sqrt(2 / embedding.size)


def test_lstms_built_alike_are_equal_and_bad_sizes_are_refused():
    assert lstm(5, 2, 3, 2, 4) == lstm(5, 2, 3, 2, 4) != lstm(5, 2, 3, 1, 4)
    assert hash(lstm(5, 2, 3, 2, 4)) == hash(lstm(5, 2, 3, 2, 4))
    with pytest.raises(ValueError, match=r"layers=0: must be a whole number in 1"):
        lstm(5, 2, 3, 0, 4)
