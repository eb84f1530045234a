"""Which protocol runs with which sharing on which timeline: by the checks, and the page of the docs that shows it.

``make combinations`` writes docs/what-goes-with-what.md.
"""

import dataclasses
import functools
import inspect
import itertools
import pathlib

import jax
import optax
from jax.tree_util import Partial
from plexus_runs import run as run_plexus
from plexus_runs import uneven
from problems import CURVATURE, TARGETS, X0, N, exact_quadratic, identical_samples, quadratic_prox
from system_runs import LEARN, MODEL

from gossipjax import protocol, robust, sharing, systems, timeline
from gossipjax._engine.checks import check_step
from gossipjax.compress import identity, qsgd, sign_top_k, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import column_stochastic, lazy, metropolis
from gossipjax.topology import barabasi_albert, path

KEY, TASK, SGD = jax.random.key(0), exact_quadratic(), optax.sgd(0.1)
GRAPH, TREE = barabasi_albert(N, 2, seed=1), path(N)
CLOCK = timeline.clocks.shifted_exponential(0.2, 0.6)
W = lazy(metropolis(GRAPH))
FRESH = timeline.overlays.regular(N, 4, seed=0)
SAMPLES = identical_samples(TASK)
CLIQUES = [[node] for node in range(N)]
WALKS = {"num_walks": 3, "service": 1.0, "seed": 0}
SENT = {"num_fragments": 2, "recipients": 2, "uplink_messages_per_second": 9.0, "seed": 0}

TIMELINES = {
    "rounds": lambda: timeline.rounds(W, 5),
    "directed rounds": lambda: timeline.rounds(column_stochastic(GRAPH), 5, stochastic="column"),
    "matching_rounds": lambda: timeline.matching_rounds(N, 5, seed=0),
    "drawn_matchings": lambda: timeline.drawn_matchings(N, 5),
    "changing_rounds": lambda: timeline.changing_rounds(FRESH, 5),
    "lossy rounds": lambda: timeline.changing_rounds(FRESH, 5, loss=timeline.losses.independent(0.3, seed=0)),
    "losses on one graph": lambda: timeline.changing_rounds(TREE, 5, loss=timeline.losses.independent(0.3, seed=0)),
    "absent nodes": lambda: timeline.changing_rounds(FRESH, 5, activity=timeline.activity.cyclic(2)),
    "changing pushes": lambda: timeline.changing_rounds(timeline.overlays.epidemic(N, 2, seed=0), 5, weights="push"),
    "client_sampling": lambda: timeline.client_sampling(N, 3, 5, seed=0),
    "push_rounds": lambda: timeline.push_rounds(N, 5, compute=1.0, gossip_rate=1.0, seed=0),
    "poisson_pairs": lambda: timeline.poisson_pairs(GRAPH, 9, seed=0),
    "poisson_edges": lambda: timeline.poisson_edges(GRAPH, 9, seed=0),
    "poisson_push": lambda: timeline.poisson_push(GRAPH, 9, seed=0),
    "drawn_pairs": lambda: timeline.drawn_pairs(N, 9),
    "drawn_gossip": lambda: timeline.drawn_gossip(N, 9, update_rate=1.0, gossip_rate=1.0),
    "push_gossip": lambda: timeline.push_gossip(GRAPH, 9.0, compute=CLOCK, gossip=1.0, latency=0.2, seed=0),
    "pairwise": lambda: timeline.pairwise(
        GRAPH, 9.0, compute=CLOCK, communicate=1.0, atomic=False, latency=0.1, seed=0
    ),
    "directed_push": lambda: timeline.directed_push(GRAPH, 9.0, compute=CLOCK, send=1.0, latency=0.1, seed=0),
    "gossip_learning": lambda: timeline.gossip_learning(GRAPH, 9.0, period=1.0, latency=0.1, seed=0),
    "learning on the way": lambda: timeline.gossip_learning(
        GRAPH, 9.0, period=1.0, create="update_merge", latency=0.1, seed=0
    ),
    "random_walks": lambda: timeline.random_walks(GRAPH, 9, **WALKS),
    "mixing walks": lambda: timeline.random_walks(GRAPH, 9, mix_on_arrival=True, **WALKS),
    "a walk for each node": lambda: timeline.random_walks(GRAPH, 9, mix_on_arrival=True, **(WALKS | {"num_walks": N})),
    "teleportation": lambda: timeline.teleportation(metropolis(path(3)), N, 5, seed=0),
    "swift": lambda: timeline.swift(GRAPH, 9.0, compute=CLOCK, latency=0.1, seed=0),
    "divshare": lambda: timeline.divshare(N, 9.0, compute=CLOCK, **SENT),
    "shatter": lambda: timeline.shatter(N, 5, virtual_nodes=2, degree=3, seed=0),
    "fedbuff": lambda: timeline.fedbuff(N, 9.0, concurrency=2, train_time=CLOCK, buffer_size=1, seed=0),
    "ringmaster": lambda: timeline.ringmaster(N, 9.0, compute=CLOCK, max_delay=3, seed=0),
    "rennala": lambda: timeline.rennala(N, 9.0, compute=CLOCK, batch_size=3, seed=0),
    "malenia": lambda: timeline.malenia(N, 9.0, compute=CLOCK, batch_size=3, seed=0),
    "m_synchronous": lambda: timeline.m_synchronous(N, 9.0, compute=CLOCK, wait_for=3, seed=0),
    "opportunistic": lambda: timeline.opportunistic(N, 9.0, update_rate=1.0, capacity=2.0, relay="newest", seed=0),
    "version_age": lambda: timeline.version_age(N - 1, 9.0, version_rate=1.0, source_rate=1.0, gossip_rate=1.0, seed=0),
    "Plexus": lambda: run_plexus(uneven(N), num_rounds=4, seed=2).timeline,
    "synchronous": lambda: systems.synchronous(uneven(N), W, 5, round_seconds=None, **LEARN).timeline,
    "epidemic": lambda: systems.epidemic(uneven(N), 3, 5, round_seconds=9.0, seed=0, **LEARN).timeline,
    "all-reduce": lambda: systems.allreduce(uneven(N), 5, **LEARN).timeline,
    "gossip on machines": lambda: systems.gossip_learning(uneven(N), 12.0, period_s=2.0, seed=0, **LEARN).timeline,
    "HADFL": lambda: systems.hadfl(uneven(N), 12.0, seed=0, **LEARN).timeline,
    "AD-PSGD on machines": lambda: (
        systems.ad_psgd(uneven(N), GRAPH, 9.0, model_bytes=MODEL, time_batch=4, seed=0).timeline
    ),
}


