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

from gossipjax.testing._compressors import check_contracts as check_contracts
from gossipjax.testing._compressors import check_unbiased as check_unbiased
from gossipjax.testing._plans import check_message_conservation as check_message_conservation
from gossipjax.testing._plans import check_staleness_rules as check_staleness_rules
from gossipjax.testing._properties import check_approaches as check_approaches
from gossipjax.testing._properties import check_consensus as check_consensus
from gossipjax.testing._properties import check_conserves_mean as check_conserves_mean
from gossipjax.testing._properties import check_fixed_point as check_fixed_point
from gossipjax.testing._properties import check_packing as check_packing
from gossipjax.testing._properties import check_permutation_equivariance as check_permutation_equivariance
from gossipjax.testing._relabel import relabel_rows as relabel_rows
from gossipjax.testing._relabel import relabel_task as relabel_task
from gossipjax.testing._relabel import relabel_timeline as relabel_timeline
from gossipjax.testing._runs import History as History
from gossipjax.testing._runs import history as history
from gossipjax.testing._strategies import Draw as Draw
from gossipjax.testing._strategies import compressor_inputs as compressor_inputs
from gossipjax.testing._strategies import connected_digraphs as connected_digraphs
from gossipjax.testing._strategies import connected_graphs as connected_graphs
from gossipjax.testing._strategies import mixing_matrices as mixing_matrices
from gossipjax.testing._strategies import permutations as permutations
from gossipjax.testing._strategies import small_tasks as small_tasks
from gossipjax.testing._strategies import stacked_params as stacked_params
from gossipjax.testing._strategies import starts as starts
from gossipjax.testing._strategies import vectors as vectors
from gossipjax.testing._tapes import EVENT_COUNTS as EVENT_COUNTS
from gossipjax.testing._tapes import KINDS as KINDS
from gossipjax.testing._tapes import SIZES as SIZES
from gossipjax.testing._tapes import SLOT_COUNTS as SLOT_COUNTS
from gossipjax.testing._tapes import EventTape as EventTape
from gossipjax.testing._tapes import event_tapes as event_tapes
from gossipjax.testing._tapes import pad_timeline as pad_timeline
from gossipjax.testing._tapes import tape_timeline as tape_timeline
from gossipjax.testing._tapes import timelines as timelines

__all__ = [name for name in dir() if not name.startswith("_")]
