"""Planning with Plexus, and the memory of learning with its plans, which store only live models."""

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
    """Measure planning with Plexus: without an activity window, with the default window, or with churn."""
    membership = systems.Membership(activity_window=None if kind == "all active" else 1000)
    phones = devices.fitted(n, seed=0, availability="charging" if kind == "churn" else None)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = systems.plexus(phones, num_rounds=num_rounds, model_bytes=4 * 85_354, seed=0, membership=membership)
    facts = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return facts | {
        "rounds": int(plan.history.aggregation_round.max()),
        "messages": int(plan.history.messages_sent.sum()),
        "hours": plan.end_s / 3600,
    }


def _images(n: int) -> Dataset:
    """Draw random images of FEMNIST's number and shape; memory and time do not depend on their content."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> Examples:
        images = rng.integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
        return Examples(images, rng.integers(0, CLASSES, count, np.int32))

    return Dataset("noise", draw(SHARD * n), draw(100), CLASSES, (127.5,), (73.9,), "drawn at random")


def _start(task: gj.types.Task, rows: Frozen[int], key: Any) -> Any:
    return gj.replicate(task.init(key), rows.value)


def learning(n: int) -> dict[str, Any]:
    """Measure the seconds and the models in memory of Plexus with the FEMNIST network (1,690,046 parameters)."""
    data = _images(n)
    model = tasks.femnist_cnn((SIDE, SIDE, 1), CLASSES)
    task = tasks.classification(data, tasks.iid(SHARD * n, n, seed=0), model, batch_size=20)
    plan = systems.plexus(devices.fitted(n, seed=0), num_rounds=ROUNDS, model_bytes=4 * 1_690_046, seed=0)
    timeline = plan.timeline
    start = time.perf_counter()
    run = gj.simulate(
        jax.random.key(0),
        gj.fedavg(task, Partial(optax.sgd, 0.05), local_steps=5),
        timeline,
        Partial(_start, task, Frozen(timeline.properties.num_rows)),
        record_every=len(timeline),
        progress=False,
    )
    return {
        "seconds": time.perf_counter() - start,
        "parameters": parameters_per_row(run.x),
        "models": timeline.properties.num_rows + timeline.properties.num_slots,
    }
