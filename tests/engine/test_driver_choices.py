"""What the driver takes over from its surroundings, refuses, and says in the manifest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from problems import X0, N, exact_quadratic

from gossipjax import dpsgd, fedavg, gossip_averaging, placement, push_sum, replicate, sgp, simulate
from gossipjax._engine.fingerprint import Origin, fingerprint
from gossipjax._engine.packing import SHORT, choose
from gossipjax.mixing import averaging, metropolis
from gossipjax.timeline import client_sampling, poisson_pairs, poisson_push, rounds
from gossipjax.topology import ring

KEY = jax.random.key(0)
W = metropolis(ring(N)).toarray()
SGD = Partial(optax.sgd, 0.1)


def test_the_strategy_in_force_is_taken_unless_one_is_given():
    def strategy(**settings):
        run = simulate(KEY, gossip_averaging(), rounds(W, 2), jnp.asarray(X0), **settings)
        return run.manifest["configuration"]["strategy"].split(":")[0]

    with placement.using("map"):
        assert strategy() == "map"
        assert strategy(strategy="vmap") == "vmap"
    assert strategy() == "vmap"  # small rows


def test_mixings_that_do_not_fit_are_refused():
    task = exact_quadratic()
    with pytest.raises(ValueError, match="one average in all rows"):
        simulate(KEY, fedavg(task, SGD, local_steps=1), rounds(W, 2), jnp.asarray(X0))
    lopsided = np.eye(N)
    lopsided[0, 0], lopsided[1, 0] = 0.5, 0.5  # node 0 sends half of its mass to node 1
    plan = rounds(lopsided, 2, stochastic="column")
    with pytest.raises(ValueError, match="rows sum to one"):
        simulate(KEY, dpsgd(task, SGD), plan, jnp.asarray(X0))
    with pytest.raises(ValueError, match="columns sum to one"):
        simulate(KEY, push_sum(), poisson_push(ring(N), 5, seed=0), jnp.asarray(X0))
    simulate(KEY, sgp(task, SGD), rounds(averaging(N).toarray(), 2), jnp.asarray(X0))
    simulate(KEY, push_sum(), plan, jnp.asarray(X0))


def test_manifest_names_the_settings():
    clients = client_sampling(N, 4, 2, seed=3)
    run = simulate(KEY, fedavg(exact_quadratic(), SGD, local_steps=2), clients, replicate(jnp.asarray(X0[0]), 4))
    found = run.manifest["configuration"]
    assert "sgd(0.1)" in found["protocol"]
    assert found["protocol"].startswith("fedavg(task=")
    assert "seed=3" in found["timeline"]


def test_the_same_run_on_other_devices_has_the_same_fingerprint():
    protocol, plan = dpsgd(exact_quadratic(), SGD), rounds(W, 3)
    prints = []
    for strategy in ("vmap", "map", "shard"):
        with placement.using(strategy):
            prints.append(fingerprint(Origin(KEY, protocol, plan, (), jax.ShapeDtypeStruct(X0.shape, X0.dtype))))
    assert len(set(prints)) == 1


def test_packing_is_chosen_by_rows_transfers_and_records():
    pairs, pushes = poisson_pairs(ring(N), 5, seed=0), poisson_push(ring(N), 5, seed=0)
    assert choose(pairs, "auto", row_bytes=256).packed
    assert not choose(pairs, "auto", row_bytes=4).packed
    assert not choose(pairs, "auto", row_bytes=100_000).packed
    assert not choose(pushes, "auto", row_bytes=256).packed
    assert choose(pushes, "auto", row_bytes=256, trains=True).packed
    assert not choose(pairs, "auto", row_bytes=256, interval=SHORT - 1).packed
    assert choose(pairs, "packed", row_bytes=4, interval=1).packed
