"""What is refused where a task is built: labels, inputs, shares and models that do not fit each other."""

import dataclasses
import hashlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from flax import nnx
from jax.tree_util import Partial

from gossipjax import dpsgd, replicate, simulate, tasks
from gossipjax._base.binding import Bound
from gossipjax.mixing import metropolis
from gossipjax.tasks import Partition, WindowRule, classification, digits, from_arrays, iid, mlp, softmax_regression
from gossipjax.timeline import rounds
from gossipjax.topology import ring

KEY = jax.random.key(0)
DIGITS = digits(limit=(60, 20))
SHARES, LINEAR = iid(60, 4, seed=0), softmax_regression(64, 10)


def changed(values, sample, value):
    """A copy with one entry replaced, in a type that holds it."""
    copy = values.astype(np.result_type(values, np.asarray(value)))
    copy[sample] = value
    return copy


# --- labels -----------------------------------------------------------------------------------------------------------

LABELS = {
    "from one": (lambda y: y + 1, r"sample \d+ has the label 10; labels must be whole numbers in 0 … 9"),
    "one too large": (lambda y: changed(y, 17, 255), "sample 17 has the label 255; .* in 0 … 9"),
    "one negative": (lambda y: changed(y, 3, -1), "sample 3 has the label -1; .* in 0 … 9"),
    "one unsigned": (lambda y: changed(y.astype(np.uint64), 5, np.uint64(2**63)), "sample 5 has the label 9223372036"),
    "column": (lambda y: y[:, None], r"of shape \(\d+, 1\): must be one class number .*labels\.ravel\(\)"),
    "one-hot": (lambda y: np.eye(10)[y], r"of shape \(\d+, 10\): must be one class number .*labels\.argmax\(1\)"),
    "NaN": (lambda y: changed(y, 4, np.nan), "sample 4 has the label nan"),
    "fraction": (lambda y: changed(y, 6, 0.5), r"sample 6 has the label 0\.5"),
    "floats": (lambda y: y.astype(np.float32), r"of type float32; use labels\.astype\(int\)"),
    "words": (lambda y: y.astype(str), r"of type <U\d+; .*np\.unique"),
    "truth": (lambda y: y > 4, "of type bool"),
    "shorter": (lambda y: y[:-1], r"labels for \d+ samples \(sample \d+ has no label\)"),
    "longer": (lambda y: np.append(y, 1), r"labels for \d+ samples"),
    "none": (lambda y: y[:0], r"of shape \(0,\)"),
    "nothing": (lambda y: None, "=None: must be one class number"),
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(("spoil", "message"), LABELS.values(), ids=LABELS)
def test_labels_are_held_against_the_inputs_and_the_classes(part, spoil, message):
    examples = getattr(DIGITS, part)
    spoilt = dataclasses.replace(DIGITS, **{part: examples._replace(labels=spoil(examples.labels))})
    which = {"train": "training", "test": "test"}[part]
    with pytest.raises(ValueError, match=f"^digits: {which} labels.*{message}"):
        classification(spoilt, SHARES, LINEAR)


@pytest.mark.parametrize("kind", [list, np.asarray, jnp.asarray, lambda y: y.astype(np.uint8), pd.Series])
def test_labels_of_any_whole_sort_are_the_same(kind):
    same = dataclasses.replace(DIGITS, train=DIGITS.train._replace(labels=kind(DIGITS.train.labels)))
    left, right = (classification(data, SHARES, LINEAR) for data in (DIGITS, same))
    np.testing.assert_array_equal(left.data["labels"], right.data["labels"])


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": (0.0,)}, r"std of digits\[0\]=0: must be finite numbers, at least 1e-37"),
        ({"std": (float("nan"),)}, r"std of digits\[0\]=nan"),
        ({"std": (-1.0,)}, r"std of digits\[0\]=-1"),
        ({"std": (1.0, 2.0)}, r"std of digits of shape \(2,\): .* \(8, 8, 1\)"),
        ({"std": ()}, r"std of digits of shape \(0,\)"),
        ({"mean": (float("inf"),)}, r"mean of digits\[0\]=inf"),
        ({"mean": (1.0, 2.0, 3.0)}, r"mean of digits of shape \(3,\)"),
        ({"num_classes": 0}, "num_classes of digits=0: must be a whole number"),
        ({"num_classes": 9}, r"sample \d+ has the label 9; .* in 0 … 8"),
        ({"num_classes": 11}, r"logits of shape \(16, 10\) .* must give \(16, 11\)"),
    ],
)
def test_what_a_data_set_states_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        classification(dataclasses.replace(DIGITS, **change), SHARES, LINEAR)


