"""Every builder of the public interface with arguments that are right, for ``walk.py``, which spoils one at a time.

A function for each room of the package returns its table of calls.
"""

import functools
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj

T, tl, c, P, S, C = gj.topology, gj.timeline, gj.timeline.clocks, gj.protocol, gj.sharing, gj.compress
t, d, s, o = gj.tasks, gj.devices, gj.systems, gj.observe

N = 8
RING, TREE, KEY = T.ring(N), T.path(N), jax.random.key(0)
SGD, CLOCK = Partial(optax.sgd, 0.1), c.poisson(1.0)
W = gj.mixing.metropolis(RING)
PLAN, PAIRS = tl.rounds(W, 4), tl.poisson_pairs(RING, 20, seed=0)
COMPRESSOR, SHARING = C.qsgd(4), S.full()
DEVICES = d.uniform(N)
SYSTEM = s.allreduce(DEVICES, 2, local_steps=1, model_bytes=100)
MLP, SHARDS = t.mlp(64, (4,), 10), t.iid(64, N, seed=0)
GROUPS, SPEEDS = np.repeat(np.arange(16), 4), np.full(N, 0.1)


def call(function, **arguments):
    """Pair a function with arguments that are right."""
    return function, arguments


@functools.cache
def digits():
    return t.digits(limit=(64, 32))


@functools.cache
def node_prox(node, z, step_size):
    return z / (1 + step_size)


def task():
    return t.classification(digits(), SHARDS, MLP)


def one_sample(data, node, numbers):
    return task().batch(KEY, data, node)


@functools.cache
def ratings():
    return t.synthetic_ratings(20, 30, seed=0)


@functools.cache
def texts():
    return t.synthetic_text(4, mean_length=400.0, rule=t.WindowRule(context=8), seed=0)


def learn():
    return gj.dpsgd(task(), SGD)


def sampler(rng, shape):
    return rng.random(shape)


# fmt: off
def topology():
    T.write_graph(pathlib.Path.cwd() / "ring.txt", RING)
    return [
        call(T.ring, num_nodes=N),
        call(T.path, num_nodes=N),
        call(T.star, num_nodes=N),
        call(T.complete, num_nodes=N),
        call(T.exponential, num_nodes=N),
        call(T.one_peer_exponential, num_nodes=N),
        call(T.hypercube, dimension=3),
        call(T.balanced_tree, branching=2, height=2),
        call(T.random_tree, num_nodes=N, seed=0),
        call(T.d_cliques, label_counts=np.eye(N), clique_size=4, seed=0, swaps=10, between="ring"),
        call(T.label_overlay, label_counts=np.eye(N), degree=2, num_rounds=3, random_peers=2, prefer="similar", seed=0),
        call(T.torus, rows=3, columns=4),
        call(T.random_regular, num_nodes=N, degree=4, seed=0, tries=1),
        call(T.erdos_renyi, num_nodes=N, probability=0.9, seed=0, tries=5),
        call(T.watts_strogatz, num_nodes=N, neighbors=4, rewiring=0.1, seed=0, tries=5),
        call(T.barabasi_albert, num_nodes=N, attachments=2, seed=0),
        call(T.random_matching, num_nodes=N, seed=0),
        call(T.random_matching_of, topology=RING, seed=0),
        call(T.from_networkx, graph=nx.cycle_graph(N), allow_disconnected=False),
        call(T.from_adjacency, A=np.ones((4, 4)) - np.eye(4), allow_disconnected=False),
        call(T.read_graph, path=pathlib.Path.cwd() / "ring.txt", format="edges", directed=False,
            allow_disconnected=False),
        call(T.read_graphs, paths=[pathlib.Path.cwd() / "ring.txt"], format="edges", directed=False,
            ignore_weights=False),
        call(T.with_ring, topology=RING),
        call(T.write_graph, path=pathlib.Path.cwd() / "out.txt", topology=RING, format="edges"),
    ]


