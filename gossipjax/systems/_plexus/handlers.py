"""What a node does when a model or an acknowledgement arrives: training, aggregation and handing on.

Reference: Dhasade et al. 2025, arXiv 2503.05509, algorithm 2; the details of the public code, sacs-epfl/plexus.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.find import close, find_live
from gossipjax.systems._plexus.plan import CANCELLED, DROPPED, INTERRUPTED, LATE, STORED, TRAINED_ONLY, UNSENT
from gossipjax.systems._plexus.record import aggregates, set_fate, training_ends, training_starts
from gossipjax.systems._plexus.sizes import AGG_ACK, AGGREGATED, TRAINED
from gossipjax.systems._plexus.state import (
    OVER,
    SEARCHING,
    SENDING,
    TRAINING,
    WAITING,
    Aggregation,
    Delivery,
    Simulation,
    Task,
    cancel_transfer,
    hear_model,
    merge_pending,
    order_of,
    own_view,
    send,
    send_model,
    work,
)
from gossipjax.systems._plexus.views import View


def on_aggregated(sim: Simulation, node: int, sender: int, round_: int, source: int, view: View | None) -> None:
    """A mean arrives: train on it, unless its round is old or under way; a newer round stops what is going on."""
    hear_model(sim, node, sender, round_, view)
    begin_round(sim, node, round_, source)


def begin_round(sim: Simulation, node: int, round_: int, source: int) -> None:
    """Train in a round from the mean of aggregation ``source``, if the round is news and the node idle."""
    if round_ > sim.train_round[node]:
        sim.train_round[node] = round_
        abort(sim, node, INTERRUPTED)
        sim.done[node] = False
    if round_ != sim.train_round[node] or sim.tasks[node] is not None or sim.done[node]:
        return
    task = Task(node, round_, training_starts(sim.log, node, round_, sim.now, source))
    sim.tasks[node] = task
    work(sim, 1)
    task.entry = at(sim.queue, sim.now + sim.train_seconds[node], _trained, sim, task)


def abort(sim: Simulation, node: int, fate: int) -> None:
    """End a node's task, whatever its phase; ``fate`` is that of a training that is interrupted."""
    task = sim.tasks[node]
    if task is None:
        return
    phase, task.phase, sim.tasks[node] = task.phase, OVER, None
    if phase == TRAINING:
        cancel(task.entry)
        training_ends(sim.log, task.training, sim.now, fate)
        work(sim, -1)
    elif phase == SEARCHING:
        close(sim, task.search)
        set_fate(sim.log, task.training, CANCELLED)
    elif phase == SENDING:
        for number in sorted(task.uploads & sim.moving[node]):
            cancel_transfer(sim, number)


def _trained(sim: Simulation, task: Task) -> None:
    training_ends(sim.log, task.training, sim.now, TRAINED_ONLY)
    work(sim, -1)
    _forward(sim, task)


def _forward(sim: Simulation, task: Task) -> None:
    """Look for the aggregator of a trained model."""
    task.phase = SEARCHING
    want = sim.settings.num_aggregators or 1
    ids = _aggregators(sim, task.node, task.round)
    search = find_live(sim, task.node, ids, want, partial(_upload, sim, task))
    if task.phase == SEARCHING:
        task.search = search


def _aggregators(sim: Simulation, node: int, round_: int) -> tuple[int, ...]:
    """Who may aggregate the trainings of a round, best first."""
    settings = sim.settings
    if settings.server is not None:
        return (settings.server,)
    order = order_of(sim, node, round_ + settings.next_aggregator)
    if settings.num_aggregators is not None:
        return order
    return tuple(sorted(order[: settings.sample_size], key=lambda other: -sim.bandwidth[other]))


def _upload(sim: Simulation, task: Task, found: list[int]) -> None:
    """Send the trained model to the aggregators found; with none the model is lost."""
    task.phase, task.left = SENDING, len(found)
    task.uploads.clear()
    if not found:
        task.phase = WAITING
        set_fate(sim.log, task.training, UNSENT)
    content = (task.round + 1, task.training, own_view(sim, task.node))
    for aggregator in found:
        ended = partial(_upload_over, sim, task)
        number = send_model(sim, Delivery(TRAINED, task.node, aggregator, _on_trained, content, ended))
        if number is not None:
            task.uploads.add(number)
    merge_pending(sim, task.node)


def _upload_over(sim: Simulation, task: Task) -> None:
    """After the last upload wait for the acknowledgement; MoDeST has none."""
    task.left -= 1
    if task.left or task.phase != SENDING:
        return
    task.phase = WAITING
    if sim.settings.num_aggregators is not None:
        _rest(sim, task)


def _rest(sim: Simulation, task: Task) -> None:
    """The node is idle, and done with its round."""
    task.phase, sim.tasks[task.node], sim.done[task.node] = OVER, None, True


