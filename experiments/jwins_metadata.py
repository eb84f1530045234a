"""How many bits do positions take in JWINS messages, by code, for random positions and for those of a trained network?

Random positions have closed forms: a gap between neighbours among αd of d takes ``1 + 2 Σ_j (1 − α)^(2^j − 1)`` bits in
Elias' gamma code, and no code needs fewer than ``log2 C(d, αd)`` bits on average, about d times the binary entropy of
α. Simulated masks are compared with these. Then a network is trained with cut-offs that are drawn beforehand, so the
number of values in every message is known, and all other bits are positions. At the end, the size of every node's
message is measured at each cut-off. If the coefficients that change are clustered, gaps are shorter than random ones,
and the bound, which is for random positions, does not hold.

Reference: Dhasade et al. 2023, arXiv 2306.04377 (JWINS); Elias 1975.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Int

from experiments.lib.compressed import Network, plan_of, train
from experiments.lib.kept import kept_run, model_of
from experiments.lib.problems import Name, Problem, of_jwins
from experiments.lib.report import Row, over_seeds
from gossipjax import Event, Protocol, dpsgd, placement
from gossipjax._base.binding import bind
from gossipjax._base.rows import parameters_per_row
from gossipjax.compress.codes import elias_gamma
from gossipjax.compress.transforms import wavelet
from gossipjax.sharing import jwins
from gossipjax.sharing._jwins import CUT_OFFS
from gossipjax.timeline._events import first_event
from theory.compression import bernoulli_gap_bits, expected_gap_bits, subset_entropy_bits

CLAIM = "Elias gamma gaps make the positions of JWINS messages about 9 times smaller than integers, 6 % of a message"
HEADER = 128
VALUE_BITS = 32
CODES = ("int32", "bitmap", "Elias gamma", "entropy bound")


class Config(NamedTuple):
    """Settings."""

    task: Name = "writers"
    num_nodes: int = 96
    num_rounds: int = 300
    record_every: int = 10
    num_masks: int = 100
    """Simulated masks per cut-off."""
    test_nodes: int | None = 16
    seed: int = 0
    keep: str | None = None
    """Folder of finished runs."""


QUICK = Config(task="digits", num_nodes=16, num_rounds=100, record_every=5, test_nodes=4)
PAPER = Config(task="cifar10", num_rounds=1000, record_every=20)


def partial_cut_offs() -> tuple[float, ...]:
    """Return the released cut-offs below the whole model."""
    return tuple(alpha for alpha in CUT_OFFS if alpha < 1)


def index_bits(code: str, k: int, d: int) -> float:
    """Compute the exact mean bits of k random positions of d, without a header, by the law of their gaps.

    Args:
        code: one of :data:`CODES`; the bound is ``log2 C(d, k)``.
        k: number of positions, at least 1.
        d: coordinates.

    Raises:
        ValueError: an unknown code.
    """
    match code:
        case "int32":
            return 32.0 * k
        case "bitmap":
            return float(d)
        case "Elias gamma":
            # The first position is in the header; all gaps have the same law.
            return expected_gap_bits(k, d) * (k - 1) / k
        case "entropy bound":
            return subset_entropy_bits(k, d)
    raise ValueError(f"code={code!r}: choose among {', '.join(CODES)}")


@jax.jit
def _sizes(masks: jax.Array) -> jax.Array:
    return jax.lax.map(elias_gamma, masks)


def simulated_bits(k: int, d: int, number: int, seed: int) -> Int[np.ndarray, " masks"]:
    """Count the Elias gamma bits of random masks with k of d positions, in whole bytes, without headers."""
    rng = np.random.default_rng((seed, k))
    masks = np.zeros((number, d), bool)
    for row in masks:
        row[rng.choice(d, k, replace=False)] = True
    return np.asarray(_sizes(jnp.asarray(masks)), np.int64) - HEADER


def value_bits(draws: Int[np.ndarray, "T n"], d: int) -> Int[np.ndarray, "T n"]:
    """Compute the bits of the values in every message from its cut-off."""
    sizes = np.array([d if alpha >= 1 else round(alpha * d) for alpha in CUT_OFFS], np.int64)
    return VALUE_BITS * sizes[draws]


def _message_bits(protocol: Protocol, key: jax.Array, state: Any, event: Event) -> Any:
    with placement.using("map"):
        return protocol.step(key, state, event)[1].bits


_message_bits_jit = jax.jit(_message_bits)


def trained(problem: Problem, config: Config, checkpoint: Any) -> xr.Dataset:
    """Train with JWINS, and count the bits of positions: over the run, and at its end by cut-off and node."""
    n = config.num_nodes
    nodes = None if config.test_nodes is None else min(config.test_nodes, n)
    records = max(1, config.num_rounds // config.record_every)
    network = Network(n, config.num_rounds, num_records=records, test_nodes=nodes, seed=config.seed)
    draws = np.random.default_rng(config.seed).integers(len(CUT_OFFS), size=(config.num_rounds, n))
    _, trajectory = train(problem, jwins(draws=draws), network, checkpoint=checkpoint)
    d = wavelet("sym2", levels=4).size(parameters_per_row(jax.tree.map(lambda leaf: leaf[0], trajectory.x)))
    done = trajectory.dataset.event.values.astype(int)
    before = np.append(0, np.cumsum(value_bits(draws, d).sum(axis=1)))
    sent = trajectory.dataset.bytes_sent.isel(seed=0).values * 8 / network.degree
    bits = [_at_the_end(problem, network, trajectory.state.inner, alpha) for alpha in partial_cut_offs()]
    sizes = np.array([round(alpha * d) for alpha in partial_cut_offs()])
    often = np.stack([np.append(0, np.cumsum((draws == at).sum(axis=1)))[done] for at in range(len(sizes))])
    return xr.Dataset(
        {
            "index_bits": ("record", sent - before[done], {"long_name": "of all messages, headers included"}),
            "value_bits": ("record", before[done].astype(np.float64)),
            "messages": (("cut_off", "record"), often, {"long_name": "with positions, so far"}),
            "node_index_bits": (("cut_off", "node"), np.stack(bits) - VALUE_BITS * sizes[:, None] - HEADER),
            "score": ("record", trajectory.dataset[f"test_{problem.metric}"].isel(seed=0).sel(statistic="mean").values),
        },
        {"round": ("record", done), "cut_off": list(partial_cut_offs())},
        {"coefficients": d, "data": problem.source},
    )


def _at_the_end(problem: Problem, network: Network, state: Any, alpha: float) -> Int[np.ndarray, " n"]:
    """Return the size of every node's next message at one cut-off."""
    forced = np.full((1, network.num_nodes), CUT_OFFS.index(alpha))
    optimizer = Partial(optax.sgd, problem.learning_rate)
    protocol = dpsgd(problem.task, optimizer, local_steps=problem.local_steps, sharing=jwins(draws=forced))
    key = jax.random.key(network.seed)
    event = first_event(key, plan_of(network))
    bits = _message_bits_jit(bind(protocol), key, jax.tree.map(lambda leaf: leaf[0], state), event)
    return np.asarray(bits, np.int64)


