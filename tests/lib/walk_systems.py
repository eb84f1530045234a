"""Functions of devices and systems with right arguments, and wrong values for each of them, for ``walk.py``."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gossipjax import devices, systems, topology
from gossipjax.systems._kernel import bandwidth
from gossipjax.systems._plexus import sampler
from gossipjax.systems._plexus.sizes import model_message_bytes
from gossipjax.tasks import DataUnavailable

NAN, INF = float("nan"), float("inf")
SORTS = ("a", None, [], {}, object(), 1j)
"""What is no number, and no object of the package."""
WHOLE = (*SORTS, 2.0, 1.5, NAN, INF, -1, True, "3", np.array([1, 2]), np.float64(3))
SEED = WHOLE
REAL = (*SORTS, NAN, -1.0, "3", [1.0], np.zeros(0), np.array([1.0, 2.0]), True)
FINITE = (*REAL, INF)
WORD = ("no such word", None, 1, 1.5, NAN, [], b"greedy")
CHOICE = ("no such word", 1, NAN, [], b"charging")
FLAG = ("no", "yes", None, 0, 1, NAN, [])
THING = ("a", 5, 1.5, NAN, {}, object(), np.ones(3))
NUMBERS = ("ab", None, {}, object(), [NAN, 1.0], [-1.0, 2.0], [1j, 2j], np.zeros(0), np.ones((2, 2)), [[1], [1, 2]])
NODES = ("ab", None, {}, object(), 1.5, [1.5], [NAN], [-1], [99], np.zeros((0,)), np.ones((2, 2), int), [True])
TIMES = ("ab", None, {}, object(), [NAN], np.ones((2, 2)), [[1], [1, 2]])

HERE = devices.fitted(8, seed=0)
SOMETIMES = devices.charging(8, seed=0)
RING = topology.ring(8)
LEARNER = (*THING, topology.ring(3))
ROUNDS: dict[str, tuple] = {
    "local_steps": (*WHOLE[:-1], 0),
    "model_bytes": (*WHOLE, 1000.5, 0),
    "time_batch": WHOLE,
    "learner": LEARNER,
}
PLAN = systems.synchronous(HERE, RING, 3, local_steps=2, model_bytes=1000)
PLEXUS = systems.plexus(HERE, num_rounds=3, model_bytes=1000, seed=0, sample_size=3)
LEARN = {"local_steps": 2, "model_bytes": 1000}
PAIR = np.ones(2)

CALLS: list[tuple[Callable[..., Any], dict[str, Any], dict[str, tuple]]] = [
    (
        devices.uniform,
        {"n": 3},
        {"n": (*WHOLE, 0), "seconds_per_sample": FINITE, "bytes_per_second": (*REAL, 0), "latency_seconds": FINITE},
    ),
    (
        devices.from_powers,
        {"powers": (4, 2, 2, 1)},
        {
            "powers": (*NUMBERS, [0.0, 1.0], [INF, 1.0]),
            "seconds_per_sample": FINITE,
            "bytes_per_second": (*REAL, 0),
            "latency_seconds": FINITE,
        },
    ),
    (devices.fitted, {"n": 3, "seed": 0}, {"n": (*WHOLE, 0, 10**15), "seed": SEED, "availability": CHOICE}),
    (devices.charging, {"n": 3, "seed": 0}, {"n": (*WHOLE, 0, 10**15), "seed": SEED}),
    (devices.strict, {"n": 3, "seed": 0}, {"n": (*WHOLE, 0, 10**15), "seed": SEED}),
    (
        devices.from_arrays,
        {"seconds_per_sample": PAIR, "upload_bytes_per_second": PAIR, "download_bytes_per_second": PAIR},
        {
            "seconds_per_sample": (*NUMBERS, [INF, 1.0]),
            "upload_bytes_per_second": (*NUMBERS, [0.0, 1.0]),
            "download_bytes_per_second": (*NUMBERS, [0.0, 1.0]),
            "latency_seconds": (*SORTS[:2], NAN, -1.0, INF, np.ones((2, 3)), [1.0, 2.0]),
            "city": ([1.5, 0.0], [5, 0], [-1, 0], [0], "ab"),
            "availability": THING,
            "name": (5, 1.5, [], b"a"),
        },
    ),
    (
        devices.from_sessions,
        {"nodes": [0, 1], "begin_s": [0, 5], "length_s": [3, 3], "period_s": [20, 20]},
        {
            "nodes": (*NODES, [0, 5]),
            "begin_s": (*SORTS[:2], [0.5, 1.0], [0], [2**60, 0]),
            "length_s": (*SORTS[:2], [-1, 0], [1.5, 0.0], [2**60, 0]),
            "period_s": (*SORTS[:2], [0, 20], [1.5, 20.0], [], [2**60, 1]),
        },
    ),
    (
        devices.outages,
        {"n": 3, "nodes": [0, 2], "begin_s": [1.0, 2.0], "end_s": [3.0, INF]},
        {
            "n": (*WHOLE, 0),
            "nodes": (*NODES, [0, 5]),
            "begin_s": (*TIMES, [-1.0, 2.0], [5.0, 2.0], [1.0]),
            "end_s": (*TIMES, [0.5, 3.0], [1.0]),
        },
    ),
    (devices.take, {"availability": SOMETIMES, "devices": [0]}, {"availability": THING, "devices": NODES}),
    (devices.share_online, {"availability": SOMETIMES}, {"availability": THING}),
    (devices.online, {"devices": HERE, "t": 1.0}, {"devices": THING, "t": FINITE}),
    (devices.transitions, {"devices": HERE, "until_s": 1.0}, {"devices": THING, "until_s": FINITE}),
    (
        devices.transitions,
        {"devices": devices.with_availability(HERE, SOMETIMES), "until_s": 1.0},
        {"until_s": (*FINITE, 1e300)},
    ),
    (
        HERE.latency_seconds,
        {"senders": 0, "receivers": [1, 2]},
        {"senders": (8, -1, 1.5, "a"), "receivers": (9, [NAN])},
    ),
    (HERE.latency_seconds, {"senders": [0, 1, 2], "receivers": 0}, {"receivers": ([1, 2],)}),
    (devices.subset, {"devices": HERE, "nodes": [0, 1]}, {"devices": THING, "nodes": NODES}),
    (devices.summary, {"devices": HERE}, {"devices": THING}),
    (devices.training_seconds, {"devices": HERE, "samples": 5}, {"devices": THING, "samples": (*FINITE, np.ones(3))}),
    (
        devices.with_availability,
        {"devices": HERE, "availability": None},
        {"devices": THING, "availability": (*THING, devices.charging(5, seed=0))},
    ),
    (devices.save, {"devices": HERE, "path": "x.npz"}, {"devices": THING, "path": (5, None, [], b"x")}),
    (devices.load, {"path": ""}, {"path": (5, None, [], 1.5)}),
    (devices.read_availability, {"path": ""}, {"path": (5, None, [], 1.5)}),
    (
        devices.read_csv,
        {"path": "devices.csv"},
        {
            "path": (5, None, [], 1.5),
            "bits_per_kilobit": (*WHOLE, 1024.0, 8),
            "latency_seconds": ("a", NAN, -1.0, INF, None),
            "availability": THING,
        },
    ),
    (
        devices.from_traces,
        {"n": 3, "seed": 0},
        {
            "n": (*WHOLE, 0),
            "seed": SEED,
            "folder": (5, 1.5, []),
            "availability": CHOICE,
            "bandwidth_order": WORD,
            "whole_milliseconds": FLAG,
        },
    ),
    (systems.machines, {"devices": HERE}, {"devices": THING}),
    (systems.always_online, {"until": 1.0}, {"until": REAL}),
    (
        systems.synchronous,
        {"devices": HERE, "weights": RING, "num_rounds": 3, **LEARN},
        {
            "devices": THING,
            "weights": ("a", None, 5, 1.5, [], [5], np.ones(8), np.eye(7), np.full((8, 8), NAN), topology.ring(5)),
            "num_rounds": (*WHOLE, 0),
            **ROUNDS,
            "round_seconds": (*FINITE[:1], *FINITE[2:], 0),
            "bandwidth": WORD,
            "missing": WORD,
        },
    ),
    (
        systems.epidemic,
        {"devices": HERE, "fanout": 2, "num_rounds": 3, "seed": 0, **LEARN},
        {
            "devices": THING,
            "fanout": (*WHOLE, 0, 8),
            "num_rounds": (*WHOLE, 0),
            "variant": WORD,
            **ROUNDS,
            "round_seconds": (*FINITE[:1], *FINITE[2:], 0),
            "bandwidth": WORD,
            "seed": SEED,
        },
    ),
    (
        systems.epidemic,
        {"devices": devices.fitted(7, seed=0), "fanout": 2, "num_rounds": 3, "seed": 0, "variant": "oracle", **LEARN},
        {"fanout": (1, 3, 7)},
    ),
    (
        systems.allreduce,
        {"devices": HERE, "num_rounds": 3, **LEARN},
        {"devices": (*THING, devices.uniform(1)), "num_rounds": (*WHOLE, 0), **ROUNDS},
    ),
    (
        systems.gossip_learning,
        {"devices": HERE, "duration_s": 300.0, "seed": 0, **LEARN},
        {
            "devices": (*THING, devices.uniform(1)),
            "duration_s": (*FINITE, 0),
            **ROUNDS,
            "period_s": (*FINITE, 0),
            "bandwidth": WORD,
            "inbox": WORD,
            "seed": SEED,
        },
    ),
    (
        systems.ad_psgd,
        {"devices": HERE, "peers": 8, "duration_s": 3.0, "model_bytes": 1000, "seed": 0},
        {
            "devices": THING,
            "peers": (*WHOLE, 7, topology.ring(5)),
            "duration_s": (*FINITE, 0),
            "learner": LEARNER,
            "model_bytes": (*WHOLE, 0),
            "time_batch": (*WHOLE, 0),
            "exchange_s": (*FINITE[:1], *FINITE[2:], 0),
            "seed": SEED,
        },
    ),
    (
        systems.hadfl,
        {"devices": HERE, "duration_s": 300.0, "seed": 0, **LEARN},
        {
            "devices": (*THING, devices.uniform(1)),
            "duration_s": (*FINITE, 0),
            **ROUNDS,
            "cycle": (*THING, None, systems.HADFLSpeeds()),
            "selection": (*THING, None, systems.HADFLSelection(count=9)),
            "merging": (*THING, None),
            "failures": (*THING, None, systems.HADFLFailures(handshake_s=1e-6)),
            "speeds": (*THING, None),
            "bandwidth": WORD,
            "coordinator_at": (*WHOLE, 8),
            "coordinator_fails_s": (*FINITE[:1], *FINITE[2:], 0),
            "seed": SEED,
        },
    ),
    (
        systems.HADFLCycle,
        {},
        {
            "hyperperiods": (*WHOLE, 0),
            "sync_s": (*FINITE[:1], *FINITE[2:], 0),
            "max_denominator": (*WHOLE, 0),
            "max_hyperperiod": (*FINITE, 0.5),
            "cadence": WORD,
            "warmup_units": (*WHOLE, 0),
        },
    ),
    (
        systems.HADFLSelection,
        {},
        {"count": (*WHOLE, 1), "alpha": (*FINITE, 0, 1), "quantile": (*FINITE, 2), "scale": WORD},
    ),
    (systems.HADFLMerging, {}, {"beta": (*FINITE, 0, 1.5), "ring_version": WORD}),
    (
        systems.HADFLFailures,
        {},
        {
            "timeout_s": (*FINITE[:1], *FINITE[2:], 0),
            "handshake_s": (*FINITE[:1], *FINITE[2:], 0),
            "recovery": WORD,
        },
    ),
    (systems.HADFLSpeeds, {}, {"jitter": FINITE, "drift": FINITE}),
    (
        systems.plexus,
        {"devices": HERE, "num_rounds": 3, "model_bytes": 1000, "seed": 0, "sample_size": 3},
        {
            "devices": THING,
            "num_rounds": (*WHOLE[:1], *WHOLE[2:], 0),
            "duration_s": (*FINITE[:1], *FINITE[2:], 0),
            "learner": LEARNER,
            "model_bytes": (*WHOLE, 1000.5, 0),
            "seed": SEED,
            "sample_size": (*WHOLE, 0, 9),
            "success_fraction": (*FINITE, 0, 1.2),
            "threshold": WORD,
            "local_steps": (*WHOLE[:1], *WHOLE[2:], 0),
            "time_batch": (*WHOLE, 0),
            "bandwidth": WORD,
            "aggregators": (*WHOLE, 0, 9),
            "membership": (*THING, None, systems.Timers()),
            "timers": (*THING, None, systems.Membership()),
            "hashing": WORD,
            "overhead_bytes": WHOLE,
            "min_models": (*WHOLE, 0),
        },
    ),
    (
        systems.Timers,
        {},
        {
            "resend_s": (*FINITE, 0, 5.0),
            "ping_timeout_s": (*FINITE, 0, 1.0),
            "aggregation_timeout_s": (*FINITE, 0),
            "stall_s": (*FINITE, 0),
        },
    ),
    (
        systems.Membership,
        {},
        {"departures": WORD, "activity_window": (*WHOLE[:1], *WHOLE[2:], 0), "views": WORD},
    ),
    (systems.stand_in, {"plan": PLEXUS}, {"plan": (*THING, None)}),
    (PLEXUS.history.members_of, {"aggregation": 0}, {"aggregation": (*WHOLE, 99)}),
    (systems.activity, {"plan": PLAN}, {"plan": THING, "first_s": (*FINITE[:2], INF), "last_s": (*SORTS, NAN, -1.0)}),
    (systems.node_traffic, {"plan": PLAN, "until_s": 1.0}, {"plan": THING, "until_s": (*SORTS, NAN, "3", -1.0)}),
    (systems.traffic_series, {"plan": PLAN, "times_s": [1.0]}, {"plan": THING, "times_s": TIMES}),
    (systems.training_series, {"plan": PLEXUS, "times_s": [1.0]}, {"plan": THING, "times_s": TIMES}),
    (PLAN.total_bytes, {"until_s": 1.0}, {"until_s": (*SORTS, NAN, [1.0])}),
    (PLAN.training_seconds, {"until_s": 1.0}, {"until_s": (*SORTS, NAN, [1.0])}),
    (PLAN.save, {"path": "x.npz"}, {"path": (5, None, [], 1.5)}),
    (PLEXUS.save, {"path": "x.npz"}, {"path": (5, None, [], 1.5)}),
    (systems.load_plan, {"path": "x.npz"}, {"path": (5, None, [], 1.5)}),
    (
        systems.picture,
        {"plan": PLAN, "nodes": [0], "first_s": 0.0, "last_s": 9.0},
        {
            "plan": THING,
            "nodes": (*NODES, [0, 0], []),
            "first_s": FINITE,
            "last_s": (*FINITE, 0.0),
            "devices": (*THING, devices.uniform(3)),
        },
    ),
    (
        model_message_bytes,
        {"model_bytes": 9, "num_nodes": 3},
        {"model_bytes": (*WHOLE, 0), "num_nodes": (*WHOLE, 0), "overhead_bytes": WHOLE},
    ),
    (sampler.make_order, {"num_nodes": 3, "seed": 0}, {"num_nodes": (*WHOLE, 0), "seed": SEED, "hashing": WORD}),
    (
        bandwidth.max_min_rates,
        {"senders": [0], "receivers": [1], "upload": PAIR, "download": PAIR},
        {"senders": NODES[:-3], "receivers": NODES[:-3], "upload": NUMBERS, "download": NUMBERS},
    ),
    *(
        (make, {"upload": PAIR, "download": PAIR}, {"upload": (*NUMBERS, [0.5, 1.0]), "download": NUMBERS})
        for make in (bandwidth.greedy, bandwidth.fair, bandwidth.unlimited)
    ),
]


def trials():
    """Yield calls in which one argument is wrong; all must be refused."""
    pathlib.Path("devices.csv").write_text("compute_ms_per_sample,bandwidth_kbps\n1,1000\n")
    for function, good, arguments in CALLS:
        if "path" not in good:
            with contextlib.suppress(DataUnavailable):  # then wrong arguments must be refused all the same
                function(**good)
        for name, values in arguments.items():
            for value in values:
                yield function, good, name, value, True
