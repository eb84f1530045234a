"""Row 9: lost messages, nodes that come and go, stragglers and a crash."""

from __future__ import annotations

from typing import Any

from gossipjax.review import _networks
from gossipjax.review._bench import Bench, Place
from gossipjax.review._claims import nan_problems, reason_against, runs_at
from gossipjax.review._row import Row, final, line, listed, missing, row
from gossipjax.review._tuning import Tuned


def faults_row(bench: Bench, tuned: dict[str, Tuned]) -> Row:
    """Compare what each fault costs the protocol and the baseline; no model may become NaN."""
    claim, place = bench.submission.claim, _fixed(bench)
    other = "dpsgd" if claim.baseline == "allreduce_sgd" else claim.baseline  # an all-reduce needs everybody
    losses, details, broken = {}, [], []
    hidden = nan_problems(bench.submission.score)
    for fault in _networks.FAULTS:
        faulty = place._replace(fault=fault)
        against = [
            f"{name}: {why}" for name in ("protocol", other) if (why := reason_against(bench, tuned, name, faulty))
        ]
        if against:
            details.append(f"{fault}: not run; {against[0]}")
            continue
        ours, theirs = (_loss(bench, tuned, name, place, faulty) for name in ("protocol", other))
        broken += [fault] if not runs_at(bench, tuned, "protocol", faulty)["finite"].values.all() else []
        losses[fault] = theirs - ours
        details.append(f"{fault}: accuracy falls by {ours.mean():.3f}, that of {other} by {theirs.mean():.3f}")
    if not losses:
        return row(9, False, hidden[0], details) if hidden else missing(9, "no fault could be run", details)
    found = listed(losses)
    worse = [fault for fault, each in found.items() if each.word == "worse"]
    problems = [f"NaN or infinite models under {', '.join(broken)}"] if broken else []
    problems += [f"loses more than {other} under {', '.join(worse)}"] if worse else []
    problems += hidden
    reason = f"no NaN, and no more is lost than by {other}, under {len(losses)} of {len(_networks.FAULTS)} faults"
    return row(
        9,
        not problems,
        "; ".join(problems) or reason,
        [*details, *(line(f"less lost, {k}", v) for k, v in found.items())],
    )


def _fixed(bench: Bench) -> Place:
    """Return the main place, or the torus where the main network is not one graph."""
    known = _networks.graph(bench.main.network, bench.main.num_nodes, bench.seed) is not None
    return bench.main if known else bench.main._replace(network="torus")


def _loss(bench: Bench, tuned: dict[str, Tuned], name: str, place: Place, faulty: Place) -> Any:
    level = bench.submission.claim.level
    return final(runs_at(bench, tuned, name, place), level) - final(runs_at(bench, tuned, name, faulty), level)