def weights():
    (pathlib.Path.cwd() / "weights.txt").write_text("0 1 .5\n")
    return [
        *(call(f, topology=RING) for f in (gj.mixing.metropolis, gj.mixing.max_degree, gj.mixing.best_constant)),
        call(gj.mixing.fastest, topology=RING, gap=1e-2),
        call(gj.mixing.finite_time, topology=RING, dtype=None),
        *(call(f, topology=RING) for f in (gj.mixing.uniform, gj.mixing.column_stochastic)),
        call(gj.mixing.lazy, W=W, share=0.5),
        call(gj.mixing.read_weights, path=pathlib.Path.cwd() / "weights.txt", kind="row", format="edges", num_nodes=2,
            first_node=0, directed=False, rounds=False),
        call(gj.mixing.base_graph, num_nodes=N, max_degree=1),
        call(gj.mixing.equi_static, num_nodes=N, num_shifts=3, seed=0, directed=True),
        call(gj.mixing.equi_dynamic, num_nodes=N, num_rounds=3, seed=0, eta=0.5, directed=True),
        call(gj.mixing.stl_fw, label_counts=np.eye(N), max_degree=2, penalty=0.1),
        call(gj.mixing.averaging, num_nodes=N),
        call(gj.mixing.is_row_stochastic, W=W, tolerance=1e-8),
        call(gj.mixing.is_column_stochastic, W=W, tolerance=1e-8),
        call(gj.mixing.is_doubly_stochastic, W=W, tolerance=1e-8),
        call(gj.mixing.is_symmetric, W=W, tolerance=1e-8),
        call(gj.mixing.check_weights, W=W, kind="row", allow_negative=False, tolerance=1e-8),
    ]


def clocks():
    return [
        call(c.poisson, rate=1.0),
        call(c.deterministic, period=1.0),
        call(c.shifted_exponential, shift=0.5, mean_extra=0.5),
        call(c.renewal, sampler=sampler, mean=0.5),
        call(c.slowed, clock=CLOCK, factors=2.0),
        call(c.delayed, clock=CLOCK, dead_time=0.1),
        call(c.stragglers, num_nodes=N, share=0.5, factor=2.0, seed=0),
    ]


def timelines():
    return [
        call(tl.rounds, weights=W, num_rounds=4, stochastic="row", seconds_per_round=1.0, form="auto"),
        call(tl.matching_rounds, num_nodes=N, num_rounds=3, seed=0, seconds_per_round=1.0),
        call(tl.drawn_matchings, num_nodes=N, num_rounds=3, seconds_per_round=1.0),
        call(tl.changing_rounds, overlay=RING, num_rounds=3, weights="metropolis", activity=tl.activity.cyclic(2),
            loss=tl.losses.independent(0.1, seed=0), newcomers_adopt=False, seconds_per_round=1.0),
        call(tl.overlays.regular, num_nodes=N, degree=4, seed=0),
        call(tl.overlays.decentralizepy_regular, num_nodes=N, degree=4, seed=0),
        call(tl.overlays.epidemic, num_nodes=N, fanout=2, seed=0, variant="local"),
        call(tl.overlays.matchings, peers=RING, seed=0),
        call(tl.overlays.sequence, graphs=[RING, RING]),
        call(tl.activity.bernoulli, probability=0.5, seed=0),
        call(tl.activity.markov, mean_on=2.5, mean_off=2.5, seed=0),
        call(tl.activity.poisson_gaps, mean_gap=1.5, seed=0),
        call(tl.activity.cyclic, num_groups=2),
        call(tl.activity.presence, joins=np.arange(N), leaves=np.arange(N) + 3),
        call(tl.activity.listed, active=np.ones((2, N), bool)),
        call(tl.losses.independent, probability=0.5, seed=0, both_ways=False),
        call(tl.losses.gilbert, mean_good=2.5, mean_bad=2.5, seed=0, loss_good=0.1, loss_bad=0.9, both_ways=False),
        call(tl.teleportation, weights=gj.mixing.averaging(2), num_nodes=N, num_rounds=3, seed=0,
            seconds_per_round=1.0),
        call(tl.client_sampling, num_nodes=N, num_sampled=2, num_rounds=3, seed=0, shard_sizes=SPEEDS,
            seconds_per_round=1.0),
        call(tl.from_events, xs={"time": [1.0], "nodes": [[0]], "senders": [[0]], "receivers": [[1]]},
            properties=gj.Properties(N, N, "by hand"), shared={"weights": np.full(1, 0.5), "keep": np.full(1, 0.5)}),
        call(tl.poisson_pairs, topology=RING, num_events=9, rate=1.0, seed=0),
        call(tl.poisson_edges, topology=RING, duration=2.0, rate=1.0, seed=0),
        call(tl.poisson_push, topology=RING, num_events=9, rate=1.0, weight=0.5, seed=0),
        call(tl.drawn_pairs, peers=RING, num_events=9, rate=1.0),
        call(tl.drawn_gossip, peers=RING, num_events=9, update_rate=1.0, gossip_rate=1.0, weight=0.5),
        call(tl.push_gossip, peers=RING, duration=3.0, compute=CLOCK, gossip=1.0, weight=0.5, two_way=False,
            latency=0.1, drop=0.1, inbox="queue", busy_receives=True, dead_time=0.0, seed=0),
        call(tl.pairwise, peers=RING, duration=3.0, compute=CLOCK, communicate=1.0, atomic=False, latency=0.1,
            seed=0),
        call(tl.directed_push, topology=RING, duration=3.0, compute=CLOCK, send=1.0, latency=0.1, drop=0.1, seed=0),
        call(tl.gossip_learning, peers=RING, duration=3.0, period=1.0, jitter=0.1, mode="push", create="merge_update",
            merge="local", seed=0),
        call(tl.random_walks, topology=RING, num_events=9, num_walks=2, service=CLOCK, transition="metropolis",
            mix_on_arrival=False, seed=0),
        call(tl.swift, topology=RING, duration=3.0, compute=CLOCK, period=1, seed=0),
        call(tl.swift_weights, topology=RING),
        call(tl.divshare, num_nodes=N, duration=3.0, compute=CLOCK, num_fragments=4, recipients=2,
            uplink_messages_per_second=10.0, drop=0.1, seed=0),
        call(tl.shatter, num_nodes=N, num_rounds=2, virtual_nodes=2, degree=2, seed=0, seconds_per_round=1.0),
        call(tl.fedbuff, num_nodes=N, duration=3.0, concurrency=2, train_time=CLOCK, buffer_size=2, server_lr=1.0,
            staleness_power=0.5, seed=0),
        call(tl.ringmaster, num_nodes=N, duration=3.0, compute=CLOCK, max_delay=2, stop=True, latency=0.1, seed=0),
        *(call(f, num_nodes=N, duration=3.0, compute=CLOCK, batch_size=2, stop=True, latency=0.1, seed=0)
            for f in (tl.rennala, tl.malenia)),
        call(tl.m_synchronous, num_nodes=N, duration=3.0, compute=CLOCK, wait_for=2, latency=0.1, seed=0),
        call(tl.opportunistic, num_nodes=N, duration=3.0, update_rate=1.0, capacity=2.0, relay="everything", seed=0),
        call(tl.push_rounds, peers=RING, num_rounds=3, step=1.0, compute=1.0, gossip_rate=1.0, pushes="poisson",
            weight=0.5, seed=0),
        call(tl.version_age, peers=RING, duration=3.0, version_rate=1.0, source_rate=1.0, gossip_rate=1.0, seed=0),
        call(tl.save, timeline=PLAN, path=pathlib.Path.cwd() / "plan.npz"),
        call(gj.pack, timeline=PAIRS, width=4),
    ]


