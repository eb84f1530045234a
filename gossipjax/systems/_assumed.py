"""What a plan takes for granted about the run on it: the size of a message and the number of local steps."""

from __future__ import annotations

import dataclasses

from gossipjax._base.arguments import instance
from gossipjax._base.calls import recorded
from gossipjax.systems._activity import SystemPlan
from gossipjax.types import Timeline


def assuming(plan: SystemPlan, *, message_bytes: int, local_steps: int) -> SystemPlan:
    """Note in a plan's timeline on what its times rest; :func:`gossipjax.simulate` holds that against the protocol.

    Args:
        plan: of a system.
        message_bytes: of the model in one message, without what the system adds to it.
        local_steps: of an acting node.
    """
    facts = dataclasses.replace(
        plan.timeline.properties, message_bytes=int(message_bytes), local_steps=int(local_steps)
    )
    return dataclasses.replace(plan, timeline=dataclasses.replace(plan.timeline, properties=facts))


@recorded()
def stand_in(timeline: Timeline) -> Timeline:
    """Let a model of another size stand in for the one that was planned, such as a small one for a large network.

    The run then takes the seconds and local steps of the plan. Bytes are kept apart: those of the plan
    (:func:`gossipjax.systems.traffic_series`) are of the planned messages, ``bytes_sent`` of the run is of those of the
    model that stands in.

    Args:
        timeline: of a plan: ``plan.timeline``, or ``timeline(plan)`` of Plexus.

    Raises:
        TypeError: no timeline.
    """
    instance("timeline", timeline, Timeline, "pass plan.timeline, or timeline(plan) of Plexus")
    return dataclasses.replace(timeline, properties=dataclasses.replace(timeline.properties, message_bytes=None))