INPUTS = {
    "NaN": (lambda x: changed(x, (2, 1, 1, 0), np.nan), "1 inputs hold NaN or infinity .* sample 2"),
    "too large": (lambda x: changed(x, (7, 0, 0, 0), 1e300), r"1 inputs hold .* \(in float32\), first at sample 7"),
    "words": (lambda x: x.astype(str), "of shape .* and type <U"),
    "complex": (lambda x: x.astype(complex), "type complex128"),
    "no axis of features": (lambda x: x[:, 0, 0, 0], r"of shape \(\d+,\) .* x\[:, None\]"),
    "none": (lambda x: x[:0], r"of shape \(0, 8, 8, 1\)"),
    "ragged": (lambda x: [[1], [1, 2]], "inputs: "),
    "nothing": (lambda x: None, "type object"),
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(("spoil", "message"), INPUTS.values(), ids=INPUTS)
def test_inputs_are_finite_numbers(part, spoil, message):
    examples = getattr(DIGITS, part)
    spoilt = dataclasses.replace(DIGITS, **{part: examples._replace(inputs=spoil(examples.inputs))})
    with pytest.raises(ValueError, match=message):
        classification(spoilt, SHARES, LINEAR)


def test_test_inputs_have_the_shape_of_training_inputs():
    smaller = dataclasses.replace(DIGITS, test=DIGITS.test._replace(inputs=DIGITS.test.inputs[:, :7]))
    with pytest.raises(ValueError, match=r"test inputs have shape \(7, 8, 1\), but training inputs have \(8, 8, 1\)"):
        classification(smaller, SHARES, LINEAR)


# --- models -----------------------------------------------------------------------------------------------------------


def plain(apply):
    return tasks.Model(lambda key: jnp.zeros((64, 10), jnp.float32), apply)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            mlp(64, (4,), 5),
            r"logits of shape \(16, 5\) .* must give \(16, 10\): .* 10 classes of digits",
        ),
        (mlp(64, (4,), 11), r"logits of shape \(16, 11\) .* must give \(16, 10\)"),
        (plain(lambda w, x: x.reshape(-1, 64) @ w[:, :1]), r"\(16, 1\) .* must give \(16, 10\)"),
        (plain(lambda w, x: (x.reshape(-1, 64) @ w)[..., None]), r"\(16, 10, 1\) .* must give \(16, 10\)"),
        (plain(lambda w, x: x.reshape(-1, 64)[0] @ w), r"\(10,\) .* must give \(16, 10\)"),
        (plain(lambda w, x: (x.reshape(-1, 64) @ w, w)), r"shape None .* must give \(16, 10\)"),
        (plain(lambda w, x: x @ w), r"inputs of shape \(8, 8, 1\) \(64 numbers each\): .*\(64, 10\)"),
        (mlp(63, (4,), 10), r"inputs of shape \(8, 8, 1\) \(64 numbers each\).*\(4, 63\)"),
        (tasks.gn_lenet((8, 8, 3)), r"inputs of shape \(8, 8, 1\).*\(5, 5, 3, 32\)"),
        (tasks.femnist_cnn((12, 12, 1), 10), r"inputs of shape \(8, 8, 1\)"),
        (tasks.Model(lambda key: {}[key], lambda w, x: x), r"init\(key\) fails"),
    ],
)
def test_a_model_of_another_shape_is_refused_and_both_shapes_named(model, message):
    with pytest.raises(ValueError, match=message):
        classification(DIGITS, SHARES, model)


