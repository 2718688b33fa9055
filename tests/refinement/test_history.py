"""The table of iterations: what goes in comes out, of the same types, and as rows of numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrelax.refinement import History, StepInfo
from tests.refinement.made_up import NOTHING, history_of

INFOS = [
    dataclasses.replace(
        NOTHING, iteration=i + 1, asymmetric_fsc=0.1 * i, resolution_angstrom=np.inf,
        held_out_gain=np.nan, settled=i > 1, score_shell=i,
    )
    for i in range(4)
]  # fmt: skip


def test_iterations_come_back_as_they_were():
    history = history_of(INFOS)
    assert len(history) == 4
    for info, found in zip(INFOS, history, strict=True):
        np.testing.assert_equal(dataclasses.asdict(found), dataclasses.asdict(info))
        for name, value in dataclasses.asdict(info).items():
            assert type(getattr(found, name)) is type(value), name


def test_it_is_a_sequence():
    history = history_of(INFOS)
    assert history[-1].iteration == 4
    assert [info.iteration for info in history[1:3]] == [2, 3]
    assert [info.iteration for info in history[::-1]] == [4, 3, 2, 1]
    assert not History.empty()
    assert list(History.empty()) == []
    for past in (4, -5):
        with pytest.raises(IndexError):
            history[past]


def test_what_is_appended_to_stays_as_it_was():
    before = history_of(INFOS[:2])
    after = before.appended(INFOS[2])
    assert (len(before), len(after)) == (2, 3)
    assert before[-1].iteration == 2


def test_it_is_a_pytree_of_one_array_per_scalar():
    leaves = jax.tree.leaves(history_of(INFOS))
    assert len(leaves) == len(dataclasses.fields(StepInfo))
    assert {leaf.shape for leaf in leaves} == {(4,), (4, 0)}  # of no states in four iterations
    assert {leaf.dtype for leaf in leaves} == {np.dtype(t) for t in (int, float, bool)}


def test_a_row_is_of_numbers():
    row = INFOS[2].row()
    several = ("state_change", "state_certainty", "fractions", "deviations")
    fields = [field.name for field in dataclasses.fields(StepInfo)]
    assert list(row) == [name for name in fields if name not in several]
    assert {type(value) for value in row.values()} == {float}
    assert (row["settled"], row["relaxed"], row["iteration"]) == (1.0, 1.0, 3.0)
    info = dataclasses.replace(INFOS[2], state_change=0.1, fractions=(0.25, 0.75))
    history = history_of(INFOS).appended(info)
    assert history[-1].fractions == (0.25, 0.75)
    assert history[0].fractions == ()
    row = history[-1].row()
    banded = dataclasses.replace(INFOS[3], held_out_gain=0.5, deviations=(0.5, 0.25))
    history = history.appended(banded)
    assert history[-1].deviations == (0.5, 0.25)
    assert history[-2].deviations == ()
    named = banded.row()
    assert (named["deviation_to_30_angstrom"], named["deviation_to_20_angstrom"]) == (0.5, 0.25)
    text = {name: str(value) for name, value in named.items()}
    assert StepInfo.from_row(text) == banded
    assert (row["state_change"], row["fraction_class01"], row["fraction_class02"]) == (
        0.1, 0.25, 0.75,
    )  # fmt: skip
