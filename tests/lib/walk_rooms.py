"""Every builder of the public interface with arguments that are right, for ``walk.py``, which spoils one at a time."""

import pathlib

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj


def rooms():
    """Return lists of functions with arguments that are right, by room of the package."""
    n = 8
    ring, key = gj.topology.ring(n), jax.random.key(0)
    digits = gj.tasks.digits(limit=(64, 32))
    labels = digits.train.labels
    mlp = gj.tasks.mlp(64, (4,), 10)
    shards = gj.tasks.iid(64, n, seed=0)
    task = gj.tasks.classification(digits, shards, mlp)
    sgd, clock = Partial(optax.sgd, 0.1), gj.timeline.clocks.poisson(1.0)
    W = gj.mixing.metropolis(ring)
    plan = gj.timeline.rounds(W, 4)
    pairs = gj.timeline.poisson_pairs(ring, 20, seed=0)
    compressor, sharing = gj.compress.qsgd(4), gj.sharing.full()
    devices = gj.devices.uniform(n)
    system = gj.systems.allreduce(devices, 2, local_steps=1, model_bytes=100)
    ratings = gj.tasks.synthetic_ratings(20, 30, seed=0)
    texts = gj.tasks.synthetic_text(4, mean_length=400.0, rule=gj.tasks.WindowRule(context=8), seed=0)
    folder = pathlib.Path.cwd()
    gj.topology.write_graph(folder / "ring.txt", ring)
    gossip, learn = gj.gossip_averaging(), gj.dpsgd(task, sgd)
    x0 = gj.replicate(task.init(key), n)
    vector = jnp.arange(float(n))

    def latency(rng, size):
        return rng.random(size)

    def sampler(rng, shape):
        return rng.random(shape)

    T, tl, c, P, S, C = gj.topology, gj.timeline, gj.timeline.clocks, gj.protocol, gj.sharing, gj.compress
    t, d, s, o = gj.tasks, gj.devices, gj.systems, gj.observe
    groups = np.repeat(np.arange(16), 4)
    speeds = np.full(n, 0.1)
    return {
        "topology": [
            (T.ring, {"num_nodes": n}),
            (T.path, {"num_nodes": n}),
            (T.star, {"num_nodes": n}),
            (T.complete, {"num_nodes": n}),
            (T.exponential, {"num_nodes": n}),
            (T.one_peer_exponential, {"num_nodes": n}),
            (T.hypercube, {"dimension": 3}),
            (T.torus, {"rows": 3, "columns": 4}),
            (T.random_regular, {"num_nodes": n, "degree": 4, "seed": 0, "tries": 1}),
            (T.erdos_renyi, {"num_nodes": n, "probability": 0.9, "seed": 0, "tries": 5}),
            (T.watts_strogatz, {"num_nodes": n, "neighbors": 4, "rewiring": 0.1, "seed": 0, "tries": 5}),
            (T.barabasi_albert, {"num_nodes": n, "attachments": 2, "seed": 0}),
            (T.random_matching, {"num_nodes": n, "seed": 0}),
            (T.random_matching_of, {"topology": ring, "seed": 0}),
            (T.from_networkx, {"graph": nx.cycle_graph(n), "allow_disconnected": False}),
            (T.from_adjacency, {"A": np.ones((4, 4)) - np.eye(4), "allow_disconnected": False}),
            (
                T.read_graph,
                {"path": folder / "ring.txt", "format": "edges", "directed": False, "allow_disconnected": False},
            ),
            (T.write_graph, {"path": folder / "out.txt", "topology": ring, "format": "edges"}),
        ],
        "weights": [
            *((f, {"topology": ring}) for f in (gj.mixing.metropolis, gj.mixing.max_degree, gj.mixing.best_constant)),
            *((f, {"topology": ring}) for f in (gj.mixing.uniform, gj.mixing.column_stochastic)),
            (gj.mixing.lazy, {"W": W, "share": 0.5}),
            (gj.mixing.averaging, {"num_nodes": n}),
            (gj.mixing.is_row_stochastic, {"W": W, "tolerance": 1e-8}),
            (gj.mixing.is_column_stochastic, {"W": W, "tolerance": 1e-8}),
            (gj.mixing.is_doubly_stochastic, {"W": W, "tolerance": 1e-8}),
            (gj.mixing.is_symmetric, {"W": W, "tolerance": 1e-8}),
            (gj.mixing.check_weights, {"W": W, "kind": "row", "allow_negative": False, "tolerance": 1e-8}),
        ],
        "clocks": [
            (c.poisson, {"rate": 1.0}),
            (c.deterministic, {"period": 1.0}),
            (c.shifted_exponential, {"shift": 0.5, "mean_extra": 0.5}),
            (c.renewal, {"sampler": sampler, "mean": 0.5}),
            (c.slowed, {"clock": clock, "factors": 2.0}),
            (c.delayed, {"clock": clock, "dead_time": 0.1}),
            (c.stragglers, {"num_nodes": n, "share": 0.5, "factor": 2.0, "seed": 0}),
        ],
        "timelines": [
            (tl.rounds, {"weights": W, "num_rounds": 4, "stochastic": "row", "seconds_per_round": 1.0, "form": "auto"}),
            (tl.matching_rounds, {"num_nodes": n, "num_rounds": 3, "seed": 0, "seconds_per_round": 1.0}),
            (
                tl.client_sampling,
                {
                    "num_nodes": n,
                    "num_sampled": 2,
                    "num_rounds": 3,
                    "seed": 0,
                    "shard_sizes": speeds,
                    "seconds_per_round": 1.0,
                },
            ),
            (tl.poisson_pairs, {"topology": ring, "num_events": 9, "rate": 1.0, "seed": 0}),
            (tl.poisson_edges, {"topology": ring, "duration": 2.0, "rate": 1.0, "seed": 0}),
            (tl.poisson_push, {"topology": ring, "num_events": 9, "rate": 1.0, "weight": 0.5, "seed": 0}),
            (tl.drawn_pairs, {"peers": ring, "num_events": 9, "rate": 1.0}),
            (tl.drawn_gossip, {"peers": ring, "num_events": 9, "update_rate": 1.0, "gossip_rate": 1.0, "weight": 0.5}),
            (
                tl.push_gossip,
                {
                    "peers": ring,
                    "duration": 3.0,
                    "compute": clock,
                    "gossip": 1.0,
                    "weight": 0.5,
                    "two_way": False,
                    "latency": 0.1,
                    "drop": 0.1,
                    "inbox": "queue",
                    "busy_receives": True,
                    "dead_time": 0.0,
                    "seed": 0,
                },
            ),
            (
                tl.pairwise,
                {
                    "peers": ring,
                    "duration": 3.0,
                    "compute": clock,
                    "communicate": 1.0,
                    "atomic": False,
                    "latency": 0.1,
                    "seed": 0,
                },
            ),
            (
                tl.directed_push,
                {
                    "topology": ring,
                    "duration": 3.0,
                    "compute": clock,
                    "send": 1.0,
                    "latency": 0.1,
                    "drop": 0.1,
                    "seed": 0,
                },
            ),
            (
                tl.gossip_learning,
                {
                    "peers": ring,
                    "duration": 3.0,
                    "period": 1.0,
                    "jitter": 0.1,
                    "mode": "push",
                    "create": "merge_update",
                    "merge": "local",
                    "seed": 0,
                },
            ),
            (
                tl.random_walks,
                {
                    "topology": ring,
                    "num_events": 9,
                    "num_walks": 2,
                    "service": clock,
                    "transition": "metropolis",
                    "mix_on_arrival": False,
                    "seed": 0,
                },
            ),
            (tl.swift, {"topology": ring, "duration": 3.0, "compute": clock, "period": 1, "seed": 0}),
            (tl.swift_weights, {"topology": ring}),
            (
                tl.divshare,
                {
                    "num_nodes": n,
                    "duration": 3.0,
                    "compute": clock,
                    "num_fragments": 4,
                    "recipients": 2,
                    "uplink_messages_per_second": 10.0,
                    "drop": 0.1,
                    "seed": 0,
                },
            ),
            (
                tl.shatter,
                {"num_nodes": n, "num_rounds": 2, "virtual_nodes": 2, "degree": 2, "seed": 0, "seconds_per_round": 1.0},
            ),
            (
                tl.fedbuff,
                {
                    "num_nodes": n,
                    "duration": 3.0,
                    "concurrency": 2,
                    "train_time": clock,
                    "buffer_size": 2,
                    "server_lr": 1.0,
                    "staleness_power": 0.5,
                    "seed": 0,
                },
            ),
            (
                tl.opportunistic,
                {
                    "num_nodes": n,
                    "duration": 3.0,
                    "update_rate": 1.0,
                    "capacity": 2.0,
                    "relay": "everything",
                    "seed": 0,
                },
            ),
            (
                tl.push_rounds,
                {
                    "peers": ring,
                    "num_rounds": 3,
                    "step": 1.0,
                    "compute": 1.0,
                    "gossip_rate": 1.0,
                    "pushes": "poisson",
                    "weight": 0.5,
                    "seed": 0,
                },
            ),
            (
                tl.version_age,
                {
                    "peers": ring,
                    "duration": 3.0,
                    "version_rate": 1.0,
                    "source_rate": 1.0,
                    "gossip_rate": 1.0,
                    "seed": 0,
                },
            ),
            (tl.save, {"timeline": plan, "path": folder / "plan.npz"}),
            (gj.pack, {"timeline": pairs, "width": 4}),
        ],
        "protocols": [
            *((f, {"task": task, "optimizer": sgd}) for f in (P.ad_psgd, P.allreduce_sgd, P.d2, P.sgp)),
            (P.beer, {"task": task, "optimizer": sgd, "compressor": compressor, "gamma": 0.5}),
            (
                P.dpsgd,
                {"task": task, "optimizer": sgd, "order": "adapt_then_combine", "local_steps": 1, "sharing": sharing},
            ),
            *((f, {"task": task, "optimizer": sgd, "local_steps": 2}) for f in (P.fedavg, P.local_sgd, P.fedbuff)),
            *((f, {"task": task, "optimizer": sgd, "local_steps": 2}) for f in (P.random_walk, P.swift)),
            (P.gossip_averaging, {"sharing": sharing}),
            (P.gossip_learning, {"task": task, "optimizer": sgd, "merge": "average", "local_steps": 1}),
            (P.gradient_tracking, {"task": task, "optimizer": sgd, "order": "adapt_then_combine"}),
            (gj.restarted, {"optimizer": optax.sgd(0.1), "every": 2}),
            (gj.metered, {"protocol": learn, "compute_seconds": 0.1, "bytes_per_second": 1e6, "latency_seconds": 0.0}),
            (gj.track_versions, {"protocol": learn, "num_nodes": n, "hops": False, "rows_are_nodes": True}),
            (gj.replicate, {"params": task.init(key), "rows": 3}),
        ],
        "sharing": [
            (S.choco, {"compressor": compressor, "gamma": 0.5}),
            (S.compressed, {"compressor": compressor, "gamma": 0.5}),
            (S.deep_squeeze, {"compressor": compressor, "gamma": 0.5}),
            (S.error_feedback, {"sharing": S.compressed(compressor, 1.0)}),
            (S.dcd, {"compressor": compressor}),
            (S.ecd, {"compressor": compressor}),
            (S.fragments, {"num_fragments": 4, "layout": "random", "seed": 0}),
            (
                S.jwins,
                {
                    "cut_offs": [0.1, 1.0],
                    "probabilities": [0.5, 0.5],
                    "cap": 0.5,
                    "accumulate": "round",
                    "rank_by": "change",
                },
            ),
            (S.moniqua, {"bits": 4, "theta": 2.0}),
            (S.power_gossip, {"topology": ring}),
            (S.random_subset, {"share": 0.5}),
            (S.sparq, {"compressor": compressor, "gamma": 0.5, "threshold": 0.1}),
            (S.top_k, {"share": 0.5, "accumulate": True}),
            (C.qsgd, {"levels": 4}),
            (C.random_gossip, {"p": 0.5}),
            *((f, {"share": 0.5}) for f in (C.top_k, C.random_k, C.sign_top_k)),
            *((f, {"k": 5}) for f in (C.top_k, C.random_k, C.sign_top_k)),
            (C.contractive, {"compressor": compressor}),
            (gj.compress.transforms.wavelet, {"name": "sym2", "levels": 2, "mode": "symmetric"}),
        ],
        "tasks": [
            (t.digits, {"test_share": 0.2, "seed": 0, "limit": (64, 32)}),
            (t.classification, {"dataset": digits, "partition": shards, "model": mlp, "batch_size": 4}),
            (
                t.from_arrays,
                {"x": np.ones((9, 4)), "y": np.arange(9) % 3, "x_test": np.ones((3, 4)), "y_test": np.arange(3)},
            ),
            (t.iid, {"num_samples": 64, "num_nodes": n, "seed": 0}),
            (t.by_shards, {"labels": labels, "num_nodes": n, "shards_per_node": 2, "seed": 0}),
            (t.by_stretches, {"labels": labels, "num_nodes": n, "shards_per_node": 2, "seed": 0}),
            (t.dirichlet, {"labels": labels, "num_nodes": n, "alpha": 0.5, "minimum": 1, "seed": 0}),
            (t.label_skew, {"labels": labels, "num_nodes": n, "degree": 0.5, "seed": 0}),
            (t.natural, {"groups": groups, "num_nodes": 8, "minimum": 1, "seed": 0}),
            (t.by_user, {"groups": groups, "num_nodes": 8, "minimum": 1, "seed": 0}),
            (t.mlp, {"num_inputs": 64, "hidden": (4,), "num_classes": 10}),
            (t.softmax_regression, {"num_inputs": 64, "num_classes": 10}),
            (t.gn_lenet, {"input_shape": (32, 32, 3), "num_classes": 10}),
            (t.gn_lenet_plexus, {"input_shape": (32, 32, 3), "num_classes": 10}),
            (t.femnist_cnn, {"input_shape": (28, 28, 1), "num_classes": 10}),
            (t.celeba_cnn, {"input_shape": (84, 84, 3), "num_classes": 2}),
            (t.lstm, {"vocabulary": 20, "embedding": 4, "hidden": 8, "layers": 1, "context": 8}),
            (t.quadratic, {"targets": np.ones((n, 2)), "curvature": 1.0, "noise_std": 0.1}),
            (
                t.linear_regression,
                {
                    "num_nodes": n,
                    "samples_per_node": 4,
                    "dimension": 2,
                    "heterogeneity": 0.1,
                    "noise_std": 0.1,
                    "penalty": 0.1,
                    "batch_size": 2,
                    "seed": 0,
                },
            ),
            (
                t.logistic_regression,
                {
                    "num_nodes": n,
                    "samples_per_node": 4,
                    "dimension": 2,
                    "heterogeneity": 0.1,
                    "penalty": 0.1,
                    "batch_size": 2,
                    "seed": 0,
                },
            ),
            (
                t.synthetic_ratings,
                {
                    "num_users": 20,
                    "num_items": 30,
                    "factors": 2,
                    "mean_count": 10.0,
                    "noise_std": 0.5,
                    "train_share": 0.7,
                    "seed": 0,
                },
            ),
            (t.ratings_by_user, {"dataset": ratings, "num_nodes": 4}),
            (
                t.matrix_factorization,
                {"dataset": ratings, "partition": t.ratings_by_user(ratings, 4), "factors": 2, "batch_size": 2},
            ),
            (
                t.synthetic_text,
                {"num_roles": 4, "mean_length": 400.0, "concentration": 0.1, "heterogeneity": 0.2, "seed": 0},
            ),
            (
                t.next_character,
                {
                    "dataset": texts,
                    "partition": t.natural(texts.train.roles, 2),
                    "model": t.lstm(92, 2, 4, 1, 8),
                    "batch_size": 2,
                },
            ),
        ],
        "devices": [
            (d.fitted, {"n": n, "seed": 0}),
            (d.uniform, {"n": n, "seconds_per_sample": 0.1, "bytes_per_second": 1e6, "latency_seconds": 0.1}),
            (d.charging, {"n": n, "seed": 0}),
            (d.strict, {"n": n, "seed": 0}),
            (
                d.from_arrays,
                {
                    "seconds_per_sample": speeds,
                    "upload_bytes_per_second": speeds,
                    "download_bytes_per_second": speeds,
                    "latency_seconds": 0.1,
                },
            ),
            (d.online, {"devices": devices, "t": 1.0}),
            (d.subset, {"devices": devices, "nodes": np.arange(3)}),
            (d.summary, {"devices": devices}),
            (d.training_seconds, {"devices": devices, "samples": 3.0}),
            (d.transitions, {"devices": devices, "until_s": 10.0}),
            (d.with_availability, {"devices": devices, "availability": d.charging(n, 0)}),
            (d.save, {"devices": devices, "path": folder / "devices.npz"}),
        ],
        "systems": [
            (s.machines, {"devices": devices}),
            (s.allreduce, {"devices": devices, "num_rounds": 2, "local_steps": 1, "model_bytes": 100, "time_batch": 1}),
            (
                s.gossip_learning,
                {
                    "devices": devices,
                    "duration_s": 100.0,
                    "model_bytes": 100,
                    "local_steps": 1,
                    "period_s": 60.0,
                    "time_batch": 1,
                    "transfers": "greedy",
                    "inbox": "queue",
                    "seed": 0,
                },
            ),
            (
                s.ad_psgd,
                {"devices": devices, "peers": ring, "duration_s": 2.0, "model_bytes": 100, "time_batch": 1, "seed": 0},
            ),
            (
                s.plexus,
                {
                    "devices": devices,
                    "num_rounds": 2,
                    "model_bytes": 100,
                    "seed": 0,
                    "sample_size": 3,
                    "success_fraction": 0.8,
                    "threshold": "floor",
                    "local_steps": 1,
                    "time_batch": 1,
                },
            ),
            (
                s.epidemic,
                {
                    "devices": devices,
                    "fanout": 2,
                    "num_rounds": 2,
                    "variant": "local",
                    "local_steps": 1,
                    "model_bytes": 100,
                    "time_batch": 1,
                    "round_seconds": 60.0,
                    "transfers": "greedy",
                    "seed": 0,
                },
            ),
            (
                s.synchronous,
                {
                    "devices": devices,
                    "weights": W,
                    "num_rounds": 2,
                    "local_steps": 1,
                    "model_bytes": 100,
                    "time_batch": 1,
                    "round_seconds": 60.0,
                    "transfers": "greedy",
                    "missing": "renormalize",
                },
            ),
            (s.activity, {"plan": system, "first_s": 0.0, "last_s": 1.0}),
            (s.traffic_series, {"plan": system, "times_s": np.asarray([0.0, 1.0])}),
            (s.training_series, {"plan": system, "times_s": np.asarray([0.0, 1.0])}),
            (s.picture, {"plan": system, "nodes": [0, 1], "first_s": 0.0, "last_s": 1.0}),
        ],
        "observers": [
            (o.node_metrics, {"task": task, "nodes": 2, "samples": 5, "seed": 0}),
            (o.average_model_metrics, {"task": task, "samples": 5, "seed": 0}),
            (o.subset, {"task": task, "samples": 5, "seed": 0}),
            (gj.observe.staleness_histogram, {"bins": 5}),
        ],
        "runs": [
            (
                gj.simulate,
                {
                    "key": key,
                    "protocol": gossip,
                    "timeline": plan,
                    "x0": vector,
                    "record_every": 2,
                    "throw": True,
                    "progress": False,
                },
            ),
            (
                gj.simulate,
                {"key": key, "protocol": gossip, "timeline": plan, "x0": vector, "strategy": "vmap", "packing": "auto"},
            ),
            (gj.simulate, {"key": key, "protocol": gossip, "timeline": plan, "x0": vector, "record_at": [1, 3]}),
            (gj.simulate, {"key": key, "protocol": gossip, "timeline": plan, "x0": vector, "record_times": [1.0, 3.0]}),
            (
                gj.simulate,
                {"key": key, "protocol": learn, "timeline": plan, "x0": x0, "observers": [o.consensus_distance()]},
            ),
            (gj.load, {"path": folder / "nothing.nc"}),
            (gj.repeat, {"path": folder / "nothing.nc"}),
            (tl.load, {"path": folder / "nothing.npz"}),
            (s.load_plan, {"path": folder / "nothing.npz"}),
            (gj.configure, {"host_devices": 2, "intra_op_threads": 2, "x64": False}),
        ],
    }