@functools.cache
def built(name):
    """A timeline of the table; how many local steps a plan was made for is another question."""
    plan = TIMELINES[name]()
    return dataclasses.replace(plan, properties=dataclasses.replace(plan.properties, local_steps=None))


def checked(method, plan):
    """Make the checks of a run that concern both."""
    check_requires(method.requires, plan.properties)
    traced(method, plan)


def traced(method, plan):
    """Trace a step."""
    rows = plan.properties.num_rows
    check_step(KEY, method, plan, jax.ShapeDtypeStruct((rows, X0.shape[1]), X0.dtype))


PROTOCOLS = {
    "gossip_averaging": protocol.gossip_averaging,
    "dpsgd": functools.partial(protocol.dpsgd, TASK, SGD),
    "local_sgd": functools.partial(protocol.local_sgd, TASK, SGD, local_steps=2),
    "ad_psgd": functools.partial(protocol.ad_psgd, TASK, SGD),
    "gossip_learning": functools.partial(protocol.gossip_learning, TASK, SGD),
    "swift": functools.partial(protocol.swift, TASK, SGD),
    "push_sum": protocol.push_sum,
    "sgp": functools.partial(protocol.sgp, TASK, SGD),
    "fedavg": functools.partial(protocol.fedavg, TASK, SGD, local_steps=2),
    "fedprox": functools.partial(protocol.fedprox, TASK, SGD, local_steps=2, mu=0.5),
    "fedopt": functools.partial(protocol.fedopt, TASK, SGD, SGD, local_steps=2),
    "fedadam": functools.partial(protocol.fedadam, TASK, SGD, local_steps=2, server_step_size=0.1),
    "fedyogi": functools.partial(protocol.fedyogi, TASK, SGD, local_steps=2, server_step_size=0.1),
    "fedadagrad": functools.partial(protocol.fedadagrad, TASK, SGD, local_steps=2, server_step_size=0.1),
    "fednova": functools.partial(protocol.fednova, TASK, 0.1, local_steps=[2] * N),
    "scaffold": functools.partial(protocol.scaffold, TASK, 0.1, local_steps=2),
    "feddyn": functools.partial(protocol.feddyn, TASK, SGD, local_steps=2, alpha=0.5),
    "allreduce_sgd": functools.partial(protocol.allreduce_sgd, TASK, SGD),
    "clique_averaging": functools.partial(protocol.clique_averaging, TASK, SGD, CLIQUES),
    "gradient_tracking": functools.partial(protocol.gradient_tracking, TASK, SGD),
    "beer": functools.partial(protocol.beer, TASK, SGD, top_k(1), 0.5),
    "c_gt": functools.partial(protocol.c_gt, TASK, 0.1, top_k(1), 0.5, alpha=1.0),
    "d2": functools.partial(protocol.d2, TASK, SGD),
    "exact_diffusion": functools.partial(protocol.exact_diffusion, TASK, SGD),
    "led": functools.partial(protocol.led, TASK, SGD, local_steps=2),
    "nids": functools.partial(protocol.nids, TASK, 0.1),
    "lead": functools.partial(protocol.lead, TASK, 0.1, qsgd(3)),
    "extra": functools.partial(protocol.extra, TASK, SGD),
    "simple_gt": functools.partial(protocol.simple_gt, TASK, SGD),
    "wang_elia": functools.partial(protocol.wang_elia, TASK, SGD),
    "gt_saga": functools.partial(protocol.gt_saga, SAMPLES, 0.1),
    "gt_svrg": functools.partial(protocol.gt_svrg, SAMPLES, 0.1, period=2),
    "gt_sarah": functools.partial(protocol.gt_sarah, SAMPLES, 0.1, period=2),
    "gt_vr": functools.partial(protocol.gt_vr, SAMPLES, 0.1, snapshot_probability=0.5),
    "k_gt": functools.partial(protocol.k_gt, TASK, 0.1, local_steps=2),
    "prox_skip": functools.partial(protocol.prox_skip, TASK, SGD, probability=0.5),
    "quasi_global_momentum": functools.partial(protocol.quasi_global_momentum, TASK, SGD),
    "decentlam": functools.partial(protocol.decentlam, TASK, SGD),
    "relay_averaging": functools.partial(protocol.relay_averaging, TREE),
    "relay_sgd": functools.partial(protocol.relay_sgd, TASK, SGD, TREE),
    "admm": functools.partial(protocol.admm, GRAPH, Partial(quadratic_prox, CURVATURE, TARGETS), penalty=1.0),
    "lt_admm": functools.partial(protocol.lt_admm, TASK, SGD, GRAPH, local_steps=2, penalty=0.2, beta=0.2),
    "lt_admm_vr": functools.partial(protocol.lt_admm_vr, SAMPLES, 0.1, GRAPH, local_steps=2, penalty=0.2, beta=0.2),
    "admm_tracking": functools.partial(protocol.admm_tracking, TASK, 0.3, GRAPH, gamma=0.2, penalty=0.3),
    "dlm": functools.partial(protocol.dlm, TASK, 0.1, penalty=0.5),
    "dinno": functools.partial(protocol.dinno, TASK, SGD, local_steps=2, penalty=0.2),
    "random_walk": functools.partial(protocol.random_walk, TASK, SGD),
    "hadfl": functools.partial(protocol.hadfl, TASK, SGD, local_steps=2),
    "fedbuff": functools.partial(protocol.fedbuff, TASK, SGD),
}
SHARINGS = {
    "full": sharing.full,
    "random_subset": lambda: sharing.random_subset(0.5),
    "top_k": lambda: sharing.top_k(0.5),
    "jwins": sharing.jwins,
    "compressed": lambda: sharing.compressed(qsgd(3)),
    "fragments": lambda: sharing.fragments(2),
    "error_feedback": lambda: sharing.error_feedback(sharing.compressed(qsgd(3))),
    "deep_squeeze": lambda: sharing.deep_squeeze(top_k(1), 0.5),
    "noisy": lambda: sharing.noisy(0.1),
    "decor": lambda: sharing.decor(GRAPH, 0.1, 0.1),
    "multi_step": lambda: sharing.multi_step(2),
    "moniqua": lambda: sharing.moniqua(4, 10.0),
    "dcd": lambda: sharing.dcd(identity()),
    "ecd": lambda: sharing.ecd(identity()),
    "choco": lambda: sharing.choco(top_k(1), 0.5),
    "sparq": lambda: sharing.sparq(sign_top_k(2), 0.4, 0.2),
    "power_gossip": lambda: sharing.power_gossip(GRAPH),
    "secure_aggregation": lambda: sharing.secure_aggregation(GRAPH),
    "zip_dl": lambda: sharing.zip_dl(GRAPH, 0.1, own=True),
    "robust": lambda: sharing.robust(robust.clipped_gossip(1.0)),
}
LIKE_D2 = "its corrections sum to zero only if mixing conserves the mean, as for `d2`"
SAME_ENDS = "its dual variables sum to zero only if both ends of an edge see the same difference"
TRACKS = "its trackers sum to the estimates only if mixing conserves every coordinate, as for `gradient_tracking`"
LIKE_FEDAVG = "changes refer to whole models, which clients fetch as for `fedavg`"
RELAYS = "sums of relayed models have no gaps"
DUAL = "dual variables of an edge belong to whole models"
WHOLE_ONLY = {
    "fedavg": "clients could return parts of models, but fetch whole ones, and a plan counts messages of one size",
    "fedprox": LIKE_FEDAVG,
    "fedopt": LIKE_FEDAVG,
    "fedadam": LIKE_FEDAVG,
    "fedyogi": LIKE_FEDAVG,
    "fedadagrad": LIKE_FEDAVG,
    "fednova": LIKE_FEDAVG,
    "scaffold": LIKE_FEDAVG,
    "feddyn": LIKE_FEDAVG,
    "allreduce_sgd": "gradients, not models, are averaged, and exactly: sums on their way have no gaps",
    "gradient_tracking": "the mean of the trackers is that of the gradients only if mixing conserves every coordinate; "
    "`beer` is its form for compressed messages",
    "beer": "compresses by itself: it takes a compressor",
    "c_gt": "compresses by itself: it takes a compressor",
    "lead": "compresses by itself: it takes a compressor",
    "d2": "its corrections sum to zero only if mixing conserves the mean, which messages that fill in do not; `dpsgd` "
    "with `choco` is the compressed algorithm for such rounds",
    "clique_averaging": "models and gradients go to different neighbours",
    "exact_diffusion": LIKE_D2,
    "led": LIKE_D2,
    "nids": LIKE_D2,
    "extra": LIKE_D2,
    "simple_gt": LIKE_D2,
    "wang_elia": LIKE_D2,
    "gt_saga": TRACKS,
    "gt_svrg": TRACKS,
    "gt_sarah": TRACKS,
    "gt_vr": TRACKS,
    "k_gt": "its corrections sum to zero only if mixing conserves every coordinate, as for `gradient_tracking`",
    "prox_skip": LIKE_D2,
    "relay_averaging": RELAYS,
    "relay_sgd": RELAYS,
    "admm": DUAL,
    "lt_admm": DUAL,
    "lt_admm_vr": DUAL,
    "admm_tracking": DUAL,
    "dlm": SAME_ENDS,
    "dinno": SAME_ENDS,
    "random_walk": "the model itself moves: at the next node nothing is there to fill in what was left behind",
    "hadfl": "sums of a ring have no gaps",
    "fedbuff": "clients return changes, and a buffer has no coordinates of its own to fill in",
}
"""Protocols without ``sharing=``, and why."""