def protocols():
    return [
        *(call(f, task=task(), optimizer=SGD) for f in (P.ad_psgd, P.allreduce_sgd, P.d2, P.exact_diffusion, P.sgp)),
        call(P.beer, task=task(), optimizer=SGD, compressor=COMPRESSOR, gamma=0.5),
        call(P.dpsgd, task=task(), optimizer=SGD, order="adapt_then_combine", local_steps=1, sharing=SHARING),
        *(call(f, task=task(), optimizer=SGD, local_steps=2) for f in (P.fedavg, P.local_sgd, P.fedbuff)),
        *(call(f, task=task(), optimizer=SGD, local_steps=2) for f in (P.random_walk, P.swift)),
        call(P.fedprox, task=task(), optimizer=SGD, local_steps=2, mu=0.5),
        call(P.fedopt, task=task(), optimizer=SGD, server_optimizer=SGD, local_steps=2),
        *(call(f, task=task(), optimizer=SGD, local_steps=2, server_step_size=0.1, beta1=0.9, beta2=0.99, tau=1e-3)
            for f in (P.fedadam, P.fedyogi)),
        call(P.fedadagrad, task=task(), optimizer=SGD, local_steps=2, server_step_size=0.1, beta1=0.0, tau=1e-3),
        call(P.fednova, task=task(), step_size=0.1, local_steps=[2] * N, momentum=0.5),
        call(P.scaffold, task=task(), step_size=0.1, local_steps=2, server_step_size=1.0, variate="average"),
        call(P.feddyn, task=task(), optimizer=SGD, local_steps=2, alpha=0.5),
        call(P.gossip_averaging, sharing=SHARING),
        call(P.gossip_learning, task=task(), optimizer=SGD, merge="average", local_steps=1),
        call(P.led, task=task(), optimizer=SGD, local_steps=2, beta=0.5),
        call(P.extra, task=task(), optimizer=SGD),
        call(P.simple_gt, task=task(), optimizer=SGD),
        call(P.wang_elia, task=task(), optimizer=SGD),
        call(P.k_gt, task=task(), step_size=0.1, local_steps=2, communication_step_size=0.5),
        call(P.prox_skip, task=task(), optimizer=SGD, probability=0.5, chi=2.0),
        call(P.clique_averaging, task=task(), optimizer=SGD, cliques=[[i] for i in range(N)]),
        call(P.quasi_global_momentum, task=task(), optimizer=SGD, momentum=0.5, sharing=SHARING),
        call(P.gt_saga, task=t.finite_sum(t.linear_regression(N, 4, 2)), step_size=0.1),
        call(P.gt_svrg, task=t.finite_sum(t.linear_regression(N, 4, 2)), step_size=0.1, period=2),
        call(P.gt_sarah, task=t.finite_sum(t.linear_regression(N, 4, 2)), step_size=0.1, period=2, batch_size=2),
        call(P.gt_vr, task=t.finite_sum(t.linear_regression(N, 4, 2)), step_size=0.1, snapshot_probability=0.5),
        call(P.c_gt, task=task(), step_size=0.1, compressor=COMPRESSOR, gamma=0.5, alpha=0.5),
        call(P.decentlam, task=task(), optimizer=SGD, momentum=0.5, sharing=SHARING),
        call(P.nids, task=task(), step_sizes=0.1),
        call(P.lead, task=task(), step_size=0.1, compressor=COMPRESSOR, gamma=0.5, alpha=0.5),
        call(P.relay_averaging, tree=TREE),
        call(P.relay_sgd, task=task(), optimizer=SGD, tree=TREE, normalize="mean", local_steps=2),
        call(P.admm, topology=RING, prox=node_prox, penalty=1.0, relaxation=0.5),
        call(P.lt_admm, task=task(), optimizer=SGD, topology=RING, local_steps=2, penalty=1.0, beta=0.1,
            relaxation=0.5),
        call(P.lt_admm_vr, task=t.finite_sum(t.linear_regression(N, 4, 2)), step_size=0.1, topology=RING, local_steps=2,
            penalty=1.0, beta=0.1, relaxation=0.5, batch_size=2, keep_table=True),
        call(P.admm_tracking, task=task(), step_size=0.1, topology=RING, gamma=0.1, penalty=1.0, relaxation=0.5),
        call(P.dlm, task=task(), step_size=0.1, penalty=1.0),
        call(P.dinno, task=task(), optimizer=SGD, local_steps=2, penalty=1.0),
        call(P.gradient_tracking, task=task(), optimizer=SGD, order="adapt_then_combine"),
        call(gj.restarted, optimizer=optax.sgd(0.1), every=2),
        call(gj.metered, protocol=learn(), compute_seconds=0.1, bytes_per_second=1e6, latency_seconds=0.0,
            overlap=True),
        call(gj.track_versions, protocol=learn(), num_nodes=N, hops=False, rows_are_nodes=True),
        call(gj.replicate, params=task().init(KEY), rows=3),
    ]


