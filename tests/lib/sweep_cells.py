"""Cells of sweeps that other processes can import."""

import os
import pathlib
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import xarray

import gossipjax as gj


def product(config):
    """A number that floats represent exactly, and the width of floats in the process that made it."""
    return xarray.Dataset({"product": config["a"] * config["b"], "x64": int(jax.config.jax_enable_x64)})


def consensus(config):
    """A short run; all seeds in one call."""
    keys = jax.random.split(jax.random.key(0), len(config["seed"]))
    plan = gj.timeline.rounds(gj.mixing.metropolis(getattr(gj.topology, config["graph"])(8)), config["rounds"])
    start = jax.tree_util.Partial(lambda key: jax.random.normal(key, (8, 2)))
    watch = [gj.observe.consensus_distance()]
    return gj.simulate(keys, gj.gossip_averaging(), plan, start, observers=watch, record_every=1)


def curve(config):
    """Records of different lengths, with a unit."""
    values = xarray.DataArray(np.arange(config["length"], dtype=float), dims="record", attrs={"units": "s"})
    return xarray.Dataset({"time": values})


def logged(config):
    """Note each call in a file; fail where the configuration says so, until there is a file ``.mended``."""
    with open(config["log"], "a") as log:
        log.write(f"{config['a']}\n")
    if config["a"] == config["fails"] and not pathlib.Path(config["log"] + ".mended").exists():
        raise ValueError(f"a={config['a']} is bad")
    return xarray.Dataset({"double": 2 * config["a"]})


def dies(config):
    """Kill its process: always at a = 2, and the first time at a = 1."""
    mark = pathlib.Path(f"{config['mark']}.{config['a']}")
    if config["a"] == 2 or (config["a"] == 1 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return xarray.Dataset({"double": 2 * config["a"]})


def slow(config):
    """Take a tenth of a second."""
    jax.block_until_ready(jnp.ones(3))
    time.sleep(0.1)
    return xarray.Dataset({"double": 2 * config["a"]})


def careless(config):
    """Change the list that it got."""
    config["seed"].reverse()
    return xarray.Dataset({"total": ("seed", np.array(config["seed"][::-1], float))})
