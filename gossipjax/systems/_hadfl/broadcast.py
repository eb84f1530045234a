"""After a ring: one member sends the mean to every device outside it, another the backup to the coordinator."""

from __future__ import annotations

from gossipjax.systems._hadfl.state import (
    BACKUP,
    BROADCAST,
    CONTROL,
    DROPPED,
    MERGED,
    SUPERSEDED,
    Mean,
    Message,
    Row,
    Run,
    adopt,
    same_life,
    send_mean,
)
from gossipjax.systems._kernel.queue import at


def spread(run: Run, mean: Mean, living: list[int], row: Row) -> None:
    """Choose the member that broadcasts and the one that sends the backup; both train on meanwhile."""
    sender = living[int(run.choices.integers(len(living)))]
    row.broadcaster = sender
    receivers = [node for node in range(run.settings.num_nodes) if node not in living]
    _broadcast(run, mean, sender, run.devices[sender].incarnation, run.choices.permutation(receivers).tolist())
    if run.coordinator.works:
        keeper = living[(living.index(sender) + 1) % len(living)]
        send_mean(run, BACKUP, keeper, run.settings.num_nodes, _backed_up, keeper, mean)


def _broadcast(run: Run, mean: Mean, sender: int, incarnation: int, receivers: list[int]) -> None:
    """Send the mean to the next receiver that can be reached, one at a time."""
    while receivers and same_life(run, sender, incarnation):
        node = receivers.pop()
        if run.kernel.online[node]:
            life = run.devices[node].incarnation
            send_mean(run, BROADCAST, sender, node, _sent, mean, sender, incarnation, receivers, node, life)
            return


def _sent(
    number: int,
    completed: bool,
    run: Run,
    fate: int,
    mean: Mean,
    sender: int,
    incarnation: int,
    receivers: list[int],
    node: int,
    life: int,
) -> None:
    if completed:
        seconds = run.kernel.now + run.delay(sender, node)
        at(run.kernel.queue, seconds, _receive, run, fate, mean, node, life, rank=CONTROL)
    else:
        run.fates[fate] = DROPPED
    _broadcast(run, mean, sender, incarnation, receivers)


def _receive(run: Run, fate: int, mean: Mean, node: int, life: int) -> None:
    """Put a mean into the mailbox, for the end of the unit; a device without a model begins with it."""
    device = run.devices[node]
    if not same_life(run, node, life):
        run.fates[fate] = DROPPED
    elif device.needs_model:
        run.fates[fate] = MERGED
        adopt(run, node, mean)
    elif device.mailbox is not None and device.mailbox.mean.number > mean.number:
        run.fates[fate] = SUPERSEDED
    else:
        if device.mailbox is not None:
            run.fates[device.mailbox.number] = SUPERSEDED
        device.mailbox = Message(mean, fate)


def _backed_up(number: int, completed: bool, run: Run, fate: int, sender: int, mean: Mean) -> None:
    n = run.settings.num_nodes
    if completed:
        at(run.kernel.queue, run.kernel.now + run.delay(sender, n), _keep, run, fate, mean, rank=CONTROL)
    else:
        run.fates[fate] = DROPPED


def _keep(run: Run, fate: int, mean: Mean) -> None:
    coordinator = run.coordinator
    if not coordinator.works:
        run.fates[fate] = DROPPED
    else:
        run.fates[fate] = MERGED
        coordinator.backup = max(coordinator.backup, mean)