def sharing():
    return [
        call(S.choco, compressor=COMPRESSOR, gamma=0.5),
        call(S.compressed, compressor=COMPRESSOR, gamma=0.5),
        call(S.deep_squeeze, compressor=COMPRESSOR, gamma=0.5),
        call(S.error_feedback, sharing=S.compressed(COMPRESSOR, 1.0)),
        call(S.dcd, compressor=COMPRESSOR),
        call(S.ecd, compressor=COMPRESSOR),
        call(S.fragments, num_fragments=4, layout="random", seed=0),
        call(S.jwins, cut_offs=[0.1, 1.0], probabilities=[0.5, 0.5], cap=0.5, accumulate="round", rank_by="change"),
        call(S.moniqua, bits=4, theta=2.0),
        call(S.noisy, std=0.1),
        call(S.decor, topology=RING, std=0.1, pair_std=0.5),
        call(S.zip_dl, topology=RING, std=0.1, own=False),
        call(S.multi_step, steps=2, rho=0.9),
        call(S.power_gossip, topology=RING),
        call(S.secure_aggregation, topology=RING, fraction_bits=20, share=0.5, dropout=0.1, recovery="shares",
            threshold=2, colluders=0, masks=True),
        call(S.random_subset, share=0.5),
        call(S.sparq, compressor=COMPRESSOR, gamma=0.5, threshold=0.1),
        call(S.top_k, share=0.5, accumulate=True),
        call(C.qsgd, levels=4),
        call(C.random_gossip, p=0.5),
        call(C.natural),
        call(C.stc, share=0.5),
        *(call(f, share=0.5) for f in (C.top_k, C.random_k, C.sign_top_k)),
        *(call(f, k=5) for f in (C.top_k, C.random_k, C.sign_top_k)),
        call(C.contractive, compressor=COMPRESSOR),
        call(gj.compress.transforms.wavelet, name="sym2", levels=2, mode="symmetric"),
    ]


