"""HADFL with objects: from a plan's trainings, transfers and rings alone, what every model and version must be."""

import bisect

import numpy as np

from gossipjax.systems import activity
from gossipjax.systems._activity import COMPLETED


class Node:
    """A device, as a researcher would write it down."""

    def __init__(self, model):
        self.model, self.version, self.mean, self.letter = model, 0.0, 0, None
        self.needs_model, self.deaths, self.said = False, [], []


class Replay:
    """Nodes that train, average, merge, die and come back at the times of a plan.

    Args:
        plan: of HADFL.
        starts: models, one for each node; node 0 has that of the coordinator.
        trained: ``trained(x, i)``: a unit of node i.
        delay: seconds of every message; no two things may happen at one time.
        changes: ``(seconds, node, joins)``.
        beta: as in the plan.
        ring_version: as in the plan.
        recovery: as in the plan.
    """

    def __init__(self, plan, starts, trained, delay, changes=(), beta=0.5, ring_version="mean", recovery="backup"):
        self.nodes, self.trained, self.beta = [Node(x) for x in starts], trained, beta
        self.combine = max if ring_version == "max" else lambda versions: sum(versions) / len(versions)
        self.backup_is_asked = recovery == "backup"
        self.means, self.backups, self.delay = [(starts[0], 0.0)], [(-1.0, 0)], delay
        self.history, self.found = plan.history, activity(plan)
        kinds, words = self.history.transfer_kind, self.history.KINDS
        done = self.found.training_completed
        ends, nodes = self.found.training_end_s[done].tolist(), self.found.training_node[done].tolist()
        steps = [(t, self.unit, (i,)) for t, i in zip(ends, nodes, strict=True)]
        rings = [c for c, outcome in enumerate(self.history.outcomes) if outcome == "averaged"]
        for number, c in enumerate(rings, 1):
            end = float(self.history.cycle_end_s[c])
            steps.append((end, self.ring, (c, end)))
            steps += [
                (t + delay, self.arrive, (j, number)) for t, j in self._chain(c, end, kinds == words.index("broadcast"))
            ]
            for k in np.flatnonzero((kinds == words.index("backup")) & (self.found.asked_s == end)):
                if self.found.state[k] == COMPLETED:
                    self.backups.append((float(self.found.ended_s[k]) + delay, number))
        for k in np.flatnonzero((kinds == words.index("restore")) & (self.found.state == COMPLETED)):
            asked, ended, j = (
                float(column[k]) for column in (self.found.asked_s, self.found.ended_s, self.found.receiver)
            )
            steps.append((ended + delay, self.restore, (int(j), asked)))
        steps += [(t, self.come if joins else self.die, (i,)) for t, i, joins in changes]
        # A death comes before the end of a ring that it brings about.
        deaths_first = sorted(steps, key=lambda step: (step[0], step[1] != self.die))
        for seconds, do, content in deaths_first:
            if seconds < plan.end_s:
                self.now = seconds
                do(*content)

    def _chain(self, c, end, broadcasts):
        """Follow the broadcaster from receiver to receiver; yield when each completed transfer ended, and to whom."""
        mine, at = broadcasts & (self.found.sender == self.history.cycle_broadcaster[c]), end
        while (links := np.flatnonzero(mine & (self.found.asked_s == at))).size:
            mine[links[0]] = False
            at = float(self.found.ended_s[links[0]])
            if self.found.state[links[0]] == COMPLETED:
                yield at, int(self.found.receiver[links[0]])

    def say(self, node):
        node.said.append((self.now + self.delay, node.version))

    def unit(self, i):
        node = self.nodes[i]
        node.model, node.version = self.trained(node.model, i), node.version + 1
        if node.letter is not None:
            mean, version = self.means[node.letter]
            share = self.beta
            if share == "version":
                share = version / (version + node.version) if version + node.version else 0.5
            node.model = (1 - share) * node.model + share * mean
            node.version = max(node.version, float(round((1 - share) * node.version + share * version)))
            node.mean, node.letter = node.letter, None
        self.say(node)

    def ring(self, c, end):
        members = np.flatnonzero(self.history.survivors[c]).tolist()
        takers = set(self.found.mean_node[self.found.mean_s == end].tolist()) & set(members)
        parts = [self.part(self.nodes[i], i in takers, self.history.cycle_decided_s[c]) for i in members]
        mean = np.mean([model for model, _ in parts], axis=0), self.combine([version for _, version in parts])
        self.means.append(mean)
        for i in takers:
            node = self.nodes[i]
            (node.model, node.version), node.mean, node.letter = mean, len(self.means) - 1, None

    def part(self, node, lives, decided):
        """A member's model: one that has died has passed it on before its first death in the ring."""
        return (node.model, node.version) if lives else next(part for t, part in node.deaths if t > decided)

    def arrive(self, i, number):
        node = self.nodes[i]
        if node.needs_model:
            self.adopt(node, number)
        elif number > max(node.mean, node.letter or 0):
            node.letter = number

    def restore(self, i, asked):
        if self.nodes[i].needs_model:
            at = bisect.bisect_right(sorted(self.backups), (asked, np.inf)) - 1
            self.adopt(self.nodes[i], max(number for _, number in sorted(self.backups)[: at + 1]))

    def adopt(self, node, number):
        (node.model, node.version), node.mean, node.letter, node.needs_model = self.means[number], number, None, False
        self.say(node)

    def die(self, i):
        node = self.nodes[i]
        node.deaths.append((self.now, (node.model, node.version)))
        node.letter, node.needs_model = None, False

    def come(self, i):
        self.nodes[i].needs_model = self.backup_is_asked or len(self.means) > 1
        if not self.nodes[i].needs_model:
            self.say(self.nodes[i])

    @property
    def models(self):
        return np.array([node.model for node in self.nodes])

    def known(self, i, seconds):
        """The last version that the coordinator has heard of."""
        return max((when, version) for when, version in self.nodes[i].said if when <= seconds)[1]
