"""Text by role or speaker, and the prediction of its next character: a role's text stays at one node.

The data are :func:`shakespeare` (plays by role), :func:`tiny_shakespeare` (by speaker), any texts of one's own
(:func:`text_by_role`), or :func:`synthetic_text`, which needs no file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import lzma
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Integer, Key, UInt8

from gossipjax._base.arguments import instance, optional_whole, real, shown, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data import files
from gossipjax.tasks._data.checksum import sha256_of
from gossipjax.tasks._models.models import Model, check_model
from gossipjax.tasks._partition import Partition, check_held
from gossipjax.types import Params, Task

_LEFT_OUT = "@\\^`~"
SYMBOLS = "\n" + "".join(chr(code) for code in range(32, 127) if chr(code) not in _LEFT_OUT)
"""The 91 characters with codes 1 … 91: the line end, then printable ASCII in its order but for ``@ \\ ^ ` ~``. With
code 0, which stands for every other character, they are the 92 symbols that the papers' model has room for."""
NUM_SYMBOLS = len(SYMBOLS) + 1
_BLOCK = 256
"""Test windows evaluated at a time: all positions of an LSTM over them are in memory at once."""


class WindowRule(NamedTuple):
    """How the text of a role becomes samples: a context of characters, and the one that follows.

    The first ``⌊train_share · length⌋`` characters train, the rest test. A window of ``context + 1`` characters lies
    wholly in one part of one role; it begins every ``stride`` characters from the first of its part.

    Attributes:
        context: characters that a prediction sees.
        train_share: share of each role's text that is for training.
        stride: characters from one training window to the next.
        test_stride: the same for testing; None: the context, so that no two contexts overlap.
        minimum: roles with fewer characters are dropped; None: the fewest that leave each part a window (401 by
            default).
    """

    context: int = 80
    train_share: float = 0.8
    stride: int = 1
    test_stride: int | None = None
    minimum: int | None = None


@displayed
class Windows(NamedTuple):
    """Samples, one a row.

    Attributes:
        starts: ``(N,)`` where the context begins in the pool of characters.
        roles: ``(N,)`` number of the role.
    """

    starts: Int32[np.ndarray, " N"]
    roles: Int32[np.ndarray, " N"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return "", {"windows": len(self.starts), "roles": np.unique(self.roles).size}


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class TextDataset:
    """Texts of several roles with a split within each.

    Attributes:
        name: what reports call it.
        codes: ``(characters,)`` codes of :data:`SYMBOLS`, the kept roles one after another.
        train: training windows.
        test: test windows.
        rule: how they were cut.
        role_names: names of the kept roles, by number.
        source: the form of the files that was read or the settings of the generator, to be stated with results.
    """

    name: str
    codes: UInt8[np.ndarray, " characters"]
    train: Windows
    test: Windows
    rule: WindowRule
    role_names: tuple[str, ...]
    source: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        sizes = {"training windows": len(self.train.starts), "test windows": len(self.test.starts)}
        facts = {"roles": len(self.role_names), "characters": len(self.codes), "context": f"of {self.rule.context}"}
        return self.name, sizes | facts | {"source": self.source}

    @functools.cached_property
    def checksum(self) -> str:
        """The sha256 of all that training depends on: the characters, and the windows with their roles."""
        arrays = {f"train.{name}": a for name, a in self.train._asdict().items()}
        arrays |= {f"test.{name}": a for name, a in self.test._asdict().items()}
        return sha256_of({"codes": self.codes, "context": self.rule.context} | arrays)


_PAPER_RULE = WindowRule()


# --- characters -------------------------------------------------------------------------------------------------------


def encode(text: str) -> UInt8[np.ndarray, " characters"]:
    """Return the codes of a text's characters: 1 + place in :data:`SYMBOLS`, and 0 for any other character."""
    instance("text", text, str, "a text to encode")
    table = np.zeros(129, np.uint8)
    table[[ord(symbol) for symbol in SYMBOLS]] = np.arange(1, NUM_SYMBOLS)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return table[np.minimum(points, 128)]


def decode(codes: Integer[np.ndarray, " characters"]) -> str:
    """Return the text of codes; code 0 becomes the replacement character U+FFFD.

    Raises:
        ValueError: a code is no symbol's.
    """
    codes = wholes("codes", codes, shape=(None,), least=0, most=NUM_SYMBOLS - 1, remedy="as encode(text) gives them")
    return "".join(("\N{REPLACEMENT CHARACTER}" + SYMBOLS)[code] for code in codes)


# --- the data sets ----------------------------------------------------------------------------------------------------


@recorded()
def text_by_role(texts: Mapping[str, str], rule: WindowRule = _PAPER_RULE, *, name: str, source: str) -> TextDataset:
    """Make a data set of any texts.

    Args:
        texts: the text of each role, by its name; roles are numbered in this order.
        rule: how texts become samples, and which are too short.
        name: what reports call it.
        source: where the texts are from, to be stated with results.

    Returns:
        The data set.

    Raises:
        ValueError: a number out of its range, or no role is long enough.
    """
    minimum = _check_rule(rule)
    instance("texts", texts, Mapping, "the text of each role by its name, {'HAMLET': 'To be …'}")
    for role, text in texts.items():
        instance(f"texts[{role!r}]", text, str, "the text of that role")
    instance("name", name, str, "a word for reports")
    instance("source", source, str, "words for reports")
    kept = {role: text for role, text in texts.items() if len(text) >= minimum}
    if not kept:
        longest = max(map(len, texts.values()), default=0)
        raise ValueError(
            f"no role has the minimum of {minimum} characters, the longest has {longest}: take longer texts, a smaller "
            "context or a smaller minimum"
        )
    lengths = np.asarray([len(text) for text in kept.values()])
    trained = _train_lengths(lengths, rule.train_share)
    begins = np.cumsum(lengths) - lengths
    train = _windows(begins, trained, rule.context, rule.stride)
    test = _windows(begins + trained, lengths - trained, rule.context, rule.test_stride or rule.context)
    return TextDataset(name, encode("".join(kept.values())), train, test, rule, tuple(kept), source)


@recorded("caldas2018leaf")
def shakespeare(rule: WindowRule = _PAPER_RULE) -> TextDataset:
    """Load Shakespeare's 37 plays by role, 1,346 pairs (play, role), of which the longer are kept (861 by default).

    The text is the MIT edition's without stage directions; it is comparable with LEAF's, which is another edition.

    Args:
        rule: how texts become samples, and which are too short.

    Returns:
        The data set; roles are named ``play__ROLE``.

    Raises:
        ValueError: a number out of its range, or the file is corrupt.
        DataUnavailable: the file is not in a folder of one's own; it cannot be downloaded.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    _check_rule(rule)
    roles = json.loads(lzma.decompress(files.fetch(files.SHAKESPEARE_ROLES).read_bytes()))
    texts = {role["user"]: role["text"] for role in roles}
    return text_by_role(texts, rule, name="shakespeare", source="Shakespeare's plays by role (MIT edition)")


@recorded("karpathy2015charrnn")
def tiny_shakespeare(rule: WindowRule = _PAPER_RULE) -> TextDataset:
    """Load the 1.1 million characters of tinyshakespeare by speaker, 309 of them, of which the longer are kept.

    Speeches are separated by empty lines and begin with ``SPEAKER:``; a speaker's text is the speeches, without that
    line, one a line after another. One name in two plays is one speaker.

    Args:
        rule: how texts become samples, and which are too short.

    Returns:
        The data set.

    Raises:
        ValueError: a number out of its range, or the file is corrupt.
        DataUnavailable: the file is neither in a folder of one's own nor to be had by download.

    Reference:
        Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015 (char-rnn).
    """
    _check_rule(rule)
    speeches = defaultdict(list)
    for block in files.fetch(files.TINY_SHAKESPEARE).read_text(encoding="ascii").split("\n\n"):
        speaker, _, speech = block.strip("\n").partition("\n")
        speeches[speaker.removesuffix(":")].append(speech)
    texts = {speaker: "\n".join(parts) for speaker, parts in speeches.items()}
    return text_by_role(texts, rule, name="tiny_shakespeare", source="tinyshakespeare (char-rnn), by speaker")


@recorded()
def synthetic_text(
    num_roles: int = 64,
    *,
    letters: str = "abcdefghijklmnopqrst ",
    mean_length: float = 2000.0,
    concentration: float = 0.1,
    heterogeneity: float = 0.2,
    rule: WindowRule = _PAPER_RULE,
    seed: int = 0,
) -> TextDataset:
    """Make the texts of Markov chains, which need no file.

    The next letter follows the two before it: P_r(z | x, y) = (1 − h) Q(z | x, y) + h Q_r(z | y). The law Q is common,
    that of each role r is its own; their rows are Dirichlet. Lengths are log-normal of median ``mean_length / √e``,
    and none is shorter than the rule's minimum. The first two letters are uniform.

    Args:
        num_roles: number of roles.
        letters: the alphabet, distinct characters of :data:`SYMBOLS`.
        mean_length: characters per role on average, before the minimum.
        concentration: of the Dirichlet rows, positive; small makes the next letter certain.
        heterogeneity: h in [0, 1], the weight of a role's own law.
        rule: how texts become samples.
        seed: seed of all draws.

    Returns:
        The data set.

    Raises:
        ValueError: a number out of its range, or letters that are not distinct symbols.
    """
    minimum = _check_rule(rule)
    num_roles = whole("num_roles", num_roles, least=1, most=2**31 - 1)
    mean_length = real("mean_length", mean_length, above=0, most=1e12, unit="characters")
    concentration = real("concentration", concentration, above=0, most=1e300)
    heterogeneity = real("heterogeneity", heterogeneity, least=0, most=1)
    instance("letters", letters, str, "the alphabet")
    if len(letters) < 2 or len(set(letters)) < len(letters) or not set(letters) <= set(SYMBOLS):
        raise ValueError(f"letters={shown(letters)}: must be at least two distinct characters of SYMBOLS")
    # The longest of the roles has about mean_length · exp(√(2 log num_roles)) characters, and all run as long.
    longest = max(minimum, mean_length) * np.exp(np.sqrt(2 * np.log(num_roles)))
    numbers = int(num_roles * (longest + len(letters) ** 2))
    check_memory(f"num_roles={num_roles}, mean_length={mean_length:g}", 8 * numbers, "lower either")
    rng = np.random.default_rng(checked_seed(seed))
    size = len(letters)
    common = rng.dirichlet(np.full(size, concentration), (size, size))
    own = rng.dirichlet(np.full(size, concentration), (num_roles, size))
    lengths = np.maximum(minimum, np.round(mean_length * np.exp(rng.standard_normal(num_roles) - 0.5)).astype(int))
    chains = _chains(rng, common, own, heterogeneity, int(lengths.max()))
    texts = {f"chain {r}": "".join(letters[k] for k in chains[r, : lengths[r]]) for r in range(num_roles)}
    source = f"synthetic text (Markov chains of order 2, {size} letters, heterogeneity {heterogeneity:g}, seed {seed})"
    return text_by_role(texts, rule, name="synthetic_text", source=source)


def _chains(
    rng: np.random.Generator,
    common: Float[np.ndarray, "s s s"],
    own: Float[np.ndarray, "roles s s"],
    heterogeneity: float,
    length: int,
) -> Int[np.ndarray, "roles length"]:
    """Run all roles' chains together, letter by letter, by inverting the law's distribution function."""
    roles, size = np.arange(len(own)), common.shape[0]
    chains = np.empty((len(own), length), np.int64)
    chains[:, :2] = rng.integers(0, size, (len(own), 2))
    common, own = common.cumsum(-1), own.cumsum(-1)
    for t in range(2, length):
        x, y = chains[:, t - 2], chains[:, t - 1]
        below = (1 - heterogeneity) * common[x, y] + heterogeneity * own[roles, y]
        chains[:, t] = np.minimum(np.sum(below <= rng.random(len(own))[:, None], axis=1), size - 1)
    return chains


def _train_lengths(lengths: Int[np.ndarray, " roles"], train_share: float) -> Int[np.ndarray, " roles"]:
    # The small term keeps a whole number that floating point has put just below from being rounded down.
    return np.floor(train_share * lengths + 1e-9).astype(np.int64)


def _windows(
    begins: Int[np.ndarray, " roles"], lengths: Int[np.ndarray, " roles"], context: int, stride: int
) -> Windows:
    """Place windows in one part of every role's text; the last one's next character is still in it."""
    counts = (lengths - context - 1) // stride + 1
    roles = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    within = np.arange(len(roles)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Windows((begins[roles] + stride * within).astype(np.int32), roles)


def _check_rule(rule: WindowRule) -> int:
    """Refuse numbers out of their range; return the minimum length of a role."""
    instance("rule", rule, WindowRule, "such as WindowRule(context=80)")
    context = whole("context", rule.context, least=1, most=2**31 - 2)
    whole("stride", rule.stride, least=1)
    optional_whole("test_stride", rule.test_stride, least=1)
    optional_whole("minimum", rule.minimum, least=1)
    share = real("train_share", rule.train_share, above=0, below=1, remedy="so that text is left to test with")
    least = _least_length(context, share)
    if rule.minimum is not None and rule.minimum < least:
        raise ValueError(
            f"minimum={rule.minimum} must be at least {least}, so that a context of {context} characters and the next "
            "one fit into both parts of every role: raise it, or leave it None"
        )
    return least if rule.minimum is None else rule.minimum


def _least_length(context: int, train_share: float) -> int:
    """Return the shortest text of which both parts have room for a window."""
    length = max(int((context + 1) / train_share), int(context / (1 - train_share))) - 1
    while True:
        trained = int(_train_lengths(np.asarray([length]), train_share)[0])
        if min(trained, length - trained) > context:
            return length
        length += 1


# --- the task ---------------------------------------------------------------------------------------------------------


class _Setting(NamedTuple):
    """What is compiled in."""

    model: Model
    context: int
    batch_size: int


def _gather(setting: Frozen[_Setting], codes: Array, starts: Array) -> tuple[Int[Array, "b context"], Int[Array, " b"]]:
    """Read windows out of the pool: contexts and the characters that follow."""
    places = starts[:, None] + jnp.arange(setting.value.context + 1, dtype=starts.dtype)[None]
    window = codes[places].astype(jnp.int32)
    return window[:, :-1], window[:, -1]


def _batch(setting: Frozen[_Setting], key: Key[Array, ""], data: dict[str, Array], node: Array) -> dict[str, Array]:
    """Draw windows of the node's roles uniformly with replacement; those of a node lie side by side."""
    picks = jax.random.randint(key, (setting.value.batch_size,), data["offsets"][node], data["offsets"][node + 1])
    inputs, labels = _gather(setting, data["codes"], data["starts"][picks])
    return {"inputs": inputs, "labels": labels}


def _loss(setting: Frozen[_Setting], key: Key[Array, ""], params: Params, batch: dict[str, Array]) -> Float[Array, ""]:
    del key
    logits = setting.value.model.apply(params, batch["inputs"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))


def _metrics(setting: Frozen[_Setting], params: Params, test: dict[str, Array]) -> dict[str, Array]:
    def totals(windows: tuple[Array, Array]) -> dict[str, Array]:
        starts, labels = windows[0], windows[1].astype(jnp.int32)
        logits = setting.value.model.apply(params, _gather(setting, test["codes"], starts)[0])
        hits = (jnp.argmax(logits, -1).astype(jnp.int32) == labels).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return {"accuracy": jnp.sum(hits), "loss": jnp.sum(loss)}

    windows = test["inputs"], test["labels"]
    total = windows[0].shape[0]
    whole = total // _BLOCK * _BLOCK
    sums = []
    if whole:
        blocks = jax.tree.map(lambda a: a[:whole].reshape(-1, _BLOCK), windows)
        sums.append(jax.tree.map(lambda a: jnp.sum(a, axis=0), jax.lax.map(totals, blocks)))
    if whole < total:
        sums.append(totals(jax.tree.map(lambda a: a[whole:], windows)))
    return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]) / total, *sums)


def _init(setting: Frozen[_Setting], key: Key[Array, ""]) -> Params:
    return setting.value.model.init(key)


@recorded("caldas2018leaf")
def next_character(dataset: TextDataset, partition: Partition, model: Model, *, batch_size: int = 16) -> Task:
    """Build the prediction of the next character: mean cross-entropy of a model on each node's own roles.

    Characters stay bytes in one pool, and a node has a list of places in it: windows are read in the loop.

    Args:
        dataset: texts, cut into windows.
        partition: which training windows each node holds, such as ``by_user(dataset.train.roles, num_nodes, seed=0)``.
        model: ``(init, apply)``: ``apply(params, inputs) -> logits``, inputs ``(b, context)`` codes, logits
            ``(b, 92)``; such as :func:`gossipjax.tasks.lstm`.
        batch_size: windows drawn per step, uniformly with replacement from the node's share.

    Returns:
        A task with metrics ``accuracy`` (share in [0, 1]) and ``loss`` (nats a character) over all roles' test windows.

    Raises:
        ValueError: batch_size < 1, a window outside the text, a partition of other data, a node without windows, a
            model of another shape.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018; as trained in Dhasade et al.,
        "Get More for Less in Decentralized Learning Systems" (JWINS), ICDCS 2023.
    """
    instance("dataset", dataset, TextDataset, "such as synthetic_text() or text_by_role(texts, name=…, source=…)")
    batch_size = whole("batch_size", batch_size, least=1, most=2**31 - 1)
    _check_rule(dataset.rule)
    context = dataset.rule.context
    known = wholes(f"codes of {dataset.name}", dataset.codes, shape=(None,), least=0, most=NUM_SYMBOLS - 1)
    train_starts, test_starts = (
        _check_starts(part, f"{dataset.name}: {what} starts", len(known) - context - 1)
        for part, what in ((dataset.train, "training"), (dataset.test, "test"))
    )
    check_held(partition, len(train_starts), dataset.name)
    example = jax.ShapeDtypeStruct((batch_size, context), jnp.int32)
    model = check_model(model, example, NUM_SYMBOLS, f"the {NUM_SYMBOLS} symbols")
    codes = jnp.asarray(known, jnp.uint8)
    setting = Frozen(_Setting(model, context, batch_size))
    offsets, starts = partition.offsets, train_starts[partition.indices]
    places = {"starts": jnp.asarray(starts, jnp.int32), "offsets": jnp.asarray(offsets, jnp.int32)}
    labels = jnp.asarray(known[test_starts + context], jnp.uint8)
    return Task(
        Partial(_init, setting),
        Partial(_batch, setting),
        Partial(_loss, setting),
        Partial(_metrics, setting),
        {"codes": codes} | places,
        {"codes": codes, "inputs": jnp.asarray(test_starts, jnp.int32), "labels": labels},
        num_nodes=partition.num_nodes,
    )


def _check_starts(windows: Windows, name: str, last: int) -> Int[np.ndarray, " N"]:
    """Refuse windows that reach beyond the text: a gather would read its last character instead."""
    instance(name, windows, Windows, "make them with Windows(starts, roles)")
    starts = wholes(name, windows.starts, shape=(None,), least=0, most=last, remedy="windows must lie in the text")
    if not len(starts):
        raise ValueError(f"{name}: there is no window; take longer texts or a shorter context")
    return starts
