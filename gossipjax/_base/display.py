"""Short text representations of values, and HTML tables of the same facts for notebooks."""

from __future__ import annotations

import dataclasses
import html as markup
import numbers
import re
import textwrap
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_WRAPPERS = ("versions._step", "meter._step", "track_versions", "metered")
_PUBLISHED = {
    "ad_psgd": "AD-PSGD",
    "allreduce": "all-reduce SGD",
    "allreduce_sgd": "all-reduce SGD",
    "beer": "BEER",
    "c_gt": "C-GT",
    "d2": "D²",
    "decentlam": "DecentLaM",
    "divshare": "DivShare",
    "dpsgd": "D-PSGD",
    "fedavg": "FedAvg",
    "fedbuff": "FedBuff",
    "fedprox": "FedProx",
    "fedopt": "FedOpt",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "fednova": "FedNova",
    "feddyn": "FedDyn",
    "scaffold": "SCAFFOLD",
    "gossip": "gossip averaging",
    "lead": "LEAD",
    "gt_saga": "GT-SAGA",
    "gt_sarah": "GT-SARAH",
    "gt_svrg": "GT-SVRG",
    "gt_vr": "GT-VR",
    "led": "LED",
    "local_sgd": "local SGD",
    "nids": "NIDS",
    "prox_skip": "ProxSkip",
    "k_gt": "K-GT",
    "extra": "EXTRA",
    "admm": "ADMM",
    "lt_admm": "LT-ADMM",
    "lt_admm_vr": "LT-ADMM-VR",
    "admm_tracking": "ADMM-Tracking Gradient",
    "dlm": "DLM",
    "dinno": "DiNNO",
    "relay_sgd": "RelaySGD",
    "relay_averaging": "RelaySum",
    "poisson_edges": "Poisson edges",
    "poisson_pairs": "Poisson pairs",
    "poisson_push": "Poisson push",
    "push_sum": "push-sum",
    "sgp": "SGP",
    "shatter": "Shatter",
    "simple_gt": "SimpleGT",
    "swift": "SWIFT",
    "teleportation": "Teleportation",
    "wang_elia": "Wang–Elia",
}
"""Spelling of names in the literature; other names are shown as words."""

MOST_CHARACTERS, MOST_LINES, WIDTH = 400, 5, 100
_LONGEST_NAME = 160


def displayed(kind: type[T]) -> type[T]:
    """Give a class a short ``repr`` and an HTML table for notebooks, both built from its ``_facts``.

    ``_facts(self)`` returns a name and a mapping from labels to facts. An integer is shown as a count ("8 nodes"), True
    as a property ("directed"), other values after their label ("duration 20 s"). None, False and "" are omitted.

    This decorates classes; :func:`gossipjax._base.calls.recorded`, which decorates builders, says why they are two.

    Args:
        kind: a dataclass or a NamedTuple; equality and hashing do not change.

    Returns:
        The class.
    """
    kind.__repr__ = text  # type: ignore[method-assign]
    if "_repr_html_" not in vars(kind):
        kind._repr_html_ = html  # type: ignore[attr-defined]
    return kind


def text(value: Any) -> str:
    """Format a value in at most :data:`MOST_LINES` lines and :data:`MOST_CHARACTERS` characters."""
    name, facts = _facts_of(value)
    inside = ": ".join(part for part in (_cut(name, _LONGEST_NAME), words(facts)) if part)
    whole = f"{type(value).__name__}({_cut(inside, MOST_CHARACTERS - 60)})"
    lines = textwrap.wrap(whole, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "    …)"])


def html(value: Any, *, more: str = "") -> str:
    """Format a value as a small HTML table; ``more`` is HTML that follows it."""
    name, facts = _facts_of(value)
    rows = "".join(
        f'<tr><th style="text-align: left">{markup.escape(label)}</th>'
        f'<td style="text-align: left">{markup.escape(_cell(fact))}</td></tr>'
        for label, fact in facts.items()
    )
    title = f"<b>{type(value).__name__}</b> {markup.escape(_cut(name, MOST_CHARACTERS))}"
    return f"<div>{title}<table>{rows}</table>{more}</div>"


def headline(configuration: Mapping[str, Any]) -> str:
    """Return a short title from a run's configuration: "D-PSGD · rounds · 8 nodes"."""
    parts = [name_in(str(configuration[field])) for field in ("protocol", "timeline") if field in configuration]
    nodes = f"{configuration['num_nodes']:,} nodes" if "num_nodes" in configuration else ""
    return " · ".join(part for part in (*parts, nodes) if part)


def name_in(description: str) -> str:
    """Return the name in a description such as ``dpsgd._adapt_then_combine(task of 8 nodes, sgd(0.1))``."""
    head, _, rest = description.partition("(")
    while head in _WRAPPERS:
        head, _, rest = rest.partition("(")
    head = re.split("[:,]", head)[0].strip()
    module, _, function = head.rpartition(".")
    name = module if module and function.startswith("_") else function
    return _PUBLISHED.get(name, name.strip("_<>").replace("_", " "))


def fields_that_differ(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, as facts, without ``name``."""
    fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value) if field.name != "name")
    return {field.name.removeprefix("num_").replace("_", " "): fact for field, fact in fields if fact != field.default}


def words(facts: Mapping[str, Any]) -> str:
    """Join facts: "8 nodes, directed, degree 2"."""
    return ", ".join(_phrase(label, fact) for label, fact in facts.items() if _says_something(fact))


def span(values: Any, unit: str = "") -> str:
    """Format the smallest and the largest of some numbers; one number if they are equal."""
    if len(values) == 0:
        return "none"
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return (low if low == high else f"{low} … {high}") + (f" {unit}" if unit else "")


def size(number: Any) -> str:
    """Format a number of bytes: ``1.25 MB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g} B"


def _facts_of(value: Any) -> tuple[str, dict[str, Any]]:
    """Return a value's name and facts. A ``repr`` must not fail while a pytree holds placeholders."""
    try:
        name, facts = value._facts()
        return str(name), {label: fact for label, fact in facts.items() if _says_something(fact)}
    except Exception:
        return "…", {}


def _says_something(fact: Any) -> bool:
    return fact is not None and fact is not False and not (isinstance(fact, str) and fact == "")


def _phrase(label: str, fact: Any) -> str:
    if fact is True:
        return label
    return f"{fact:,} {label}" if isinstance(fact, numbers.Integral) else f"{label} {_cell(fact)}"


def _cell(fact: Any) -> str:
    if fact is True:
        return "yes"
    if isinstance(fact, numbers.Integral):
        return f"{fact:,}"
    return f"{fact:.4g}" if isinstance(fact, float) else str(fact)


def _cut(words: str, most: int) -> str:
    words = " ".join(words.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"