def tasks():
    return [
        call(t.digits, test_share=0.2, seed=0, limit=(64, 32)),
        call(t.classification, dataset=digits(), partition=SHARDS, model=MLP, batch_size=4),
        call(t.from_arrays, x=np.ones((9, 4)), y=np.arange(9) % 3, x_test=np.ones((3, 4)), y_test=np.arange(3)),
        call(t.iid, num_samples=64, num_nodes=N, seed=0),
        call(t.by_shards, labels=digits().train.labels, num_nodes=N, shards_per_node=2, seed=0),
        call(t.by_stretches, labels=digits().train.labels, num_nodes=N, shards_per_node=2, seed=0),
        call(t.dirichlet, labels=digits().train.labels, num_nodes=N, alpha=0.5, balanced=False, minimum=1, seed=0),
        call(t.label_skew, labels=digits().train.labels, num_nodes=N, degree=0.5, seed=0),
        call(t.label_quantity, labels=digits().train.labels, num_nodes=N, classes_per_node=3, seed=0),
        call(t.by_shares, num_samples=64, shares=[3.0, 2.0, 1.0], seed=0),
        call(t.quantity_skew, num_samples=64, num_nodes=N, alpha=0.5, minimum=1, seed=0),
        call(t.natural, groups=GROUPS, num_nodes=8, minimum=1, seed=0),
        call(t.by_user, groups=GROUPS, num_nodes=8, minimum=1, seed=0),
        call(t.mlp, num_inputs=64, hidden=(4,), num_classes=10),
        call(t.softmax_regression, num_inputs=64, num_classes=10),
        call(t.gn_lenet, input_shape=(32, 32, 3), num_classes=10),
        call(t.gn_lenet_plexus, input_shape=(32, 32, 3), num_classes=10),
        call(t.femnist_cnn, input_shape=(28, 28, 1), num_classes=10),
        call(t.celeba_cnn, input_shape=(84, 84, 3), num_classes=2),
        call(t.resnet18, input_shape=(32, 32, 3), num_classes=10),
        call(t.vgg16, input_shape=(32, 32, 3), num_classes=10),
        call(t.lstm, vocabulary=20, embedding=4, hidden=8, layers=1, context=8),
        call(t.quadratic, targets=np.ones((N, 2)), curvature=1.0, noise_std=0.1),
        call(t.linear_regression, num_nodes=N, samples_per_node=4, dimension=2, heterogeneity=0.1, noise_std=0.1,
            penalty=0.1, batch_size=2, seed=0),
        call(t.logistic_regression, num_nodes=N, samples_per_node=4, dimension=2, heterogeneity=0.1, penalty=0.1,
            batch_size=2, seed=0),
        call(t.finite_sum, task=t.linear_regression(N, 4, 2)),
        call(t.finite_sum, task=task(), sample=one_sample, num_samples=2),
        call(t.synthetic_ratings, num_users=20, num_items=30, factors=2, mean_count=10.0, noise_std=0.5,
            train_share=0.7, seed=0),
        call(t.ratings_by_user, dataset=ratings(), num_nodes=4),
        call(t.matrix_factorization, dataset=ratings(), partition=t.ratings_by_user(ratings(), 4), factors=2,
            batch_size=2, initial_rating=3.5),
        call(t.synthetic_text, num_roles=4, mean_length=400.0, concentration=0.1, heterogeneity=0.2, seed=0),
        call(t.next_character, dataset=texts(), partition=t.natural(texts().train.roles, 2),
            model=t.lstm(92, 2, 4, 1, 8), batch_size=2),
    ]


def devices():
    return [
        call(d.fitted, n=N, seed=0),
        call(d.uniform, n=N, seconds_per_sample=0.1, bytes_per_second=1e6, latency_seconds=0.1),
        call(d.from_powers, powers=SPEEDS, seconds_per_sample=0.1, bytes_per_second=1e6, latency_seconds=0.1),
        call(d.charging, n=N, seed=0),
        call(d.strict, n=N, seed=0),
        call(d.from_arrays, seconds_per_sample=SPEEDS, upload_bytes_per_second=SPEEDS,
            download_bytes_per_second=SPEEDS, latency_seconds=0.1),
        call(d.online, devices=DEVICES, t=1.0),
        call(d.subset, devices=DEVICES, nodes=np.arange(3)),
        call(d.summary, devices=DEVICES),
        call(d.training_seconds, devices=DEVICES, samples=3.0),
        call(d.transitions, devices=DEVICES, until_s=10.0),
        call(d.with_availability, devices=DEVICES, availability=d.charging(N, 0)),
        call(d.save, devices=DEVICES, path=pathlib.Path.cwd() / "devices.npz"),
    ]


