"""What builders return carries the record of the call, and with it the works to cite."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import walk_rooms

from gossipjax._base.calls import citations, record_of

FILES = {"load", "load_plan", "repeat", "read_configuration"}
"""Read files that the tables of calls do not write."""


@pytest.mark.parametrize("room", walk_rooms.ROOMS)
def test_results_of_recorded_builders_carry_their_record(room, tmp_path, monkeypatch):
    """Plain arrays, numbers and containers have no room for one; objects of our own classes have."""
    monkeypatch.chdir(tmp_path)
    silent = []
    for builder, arguments in walk_rooms.ROOMS[room]():
        if citations(builder) is None or builder.__name__ in FILES:
            continue
        if isinstance(arguments.get("x0"), np.ndarray):  # tests check annotations, and the walk does not
            arguments["x0"] = jnp.asarray(arguments["x0"])
        result = builder(**arguments)
        ours = type(result).__module__.startswith("gossipjax")
        if ours and record_of(result) is None:
            silent.append(f"{inspect.unwrap(builder).__qualname__} -> {type(result).__name__}")
    assert silent == []
