"""Text by role or speaker, cut into windows; the text of a role stays at one node.

:func:`shakespeare` loads plays by role, :func:`tiny_shakespeare` loads text by speaker, :func:`text_by_role` takes your
own texts, and :func:`synthetic_text` needs no file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import lzma
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, Integer, UInt8

from gossipjax._base.arguments import instance, optional_whole, real, shown, whole, wholes
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed
from gossipjax._base.hashing import named_arrays_hash
from gossipjax._base.memory import check_memory
from gossipjax.tasks._data import files

_LEFT_OUT = "@\\^`~"
SYMBOLS = "\n" + "".join(chr(code) for code in range(32, 127) if chr(code) not in _LEFT_OUT)
"""The 91 characters with codes 1 … 91: the newline, then printable ASCII in order without ``@ \\ ^ ` ~``. Together with
code 0, for every other character, they are the 92 symbols of the papers' model."""
NUM_SYMBOLS = len(SYMBOLS) + 1


class WindowRule(NamedTuple):
    """How to cut the text of a role into samples: a context of characters, and the next character.

    The first ``⌊train_share · length⌋`` characters are for training, the rest for testing. A window of ``context + 1``
    characters lies in one part of one role; windows start every ``stride`` characters from the start of the part.

    Attributes:
        context: number of characters that a prediction is based on.
        train_share: share of each role's text for training.
        stride: characters between the starts of consecutive training windows.
        test_stride: the same for test windows; None: the context, so that contexts do not overlap.
        minimum: drop roles with fewer characters; None: the fewest with a window in both parts (401 by default).
    """

    context: int = 80
    train_share: float = 0.8
    stride: int = 1
    test_stride: int | None = None
    minimum: int | None = None


@displayed
class Windows(NamedTuple):
    """Samples, one per row.

    Attributes:
        starts: ``(N,)`` start of the context in the pool of characters.
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
        name: its name in reports.
        codes: ``(characters,)`` codes of the characters of all roles, in the order of the roles.
        train: training windows.
        test: test windows.
        rule: how the windows were cut.
        role_names: names of the roles, by number.
        source: which files were read, or the settings of the generator, for reports.
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
        """The sha256 of everything that affects training: the characters, and the windows with their roles."""
        arrays = {f"train.{name}": a for name, a in self.train._asdict().items()}
        arrays |= {f"test.{name}": a for name, a in self.test._asdict().items()}
        return named_arrays_hash({"codes": self.codes, "context": self.rule.context} | arrays)


_PAPER_RULE = WindowRule()


# --- characters -------------------------------------------------------------------------------------------------------


def encode(text: str) -> UInt8[np.ndarray, " characters"]:
    """Return the codes of the characters: 1 + index in :data:`SYMBOLS`, or 0 for any other character."""
    instance("text", text, str, "a text to encode")
    table = np.zeros(129, np.uint8)
    table[[ord(symbol) for symbol in SYMBOLS]] = np.arange(1, NUM_SYMBOLS)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return table[np.minimum(points, 128)]


def decode(codes: Integer[np.ndarray, " characters"]) -> str:
    """Return the text of codes; code 0 becomes the replacement character U+FFFD.

    Raises:
        ValueError: if a code is out of range.
    """
    codes = wholes("codes", codes, shape=(None,), least=0, most=NUM_SYMBOLS - 1, remedy="as encode(text) gives them")
    return "".join(("\N{REPLACEMENT CHARACTER}" + SYMBOLS)[code] for code in codes)


# --- the data sets ----------------------------------------------------------------------------------------------------


@recorded()
def text_by_role(texts: Mapping[str, str], rule: WindowRule = _PAPER_RULE, *, name: str, source: str) -> TextDataset:
    """Build a data set from texts.

    Args:
        texts: the text of each role, by name; roles are numbered in this order.
        rule: how to cut texts into samples, and which texts are too short.
        name: name of the data set, for reports.
        source: where the texts come from, for reports.

    Returns:
        The data set.

    Raises:
        ValueError: if a number is out of range, or no role is long enough.
    """
    minimum = check_rule(rule)
    instance("texts", texts, Mapping, "the text of each role by its name, {'HAMLET': 'To be …'}")
    for role, text in texts.items():
        instance(f"texts[{role!r}]", text, str, "the text of that role")
    instance("name", name, str, "a word for reports")
    instance("source", source, str, "words for reports")
    roles = {role: text for role, text in texts.items() if len(text) >= minimum}
    if not roles:
        longest = max(map(len, texts.values()), default=0)
        raise ValueError(
            f"no role has the minimum of {minimum} characters, the longest has {longest}: take longer texts, a smaller "
            "context or a smaller minimum"
        )
    lengths = np.asarray([len(text) for text in roles.values()])
    trained = _train_lengths(lengths, rule.train_share)
    begins = np.cumsum(lengths) - lengths
    train = _windows(begins, trained, rule.context, rule.stride)
    test = _windows(begins + trained, lengths - trained, rule.context, rule.test_stride or rule.context)
    return TextDataset(name, encode("".join(roles.values())), train, test, rule, tuple(roles), source)


@recorded("caldas2018leaf")
def shakespeare(rule: WindowRule = _PAPER_RULE) -> TextDataset:
    """Load Shakespeare's 37 plays by role: the longer ones of 1,346 pairs (play, role), 861 by default.

    The text is the MIT edition without stage directions; LEAF uses another edition with comparable text.

    Args:
        rule: how to cut texts into samples, and which texts are too short.

    Returns:
        The data set; roles are named ``play__ROLE``.

    Raises:
        ValueError: if a number is out of range, or the file is corrupt.
        DataUnavailable: if the file is not in the user's folder; it cannot be downloaded.

    Reference:
        Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097, 2018.
    """
    check_rule(rule)
    roles = json.loads(lzma.decompress(files.fetch(files.SHAKESPEARE_ROLES).read_bytes()))
    texts = {role["user"]: role["text"] for role in roles}
    return text_by_role(texts, rule, name="shakespeare", source="Shakespeare's plays by role (MIT edition)")


@recorded("karpathy2015charrnn")
def tiny_shakespeare(rule: WindowRule = _PAPER_RULE) -> TextDataset:
    """Load the 1.1 million characters of tinyshakespeare by speaker: the longer texts of 309 speakers.

    Speeches are separated by empty lines and begin with a line ``SPEAKER:``. The text of a speaker is all speeches
    without that line, joined by newlines. A name that occurs in two plays counts as one speaker.

    Args:
        rule: how to cut texts into samples, and which texts are too short.

    Returns:
        The data set.

    Raises:
        ValueError: if a number is out of range, or the file is corrupt.
        DataUnavailable: if the file is neither in the user's folder nor available for download.

    Reference:
        Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015 (char-rnn).
    """
    check_rule(rule)
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
    """Generate texts from Markov chains; no file is needed.

    The next letter z depends on the previous two, x and y: P_r(z | x, y) = (1 − h) Q(z | x, y) + h Q_r(z | y). All
    roles share the law Q; role r has its own law Q_r. The rows of both are drawn from a Dirichlet distribution. Lengths
    are log-normal with median ``mean_length / √e``, and at least the minimum of the rule. The first two letters are
    uniform.

    Args:
        num_roles: number of roles.
        letters: the alphabet, distinct characters of :data:`SYMBOLS`.
        mean_length: mean number of characters per role, before the minimum.
        concentration: of the Dirichlet distribution, positive; small values make the next letter nearly certain.
        heterogeneity: h in [0, 1], the weight of Q_r.
        rule: how to cut texts into samples.
        seed: seed of all draws.

    Returns:
        The data set.

    Raises:
        ValueError: if a number is out of range, or the letters are not distinct symbols.
    """
    minimum = check_rule(rule)
    num_roles = whole("num_roles", num_roles, least=1, most=2**31 - 1)
    mean_length = real("mean_length", mean_length, above=0, most=1e12, unit="characters")
    concentration = real("concentration", concentration, above=0, most=1e300)
    heterogeneity = real("heterogeneity", heterogeneity, least=0, most=1)
    instance("letters", letters, str, "the alphabet")
    if len(letters) < 2 or len(set(letters)) < len(letters) or not set(letters) <= set(SYMBOLS):
        raise ValueError(f"letters={shown(letters)}: must be at least two distinct characters of SYMBOLS")
    # The longest role has about mean_length · exp(√(2 log num_roles)) characters; all chains run that long.
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
    """Run the chains of all roles together, letter by letter, by inverse transform sampling."""
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
    # The small term keeps whole numbers that floating point puts just below.
    return np.floor(train_share * lengths + 1e-9).astype(np.int64)


def _windows(
    begins: Int[np.ndarray, " roles"], lengths: Int[np.ndarray, " roles"], context: int, stride: int
) -> Windows:
    """Place windows in one part of every role's text; the last window and its next character fit in the part."""
    counts = (lengths - context - 1) // stride + 1
    roles = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    within = np.arange(len(roles)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Windows((begins[roles] + stride * within).astype(np.int32), roles)


def check_rule(rule: WindowRule) -> int:
    """Check the numbers of a rule; return the minimum length of a role."""
    instance("rule", rule, WindowRule, "such as WindowRule(context=80)")
    context = whole("context", rule.context, least=1, most=2**31 - 2)
    whole("stride", rule.stride, least=1)
    optional_whole("test_stride", rule.test_stride, least=1)
    optional_whole("minimum", rule.minimum, least=1)
    share = real("train_share", rule.train_share, above=0, below=1, remedy="so that text is left for testing")
    least = _least_length(context, share)
    if rule.minimum is not None and rule.minimum < least:
        raise ValueError(
            f"minimum={rule.minimum} must be at least {least}, so that both parts of every role fit a context of "
            f"{context} characters and the next one: raise it, or leave it None"
        )
    return least if rule.minimum is None else rule.minimum


def _least_length(context: int, train_share: float) -> int:
    """Return the length of the shortest text with room for a window in both parts."""
    length = max(int((context + 1) / train_share), int(context / (1 - train_share))) - 1
    while True:
        trained = int(_train_lengths(np.asarray([length]), train_share)[0])
        if min(trained, length - trained) > context:
            return length
        length += 1
