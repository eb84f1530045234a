"""Words and numbers of HADFL: orders of what happens at once, states, outcomes, messages, fates."""

from __future__ import annotations

TRAININGS, PRESENCE, CONTROL, SYNC, STARTS = range(5)
"""What comes first at equal times, after transfers that are complete."""

STATES = ("training", "waiting for the ring", "in the ring", "idle", "offline")
"""What a device does: trains; has come to a ring that others have not; exchanges fragments; waits for the strategy or
for a model; is not there."""
TRAINING, WAITING, EXCHANGING, IDLE, OFFLINE = range(len(STATES))

OUTCOMES = ("averaged", "abandoned", "skipped", "too few", "under way")
"""What became of a synchronisation: its ring took a mean; the ring fell apart; another ring was under way; fewer than
two devices were known to be alive; it had not ended with the plan."""
AVERAGED, ABANDONED, SKIPPED, TOO_FEW, UNDER_WAY = range(len(OUTCOMES))

MESSAGES = ("measurement", "strategy", "report", "order", "handshake", "answer", "restart", "request", "result")
"""Small messages, which take the latency only: seconds of a unit, to the coordinator; strategy, from it; version, to
it; who is in the ring, from it; the question whether a neighbour lives, and its answer; the news that a ring starts
again; the request of a device that comes back; the end of a ring, to the coordinator."""

KINDS = ("fragment", "broadcast", "backup", "restore")
"""Transfers: a fragment in the ring; a mean to a device outside it; a mean to the coordinator, and back."""
FRAGMENT, BROADCAST, BACKUP, RESTORE = range(len(KINDS))

FATES = ("in flight", "read", "dropped", "superseded")
"""What became of a broadcast, a backup or a restoration: not read by the end; read; cut, or its receiver died; a newer
mean came first."""
IN_FLIGHT, READ, DROPPED, SUPERSEDED = range(len(FATES))

UNIT, AVERAGE, COPY, KEEP, SEND = range(5)
"""Events of the learning: a unit, and a merger after it; the mean of a ring; a mean, taken by a device that comes back;
the model of a member that dies, kept for its ring; a whole model that leaves."""