def systems():
    return [
        call(s.machines, devices=DEVICES),
        call(s.allreduce, devices=DEVICES, num_rounds=2, local_steps=1, model_bytes=100, time_batch=1),
        call(s.gossip_learning, devices=DEVICES, duration_s=100.0, model_bytes=100, local_steps=1, period_s=60.0,
            time_batch=1, bandwidth="greedy", inbox="queue", seed=0),
        call(s.ad_psgd, devices=DEVICES, peers=RING, duration_s=2.0, model_bytes=100, time_batch=1, seed=0),
        call(s.plexus, devices=DEVICES, num_rounds=2, model_bytes=100, seed=0, sample_size=3, success_fraction=0.8,
            threshold="floor", local_steps=1, time_batch=1),
        call(s.epidemic, devices=DEVICES, fanout=2, num_rounds=2, variant="local", local_steps=1, model_bytes=100,
            time_batch=1, round_seconds=60.0, bandwidth="greedy", seed=0),
        call(s.synchronous, devices=DEVICES, weights=W, num_rounds=2, local_steps=1, model_bytes=100, time_batch=1,
            round_seconds=60.0, bandwidth="greedy", missing="renormalize", overlap=True),
        call(s.activity, plan=SYSTEM, first_s=0.0, last_s=1.0),
        call(s.node_traffic, plan=SYSTEM, until_s=1.0),
        call(s.traffic_series, plan=SYSTEM, times_s=np.asarray([0.0, 1.0])),
        call(s.training_series, plan=SYSTEM, times_s=np.asarray([0.0, 1.0])),
        call(s.picture, plan=SYSTEM, nodes=[0, 1], first_s=0.0, last_s=1.0),
    ]


def observers():
    return [
        call(o.node_metrics, task=task(), nodes=2, samples=5, seed=0),
        call(o.average_model_metrics, task=task(), samples=5, seed=0),
        call(o.squared_gradient_norm, task=task(), metric="loss"),
        call(o.optimality_gap, task=task(), minimum=0.0, metric="loss"),
        call(o.subset, task=task(), samples=5, seed=0),
        call(o.metrics_by_node, task=task(), samples=5, seed=0),
        call(gj.observe.staleness_histogram, bins=5),
        call(o.membership, task=task(), samples=4, fpr=0.5, seed=0),
        call(o.linkability, task=task(), samples=4, seed=0),
        call(o.clipping, task=gj.privacy.node_dp(task(), clip=1.0, noise=0.5)),
    ]


def runs():
    return [
        call(gj.simulate, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            record_every=2, throw=True, progress=False),
        call(gj.simulate, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            strategy="vmap", packing="auto"),
        call(gj.simulate, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            mesh=gj.mesh(1), parts="blocks"),
        call(gj.mesh, devices=1),
        call(gj.simulate, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            record_at=[1, 3]),
        call(gj.simulate, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            record_times=[1.0, 3.0]),
        call(gj.estimate_memory, key=KEY, protocol=gj.gossip_averaging(), timeline=PLAN, x0=jnp.arange(float(N)),
            record_every=2, strategy="vmap", packing="auto", mesh=gj.mesh(1), parts="blocks"),
        call(gj.simulate, key=KEY, protocol=learn(), timeline=PLAN, x0=gj.replicate(task().init(KEY), N),
            observers=[o.consensus_distance()]),
        call(gj.decentralizepy.read_configuration, path=pathlib.Path.cwd() / "nothing.ini", graph=RING, num_rounds=2),
        call(gj.load, path=pathlib.Path.cwd() / "nothing.nc"),
        call(gj.repeat, path=pathlib.Path.cwd() / "nothing.nc"),
        call(tl.load, path=pathlib.Path.cwd() / "nothing.npz"),
        call(s.load_plan, path=pathlib.Path.cwd() / "nothing.npz"),
        call(gj.configure, host_devices=2, intra_op_threads=2, x64=False),
    ]
# fmt: on


@functools.wraps(gj.deploy.execute)
def execute_without_processes(*arguments, **named):
    """Check everything that is checked before the first process starts, and start none."""
    report = gj.deploy.Report(jnp.zeros((N, 1)), None)
    with mock.patch.multiple(gj.deploy._execute, run_nodes=lambda *_: [], report_of=lambda *_: report):
        return gj.deploy.execute(*arguments, **named)


def deploy():
    rounds = call(
        execute_without_processes,
        key=KEY,
        protocol=gj.gossip_averaging(),
        timeline=PLAN,
        x0=jnp.ones(N),
        link=gj.deploy.Link(1e6),
        compute_seconds=0.1,
        overlap=True,
        time_scale=1.0,
        patience=9.0,
        addresses=("127.0.0.1",),
    )
    return [rounds, call(gj.deploy.Link, bytes_per_second=1e6, latency_seconds=0.1)]


