"""Requirements, and pytrees that jit can take as arguments."""

import jax
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import exact_quadratic

from gossipjax import Requires, dpsgd
from gossipjax._base.binding import Frozen, as_factory
from gossipjax._engine.checks import compare_structure
from gossipjax.mixing import averaging
from gossipjax.timeline import rounds

FLAGS = ("fixed", "synchronous", "symmetric", "doubly_stochastic", "mixing")
REQUIREMENTS = st.builds(
    Requires,
    **dict.fromkeys(FLAGS, st.booleans()),
    min_eigenvalue=st.none() | st.floats(-1, 1),
    num_nodes=st.none() | st.just(4),
)


@given(REQUIREMENTS, REQUIREMENTS)
def test_both_requirements_are_the_stricter_of_each(one, two):
    both = one | two
    assert all(getattr(both, name) == (getattr(one, name) or getattr(two, name)) for name in FLAGS)
    bounds = [r.min_eigenvalue for r in (one, two) if r.min_eigenvalue is not None]
    assert both.min_eigenvalue == (max(bounds) if bounds else None)
    assert both.num_nodes == (4 if 4 in (one.num_nodes, two.num_nodes) else None)
    assert one | one == one


def test_protocols_and_timelines_are_pytrees_of_arrays():
    """Data, learning rate and mixing matrix are leaves; functions and facts are not."""
    protocol = dpsgd(exact_quadratic(), Partial(optax.sgd, 0.1))
    leaves, structure = jax.tree.flatten(protocol)
    assert 0.1 in [leaf for leaf in leaves if isinstance(leaf, float)]
    assert jax.tree.structure(dpsgd(exact_quadratic(), Partial(optax.sgd, 0.2))) == structure
    one, two = rounds(averaging(4), 5), rounds(averaging(4), 5)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert hash(jax.tree.structure(one)) == hash(jax.tree.structure(two))


def test_static_values_are_compared_not_traced():
    assert jax.tree.leaves(Frozen(3)) == []
    assert jax.tree.structure(Frozen(3)) != jax.tree.structure(Frozen(4))
    optimizer = optax.sgd(0.1)
    assert as_factory(optimizer)() is optimizer


def test_the_first_differing_leaf_is_named():
    a = {"x": jax.ShapeDtypeStruct((2,), "float32"), "y": jax.ShapeDtypeStruct((3,), "float32")}
    compare_structure(a, dict(a), "this")
    with pytest.raises(ValueError, match=r"this differs in leaf \['y'\]: expected float32\[3\], found float32\[4\]"):
        compare_structure(a, a | {"y": jax.ShapeDtypeStruct((4,), "float32")}, "this")
    with pytest.raises(ValueError, match=r"another structure: \['z'\]"):
        compare_structure(a, a | {"z": a["y"]}, "this")
