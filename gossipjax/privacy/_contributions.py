"""What an audit counts as secret: the start values of nodes, or what each of their steps adds."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from gossipjax._base.arguments import choice, real, reals, shown, whole
from gossipjax._base.calls import Call, Function, Object, record_of, recorded
from gossipjax._base.clipping import mechanism_of
from gossipjax._base.display import displayed
from gossipjax.types import Protocol, Task

Hears = Literal["messages", "sums"]
Order = Literal["adapt_then_combine", "combine_then_adapt"]
_STARTS = {"gossip_averaging", "push_sum"}
_STEPS = {"dpsgd", "local_sgd", "ad_psgd", "sgp"}


@displayed
@dataclasses.dataclass(frozen=True)
class Contributions:
    """The secrets of a run: one start value of each node, or one gradient of each of its steps."""

    of: Literal["start", "steps"]
    """Whether noise is on the start values, once, or on every step."""
    order: Order = "adapt_then_combine"
    """Whether a step is part of what its own event sends."""
    local_steps: int = 1
    """H: steps of an acting node, each with noise of its own."""
    step_sizes: Float64[np.ndarray, " s"] | None = None
    """Learning rate of each step of a node, by its own count; the last one goes on. None: constant."""
    momentum: float = 0.0
    """β of SGD's momentum."""

    @property
    def unit(self) -> str:
        """The unit of privacy in words."""
        return "the start value of one node" if self.of == "start" else "all steps of one node"

    def rate(self, count: int) -> float:
        """Return the learning rate of step number count − 1 of a node."""
        return 1.0 if self.step_sizes is None else float(self.step_sizes[min(count, len(self.step_sizes)) - 1])

    def weights(self, count: int) -> Float64[np.ndarray, " count"]:
        """Return what gradients 0 … count − 1 of a node add to its model in its step number count − 1."""
        return self.rate(count) * self.momentum ** np.arange(count - 1, -1, -1.0)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        return self.unit, {} if self.of == "start" else {"order": self.order, "local steps": self.local_steps}


_WIDEST = 1e10
"""Largest ratio of two learning rates: singular values that count must stay well above rounding."""


def start_values() -> Contributions:
    """Audit averaging in which every node adds noise to its start value, once, before the first message.

    >>> import gossipjax as gj
    >>> gj.privacy.start_values().unit
    'the start value of one node'
    """
    return Contributions("start")


@recorded("denisov2022adaptive")
def steps(
    *,
    order: Order = "adapt_then_combine",
    local_steps: int = 1,
    step_sizes: Any = None,
    momentum: float = 0.0,
) -> Contributions:
    """Audit SGD in which every step has fresh noise: each local step of a node is a contribution of its own.

    With g_s the gradient of a node's step number s, its noise included, learning rates γ_s and momentum β, step t
    changes the model by ``−γ_t Σ_{s ≤ t} β^(t−s) g_s``. Constant learning rates do not change the result.

    Noise that is added once to a message of H local steps is one contribution: pass ``local_steps=1`` then.

    Args:
        order: as in :func:`~gossipjax.dpsgd`: whether an event sends models after the step or before it.
        local_steps: H ≥ 1.
        step_sizes: learning rates by the node's own count of steps; the last one goes on. None: constant.
        momentum: β in [0, 1) of the momentum that optax.sgd has.

    Raises:
        ValueError: if an argument is out of range.
    """
    choice("order", order, ("adapt_then_combine", "combine_then_adapt"))
    rates = None if step_sizes is None else reals("step_sizes", step_sizes, shape=(None,), above=0)
    if rates is not None and not rates.size:
        raise ValueError("step_sizes=[]: must hold a learning rate; None means a constant one")
    if rates is not None and rates.max() > _WIDEST * rates.min():
        raise ValueError(
            f"step_sizes: lie between {rates.min():g} and {rates.max():g}, too far apart to tell a small step from the "
            f"rounding of a large one; pass rates within a factor of {_WIDEST:g}, such as those of a part of the plan"
        )
    beta = real("momentum", momentum, least=0, below=1)
    return Contributions("steps", order, whole("local_steps", local_steps, least=1), rates, beta)


