"""Good and bad arguments of builders of protocols, sharings, compressors, codes, transforms and observers.

Run as a program, without the annotations that tests check, it prints what is wrong with the answers.
"""

import math
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic, identical_samples

import gossipjax as gj
from gossipjax import compress, observe, protocol, sharing, wrappers
from gossipjax.compress import codes, transforms
from gossipjax.observe import _models
from gossipjax.sharing._jwins import cpython_draws

TASK, SGD = exact_quadratic(), optax.sgd(0.1)
GRAPH, TREE = gj.topology.ring(N), gj.topology.path(N)
W = gj.mixing.metropolis(GRAPH).toarray()
CLIQUES = [[i, i + 1] for i in range(0, N - 1, 2)] + [[N - 1]] * (N % 2)
UNBIASED = compress.qsgd(4)
_rows, _classes = np.arange(12.0, dtype=np.float32).reshape(6, 2), np.arange(6) % 2
SAMPLES = gj.tasks.classification(
    gj.tasks.from_arrays(_rows, _classes, _rows, _classes),
    gj.tasks.iid(6, 2, seed=0),
    gj.tasks.softmax_regression(2, 2),
)
Q, WIRE, BASIS = compress.top_k(1), codes.Wire(), transforms.identity()
NUMBERS = {
    "text": "a",
    "digits": "1",
    "nan": math.nan,
    "infinity": math.inf,
    "empty": [],
    "complex": 1j,
    "thing": object(),
}
WHOLE = NUMBERS | {"fraction": 1.5, "float": 2.0, "negative": -1, "flag": True, "array": np.ones((1, 1), int)}
REAL = NUMBERS | {"negative": -1.0, "vector": np.ones(2)}
THING = {"number": 3, "text": "a", "empty": [], "thing": object()}
FLAG = {"number": 1, "text": "no", "None": None, "empty": []}
WORD = {"number": 3, "text": "other", "None": None, "empty": []}
NONE = {"None": None}
SEED = WHOLE | NONE
LIST = {"text": "a", "fractions": [1.5], "negative": [-1], "empty": [], "twice": [1, 1], "matrix": np.ones((1, 1), int)}
SHARES = {"text": "a", "nan": [math.nan], "negative": [-0.1], "empty": [], "large": [2.0], "matrix": np.ones((1, 1))}
MASK = {"number": 3, "text": "a", "None": None, "whole": np.ones(2, int), "matrix": jnp.ones((2, 2), bool)}
EVENT = gj.Event(index=jnp.zeros(1, jnp.uint32), time=jnp.zeros(1))
PAIR = gj.mixing.push(0, 1, 0.5)
HELD = gj.track_versions(gj.gossip_averaging()).init(jax.random.key(0), jnp.ones(3)).versions


def soft_threshold(z, step_size):
    return jnp.sign(z) * jnp.maximum(jnp.abs(z) - 0.1 * step_size, 0)


def node_prox(node, z, step_size):
    return z / (1 + step_size)


def learning(*rest, **settings):
    return (
        {"task": TASK, "optimizer": SGD} | dict(*rest),
        {"task": THING | NONE, "optimizer": THING | NONE} | settings,
    )


