"""What can be predicted without a model, against loops over samples; a start at the mean rating predicts it."""

import jax
import numpy as np
import pytest

from experiments.lib import trivial
from experiments.lib.problems import Problem, of_jwins
from gossipjax import tasks


def ratings():
    data = tasks.synthetic_ratings(12, 30, mean_count=9.0, seed=3)
    task = tasks.matrix_factorization(data, tasks.ratings_by_user(data, 3), factors=4)
    return data, Problem("movielens", task, data.source, "rmse", False, 0.1, 16)


def test_means_of_ratings_are_those_of_a_loop():
    data, problem = ratings()
    train, test = data.train, data.test
    mean = train.stars.mean(dtype=np.float64)
    of_user = {u: np.mean(train.stars[train.users == u], dtype=np.float64) for u in range(12)}
    squares = {trivial.MEAN: 0.0, trivial.USER: 0.0, trivial.BOTH: 0.0}
    for user, item, stars in zip(test.users.tolist(), test.items.tolist(), test.stars.tolist(), strict=True):
        others = [
            float(s) - of_user[u]
            for u, i, s in zip(train.users.tolist(), *map(np.asarray, train[1:]), strict=True)
            if i == item
        ]
        shift = sum(others) / (len(others) + 5)
        guesses = {trivial.MEAN: mean, trivial.USER: of_user[user], trivial.BOTH: of_user[user] + shift}
        for name, guess in guesses.items():
            squares[name] += (min(max(guess, 0.5), 5.0) - stars) ** 2
    found = trivial.predictors(problem.task, "rmse")
    assert found == pytest.approx(
        {name: np.sqrt(s / len(test.stars)) for name, s in squares.items()}, rel=1e-6
    )  # float32


def test_the_majority_class_is_that_of_the_training_set():
    problem = of_jwins("digits", 8)
    data, labels = problem.task.data, np.asarray(problem.task.test["labels"])
    used = np.asarray(data["labels"])[np.asarray(data["indices"])].tolist()
    most = max(range(10), key=lambda c: (used.count(c), -c))
    assert trivial.predictors(problem.task, "accuracy") == {
        trivial.CLASS: pytest.approx(float(np.mean(labels == most)))
    }
    few = {"labels": labels[:10]}
    assert trivial.predictors(problem.task, "accuracy", few)[trivial.CLASS] == pytest.approx(
        float(np.mean(labels[:10] == most))
    )


def test_the_character_after_a_window_is_counted():
    data = tasks.synthetic_text(seed=0)
    shards = tasks.by_user(data.train.roles, 2, seed=0)
    task = tasks.next_character(data, shards, tasks.lstm(hidden=4, layers=1, context=data.rule.context))
    found = trivial.predictors(task, "accuracy")
    after = data.codes[np.asarray(data.train.starts)[shards.indices] + data.rule.context]
    hits = data.codes[np.asarray(data.test.starts) + data.rule.context] == np.bincount(after).argmax()
    assert found[trivial.CLASS] == pytest.approx(float(np.mean(hits)), rel=1e-12)


def test_a_model_that_starts_at_a_rating_predicts_it():
    data, _ = ratings()
    shards = tasks.ratings_by_user(data, 3)
    task = tasks.matrix_factorization(data, shards, initial_rating=3.5)
    model = task.init(jax.random.key(0))
    found = np.asarray(model["users"] @ model["items"].T)
    # 20 products of (c + u)(c + v), u and v uniform on ±0.05: mean c² · 20 = 3.5, standard deviation 0.077.
    spread = np.sqrt(20 * (2 * 3.5 / 20 * 0.05**2 / 3 + (0.05**2 / 3) ** 2))
    assert found.std() == pytest.approx(spread, rel=0.2)
    assert abs(found.mean() - 3.5) < 4 * spread / np.sqrt(12)  # rows share the noise of their user
    old = tasks.matrix_factorization(data, shards).init(jax.random.key(0))
    np.testing.assert_array_equal(np.abs(old["users"]) <= 0.05, True)
    with pytest.raises(ValueError, match="initial_rating=6"):
        tasks.matrix_factorization(data, shards, initial_rating=6)


@pytest.mark.parametrize("floor", [k / 100 for k in range(10, 95, 5)])
def test_a_margin_that_is_met_exactly_is_not_exceeded(floor):
    """Whatever the rounding of the difference."""
    for known, end, higher in (
        ({trivial.CLASS: floor}, floor + trivial.MARGIN[True], 1),
        ({trivial.MEAN: floor}, floor * (1 - trivial.MARGIN[False]), 0),
    ):
        better = end + 1e-6 if higher else end - 1e-6
        assert trivial.learned([end] * 3, known, higher).word != "reproduced"
        assert trivial.gated("so", [better] * 3, known, higher) == "so"


@pytest.mark.parametrize(("known", "end", "higher"), [({trivial.CLASS: 0.97}, 1.0, 1), ({trivial.MEAN: 0.0}, 0.0, 0)])
def test_data_that_need_no_model_say_nothing_about_one(known, end, higher):
    assert trivial.gated("so", [end] * 3, known, higher).startswith("undecided: nothing can be better")


def test_a_seed_without_a_value_is_named_and_is_no_model_that_has_not_learned():
    text = trivial.gated("so", [0.9, np.nan, 0.9], {trivial.CLASS: 0.1}, 1)
    assert text == "undecided: 1 of 3 seeds have no value"
