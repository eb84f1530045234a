"""Walk the public interface: call every builder with one bad argument after another, and print what went wrong.

Run as a program, without the checked annotations of the tests: ``python tests/lib/walk.py [room …]``. Each call starts
from a valid one and replaces a single argument. What must happen: a ``ValueError`` or ``TypeError`` of this package,
whose message names the argument. A few values, such as a negative number, may also be right. Prints one JSON object.

The calls stand in ``walk_rooms.py``, with values by the sort of the argument; in ``walk_graphs.py``, where every value
takes the place of every argument; and in ``walk_systems.py``, with values for each argument.
"""

import contextlib
import inspect
import json
import pathlib
import signal
import sys
import tempfile
import warnings

import jax
import numpy as np
import walk_graphs
import walk_rooms
import walk_systems

import gossipjax as gj

PACKAGES = (str(pathlib.Path(gj.__file__).parent),)
SECONDS = 30
"""A call that refuses its argument before any long work takes milliseconds; tracing a model may take seconds."""

NOT_A_NUMBER, EMPTY, NOTHING = float("nan"), np.asarray([]), object()

# Values that must be refused, by the sort of the argument that they replace.
BAD = {
    "whole": [1.5, NOT_A_NUMBER, float("inf"), -3, "a", [1], np.ones((2, 2)), NOTHING, True],
    "real": [NOT_A_NUMBER, "a", np.ones((3, 4, 5)), NOTHING, EMPTY, True],
    "word": ["nonsense", 3, NOTHING],
    "flag": ["no", 1, NOTHING],
    "array": [EMPTY, "a", NOTHING, 1 + 1j],
    "thing": [3, "a", NOTHING, []],
    "function": [3, "a", NOTHING],
    "path": [3, NOTHING],
}
# Values that may be right or be refused.
PERHAPS = {
    "real": [-1.0, 0.0, float("inf"), 1e30],
    "array": [np.full(3, np.nan), np.ones((2, 2, 2)), -np.ones(4)],
}


# What a documented default or another form makes right after all: (function, argument) -> values by their repr.
LEGAL = {
    **{(name, "peers"): {"3"} for name in ("drawn_pairs", "drawn_gossip", "push_gossip", "pairwise")},
    ("pushes", "peers"): {"3"},
    **{(name, "peers"): {"3"} for name in ("gossip_learning", "push_rounds", "version_age", "ad_psgd")},
    ("matchings", "peers"): {"3"},
    ("directed_push", "compute"): {"None"},
    ("push_rounds", "compute"): {"None"},
    ("random_walks", "service"): {"3"},
    ("replicate", "params"): {"3"},
    ("fit", "start"): {repr(np.ones((3, 4, 5))), repr(EMPTY)},
    ("error_feedback", "sharing"): {"None"},
    ("by_user", "seed"): {"None"},
    ("with_availability", "availability"): {"None"},
    ("epidemic", "round_seconds"): {"None"},
    ("synchronous", "round_seconds"): {"None"},
    ("subset", "samples"): {"None"},
    ("node_metrics", "nodes"): {"[1]"},
    ("mlp", "hidden"): {repr(EMPTY)},
    ("traffic_series", "times_s"): {repr(EMPTY)},
    ("training_series", "times_s"): {repr(EMPTY)},
    ("audit", "noise"): {"3"},
    **{("power_law", name): {"'nonsense'"} for name in ("name", "unit")},
    **{(name, "attackers"): {repr(EMPTY)} for name in ("honest_consensus",)},
    **{(name, "mu"): {repr(EMPTY), repr(np.ones((3, 4, 5)))} for name in ("epsilon", "delta", "auc")},
    ("delta", "epsilon"): {repr(EMPTY), repr(np.ones((3, 4, 5)))},
}


def sort_of(value):
    """Sort of a valid argument."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "whole"
    if isinstance(value, float):
        return "real"
    if isinstance(value, str):
        return "word"
    if isinstance(value, pathlib.Path):
        return "path"
    if isinstance(value, np.ndarray | list | tuple) and not hasattr(value, "_fields"):
        return "array"
    return "function" if inspect.isfunction(value) else "thing"


def attempt(function, arguments, name, value, must):
    """Say what is wrong with a call; None: nothing."""
    signal.alarm(SECONDS)
    try:
        jax.block_until_ready(function(**(arguments | {name: value})))
    except (ValueError, TypeError) as error:
        raised = raised_in(error)
        if not raised.startswith(PACKAGES):
            return f"raw {type(error).__name__} from {raised}: {error}"
        return None if name in str(error) else f"does not name {name}: {error}"
    except TimeoutError:
        return f"took more than {SECONDS} s"
    except Exception as error:
        return f"raw {type(error).__name__} from {raised_in(error)}: {error}"
    finally:
        signal.alarm(0)
    return "accepted" if must else None


def raised_in(error):
    """File that raised an error."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename


def _too_long(signum, frame):
    raise TimeoutError


def trials():
    """Yield the generators of ``(function, arguments, name, value, whether it must be refused)``, by room."""
    for room, table in walk_rooms.ROOMS.items():
        yield room, _by_sort(table)
    yield "graphs", walk_graphs.trials()
    yield "systems in detail", walk_systems.trials()


def _by_sort(table):
    for function, arguments in table():
        parameters = inspect.signature(function).parameters
        for name, good in arguments.items():
            sort, legal = sort_of(good), LEGAL.get((function.__name__, name), ())
            refused = BAD[sort] + ([] if parameters[name].default is None else [None])
            for value in refused:
                yield function, arguments, name, value, repr(value) not in legal
            for value in PERHAPS.get(sort, []):
                yield function, arguments, name, value, False


def walk(room, found):
    """Call everything of a room; return the number of calls and what went wrong."""
    count, wrong = 0, []
    for function, arguments, name, value, must in found:
        count += 1
        if problem := attempt(function, arguments, name, value, must):
            shown = repr(value).replace("\n", " ")[:40]
            wrong.append(f"{room}: {function.__module__}.{function.__qualname__}({name}={shown}): {problem[:220]}")
    return count, wrong


def main(rooms):
    """Walk the named rooms, or all of them."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    counts, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for room, found in trials():
            if not rooms or room in rooms:
                counts[room], problems = walk(room, found)
                wrong += problems
    print(json.dumps({"counts": counts, "wrong": wrong}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
