"""What attackers send: lies that may be another one to every victim, from all that the honest nodes around it hold."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Key

from gossipjax._base.arguments import choice, instance, optional_whole, real, whole
from gossipjax._base.binding import Frozen
from gossipjax._base.calls import recordable, recorded
from gossipjax._base.lazy import stats
from gossipjax.robust._lanes import Context, Rule, norms
from gossipjax.topology import Topology


class Victim(NamedTuple):
    """One honest node and what is around it."""

    key: Key[Array, ""]
    """A key of this node and event."""
    node: Int[Array, ""]
    own: Float[Array, " P"]
    others: Float[Array, "k P"]
    """The true models of all neighbours."""
    weights: Float[Array, " k"]
    honest: Bool[Array, " k"]
    """Neighbours that send their true models."""
    rule: Rule
    context: Context | None
    before: Float[Array, " P"] | None = None
    """Its model when it last received, before it mixed, at first its start; None unless the attack remembers."""


class Unreached(UserWarning):
    """No event of a plan lets an attacker reach the one node that an attack is aimed at; a longer plan may."""


@recordable
class Attack(NamedTuple):
    """What attackers send.

    ``lie(victim, common) -> (k, P)`` gives a lie for every lane; those of honest neighbours are not used. ``common`` is
    ``prepare(attackers, models)`` of all rows ``(n, P)``, once an event, or None.
    """

    lie: Partial
    prepare: Partial | None = None
    start: Any = None
    """``start(attackers, num_nodes)`` on the host: the attack with what it must know before the run; or None."""
    remembers: bool = False
    """Whether the lie is made from ``victim.before``; a run then holds every model twice."""
    victim: int | None = None
    """The one node that the attack is aimed at; ``simulate`` warns (:class:`Unreached`) if it hears no attacker in any
    event of the plan, unless events are drawn in the run. None: every honest node."""


def _repeat(lie: Float[Array, " P"], victim: Victim) -> Float[Array, "k P"]:
    return jnp.broadcast_to(lie[None], victim.others.shape)


def _moments(victim: Victim) -> tuple[Array, Array]:
    """Return mean and standard deviation, over n − 1, of the closed honest neighbourhood, coordinate by coordinate."""
    live = (victim.honest & (victim.weights > 0))[:, None]
    number = 1 + jnp.sum(live).astype(victim.own.dtype)
    mean = (victim.own + jnp.sum(jnp.where(live, victim.others, 0), axis=0)) / number
    squares = jnp.square(victim.own - mean) + jnp.sum(
        jnp.where(live, jnp.square(victim.others - mean[None]), 0), axis=0
    )
    return mean, jnp.sqrt(squares / jnp.maximum(number - 1, 1))


def _sign_flip(scale: Array, victim: Victim, common: Any) -> Array:
    del common
    return _repeat(-scale.astype(victim.own.dtype) * _moments(victim)[0], victim)


def _own_flip(scale: Array, victim: Victim, common: Any) -> Array:
    del common
    return -scale.astype(victim.own.dtype) * victim.others


def _alie(z: Array, victim: Victim, common: Any) -> Array:
    del common
    mean, deviation = _moments(victim)
    return _repeat(mean - z.astype(mean.dtype) * deviation, victim)


def _dissensus(epsilon: Array, victim: Victim, common: Any) -> Array:
    del common
    honest = jnp.where(victim.honest, victim.weights, 0)
    drift = jnp.sum(honest[:, None] * (victim.others - victim.own[None]), axis=0)
    lying = jnp.sum(jnp.where(victim.honest, 0, victim.weights))
    scale = epsilon.astype(drift.dtype) / jnp.where(lying > 0, lying, 1)
    return _repeat(victim.own - scale * drift, victim)


def _project(fiedler: Array, attackers: Array, models: Array) -> tuple[Array, Array]:
    """Return ``Fᵀ X`` over the honest rows, and F, which is 0 at attackers."""
    del attackers
    F = fiedler.astype(models.dtype)
    return jnp.sum(F[:, None] * jnp.where(F[:, None] == 0, 0, models), axis=0), F


def _spectral(scale: Array, victim: Victim, common: tuple[Array, Array]) -> Array:
    direction, F = common
    push = direction * F[victim.node]
    length = norms(push[None])[0]
    return _repeat(victim.own + scale.astype(push.dtype) * push / jnp.where(length > 0, length, 1), victim)


def _echo(victim: Victim, common: Any) -> Array:
    del common
    return _repeat(victim.own, victim)


def _model_of(node: Frozen, attackers: Array, models: Array) -> Array:
    del attackers
    if node.value >= len(models):
        raise ValueError(f"node={node.value}: echo copies a node of {len(models)}, 0 … {len(models) - 1}")
    return models[node.value]


def _replay(victim: Victim, common: Array) -> Array:
    return _repeat(common, victim)


def _gaussian(scale: Array, victim: Victim, common: Any) -> Array:
    del common
    noise = jax.random.normal(victim.key, victim.others.shape, victim.others.dtype)
    return _moments(victim)[0][None] + scale.astype(noise.dtype) * noise


@recorded("wu2023ios", "he2022byzantine")
def sign_flip(scale: float = 1.0, *, of: Literal["mean", "own"] = "mean") -> Attack:
    """Build the sign-flipping attack: ``−s μ``, with μ the mean of the victim and its honest neighbours.

    Args:
        scale: s > 0.
        of: ``"mean"`` (IOS), or ``"own"``: each attacker negates the model that it would send if it were honest.

    Raises:
        ValueError: if scale is not positive, or of is unknown.
    """
    lie = {"mean": _sign_flip, "own": _own_flip}[choice("of", of, ("mean", "own"))]
    return Attack(Partial(lie, jnp.asarray(real("scale", scale, above=0))))


@recorded("xie2020fall")
def ipm(epsilon: float = 0.1) -> Attack:
    """Build inner-product manipulation, also called fall of empires: ``−ε μ``; above 1 it is the strong one.

    Args:
        epsilon: ε > 0.

    Raises:
        ValueError: if epsilon is not positive.

    Reference: Xie, Koyejo, Gupta 2020, arXiv 1903.03936.
    """
    return Attack(Partial(_sign_flip, jnp.asarray(real("epsilon", epsilon, above=0))))


def alie_z(num_nodes: int, num_attackers: int) -> float:
    """Return z of ALIE's formula, ``Φ⁻¹((n − m − s)/(n − m))`` with ``s = ⌊n/2 + 1⌋ − m``; at most 0: no attack.

    >>> from gossipjax import robust
    >>> round(robust.alie_z(50, 24), 6)
    1.426077

    Args:
        num_nodes: n, of the network or of the neighbourhood.
        num_attackers: m < n/2 of them.
    """
    n = whole("num_nodes", num_nodes, least=2)
    m = whole("num_attackers", num_attackers, least=0, most=(n - 1) // 2, remedy="less than half of the nodes")
    supporters = n // 2 + 1 - m
    return float(stats.norm.ppf((n - m - supporters) / (n - m)))


@recorded("baruch2019little")
def alie(z: float = 1.5) -> Attack:
    """Build "a little is enough": ``μ − z sd``, coordinate by coordinate, over the victim and its honest neighbours.

    sd is that of a sample of k models, whose squares are divided by k − 1.

    Args:
        z: number of standard deviations, above 0; :func:`alie_z` is the published formula.

    Raises:
        ValueError: if z is not positive, which is no attack.

    Reference: Baruch, Baruch, Goldberg 2019, arXiv 1902.06156.
    """
    remedy = "with z ≤ 0 it is no attack; 1.5 is usual, alie_z(n, m) the published formula"
    return Attack(Partial(_alie, jnp.asarray(real("z", z, above=0, remedy=remedy))))


@recorded("he2022byzantine")
def dissensus(epsilon: float = 1.0) -> Attack:
    """Build the dissensus attack: ``x_i − ε Σ_{j honest} W_ij (x_j − x_i) / Σ_{f lying} W_if``.

    Under plain averaging, ε = 1 makes the victim stay where it is; more pushes it away from its neighbours. With ε = 1
    it is also called the isolation attack.

    Args:
        epsilon: ε > 0.

    Raises:
        ValueError: if epsilon is not positive.

    Reference: He, Karimireddy, Jaggi 2022, arXiv 2202.01545.
    """
    return Attack(Partial(_dissensus, jnp.asarray(real("epsilon", epsilon, above=0))))


def isolation() -> Attack:
    """Build the isolation attack: the weighted mean of all that the victim hears becomes its own model.

    It is :func:`dissensus` with ε = 1, by the name of arXiv 2206.04568.
    """
    return dissensus(1.0)


class _Spectral:
    """Finds the slowest mode of the honest graph before the run."""

    def __init__(self, topology: Topology, scale: float):
        self.topology, self.scale, self.num_nodes = topology, scale, topology.num_nodes

    def __call__(self, attackers: Int[np.ndarray, " a"], num_nodes: int) -> Attack:
        """Return the attack with the Fiedler vector of the honest nodes."""
        if self.topology.num_nodes != num_nodes:
            raise ValueError(
                f"a spectral attack for {self.topology.num_nodes} nodes on {num_nodes} models: build it for the graph "
                "of the run"
            )
        honest = np.setdiff1d(np.arange(num_nodes), attackers)
        A = self.topology.adjacency().toarray()[np.ix_(honest, honest)].astype(float)
        _, vectors = np.linalg.eigh(np.diag(A.sum(axis=1)) - A)
        fiedler = np.zeros(num_nodes)
        fiedler[honest] = vectors[:, 1]
        return Attack(Partial(_spectral, jnp.asarray(self.scale)), Partial(_project, jnp.asarray(fiedler)))


@recorded("gaucher2025robust")
def spectral(topology: Topology, scale: float = 1.0) -> Attack:
    """Build the spectral attack: push each victim along the slowest mode of the honest graph.

    ``x_i + s (Fᵀ X) F_i / ‖(Fᵀ X) F_i‖``, with F the Fiedler vector of the honest nodes' Laplacian.

    Args:
        topology: of the network, undirected.
        scale: s > 0; :func:`strongest` searches it.

    Raises:
        TypeError: if topology is not a topology.
        ValueError: if scale is not positive; in a run, if the topology has another number of nodes.

    Reference: Gaucher, Dieuleveut, Hendrikx 2025, arXiv 2410.10418, as in its code.
    """
    instance("topology", topology, Topology, "build one with gossipjax.topology, such as ring(8)")
    if topology.directed:
        raise ValueError(f"topology={topology.name}: is directed; a spectral attack needs an undirected graph")
    size = real("scale", scale, above=0)
    # The mode depends on the attackers, who are not known yet.
    return Attack(Partial(_echo), None, _Spectral(topology, size))


@recorded("he2022byzantine")
def echo(node: int | None = None) -> Attack:
    """Build the echo: the victim hears its own model, as if it had more neighbours like itself.

    Args:
        node: replay the model of this node to every victim instead; None: the victim's own.

    Raises:
        ValueError: if node is negative; in a run, if there is no such node.
    """
    copied = optional_whole("node", node, least=0)
    if copied is None:
        return Attack(Partial(_echo))
    return Attack(Partial(_replay), Partial(_model_of, Frozen(copied)))


def _targeted(node: Frozen, victim: Victim, common: Any) -> Array:
    del common
    assert victim.before is not None  # the attack remembers
    difference = 2 * (victim.own - victim.before)
    aimed = True if node.value is None else victim.node == node.value
    return _repeat(jnp.where(aimed, difference, victim.own), victim)


@recorded("pasquini2023insecurity")
def targeted_echo(node: int | None = None) -> Attack:
    """Build the targeted echo: the victim hears ``2 (x_t − x_{t−1})``, twice what its model has changed by.

    ``x_t`` is the victim's model in the event, before it mixes, and ``x_{t−1}`` the one when it last received, at first
    the model that it starts from: at every event of rounds; at meetings and single messages, events in which it only
    sends do not count. The idea is that only what the victim has learned comes back to it. The lie also pulls its model
    towards zero, and a run in which every node is a victim may diverge. On a ring of 8 nodes, members of the victim's
    shard were found less often under this attack than without one, and more often under :func:`echo`.

    Args:
        node: the victim; other nodes hear their own model from attackers, so that the attackers' weight stays with
            them. None: every honest node is a victim.

    Raises:
        ValueError: if node is negative; with the sharing, if it is an attacker or, where the topology is known, is no
            node or hears no attacker; before a run, if there is no such node, or every event of the plan has one graph
            and it hears no attacker there. A plan that changes, and may go on in a longer one, only warns
            (:class:`~gossipjax.robust.Unreached`); events that are drawn in the run
            (:func:`~gossipjax.timeline.drawn_pairs`) are not looked at.

    Reference: Pasquini, Raynal, Troncoso 2023, arXiv 2205.08443, for attacks by echo (recalled, not looked up). The
    lie is that of the code github.com/AndreaLaGrotteria/decentralizepy, whose attackers send nothing to nodes other
    than the victim, and nothing to it until they have heard two of its models; here they send from the first event on.
    """
    aimed = optional_whole("node", node, least=0)
    return Attack(Partial(_targeted, Frozen(aimed)), remembers=True, victim=aimed)


@recorded("wu2023ios")
def gaussian(scale: float = 30.0) -> Attack:
    """Build the Gaussian attack: ``μ + N(0, s² I)``, drawn anew for every attacker, victim and event.

    Args:
        scale: s > 0.

    Raises:
        ValueError: if scale is not positive.
    """
    return Attack(Partial(_gaussian, jnp.asarray(real("scale", scale, above=0))))