_UNREAD = frozenset({"noisy", "decor", "zip_dl", "multi_step"})
"""Sharings that are linear, and whose messages the audit does not know."""


def as_contributions(what: Any) -> tuple[Contributions, Hears, str | None]:
    """Read the contributions off a protocol, what its nodes hear, and why it is not linear (None: it is).

    Raises:
        TypeError: if it is neither a protocol nor contributions.
    """
    if isinstance(what, Contributions):
        return what, "messages", None
    if not isinstance(what, Protocol):
        raise TypeError(
            f"contributions={shown(what)}: must be Contributions or a Protocol, not of type {type(what).__name__}; "
            "pass privacy.start_values(), privacy.steps() or a protocol such as gossip_averaging()"
        )
    call = record_of(what)
    name = call.function.rpartition(":")[2] if isinstance(call, Call) else ""
    given: dict[str, Any] = dict(call.arguments) if isinstance(call, Call) else {}
    if name not in _STARTS | _STEPS:
        return steps(), "messages", f"the audit does not know {name or 'this protocol'} as linear in its contributions"
    hears, problem = _of_sharing(given.get("sharing"))
    if name in _STARTS:
        return start_values(), hears, problem
    momentum, unread = _of_optimizer(given["optimizer"])
    order, number = given.get("order", "adapt_then_combine"), given.get("local_steps", 1)
    return steps(order=order, local_steps=number, momentum=momentum), hears, problem or unread


def check_noise(what: Any, noise: Any, sensitivity: float) -> None:
    """Refuse to audit a protocol of a private task with other noise than its own.

    Raises:
        ValueError: so.
    """
    parts = getattr(what.step, "args", ()) if isinstance(what, Protocol) else ()
    mechanism = next((mechanism_of(part) for part in parts if isinstance(part, Task)), None)
    if mechanism is None:
        return
    own = 0.0 if mechanism.noise is None else float(mechanism.noise)
    if own == 0:
        raise ValueError(
            "contributions: the gradients of this protocol are clipped without noise, which promises nothing"
        )
    if noise != own or sensitivity != 1:
        raise ValueError(
            f"noise={shown(noise)}, sensitivity={sensitivity:g}: the gradients of this protocol have noise of {own:g} "
            f"times their clip; pass noise={own:g} and sensitivity=1"
        )


def _of_sharing(sharing: Any) -> tuple[Hears, str | None]:
    name = "full" if sharing is None else sharing.function.rpartition(":")[2] if isinstance(sharing, Call) else "this"
    if name in ("full", "fragments"):
        return "messages", None
    if name == "secure_aggregation":
        settings = dict(sharing.arguments)
        if settings["share"] == 1.0 and settings["dropout"] == 0.0:
            return "sums", None
        return "sums", "secure_aggregation with share or dropout mixes by other weights than the plan's"
    if name in _UNREAD:
        return "messages", (
            f"the audit does not read {name} sharing, whose messages are not the models of the plan; pass "
            "contributions, such as privacy.steps(), and noise, such as privacy.pairwise_noise, for the same run with "
            "full models"
        )
    return "messages", f"messages of {name} sharing are not linear in the models"


def _of_optimizer(optimizer: Any) -> tuple[float, str | None]:
    """Read plain SGD with a constant learning rate off its record, which only a Partial has."""
    unread = (
        "of the optimizer it is only known to be linear if it is Partial(optax.sgd, rate), with or without momentum"
    )
    if not isinstance(optimizer, Object) or not optimizer.kind.endswith("Partial"):
        return 0.0, unread
    fields: dict[str, Any] = dict(optimizer.fields)
    if fields.get("func") != Function("optax:sgd", getattr(fields.get("func"), "code", "")):
        return 0.0, unread
    rest = dict(zip(fields["keywords"].names, fields["keywords"].values, strict=True))
    rates = [*fields["args"].values, *(rest.pop(name) for name in ("learning_rate",) if name in rest)]
    momentum = rest.pop("momentum", None)
    beta = 0.0 if momentum is None else momentum
    plain = len(rates) == 1 and isinstance(rates[0], int | float) and not rest and isinstance(beta, int | float)
    return (float(beta), None) if plain else (0.0, unread)
