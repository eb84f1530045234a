"""Hypothesis strategies and properties to test your own protocol, sharing, topology or timeline.

Needs the ``testing`` extra of the package. A property raises an ``AssertionError`` that states the value, the rule and
the size of the violation, and a ``ValueError`` for arguments that do not fit together::

    import jax.numpy as jnp
    from hypothesis import given, settings, strategies as st
    from gossipjax import testing

    @settings(max_examples=100, deadline=None)
    @given(testing.timelines(("rounds", "exchanges")), st.data())
    def test_my_protocol_conserves_the_mean(timeline, data):
        x0 = data.draw(testing.starts(timeline.properties.num_rows))
        testing.check_conserves_mean(my_protocol(), timeline, x0)

The strategies draw few shapes: node counts from :data:`SIZES`, events padded to :data:`EVENT_COUNTS`, messages in
flight to :data:`SLOT_COUNTS`. The properties run in one compiled function that depends on shapes only, so that 100
examples compile a handful of programs. To keep this true, define a protocol's functions at module level, and bind
numbers that change between examples with ``jax.tree_util.Partial`` (such as ``Partial(optax.sgd, 0.1)``).
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as _missing:
    raise ImportError(
        "gossipjax.testing needs Hypothesis, which is not installed: install the testing extra, gossipjax[testing]"
    ) from _missing

from gossipjax.testing._compressors import check_contracts, check_unbiased
from gossipjax.testing._plans import check_message_conservation, check_staleness_rules
from gossipjax.testing._properties import (
    check_consensus,
    check_conserves_mean,
    check_fixed_point,
    check_packing,
    check_permutation_equivariance,
)
from gossipjax.testing._relabel import relabel_rows, relabel_task, relabel_timeline
from gossipjax.testing._runs import History, history
from gossipjax.testing._strategies import (
    Draw,
    compressor_inputs,
    connected_digraphs,
    connected_graphs,
    digraphs,
    mixing_matrices,
    permutations,
    small_tasks,
    stacked_params,
    starts,
    vectors,
)
from gossipjax.testing._tapes import (
    EVENT_COUNTS,
    KINDS,
    SIZES,
    SLOT_COUNTS,
    EventTape,
    event_tapes,
    pad_timeline,
    tape_timeline,
    timelines,
)

__all__ = [
    "EVENT_COUNTS",
    "KINDS",
    "SIZES",
    "SLOT_COUNTS",
    "Draw",
    "EventTape",
    "History",
    "check_consensus",
    "check_conserves_mean",
    "check_contracts",
    "check_fixed_point",
    "check_message_conservation",
    "check_packing",
    "check_permutation_equivariance",
    "check_staleness_rules",
    "check_unbiased",
    "compressor_inputs",
    "connected_digraphs",
    "connected_graphs",
    "digraphs",
    "event_tapes",
    "history",
    "mixing_matrices",
    "pad_timeline",
    "permutations",
    "relabel_rows",
    "relabel_task",
    "relabel_timeline",
    "small_tasks",
    "stacked_params",
    "starts",
    "tape_timeline",
    "timelines",
    "vectors",
]
