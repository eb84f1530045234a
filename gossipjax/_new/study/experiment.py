"""Run every mixing strength with three seeds, and store the records."""

import pathlib

import jax

import gossipjax as gj
from careful_dpsgd import careful_dpsgd

NODES, ROUNDS, SEEDS, RATE = 16, 200, 3, 0.1
GAMMAS = (0.3, 1.0)
RESULTS = pathlib.Path(__file__).parent / "results"


def problem() -> tuple[gj.Task, gj.Timeline]:
    """Return the task and the plan: who has which data, and who talks to whom."""
    data = gj.tasks.digits()
    shards = gj.tasks.dirichlet(data.train.labels, NODES, alpha=0.3, seed=0)
    task = gj.tasks.classification(data, shards, gj.tasks.mlp(64, (32,), 10))
    return task, gj.timeline.rounds(gj.mixing.metropolis(gj.topology.ring(NODES)), ROUNDS)


def main() -> None:
    """Run, store, and print the last record of each run."""
    RESULTS.mkdir(exist_ok=True)
    task, timeline = problem()
    keys = jax.random.split(jax.random.key(0), SEEDS)
    watch = [gj.observe.node_metrics(task), gj.observe.consensus_distance()]
    for gamma in GAMMAS:
        run = gj.simulate(keys, careful_dpsgd(task, RATE, gamma), timeline, task, observers=watch, record_every=20)
        run.save(RESULTS / f"gamma-{gamma:g}.nc")
        last = run["test_accuracy"].sel(statistic="mean").isel(record=-1)
        print(f"gamma={gamma:g}: mean test accuracy {float(last.mean()):.3f} over {SEEDS} seeds")


if __name__ == "__main__":
    main()
