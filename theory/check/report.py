"""Report claims: a table on the terminal, numbers as JSON, and a page with a figure per claim."""

from __future__ import annotations

import html
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy import stats

from gossipjax._base import palette

from .. import scaling
from ..output import replacing
from .judge import FAMILY, Result, pool
from .run import claims, family_of

COLOURS = {"holds": "green", "violated": "red", "assumption not met": "yellow", "inconclusive": "yellow"}
MEASURED, PREDICTED = palette.BLUE, palette.INK
STANDS = {
    "exact": "exact",
    "asymptotic": "asymptotic, up to a constant",
    "paper": "as the paper states it",
    "recalled": "recalled, not checked against the paper",
}
COLUMNS = ("claim", "prediction", "estimate", "± s.e.", "ratio", "score or fit", "verdict", "seeds", "s")
RULE = (
    "Each comparison is tested by Student's t over its replicas, at a level that makes the risk of calling any true "
    f"claim of this run violated {FAMILY:g} (Šidák over all points). Ratio: estimate / prediction at the worst point."
)


def show_list(console: Console) -> None:
    """Print every claim, family by family."""
    table = Table("claim", "kind", "stands", "statement", "source", title="Claims", title_justify="left")
    for claim in claims():
        table.add_row(claim.name, claim.kind, claim.mark, claim.statement, claim.source)
    console.print(table)


def show_results(results: Sequence[Result], console: Console) -> None:
    """Print the table of a run, and whether its standard errors are right."""
    table = Table(title="Claims against simulated runs", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("claim", "score or fit", "verdict") else "right")
    for result in results:
        colour = COLOURS[result.verdict]
        cells = list(row(result))
        cells[6] = f"[{colour}]{cells[6]}[/{colour}]"
        table.add_row(*cells)
    console.print(table)
    console.print(summary(results))


def row(result: Result) -> tuple[str, ...]:
    """Return a row of the table, for the point with the strongest evidence against the claim."""
    k = result.worst
    error = "–" if result.error[k] == 0 else f"{result.error[k]:.2g}"
    return (
        result.claim.name,
        _number(result.predicted[k]),
        _number(result.mean[k]),
        error,
        _number(result.ratio, 4),
        result.detail,
        result.verdict,
        str(result.replicas),
        f"{result.seconds:.0f}",
    )


def summary(results: Sequence[Result]) -> str:
    """Count verdicts, and report whether scores are standard normal."""
    counts = {name: sum(result.verdict == name for result in results) for name in COLOURS}
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    pooled = pool(results)
    if pooled.scores > 1:
        text += (
            f"; {pooled.scores} scores of equalities: mean {pooled.mean:+.3f}, s.d. {pooled.deviation:.3f}, "
            f"largest {pooled.largest:.2f}: {'standard normal' if pooled.normal else 'NOT standard normal'}"
        )
    return text


def as_json(results: Sequence[Result], *, quick: bool, seed: int) -> dict[str, Any]:
    """Return all numbers of a run as JSON-able values; NaN becomes null."""
    pooled = pool(results)._asdict()
    return {
        "quick": quick,
        "seed": seed,
        "family_risk": FAMILY,
        "pooled_scores": {name: _json(value) for name, value in pooled.items()},
        "claims": [_as_json(result) for result in results],
    }


def _as_json(result: Result) -> dict[str, Any]:
    claim = result.claim
    facts = {name: getattr(claim, name) for name in ("name", "statement", "source", "kind", "axis", "quantity", "mark")}
    facts["axis"] = claim.axis.name
    facts |= {name: _json(getattr(result, name)) for name in ("points", "predicted", "mean", "error", "z", "scores")}
    facts |= {name: getattr(result, name) for name in ("verdict", "detail", "replicas")}
    facts |= {"ratio": _json(result.ratio), "seconds": round(result.seconds, 2), "catches": list(claim.catches)}
    facts["assumptions"] = [a._asdict() | {"held": bool(a.held)} for a in result.assumptions]
    if result.fit is not None:
        facts["fit"] = {"best": result.fit.best, "criterion": result.fit.criterion, "words": result.fit.verdict}
    return facts


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray | tuple | list):
        return [_json(entry) for entry in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if math.isfinite(value) else None


def write(results: Sequence[Result], folder: pathlib.Path) -> pathlib.Path:
    """Write ``index.html``, ``claims.md`` and a figure per claim.

    Returns:
        The HTML page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        figure(result).savefig(folder / f"{result.claim.name}.png", dpi=130)
    write_text(folder / "claims.md", _markdown(results))
    write_text(folder / "index.html", _html(results))
    return folder / "index.html"


def write_text(path: pathlib.Path, text: str) -> None:
    """Write under a temporary name, then rename, so that an interrupted run leaves the last good file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def figure(result: Result) -> Figure:
    """Draw prediction and measurement of one claim, with the 95 % band."""
    fig = Figure(figsize=(4.8, 3.2), layout="constrained")
    ax = fig.subplots()
    if result.fit is not None:
        scaling.plot(result.fit, ax, xlabel=result.claim.axis.name, ylabel=result.claim.quantity)
        ax.plot(
            result.points, result.predicted, color=PREDICTED, linestyle="--", marker="", label="predicted", zorder=5
        )
        if (np.asarray(result.mean) > 0).all() and max(result.mean) > 10 * min(result.mean):
            ax.set_yscale("log")
        ax.legend(frameon=False, fontsize=6.5)
    else:
        _values(ax, result)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.5)
    ax.set_title(result.claim.name.replace("_", " "), loc="left", fontsize=9)
    return fig


