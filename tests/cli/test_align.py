"""`jaxrelax align`: the map comes home, and its particles still fit it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import point_group, random_rotations, rotvec_to_matrix
from jaxrelax.imaging import (
    extract_slices,
    fourier_volume,
    half_spectrum,
    pack,
    shift_phases,
    volume_radius,
)
from jaxrelax.io import read_map, read_particles, write_map, write_star
from jaxrelax.reconstruction import align_axes
from tests.reconstruction.blobs import blobs, gaussians, sampled

BOX, PIXEL, SHELL, SIGMA = 40, 2.5, 15, 1.7
TURN = rotvec_to_matrix(np.deg2rad(11.0) * np.array([0.6, -0.8, 0.0]))
CENTRE = np.array([1.5, -2.0, 0.7])


def crooked(name="C4"):
    """Gaussians with symmetry about other axes: positions in pixels, and weights."""
    operators = point_group(name).operators
    centres, weights = gaussians(reach=8.0)
    points = np.concatenate([centres @ g.T for g in operators])
    return points @ TURN + CENTRE, np.tile(weights, len(operators))


@pytest.fixture
def files(data, tmp_path):
    """A crooked map, and particles that are images of it."""
    write_map(tmp_path / "map.mrc", sampled(*crooked(), BOX), PIXEL)
    particles, rng = read_particles(data.truth), np.random.default_rng(4)
    particles = particles.with_updates(
        rotations=random_rotations(len(particles), rng),
        origins_angstrom=rng.uniform(-8, 8, (len(particles), 2)),
    )
    write_star(particles, tmp_path / "in.star")
    return tmp_path


def words(folder, *more):
    return (
        *("align", folder / "map.mrc", "--symmetry", "C4", "--out", folder / "aligned.mrc"),
        *("--particles", folder / "in.star", "--out-particles", folder / "aligned.star"),
        *more,
    )


def image(rotation, origin_angstrom, packing):
    """Transform of the crooked particle's image, by hand: it sits at minus the origin."""
    points, weights = crooked()
    xy = (points @ rotation.T)[:, :2] - origin_angstrom / PIXEL
    x = np.arange(BOX) - BOX // 2
    px, py = (np.exp(-((x[None] - c[:, None]) ** 2) / (2 * SIGMA**2)) for c in xy.T)
    made = np.einsum("p,py,px->yx", weights, py, px) * SIGMA * np.sqrt(2 * np.pi)
    return np.asarray(pack(jnp.asarray(made[None], jnp.float32), packing)[0])


def test_the_aligned_particles_fit_the_aligned_map(run, files):
    status, _, err = run(*words(files))
    assert (status, err) == (0, "")
    map_, pixel = read_map(files / "aligned.mrc")
    assert pixel == PIXEL
    packing = half_spectrum(BOX, SHELL)
    volume = fourier_volume(jnp.asarray(map_[None]), radius=volume_radius(SHELL), image_box=BOX)
    before, after = (read_particles(files / name) for name in ("in.star", "aligned.star"))
    slices = extract_slices(
        volume, jnp.asarray(after.rotations, jnp.float32), packing.wavevectors_px
    )[:, 0]

    def misfit(origins_angstrom):
        phases = shift_phases(jnp.asarray(-origins_angstrom / PIXEL, jnp.float32), packing)
        seen = [
            image(a, o, packing)
            for a, o in zip(before.rotations, before.origins_angstrom, strict=True)
        ]
        return np.linalg.norm(seen - np.asarray(slices * phases)) / np.linalg.norm(seen)

    moved_by = after.origins_angstrom - before.origins_angstrom
    assert misfit(after.origins_angstrom) < 0.03
    # The other sign, and poses moved without their origins, would be seen.
    assert misfit(before.origins_angstrom - moved_by) > 0.3
    assert misfit(before.origins_angstrom) > 0.2


def test_what_was_found_is_said_and_true(run, files):
    _, out, _ = run(*words(files))
    assert "11.0" in out
    assert "px (" in out
    assert "1.000 after" in out
    assert "40 particles" in out
    aligned, _ = read_map(files / "aligned.mrc")
    again = align_axes(aligned, point_group("C4"))
    assert again.angle_deg < 0.2
    assert again.shift_px < 0.1
    assert again.correlation > 0.999


def test_all_else_about_the_particles_stays(run, files):
    run(*words(files))
    before, after = (
        (files / name).read_text().split("data_particles") for name in ("in.star", "aligned.star")
    )
    assert before[0] == after[0]
    rows = [
        [line.split() for line in text[1].splitlines() if "@" in line] for text in (before, after)
    ]
    changed = {i for a, b in zip(*rows, strict=True) for i in range(len(a)) if a[i] != b[i]}
    labels = [line.split()[0][1:] for line in before[1].splitlines() if line.startswith("_")]
    assert {labels[i] for i in changed} == {
        *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    }


