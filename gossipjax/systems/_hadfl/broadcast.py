"""After a ring: one member sends the mean to every device outside it, another the backup to the coordinator."""

from __future__ import annotations

import dataclasses

from gossipjax.systems._hadfl.actions import adopt, same_life, send_model
from gossipjax.systems._hadfl.state import CycleRecord, Letter, Mean, Run
from gossipjax.systems._hadfl.tables import BACKUP, BROADCAST, CONTROL, DROPPED, READ, SUPERSEDED
from gossipjax.systems._kernel.queue import at


@dataclasses.dataclass(slots=True, eq=False)
class _Broadcast:
    """A mean on its way to many."""

    mean: Mean
    sender: int
    life: int
    """Of the sender."""
    receivers: list[int]
    """Who is still to be reached, the next one last."""


def spread(run: Run, mean: Mean, living: list[int], record: CycleRecord) -> None:
    """Choose the member that broadcasts and the one that sends the backup; both train on meanwhile."""
    n, sender = run.settings.num_nodes, living[int(run.choices.integers(len(living)))]
    record.broadcaster = sender
    receivers = run.choices.permutation([node for node in range(n) if node not in living]).tolist()
    _go_round(run, _Broadcast(mean, sender, run.devices[sender].life, receivers))
    if run.coordinator.works:
        keeper = living[(living.index(sender) + 1) % len(living)]
        send_model(run, BACKUP, (keeper, n), _backed_up, keeper, mean)


def _go_round(run: Run, broadcast: _Broadcast) -> None:
    """Send the mean to the next receiver that can be reached, one at a time."""
    while broadcast.receivers and same_life(run, broadcast.sender, broadcast.life):
        node = broadcast.receivers.pop()
        if run.kernel.online[node]:
            send_model(run, BROADCAST, (broadcast.sender, node), _sent, broadcast, node, run.devices[node].life)
            return


def _sent(number: int, completed: bool, run: Run, fate: int, broadcast: _Broadcast, node: int, life: int) -> None:
    if completed:
        seconds = run.kernel.now + run.delay(broadcast.sender, node)
        at(run.kernel.queue, seconds, _receive, run, fate, broadcast.mean, node, life, rank=CONTROL)
    else:
        run.fates[fate] = DROPPED
    _go_round(run, broadcast)


def _receive(run: Run, fate: int, mean: Mean, node: int, life: int) -> None:
    """Put a mean into the mailbox, for the end of the unit, unless the device has a newer one; or begin with it."""
    device = run.devices[node]
    newest = device.mean if device.mailbox is None else device.mailbox.mean.number
    if not same_life(run, node, life):
        run.fates[fate] = DROPPED
    elif device.needs_model:
        run.fates[fate] = READ
        adopt(run, node, mean)
    elif mean.number <= newest:
        run.fates[fate] = SUPERSEDED
    else:
        if device.mailbox is not None:
            run.fates[device.mailbox.fate] = SUPERSEDED
        device.mailbox = Letter(mean, fate)


def _backed_up(number: int, completed: bool, run: Run, fate: int, keeper: int, mean: Mean) -> None:
    if completed:
        seconds = run.kernel.now + run.delay(keeper, run.settings.num_nodes)
        at(run.kernel.queue, seconds, _keep, run, fate, mean, rank=CONTROL)
    else:
        run.fates[fate] = DROPPED


def _keep(run: Run, fate: int, mean: Mean) -> None:
    coordinator = run.coordinator
    if not coordinator.works:
        run.fates[fate] = DROPPED
    elif coordinator.backup.number > mean.number:
        run.fates[fate] = SUPERSEDED
    else:
        run.fates[fate] = READ
        coordinator.backup = mean