PART = ({"k": 2}, {"k": WHOLE | {"zero": 0}})
SHARE = ({"share": 0.5}, {"share": REAL | {"zero": 0.0, "large": 1.5}})
STEPS = {"local_steps": WHOLE | NONE | {"zero": 0}}
GAMMA = {"gamma": REAL | NONE | {"zero": 0.0}}
COMPRESSOR = {"compressor": THING | NONE | {"sharing": sharing.top_k(0.5)}}
WIRES = {"wire": THING}
SHARING = {"sharing": THING | {"compressor": Q, "protocol": protocol.push_sum()}}
SAMPLED = {"task": identical_samples(TASK), "step_size": 0.1}
NO_SAMPLES = {"task": THING | NONE | {"task": TASK}, "step_size": REAL | NONE | {"zero": 0.0}}
DUAL = {"penalty": REAL | {"zero": 0.0}, "relaxation": REAL | {"zero": 0.0, "large": 1.5}}
CASES = [
    (protocol.relay_averaging, {"tree": TREE}, {"tree": THING | NONE | {"cycle": GRAPH}}),
    (protocol.relay_sgd, *learning({"tree": TREE}, tree=THING | NONE | {"cycle": GRAPH}, normalize=WORD, **STEPS)),
    (
        protocol.admm,
        {"topology": GRAPH, "prox": node_prox, "penalty": 1.0},
        {"topology": THING | NONE, "prox": {"number": 3, "text": "a"}} | DUAL,
    ),
    (
        protocol.lt_admm,
        *learning(
            {"topology": GRAPH, "local_steps": 2, "penalty": 1.0, "beta": 0.1},
            topology=THING | NONE,
            beta=REAL | {"zero": 0.0},
            **DUAL,
            **STEPS,
        ),
    ),
    (
        protocol.lt_admm_vr,
        SAMPLED | {"topology": GRAPH, "local_steps": 2, "penalty": 1.0, "beta": 0.1},
        NO_SAMPLES
        | DUAL
        | {"topology": THING | NONE, "beta": REAL | {"zero": 0.0}, "batch_size": WHOLE | {"zero": 0}}
        | {"keep_table": FLAG}
        | STEPS,
    ),
    (
        protocol.admm_tracking,
        {"task": TASK, "step_size": 0.1, "topology": GRAPH, "gamma": 0.1, "penalty": 1.0},
        {"task": THING | NONE, "step_size": REAL | {"zero": 0.0}, "topology": THING | NONE}
        | {"gamma": REAL | {"zero": 0.0, "large": 2.0}}
        | DUAL,
    ),
    (protocol.dinno, *learning({"local_steps": 2, "penalty": 1.0}, penalty=REAL | {"zero": 0.0}, **STEPS)),
    (
        protocol.dlm,
        {"task": TASK, "step_size": 0.1, "penalty": 1.0},
        {"task": THING | NONE, "step_size": REAL | {"zero": 0.0}, "penalty": REAL | {"zero": 0.0}},
    ),
    (protocol.dpsgd, *learning(order=WORD, **SHARING, **STEPS)),
    (protocol.local_sgd, *learning({"local_steps": 1}, **SHARING, **STEPS)),
    (protocol.fedavg, *learning({"local_steps": 1}, **STEPS)),
    (protocol.fedbuff, *learning(**STEPS)),
    (protocol.fedprox, *learning({"local_steps": 1, "mu": 0.5}, mu=REAL, **STEPS)),
    (
        protocol.fedopt,
        *learning({"local_steps": 1, "server_optimizer": SGD}, server_optimizer=THING | NONE, **STEPS),
    ),
    *(
        (
            build,
            *learning(
                {"local_steps": 1, "server_step_size": 0.1, "beta1": 0.5, "beta2": 0.5, "tau": 0.1},
                server_step_size=REAL | {"zero": 0.0},
                beta1=REAL | {"one": 1.0},
                beta2=REAL | {"one": 1.0},
                tau=REAL | {"zero": 0.0},
                **STEPS,
            ),
        )
        for build in (protocol.fedadam, protocol.fedyogi)
    ),
    (
        protocol.fedadagrad,
        *learning(
            {"local_steps": 1, "server_step_size": 0.1, "beta1": 0.5, "tau": 0.1},
            server_step_size=REAL | {"zero": 0.0},
            beta1=REAL | {"one": 1.0},
            tau=REAL | {"zero": 0.0},
            **STEPS,
        ),
    ),
    (
        protocol.fednova,
        {"task": TASK, "step_size": 0.1, "local_steps": [2] * N, "momentum": 0.5},
        {
            "task": THING | NONE,
            "step_size": REAL | {"zero": 0.0},
            "local_steps": LIST | {"number": 3, "zero": [0] * N},
            "momentum": REAL | {"one": 1.0},
        },
    ),
    (
        protocol.scaffold,
        {"task": TASK, "step_size": 0.1, "local_steps": 2, "server_step_size": 0.5, "variate": "gradient"},
        {
            "task": THING | NONE,
            "step_size": REAL | {"zero": 0.0},
            "server_step_size": REAL | {"zero": 0.0},
            "variate": WORD,
        }
        | STEPS,
    ),
    (protocol.feddyn, *learning({"local_steps": 1, "alpha": 0.5}, alpha=REAL | {"zero": 0.0}, **STEPS)),
    (protocol.swift, *learning(**SHARING, **STEPS)),
    (protocol.random_walk, *learning(**STEPS)),
    (protocol.gossip_learning, *learning(merge=WORD, scale={"number": 3, "text": "a"}, **SHARING, **STEPS)),
    (protocol.gradient_tracking, *learning(order=WORD)),
    (protocol.beer, *learning({"compressor": Q, "gamma": 0.5}, **COMPRESSOR, **GAMMA)),
    (protocol.d2, *learning()),
    (protocol.exact_diffusion, *learning()),
    (protocol.led, *learning({"local_steps": 2, "beta": 0.5}, beta=REAL | {"zero": 0.0}, **STEPS)),
    (protocol.extra, *learning()),
    (protocol.simple_gt, *learning()),
    (protocol.wang_elia, *learning()),
    (protocol.gt_saga, SAMPLED, NO_SAMPLES),
    (protocol.gt_svrg, SAMPLED | {"period": 2}, NO_SAMPLES | {"period": WHOLE | NONE | {"zero": 0}}),
    (
        protocol.gt_sarah,
        SAMPLED | {"period": 2},
        NO_SAMPLES | {"period": WHOLE | NONE | {"zero": 0}, "batch_size": WHOLE | NONE | {"zero": 0}},
    ),
    (
        protocol.gt_vr,
        SAMPLED | {"snapshot_probability": 0.5},
        NO_SAMPLES | {"snapshot_probability": REAL | NONE | {"zero": 0.0, "large": 1.5}},
    ),
    (
        protocol.k_gt,
        {"task": TASK, "step_size": 0.1, "local_steps": 2, "communication_step_size": 0.5},
        {"task": THING | NONE, "step_size": REAL | {"zero": 0.0}, "communication_step_size": REAL | {"zero": 0.0}}
        | STEPS,
    ),
    (
        protocol.prox_skip,
        *learning(
            {"probability": 0.5, "chi": 2.0},
            probability=REAL | {"zero": 0.0, "large": 1.5},
            chi=REAL | {"small": 0.5},
        ),
    ),
    (protocol.decentlam, *learning({"momentum": 0.5}, momentum=REAL | {"one": 1.0}, **SHARING)),
    (protocol.quasi_global_momentum, *learning({"momentum": 0.5}, momentum=REAL | {"one": 1.0}, **SHARING)),
    (
        protocol.nids,
        {"task": TASK, "step_sizes": 0.1, "prox": soft_threshold},
        {"task": THING | NONE, "step_sizes": REAL | NONE | {"zero": 0.0}, "prox": {"number": 3, "text": "a"}},
    ),
    (
        protocol.c_gt,
        {"task": TASK, "step_size": 0.1, "compressor": Q, "gamma": 0.5, "alpha": 0.5},
        {"task": THING | NONE, "step_size": REAL | NONE | {"zero": 0.0}, "alpha": REAL | {"zero": 0.0, "large": 1.5}}
        | COMPRESSOR
        | GAMMA,
    ),
    (
        protocol.lead,
        {"task": TASK, "step_size": 0.1, "compressor": UNBIASED, "gamma": 0.5, "alpha": 0.5},
        {"task": THING | NONE, "step_size": REAL | NONE | {"zero": 0.0}, "alpha": REAL | {"zero": 0.0, "large": 1.5}}
        | COMPRESSOR
        | {"gamma": REAL | {"zero": 0.0}},
    ),
    (protocol.ad_psgd, *learning(**SHARING)),
    (protocol.allreduce_sgd, *learning()),
    (protocol.clique_averaging, *learning({"cliques": CLIQUES}, cliques={"none": [], "half": [[0, 1]]})),
    (protocol.sgp, *learning(**SHARING)),
    (protocol.gossip_averaging, {}, SHARING),
    (protocol.push_sum, {}, SHARING),
    (sharing.choco, {"compressor": Q, "gamma": 0.5}, COMPRESSOR | GAMMA),
    (sharing.sparq, {"compressor": Q, "gamma": 0.5, "threshold": 0.1}, COMPRESSOR | GAMMA | {"threshold": REAL | NONE}),
    (sharing.compressed, {"compressor": Q, "gamma": 0.5}, COMPRESSOR | GAMMA),
    (sharing.deep_squeeze, {"compressor": Q, "gamma": 0.5}, COMPRESSOR | GAMMA),
    (sharing.error_feedback, {"sharing": sharing.full()}, {"sharing": THING | {"compressor": Q}}),
    (sharing.dcd, {"compressor": compress.identity()}, COMPRESSOR),
    (sharing.ecd, {"compressor": compress.identity()}, COMPRESSOR),
    (sharing.noisy, {"std": 0.1}, {"std": REAL | NONE}),
    (
        observe.membership,
        {"task": SAMPLES},
        {"task": THING | NONE | {"quadratic": TASK}, "samples": WHOLE | {"zero": 0}, "seed": SEED}
        | {"fpr": REAL | {"zero": 0.0, "one": 1.0, "small": 1e-6}},
    ),
    (
        observe.linkability,
        {"task": SAMPLES},
        {"task": THING | NONE | {"quadratic": TASK}, "samples": WHOLE | {"zero": 0}, "seed": SEED},
    ),
    (
        observe.clipping,
        {"task": gj.privacy.node_dp(TASK, clip=1.0, noise=1.0)},
        {"task": THING | NONE | {"plain": TASK}},
    ),
    (
        gj.privacy.node_dp,
        {"task": TASK, "clip": 1.0, "noise": 0.5},
        {"task": THING | NONE, "clip": REAL | NONE | {"zero": 0.0}, "noise": REAL | NONE},
    ),
    (
        gj.privacy.sample_dp,
        {"task": SAMPLES, "clip": 1.0, "noise": 0.5, "batch_size": 2},
        {"task": THING | NONE | {"quadratic": TASK}, "clip": REAL | NONE | {"zero": 0.0}, "noise": REAL | NONE}
        | {"batch_size": WHOLE | NONE | {"zero": 0, "large": 1000}},
    ),
    (
        gj.privacy.guarantee,
        {"task": gj.privacy.node_dp(TASK, clip=1.0, noise=1.0), "num_steps": 4, "delta": 1e-5},
        {"task": THING | NONE | {"plain": TASK}, "num_steps": WHOLE | NONE | {"zero": 0}}
        | {"delta": REAL | NONE | {"zero": 0.0, "one": 1.0}},
    ),
    (
        sharing.decor,
        {"topology": GRAPH, "std": 0.1, "pair_std": 0.5},
        {"topology": THING | NONE, "std": REAL | NONE, "pair_std": REAL | NONE},
    ),
    (
        sharing.zip_dl,
        {"topology": GRAPH, "std": 0.1},
        {"topology": THING | NONE, "std": REAL | NONE, "own": FLAG},
    ),
    (
        sharing.multi_step,
        {"steps": 2, "rho": 0.9},
        {"steps": WHOLE | NONE | {"zero": 0}, "rho": REAL | {"zero": 0.0, "one": 1.0}},
    ),
    (
        sharing.moniqua,
        {"bits": 4, "theta": 1.0},
        GAMMA | {"bits": WHOLE | NONE | {"few": 1, "many": 17}, "theta": REAL | NONE | {"zero": 0}},
    ),
    (
        sharing.power_gossip,
        {"topology": GRAPH},
        {"topology": THING | NONE, "rank": WHOLE | NONE, "iterations": WHOLE | NONE | {"zero": 0}, "seed": SEED},
    ),
    (
        sharing.secure_aggregation,
        {"topology": GRAPH},
        {"topology": THING | NONE, "fraction_bits": WHOLE | NONE | {"few": 7, "many": 31}, "colluders": WHOLE | NONE}
        | {"dropout": REAL | NONE | {"negative": -0.1, "one": 1.0, "table": [[0.5]]}, "recovery": WORD, "masks": FLAG}
        | {"share": REAL | NONE | {"zero": 0.0, "large": 1.5}, "threshold": WHOLE},
    ),
    (
        sharing.fragments,
        {"num_fragments": 2},
        {"num_fragments": WHOLE | NONE | {"zero": 0}, "layout": WORD, "seed": SEED},
    ),
    (
        sharing.jwins,
        {},
        WIRES
        | {"cut_offs": SHARES | NONE, "probabilities": SHARES, "cap": {"nan": math.nan, "text": "a", "zero": 0}}
        | {"accumulate": WORD, "rank_by": WORD, "transform": THING, "draws": {"text": "a", "fractions": [[0.5]]}},
    ),
    (sharing.top_k, SHARE[0], SHARE[1] | WIRES | {"transform": THING, "accumulate": FLAG}),
    (sharing.random_subset, SHARE[0], SHARE[1] | WIRES),
    (
        sharing.tune_gamma,
        {"compressor": Q, "weights": W, "dimension": 2},
        COMPRESSOR
        | {"dimension": WHOLE, "num_rounds": WHOLE, "candidates": SHARES | {"large": [math.inf]}, "seed": SEED},
    ),
    (cpython_draws, {"num_cut_offs": 2, "num_nodes": 2, "num_rounds": 2}, {"num_nodes": WHOLE, "num_rounds": WHOLE}),
    (compress.top_k, *PART),
    (compress.top_k, SHARE[0], SHARE[1] | {"indices": {"number": 3, "text": "a"}}),
    (compress.sign_top_k, *PART),
    (compress.sign_top_k, *SHARE),
    (compress.random_k, PART[0], PART[1] | {"unbiased": FLAG}),
    (compress.random_k, *SHARE),
    (compress.random_gossip, {"p": 0.5}, {"p": REAL | NONE | {"zero": 0.0, "large": 1.5}}),
    (compress.stc, {"share": 0.5}, {"share": REAL | NONE | {"zero": 0.0, "large": 1.5}}),
    (codes.Golomb, {"share": 0.5}, {"share": REAL | NONE | {"zero": 0.0, "large": 1.5}}),
    (compress.qsgd, {"levels": 3}, {"levels": WHOLE | NONE | {"zero": 0, "many": 2**23}}),
    (compress.contractive, {"compressor": compress.qsgd(2)}, COMPRESSOR),
    (
        codes.Wire,
        {},
        {
            "indices": {"number": 3, "None": None},
            "value_ratio": {"number": 1, "text": "a", "fractions": (0.5, 1.0), "three": (1, 1, 1), "zero": (1, 0)},
            "envelope_bytes": WHOLE | NONE,
        },
    ),
    (codes.dense_bits, {"wire": WIRE, "d": 3, "value_bits": 32}, {"wire": THING, "d": WHOLE, "value_bits": WHOLE}),
    (
        codes.message_bits,
        {"wire": WIRE, "mask": jnp.ones(3, bool), "value_bits": 32},
        {"wire": THING | NONE, "value_bits": WHOLE | NONE | {"zero": 0}},
    ),
    (
        transforms.wavelet,
        {},
        {"name": WORD | {"continuous": "mexh"}, "levels": WHOLE | NONE | {"zero": 0}, "mode": WORD},
    ),
    (gj.restarted, {"optimizer": SGD, "every": 2}, {"optimizer": THING | NONE, "every": WHOLE | NONE | {"zero": 0}}),
    (gj.replicate, {"params": jnp.ones(2), "rows": 2}, {"rows": WHOLE | NONE | {"zero": 0}}),
    (
        wrappers.track_versions,
        {"protocol": gj.gossip_averaging(), "num_nodes": N},
        {
            "protocol": THING | NONE | {"sharing": sharing.full()},
            "sources": LIST | {"fraction": 1.5, "zero": 0, "many": N + 1, "no node": [N]},
            "num_nodes": WHOLE | {"zero": 0},
            "reweight": {"number": 3, "text": "a"},
            "hops": FLAG,
            "rows_are_nodes": FLAG,
        },
    ),
    (observe.staleness_histogram, {"bins": 3}, {"bins": WHOLE | NONE | {"one": 1}}),
    (
        observe.node_metrics,
        {"task": TASK},
        {
            "task": THING | NONE,
            "nodes": LIST | {"fraction": 1.5, "many": N + 1, "zero": 0, "no node": [N]},
            "seed": SEED,
        },
    ),
    (observe.average_model_metrics, {"task": TASK}, {"task": THING | NONE, "seed": SEED}),
    (observe.squared_gradient_norm, {"task": TASK}, {"task": THING | NONE, "metric": {"number": 3, "text": "other"}}),
    (
        observe.optimality_gap,
        {"task": TASK, "minimum": 0.5},
        {"task": THING | NONE, "metric": {"number": 3, "text": "other"}, "minimum": NUMBERS | {"vector": np.ones(2)}},
    ),
    *[(code, {"mask": jnp.ones(3, bool)}, {"mask": MASK}) for code in (codes.elias_gamma, codes.int32_indices)],
    *[(code, {"mask": jnp.ones(3, bool)}, {"mask": MASK}) for code in (codes.bitmap, codes.seed, codes.free)],
    (compress.largest, {"scores": jnp.ones(3), "k": 1}, {"scores": MASK, "k": WHOLE | NONE | {"many": 4}}),
    (gj.bits_per_row, {"x": jnp.ones((2, 2))}, {"x": {"number": 3, "text": "a", "scalar": np.ones(())}}),
    (
        gj.node_gradients,
        {"key": jax.random.key(0), "task": TASK, "x": jnp.asarray(X0), "event": EVENT},
        {"task": THING | NONE, "event": THING | NONE, "x": {"number": 3, "text": "a"}},
    ),
    (
        compress.compress_rows,
        {"key": jax.random.key(0), "compressor": Q, "x": jnp.asarray(X0), "event": EVENT},
        COMPRESSOR | {"event": THING | NONE, "x": {"number": 3, "text": "a"}},
    ),
    (wrappers.staleness, {"versions": HELD}, {"versions": THING | NONE, "rows": WHOLE}),
    (
        wrappers.age_weighted,
        {"versions": HELD, "mixing": PAIR},
        {"versions": THING | NONE, "mixing": NONE | {"number": 3}},
    ),
    (_models.squared_deviations, {"x": jnp.ones((2, 2))}, {"x": {"number": 3, "text": "a"}}),
    (observe.percentiles, {"values": jnp.ones(2)}, {"values": MASK}),
    (_models.metric_names, {"task": TASK, "test": TASK.test}, {"task": THING | NONE}),
    (
        gj.Properties,
        {"num_nodes": 3, "num_rows": 3, "name": "a"},
        {
            "num_nodes": WHOLE | NONE,
            "num_rows": WHOLE | NONE,
            "num_slots": WHOLE | NONE,
            "name": {"number": 3, "None": None},
            "tags": THING,
            "min_eigenvalue": NUMBERS,
            "num_fragments": WHOLE | {"zero": 0},
        },
    ),
    (gj.Requires, {}, {"num_nodes": WHOLE | {"zero": 0}, "tags": THING, "mixing": FLAG, "min_eigenvalue": NUMBERS}),
    (observe.distance_to, {"target": jnp.ones(2)}, {"target": THING | NONE | {"whole": jnp.ones(2, int)}}),
]


