"""Walk through all formulas with bad arguments, and print every call that is neither right nor refused in our words.

A program of its own: tests check annotations, which refuses some of these arguments before the formulas do.
"""

import importlib
import inspect
import pathlib
import types

import numpy as np

from theory import moments, scaling

MODULES = ("age", "compression", "consensus", "delay", "drift", "exact", "hadfl", "mixing", "moments")
MODULES += ("opportunistic", "privacy", "queues", "rates", "robust", "round_time", "scaling", "secure", "spectral")
MODULES += ("spreading", "staleness", "time_complexity", "users")
RING = np.array([[0.0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
W = (np.eye(4) + RING) / 3
COUNTS = {"n": 4, "num_nodes": 4, "d": 6, "k": 2, "size": 3, "s": 2, "degree": 3, "delay": 2, "max_delay": 3}
COUNTS |= {"levels": 3, "left": 2, "right": 3, "clusters": 2, "rows": 3, "columns": 4, "dimension": 3, "iterations": 9}
COUNTS |= {"updates": 9, "helpers": 1, "layers": 2, "capacity": 3, "local_steps": 2, "width": 32, "start": 0, "i": 0}
COUNTS |= {"bound": 2, "conserved": 1, "rounds": 3, "num_rounds": 3}
COUNTS |= {"m": 5, "b": 1, "num_steps": 2}
RATES_OF_TRUST = {"mu": 1.0, "mu_2": 8.0, "sigma": 1.0, "sigma_pair": 1.0}
COUNTS |= {"j": 1, "distance": 2, "source": 1, "deaths": 1, "cycles": 5, "count": 2, "words": 9, "colluders": 1}
RATES = dict.fromkeys(("version_rate", "gossip_rate", "source_rate", "head_rate", "event_rate", "arrival_rate"), 1.0)
RATES |= dict.fromkeys(("push_rate", "gradient_rate", "update_rate", "prompt_rate", "rate_factor", "flight_time"), 1.0)
RATES |= dict.fromkeys(
    ("dead_time", "mean_extra", "shift", "mean", "smoothness", "gap", "constant", "mean_service"), 1.0
)
RATES |= dict.fromkeys(("noise_std", "heterogeneity", "curvature", "variance", "V0", "t", "mean_delay", "beta"), 1.0)
RATES |= dict.fromkeys(("step", "step_size", "epsilon", "overflow", "gamma", "delta", "p", "omega", "alpha"), 0.3)
RATES |= dict.fromkeys(("eta", "weight", "mixing_rate", "contraction", "lambda2", "phi", "mean_error"), 0.4)
RATES |= dict.fromkeys(("slope", "horizon", "bytes_per_second", "model_bytes", "ring_version"), 1.0)
RATES |= dict.fromkeys(("latency_s", "timeout_s", "handshake_s", "dropout", "loss"), 0.1)
RATES |= {"noise_ratio": 3.0, "penalty": 1.0, "relaxation": 0.5, "active": 0.5}
RATES |= RATES_OF_TRUST
RATES |= {"second_moment": 2.0, "service_rate": 3.0, "log_minus_power": 3.0}
ARRAYS = {
    "W": W,
    "P": W,
    "M": W,
    "adjacency": RING,
    "laplacian": 2 * np.eye(4) - RING,
    "rates": RING,
    "push_rates": RING,
    "source_rates": np.ones(4),
    "gradient_rates": np.ones(4),
    "weights": np.array([0.2, 0.3, 0.4, 0.1]),
    "C": np.tril(np.ones((3, 3))),
    "receivers": np.array([0, 2]),
    "observers": np.array([1]),
    "curvatures": np.ones(4),
    "targets": np.arange(4.0),
    "x0": np.array([1.0, -1.0, 2.0, -2.0]),
    "x": np.arange(4.0),
    "compute": np.ones(4),
    "reach": np.zeros(4),
    "ways": 2.0 - 2 * np.eye(4),
    "counts": np.ones(4),
    "transfer": np.where(RING > 0, 2.0, np.inf),
    "updates": np.ones((4, 2)),
    "variances": np.ones(4),
    "delay_pmf": np.array([0.5, 0.5]),
    "stops": np.array([0.5, 0.5]),
    "values": np.array([1, 5]),
    "members": (0, 2),
    "matrices": W[None],
    "times": np.array([0.0, 1.0]),
    "start": moments.initial_moments(np.zeros(4)),
    "Z": moments.initial_moments(np.ones(4)),
    "versions": np.array([40.0, 20.0, 20.0, 10.0]),
    "powers": np.array([4.0, 2.0, 2.0, 1.0]),
    "periods": np.array([0.25, 0.5, 0.5, 1.0]),
    "value": np.array([1.0, 2.0, 3.0, 4.0]),
    "error": np.full(4, 0.1),
}
WORDS = {"event": "push", "protocol": "push", "graph": "complete", "law": "logarithm", "delays": "average"}
WORDS |= {"recovery": "seeds", "rule": "cs_plus"}
WORDS |= {"local": True, "relay": False, "self_allowed": True}
EVENTS = moments.push_gossip_sgd_events(RING, np.ones(4), np.ones(4), np.arange(4.0), step=0.3, noise_std=1.0)
FIT_N = np.array([4.0, 8.0, 16.0, 32.0])
COMPARED = scaling.compare(FIT_N, ARRAYS["value"], ARRAYS["error"])
OWN = {
    "age.hitting_moments": {"rates": np.ones(2)},
    "age.mixed_poisson_pmf": {"rates": np.ones(2)},
    "compression.kept_energy": {"k": 2},
    "compression.choco_errors": {"rounds": np.array([0, 3])},
    "consensus.averaging_error": {"rounds": 3},
    "consensus.transient_consensus": {"rounds": np.array([0, 3])},
    "consensus.expected_path": {"rounds": 3},
    "hadfl.cycle_seconds_bound": {"members": 4},
    "hadfl.inclusion_probabilities": {"p": np.full(4, 0.25)},
    "hadfl.ring_seconds": {"members": 4},
    "moments.stationary_moments": {"events": EVENTS},
    "moments.transient_moments": {"events": EVENTS},
    "scaling.fit": {"n": FIT_N},
    "scaling.compare": {"n": FIT_N},
    "scaling.predict": {"n": FIT_N, "one": COMPARED.fits[0]},
    "scaling.describe": {"one": COMPARED.fits[0]},
    "scaling.plot": {"comparison": COMPARED},
    "spreading.asynchronous_time": {"start": "hub"},
    "spreading.asynchronous_time_graph": {"start": 0},
    "opportunistic.least_capacity": {"staleness": 1.0},
    "staleness.mean_delay_heterogeneous": {"rates": np.ones(4)},
    "staleness.delay_bounds": {"rates": np.ones(4)},
    "time_complexity.exponential_step": {"m": 2},
    "users.stationary_users": {"sizes": np.array([2, 1, 1, 3])},
    "users.users_at": {"sizes": np.array([2, 1, 1, 3]), "start": 1.0},
    "staleness.sure_bound": {"delay": 2.0},
}
# What matplotlib takes, it says itself.
# An age of no nodes is NaN by definition; no values have no codes.
FINE = {"age.set_ages(version_rate=a fraction)", "compression.elias_gamma_bits(values=no numbers)"}
NOT_OURS = {("scaling.plot", name) for name in ("ax", "xlabel", "ylabel", "label", "colour")}
BAD = {
    "text": "a",
    "nothing": None,
    "an object": object(),
    "a dictionary": {},
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "a negative": -1,
    "a fraction": 1.5,
    "a flag": True,
    "no numbers": np.zeros(0),
    "ragged": [[1.0], [1.0, 2.0]],
    "too deep": np.ones((2, 1, 3, 1)),
    "not square": np.ones((2, 3)),
    "numbers": np.ones(7),
    "NaNs": np.full((4, 4), np.nan),
    "complex": 1j,
    "functions": [print, print],
}
REFUSED = set(BAD) - {"infinity", "minus infinity", "a negative", "a fraction", "too deep", "not square", "numbers"}
"""Sorts that no number, array or word may be; the others are right for some arguments."""


def public():
    for name in MODULES:
        module = importlib.import_module(f"theory.{name}")
        for function_name, function in sorted(vars(module).items()):
            if isinstance(function, types.FunctionType) and not function_name.startswith("_"):
                if inspect.unwrap(function).__module__ == module.__name__:
                    yield f"{name}.{function_name}", inspect.unwrap(function)


FUNCTIONS = dict(public())


def good(name, function):
    """A call that is right: by the names of the arguments, which mean the same everywhere."""
    known = COUNTS | RATES | ARRAYS | WORDS | OWN.get(name, {})
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is inspect.Parameter.empty]
    return {parameter.name: known[parameter.name] for parameter in needed}


def faults(name, function):
    """Yield what is wrong with the answers of one function, argument by argument."""
    call, signature = good(name, function), inspect.signature(function)
    function(**call)
    for parameter in signature.parameters:
        for sort, value in () if (name, parameter) in NOT_OURS else BAD.items():
            default = signature.parameters[parameter].default
            taken = (sort == "nothing" and default is None) or (
                sort == "a flag" and isinstance(call.get(parameter, default), bool)
            )
            found = _answer(function, call | {parameter: value})
            fault = _fault(parameter, found, must_refuse=sort in REFUSED and not taken)
            if fault:
                yield f"{name}({parameter}={sort}): {fault}"


def _answer(function, call):
    try:
        with np.errstate(all="raise", under="ignore"):
            return function(**call)
    except Exception as error:
        return error


def _fault(parameter, found, *, must_refuse):
    if not isinstance(found, Exception):
        return f"taken: {found!r:.80}" if must_refuse or _has_nan(found) else ""
    if not isinstance(found, ValueError | TypeError) or not _is_ours(found):
        return f"raw {found!r:.120}"
    named = parameter in str(found) or _by_another_name(parameter, str(found))
    return "" if named else f"does not name it: {found}"


def _is_ours(error):
    """Whether the last line that raised is one of these packages', not of NumPy or SciPy."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    return pathlib.Path(traceback.tb_frame.f_code.co_filename).parent.name == "theory"


def _by_another_name(parameter, message):
    """A matrix of rates may be what makes the number of nodes wrong, and a step be unstable by a curvature."""
    return parameter in ("W", "P", "curvature", "order", "local_steps", "n", "x0", "updates") and any(
        word in message for word in ("eigenvalue", "rho=", "row of", "column of", "step_size", "step=")
    )


def _has_nan(found):
    if isinstance(found, np.ndarray | float):
        return bool(np.isnan(found).any())
    return isinstance(found, tuple) and any(_has_nan(part) for part in found if isinstance(part, np.ndarray | float))


if __name__ == "__main__":
    calls = sum(len(inspect.signature(function).parameters) * len(BAD) for function in FUNCTIONS.values())
    print(f"{calls} calls of {len(FUNCTIONS)} functions")
    for name, function in FUNCTIONS.items():
        for fault in faults(name, function):
            if fault.split(": ")[0] not in FINE:
                print(fault)
