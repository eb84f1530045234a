"""Which protocol runs on which timeline: one table. What is refused names a builder whose timelines fit."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from combinations import (
    CLIQUES,
    GRAPH,
    KEY,
    PAGE,
    PROTOCOLS,
    SAMPLES,
    SGD,
    SHARINGS,
    TASK,
    TIMELINES,
    TREE,
    WHOLE_ONLY,
    W,
    built,
    checked,
    made,
    page,
    refusal,
    runs,
    runs_as_built,
    takes_sharing,
)
from methods import PART, table
from problems import X0

from gossipjax import Info, Properties, Protocol, Requires, protocol, sharing, simulate, timeline
from gossipjax._engine.prepare import Recording, as_execution, prepare
from gossipjax.compress import qsgd, top_k
from gossipjax.facts import check_requires
from gossipjax.mixing import averaging, column_stochastic, from_matrix, uniform
from gossipjax.sharing import choco, deep_squeeze, fragments, jwins, secure_aggregation
from gossipjax.timeline import from_events
from gossipjax.types import NOBODY

ONE_MATRIX = {"rounds", "synchronous", "all-reduce"}
LOSSY = {"lossy rounds", "losses on one graph"}
SYNCHRONOUS = {*ONE_MATRIX, *LOSSY, "matching_rounds", "drawn_matchings", "changing_rounds", "epidemic"}
LINKS = ONE_MATRIX - {"all-reduce"}
ONE_GRAPH = {*LINKS, "directed rounds", "losses on one graph"}
PAIRS = {"poisson_pairs", "poisson_edges", "poisson_push", "drawn_pairs", "drawn_gossip", "push_gossip", "pairwise"}
PAIRS |= {"gossip_learning", "opportunistic", "version_age", "gossip on machines", "AD-PSGD on machines"}
MEETINGS = {*PAIRS, "push_rounds"}
OWN_ROWS = {*SYNCHRONOUS, *MEETINGS, "absent nodes", "swift"}
MASS = {"directed rounds", "directed_push", *ONE_MATRIX, "matching_rounds", "changing_rounds", "absent nodes"}
MASS |= {"drawn_matchings", "changing pushes", "poisson_pairs", "poisson_edges", "drawn_pairs"}
MIXING_WALKS = {"mixing walks", "a walk for each node", "teleportation"}

ALLOWED = {
    "gossip_averaging": (
        lambda: protocol.gossip_averaging(),
        {*OWN_ROWS, *MIXING_WALKS, "learning on the way", "client_sampling", "Plexus", "HADFL"},
    ),
    "gossip_averaging of fragments": (
        lambda: protocol.gossip_averaging(fragments(2)),
        {*OWN_ROWS, "shatter", "divshare"},
    ),
    "dpsgd": (lambda: protocol.dpsgd(TASK, SGD), OWN_ROWS),
    "dpsgd, combine first": (lambda: protocol.dpsgd(TASK, SGD, order="combine_then_adapt"), OWN_ROWS),
    "dpsgd of fragments": (
        lambda: protocol.dpsgd(TASK, SGD, sharing=fragments(2)),
        {*OWN_ROWS, "shatter", "divshare"},
    ),
    "dpsgd of jwins": (lambda: protocol.dpsgd(TASK, SGD, sharing=jwins()), OWN_ROWS),
    "dpsgd of deep_squeeze": (lambda: protocol.dpsgd(TASK, SGD, sharing=deep_squeeze(top_k(1), 0.5)), SYNCHRONOUS),
    "dpsgd of choco": (lambda: protocol.dpsgd(TASK, SGD, sharing=choco(top_k(1), 0.5)), ONE_MATRIX),
    "dpsgd of secure_aggregation": (
        lambda: protocol.dpsgd(TASK, SGD, sharing=secure_aggregation(GRAPH, recovery="shares", dropout=0.1)),
        {"rounds", "synchronous"},
    ),
    "local_sgd": (lambda: protocol.local_sgd(TASK, SGD, local_steps=2), OWN_ROWS),
    "fedavg": (lambda: protocol.fedavg(TASK, SGD, local_steps=2), {"client_sampling", "Plexus", "all-reduce"}),
    **{
        name: (PROTOCOLS[name], {"client_sampling"})
        for name in (
            "fedprox",
            "fedopt",
            "fedadam",
            "fedyogi",
            "fedadagrad",
            "fednova",
            "scaffold",
            "feddyn",
        )
    },
    "allreduce_sgd": (lambda: protocol.allreduce_sgd(TASK, SGD), {*SYNCHRONOUS, "directed rounds", "changing pushes"}),
    "gradient_tracking": (lambda: protocol.gradient_tracking(TASK, SGD), SYNCHRONOUS - LOSSY - {"epidemic"}),
    "beer": (lambda: protocol.beer(TASK, SGD, top_k(1), 0.5), ONE_MATRIX),
    "c_gt": (lambda: protocol.c_gt(TASK, 0.1, top_k(1), 0.5, alpha=1.0), ONE_MATRIX),
    "d2": (lambda: protocol.d2(TASK, SGD), ONE_MATRIX),
    "exact_diffusion": (lambda: protocol.exact_diffusion(TASK, SGD), ONE_MATRIX),
    "led": (lambda: protocol.led(TASK, SGD, local_steps=2), ONE_MATRIX),
    "nids": (lambda: protocol.nids(TASK, 0.1), ONE_MATRIX),
    "lead": (lambda: protocol.lead(TASK, 0.1, qsgd(3)), ONE_MATRIX),
    "extra": (lambda: protocol.extra(TASK, SGD), ONE_MATRIX),
    "simple_gt": (lambda: protocol.simple_gt(TASK, SGD), ONE_MATRIX),
    "wang_elia": (lambda: protocol.wang_elia(TASK, SGD), ONE_MATRIX),
    "gt_saga": (lambda: protocol.gt_saga(SAMPLES, 0.1), SYNCHRONOUS - LOSSY - {"epidemic"}),
    "gt_svrg": (lambda: protocol.gt_svrg(SAMPLES, 0.1, period=2), SYNCHRONOUS - LOSSY - {"epidemic"}),
    "gt_sarah": (lambda: protocol.gt_sarah(SAMPLES, 0.1, period=2), SYNCHRONOUS - LOSSY - {"epidemic"}),
    "gt_vr": (
        lambda: protocol.gt_vr(SAMPLES, 0.1, snapshot_probability=0.5),
        SYNCHRONOUS - LOSSY - {"epidemic"},
    ),
    "k_gt": (lambda: protocol.k_gt(TASK, 0.1, local_steps=2), SYNCHRONOUS - LOSSY - {"epidemic"}),
    "prox_skip": (lambda: protocol.prox_skip(TASK, SGD, probability=0.5), ONE_MATRIX),
    "clique_averaging": (lambda: protocol.clique_averaging(TASK, SGD, CLIQUES), ONE_MATRIX),
    "relay_averaging": (lambda: protocol.relay_averaging(TREE), ONE_GRAPH - {"synchronous"}),
    "relay_sgd": (lambda: protocol.relay_sgd(TASK, SGD, TREE), ONE_GRAPH - {"synchronous"}),
    "admm": (lambda: PROTOCOLS["admm"](), ONE_GRAPH),
    "lt_admm": (lambda: PROTOCOLS["lt_admm"](), ONE_GRAPH),
    "lt_admm_vr": (lambda: PROTOCOLS["lt_admm_vr"](), ONE_GRAPH),
    "admm_tracking": (lambda: PROTOCOLS["admm_tracking"](), ONE_GRAPH),
    "dlm": (lambda: protocol.dlm(TASK, 0.1, penalty=0.5), LINKS),
    "dinno": (
        lambda: protocol.dinno(TASK, SGD, local_steps=2, penalty=0.2),
        {*LINKS, "matching_rounds", "drawn_matchings", "changing_rounds"},
    ),
    "decentlam": (lambda: protocol.decentlam(TASK, SGD), SYNCHRONOUS),
    "quasi_global_momentum": (lambda: protocol.quasi_global_momentum(TASK, SGD), SYNCHRONOUS),
    "ad_psgd": (lambda: protocol.ad_psgd(TASK, SGD), MEETINGS - {"gossip on machines"}),
    "push_sum": (lambda: protocol.push_sum(), {*MASS, "teleportation"}),
    "sgp": (lambda: protocol.sgp(TASK, SGD), MASS),
    "gossip_learning": (
        lambda: protocol.gossip_learning(TASK, SGD),
        {*PAIRS, "learning on the way"} - {"AD-PSGD on machines"},
    ),
    "random_walk": (lambda: protocol.random_walk(TASK, SGD), {"random_walks", *MIXING_WALKS}),
    "swift": (lambda: protocol.swift(TASK, SGD), {"swift"}),
    "fedbuff": (
        lambda: protocol.fedbuff(TASK, SGD),
        {"fedbuff", "ringmaster", "rennala", "malenia", "m_synchronous"},
    ),
    "hadfl": (lambda: protocol.hadfl(TASK, SGD, local_steps=2), {"HADFL"}),
}


def test_every_protocol_and_every_timeline_stands_in_the_table():
    builders = {name for name, value in vars(protocol).items() if _returns(value) == "Protocol"}
    assert {re.split("[ ,]", name)[0] for name in ALLOWED} == builders
    planners = {name for name, value in vars(timeline).items() if _returns(value) == "Timeline"}
    assert planners - TIMELINES.keys() == {"from_events", "load", "with_mixing"}


def test_every_protocol_and_every_sharing_stands_on_the_page():
    builders = {name for name, value in vars(protocol).items() if _returns(value) == "Protocol"}
    assert builders == PROTOCOLS.keys()
    assert {name for name, value in vars(sharing).items() if _returns(value) == "Sharing"} == SHARINGS.keys()
    assert {name for name in PROTOCOLS if not takes_sharing(name)} == WHOLE_ONLY.keys()


def test_the_page_says_what_the_code_does():
    """From the checks of facts alone; the slow test below traces every step."""
    assert PAGE.read_text(encoding="utf-8") == page(), "write the page again: make combinations"
    assert PART.read_text(encoding="utf-8") == table(), "write the table again: make combinations"


@pytest.mark.slow
def test_the_page_says_what_every_step_does():
    assert PAGE.read_text(encoding="utf-8") == page(trace=True)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if takes_sharing(name)])
def test_what_is_refused_names_what_fits(name):
    """A timeline on which it runs, or, where there is none with this sharing, a sharing with which it does."""
    for said in SHARINGS:
        fitting = runs(name, said)
        for plan in TIMELINES.keys() - set(fitting):
            message = refusal(name, said, plan, trace=False)
            if message is None:  # only tracing refuses it: see the table above
                continue
            named = set(re.findall(r"timeline\.(\w+)", message))
            others = {other for other in SHARINGS if re.search(rf"\b{other}\b", message) and runs(name, other)}
            assert named & set(fitting) or (not fitting and others), (said, plan, message)


def _returns(value):
    found = inspect.unwrap(value).__annotations__.get("return") if inspect.isfunction(value) else None
    return getattr(found, "__name__", found)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_protocol_runs_on_its_timelines_and_on_no_other(name):
    build, allowed = ALLOWED[name]
    method, refused = build(), {}
    for plan in TIMELINES:
        try:
            checked(method, built(plan))
        except ValueError as error:
            refused[plan] = str(error)
    assert TIMELINES.keys() - refused.keys() == allowed, refused
    for plan, message in refused.items():
        named = set(re.findall(r"timeline\.(\w+)", message.replace("systems.hadfl", "timeline.HADFL")))
        assert named & allowed, (plan, message)


# --- facts ------------------------------------------------------------------------------------------------------------


def by_hand(facts=frozenset(), **fields):
    """One push from node 0 to node 1 of three, and what is said of it."""
    xs = {"time": [1.0], "nodes": [[0]], "senders": [[0]], "receivers": [[1]], "weights": [[0.5]], "keep": [[0.5]]}
    xs = {name: np.asarray(value) for name, value in (xs | fields).items()}
    return from_events(xs, Properties(3, 3, "by hand", facts))


def test_no_fact_is_true_by_default():
    facts, needs = Properties(3, 3, "nothing said"), Requires()
    assert facts.tags == needs.tags == frozenset()
    assert not needs.mixing
    silent = Protocol(lambda key, x0: x0, lambda key, x, event: (x, Info()), lambda x: x)
    with pytest.raises(ValueError, match="rows sum to one"):
        check_requires(silent.requires, facts)


def test_a_plan_shows_its_facts():
    push = by_hand().properties
    assert {"row_stochastic", "own_rows", "meetings"} <= push.tags
    assert "row_stochastic" not in by_hand(weights=[[0.6]]).properties
    assert "row_stochastic" in by_hand(weights=[[0.6]], receivers=[[NOBODY]]).properties
    assert "own_rows" not in by_hand(rows=[[1]]).properties
    assert "own_rows" in by_hand(rows=[[NOBODY]], nodes=[[NOBODY]]).properties


@pytest.mark.parametrize(
    ("facts", "fields", "message"),
    [
        ({"row_stochastic"}, {"weights": [[0.6]]}, "'row_stochastic', but weights of event 0"),
        ({"doubly_stochastic"}, {"weights": [[0.6]]}, "'doubly_stochastic', but weights of event 0"),
        ({"row_stochastic"}, {"keep": [[np.nan]]}, "event 0: (keep|weights)=nan must be a finite"),
        ({"own_rows"}, {"rows": [[2]]}, "the fact 'own_rows'"),
    ],
)
def test_what_is_stated_must_hold(facts, fields, message):
    with pytest.raises(ValueError, match=message):
        by_hand(facts, **fields)


@pytest.mark.parametrize("form", ["dense", "table"])
@pytest.mark.parametrize(
    ("changed", "method", "fact"),
    [
        (column_stochastic(GRAPH), protocol.gossip_averaging, "row stochastic"),
        (uniform(GRAPH), lambda: protocol.gradient_tracking(TASK, SGD), "doubly stochastic"),
        (uniform(GRAPH), protocol.push_sum, "column stochastic"),
        (column_stochastic(GRAPH).T, lambda: protocol.d2(TASK, SGD), "symmetric"),
    ],
)
def test_weights_that_were_exchanged_do_not_keep_their_facts(form, changed, method, fact):
    plan = timeline.rounds(W, 5, form=form)
    other = dataclasses.replace(plan, shared=plan.shared | {"mixing": from_matrix(changed, form=form)})
    with pytest.raises(ValueError, match=f"{fact}, but those of the first round are not.*timeline.rounds"):
        simulate(KEY, method(), other, jnp.asarray(X0))


def test_facts_are_held_against_float32_weights_too():
    """Sums of a thousand float32 numbers are one within their rounding."""
    with jax.enable_x64(False):
        plan = timeline.rounds(averaging(1000), 1)
        assert simulate(KEY, protocol.gossip_averaging(), plan, jnp.zeros((1000, 1))).x.shape == (1000, 1)


UNEVEN = {"gt_svrg", "gt_sarah", "gt_vr", "lt_admm_vr"}
"""The number of gradients differs between rounds, or is not that of the steps: no number for each loss counts them."""


@pytest.mark.parametrize("name", PROTOCOLS)
def test_gradient_calls_are_known_of_all_protocols(name):
    """0 for those that learn from no task; of the others, what a node that acts takes, and its losses tell who acts."""
    said = None if not takes_sharing(name) else "full"
    plan = built(runs_as_built(name, said)[0])
    plan = dataclasses.replace(plan, properties=dataclasses.replace(plan.properties, message_bytes=None))
    x0 = jnp.zeros((plan.properties.num_rows, X0.shape[1]), X0.dtype)
    job, *_ = prepare(KEY, made(name, said), plan, x0, [], Recording(None, None, None), as_execution(None, "auto"))
    learns = "task" in inspect.signature(getattr(PROTOCOLS[name], "func", PROTOCOLS[name])).parameters
    assert job.local_steps == (made(name, said).requires.local_steps if learns else 0)
    assert job.local_steps is None if name in UNEVEN else (job.local_steps > 0) == learns
