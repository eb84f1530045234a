"""Properties of protocols, as assertions on drawn timelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from gossipjax._base.arguments import real, whole
from gossipjax._base.binding import bind
from gossipjax._base.rows import replicate
from gossipjax._engine.packing import pack
from gossipjax.facts import check_requires
from gossipjax.testing._relabel import relabel_rows, relabel_timeline
from gossipjax.testing._runs import Arrays, as_start, bare, history, repeated
from gossipjax.testing._tapes import pad_timeline
from gossipjax.types import Protocol, Timeline


def check_conserves_mean(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    *,
    quantity: Callable[[Any], PyTree] | None = None,
    tolerance: float | None = None,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert ``(1/n) Σ_i x_i(t) = (1/n) Σ_i x_i(0)`` after every event, in every coordinate.

    The mean is over model rows, without messages in flight. Holds for averaging if every W_t is doubly stochastic, and
    for a learning protocol with learning rate 0.

    >>> from gossipjax import gossip_averaging, timeline, topology
    >>> plan = timeline.poisson_pairs(topology.ring(5), 20, seed=0)
    >>> check_conserves_mean(gossip_averaging(), plan, np.arange(5.0))

    Args:
        protocol: see :func:`~gossipjax.testing.history`.
        timeline: T events.
        x0: stacked start parameters, leaves ``(num_rows, ...)``.
        quantity: the conserved quantity instead of ``protocol.model``, such as the numerators of push-sum: a
            module-level function of the state. Its leaves have at least ``num_rows`` rows, of which the first count.
        tolerance: largest absolute change. None: a bound on rounding errors, ``4 (t + 1)(n + 2) ε max|x|`` per leaf.
        key: of the run; None: always the same.

    Raises:
        AssertionError: if the mean changes; states leaf, event, coordinate, both means and the excess.
    """
    run = history(protocol, timeline, x0, key=key, quantity=quantity)
    found = run.models if quantity is None else run.quantity
    rows = timeline.properties.num_rows
    for path, now, start in _paired(found, x0):
        now, before = now[:, :rows], start.astype(np.float64).mean(axis=0)
        _require_finite(now, f"the models{path}")
        drift = np.abs(now.astype(np.float64).mean(axis=1) - before)
        allowed = _allowed(now, start, tolerance)
        t, *place = _worst(drift, allowed)
        if drift[t, *place] > allowed[t]:
            raise AssertionError(
                f"the mean of x{path}{_at(place)} is {now[t].astype(np.float64).mean(axis=0)[*place]:.9g} after event "
                f"{t} of {timeline.properties.name}, {before[*place]:.9g} at the start; it must be conserved: off by "
                f"{drift[t, *place]:.3g}, {allowed[t]:.3g} is allowed"
            )