@pytest.mark.parametrize("model", [mlp, None, 5, "mlp", (mlp,), (mlp, 3), [mlp, mlp], nnx.Linear, {}])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match=r"^model=.*: must be a pair of functions .*from_nnx"):
        inspect.unwrap(classification)(DIGITS, SHARES, model)


def test_functions_of_a_model_are_hashable():
    class Unhashable:
        __hash__ = None

        def __call__(self, *arguments):
            return arguments

    unhashable = Unhashable()
    with pytest.raises(TypeError, match="its functions must be hashable"):
        classification(DIGITS, SHARES, (unhashable, unhashable))


@pytest.mark.parametrize("wrong", [None, "digits", 3, DIGITS.train, SHARES, tasks.synthetic_ratings(4, 8)], ids=type)
def test_tasks_name_the_data_that_they_want(wrong):
    for build, remedy in ((classification, "from_arrays"), (tasks.next_character, "text"), (tasks.ratings_by_user, "")):
        rest = (2,) if build is tasks.ratings_by_user else (SHARES, LINEAR)
        if build is tasks.ratings_by_user and isinstance(wrong, tasks.RatingsDataset):
            continue
        with pytest.raises(TypeError, match=rf"^dataset=.*: must be .*{remedy}"):
            inspect.unwrap(build)(wrong, *rest)


@pytest.mark.parametrize("wrong", [None, DIGITS, np.arange(60), [[0], [1]], 4], ids=type)
def test_tasks_want_a_partition(wrong):
    with pytest.raises(TypeError, match=r"^partition=.*: must be a Partition.*iid"):
        inspect.unwrap(classification)(DIGITS, wrong, LINEAR)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, 2.0, float("nan"), "8", None, True, [8], 2**40], ids=repr)
def test_batch_sizes_are_whole_numbers(wrong):
    text, ratings = tasks.synthetic_text(2, rule=WindowRule(4)), tasks.synthetic_ratings(4, 8)
    rows, windows = iid(len(ratings.train.stars), 2, seed=0), iid(len(text.train.starts), 2, seed=0)
    cases = (
        (classification, (DIGITS, SHARES, LINEAR)),
        (tasks.next_character, (text, windows, tasks.lstm(92, 2, 2, 1, 4))),
        (tasks.matrix_factorization, (ratings, rows)),
    )
    for build, arguments in cases:
        with pytest.raises(ValueError, match=r"^batch_size=.*: must be a whole number"):
            inspect.unwrap(build)(*arguments, batch_size=wrong)


# --- ratings and text -------------------------------------------------------------------------------------------------

RATINGS = tasks.synthetic_ratings(6, 12, seed=1)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("column", "spoil", "message"),
    [
        ("users", lambda a: changed(a, 2, 6), r"users\[2\]=6: must be whole numbers in 0 … 5"),
        ("users", lambda a: changed(a, 2, -1), r"users\[2\]=-1: must be whole numbers in 0 … 5"),
        ("items", lambda a: changed(a, 4, 12), r"items\[4\]=12: must be whole numbers in 0 … 11"),
        ("items", lambda a: a[:-1], r"items of shape \(\d+,\): must be whole numbers"),
        ("items", lambda a: a.astype(float), "items=.*: must be whole numbers"),
        ("users", lambda a: a[:, None], r"users of shape \(\d+, 1\)"),
        ("stars", lambda a: changed(a, 3, np.nan), r"stars\[3\]=nan: must be finite"),
        ("stars", lambda a: a[:, None], r"stars of shape|users of shape"),
        ("stars", lambda a: a[:0], "holds no rating"),
        ("stars", lambda a: None, "holds no rating"),
    ],
)
def test_ratings_are_held_against_users_and_items(part, column, spoil, message):
    ratings = getattr(RATINGS, part)
    spoilt = ratings._replace(**{column: spoil(getattr(ratings, column))})
    with pytest.raises(ValueError, match=f"{part}.*{message}|{message}"):
        tasks.matrix_factorization(
            dataclasses.replace(RATINGS, **{part: spoilt}), iid(len(RATINGS.train.stars), 2, seed=0)
        )