def run(config: Config) -> xr.Dataset:
    """Train once; add simulated masks of the same size, and the closed forms."""
    problem = of_jwins(config.task, config.num_nodes, seed=config.seed)
    settings: dict[str, Any] = {"stem": "jwins_metadata", "data": problem.source, "model": model_of(problem.task)}
    settings |= {
        "batch_size": problem.batch_size,
        "local_steps": problem.local_steps,
        "learning_rate": problem.learning_rate,
    }
    settings |= config._replace(keep=None)._asdict()
    dataset = kept_run(config.keep, settings, lambda at: trained(problem, config, at), problem.task)
    d = int(dataset.attrs["coefficients"])
    sizes = [round(alpha * d) for alpha in partial_cut_offs()]
    simulated = [simulated_bits(k, d, config.num_masks, config.seed) for k in sizes]
    expected = [[index_bits(code, k, d) for k in sizes] for code in CODES]
    facts = {"num_nodes": config.num_nodes, "task": problem.name, "num_masks": config.num_masks}
    return (
        dataset.assign_coords(code=list(CODES))
        .assign(
            positions=("cut_off", np.array(sizes)),
            simulated_bits=(("cut_off", "mask"), np.stack(simulated)),
            expected_bits=(("code", "cut_off"), np.array(expected)),
            limit=("cut_off", np.array([bernoulli_gap_bits(alpha) for alpha in partial_cut_offs()])),
        )
        .assign_attrs(facts)
    )


