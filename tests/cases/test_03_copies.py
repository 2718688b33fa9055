"""Copies of one image are no independent evidence: tables of exactly C4 images."""

import os

import numpy as np
import pytest

from jaxrelax.io import read_particles, write_star
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
