"""theory.secure: the published numbers, and bytes counted message by message over all patterns of absences."""

from __future__ import annotations

import inspect
import itertools

import pytest

from theory import secure as theory


def test_published_bytes():
    """16 nodes, degree 4, 25,450 values."""
    assert 16 * theory.setup_bytes(4, "seeds") == 8_192
    assert 64 * theory.message_bytes(25_450) == 6_515_712
    # A member sends 102,192 bytes, and the receiver 1,552.
    member, receiver = 102_192, 1_552
    found = 4 * theory.message_bytes(25_450) + theory.setup_bytes(4, "shares")
    assert found + theory.expected_recovery_bytes(4, 0, "shares") == 4 * member + receiver


@pytest.mark.parametrize("degree", [2, 5, 8])
def test_bytes_of_a_member_are_those_of_bonawitz(degree):
    """Sent and received: ``2da + (5d − 4)a + 4P``; here with a header, and a list of those left."""
    a, words, d = 32, 1000, degree
    sent = theory.message_bytes(words) + 2 * a + 2 * (d - 1) * a + d * a
    received = 4 * (d - 1) * a + 4
    assert sent + received == 2 * d * a + (5 * d - 4) * a + 4 * words + 8 + 4
    setup, recovery = theory.setup_bytes(d, "shares"), theory.expected_recovery_bytes(d, 0, "shares")
    assert d * theory.message_bytes(words) + setup + recovery == d * (sent + received)


def counted(absent: tuple[bool, ...], recovery: str, colluders: int) -> int:
    """Count the bytes of recovery at a receiver that is there, message by message."""
    d, left = len(absent), absent.count(False)
    total = 0
    for gone in absent:
        if gone or left < colluders + 2:
            continue
        if recovery == "seeds":
            total += (8 + 4 * (d - left) + 8 + 32 * (d - left)) if left < d else 0
        elif 2 * left > d + colluders:
            total += 4 + sum(32 for _ in absent)
    return total


@pytest.mark.parametrize("recovery", ["seeds", "shares"])
@pytest.mark.parametrize(("degree", "dropout", "colluders"), [(2, 0.3, 0), (5, 0.1, 0), (5, 0.9, 1), (6, 0.5, 2)])
def test_the_mean_is_that_over_all_absences(recovery, degree, dropout, colluders):
    total = 0.0
    for absent in itertools.product([False, True], repeat=degree):
        chance = dropout ** sum(absent) * (1 - dropout) ** (degree - sum(absent))
        total += chance * counted(absent, recovery, colluders)
    found = theory.expected_recovery_bytes(degree, dropout, recovery, colluders)
    assert found == pytest.approx((1 - dropout) * total, rel=1e-12)  # float64 sums of at most 64 terms


@pytest.mark.parametrize("colluders", [0, 1, 3])
def test_two_disjoint_groups_do_not_reach_the_threshold_twice(colluders):
    for degree in range(colluders + 2, 30):
        t = theory.threshold(degree, colluders)
        assert degree + colluders < 2 * t <= degree + colluders + 2
        assert t <= degree


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.message_bytes(0), "words"),
        (lambda: theory.setup_bytes(1, "seeds"), "degree"),
        (lambda: inspect.unwrap(theory.setup_bytes)(4, "none"), "recovery"),
        (lambda: theory.expected_recovery_bytes(4, 1.5, "seeds"), "dropout"),
        (lambda: theory.threshold(4, -1), "colluders"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