def _on_trained(sim: Simulation, node: int, sender: int, round_: int, training: int, view: View | None) -> None:
    """A trained model arrives: store it, and take the mean when there are enough."""
    hear_model(sim, node, sender, round_, view)
    if round_ in sim.finished[node]:
        set_fate(sim.log, training, LATE)
        return
    aggregation = sim.aggregations[node].get(round_)
    if aggregation is None:
        aggregation = Aggregation(node, round_)
        sim.aggregations[node][round_] = aggregation
        if sim.settings.num_aggregators is None:
            seconds = sim.now + sim.settings.aggregation_timeout_s
            aggregation.timer = at(sim.queue, seconds, _time_is_up, sim, aggregation)
            aggregation.collecting = True
            work(sim, 1)
    aggregation.models[sender] = training
    set_fate(sim.log, training, STORED)
    if len(aggregation.models) >= sim.settings.needed:
        _complete(sim, aggregation)


def _time_is_up(sim: Simulation, aggregation: Aggregation) -> None:
    """Take the mean of fewer models, or drop the round; a later round that was finished here makes it idle."""
    node, round_ = aggregation.node, aggregation.round
    if any(finished > round_ for finished in sim.finished[node]):
        stop_collecting(sim, aggregation)
    elif len(aggregation.models) >= sim.settings.min_models:
        _complete(sim, aggregation)
    else:
        drop(sim, aggregation)


def stop_collecting(sim: Simulation, aggregation: Aggregation) -> None:
    """An aggregation no longer counts as work under way."""
    if aggregation.timer is not None:
        cancel(aggregation.timer)
    if aggregation.collecting:
        aggregation.collecting = False
        work(sim, -1)


def drop(sim: Simulation, aggregation: Aggregation) -> None:
    """Forget an aggregation and the models in it."""
    stop_collecting(sim, aggregation)
    del sim.aggregations[aggregation.node][aggregation.round]
    if aggregation.round not in sim.finished[aggregation.node]:
        for training in aggregation.models.values():
            set_fate(sim.log, training, DROPPED)


def _complete(sim: Simulation, aggregation: Aggregation) -> None:
    """Take the mean of all stored models, ``θ = Σ_j θ_j / m``, and look for the next participants."""
    node, round_, settings = aggregation.node, aggregation.round, sim.settings
    stop_collecting(sim, aggregation)
    sim.finished[node].add(round_)
    number = aggregates(sim.log, sim.now, node, round_ - 1, list(aggregation.models.values()))
    sim.log.views.append(_view_statistics(sim, round_))
    if round_ - 1 >= settings.num_rounds:
        sim.outcome = "rounds"
        return
    ids = order_of(sim, node, round_)
    find_live(sim, node, ids, settings.sample_size, partial(_distribute, sim, aggregation, number))


def _view_statistics(sim: Simulation, round_: int) -> tuple[float, ...]:
    if sim.views is None:
        return (float(sim.settings.num_nodes),) * 4
    return beliefs.active_counts(sim.views, np.array(sim.online), round_, sim.settings.activity_window)


def _distribute(sim: Simulation, aggregation: Aggregation, number: int, found: list[int]) -> None:
    """Send the mean to all participants, in random order."""
    node, aggregation.left = aggregation.node, len(found)
    sim.rng.shuffle(found)
    content = (aggregation.round, number, own_view(sim, node))
    for participant in found:
        ended = partial(_download_over, sim, aggregation)
        send_model(sim, Delivery(AGGREGATED, node, participant, on_aggregated, content, ended))
    merge_pending(sim, node)
    if not found:
        _acknowledge(sim, aggregation)


def _download_over(sim: Simulation, aggregation: Aggregation) -> None:
    aggregation.left -= 1
    if not aggregation.left:
        _acknowledge(sim, aggregation)


def _acknowledge(sim: Simulation, aggregation: Aggregation) -> None:
    """Tell those whose models are in the mean; an aggregator that has left meanwhile tells nobody."""
    node, round_ = aggregation.node, aggregation.round
    if sim.aggregations[node].get(round_) is not aggregation:
        return
    del sim.aggregations[node][round_]
    if sim.settings.num_aggregators is None:
        for sender in aggregation.models:
            send(sim, AGG_ACK, node, sender, on_acknowledged, round_ - 1, True)


def on_acknowledged(sim: Simulation, node: int, sender: int, round_: int, success: bool) -> None:
    """The round is over for this node; or its aggregator leaves, and another one is looked for."""
    task = sim.tasks[node]
    waits = task is not None and task.phase == WAITING and task.round == round_
    if not success and sim.views is not None:
        beliefs.force_left(sim.views, node, sender, round_)
    if task is None or not waits:
        return
    if success:
        _rest(sim, task)
    else:
        _forward(sim, task)
