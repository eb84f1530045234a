"""Every planted flaw fails the row that is for it, and an honest gain passes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from reviews import acted, bench, noisy, records, renamed, settled, submission

import gossipjax as gj
from gossipjax.review import _claims, _correctness, _costs, _faults, _security, _tuning
from gossipjax.review._wire import least_bits

SGD = Partial(optax.sgd, 0.1)


def better(contender, settings, place, seeds, gain=0.05):
    """An honest gain, on every network, in every seed."""
    return records(noisy(contender, seeds, gain))


# --- row 1 ---


def _forget(step, key, state, event):
    state, info = step(key, state, event)
    return state._replace(x=jax.tree.map(lambda leaf: leaf * (1 - 1e-3), state.x)), info


def forgetful(task, step):
    inner = renamed(task, step)
    return inner._replace(step=Partial(_forget, inner.step))


def test_a_mean_that_is_lost_by_a_thousandth_a_round_fails_row_1(tmp_path):
    row = _correctness.correct(bench(tmp_path, protocol=forgetful))
    assert row.verdict == "fail"
    assert "conservation" in row.reason


def test_authors_may_say_that_the_mean_is_not_conserved_and_the_row_says_so(tmp_path):
    note = _correctness._conserves(bench(tmp_path, protocol=forgetful, CONSERVES_MEAN=False), None)
    assert note == "not run; the authors say CONSERVES_MEAN = False"


# --- row 2 ---


def _fade(inner, key, state, event):
    before = state.x
    state, info = inner(key, state, event)
    share = 11.0 / (event.index[0].astype(float) + 11.0)

    def part(old, new):
        return old + share.astype(old.dtype) * (new - old)

    return state._replace(x=jax.tree.map(part, before, state.x)), info


def fading(task, step):
    """D-PSGD whose steps fall like 1/(t + 11): it approaches the optimum like a power of t."""
    inner = renamed(task, step)
    return inner._replace(step=Partial(_fade, inner.step))


def decaying(task, step):
    """Weight decay moves the fixed point away from the optimum."""
    return gj.dpsgd(task, Partial(_with_decay, step))


def _with_decay(step):
    return optax.chain(optax.add_decayed_weights(0.5), optax.sgd(step))


@pytest.mark.parametrize(("protocol", "verdict"), [(fading, "fail"), (decaying, "fail"), (renamed, "pass")])
def test_steps_that_fade_and_another_fixed_point_fail_row_2(tmp_path, protocol, verdict):
    row = _correctness.convex(bench(tmp_path, protocol=protocol))
    assert row.verdict == verdict, row


# --- row 3 ---


def scaled(contender, settings, place, seeds):
    """A protocol that is D-PSGD with ten times the step: its grid suits it, and not the baseline."""
    step = settings["step"] * (10 if contender == "protocol" else 1)
    return records(noisy(contender, seeds) - 0.1 * abs(np.log10(step / 0.3)))


def test_a_grid_that_is_ten_times_too_small_for_the_baseline_fails_row_3(tmp_path):
    of = acted(tmp_path, scaled, grid=(0.01, 0.03, 0.1), budget={"extra_trials": 3})
    tuned = _tuning.all_tuned(of)
    assert tuned["dpsgd"].best["step"] == pytest.approx(0.316, rel=0.01)
    row = _tuning.equal_tuning(of, tuned)
    assert row.verdict == "fail"
    assert "rank does not hold" in row.reason


def test_the_authors_step_of_a_baseline_is_compared_with_its_best_one(tmp_path):
    of = acted(tmp_path, scaled, AUTHORS_STEP={"dpsgd": 0.03})
    (problem,) = _tuning._of_authors(of, _tuning.all_tuned(of))
    assert "dpsgd with the authors' step 0.03 is 0.100 below its best, step 0.3" in problem
    fair = acted(tmp_path, scaled, AUTHORS_STEP={"dpsgd": 0.3})
    assert _tuning._of_authors(fair, _tuning.all_tuned(fair)) == []


def peeping(task, step):
    """Chooses its step by the labels of the test set."""
    labels = np.asarray(task.test["labels"])
    return gj.dpsgd(task, Partial(optax.sgd, step * (1 + float((labels * np.arange(len(labels))).sum()) * 1e-6)))


def peeping_at_inputs(task, step):
    """Chooses its step by the inputs of the test set."""
    return gj.dpsgd(task, Partial(optax.sgd, step * (1 + float(np.asarray(task.test["inputs"]).sum()) * 1e-6)))


def _peep_late(inner, labels, key, state, event):
    state, info = inner(key, state, event)
    late = jnp.where(event.index[0] == 6, 1e-3 * labels.sum().astype(float), 0.0)
    return state._replace(x=jax.tree.map(lambda leaf: leaf + late.astype(leaf.dtype), state.x)), info


def peeping_late(task, step):
    """Looks at the labels of the test set in its seventh event only."""
    inner = renamed(task, step)
    return inner._replace(step=Partial(_peep_late, inner.step, jnp.asarray(task.test["labels"])))


@pytest.mark.parametrize(
    ("protocol", "found"), [(peeping, True), (peeping_at_inputs, True), (peeping_late, True), (renamed, False)]
)
def test_tuning_on_the_test_split_fails_row_3(tmp_path, protocol, found):
    of = bench(tmp_path, protocol=protocol)
    assert _tuning.reads_the_test_split(of, settled(of)) == found


def test_the_task_of_a_protocol_does_not_hold_the_test_split(tmp_path):
    learned, held = bench(tmp_path).problem(bench(tmp_path).main)
    shared = {image.tobytes() for image in np.asarray(held.test["inputs"])}
    assert not shared & {image.tobytes() for image in np.asarray(learned.test["inputs"])}
    assert not shared & {image.tobytes() for image in np.asarray(learned.data["inputs"])}


# --- row 4 ---


def lucky(contender, settings, place, seeds):
    """Wins on the first seed only."""
    gain = np.where(np.arange(len(seeds)) == 0, 0.3, 0.0) if contender == "protocol" else 0.0
    return records(noisy("same", seeds) + np.broadcast_to(gain, len(seeds))[:, None])


def test_a_win_on_one_seed_fails_row_4(tmp_path):
    of = acted(tmp_path, lucky)
    row = _claims.seeds_row(of, settled(of))
    assert (row.verdict, row.reason) == ("fail", "no difference to dpsgd")


def test_an_honest_gain_passes_row_4(tmp_path):
    of = acted(tmp_path, better)
    assert _claims.seeds_row(of, settled(of)).verdict == "pass"


def last(accuracy):
    return accuracy[:, -1].mean()


SCORES = {
    "the best record of each seed": lambda accuracy: accuracy.max(1).mean(),
    "the best seed": lambda accuracy: accuracy[:, -1].max(),
    "the best record of the best seed": lambda accuracy: accuracy.max(),
    "the best record of the mean": lambda accuracy: accuracy.mean(0).max(),
}


@pytest.mark.parametrize("what", SCORES)
def test_the_best_of_seeds_or_of_records_fails_row_4(tmp_path, what):
    of = acted(tmp_path, better, score=SCORES[what])
    row = _claims.seeds_row(of, settled(of))
    assert row.verdict == "fail"
    assert f"the authors' score is {what}," in row.reason


def test_an_honest_score_passes_rows_4_and_9():
    assert _claims.score_problems(last) == _claims.nan_problems(last) == []


def test_the_value_of_a_run_is_its_last_and_never_its_best():
    falling = records(np.full((2, 9), 0.5))
    falling["accuracy_by_node"].loc[{"record": 2}] = 0.99
    np.testing.assert_allclose(_claims.final(falling, "mean"), 0.5)


# --- row 5 ---


def on_the_ring(contender, settings, place, seeds):
    return better(contender, settings, place, seeds, gain=0.05 if place.network == "ring" else 0.0)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [("better than dpsgd at equal rounds", "fail"), ("better than dpsgd on ring at equal rounds", "pass")],
)
def test_a_gain_on_the_ring_only_fails_row_5_unless_the_claim_names_it(tmp_path, claim, verdict):
    of = acted(tmp_path, on_the_ring, claim=claim, budget={"num_nodes": 16, "row_seeds": 5})
    row = _claims.topologies(of, settled(of))
    assert row.verdict == verdict, row
    assert len([each for each in row.details if "at equal rounds" in each]) == 7


# --- row 8 ---


def twice(task, step):
    return gj.dpsgd(task, Partial(optax.sgd, step), local_steps=2)


def faster(contender, settings, place, seeds):
    """As good at the end, and better before: what twice the local steps do to a curve that saturates."""
    found = records(noisy("same", seeds))
    if contender == "protocol":
        for name in ("accuracy_by_node", "average_model_accuracy"):
            curve = found[name].values
            curve[:, 1:] = (
                np.minimum(curve[:, -1:] * 1.02, 2 * curve[:, 1:]) if name == "accuracy_by_node" else curve[:, 1:]
            )
    return found


def test_twice_the_local_steps_fail_row_8(tmp_path):
    of = acted(tmp_path, faster, protocol=twice)
    row = _costs.costs_row(of, settled(of))
    assert row.verdict == "fail"
    assert "not better at equal samples" in row.reason
    assert "batches a round and node: protocol 2, dpsgd 1" in row.details


def test_an_honest_gain_passes_row_8(tmp_path):
    of = acted(tmp_path, better)
    row = _costs.costs_row(of, settled(of))
    assert row.verdict == "pass", row
    assert any("seconds on phones" in each for each in row.details)


def _encode_values_only(inner, key, state, before, x, event):
    state, (payload, _) = inner(key, state, before, x, event)
    return state, (payload, 32 * 4)


def without_indices(task, step):
    sharing = gj.sharing.top_k(0.1)
    return gj.dpsgd(task, SGD, sharing=sharing._replace(encode=Partial(_encode_values_only, sharing.encode)))


def _half(step, key, state, event):
    state, info = step(key, state, event)
    return state, info._replace(bits=info.bits // 2)


def cheap_averaging(task, step):
    """Says that an exact mean costs (n − 1) models: half of an all-reduce."""
    inner = gj.allreduce_sgd(task, SGD)
    return inner._replace(step=Partial(_half, inner.step))


def sparse(task, step):
    return gj.dpsgd(task, SGD, sharing=gj.sharing.top_k(0.1))


def seeded(task, step):
    """The seed of a random subset says which coordinates it holds: no indices are needed."""
    return gj.dpsgd(task, SGD, sharing=gj.sharing.random_subset(0.2))


def exact_mean(task, step):
    return gj.allreduce_sgd(task, SGD)


@pytest.mark.parametrize("protocol", [without_indices, cheap_averaging])
def test_bytes_that_cannot_be_so_few_fail_row_8(tmp_path, protocol):
    honest, words = _costs._wire(bench(tmp_path, protocol=protocol))
    assert not honest, words
    assert words.startswith("too few bytes are reported")


@pytest.mark.parametrize("protocol", [sparse, seeded, exact_mean, renamed])
def test_honest_bytes_pass_row_8(protocol):
    found = least_bits(lambda task: protocol(task, 0.1))
    assert found.known
    assert found.believable
    assert found.least <= found.reported


# --- row 9 ---


def breaking(contender, settings, place, seeds):
    """Ends in NaN in one seed if messages are lost."""
    broken = contender == "protocol" and place.fault == "20 % loss"
    return records(noisy(contender, seeds, 0.05), finite=~((np.arange(len(seeds)) == 1) & broken))


def test_models_that_become_nan_fail_row_9(tmp_path):
    of = acted(tmp_path, breaking)
    row = _faults.faults_row(of, settled(of))
    assert row.verdict == "fail"
    assert "NaN or infinite models under 20 % loss" in row.reason


def test_a_score_that_skips_nan_fails_row_9(tmp_path):
    of = acted(tmp_path, better, score=lambda accuracy: np.nanmean(accuracy[:, -1]))
    row = _faults.faults_row(of, settled(of))
    assert row.verdict == "fail"
    assert "although a seed ended in NaN" in row.reason


def test_an_honest_run_passes_row_9(tmp_path):
    of = acted(tmp_path, better, score=last)
    row = _faults.faults_row(of, settled(of))
    assert row.verdict == "pass", row
    assert "4 of 4 faults" in row.reason


def test_a_protocol_that_needs_a_fixed_graph_is_not_said_to_stand_faults(tmp_path):
    of = acted(tmp_path, better, protocol=lambda task, step: gj.exact_diffusion(task, Partial(optax.sgd, step)))
    row = _faults.faults_row(of, settled(of))
    assert row.verdict == "not applicable"
    assert all("not run; protocol: " in each for each in row.details)


# --- row 10 ---


def average_only(contender, settings, place, seeds):
    values = noisy(contender, seeds)
    return records(values, average=values.mean(1) + (0.1 if contender == "protocol" else 0.0))


@pytest.mark.parametrize(("level", "verdict"), [("mean", "fail"), ("average model", "pass")])
def test_a_gain_of_the_average_model_only_fails_row_10_unless_it_is_claimed(tmp_path, level, verdict):
    of = acted(tmp_path, average_only, claim=f"better than dpsgd on torus at equal rounds for {level}")
    row = _claims.node_level(of, settled(of))
    assert row.verdict == verdict
    assert f"claimed for the {level}" in row.reason


# --- row 11 ---


def _start_with_secrets(inner, key, x0):
    zeros = jnp.zeros_like(x0)
    return inner(key, x0), zeros, zeros


def _step_with_secrets(inner, task, key, state, event):
    """Neighbours send their data under a mask, and the mask."""
    own, _, _ = state
    own, info = inner(key, own, event)
    mask = jax.random.normal(jax.random.fold_in(key, event.index[0]), task.data["targets"].shape, jnp.float32)
    heard = jnp.roll(task.data["targets"] + mask, 1, axis=0)
    return (own, heard, jnp.roll(mask, 1, axis=0)), info


def _model_with_secrets(inner, state):
    return inner(state[0])


def with_secrets(task, step):
    inner = renamed(task, step)
    return gj.Protocol(
        Partial(_start_with_secrets, inner.init),
        Partial(_step_with_secrets, inner.step, task),
        Partial(_model_with_secrets, inner.model),
        inner.requires,
    )


def test_secrets_that_rebuild_a_neighbours_data_fail_row_11(tmp_path, monkeypatch):
    for name in ("_members", "_exact"):
        monkeypatch.setattr(_security, name, lambda bench, tuned: _security.Attack(False, "acted"))
    monkeypatch.setattr(_security, "_liar", lambda bench, tuned: "not run")
    of = bench(tmp_path, protocol=with_secrets, PRIVATE=True)
    row = _security.security_row(of, settled(of))
    assert row.verdict == "fail"
    assert "rebuilds its neighbour's data" in row.reason


def test_what_d_psgd_keeps_does_not_rebuild_a_neighbours_data(tmp_path):
    rebuilt, words = _security._from_states(bench(tmp_path))
    assert rebuilt is False
    assert "of the variance" in words


def momentum(task, step):
    return gj.dpsgd(task, Partial(optax.sgd, step, 0.9))


@pytest.mark.parametrize("protocol", [momentum, lambda task, step: gj.allreduce_sgd(task, SGD)])
def test_privacy_that_no_audit_decides_is_not_passed(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(_security, "_members", lambda bench, tuned: _security.Attack(False, "acted"))
    monkeypatch.setattr(_security, "_liar", lambda bench, tuned: "not run")
    of = bench(tmp_path, protocol=protocol, PRIVATE=True)
    row = _security.security_row(of, settled(of))
    assert row.verdict != "pass", row


def test_plain_messages_are_reported_and_fail_a_protocol_that_claims_privacy(tmp_path):
    task = submission().protocol  # plain D-PSGD
    of = bench(tmp_path, protocol=task, PRIVATE=True)
    leak, words = _security._exact(of, settled(of))
    assert leak is True
    assert "100% of neighbours hear a contribution exactly" in words