def takes_sharing(name):
    build = PROTOCOLS[name]
    return "sharing" in inspect.signature(build).parameters


@functools.cache
def made(name, said):
    """A protocol with a sharing (None: it takes none), or the message with which building refuses it."""
    try:
        return PROTOCOLS[name](sharing=SHARINGS[said]()) if said is not None else PROTOCOLS[name]()
    except ValueError as error:
        return str(error)


def refusal(name, said, plan, trace):
    """The message that refuses a combination; None: it runs."""
    method = made(name, said)
    if isinstance(method, str):
        return method
    try:
        check_requires(method.requires, built(plan).properties)
        if trace:
            traced(method, built(plan))
    except ValueError as error:
        return str(error)
    return None


LINKS = {"relay_averaging", "relay_sgd", "admm", "lt_admm", "lt_admm_vr", "admm_tracking", "dlm", "dinno"}
"""Protocols that say something over single links, which an all-reduce does not have."""
RELAYS_ON_TREE, OFF_THE_TREE = {"relay_averaging", "relay_sgd"}, {"rounds", "directed rounds"}
"""Protocols built here on a tree, and timelines of rounds that they take, but which here have another graph."""


def refused_by_form(name, said, plan):
    """What is known only when a step is traced: events without a mixing, tables of rounds, another topology."""
    return (
        (name == "gossip_averaging" and plan == "random_walks")
        or (name == "gossip_learning" and plan == "push_rounds")
        or (name in LINKS and plan == "all-reduce")
        or (name in RELAYS_ON_TREE and plan == "synchronous")  # its graph is no tree
        or (said in ("power_gossip", "secure_aggregation", "zip_dl") and plan == "all-reduce")
    )


