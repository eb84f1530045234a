"""Submissions and records for tests of reviews: modules with planted flaws, and accuracies that nobody had to train."""

import types

import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial

import gossipjax as gj
from gossipjax.review._bench import Bench, Budget
from gossipjax.review._submission import read
from gossipjax.review._tuning import Trial, Tuned, first_trials

TINY = Budget(num_nodes=9, num_rounds=8, hidden=4, batch_size=4, samples=300, records=4, tuning_seeds=1, extra_trials=1,
              seeds=5, row_seeds=2, sizes=(9, 12))  # fmt: skip


def renamed(task, step):
    """D-PSGD under another name."""
    return gj.dpsgd(task, Partial(optax.sgd, step))


def submission(protocol=renamed, claim="better than dpsgd on torus at equal rounds", grid=(0.03, 0.1, 0.3), **parts):
    """A submission whose file is this one."""
    module = types.ModuleType("planted")
    module.__file__ = __file__
    for name, value in {"protocol": protocol, "CLAIM": claim, "GRID": {"step": list(grid)}, **parts}.items():
        setattr(module, name, value)
    return read(module)


def bench(folder, budget=None, kind=Bench, **parts):
    """The bench of a submission; ``budget`` changes the tiny one."""
    return kind(submission(**parts), TINY._replace(**(budget or {})), folder, 0)


def settled(of):
    """Settings as if they had been tuned: the first two of each grid."""
    found = {}
    for name in of.contenders:
        trials = first_trials(of, name)
        found[name] = Tuned([Trial(each, 0.9) for each in [*trials, *trials][:2]], False)
    return found


def records(by_node, average=None, finite=True, sent=1000.0, events=8):
    """Records of accuracies ``(seeds, nodes)`` that rise evenly from 0."""
    ends = np.asarray(by_node, float)
    share = np.linspace(0, 1, 5)
    rising = ends[:, None, :] * share[None, :, None]
    average = ends.mean(1) if average is None else np.asarray(average, float)
    return xr.Dataset(
        {
            "accuracy_by_node": (("seed", "record", "node"), rising),
            "average_model_accuracy": (("seed", "record"), average[:, None] * share),
            "bytes_sent": (("seed", "record"), np.tile(sent * share, (len(ends), 1))),
            "finite": ("seed", np.broadcast_to(finite, len(ends))),
        },
        {"event": ("record", np.arange(5) * events // 4)},
    )


class Acted(Bench):
    """A bench whose runs are acted: accuracies of ``act(contender, settings, place, seeds) -> records``."""

    act = None

    def records(self, contender, settings, place, seeds, *, test):
        return type(self).act(contender, settings, place, np.asarray(list(seeds)))


def acted(folder, act, **parts):
    """A bench with acted runs."""
    kind = type("Acting", (Acted,), {"act": staticmethod(act)})
    return bench(folder, kind=kind, **parts)


def noisy(contender, seeds, gain=0.0, spread=0.01, salt=0):
    """Accuracies around 0.8, ``(seeds, nodes)``, plus the gain for the protocol."""
    rows = [np.random.default_rng([salt, number, len(contender)]).normal(0.8, spread) for number in seeds]
    return np.tile(np.asarray(rows)[:, None], (1, 9)) + (gain if contender == "protocol" else 0.0)