def _seconds(candidate, seed):
    return candidate


def networks():
    g = gj.design
    load = {"model_bytes": 100, "local_steps": 1, "time_batch": 1, "bandwidth": "unlimited"}
    goal, half = g.consensus(0.5), np.full(N, 0.5)
    search = load | {"devices": DEVICES, "target": goal, "weights": gj.mixing.metropolis, "max_degree": 5}
    search |= {"max_bytes": 1e6, "num_steps": 1, "restarts": 1, "temperature": 0.1, "num_rounds": 2, "seed": 0}
    search |= {"progress": False, "checkpoint": None}
    found = g.network(DEVICES, goal, model_bytes=100, local_steps=1, num_steps=0, seed=0)
    return [
        call(g.consensus, error=0.5, horizon=100),
        call(g.quadratic, targets=half, step=0.1, start=1.0, error=0.1, horizon=100),
        call(g.seconds_per_round, devices=DEVICES, graph=RING, num_rounds=2, **load),
        call(g.equal_split, devices=DEVICES, graph=RING, **load),
        call(g.score, devices=DEVICES, target=goal, graph=RING, weights=gj.mixing.metropolis, num_rounds=2, **load),
        call(g.standard_graphs, num_nodes=N, seed=0),
        call(g.network, **search),
        call(g.sequence, max_period=3, **search),
        call(g.standard_sequences, num_nodes=N, max_degree=2, seed=0),
        call(g.device_losses, result=found),
        call(
            g.successive_halving,
            candidates={"a": 1.0, "b": 2.0},
            seconds=_seconds,
            runs=(1, 1),
            survivors=(1,),
            seed=0,
            progress=False,
        ),
        call(g.judge, baseline_seconds=half, design_seconds=half),
        call(g.confirm, result=found, draws=[DEVICES, DEVICES]),
        call(g.redrawn, devices=DEVICES, num_draws=2, spread=0.1, seed=0),
    ]


def predictions():
    p = gj.predict
    return [
        call(
            p.rounds,
            graph=RING,
            num_rounds=2,
            weights=gj.mixing.metropolis,
            error=0.5,
            devices=DEVICES,
            model_bytes=100,
            local_steps=1,
            time_batch=1,
            bandwidth="unlimited",
            training=None,
            check=False,
            seed=0,
        ),
        call(
            p.power_law,
            settings={"n": np.arange(1.0, 31)},
            outcome=np.arange(1.0, 31),
            name="rounds",
            unit="rounds",
            coverage=0.8,
            num_calibrated=20,
            ridge=0.01,
            baseline_groups="n",
            run=None,
            seed=0,
        ),
        call(p.meetings, graph=RING, num_events=2, rate=1.0, error=0.5, model_bytes=100, check=False, seed=0),
        call(p.pushes, peers=RING, gossip_rate=1.0, update_rate=1.0, model_bytes=100, check=False, seed=0),
    ]


def reviews():
    r = gj.review
    path = pathlib.Path.cwd() / "mine.py"
    path.write_text(
        "GRID = {'step': [0.1]}\nCLAIM = 'better than dpsgd'\n\ndef protocol(task, step):\n    return None\n"
    )
    return [
        call(
            r.run,
            module=path,
            folder=pathlib.Path.cwd() / "out",
            quick=True,
            budget=r.Budget(),
            seed=0,
            progress=False,
        ),
        call(r.rerun, folder=pathlib.Path.cwd() / "nothing"),
        call(r.compare, differences={"dpsgd": np.arange(5.0)}),
        call(r.seeds_needed, effect=1.0, level=0.05, power=0.8),
    ]


def gradients():
    edges = np.full(RING.num_edges, 0.3)
    return [
        call(gj.learn.edge_weights, graph=RING, weights=edges, form="dense"),
        call(gj.learn.positive_weights, graph=RING, free=edges),
        call(gj.learn.consensus_error, timeline=PLAN, key=KEY, protocol=gj.gossip_averaging(), chunk=2),
        call(
            gj.learn.final_state,
            key=KEY,
            protocol=gj.gossip_averaging(),
            timeline=PLAN,
            state=gj.gossip_averaging().init(KEY, jnp.ones(N)),
            chunk=2,
        ),
        call(gj.learn.edge_gates, free=edges, num_edges=2),
        call(
            gj.learn.choose_edges,
            outcome=jnp.sum,
            graph=RING,
            num_edges=2,
            learning_rate=0.5,
            steps=2,
            restarts=2,
            seed=0,
            progress=False,
        ),
        call(gj.learn.fit, outcome=_square, start=0.5, optimizer=SGD, key=None, steps=3, progress=False),
        call(gj.learn.best_rates, graph=RING, tolerance=0.01, most_cuts=5000),
        call(
            gj.learn.rate_gradient,
            outcome=_square,
            graph=gj.topology.path(2),
            rates=1.0,
            duration=1.0,
            x0=jnp.ones(2),
            samples=3,
            seed=0,
        ),
    ]


