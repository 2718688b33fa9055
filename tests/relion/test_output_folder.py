"""RELION goes on from an output folder as it is, with the commands that a result is told."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jaxrelax.assessment import save
from jaxrelax.assessment.hand_over import HandOver
from jaxrelax.io import OutputFolder, read_map, read_particles
from jaxrelax.reconstruction import fsc
from jaxrelax.refinement import Local, MaxIterations, Relax, refine
from jaxrelax.simulate import Simulation, simulate

PIXEL_ANGSTROM, BOX = 5.5, 48


@pytest.fixture(scope="module")
def project(relion, tmp_path_factory) -> Path:
    """A project folder: images in a folder of their own, and a result in ``out``."""
    folder = tmp_path_factory.mktemp("project")
    simulate(
        "phantom", folder / "Extract",
        Simulation(
            n_images=60, box=BOX, pixel_size_angstrom=PIXEL_ANGSTROM, group="C4", snr=1.0,
            partner_kda=60.0, dtype="float32",
        ),
    )  # fmt: skip
    # Names relative to the project, as RELION writes them.
    table = (folder / "Extract" / "particles.star").read_text()
    (folder / "particles.star").write_text(table.replace("@", "@Extract/"))
    result = refine(
        read_particles(folder / "particles.star"),
        folder / "Extract" / "reference.mrc",
        mode=Local(), relax=Relax("C4"), until=MaxIterations(2), subgroups="none",
    )  # fmt: skip
    save(result, OutputFolder.create(folder / "out"))
    return folder


@pytest.fixture(scope="module")
def way() -> HandOver:
    return HandOver("out", ini_high=15.0, particle_diameter=200.0)


def flags(line):
    return re.findall(r" (--[A-Za-z_0-9]+)", line)


def test_options_are_relions(relion, way, tmp_path):
    for program, line in (
        ("relion_postprocess", way.relion_postprocess()),
        ("relion_refine", way.relion_refine("a.star", "map.mrc", "mask.mrc", "C1")),
    ):
        known = set(
            re.findall(r"(--[A-Za-z_0-9]+) \(|(--i) :", relion(program, "--help", folder=tmp_path))
        )
        known = {name for pair in known for name in pair if name}
        assert len(flags(line)) >= 5
        assert set(flags(line)) <= known


@pytest.mark.slow
def test_half_maps_are_sharpened_from_anywhere(relion, project, way, tmp_path):
    (project / "out_relion").mkdir(exist_ok=True)
    relion(*shlex.split(way.relion_postprocess()), folder=project)
    # From inside, with the name of half-map 2 that RELION derives from that of half-map 1.
    words = ("--i", "half1.mrc", "--mask", "mask.mrc", "--auto_bfac")
    relion("relion_postprocess", *words, "--o", tmp_path / "inside", folder=project / "out")
    above, pixel = read_map(project / "out_relion" / "postprocess.mrc")
    inside, _ = read_map(tmp_path / "inside.mrc")
    assert pixel == pytest.approx(PIXEL_ANGSTROM)
    np.testing.assert_array_equal(above, inside)
    assert np.corrcoef(above.ravel(), read_map(project / "out" / "map.mrc")[0].ravel())[0, 1] > 0.5


@pytest.mark.slow
def test_particles_are_reconstructed_from_the_project_folder(relion, project, tmp_path):
    out = tmp_path / "map.mrc"
    relion("relion_reconstruct", "--i", "out/particles.star", "--o", out, "--ctf", folder=project)
    theirs, ours = read_map(out)[0], read_map(project / "out" / "map.mrc")[0]
    assert fsc(theirs, ours)[1:6].min() > 0.9


@pytest.mark.slow
def test_names_in_the_table_are_those_of_the_input(project):
    # RELION looks for them in the folder it runs in, so the project's folder is the one.
    written = read_particles(project / "out" / "particles.star")
    assert set(written.image_names) == {"Extract/particles.mrcs"}


@pytest.mark.slow
def test_a_local_refinement_keeps_registers(relion, project, tmp_path):
    relion(
        "relion_refine", "--i", "out/particles.star", "--ref", "out/map.mrc",
        "--solvent_mask", "out/mask.mrc", "--o", tmp_path / "run", "--iter", 1, "--sym", "C1",
        "--healpix_order", 4, "--sigma_ang", 3.75, "--offset_range", 3, "--offset_step", 2,
        "--oversampling", 1, "--ini_high", 15, "--particle_diameter", 200, "--ctf",
        "--ctf_corrected_ref", "--norm", "--scale", "--flatten_solvent", "--zero_mask",
        "--j", 2, "--random_seed", 1,
        folder=project,
    )  # fmt: skip
    assert turned(project, tmp_path / "run_it001_data.star").max() < 30.0


def turned(project, path) -> np.ndarray:
    """Angles (degrees) between our poses and those of another table of the same images."""
    ours = read_particles(project / "out" / "particles.star")
    theirs = read_particles(path, image_root=project)
    order = np.argsort(ours.image_index)[np.argsort(np.argsort(theirs.image_index))]
    between = ours.rotations[order].transpose(0, 2, 1) @ theirs.rotations
    cosine = (np.trace(between, axis1=1, axis2=2) - 1.0) / 2.0
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


@pytest.mark.slow
def test_both_half_sets_are_refined_by_the_command_as_it_stands(relion, project, way):
    if shutil.which("mpirun") is None or shutil.which("relion_refine_mpi") is None:
        pytest.skip("not on PATH: mpirun, relion_refine_mpi")
    files = ("out/particles.star", "out/map.mrc", "out/mask.mrc")
    line = f"{way.relion_folder} && {way.relion_refine(*files, 'C1')}"
    allow = ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM", "MCA_rmaps_base_oversubscribe")
    done = subprocess.run(
        f"{line} --auto_iter_max 2 --random_seed 1",
        shell=True, cwd=project, capture_output=True, text=True, timeout=600,
        env=os.environ | {f"OMPI_{name}": "1" for name in allow},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert "local searches= true" in done.stdout
    table = project / "out_relion" / "run_it001_data.star"
    assert turned(project, table).max() < 30.0
    before = read_particles(project / "out" / "particles.star")
    after = read_particles(table, image_root=project)
    assert dict(zip(after.image_index, after.half_set, strict=True)) == dict(
        zip(before.image_index, before.half_set, strict=True)
    )