def of_the_run(dataset: xr.Dataset) -> dict[str, float]:
    """Compute the bits of all positions of the run by every code, for random positions, without headers."""
    messages = dataset.messages.isel(record=-1)
    return {str(code): float((dataset.expected_bits.sel(code=code) * messages).sum()) for code in dataset.code.values}


def measured_bits(dataset: xr.Dataset) -> xr.DataArray:
    """Compute the bits of the gaps that the run has sent up to each record, without headers."""
    return dataset.index_bits - HEADER * dataset.messages.sum("cut_off")


def share_of_message(dataset: xr.Dataset, bits: float, header: int = 0) -> float:
    """Compute the share of positions in all bytes of the run, for a given code."""
    total = bits + header * float(dataset.messages.isel(record=-1).sum())
    return total / (total + float(dataset.value_bits.isel(record=-1)))


def table(dataset: xr.Dataset) -> list[Row]:
    """Compare bits per position with the closed form, simulated and trained; report factors and shares of the run."""
    simulated, trained_ones = [], []
    for alpha in dataset.cut_off.values:
        at = dataset.sel(cut_off=alpha)
        gaps = float(at.positions) - 1
        law = float(at.expected_bits.sel(code="Elias gamma")) / gaps
        words = f"law of the gaps of {gaps + 1:.0f} positions; of many: {float(at.limit):.4g}"
        simulated.append(over_seeds(f"bits per gap, random, {alpha:g}", at.simulated_bits.values / gaps, law, words))
        measured = float(at.node_index_bits.mean()) / gaps
        words = f"the same; trained {measured / law - 1:+.1%}"
        trained_ones.append(Row(f"bits per gap, trained, {alpha:g}", measured, np.nan, law, words))
    return simulated + trained_ones + _of_the_run_rows(dataset)


def _of_the_run_rows(dataset: xr.Dataset) -> list[Row]:
    random, sent = of_the_run(dataset), float(measured_bits(dataset).isel(record=-1))
    integers = 32 * float(dataset.positions.sum())
    closed = 32 * float(dataset.cut_off.sum()) / float((dataset.cut_off * dataset.limit).sum())
    law, measured = random["int32"] / random["Elias gamma"], random["int32"] / sent
    part, expected = (share_of_message(dataset, bits, HEADER) for bits in (sent, random["Elias gamma"]))
    drawn = "at random, for the cut-offs drawn"
    rows = [
        _plain(
            "int32 / Elias, random", integers / float(dataset.simulated_bits.mean("mask").sum()), closed, "closed form"
        ),
        _plain("int32 / Elias, trained", measured, law, f"{drawn}; {measured / law - 1:+.1%}, one run: no verdict"),
        _plain("bitmap / Elias, trained", random["bitmap"] / sent, random["bitmap"] / random["Elias gamma"], drawn),
        _plain("part of all bytes, Elias, trained", part, expected, drawn),
    ]
    for code in ("int32", "bitmap", "entropy bound"):
        rows.append(_plain(f"part of all bytes, {code}", share_of_message(dataset, random[code]), np.nan, "computed"))
    return rows


def _plain(quantity: str, measured: float, predicted: float, source: str) -> Row:
    return Row(quantity, measured, np.nan, predicted, source)
