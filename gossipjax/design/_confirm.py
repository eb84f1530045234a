"""Whether a design is better than the usual graphs: paired comparisons on devices that the search did not see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64, Num

from gossipjax._base.arguments import instance, real, reals, whole
from gossipjax._base.arguments import seed as checked_seed
from gossipjax._base.display import displayed
from gossipjax._base.lazy import stats
from gossipjax.design._cycles import links_of
from gossipjax.design._device_losses import DESIGNED, contenders
from gossipjax.design._pace import Site, adjacency_of, site_of
from gossipjax.design._score import score_of
from gossipjax.design._search import Design
from gossipjax.design._sequence import SequenceDesign
from gossipjax.devices import Devices
from gossipjax.systems import Machines
from gossipjax.systems._kernel.machines import checked_machines
from gossipjax.topology import Topology

T = TypeVar("T", Devices, Machines)
LEAST_RATIO = 1.2
"""Least median gain that is claimed."""
SIGNIFICANCE = 0.05
"""Of the sign test, one-sided: 10 wins of 12 have P = 0.019, 9 have P = 0.073."""
_REDRAWN = ("seconds_per_sample", "upload_bytes_per_second", "download_bytes_per_second")
_PLAN_HOW = "such as those of gossipjax.design.redrawn(devices, 12, spread=0.3, seed=1)"


@displayed
@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """A paired comparison of seconds.

    Attributes:
        ratios: ``(k,)`` seconds of the baseline over those of the design, on each draw.
        wins: draws with a ratio above 1.
        sign_test: probability of so many wins or more if both were equally good.
        median: of the ratios.
        low: lower end of the 95 % Student interval of the mean log ratio, as a ratio.
        high: its upper end.
        claimed: whether the design may be called faster: the sign test is below 0.05 (10 wins of 12), the median is at
            least 1.2, and the interval is above 1.
    """

    ratios: Float64[np.ndarray, " k"]
    wins: int
    sign_test: float
    median: float
    low: float
    high: float
    claimed: bool

    def summary(self) -> str:
        """Say in a line what may be claimed, and why."""
        k = self.ratios.size
        numbers = (
            f"{self.wins} of {k} draws won (P = {self.sign_test:.3f}), median ratio {self.median:.3g}, 95 % interval "
            f"of the mean {self.low:.3g} to {self.high:.3g}"
        )
        if self.claimed:
            return f"the design is faster: {numbers}"
        worse = "the design does not beat the best usual network"
        verdict = worse if self.median <= 1 else "faster by too little, or too seldom, to claim it"
        return f"{verdict}: {numbers}; {'; '.join(self._reasons())}"

    def _reasons(self) -> list[str]:
        reasons = [] if self.sign_test < SIGNIFICANCE else [f"the sign test is not below {SIGNIFICANCE:g}"]
        reasons += [] if self.median >= LEAST_RATIO else [f"the median is below {LEAST_RATIO:g}"]
        return reasons if self.low > 1 else [*reasons, "the interval is not above 1"]

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.summary(), {}


def judge(baseline_seconds: Num[np.ndarray, " k"], design_seconds: Num[np.ndarray, " k"]) -> Verdict:
    """Compare paired seconds, by a rule that is fixed before the numbers are seen.

    A design is called faster only if all three hold: the sign test on the pairs is below 0.05, which takes 10 wins of
    12 (8 of 10 is not enough); the median ratio is at least 1.2; and the 95 % Student interval of the mean log ratio is
    above 0. Use it also to judge the *procedure*: a new search on each of twelve draws against the best usual graph.

    >>> import numpy as np, gossipjax as gj
    >>> gj.design.judge(np.full(12, 1.3) + 0.01 * np.arange(12), np.ones(12)).claimed
    True

    Args:
        baseline_seconds: of the best usual graph on each draw, at least two.
        design_seconds: of the design on the same draws.

    Raises:
        ValueError: if the numbers are not positive, or not paired.
    """
    baseline = reals("baseline_seconds", baseline_seconds, shape=(None,), above=0, unit="seconds")
    k = whole("number of baseline_seconds", baseline.size, least=2, remedy="a claim takes twelve draws or so")
    design = reals("design_seconds", design_seconds, shape=baseline.shape, above=0, unit="seconds")
    logs = np.log(np.asarray(baseline, np.float64) / design)
    wins = int(np.count_nonzero(logs > 0))
    sign_test = sum(math.comb(k, w) for w in range(wins, k + 1)) / 2.0**k
    half = float(stats.t.ppf(0.975, k - 1)) * logs.std(ddof=1) / math.sqrt(k)
    median, low, high = math.exp(np.median(logs)), math.exp(logs.mean() - half), math.exp(logs.mean() + half)
    claimed = sign_test < SIGNIFICANCE and median >= LEAST_RATIO and low > 1
    return Verdict(np.exp(logs), wins, sign_test, median, low, high, bool(claimed))


def confirm(result: Design | SequenceDesign, draws: Sequence[Devices | Machines]) -> Verdict:
    """Compare a design with the best usual network *of each draw* on devices that the search did not see.

    The network of the design stays as it is; the usual one is chosen anew for every draw, so it is tuned to the draw
    and the design is not. Draws should be other states of the same machines, such as measurements of another day, or
    :func:`redrawn`. Node i must be the same machine in all of them.

    Args:
        result: of :func:`network` or :func:`sequence`.
        draws: devices or machines of as many nodes; twelve or more. None may have been used in the search.

    Raises:
        ValueError: if draws have another number of nodes, come and go, are equal, or are the devices of the search.
        TypeError: if they are neither devices nor machines.
    """
    instance("result", result, (Design, SequenceDesign), "of gossipjax.design.network or sequence")
    if not isinstance(draws, list | tuple) or len(draws) < 2:
        raise ValueError(f"draws={draws!r:.60}: must be a list of two or more devices or machines, {_PLAN_HOW}")
    for number, draw in enumerate(draws):
        instance(f"draws[{number}]", draw, (Devices, Machines), _PLAN_HOW)
    sites = [_site(result, draw) for draw in draws]
    _check_fresh(result, sites)
    baseline, design = np.array([_pair(result, site) for site in sites]).T
    return judge(baseline, design)


def redrawn(devices: T, num_draws: int, *, spread: float, seed: int) -> list[T]:
    """Draw other states of the same machines: speeds and bandwidths, each times ``exp(spread · N(0, 1))``.

    Args:
        devices: of n nodes; or machines.
        num_draws: number of draws.
        spread: standard deviation of the logarithms; 0.3 changes a bandwidth by some 30 %.
        seed: of the draws.

    Raises:
        ValueError: if a number is out of range.
    """
    remedy = "make some with gossipjax.devices, such as fitted(8, seed=0)"
    given: Any = instance("devices", devices, (Devices, Machines), remedy)
    num_draws, spread = whole("num_draws", num_draws, least=1, most=10_000), real("spread", spread, above=0, most=10)
    n = checked_machines(given).seconds_per_sample.size
    rng = np.random.default_rng(checked_seed(seed))
    factors = np.exp(spread * rng.standard_normal((num_draws, len(_REDRAWN), n)))
    return [_times(given, each, number, spread) for number, each in enumerate(factors)]


def _times(devices: Any, factors: Float64[np.ndarray, "3 n"], number: int, spread: float) -> Any:
    """Multiply speeds and bandwidths."""
    fields = {field: getattr(devices, field) * factor for field, factor in zip(_REDRAWN, factors, strict=True)}
    if isinstance(devices, Machines):
        return devices._replace(**fields)
    return dataclasses.replace(devices, **fields, name=f"draw {number} of {devices.name}, spread {spread:g}")


def _site(result: Design | SequenceDesign, draw: Devices | Machines) -> Site:
    old = result.problem.site
    site = site_of(draw, int(old.learning.message_bytes), old.samples, 1, old.learning.bandwidth)
    if site.num_nodes != old.num_nodes:
        raise ValueError(f"draws: one has {site.num_nodes} devices for a design of {old.num_nodes}; node i must be one")
    return site


def _check_fresh(result: Design | SequenceDesign, sites: Sequence[Site]) -> None:
    """Refuse draws that are equal or those of the search, for they count one observation many times."""
    seen = {_speeds(result.problem.site): "the devices of the search"}
    for number, site in enumerate(sites):
        before = seen.setdefault(_speeds(site), f"draws[{number}]")
        if before != f"draws[{number}]":
            raise ValueError(f"draws[{number}]: equals {before}, and proves nothing new; pass other draws, {_PLAN_HOW}")


def _speeds(site: Site) -> bytes:
    learning = site.learning
    parts = (learning.train_seconds, site.machines.upload_bytes_per_second, site.machines.download_bytes_per_second)
    return b"".join(np.asarray(part, np.float64).tobytes() for part in parts)


def _pair(result: Design | SequenceDesign, site: Site) -> tuple[float, float]:
    """Return the seconds of the best usual network, and those of the design. Rounds are the same on all devices."""
    problem, networks = dataclasses.replace(result.problem, site=site), contenders(result)

    def seconds(name: str, rounds: float) -> float:
        network = networks[name]
        if isinstance(network, Topology):
            links = adjacency_of(network, site.num_nodes)
        else:
            links = links_of(np.stack([W.toarray() for W in network]))
        return score_of(problem, links, rounds).seconds

    usual = min(seconds(name, score.rounds) for name, score in result.standard.items())
    return usual, seconds(DESIGNED, result.score.rounds)
