"""Plans of Plexus, and the memory that learning with them takes: only models that are alive are held."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax import devices, systems, tasks
from gossipjax._base.binding import Frozen
from gossipjax._base.rows import parameters_per_row
from gossipjax.tasks import Dataset, Examples

SIDE, CLASSES = 28, 62
SHARD = 20
ROUNDS = 6


def planning(kind: str, n: int = 1000, num_rounds: int = 10_000) -> dict[str, Any]:
    """Seconds for a plan of Plexus: nobody is forgotten, the default window, or phones that come and go."""
    membership = systems.Membership(activity_window=None if kind == "all active" else 1000)
    made = devices.fitted(n, seed=0, availability="charging" if kind == "churn" else None)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = systems.plexus(made, num_rounds=num_rounds, model_bytes=4 * 85_354, seed=0, membership=membership)
    facts = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return facts | {
        "rounds": int(plan.history.aggregation_round.max()),
        "messages": int(plan.history.messages_sent.sum()),
        "hours": plan.end_s / 3600,
    }


def _images(n: int) -> Dataset:
    """As many images as FEMNIST's, of its form, drawn at random: memory and time do not depend on what they show."""
    rng = np.random.default_rng(0)

    def drawn(count: int) -> Examples:
        images = rng.integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
        return Examples(images, rng.integers(0, CLASSES, count, np.int32))

    return Dataset("noise", drawn(SHARD * n), drawn(100), CLASSES, (127.5,), (73.9,), "drawn at random")


def _start(task: gj.types.Task, rows: Frozen[int], key: Any) -> Any:
    return gj.replicate(task.init(key), rows.value)


def learning(n: int) -> dict[str, Any]:
    """Seconds a round, and models held, of Plexus with the network of FEMNIST, 1,690,046 parameters."""
    data = _images(n)
    model = tasks.femnist_cnn((SIDE, SIDE, 1), CLASSES)
    task = tasks.classification(data, tasks.iid(SHARD * n, n, seed=0), model, batch_size=20)
    plan = systems.plexus(devices.fitted(n, seed=0), num_rounds=ROUNDS, model_bytes=4 * 1_690_046, seed=0)
    timeline = plan.timeline
    start = time.perf_counter()
    found = gj.simulate(
        jax.random.key(0),
        gj.fedavg(task, Partial(optax.sgd, 0.05), local_steps=5),
        timeline,
        Partial(_start, task, Frozen(timeline.properties.num_rows)),
        record_every=len(timeline),
        progress=False,
    )
    return {
        "seconds": time.perf_counter() - start,
        "parameters": parameters_per_row(found.x),
        "models": timeline.properties.num_rows + timeline.properties.num_slots,
    }