def check_consensus(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    *,
    tolerance: float,
    repeats: int = 1,
    on_mean: bool = False,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert that all rows agree at the end: ``max_ij |x_i − x_j| ≤ tolerance`` in every coordinate.

    >>> from gossipjax import gossip_averaging, timeline, topology, mixing
    >>> plan = timeline.rounds(mixing.metropolis(topology.ring(5)), 8)
    >>> check_consensus(gossip_averaging(), plan, np.arange(5.0), tolerance=1e-3, repeats=10, on_mean=True)

    Args:
        protocol: see :func:`~gossipjax.testing.history`.
        timeline: T events.
        x0: stacked start parameters, leaves ``(num_rows, ...)``.
        tolerance: absolute, in the units of x. A doubly stochastic W needs about ln(tolerance) / ln ‖W − J‖₂ rounds.
        repeats: number of consecutive passes through the timeline, in one compiled program. Event numbers, and with
            them random draws, are the same in every pass.
        on_mean: whether the rows must also agree, within the tolerance, with the mean of the start.
        key: of the run; None: always the same.

    Raises:
        AssertionError: if rows disagree; states leaf, coordinate, the two rows and the excess.
        ValueError: if tolerance ≤ 0 or repeats < 1.
    """
    facts = timeline.properties
    if not tolerance > 0 or repeats < 1:
        raise ValueError(f"tolerance={tolerance}, repeats={repeats}: pass a positive tolerance and at least one repeat")
    check_requires(protocol.requires, facts)
    key, start = jax.random.key(0) if key is None else key, as_start(x0, timeline)
    final = jax.device_get(repeated(key, bind(protocol), bare(timeline), start, jnp.asarray(repeats, jnp.int32)))
    for path, now, before in _paired(final, x0):
        _require_finite(now, f"the models{path}")
        now, spread = now.astype(np.float64), np.ptp(now.astype(np.float64), axis=0)
        place = np.unravel_index(np.argmax(spread), spread.shape)
        if spread[place] > tolerance:
            rows = now.reshape(len(now), -1)[:, np.argmax(spread)]
            low, high = np.argmin(rows), np.argmax(rows)
            raise AssertionError(
                f"rows {low} and {high} hold {rows[low]:.9g} and {rows[high]:.9g} in x{path}{_at(place)} after "
                f"{repeats} times {len(timeline)} events of {facts.name}; they must agree: off by {spread[place]:.3g}, "
                f"{tolerance:.3g} is allowed"
            )
        off = np.abs(now.mean(axis=0) - before.astype(np.float64).mean(axis=0))
        if on_mean and off.max() > tolerance:
            raise AssertionError(
                f"the rows of x{path} agree on a value {off.max():.3g} from the mean of the start, after {repeats} "
                f"times {len(timeline)} events of {facts.name}; {tolerance:.3g} is allowed"
            )


def check_permutation_equivariance(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    permutation: Int[np.ndarray, " n"],
    *,
    renamed: Protocol | None = None,
    tolerance: float | None = None,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert permutation equivariance: after every event, the run of the relabelled network is the relabelled run.

    Node i becomes ``permutation[i]`` in the timeline (:func:`~gossipjax.testing.relabel_timeline` lists the supported
    forms), in x0 and, by ``renamed``, in the data. Does not hold for protocols whose random draws depend on a node's
    number, such as noisy gradients.

    >>> from gossipjax import gossip_averaging, timeline, topology
    >>> plan = timeline.poisson_push(topology.path(3), 20, seed=0)
    >>> check_permutation_equivariance(gossip_averaging(), plan, np.arange(3.0), np.array([2, 0, 1]))

    Args:
        protocol: see :func:`~gossipjax.testing.history`.
        timeline: T events, whose model rows are the nodes.
        x0: stacked start parameters, leaves ``(n, ...)``.
        permutation: the new name of each node (:func:`~gossipjax.testing.permutations`).
        renamed: the protocol on the relabelled data (:func:`~gossipjax.testing.relabel_task`); None: ``protocol``.
        tolerance: largest absolute difference. None: a bound on rounding errors, ``4 (t + 1)(n + 2) ε max|x|``, since
            the order of the sums over neighbours changes.
        key: of both runs; None: always the same.

    Raises:
        AssertionError: if the runs differ; states leaf, event, node, both values and the excess.
        ValueError: if permutation is not a permutation, or the timeline cannot be relabelled.
    """
    other = relabel_timeline(timeline, permutation)
    plain = history(protocol, timeline, x0, key=key)
    moved = history(renamed or protocol, other, relabel_rows(jax.tree.map(np.asarray, x0), permutation), key=key)
    for path, now, found in _paired(plain.models, moved.models):
        _require_finite(now, f"the models{path}")
        gap = np.abs(found[:, permutation].astype(np.float64) - now.astype(np.float64))
        allowed = _allowed(now, now[0], tolerance)
        t, node, *place = _worst(gap, allowed)
        if not gap[t, node, *place] <= allowed[t]:
            raise AssertionError(
                f"node {node} holds {now[t, node, *place]:.9g} in x{path}{_at(place)} after event {t} of "
                f"{timeline.properties.name}, but {found[t, permutation[node], *place]:.9g} if it is called "
                f"{permutation[node]}; names must not matter: off by {gap[t, node, *place]:.3g}, {allowed[t]:.3g} is "
                "allowed"
            )


def check_fixed_point(
    protocol: Protocol,
    timeline: Timeline,
    optimum: Arrays,
    *,
    tolerance: float | None = None,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert that a network stays at an optimum if all rows start there.

    Holds if this is the optimum of every single node, gradients have no noise, and mixing keeps equal models equal.

    >>> import optax
    >>> from gossipjax import dpsgd, tasks, timeline, topology
    >>> task = tasks.quadratic(np.ones((5, 2)), curvature=np.arange(1.0, 6.0)[:, None])
    >>> plan = timeline.poisson_pairs(topology.ring(5), 20, seed=0)
    >>> check_fixed_point(dpsgd(task, optax.sgd(0.1)), plan, task.test["optimum"])

    Args:
        protocol: see :func:`~gossipjax.testing.history`; :func:`~gossipjax.testing.small_tasks` has tasks for it.
        timeline: T events.
        optimum: one model, leaves without a row axis.
        tolerance: largest absolute change. None: a bound on rounding errors, ``4 (t + 1)(n + 2) ε max|x|``, valid if
            local steps do not amplify them.
        key: of the run; None: always the same.

    Raises:
        AssertionError: if a row leaves the optimum; states leaf, event, row and the excess.
    """
    run = history(
        protocol, timeline, replicate(jax.tree.map(jnp.asarray, optimum), timeline.properties.num_rows), key=key
    )
    for path, now, best in _paired(run.models, optimum):
        _require_finite(now, f"the models{path}")
        gap = np.abs(now.astype(np.float64) - best.astype(np.float64))
        allowed = _allowed(now, now[0], tolerance)
        t, row, *place = _worst(gap, allowed)
        if gap[t, row, *place] > allowed[t]:
            raise AssertionError(
                f"row {row} holds {now[t, row, *place]:.9g} in x{path}{_at(place)} after event {t} of "
                f"{timeline.properties.name}, where all began at the optimum {best[*place]:.9g}; it is no fixed point: "
                f"off by {gap[t, row, *place]:.3g}, {allowed[t]:.3g} is allowed"
            )


def check_approaches(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    optimum: Arrays,
    *,
    share: float = 0.1,
    repeats: int = 1,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert that a run ends nearer to an optimum: ``‖x − x*‖ ≤ share · ‖x0 − x*‖``, over all rows and leaves.

    A protocol may have the optimum as a fixed point and conserve what it should, and still leave it from any other
    start: its iteration must contract.

    >>> import optax
    >>> from gossipjax import dpsgd, tasks, timeline, topology
    >>> task = tasks.quadratic(np.ones((5, 2)), curvature=np.arange(1.0, 6.0)[:, None])
    >>> plan = timeline.poisson_pairs(topology.ring(5), 50, seed=0)
    >>> check_approaches(dpsgd(task, optax.sgd(0.1)), plan, np.zeros((5, 2)), task.test["optimum"])

    Args:
        protocol: see :func:`~gossipjax.testing.history`.
        timeline: T events, long enough for the protocol to get there.
        x0: stacked start parameters, leaves ``(num_rows, ...)``.
        optimum: one model, leaves without a row axis, which the protocol should reach.
        share: of the distance at the start, between 0 and 1.
        repeats: as for :func:`check_consensus`.
        key: of the run; None: always the same.

    Raises:
        AssertionError: if the distance is larger, or not finite; states both distances.
        ValueError: if share is not between 0 and 1, repeats < 1, or the start is the optimum.
    """
    share = real("share", share, above=0, below=1, remedy="0.1 asks for a tenth of the distance")
    repeats = whole("repeats", repeats, least=1)
    check_requires(protocol.requires, timeline.properties)
    key, start = jax.random.key(0) if key is None else key, as_start(x0, timeline)
    final = jax.device_get(repeated(key, bind(protocol), bare(timeline), start, jnp.asarray(repeats, jnp.int32)))
    before, after = (_distance(x, optimum) for x in (x0, final))
    if before == 0:
        raise ValueError("x0: is the optimum, from which nothing can come nearer; start elsewhere")
    if not after <= share * before:
        raise AssertionError(
            f"the models are {after:.3g} from the optimum after {repeats} times {len(timeline)} events of "
            f"{timeline.properties.name}, and were {before:.3g} from it at the start; {share * before:.3g} is allowed"
        )


def _distance(x: Arrays, optimum: Arrays) -> float:
    """Return the Euclidean distance of all rows from one model, in float64."""
    apart = jax.tree.map(
        lambda a, b: np.sum(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))), x, optimum
    )
    return float(np.sqrt(sum(jax.tree.leaves(apart))))