def test_a_map_alone(run, files):
    status, out, _ = run(
        "align", files / "map.mrc", "--symmetry", "C4", "--out", files / "aligned.mrc"
    )
    assert status == 0
    assert "particles" not in out
    assert not (files / "aligned.star").exists()


def test_cryosparc_particles_stay_cryosparc_particles(run, files, shared_data):
    cs_file = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    status, _, err = run(
        "align", files / "map.mrc", "--symmetry", "C4", "--out", files / "aligned.mrc",
        "--particles", cs_file, "--out-particles", files / "aligned.cs",
    )  # fmt: skip
    assert (status, err) == (0, "")
    before, after = read_particles(cs_file), read_particles(files / "aligned.cs")
    turned = after.rotations.transpose(0, 2, 1) @ before.rotations
    np.testing.assert_allclose(turned, np.broadcast_to(turned[0], turned.shape), atol=1e-5)


def test_files_are_replaced_only_when_asked(run, files):
    (files / "aligned.star").write_text("old")
    status, _, err = run(*words(files))
    assert status == 2
    assert "aligned.star: is there already" in err
    assert not (files / "aligned.mrc").exists()
    assert run(*words(files, "--overwrite"))[0] == 0
    assert len(read_particles(files / "aligned.star")) == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--symmetry": "Q4"}, "Q4"),
        ({"--symmetry": "C1"}, "C1 has no axes"),
        ({"--out": "aligned.txt"}, "aligned.txt: a map is written as .mrc"),
        ({"--out": "nowhere/aligned.mrc"}, "nowhere: no such folder"),
        ({"--out": "map.mrc"}, "map.mrc: is what is to be aligned"),
        ({"--out-particles": "in.star"}, "in.star: is what is to be aligned"),
        ({"--out-particles": "aligned.cs"}, "are written as .star."),
        ({"--out-particles": None}, "--out-particles where"),
        ({"--particles": None}, "--out-particles: can act only with --particles"),
        ({"--particles": "none.star"}, "none.star"),
        ({"--passthrough": "a.cs"}, "--passthrough: belongs to .cs files"),
    ],
)
def test_bad_input_leaves_nothing_behind(run, files, monkeypatch, change, message):
    monkeypatch.chdir(files)
    options = {
        "--symmetry": "C4", "--out": "aligned.mrc", "--particles": "in.star",
        "--out-particles": "aligned.star", "--overwrite": "",
    } | change  # fmt: skip
    given = [word for pair in options.items() if pair[1] is not None for word in pair if word]
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    status, out, err = run("align", "map.mrc", *given)
    assert status == 2
    assert message in err
    assert "Traceback" not in err + out
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_a_map_without_that_symmetry_is_refused(run, files):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((24, 24, 24)).astype(np.float32)
    write_map(files / "map.mrc", noise + 0.1 * blobs(24), PIXEL)
    status, _, err = run(*words(files))
    assert status == 2
    assert "does not look like it has the symmetry C4" in err
    assert "relion_align_symmetry" in err
    assert sorted(path.name for path in files.iterdir()) == ["in.star", "map.mrc"]


def test_the_axis_of_a_part_is_said_as_refine_takes_it(run, files):
    """The crooked C4 beside a body that has none: inside the mask alone it is found."""
    points, weights = crooked()
    body = np.array([[-12.0, -10.0, 4.0], [-14.0, -6.0, -5.0], [-9.0, -13.0, -2.0]])
    both = np.concatenate([points, body]), np.concatenate([weights, [2.0, 3.0, 2.5]])
    write_map(files / "both.mrc", sampled(*both, BOX), PIXEL)
    x = np.arange(BOX) - BOX // 2
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij")[::-1], axis=-1)
    near = np.linalg.norm(grid - CENTRE, axis=-1) < 12.0
    away = np.min([np.linalg.norm(grid - each, axis=-1) for each in body], axis=0) > 5.0
    write_map(files / "mask.mrc", (near & away).astype(np.float32), PIXEL)
    status, out, err = run(
        "align", files / "both.mrc", "--symmetry", "C4", "--mask", files / "mask.mrc"
    )
    assert status == 0, err
    at = np.array(out.split("--axis-at ")[1].split()[:3], float)
    along = np.array(out.split("--axis-along ")[1].split()[:3], float)
    true = TURN[2]
    assert np.rad2deg(np.arccos(min(abs(float(along @ true)), 1.0))) < 2.0
    apart = at - PIXEL * CENTRE
    assert np.linalg.norm(apart - true * (apart @ true)) < 0.5 * PIXEL
    assert not (files / "aligned.mrc").exists()


def test_without_a_mask_the_aligned_map_goes_somewhere(run, files):
    status, _, err = run("align", files / "map.mrc", "--symmetry", "C4")
    assert status == 2
    assert "--out: say where the aligned map goes" in err
