"""Requirements, and pytrees that jit can take as arguments."""

import dataclasses
import inspect

import jax
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial
from problems import exact_quadratic

from gossipjax import Properties, Requires, dpsgd
from gossipjax._base.binding import Frozen, as_factory
from gossipjax._engine.checks import compare_structure
from gossipjax.facts import FACTS, check_requires
from gossipjax.mixing import averaging
from gossipjax.timeline import rounds

REQUIREMENTS = st.builds(
    Requires,
    st.sets(st.sampled_from(sorted(FACTS))),
    mixing=st.booleans(),
    min_eigenvalue=st.none() | st.floats(-1, 1),
    num_nodes=st.none() | st.just(4),
)


@given(REQUIREMENTS, REQUIREMENTS)
def test_both_requirements_are_the_stricter_of_each(one, two):
    both = one | two
    assert both.tags == one.tags | two.tags
    assert both.mixing == (one.mixing or two.mixing)
    bounds = [r.min_eigenvalue for r in (one, two) if r.min_eigenvalue is not None]
    assert both.min_eigenvalue == (max(bounds) if bounds else None)
    assert both.num_nodes == (4 if 4 in (one.num_nodes, two.num_nodes) else None)
    assert one | one == one


@given(st.sets(st.sampled_from(sorted(FACTS))), REQUIREMENTS)
def test_what_is_needed_must_be_among_what_is_offered(tags, requires):
    """``needs <= offers``, facts that follow from others included."""
    requires = dataclasses.replace(requires, min_eigenvalue=None, num_nodes=None)
    facts = Properties(4, 4, "a plan", tags)
    offered = set(tags) | ({"row_stochastic", "column_stochastic"} if "doubly_stochastic" in tags else set())
    offered |= {"one_graph"} if "fixed" in tags else set()
    offered |= {"averages"} if "server" in tags else set()
    if requires.tags <= offered:
        check_requires(requires, facts)
        return
    with pytest.raises(ValueError, match="the protocol needs") as refused:
        check_requires(requires, facts)
    assert any(FACTS[tag].remedy in str(refused.value) for tag in requires.tags - offered)


def test_a_fact_that_does_not_exist_is_refused():
    for wrong in (
        lambda: Requires({"fixt"}),
        lambda: Properties(2, 2, "a plan", {"fixt"}),
        lambda: "fixt" in Requires(),
    ):
        with pytest.raises(ValueError, match="'fixt' is not a fact of timelines: use one of walks, buffered"):
            wrong()
    for none in ("fixed", ("fixed",), ["fixed"]):
        with pytest.raises((TypeError, ValueError), match="tags"):
            inspect.unwrap(Requires.__init__)(object.__new__(Requires), none)


def test_every_fact_says_what_it_means_and_where_it_is_found():
    for tag, fact in FACTS.items():
        assert fact.meaning.endswith(".")
        assert "use " in fact.remedy
        assert fact.missing.startswith(("is not", "has no"))
        assert set(fact.implies) <= set(FACTS) - {tag}


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