def runs(name, said, trace=False):
    """The timelines on which a protocol runs with a sharing (None: it takes none)."""

    def fits(plan):
        return (trace or not refused_by_form(name, said, plan)) and refusal(name, said, plan, trace) is None

    return tuple(plan for plan in TIMELINES if fits(plan))


def runs_as_built(name, said):
    """Those of :func:`runs` on which what is built here can be simulated: not on another graph than the protocol's."""
    return tuple(plan for plan in runs(name, said) if not (name in RELAYS_ON_TREE and plan in OFF_THE_TREE))


def sharings_of(name):
    return list(SHARINGS) if takes_sharing(name) else [None]


def page(trace=False):
    """The page of the docs; neighbours of which the same is said share a section."""
    lines, told = [HEAD], itertools.groupby(PROTOCOLS, lambda name: _section(name, trace))
    for section, names in told:
        lines += ["", f"## {_names(names)}", "", *section]
    return "\n".join(lines) + "\n"


def _section(name, trace):
    groups = {}
    for said in sharings_of(name):
        groups.setdefault(runs(name, said, trace), []).append(said)
    if not takes_sharing(name):
        return [f"Takes no sharing: {WHOLE_ONLY[name]}.", "", ", ".join(next(iter(groups)))]
    rows = [f"| {_names(said)} | {', '.join(plans) or 'none'} |" for plans, said in groups.items()]
    return ["| sharing | timelines |", "| --- | --- |", *rows]


