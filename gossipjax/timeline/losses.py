"""Loss of messages in rounds, for :func:`gossipjax.timeline.changing_rounds`.

A link is the ordered pair of a sender and a receiver or, with ``both_ways``, the unordered pair of two nodes, whose two
messages of a round then share one fate.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Int64

from gossipjax._base.arguments import callable_, flag, instance, real, shown
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.calls import recorded
from gossipjax._base.display import displayed

__all__ = ["Fates", "Links", "Loss", "gilbert", "independent"]

Links: TypeAlias = Iterable[Int64[np.ndarray, " m"]]
"""For each round the distinct numbers of its links, in increasing order."""
Fates: TypeAlias = Iterator[Bool[np.ndarray, " m"]]
"""For each round which of its links lose their messages."""
A_LOSS = "make one with gossipjax.timeline.losses, such as independent(0.1, seed=0)"


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """A rule that says which messages are lost.

    Attributes:
        fates: ``fates(links)`` reads the links of one round after the other, and yields for each round an array
            with a bool for each link: whether its messages are lost.
        both_ways: whether the two messages of two nodes in a round are lost together.
        name: for reports.

    Raises:
        ValueError: if ``both_ways`` is not a bool.
        TypeError: if ``fates`` is not a function, or the name is not a string.
    """

    fates: Callable[[Links], Fates]
    both_ways: bool
    name: str

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.name, {"both ways": self.both_ways}

    def __post_init__(self) -> None:
        """Check the fields."""
        callable_("fates", self.fates, "fates(links) -> iterator of bools")
        flag("both_ways", self.both_ways)
        instance("name", self.name, str, "name the rule for reports")


@recorded()
def independent(probability: float, *, seed: int, both_ways: bool = False) -> Loss:
    """Lose every message with the same probability, independently.

    Args:
        probability: in [0, 1].
        seed: of the NumPy generator.
        both_ways: lose the two messages between two nodes together.
    """
    probability = real("probability", probability, least=0, most=1, remedy="the chance that a message is lost")
    both_ways = flag("both_ways", both_ways)
    fates = Partial(_independent, probability, checked_seed(seed))
    return Loss(fates, both_ways, f"independent({probability:g}, seed={seed}{_ways(both_ways)})")


def _independent(probability: float, seed: int, links: Links) -> Fates:
    rng = np.random.default_rng(seed)
    return (rng.random(codes.size) < probability for codes in links)


@recorded("gilbert1960capacity")
def gilbert(
    mean_good: int | float,
    mean_bad: int | float,
    *,
    seed: int,
    loss_good: int | float = 0.0,
    loss_bad: int | float = 1.0,
    both_ways: bool = False,
) -> Loss:
    """Lose messages in bursts: every link alternates between good and bad stretches of rounds (Gilbert and Elliott).

    The state of a link is a Markov chain over all rounds, whether the link is used or not, and starts stationary: it is
    bad with probability ``mean_bad / (mean_good + mean_bad)``. Memory grows with the number of links that are used.

    Args:
        mean_good: mean length of a good stretch, at least 1 round.
        mean_bad: mean length of a bad stretch, at least 1 round.
        seed: of the NumPy generator.
        loss_good: probability in [0, 1] that a message is lost while its link is good.
        loss_bad: the same while it is bad; 1 is Gilbert's burst noise.
        both_ways: give the two directions between two nodes one state, and lose their messages together.

    Reference: Gilbert 1960, "Capacity of a burst-noise channel"; Elliott 1963.
    """
    mean_good = real("mean_good", mean_good, least=1, unit="rounds")
    mean_bad = real("mean_bad", mean_bad, least=1, unit="rounds")
    chances = tuple(
        real(name, value, least=0, most=1) for name, value in (("loss_good", loss_good), ("loss_bad", loss_bad))
    )
    both_ways = flag("both_ways", both_ways)
    fates = Partial(_gilbert, mean_good, mean_bad, chances, checked_seed(seed))
    words = f"good {mean_good:g}, bad {mean_bad:g} rounds, losing {chances[0]:g} and {chances[1]:g}, seed={seed}"
    return Loss(fates, both_ways, f"gilbert({words}{_ways(both_ways)})")


def _gilbert(mean_good: float, mean_bad: float, chances: tuple[float, ...], seed: int, links: Links) -> Fates:
    rng, share = np.random.default_rng(seed), mean_bad / (mean_good + mean_bad)
    decay = 1 - 1 / mean_good - 1 / mean_bad
    known, history = np.zeros(0, np.int64), np.zeros(0, np.int64)  # 2 · (last round) + (bad then)
    for t, codes in enumerate(links):
        at = np.searchsorted(known, codes)
        fresh = known.take(at, mode="clip") != codes if known.size else np.ones(codes.size, bool)
        if fresh.any():
            known, history = np.insert(known, at[fresh], codes[fresh]), np.insert(history, at[fresh], -1)
            at = np.searchsorted(known, codes)
        last, was_bad = history[at] // 2, history[at] % 2
        # After k rounds a chain of two states is in the bad one with probability π + (1 − 1/g − 1/b)^k ([bad] − π).
        memory = np.where(fresh, 0.0, decay ** (t - last).astype(np.float64))
        bad = rng.random(codes.size) < share + memory * (was_bad - share)
        history[at] = 2 * t + bad
        yield rng.random(codes.size) < np.where(bad, chances[1], chances[0])


def lost_messages(
    loss: Any, rounds: Iterable[tuple[np.ndarray, np.ndarray]], num_nodes: int
) -> Iterator[Bool[np.ndarray, " m"]]:
    """Yield for each round which of its messages are lost.

    Args:
        loss: the rule.
        rounds: senders and receivers of each round.
        num_nodes: n.

    Raises:
        ValueError: if the rule yields fewer or more arrays than there are rounds, or yields one before it has read the
            links of the round, or an array is not one of a bool for each link.
        TypeError: if ``loss`` is not a Loss.
    """
    loss = instance("loss", loss, Loss, A_LOSS)
    places: collections.deque[np.ndarray] = collections.deque()
    links, count = _links(loss.both_ways, rounds, num_nodes, places), 0
    for lost in loss.fates(links):
        count += 1
        if not places:
            _miscounted(loss.name, count, count - 1 + sum(1 for _ in links))
        place = places.popleft()
        if np.shape(lost) != (place.max(initial=-1) + 1,) or np.asarray(lost).dtype != bool:
            raise ValueError(f"loss={loss.name}: fates yielded {shown(lost)}, and must yield a bool for each link")
        yield np.asarray(lost)[place]
    if left := len(places) + sum(1 for _ in links):
        _miscounted(loss.name, count, count + left)


def _miscounted(name: str, count: int, num_rounds: int) -> NoReturn:
    raise ValueError(
        f"loss={name}: fates yielded {count} rounds of {num_rounds}; read the links of one round after the other, and "
        "yield one array per round"
    )


def _links(
    both_ways: bool, rounds: Iterable[tuple[np.ndarray, np.ndarray]], n: int, places: collections.deque
) -> Links:
    """Number the links of each round, and note the place of each message's link."""
    for senders, receivers in rounds:
        first, second = senders.astype(np.int64), receivers.astype(np.int64)
        if both_ways:
            first, second = np.minimum(first, second), np.maximum(first, second)
        codes, place = np.unique(first * n + second, return_inverse=True)
        places.append(place)
        yield codes


def _ways(both_ways: bool) -> str:
    return ", both ways" if both_ways else ""
