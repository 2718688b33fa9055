"""The table of hypotheses: products of registers, sums of states, and where weight is deposited."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import point_group, right_cosets, subgroup
from jaxrelax.inference import Hypotheses, Model, Register, States, SymmetricState

GROUPS = st.sampled_from(["C2", "C3", "C4", "D2", "D3", "T"])


def registers(name, kept="C1"):
    group = point_group(name)
    below = point_group("C1") if kept == "C1" else subgroup(group, kept)
    return Register(right_cosets(group, below).representatives)


def test_one_map_at_the_pose_of_the_image():
    table = Model().table
    assert len(table) == table.n_places == 1
    np.testing.assert_array_equal(table.operators, np.eye(3)[None])
    np.testing.assert_array_equal(table.over_places(jnp.ones((2, 1))), 1.0)


@given(GROUPS)
def test_registers_are_the_first_channels_and_the_symmetric_part_the_last(name):
    register = registers(name)
    table = Model((SymmetricState(), register)).table
    count = len(register.operators)
    assert len(table) == count + 1
    np.testing.assert_allclose(table.operators[:count], register.operators, atol=1e-12)
    np.testing.assert_array_equal(table.symmetrised, [False] * count + [True])
    np.testing.assert_array_equal(table.value("register"), [*range(count), -1])
    np.testing.assert_array_equal(table.place_rows, np.arange(count))
    weights = np.random.default_rng(0).dirichlet(np.ones(count + 1), 5).astype(np.float32)
    expected = weights[:, :count] + weights[:, count:] / count
    np.testing.assert_allclose(table.over_places(jnp.asarray(weights)), expected, rtol=1e-6)


def test_the_order_of_latents_decides_the_order_of_rows_and_nothing_else():
    register = registers("C4")
    one = Model((SymmetricState(), register)).table
    other = Model((register, SymmetricState())).table
    np.testing.assert_allclose(one.operators, other.operators, atol=1e-12)
    np.testing.assert_array_equal(one.deposited, other.deposited)
    np.testing.assert_array_equal(one.value("symmetric"), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(other.value("symmetric"), [0, 0, 0, 0, 1])


@given(st.lists(st.tuples(GROUPS, st.booleans()), min_size=1, max_size=3))
def test_states_have_maps_and_registers_of_their_own(kinds):
    states = tuple(
        (SymmetricState(), registers(name)) if symmetric else (registers(name),)
        for name, symmetric in kinds
    )
    table = Model((States(states),)).table
    alone = [Model(latents).table for latents in states]
    assert len(table) == sum(map(len, alone))
    assert table.n_places == sum(t.n_places for t in alone)
    np.testing.assert_array_equal(table.map_index, table.value("state"))
    # Every row's weight stays in its own map, and none is lost.
    weights = np.random.default_rng(1).dirichlet(np.ones(len(table)), 4).astype(np.float32)
    placed = np.asarray(table.over_places(jnp.asarray(weights)))
    np.testing.assert_allclose(placed.sum(axis=1), 1.0, rtol=1e-5)
    for state in range(len(states)):
        mine = table.map_index[table.place_rows] == state
        np.testing.assert_allclose(
            placed[:, mine].sum(axis=1), weights[:, table.map_index == state].sum(axis=1), rtol=1e-5
        )


def test_a_state_without_a_latent_has_no_value_for_it():
    table = Model((States(((registers("C2"),), ())),)).table
    np.testing.assert_array_equal(table.value("register"), [0, 1, -1])
    np.testing.assert_array_equal(table.value("state"), [0, 0, 1])


def test_a_second_register_multiplies_the_first():
    # C4 over C2, and C2: all of C4, each operator once.
    group = point_group("C4")
    outer = registers("C4", "C2")
    inner = Register(subgroup(group, "C2").operators, name="half_turn")
    table = Model((outer, inner)).table
    found = {group.index_of(operator) for operator in table.operators}
    assert found == set(range(4))
    np.testing.assert_array_equal(table.deposited, np.eye(4, dtype=bool))


def test_names_are_used_once_and_states_come_first():
    register = registers("C2")
    with pytest.raises(ValueError, match="register"):
        Model((register, register))
    with pytest.raises(ValueError, match="register"):
        Hypotheses.single().with_values("register", [0]).with_values("register", [0])
    with pytest.raises(ValueError, match="states come first"):
        _ = Model((register, States(((),)))).table