def _square(x):
    return jnp.sum(jnp.square(x))


def _untrained(key, task):
    return gj.replicate(task.init(key), N)


def privacy():
    p = gj.privacy
    return [
        call(
            gj.audit,
            plan=PLAN,
            observers=[0, 1],
            noise=1.0,
            sensitivity=1.0,
            hears="messages",
            prefixes=[4],
            published=np.full((1, N), 1 / N),
            rounding=0.0,
            local_only=False,
        ),
        call(gj.audit, plan=PLAN, contributions=p.steps(), noise=p.pairwise_noise(RING, 1.0, 1.0), prefixes=[2, 4]),
        call(p.steps, order="adapt_then_combine", local_steps=2, step_sizes=np.full(3, 0.1), momentum=0.5),
        call(p.pairwise_noise, topology=RING, std=1.0, pair_std=0.5, fresh=True),
        call(p.sample_dp, task=task(), clip=1.0, noise=0.5, batch_size=4),
        call(p.node_dp, task=task(), clip=1.0, noise=0.5),
        call(p.guarantee, task=p.node_dp(task(), clip=1.0, noise=0.5), num_steps=4, delta=1e-5),
        call(p.membership_auc, members=np.arange(3.0), non_members=np.arange(4.0)),
        call(p.membership_tpr, members=np.arange(3.0), non_members=np.arange(4.0), fpr=0.5),
        call(p.gradient_inversion, weights=np.ones((2, 3)), bias=np.asarray([-1.0, 1.0])),
        call(p.shadow_runs, key=KEY, task=task(), train=_untrained, num_runs=4, samples=2, seed=0),
        call(p.lira, confidences=np.arange(4.0)[:, None], inside=np.arange(4)[:, None] < 2, offline=False, fpr=0.1),
        call(p.epsilon, mu=1.0, delta=1e-5),
        call(p.delta, mu=1.0, epsilon=2.0),
        call(p.auc, mu=1.0),
        call(p.muffliato, W=W, num_rounds=3),
        call(p.fresh_noise, W=W, num_rounds=3),
        call(gj.audit(PLAN).statement, observer=0, node=1, delta=1e-5),
    ]


def robust():
    r = gj.robust
    graph = T.complete(N)
    return [
        call(S.robust, rule=r.trimmed_mean(1), attackers=[2], attack=r.alie(), topology=graph),
        call(r.trimmed_mean, b=1, bridge=True),
        call(r.coordinate_median, b=1),
        call(r.geometric_median, b=1, smoothed=False),
        call(r.krum, b=1, m=2),
        call(r.cs_plus, beta=0.2, released=False),
        call(r.gts, beta=0.2),
        call(r.clipped_gossip, beta=0.2),
        *(call(rule, b=1) for rule in (r.nna, r.ios, r.faba)),
        call(r.nnm, b=1, rule=r.trimmed_mean(1)),
        call(r.ubar, task=task(), rho=0.4, alpha=0.5),
        call(r.rpel, num_nodes=100, attackers=10, sample=15, num_rounds=200, failure=0.05),
        call(r.alie_z, num_nodes=50, num_attackers=24),
        call(r.sign_flip, scale=1.0, of="mean"),
        call(r.ipm, epsilon=0.1),
        call(r.alie, z=1.5),
        call(r.dissensus, epsilon=1.0),
        call(r.spectral, topology=graph, scale=1.0),
        call(r.echo, node=1),
        call(r.targeted_echo, node=1),
        call(r.gaussian, scale=30.0),
        call(r.strongest, attack=r.dissensus()),
        call(r.flip_labels, task=task(), attackers=[1], num_classes=10),
        call(o.honest_consensus, attackers=[1], x0=np.zeros((N, 2))),
    ]


ROOMS = {
    "gradients": gradients,
    "networks": networks,
    "predictions": predictions,
    "reviews": reviews,
    "topology": topology,
    "weights": weights,
    "clocks": clocks,
    "timelines": timelines,
    "protocols": protocols,
    "sharing": sharing,
    "tasks": tasks,
    "devices": devices,
    "systems": systems,
    "observers": observers,
    "runs": runs,
    "deploy": deploy,
    "privacy": privacy,
    "robust": robust,
}
"""Tables of calls by room; each is made when its room is walked."""
