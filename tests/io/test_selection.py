"""Rows by state, register and junk."""

import numpy as np
import pytest

from jaxrelax.io import InputError, read_particles, select_by_posterior

STATE = [1, 2, 1, 3, 1, 2]
COLUMNS = {
    "jrxStateProbability": [0.99, 0.9, 0.6, 0.95, 1.0, 0.5],
    "jrxRegister": [1, 1, 2, 1, 2, 1],
    "jrxRegisterProbability": [0.8, 1.0, 1.0, 1.0, 0.9, 1.0],
    "jrxJunkProbability": [0.0, 0.1, 0.0, 0.2, 0.7, 0.0],
}


@pytest.fixture
def table(particle_set):
    """Reads the set with these columns, but for some left out."""

    def read(*without, states=True):
        columns = dict(COLUMNS)
        if states:
            particle_set.columns["rlnClassNumber"] = [str(s) for s in STATE]
        else:
            columns.pop("jrxStateProbability")
        for label, values in columns.items():
            if label not in without:
                particle_set.columns[label] = [str(v) for v in values]
        return read_particles(particle_set.write())

    return read


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"states": [1]}, [0, 2]),
        ({"states": [1], "max_junk": 0.7}, [0, 2, 4]),
        ({"states": [1], "max_junk": 1.0, "min_probability": 0.3}, [0, 2, 4]),
        ({"states": [1], "max_junk": 1.0, "min_probability": 0.31}, [0, 2]),
        ({"states": [1], "min_probability": 0.9}, [0]),
        ({"states": [2, 3]}, [1, 3, 5]),
        # 0.9 × (1 − 0.1) = 0.81 and 0.95 × (1 − 0.2) = 0.76.
        ({"states": [2, 3], "min_probability": 0.7}, [1, 3]),
        ({"states": [2, 3], "min_probability": 0.8}, [1]),
        ({"states": [1], "registers": [1]}, [0]),
        ({"states": [1], "registers": [2, 1], "min_probability": 0.7}, [0]),
        # 0.99 × 0.8 = 0.79
        ({"states": [1], "registers": [2, 1], "min_probability": 0.6}, [0, 2]),
        # Whatever the state is: 0.99, 0.81, 0.6, 0.76, 0.3 and 0.5.
        ({"min_probability": 0.7}, [0, 1, 3]),
    ],
)
def test_rows_of_a_run_with_states(table, asked, rows):
    assert np.flatnonzero(select_by_posterior(table(), **asked)).tolist() == rows


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"registers": [1]}, [0, 1, 3, 5]),
        ({"registers": [1], "min_probability": 0.85}, [1, 5]),
        ({"registers": [2]}, [2]),
        ({"min_probability": 0.85}, [1, 2, 5]),
    ],
)
def test_rows_of_a_run_without_states(table, asked, rows):
    assert np.flatnonzero(select_by_posterior(table(states=False), **asked)).tolist() == rows


def test_without_junk_none_is_junk(table):
    chosen = select_by_posterior(table("jrxJunkProbability"), states=[1])
    assert np.flatnonzero(chosen).tolist() == [0, 2, 4]


def test_what_cannot_be_selected(table):
    particles = table()
    with pytest.raises(InputError, match="say which particles"):
        select_by_posterior(particles)
    with pytest.raises(
        InputError, match=r"those that have particles are 1 \(3\), 2 \(2\), 3 \(1\)"
    ):
        select_by_posterior(particles, states=[4])
    with pytest.raises(InputError, match="2 of 6 particles are of these, but none is likely"):
        select_by_posterior(particles, states=[2], min_probability=0.95)
    for states in ([], [1, 2]):
        with pytest.raises(InputError, match="Say of which one"):
            select_by_posterior(particles, states=states, registers=[1])


def test_columns_that_are_not_there(table):
    plain = table("jrxRegister", states=False)
    with pytest.raises(InputError, match="no column jrxStateProbability"):
        select_by_posterior(plain, states=[1])
    with pytest.raises(InputError, match="no columns jrxRegister and jrxRegisterProbability"):
        select_by_posterior(plain, registers=[1])


def test_a_table_of_neither_states_nor_registers(table):
    plain = table("jrxRegisterProbability", states=False)
    with pytest.raises(InputError, match="nothing to select by"):
        select_by_posterior(plain, min_probability=0.5)


def test_values_that_are_no_numbers(table, particle_set):
    table()
    particle_set.columns["jrxJunkProbability"][2] = "nan"
    with pytest.raises(InputError, match="row 3: column jrxJunkProbability is not finite"):
        select_by_posterior(read_particles(particle_set.write()), states=[1])
    particle_set.columns["jrxJunkProbability"][2] = "much"
    with pytest.raises(InputError, match="jrxJunkProbability holds no number"):
        select_by_posterior(read_particles(particle_set.write()), states=[1])
