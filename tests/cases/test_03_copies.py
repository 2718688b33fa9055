"""Copies of one image are no independent evidence: tables of exactly C4 images."""

import os

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.io import InputError, read_particles, write_star
from jaxrelax.refinement import MaxIterations, Registers, Relax, refine

TABLES = ["texp.star", "texp_nohalf.star", "dup_across.star", "J9_particles_expanded.cs"]


def evidence(particles, reference):
    result = refine(
        particles, reference, relax=Relax("C4"), mode=Registers(), until=MaxIterations(3),
        ini_high=25.0, subgroups="none",
    )  # fmt: skip
    return result, result.evidence


@pytest.mark.parametrize("name", TABLES)
def test_one_image_is_one_image(case, name):
    result, found = evidence(case("11") / name, case("base4") / "reference.mrc")
    assert len(result.particles) == 300
    assert not found.found, found.sentence()
    assert np.bincount(result.particles.half_set)[1:].min() >= 130


def test_copies_by_other_names_in_another_order(case):
    """Rows in any order, one missing, refined each by itself, a stack with a second name."""
    folder = case("11")
    os.symlink("particles.mrcs", folder / "again.mrcs")
    table = read_particles(folder / "texp_nohalf.star")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(table))[1:]
    names = np.array([str(name) for name in table.column("rlnImageName")])
    second = np.char.replace(names, "@particles", "@./again")
    table = table.with_updates(
        extra_columns={"rlnImageName": np.where(np.arange(len(table)) % 4 < 2, names, second)}
    )
    write_star(table.select(rows), folder / "mixed.star")
    result, found = evidence(folder / "mixed.star", case("base4") / "reference.mrc")
    assert len(result.particles) == 300
    assert not found.found, found.sentence()


def test_an_expansion_by_another_group_is_refused(case):
    table = read_particles(case("11") / "truth.star")
    rows = np.repeat(np.arange(300), 4)
    operators = point_group("D2").operators.transpose(0, 2, 1)
    mates = table.rotations[rows] @ np.tile(operators, (300, 1, 1))
    expanded = table.select(rows).with_updates(rotations=mates)
    with pytest.raises(InputError, match="C4 does not relate"):
        evidence(expanded, case("base4") / "reference.mrc")
