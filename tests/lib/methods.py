"""The table of methods in docs/how-to-choose.md: what a protocol needs, conserves and can do, by its own facts.

``make combinations`` writes docs/_parts/methods.md.
"""

import inspect
import pathlib
import re
import unicodedata

import jax
import jax.numpy as jnp
from combinations import KEY, PROTOCOLS, X0, built, made, runs, sharings_of

from gossipjax import protocol
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import citations
from gossipjax._base.rows import bits_per_row
from gossipjax._engine.packing import can_pack
from gossipjax.compress import Compressor, identity
from gossipjax.facts import FACTS
from gossipjax.results._provenance import references
from gossipjax.timeline._events import event_of

EXACT = {
    "allreduce_sgd",
    "gradient_tracking",
    "beer",
    "c_gt",
    "d2",
    "exact_diffusion",
    "led",
    "nids",
    "lead",
    "extra",
    "simple_gt",
    "wang_elia",
    "gt_saga",
    "gt_svrg",
    "gt_sarah",
    "gt_vr",
    "k_gt",
    "prox_skip",
}
EXACT |= {"admm", "lt_admm", "lt_admm_vr", "admm_tracking", "dlm", "dinno", "relay_sgd"} | {"scaffold", "feddyn"}
"""Methods that reach the optimum of heterogeneous losses with a constant step; tests measure it, of all on rounds, and
of servers with all clients in every round."""
MEAN, ANY, MASS, NOTHING = "the mean, if W is doubly stochastic", "the mean, on any W", "mass, also in flight", "–"
HALF = "the mean, if α = ½, all act and all messages arrive"
CONSERVED = {
    "allreduce_sgd": ANY,
    "push_sum": MASS,
    "sgp": MASS,
    "gossip_learning": NOTHING,
    "swift": NOTHING,
    "admm": NOTHING,
    "lt_admm": HALF,
    "lt_admm_vr": HALF,
    "admm_tracking": NOTHING,
    "dinno": NOTHING,
    "relay_averaging": NOTHING,
    "relay_sgd": NOTHING,
    "fedavg": NOTHING,
    **dict.fromkeys(("fedprox", "fedopt", "fedadam", "fedyogi", "fedadagrad", "fednova"), NOTHING),
    "scaffold": NOTHING,
    "feddyn": NOTHING,
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
    return smaller or takes_compressor(name)


def vectors(name):
    """How many models are as large as a message, if that never changes."""
    method, plan = uncompressed(name), built(runs(name, sharings_of(name)[0])[0])
    rows, found = plan.properties.num_rows + plan.properties.num_slots, []
    x0 = jax.ShapeDtypeStruct((rows, X0.shape[1]), X0.dtype)

    def step(x0):
        xs = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), plan.xs)
        event = event_of(KEY, plan, xs)._replace(models=Frozen(plan.properties.num_rows))
        state, info = method.step(KEY, method.init(KEY, x0), event)
        found.append((info.bits, bits_per_row(x0)))
        return jax.tree.leaves(state)

    jax.eval_shape(step, x0)
    bits, model = found[0]
    if not isinstance(bits, int):
        return "varies"
    return f"{bits // model}, compressed" if takes_compressor(name) else str(bits // model)


def takes_compressor(name):
    return "compressor" in inspect.signature(getattr(protocol, name)).parameters


def uncompressed(name):
    """Build a protocol as in the table of combinations, one that compresses by itself with whole messages."""
    if not takes_compressor(name):
        return made(name, sharings_of(name)[0])
    build = PROTOCOLS[name]
    return build.func(*(identity() if isinstance(arg, Compressor) else arg for arg in build.args), **build.keywords)


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
        name in EXACT,
        "local_steps" in inspect.signature(getattr(protocol, name)).parameters,
        any(map(waits_for_nobody, plans)),
        compresses(name),
        any(map(directed, plans)) and conserves(name) == MASS,
    )
    exact, *marks = ("yes" if holds else "–" for holds in facts)
    first = f"{{py:obj}}`~gossipjax.protocol.{name}`"
    cells = (first, needs(name), conserves(name), exact, vectors(name), *marks, source(name))
    return f"| {' | '.join(cells)} |"


def table():
    """The table as Markdown."""
    head = "| method | needs | mixing conserves | exact | vectors a message | local steps | asynchronous | compressed "
    head += "| directed | source |"
    return "\n".join([head, "|" + " --- |" * 10, *map(row, PROTOCOLS)]) + "\n"


PART = pathlib.Path(__file__).parents[2] / "docs" / "_parts" / "methods.md"

if __name__ == "__main__":
    PART.parent.mkdir(exist_ok=True)
    PART.write_text(table(), encoding="utf-8")
