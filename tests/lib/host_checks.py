"""One of several processes that do one run together: ``host_checks.py WORK COORDINATOR PROCESSES PROCESS FOLDER``.

WORK is ``run``; ``bar``, where process 0 shows its progress; ``differ``, where each process is given another key; or
``killed``, where process 1 kills itself in the middle. With one process there is no coordinator, and the devices are
those of all.
"""

import os
import signal
import sys

import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax._base import hosts as rules

DEVICES = 4


def connect(coordinator, processes, process):
    if processes == 1:
        gj.configure(host_devices=DEVICES)
    else:
        gj.configure(host_devices=DEVICES // processes, hosts=(coordinator, processes, process))


def main(work, coordinator, processes, process, folder):
    rules.HEARTBEAT_SECONDS = 5
    connect(coordinator, processes, process)
    import jax

    n = 16
    graph = gj.topology.torus(4, 4)
    data = gj.tasks.digits()
    shards = gj.tasks.iid(len(data.train.labels), n, seed=0)
    task = gj.tasks.classification(data, shards, gj.tasks.softmax_regression(64, 10), batch_size=8)
    plan = gj.timeline.rounds(gj.mixing.metropolis(graph), 4, form="table")
    key = jax.random.key(process if work == "differ" else 5)

    def die(record):
        if work == "killed" and process == 1 and record["event"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    if work == "bar":  # on one process only; without a checkpoint, which cuts the run too
        method = gj.dpsgd(task, Partial(optax.sgd, 0.1))
        gj.simulate(key, method, plan, task, record_every=1, mesh=gj.mesh(), progress=process == 0, strategy="map")
        return
    run = gj.simulate(
        key, gj.dpsgd(task, Partial(optax.sgd, 0.1)), plan, task, observers=[gj.observe.consensus_distance()],
        record_every=1, mesh=gj.mesh(), checkpoint=f"{folder}/checkpoint{processes}", callback=die, progress=False,
        strategy="map",
    )  # fmt: skip
    run.save(f"{folder}/run{processes}.nc")
    assert (run.x is None) == (processes > 1)
    whole = run.gather()
    if process == 0:
        arrays = dict(enumerate(jax.tree.leaves(whole.x)))
        moved, counts = run.manifest["placement"]["moved"], run.manifest["placement"]["processes"]
        np.savez(
            f"{folder}/models{processes}.npz",
            **{f"leaf{k}": np.asarray(leaf) for k, leaf in arrays.items()},
            loss=run["train_loss"].values, distance=run["consensus_distance"].values,
            bytes=run["bytes_sent"].values, moved=moved, processes=counts,
        )  # fmt: skip


if __name__ == "__main__":
    what, address, number, own, where = sys.argv[1:]
    main(what, address, int(number), int(own), where)