def check_packing(
    protocol: Protocol,
    timeline: Timeline,
    x0: Arrays,
    *,
    width: int = 4,
    tolerance: float | None = None,
    key: Key[Array, ""] | None = None,
) -> None:
    """Assert that the packed timeline gives the same final state as the sequential one, messages in flight included.

    Holds for protocols that touch only the rows that an event names. Integers must be equal.

    >>> from gossipjax import gossip_averaging, timeline, topology
    >>> plan = timeline.poisson_push(topology.ring(8), 30, seed=0)
    >>> check_packing(gossip_averaging(), plan, np.arange(8.0))

    Args:
        protocol: see :func:`~gossipjax.testing.history`.
        timeline: T narrow events that :func:`gossipjax.pack` accepts.
        x0: stacked start parameters, leaves ``(num_rows, ...)``.
        width: source events in a wide event; every width compiles a new program.
        tolerance: largest absolute difference of floats. None: a bound on rounding errors, ``4 T (n + 2) ε max|x|``
            per leaf.
        key: of both runs; None: always the same.

    Raises:
        AssertionError: if the states differ; states the leaf, the index, both values and the excess.
        ValueError: if the timeline cannot be packed.
    """
    key = jax.random.key(0) if key is None else key
    one = history(protocol, timeline, x0, key=key).state
    two = history(protocol, _wide(timeline, width, key), x0, key=key).state
    for path, a, b in _paired(one, two):
        whole = not np.issubdtype(a.dtype, np.inexact)
        gap = np.abs(np.asarray(b, np.float64) - np.asarray(a, np.float64))
        allowed = 0.0 if whole else _allowed(a[None], a, tolerance, events=len(timeline))[0]
        place = np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), gap.shape) if gap.size else None
        if place is not None and not (gap[place] <= allowed or a[place] == b[place]):
            raise AssertionError(
                f"the state{path}{_at(place)} is {a[place]:.9g} after {timeline.properties.name}, but {b[place]:.9g} "
                f"after the same events packed to width {width}; they must be equal: off by {gap[place]:.3g}, "
                f"{allowed:.3g} is allowed"
            )


