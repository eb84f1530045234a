"""Measurements of HADFL's plans without learning: arrays of powers, and what devices do after the warm-up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from gossipjax.systems import Plan
from gossipjax.systems._hadfl.tables import EXCHANGING, IDLE, TRAINING, WAITING

ARRAYS = ((4, 2, 2, 1), (3, 3, 1, 1))
"""Relative computing powers that are reported of the paper."""
STATES = {"training": TRAINING, "waiting": WAITING, "ring": EXCHANGING, "idle": IDLE}
"""What an online device does."""
PARAMETERS = {"ResNet-18": 11_173_962, "VGG-16": 14_724_042}
"""Numbers of parameters of :func:`gossipjax.tasks.resnet18` and :func:`gossipjax.tasks.vgg16` for CIFAR-10."""
DESIGN = "formulas and defaults are our design, because the paper's text was not available"


def named(powers: Sequence[int]) -> str:
    """Format an array of powers as ``[4, 2, 2, 1]``."""
    return f"[{', '.join(map(str, powers))}]"


def duration_of(cycles: int, slowest_s: float, sync_s: float) -> float:
    """Compute the duration of a plan of some cycles after a warm-up of one unit, with half a cycle to spare."""
    return slowest_s + (cycles + 0.5) * sync_s


def seconds_by_state(plan: Plan) -> Float64[np.ndarray, "state n"]:
    """Compute each device's seconds in each of :data:`STATES` after the warm-up of one unit.

    In the warm-up, device i trains for T_i and is then idle until the strategy begins.

    Args:
        plan: plan of HADFL with one unit of warm-up, on devices that are always online.
    """
    history = plan.history
    seconds = history.node_seconds[:, list(STATES.values())].T.copy()
    seconds[list(STATES).index("training")] -= history.measured_s
    seconds[list(STATES).index("idle")] -= history.start_s - history.measured_s
    return seconds


def units_per_second(plan: Plan) -> float:
    """Compute the units per second that all devices train after the warm-up, fractions of a unit included.

    Args:
        plan: plan of HADFL without jitter or drift, in which a unit of device i takes T_i.
    """
    training = seconds_by_state(plan)[list(STATES).index("training")]
    return float(np.sum(training / plan.history.measured_s) / (plan.end_s - plan.history.start_s))
