"""The table of methods in docs/how-to-choose.md: what a protocol needs, conserves and can do, by its own facts.

``make combinations`` writes docs/_parts/methods.md.
"""

import inspect
import pathlib
import re
import unicodedata

from combinations import PROTOCOLS, built, made, runs, sharings_of

from gossipjax import protocol
from gossipjax._base.calls import citations
from gossipjax._engine.packing import can_pack
from gossipjax.facts import FACTS
from gossipjax.results._provenance import references

MEAN, ANY, MASS, NOTHING = "the mean, if W is doubly stochastic", "the mean, on any W", "mass, also in flight", "–"
CONSERVED = {
    "allreduce_sgd": ANY,
    "push_sum": MASS,
    "sgp": MASS,
    "gossip_learning": NOTHING,
    "swift": NOTHING,
    "fedavg": NOTHING,
    "random_walk": NOTHING,
    "fedbuff": NOTHING,
    "hadfl": NOTHING,
}
"""What mixing alone conserves, where it is not the mean under a doubly stochastic W; a test measures it."""


def conserves(name):
    return CONSERVED.get(name, MEAN)


def needs(name):
    """What a protocol needs of a timeline, in the order of the table of facts."""
    requires = made(name, sharings_of(name)[0]).requires
    words = [tag.replace("_", " ") for tag in FACTS if tag in requires.tags - {"own_rows"}]
    least = requires.min_eigenvalue
    return ", ".join(words + ([] if least is None else [f"smallest eigenvalue > {least:.2f}"])) or "–"


def plans_of(name):
    return {plan for said in sharings_of(name) for plan in runs(name, said)}


def waits_for_nobody(plan):
    """Whether single nodes act at times of their own."""
    timeline = built(plan)
    return can_pack(timeline) is None and "averages" not in timeline.properties.tags


def directed(plan):
    """Whether weights are column stochastic only, as on directed graphs."""
    return {"row_stochastic", "column_stochastic"} & built(plan).properties.tags == {"column_stochastic"}


def compresses(name):
    """Whether messages can be smaller than the model."""
    smaller = any(runs(name, said) for said in sharings_of(name) if said not in (None, "full"))
    return smaller or "compressor" in inspect.signature(getattr(protocol, name)).parameters


def source(name):
    """The first work that the builder cites, with a link where there is one."""
    entry = references()[citations(getattr(protocol, name))[0]]
    fields = dict(line.strip(" ,").split(" = ", 1) for line in entry.splitlines()[1:-1])
    authors = fields["author"].strip("{}").split(" and ")
    family = re.sub(
        r"{\\'(\w)}", lambda found: unicodedata.normalize("NFC", found[1] + "\u0301"), authors[0].split(",")[0]
    )
    text = f"{family}{' et al.' if len(authors) > 1 else ''} {fields['year'].strip('{}')}"
    for name, site in (("eprint", "https://arxiv.org/abs"), ("doi", "https://doi.org")):
        if name in fields:
            return f"[{text}]({site}/{fields[name].strip('{}')})"
    return text


def row(name):
    plans = plans_of(name)
    facts = (
        "local_steps" in inspect.signature(getattr(protocol, name)).parameters,
        any(map(waits_for_nobody, plans)),
        compresses(name),
        any(map(directed, plans)) and conserves(name) == MASS,
    )
    marks = ("yes" if holds else "–" for holds in facts)
    cells = (f"{{py:obj}}`~gossipjax.protocol.{name}`", needs(name), conserves(name), *marks, source(name))
    return f"| {' | '.join(cells)} |"


def table():
    """The table as Markdown."""
    head = "| method | needs | mixing conserves | local steps | asynchronous | compressed | directed | source |"
    return "\n".join([head, "|" + " --- |" * 8, *map(row, PROTOCOLS)]) + "\n"


PART = pathlib.Path(__file__).parents[2] / "docs" / "_parts" / "methods.md"

if __name__ == "__main__":
    PART.parent.mkdir(exist_ok=True)
    PART.write_text(table(), encoding="utf-8")