def _names(names):
    return ", ".join(f"`{name}`" for name in names)


HEAD = """# What goes with what

Which timelines a protocol runs on with which sharing. The table is written by `make combinations` from the checks
that `simulate` makes before a run; a test holds it against the code. Everything that is not listed is refused before
any work, with a message that names what would fit.

- `random_subset`, `top_k`, `jwins` and `compressed` run wherever every node trains a row of its own: in rounds, at
  meetings, and in flight. So do `fragments`: where the timeline names no fragments, a sender draws one for each event
  in which it speaks; where it does (`shatter`, `divshare`), only fragments run.
- Sharings that remember what neighbours know (`choco`, `sparq`, `dcd`, `ecd`, `power_gossip`) or what they failed to
  say (`error_feedback`, `deep_squeeze`), and `moniqua`, `noisy`, `decor`, `zip_dl` and `multi_step`, stay on
  synchronous rounds, as does `jwins` with given `draws`.
- `secure_aggregation` needs synchronous rounds on the graph that it is built for, or on a list of graphs in turn, with
  the matrices of `timeline.rounds` in the same order. Plans that lose messages are not synchronous, and are refused:
  give it their absences as `dropout`.
- `robust` stands here with clipping of a fixed length. Rules that compare several models run in rounds, in groups and
  on the inboxes of `swift`, and are refused where a node hears one model at a time: at meetings, and in flight.
- Push-sum and SGP push shares of a mass: `random_subset`, `top_k`, `fragments` and `compressed` leave what they do not
  say with its node, so that mass is conserved coordinate by coordinate; coefficients of a transform (`jwins`) carry
  none.
- "lossy rounds" are `timeline.changing_rounds(loss=...)`, "absent nodes" are `timeline.changing_rounds(activity=...)`,
  "losses on one graph" are the same on a topology,
  and "changing pushes" are `timeline.changing_rounds(weights="push")` on directed graphs.
- "directed rounds" are `timeline.rounds(..., stochastic="column")`, "learning on the way" is
  `timeline.gossip_learning(create="update_merge")`, "mixing walks" and "a walk for each node" are
  `timeline.random_walks(mix_on_arrival=True)`. "Plexus", "synchronous", "epidemic", "all-reduce", "gossip on machines"
  and "AD-PSGD on machines" are plans of `gossipjax.systems`, whose times rest on messages of one size: messages of
  another size need `systems.stand_in`."""

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "what-goes-with-what.md"

if __name__ == "__main__":
    PAGE.write_text(page(trace=True), encoding="utf-8")