TEXT = tasks.synthetic_text(2, rule=WindowRule(4), mean_length=40.0)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda starts: changed(starts, 1, len(TEXT.codes) - 4), r"starts\[1\]=.*: must be whole numbers in 0"),
        (lambda starts: changed(starts, 2, -1), r"starts\[2\]=-1"),
        (lambda starts: starts.astype(float), "starts=.*: must be whole numbers"),
        (lambda starts: starts[:0], "there is no window"),
    ],
)
def test_windows_lie_in_the_text(part, spoil, message):
    windows = getattr(TEXT, part)
    spoilt = dataclasses.replace(TEXT, **{part: windows._replace(starts=spoil(windows.starts))})
    with pytest.raises(ValueError, match=message):
        tasks.next_character(spoilt, iid(len(TEXT.train.starts), 2, seed=0), tasks.lstm(92, 2, 2, 1, 4))


def test_codes_are_symbols():
    spoilt = dataclasses.replace(TEXT, codes=changed(TEXT.codes, 5, np.uint8(92)))
    with pytest.raises(ValueError, match=r"codes of synthetic_text\[5\]=92: must be whole numbers in 0 … 91"):
        tasks.next_character(spoilt, iid(len(TEXT.train.starts), 2, seed=0), tasks.lstm(92, 2, 2, 1, 4))


# --- functions of a task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["init", "batch", "loss", "metrics"])
def test_a_closure_in_a_task_is_named(field):
    task = tasks.quadratic(np.ones((4, 2)))
    for function in (lambda *arguments: 0.0, Bound(len, ()).__call__, max):
        with pytest.raises(TypeError, match=rf"^{field}=.*jax\.tree_util\.Partial"):
            dataclasses.replace(task, **{field: function})
    dataclasses.replace(task, **{field: Partial(max)})


@pytest.mark.parametrize("wrong", [0, -1, 2.0, None, "4"], ids=repr)
def test_a_task_has_a_whole_number_of_nodes(wrong):
    task = tasks.quadratic(np.ones((4, 2)))
    parts = [getattr(task, field.name) for field in dataclasses.fields(task)]
    with pytest.raises(ValueError, match=r"^num_nodes=.*: must be a whole number"):
        inspect.unwrap(type(task).__init__)(object.__new__(type(task)), *parts[:-1], wrong)


# --- arrays of one's own ----------------------------------------------------------------------------------------------

IMAGES, CLASSES = DIGITS.train.inputs, DIGITS.train.labels
TABLE = IMAGES.reshape(60, 64).astype(float)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, np.ndarray.tolist, lambda a: np.asfortranarray(a)])
def test_images_from_arrays_are_the_data_set_itself(kind):
    whole = digits()
    inputs = (whole.train.inputs, whole.test.inputs)
    # Lists of whole numbers come back as 64-bit integers, and are kept as float32.
    x, x_test = (np.asarray(kind(part)) for part in inputs) if kind is not np.ndarray.tolist else inputs
    data = from_arrays(x, kind(whole.train.labels), x_test, kind(whole.test.labels), name="digits")
    assert data.num_classes == 10
    # The same sums of whole numbers, in another order.
    np.testing.assert_allclose((data.mean + data.std), whole.mean + whole.std, rtol=1e-13)
    same = dataclasses.replace(data, mean=whole.mean, std=whole.std)
    assert same.checksum == whole.checksum


def test_a_table_is_standardised_by_feature_and_learned():
    x, y = pd.DataFrame(TABLE), pd.Series(CLASSES)
    data = from_arrays(x, y, x[:20], y[:20], num_classes=10)
    assert data.train.inputs.dtype == np.float32
    np.testing.assert_allclose(data.mean, TABLE.mean(0), rtol=1e-13)
    expected = np.where(np.ptp(TABLE, axis=0) == 0, 1.0, TABLE.std(0))
    np.testing.assert_allclose(data.std, expected, rtol=1e-13)
    task = classification(data, SHARES, mlp(64, (8,), 10))
    standard = jax.jit(task.batch)(KEY, task.data, jnp.asarray(0, jnp.int32))["inputs"]
    own = (TABLE[SHARES.shard(0)] - TABLE.mean(0)) / expected
    gaps = np.abs(np.asarray(standard)[:, None] - own[None]).max(-1).min(1)
    assert gaps.max() < 1e-5  # float32 rounding
    plan = rounds(metropolis(ring(4)), 20)
    run = simulate(KEY, dpsgd(task, Partial(optax.sgd, 0.1)), plan, replicate(task.init(KEY), 4))
    assert run["train_loss"].values[-1].mean() < run["train_loss"].values[1].mean()


