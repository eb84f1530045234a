"""What a node does when a model or an acknowledgement arrives: training, aggregation and handing on.

Reference: Dhasade et al. 2025, arXiv 2503.05509, algorithm 2; the details of the public code, sacs-epfl/plexus.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gossipjax.systems._kernel.loop import cut
from gossipjax.systems._kernel.queue import at, cancel
from gossipjax.systems._kernel.record import averages, training_ends, training_starts
from gossipjax.systems._plexus import views as beliefs
from gossipjax.systems._plexus.counts import active_counts
from gossipjax.systems._plexus.find import close, find_live
from gossipjax.systems._plexus.history import (
    CANCELLED,
    DROPPED,
    INTERRUPTED,
    LATE,
    RUNNING,
    STORED,
    TRAINED_ONLY,
    UNSENT,
)
from gossipjax.systems._plexus.record import aggregates, set_fate
from gossipjax.systems._plexus.sizes import AGG_ACK, AGGREGATED, TRAINED
from gossipjax.systems._plexus.state import (
    OVER,
    SEARCHING,
    SENDING,
    TRAINING,
    WAITING,
    Aggregation,
    Job,
    ModelMessage,
    Simulation,
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
    """Handle a mean: train on it, unless its round is old or in progress; a newer round stops the current one."""
    hear_model(sim, node, sender, round_, view)
    begin_round(sim, node, round_, source)


def begin_round(sim: Simulation, node: int, round_: int, source: int) -> None:
    """Train in a round from the mean of aggregation ``source``, if the round is new to the node and it is idle."""
    if round_ > sim.train_round[node]:
        sim.train_round[node] = round_
        abort(sim, node, INTERRUPTED)
        sim.done[node] = False
    if round_ != sim.train_round[node] or sim.jobs[node] is not None or sim.done[node]:
        return
    kernel = sim.kernel
    job = Job(node, round_, training_starts(kernel.record, kernel.now, node))
    sim.record.training_round.append(round_)
    sim.record.training_source.append(source)
    sim.record.fates.append(RUNNING)
    sim.jobs[node] = job
    work(sim, 1)
    job.entry = at(kernel.queue, kernel.now + sim.train_seconds[node], _trained, sim, job)


def abort(sim: Simulation, node: int, fate: int) -> None:
    """End a node's job, whatever its phase; ``fate`` is that of a training that is interrupted."""
    job = sim.jobs[node]
    if job is None:
        return
    phase, job.phase, sim.jobs[node] = job.phase, OVER, None
    if phase == TRAINING:
        cancel(job.entry)
        _end_training(sim, job, fate)
    elif phase == SEARCHING:
        close(sim, job.search)
        job.search = None
        set_fate(sim.record, job.training, CANCELLED)
    elif phase == SENDING:
        for number in sorted(job.uploads & sim.kernel.moving[node]):
            cut(sim.kernel, number)


def _end_training(sim: Simulation, job: Job, fate: int) -> None:
    training_ends(sim.kernel.record, sim.kernel.now, job.training, fate == TRAINED_ONLY)
    sim.record.fates[job.training] = fate
    work(sim, -1)


def _trained(sim: Simulation, job: Job) -> None:
    _end_training(sim, job, TRAINED_ONLY)
    _forward(sim, job)


def _forward(sim: Simulation, job: Job) -> None:
    """Search for the aggregator of a trained model."""
    job.phase = SEARCHING
    want = sim.settings.num_aggregators or 1
    ids = _aggregators(sim, job.node, job.round)
    search = find_live(sim, job.node, ids, want, partial(_upload, sim, job))
    if job.phase == SEARCHING:
        job.search = search


def _aggregators(sim: Simulation, node: int, round_: int) -> Sequence[int]:
    """Who may aggregate the trainings of a round, best first."""
    settings = sim.settings
    if settings.server is not None:
        return (settings.server,)
    order = order_of(sim, node, round_ + settings.next_aggregator)
    if settings.num_aggregators is not None:
        return order
    return sim.by_bandwidth(tuple(order[: settings.sample_size]))


def _upload(sim: Simulation, job: Job, found: list[int]) -> None:
    """Send the trained model to the aggregators found; if there are none, the model is lost."""
    job.phase, job.left, job.search = SENDING, len(found), None
    job.uploads.clear()
    if not found:
        job.phase = WAITING
        set_fate(sim.record, job.training, UNSENT)
    content = (job.round + 1, job.training, own_view(sim, job.node))
    for aggregator in found:
        ended = partial(_upload_over, sim, job)
        number = send_model(sim, ModelMessage(TRAINED, job.node, aggregator, _on_trained, content, ended))
        if number is not None:
            job.uploads.add(number)
    merge_pending(sim, job.node)


