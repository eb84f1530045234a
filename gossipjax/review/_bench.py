"""The runs of a review: contenders on one problem, all seeds of a setting in one call, each kept in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import monitoring
from jax.tree_util import Partial

from gossipjax import tasks as all_tasks
from gossipjax._base.arguments import instance, shown, whole, wholes
from gossipjax._engine.simulate import simulate
from gossipjax.observe import average_model_metrics, metrics_by_node
from gossipjax.protocol import allreduce_sgd, dpsgd, local_sgd
from gossipjax.review import _networks
from gossipjax.review._submission import BASELINES, WITHOUT, Submission
from gossipjax.robust import flip_labels
from gossipjax.sweeps import SweepFailed, sweep
from gossipjax.tasks import Dataset, by_user, classification, digits, dirichlet, iid, mnist_by_writer
from gossipjax.types import Protocol, Task, Timeline

if TYPE_CHECKING:  # functions import xarray when they need it, because it takes 40 MB
    from xarray import Dataset as Records

LOCAL_STEPS = 4
"""Of the baseline local SGD, which runs a quarter of the rounds."""
WRITERS = "by writer"
_COMPILED = "/jax/core/compile/backend_compile_duration"


class ProtocolRaised(RuntimeError):
    """The reviewed protocol raised an exception, or returned what cannot be run."""


class Budget(NamedTuple):
    """How much a review runs. The number of runs counts each seed."""

    num_nodes: int = 16
    num_rounds: int = 200
    hidden: int = 32
    """Units of the hidden layer of the network that is trained."""
    batch_size: int = 8
    """Samples that a node draws in a local step."""
    samples: int | None = None
    """Of the digits; None: all 1,797."""
    records: int = 20
    """Of each run, evenly spaced; curves are compared at equal cost by lines between them."""
    tuning_seeds: int = 2
    extra_trials: int = 3
    """Steps that each contender may try beyond the ends of its grid, while its best lies there."""
    seeds: int = 8
    row_seeds: int = 5
    """Of each condition of rows 5 to 11."""
    sizes: tuple[int, ...] = (16, 32, 64)
    most_runs: int = 400
    most_programs: int = 60


def check_budget(budget: Any) -> Budget:
    """Check what a review may run.

    Raises:
        TypeError: if it is no budget.
        ValueError: if a number is too small.
    """
    instance("budget", budget, Budget, "such as gossipjax.review.Budget(num_rounds=100)")
    least = {"num_nodes": 4, "num_rounds": LOCAL_STEPS, "records": 2, "seeds": 2, "row_seeds": 2, "extra_trials": 0}
    for name, value in budget._asdict().items():
        if name == "sizes":
            wholes("budget.sizes", value, shape=(None,), least=4)
            if not len(value) or sorted(set(value)) != list(value):
                raise ValueError(f"budget.sizes={shown(value)}: must increase, with one at least, such as (16, 32, 64)")
        elif name != "samples" or value is not None:
            whole(f"budget.{name}", value, least=100 if name == "samples" else least.get(name, 1))
    if budget.num_rounds % LOCAL_STEPS:
        rule = f"must be a multiple of {LOCAL_STEPS}, so that local SGD draws as many samples in its fewer rounds"
        raise ValueError(f"budget.num_rounds={budget.num_rounds}: {rule}")
    return budget


class Place(NamedTuple):
    """Where and how a contender runs, besides its settings."""

    network: str
    num_nodes: int
    split: str = "Dirichlet 1"
    fault: str = ""
    attacked: bool = False
    """Whether node 0 learns flipped labels."""


@dataclasses.dataclass(eq=False)
class Bench:
    """All runs of one review."""

    submission: Submission
    budget: Budget
    folder: pathlib.Path
    seed: int
    programs: int = 0
    done: set[str] = dataclasses.field(default_factory=set)
    """Runs so far, by what names them."""
    tuned_settings: dict[str, Any] | None = None
    """The best settings of the protocol, once they are known."""
    checksums: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    """Of the data sets that were read, by name."""

    @property
    def runs(self) -> int:
        """Number of runs so far, each seed counted."""
        return len(self.done)

    @property
    def contenders(self) -> tuple[str, ...]:
        """The protocol and its baselines."""
        return ("protocol", *BASELINES, *((WITHOUT,) if self.submission.has_without else ()))

    @property
    def main(self) -> Place:
        """The place of rows 3, 4, 8 and 10: the first network of the claim; the torus if it names none."""
        return Place((*self.submission.claim.networks, "torus")[0], self.budget.num_nodes)

    def build(self, contender: str, settings: dict[str, Any], task: Task) -> Protocol:
        """Make the protocol of a contender."""
        named, entry = dict(settings), self.submission
        step = named.pop("step")
        if contender in ("protocol", WITHOUT):
            make = entry.without if contender == WITHOUT and entry.without is not None else entry.protocol
            found = make(task, step, **named)
            if not isinstance(found, Protocol):
                raise ProtocolRaised(f"{contender} returned {shown(found)}, and not a gossipjax.Protocol")
            return found
        optimizer = Partial(optax.sgd, step)
        if contender == "local_sgd":
            return local_sgd(task, optimizer, local_steps=LOCAL_STEPS)
        return {"dpsgd": dpsgd, "allreduce_sgd": allreduce_sgd}[contender](task, optimizer)

    def settings_at(self, step: float) -> dict[str, Any]:
        """Return the tuned settings of the protocol with another step, for probes; the grid's first before tuning."""
        return (self.tuned_settings or self.submission.trials[0]) | {"step": step}

    def has_own_timeline(self, contender: str) -> bool:
        """Whether the authors planned the timeline of a contender."""
        return self.submission.timeline is not None and contender in ("protocol", WITHOUT)

    def num_rounds(self, contender: str) -> int:
        """Return how many rounds a contender runs; all take as many samples, if a round takes a batch."""
        return self.budget.num_rounds // (LOCAL_STEPS if contender == "local_sgd" else 1)

    def timeline(self, contender: str, place: Place) -> Timeline:
        """Return the plan of a contender: the authors' own for their protocol, if they gave one.

        Raises:
            ValueError: if the authors' timeline needs a graph that this place has not.
        """
        given, seed = self.submission.timeline, self.seed
        if given is None or not self.has_own_timeline(contender):
            return _networks.plan(place.network, place.num_nodes, self.num_rounds(contender), place.fault, seed)
        fixed = _networks.graph(place.network, place.num_nodes, seed)
        if fixed is None or place.fault:
            raise ValueError(
                f"its own timeline is planned on a fixed graph without faults, not for {place.fault or place.network}"
            )
        plan = given(fixed, self.num_rounds(contender), seed)
        return getattr(plan, "timeline", plan)

    def problem(self, place: Place) -> tuple[Task, Task]:
        """Return the task that contenders learn, whose test set is the validation split, and that with the test one."""
        learned, held = self.data(place.split)
        shards = _shards(place.split, learned, place.num_nodes, self.seed)
        inputs = int(np.prod(learned.train.inputs.shape[1:]))
        model = _model(inputs, self.budget.hidden, learned.num_classes)
        tasks = [classification(each, shards, model, batch_size=self.budget.batch_size) for each in (learned, held)]
        return (flip_labels(tasks[0], [0], learned.num_classes) if place.attacked else tasks[0]), tasks[1]

    def records(
        self, contender: str, settings: dict[str, Any], place: Place, seeds: Sequence[int], *, test: bool
    ) -> Records:
        """Return what one call of ``simulate`` records: accuracies by seed, record and node, and bytes.

        The file of a call that was made before is read.

        Raises:
            ProtocolRaised: if the reviewed protocol could not be run.
            SweepFailed: if a baseline could not.
        """
        config = {
            "contender": contender,
            "settings": json.dumps(settings, sort_keys=True),
            "on": "test" if test else "validation",
        }
        config |= place._asdict()
        axes: dict[str, list[Any]] = {name: [value] for name, value in config.items()} | {"seed": list(seeds)}
        self.done |= {f"{config} {number}" for number in seeds}
        version = self.version(place.split)
        with self._counted():
            try:
                table = sweep(
                    _cell_of(self), axes, self.folder / "records", version=version, together=["seed"], progress=False
                )
            except SweepFailed as error:
                if contender not in ("protocol", WITHOUT):
                    raise
                raise ProtocolRaised(str(error)) from error
        return table.isel(dict.fromkeys(config, 0), drop=True)

    def data(self, split: str) -> tuple[Dataset, Dataset]:
        """Return the data that contenders learn, with the validation split as test set, and with the test split."""
        found = writers(self.seed) if split == WRITERS else scans(self.budget.samples, self.seed)
        name = WRITERS if split == WRITERS else "digits"
        self.checksums[name] = {each: data.checksum for each, data in zip(("validation", "test"), found, strict=True)}
        return found

    def version(self, split: str) -> str:
        """What the records on a split depend on besides a configuration: the module, the budget and the data."""
        checksums = [each.checksum for each in self.data(split)]
        return json.dumps([self.submission.digest, [*self.budget], self.seed, checksums])

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the training programs that XLA compiles meanwhile."""

        def listen(event: str, duration_secs: float, **about: str | int) -> None:
            del duration_secs
            self.programs += event == _COMPILED and "_advance" in str(about.get("fun_name", ""))

        monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(listen)


def _cell_of(bench: Bench) -> Callable[[dict[str, Any]], Records]:
    def review_cell(config: dict[str, Any]) -> Records:
        return measure(bench, config)

    return review_cell


def measure(bench: Bench, config: dict[str, Any]) -> Records:
    """Run one cell: all seeds of a contender at a place."""
    place = Place(**{name: config[name] for name in Place._fields})
    learned, held = bench.problem(place)
    protocol = bench.build(config["contender"], json.loads(config["settings"]), learned)
    timeline, judged = bench.timeline(config["contender"], place), held if config["on"] == "test" else learned
    at = np.unique(np.linspace(0, len(timeline), bench.budget.records + 1).round().astype(int))[1:]
    keys = jnp.stack([jax.random.key(number) for number in config["seed"]])
    watch = [metrics_by_node(judged), average_model_metrics(judged)]
    run = simulate(
        keys, protocol, timeline, learned, observers=watch, record_at=at.tolist(), throw=False, progress=False
    )
    finite = np.all(
        [np.isfinite(leaf).reshape(len(keys), -1).all(1) for leaf in map(np.asarray, jax.tree.leaves(run.x))], axis=0
    )
    found = run.dataset[["accuracy_by_node", "average_model_accuracy", "bytes_sent"]].assign(finite=("seed", finite))
    return found.assign_coords(seed=list(config["seed"]))


@functools.lru_cache(maxsize=4)
def scans(samples: int | None, seed: int) -> tuple[Dataset, Dataset]:
    """Return the digits with the validation split as test set, and with the test split: both are drawn anew."""
    return _splits(
        digits(test_share=0.2, seed=seed, limit=None if samples is None else (samples * 4 // 5, samples // 5)), seed
    )


@functools.lru_cache(maxsize=1)
def writers(seed: int) -> tuple[Dataset, Dataset]:
    """Return handwritten digits with their writers, as :func:`scans`.

    Raises:
        DataUnavailable: if its files are not at hand.
    """
    return _splits(mnist_by_writer(limit=(6000, 1000)), seed)


def _splits(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    order = np.random.default_rng(seed).permutation(len(data.train.labels))
    cut = len(order) // 5
    validation, rest = (_take(data.train, part) for part in (order[:cut], np.sort(order[cut:])))
    return dataclasses.replace(data, train=rest, test=validation), dataclasses.replace(data, train=rest)


def _take(examples: Any, numbers: Any) -> Any:
    return type(examples)(*(None if part is None else part[numbers] for part in examples))


def _shards(split: str, data: Dataset, n: int, seed: int) -> Any:
    labels = data.train.labels
    if split == WRITERS:
        assert data.train.writers is not None
        return by_user(data.train.writers, n, seed=seed)
    alpha = float(split.removeprefix("Dirichlet "))
    return (
        iid(len(labels), n, seed=seed) if np.isinf(alpha) else dirichlet(labels, n, alpha=alpha, minimum=2, seed=seed)
    )


def forget() -> None:
    """Forget data, models and compiled programs, so that what is run next depends on files only."""
    for cached in (scans, writers, _model):
        cached.cache_clear()
    jax.clear_caches()


@functools.lru_cache(maxsize=4)
def _model(inputs: int, hidden: int, classes: int) -> Any:
    return all_tasks.mlp(inputs, (hidden,), classes)  # flax is imported when a model is made