def test_other_shapes_have_one_mean_and_deviation():
    x = np.random.default_rng(0).standard_normal((30, 5, 4)) * 3 + 1
    data = from_arrays(x, np.arange(30) % 2, x, np.arange(30) % 2)
    # In float32, of which the numbers are rounded.
    np.testing.assert_allclose(data.mean + data.std, (x.mean(), x.std()), rtol=1e-6)
    given = from_arrays(x, np.arange(30) % 2, x, np.arange(30) % 2, mean=0.5, std=2.0)
    assert given.mean + given.std == (0.5, 2.0)


def test_moments_of_many_numbers_are_those_of_all(monkeypatch):
    from gossipjax.tasks._data import arrays

    monkeypatch.setattr(arrays, "_AT_ONCE", 100)
    data = from_arrays(TABLE, CLASSES, TABLE, CLASSES, num_classes=10)
    varying = np.ptp(TABLE, axis=0) > 0
    np.testing.assert_allclose(np.array(data.std)[varying], TABLE.std(0)[varying], rtol=1e-13)


def test_classes_are_counted_named_or_stated():
    y = np.arange(60) % 3
    assert from_arrays(TABLE, y, TABLE, y).num_classes == 3
    assert from_arrays(TABLE, y, TABLE, y, num_classes=5).num_classes == 5
    named = from_arrays(TABLE, y, TABLE, y, class_names=["a", "b", "c", "d"], name="mine", source="made")
    assert (named.num_classes, named.class_names) == (4, ("a", "b", "c", "d"))
    assert (named.name, named.source) == ("mine", "made")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": CLASSES + 1}, r"^y: class 0 has no sample, but labels run from 1 to 10"),
        ({"y": changed(CLASSES, 9, 255)}, r"^y: class 10 has no sample, but labels run from 0 to 255"),
        ({"y": changed(CLASSES, 9, 255), "num_classes": 10}, "^y: sample 9 has the label 255"),
        ({"y": CLASSES[:, None]}, r"^y of shape \(60, 1\)"),
        ({"y": CLASSES[:-1]}, r"^y: 59 labels for 60 samples \(sample 59 has no label\)"),
        ({"y": [np.nan, *CLASSES[1:]]}, "^y: sample 0 has the label nan"),
        ({"y_test": changed(CLASSES, 2, 10)}, "^y_test: sample 2 has the label 10"),
        ({"y_test": CLASSES[:3]}, "^y_test: 3 labels for 60 samples"),
        ({"x": TABLE[:, :63]}, r"^x_test of shape \(60, 64\): .* \(63,\) of x"),
        ({"x": changed(TABLE, (4, 4), np.inf)}, "^x: 1 inputs hold NaN or infinity .* sample 4"),
        ({"x_test": changed(TABLE, (5, 4), np.nan)}, "^x_test: 1 inputs hold NaN or infinity .* sample 5"),
        ({"x": TABLE[:, 0]}, r"^x of shape \(60,\)"),
        ({"x": TABLE[:0]}, r"^x of shape \(0, 64\)"),
        ({"x": [["a"]] * 60}, "^x of shape .* type <U1"),
        ({"num_classes": 10.0}, "^num_classes=10.0: must be a whole number"),
        ({"num_classes": 0}, "^num_classes=0"),
        ({"num_classes": 3, "class_names": ("a",)}, "^class_names: 1 words for num_classes=3"),
        ({"std": 0.0}, "^std=0: must be finite numbers, at least 1e-37"),
        ({"std": [1.0] * 63}, r"^std of shape \(63,\)"),
        ({"std": [0.0] * 64}, r"^std\[0\]=0: must be finite numbers, at least 1e-37"),
        ({"mean": float("nan")}, "^mean=nan"),
        ({"mean": "a"}, "^mean='a'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arrays = {"x": TABLE, "y": CLASSES, "x_test": TABLE, "y_test": CLASSES} | change
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(from_arrays)(**arrays)


@pytest.mark.parametrize("change", [{"name": 3}, {"source": None}, {"class_names": "abc"}, {"class_names": [1, 2]}])
def test_words_are_words(change):
    with pytest.raises(TypeError, match=f"^{next(iter(change))}"):
        inspect.unwrap(from_arrays)(TABLE, CLASSES, TABLE, CLASSES, **change)


# --- checksums --------------------------------------------------------------------------------------------------------


def test_the_checksum_is_that_of_all_arrays_written_out():
    digest = hashlib.sha256()
    for part in ("train", "test"):
        examples = getattr(DIGITS, part)
        digest.update(f"{part}.inputs |u1{examples.inputs.shape}".encode() + examples.inputs.tobytes())
        digest.update(f"{part}.labels <i4{examples.labels.shape}".encode() + examples.labels.tobytes())
    digest.update(b"num_classes <i8()" + (10).to_bytes(8, "little"))
    for name in ("mean", "std"):
        digest.update(f"{name} <f8(1,)".encode() + np.array(getattr(DIGITS, name), "<f8").tobytes())
    assert DIGITS.checksum == digest.hexdigest()


def with_writers(data):
    return dataclasses.replace(data, train=data.train._replace(writers=np.zeros(60, np.int32)))


NINE = np.uint8(9)
CHANGES = {
    "an input": lambda d: dataclasses.replace(d, train=d.train._replace(inputs=changed(d.train.inputs, 0, NINE))),
    "a test input": lambda d: dataclasses.replace(d, test=d.test._replace(inputs=changed(d.test.inputs, 0, NINE))),
    "the order": lambda d: dataclasses.replace(d, train=d.train._replace(labels=d.train.labels[::-1])),
    "the shape": lambda d: dataclasses.replace(d, train=d.train._replace(inputs=d.train.inputs.reshape(60, 64, 1, 1))),
    "the type": lambda d: dataclasses.replace(d, train=d.train._replace(labels=d.train.labels.astype(np.uint32))),
    "the deviation": lambda d: dataclasses.replace(d, std=(1.0,)),
    "the classes": lambda d: dataclasses.replace(d, num_classes=11),
    "the writers": with_writers,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_the_training_changes_the_checksum(change):
    assert change(DIGITS).checksum != DIGITS.checksum


def test_the_same_numbers_have_the_same_checksum():
    again = digits(limit=(60, 20))
    assert again.checksum == DIGITS.checksum == DIGITS.checksum
    renamed = dataclasses.replace(again, name="other", source="elsewhere", class_names=())
    big_endian = again.train.labels.astype(">i4")
    swapped = again.train._replace(inputs=np.asfortranarray(again.train.inputs), labels=big_endian)
    assert dataclasses.replace(renamed, train=swapped).checksum == DIGITS.checksum
    assert tasks.synthetic_text(2, seed=0).checksum == tasks.synthetic_text(2, seed=0).checksum
    assert tasks.synthetic_text(2, seed=0).checksum != tasks.synthetic_text(2, seed=1).checksum
    assert tasks.synthetic_ratings(5, 9, seed=0).checksum == tasks.synthetic_ratings(5, 9, seed=0).checksum
    assert tasks.synthetic_ratings(5, 9, seed=0).checksum != tasks.synthetic_ratings(5, 9, seed=1).checksum


def test_partitions_of_other_data_are_refused():
    with pytest.raises(ValueError, match="names sample 60, beyond the 60 of digits"):
        classification(DIGITS, Partition(np.arange(61), [0, 61]), LINEAR)
    with pytest.raises(ValueError, match="node 1 holds no sample"):
        classification(DIGITS, Partition(np.arange(60), [0, 30, 30, 60]), LINEAR)