def _wide(timeline: Timeline, width: int, key: Key[Array, ""]) -> Timeline:
    """Pack the timeline, and pad it to a shape that depends only on its shape and the width."""
    wide = pack(timeline, width, key=None if timeline.draw is None else key)
    fields: Any = wide.xs | wide.shared
    shapes = {name: np.shape(fields[name])[-1] for name in ("nodes", "receivers") if name in fields}
    # One lane beyond the acting nodes marks the last event.
    acting = 1 << int(np.ceil(np.log2(max(shapes["nodes"], width + 1))))
    lanes = 1 << int(np.ceil(np.log2(max(shapes.get("receivers", 1), 2 * width))))
    return pad_timeline(wide, acting=acting, lanes=lanes, num_slots=timeline.properties.num_slots)


def _paired(a: PyTree, b: PyTree) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Pair the leaves of two pytrees of one structure, with their paths."""
    left = jax.tree_util.tree_leaves_with_path(a)
    right = jax.tree.leaves(b)
    if len(left) != len(right):
        raise ValueError(f"{len(left)} leaves against {len(right)}: both must be models of one structure")
    return [
        (jax.tree_util.keystr(path), np.asarray(x), np.asarray(y)) for (path, x), y in zip(left, right, strict=True)
    ]


def _allowed(
    now: np.ndarray, start: np.ndarray, tolerance: float | None, events: int | None = None
) -> Float[np.ndarray, " T"]:
    """Bound the rounding error of a leaf ``(T, rows, ...)`` after each event: every sum has at most rows + 2 terms."""
    if tolerance is not None:
        return np.full(len(now), tolerance)
    rows = now.shape[1] if now.ndim > 1 else 1
    largest = max(np.abs(now.astype(np.float64)).max(initial=0), np.abs(start.astype(np.float64)).max(initial=0))
    passed = np.arange(1, len(now) + 1) if events is None else np.full(len(now), events)
    # Subnormal numbers are flushed to zero.
    kind = np.finfo(now.dtype)
    return 4.0 * passed * (rows + 2) * max(float(kind.eps) * largest, float(kind.tiny))


def _worst(gap: np.ndarray, allowed: Float[np.ndarray, " T"]) -> tuple[int, ...]:
    """Return the index of the largest excess in the first event with one; without any, that of the smallest margin."""
    over = gap - allowed.reshape(-1, *(1,) * (gap.ndim - 1))
    by_event = over.reshape(len(over), -1).max(axis=1)
    broken = np.flatnonzero(by_event > 0)
    t = int(broken[0]) if broken.size else int(np.argmax(by_event))
    return t, *(int(i) for i in np.unravel_index(np.argmax(gap[t]), gap.shape[1:]))


def _require_finite(now: np.ndarray, what: str) -> None:
    bad = np.argwhere(~np.isfinite(now))
    if bad.size:
        raise AssertionError(f"{what} hold {now[tuple(bad[0])]} at {tuple(bad[0].tolist())}; all must be finite")


def _at(place: Any) -> str:
    """Format the coordinate, if there is one."""
    return f"[{', '.join(str(int(i)) for i in place)}]" if len(place) else ""
