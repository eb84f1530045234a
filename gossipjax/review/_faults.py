"""Row 9: lost messages, nodes that come and go, stragglers and a crash."""

from __future__ import annotations

from gossipjax.review import _networks
from gossipjax.review._axes import Gain, Ran, gain
from gossipjax.review._bench import Bench, Place
from gossipjax.review._claims import nan_problems, reason_against, runs_at, unmeasured
from gossipjax.review._row import Row, final, line, listed, missing, row
from gossipjax.review._tuning import Tuned


def faults_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Compare what each fault costs the protocol and the baseline; no model may become NaN.

    That the protocol loses less is the same as that its gain grows.
    """
    claim, place = bench.submission.claim, _fixed(bench)
    other = "dpsgd" if claim.baseline == "allreduce_sgd" else claim.baseline  # an all-reduce needs everybody
    names, details, broken, gains = ("protocol", other), [], [], {}
    hidden = nan_problems(bench.submission.score)
    for fault in _networks.FAULTS:
        faulty = place._replace(fault=fault)
        against = [why for name in names if (why := reason_against(bench, tuned, name, faulty))]
        if against:
            details.append(f"{fault}: not run; {against[0]}")
            continue
        clean, hurt = ([runs_at(bench, tuned, name, at) for name in names] for at in (place, faulty))
        broken += [] if hurt[0].records["finite"].values.all() else [fault]
        before, after = (gain(pair[0], pair[1], claim.axis, claim.level) for pair in (clean, hurt))
        gains[fault] = Gain(after.values - before.values, after.unmeasured or before.unmeasured)
        falls = [_fall(*each, claim.level) for each in zip(clean, hurt, strict=True)]
        details.append(f"{fault}: accuracy falls by {falls[0]:.3f}, that of {other} by {falls[1]:.3f}")
    if not gains:
        return row(9, False, hidden[0], details) if hidden else missing(9, "no fault could be run", details)
    found = listed({fault: each.values for fault, each in gains.items()})
    worse = [fault for fault, each in found.items() if each.word == "worse"]
    problems = [f"NaN or infinite models under {', '.join(broken)}"] if broken else []
    problems += [f"loses more than {other} under {', '.join(worse)}"] if worse else []
    problems += hidden
    of = f"{len(gains)} of {len(_networks.FAULTS)} faults"
    reason = f"no NaN, and not shown to lose more than {other}, under {of}"
    details += [*(line(f"less lost, {k}", v) for k, v in found.items()), *unmeasured(gains)]
    return row(9, not problems, "; ".join(problems) or reason, details)


def _fixed(bench: Bench) -> Place:
    """Return the main place, or the torus where the main network is not one graph."""
    known = _networks.graph(bench.main.network, bench.main.num_nodes, bench.seed) is not None
    return bench.main if known else bench.main._replace(network="torus")


def _fall(before: Ran, after: Ran, level: str) -> float:
    return float((final(before.records, level) - final(after.records, level)).mean())