def _first_row(key, params, batch):
    del key, batch
    return params[0]


WATCH = {
    "alone": observe.consensus_distance(),
    "a function": [_first_row],
    "not built": [observe.consensus_distance],
    "no function": [observe.Observer(3, ())],
    "no list": [observe.Observer(Partial(_first_row), observe.Variable("a", "b"))],
    "number": 3,
    "None": None,
}
CASES.append(
    (
        gj.simulate,
        {
            "key": jax.random.key(0),
            "protocol": gj.gossip_averaging(),
            "timeline": gj.timeline.rounds(W, 3),
            "x0": jnp.asarray(X0),
        },
        {"observers": WATCH, "protocol": THING | NONE | {"sharing": sharing.full()}},
    )
)
PARTS = {"unknown": "random", "number": 3, "fractions": [0.5] * len(X0), "too few": [0], "no device": [1] * len(X0)}
CASES.append(
    (
        gj.simulate,
        {
            "key": jax.random.key(0),
            "protocol": gj.gossip_averaging(),
            "timeline": gj.timeline.rounds(W, 3),
            "x0": jnp.asarray(X0),
            "mesh": gj.mesh(1),
            "parts": "blocks",
        },
        {"mesh": {"number": 1, "text": "all", "devices": jax.devices()[:1]}, "parts": PARTS},
    )
)
CASES.append(
    (
        gj.mesh,
        {"devices": None},
        {"devices": {"none": 0, "many": 10_000, "text": "all", "twice": jax.devices()[:1] * 2}},
    )
)


def complaint(function, arguments, name):
    """Say what is wrong with the answer to a bad argument; None: it is refused in a sentence of ours."""
    try:
        function(**arguments)
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        if type(error) not in (ValueError, TypeError) or "gossipjax" not in where.filename:
            return f"{type(error).__name__} of {where.filename}: {error}"
        if not where.line.startswith("raise "):
            return f"a raw {type(error).__name__} in {where.name}: {error}"
        return None if name in str(error) else f"does not name {name}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "is taken"


def complaints():
    """Number of bad calls, and what is wrong with the answers to some."""
    calls, found = 0, []
    for function, good, arguments in CASES:
        function(**good)
        for name, values in arguments.items():
            for sort, value in values.items():
                calls += 1
                if (wrong := complaint(function, good | {name: value}, name)) is not None:
                    found.append(f"{function.__name__}({name}={sort}) {wrong}")
    return calls, found


if __name__ == "__main__":
    number, wrong = complaints()
    print(number)
    print("\n".join(wrong))