def _upload_over(sim: Simulation, job: Job) -> None:
    """After the last upload, wait for the acknowledgement; MoDeST has none."""
    job.left -= 1
    if job.left or job.phase != SENDING:
        return
    job.phase = WAITING
    if sim.settings.num_aggregators is not None:
        _rest(sim, job)


def _rest(sim: Simulation, job: Job) -> None:
    """Mark the node as idle and done with its round."""
    job.phase, sim.jobs[job.node], sim.done[job.node] = OVER, None, True


def _on_trained(sim: Simulation, node: int, sender: int, round_: int, training: int, view: View | None) -> None:
    """Handle a trained model: store it, and take the mean once there are enough."""
    hear_model(sim, node, sender, round_, view)
    if round_ in sim.finished[node]:
        set_fate(sim.record, training, LATE)
        return
    aggregation = sim.aggregations[node].get(round_)
    if aggregation is None:
        aggregation = Aggregation(node, round_)
        sim.aggregations[node][round_] = aggregation
        if sim.settings.num_aggregators is None:
            seconds = sim.kernel.now + sim.settings.timers.aggregation_timeout_s
            aggregation.timer = at(sim.kernel.queue, seconds, _time_is_up, sim, aggregation)
            aggregation.collecting = True
            work(sim, 1)
    aggregation.models[sender] = training
    set_fate(sim.record, training, STORED)
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
    """Stop counting an aggregation as work in progress."""
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
            set_fate(sim.record, training, DROPPED)


def _complete(sim: Simulation, aggregation: Aggregation) -> None:
    """Take the mean of all stored models, ``θ = Σ_j θ_j / m``, and search for the next participants."""
    node, round_, settings = aggregation.node, aggregation.round, sim.settings
    stop_collecting(sim, aggregation)
    sim.finished[node].add(round_)
    averages(sim.kernel.record, sim.kernel.now, node)
    number = aggregates(sim.record, round_ - 1, list(aggregation.models.values()))
    sim.record.views.append(_view_statistics(sim, round_))
    if round_ - 1 >= settings.num_rounds:
        sim.kernel.stopped = "rounds"
        return
    ids = order_of(sim, node, round_)
    find_live(sim, node, ids, settings.sample_size, partial(_distribute, sim, aggregation, number))


def _view_statistics(sim: Simulation, round_: int) -> tuple[float, ...]:
    if sim.views is None:
        return (float(sim.settings.num_nodes),) * 4
    assert sim.counts is not None
    return active_counts(sim.views, sim.counts, sim.kernel.online, round_, sim.settings.membership.activity_window)


def _distribute(sim: Simulation, aggregation: Aggregation, number: int, found: list[int]) -> None:
    """Send the mean to all participants, in random order."""
    node, aggregation.left = aggregation.node, len(found)
    sim.rng.shuffle(found)
    if sim.views is not None:
        beliefs.publish(sim.views, node)
    content = (aggregation.round, number, own_view(sim, node))
    for participant in found:
        ended = partial(_download_over, sim, aggregation)
        send_model(sim, ModelMessage(AGGREGATED, node, participant, on_aggregated, content, ended))
    merge_pending(sim, node)
    if not found:
        _acknowledge(sim, aggregation)


def _download_over(sim: Simulation, aggregation: Aggregation) -> None:
    aggregation.left -= 1
    if not aggregation.left:
        _acknowledge(sim, aggregation)


def _acknowledge(sim: Simulation, aggregation: Aggregation) -> None:
    """Acknowledge the models in the mean to their senders; an aggregator that has left in the meantime does not."""
    node, round_ = aggregation.node, aggregation.round
    if sim.aggregations[node].get(round_) is not aggregation:
        return
    del sim.aggregations[node][round_]
    if sim.settings.num_aggregators is None:
        for sender in aggregation.models:
            send(sim, AGG_ACK, node, sender, on_acknowledged, round_ - 1, True)


def on_acknowledged(sim: Simulation, node: int, sender: int, round_: int, success: bool) -> None:
    """End the round of this node; or, if its aggregator leaves, search for another one."""
    job = sim.jobs[node]
    waits = job is not None and job.phase == WAITING and job.round == round_
    if not success and sim.views is not None:
        beliefs.force_left(sim.views, node, sender, round_)
    if job is None or not waits:
        return
    if success:
        _rest(sim, job)
    else:
        _forward(sim, job)