def _values(ax: Axes, result: Result) -> None:
    claim = result.claim
    x, order = np.asarray(result.points, float), np.argsort(result.points)
    relation = {"upper": "upper bound", "lower": "lower bound"}.get(claim.kind, "predicted")
    ax.plot(
        x[order], result.predicted[order], "--", color=PREDICTED, marker="_", markersize=12, label=relation, zorder=2
    )
    half = result.error * stats.t.ppf(0.975, max(result.replicas - 1, 1))
    if len(x) > 2 and (half > 0).any():
        low, high = (result.mean - half)[order], (result.mean + half)[order]
        ax.fill_between(x[order], low, high, color=MEASURED, alpha=0.2, linewidth=0)
    label = "measured, 95 %" if (half > 0).any() else "measured"
    bars = {"fmt": "o", "color": MEASURED, "markersize": 4, "capsize": 2.5, "elinewidth": 1, "zorder": 3}
    ax.errorbar(x, result.mean, yerr=half, label=label, **bars)  # type: ignore[arg-type]
    if (x > 0).all() and x.max() > 12 * x.min():
        ax.set_xscale("log")
    positive = np.concatenate([result.mean, result.predicted])
    if (positive > 0).all() and positive.max() > 30 * positive.min():
        ax.set_yscale("log")
    if len(x) == 1:
        ax.set_xticks(x)
    ax.set(xlabel=claim.axis.name, ylabel=claim.quantity)
    ax.legend(frameon=False, fontsize=7)


def _markdown(results: Sequence[Result]) -> str:
    lines = ["# Claims against simulated runs", "", summary(results) + ".", "", RULE, ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row(result)) + " |" for result in results]
    for family, part in _by_family(results):
        lines += ["", f"## {family}"]
        for result in part:
            lines += ["", f"### {result.claim.name}: {result.verdict}", "", result.claim.statement, ""]
            lines += [f"- {fact}" for fact in _facts(result)] + ["", f"![{result.claim.name}]({result.claim.name}.png)"]
    return "\n".join(lines) + "\n"


def _facts(result: Result) -> list[str]:
    claim = result.claim
    facts = [f"Source: {claim.source} ({STANDS[claim.mark]}).", f"Found: {result.detail}."]
    if result.fit is not None:
        facts.append(f"Law: {result.fit.verdict}.")
    facts += [f"Assumed: {a.name} ({'held' if a.held else 'NOT held: ' + a.detail})." for a in result.assumptions]
    if claim.catches:
        facts.append(f"Would catch: {', '.join(claim.catches)}.")
    return facts


def _by_family(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    families: dict[str, list[Result]] = {}
    for result in results:
        families.setdefault(family_of(result.claim), []).append(result)
    return list(families.items())


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:.2rem .6rem;text-align:left}
.holds{color:#157f3b}.violated{color:#b3261e;font-weight:bold}.other{color:#8a6100}
figure{margin:0}section{display:grid;grid-template-columns:30rem 1fr;gap:1.5rem;margin:2rem 0;align-items:start}
img{width:100%}@media(max-width:60rem){section{grid-template-columns:1fr}}"""


HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    f"<title>Claims against simulated runs</title><style>{STYLE}</style>"
)


def _html(results: Sequence[Result]) -> str:
    def safe(text: str) -> str:
        return html.escape(text)

    def look(result: Result) -> str:
        return result.verdict if result.verdict in ("holds", "violated") else "other"

    body = [f"<h1>Claims against simulated runs</h1><p>{safe(summary(results))}.</p><p>{safe(RULE)}</p><table><tr>"]
    body += [f"<th>{safe(name)}</th>" for name in COLUMNS] + ["</tr>"]
    for result in results:
        cells = [f"<td>{safe(cell)}</td>" for cell in row(result)]
        cells[0] = f'<td><a href="#{result.claim.name}">{result.claim.name}</a></td>'
        cells[6] = f'<td class="{look(result)}">{result.verdict}</td>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    body.append("</table>")
    for family, part in _by_family(results):
        body.append(f"<h2>{family}</h2>")
        for result in part:
            name, facts = result.claim.name, "".join(f"<li>{safe(fact)}</li>" for fact in _facts(result))
            body.append(
                f'<section id="{name}"><figure><img src="{name}.png" alt="{name}"></figure><div><h3>{name}: '
                f'<span class="{look(result)}">{result.verdict}</span></h3><p>{safe(result.claim.statement)}</p>'
                f"<ul>{facts}</ul></div></section>"
            )
    return HEAD + "".join(body) + "</html>\n"


def _number(value: float, digits: int = 5) -> str:
    return "–" if not math.isfinite(value) else f"{value:.{digits}g}"
