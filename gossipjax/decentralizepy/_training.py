"""The sections OPTIMIZER_PARAMS and TRAIN_PARAMS: steps of which size, and how many in a round."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import optax
from jax.tree_util import Partial

from gossipjax.decentralizepy._ini import Kind, Section, count, flag, nonnegative, positive, word
from gossipjax.protocol import restarted

LOSSES = ("CrossEntropyLoss", "MSELoss")
_COMMON = {"optimizer_package": word(), "optimizer_class": word(), "weight_decay": nonnegative(0.0)}
OPTIMIZERS: dict[str, dict[str, Kind]] = {
    "SGD": _COMMON | {"lr": positive(), "momentum": nonnegative(0.0), "nesterov": flag(False)},
    "Adam": _COMMON | {"lr": positive(0.001), "eps": positive(1e-8)},
}
_NOT_HERE = {name: "this optimizer is not mapped" for name in ("AdamW", "Adagrad", "RMSprop")}


class Training(NamedTuple):
    """What both sections say."""

    optimizer_class: str
    numbers: dict[str, Any]
    """Of the optimizer."""
    batch_size: int
    rounds: int
    """Mini-batches, or epochs, in a communication round."""
    full_epochs: bool
    loss: str


def training_of(optimizer: Section, section: Section) -> Training:
    """Parse both sections.

    Raises:
        ValueError: a class, key or value that is not known or has no counterpart here.
    """
    chosen = optimizer.choose("optimizer_class", OPTIMIZERS, _NOT_HERE)
    numbers = optimizer.take(OPTIMIZERS[chosen])
    if numbers.get("nesterov") and not numbers["momentum"]:
        optimizer.refuse("nesterov", "there is no momentum; use False, or a momentum such as 0.9")
    section.choose("training_class", {"Training": None}, {"LLMTraining": "no language models are here"})
    loss = section.choose("loss_class", dict.fromkeys(LOSSES), {})
    known = {"training_package": word(), "training_class": word(), "loss_package": word(), "loss_class": word()}
    counts = {"rounds": count(1), "batch_size": count(1), "full_epochs": flag(False), "shuffle": flag(False)}
    given = section.take(known | counts)
    if not given["shuffle"]:
        section.refuse("shuffle", "batches are drawn at random here, not in the order of the data; use True")
    return Training(chosen, numbers, given["batch_size"], given["rounds"], given["full_epochs"], loss)


def local_steps(section: Section, training: Training, shard_sizes: np.ndarray) -> int:
    """Count the optimizer's steps in a round.

    Raises:
        ValueError: epochs of shards that have different numbers of batches.
    """
    if not training.full_epochs:
        return training.rounds
    batches = {-(-int(size) // training.batch_size) for size in shard_sizes}
    if len(batches) > 1:
        section.refuse(
            "full_epochs",
            f"an epoch has {min(batches)} to {max(batches)} batches, by node, and nodes take equal numbers of steps "
            "here; use False and rounds",
        )
    return training.rounds * batches.pop()


def optimizer_of(training: Training, steps: int) -> optax.GradientTransformation | Partial:
    """Build the optimizer; one with a state begins anew in every round, as DecentralizePy does by default."""
    numbers = training.numbers
    rate, decay = numbers["lr"], numbers["weight_decay"]
    momentum = numbers.get("momentum") or None
    if training.optimizer_class == "SGD" and momentum is None and not decay:
        return Partial(optax.sgd, rate)
    if training.optimizer_class == "SGD":
        inner = optax.sgd(rate, momentum=momentum, nesterov=numbers["nesterov"])
    else:
        inner = optax.adam(rate, eps=numbers["eps"])
    return restarted(optax.chain(optax.add_decayed_weights(decay), inner), steps)
