"""The results of privacy_utility name the data that were used."""

import dataclasses

import pytest

from experiments import privacy_utility


@pytest.mark.parametrize("there", [False, True])
def test_digits_that_stand_in_for_writers_are_called_so(monkeypatch, there):
    def writers():
        raise privacy_utility.tasks.DataUnavailable("not here")

    if there:
        pool = privacy_utility.tasks.digits()
        samples = pool.train._replace(writers=pool.train.labels)

        def writers():
            return dataclasses.replace(pool, train=samples)

    monkeypatch.setattr(privacy_utility.tasks, "mnist_by_writer", writers)
    problems = privacy_utility.problems(privacy_utility.QUICK._replace(writers=8))
    assert [each.name for each in problems] == ["digits", "writers" if there else "digits by node"]
    assert ("writer" in problems[1].unit) == there
    assert [each.by_sample for each in problems] == [True, False]
