"""Images and maps from files: what is undone, what is refused, and what the volume holds."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelax as jr
from jaxrelax.geometry import point_group, right_cosets, subgroup
from jaxrelax.imaging import (
    CTFParameters,
    ctf,
    extract_slices,
    fourier_volume,
    half_grid_frequencies,
    pack,
    resample_map,
    unpack,
    volume_radius,
    working_box,
)
from jaxrelax.inference import Model, Register
from jaxrelax.io import ImageReader, read_particles, write_map, write_stack
from jaxrelax.reconstruction import hypothesis_volume, rotated_maps, symmetrise
from jaxrelax.simulate import Simulation, simulate

BOX, PIXEL = 32, 8.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    options = Simulation(
        n_images=24, box=BOX, pixel_size_angstrom=PIXEL, snr=0.5, seed=2, n_optics_groups=2,
        noise_colour=0.0,
    )  # fmt: skip
    simulate("phantom", folder, options)
    return folder


@pytest.fixture(scope="module")
def particles(folder):
    table = read_particles(folder / "particles.star")
    return table.select(table.optics_group == 0)


def test_what_is_held_is_what_the_table_says(particles):
    rows = np.array([3, 1, 2])
    images = jr.load_images(particles, rows, max_resolution_angstrom=20.0)
    assert len(images) == 3
    np.testing.assert_array_equal(images.rows, particles.rows_of_file()[rows])
    batch, geometry, poses = images.inputs()
    assert geometry.packing.max_shell == int(BOX * PIXEL / 20.0)
    with ImageReader(particles) as reader:
        raw = reader.read(rows)
    np.testing.assert_allclose(batch.data, pack(jnp.asarray(raw), geometry.packing), atol=1e-5)
    np.testing.assert_allclose(poses.rotations, particles.rotations[rows], atol=1e-6)
    np.testing.assert_allclose(
        poses.origins_px, particles.origins_angstrom[rows] / PIXEL, atol=1e-5
    )
    optics = particles.optics[0]
    expected = ctf(
        CTFParameters(
            *(np.asarray(x[rows], np.float32) for x in (
                particles.defocus_u_angstrom, particles.defocus_v_angstrom,
                particles.defocus_angle_deg, particles.phase_shift_deg,
                particles.bfactor_angstrom2,
            )),
            *(np.full(3, x, np.float32) for x in (
                optics.voltage_kv, optics.spherical_aberration_mm, optics.amplitude_contrast,
            )),
        ),
        geometry.frequencies,
    )  # fmt: skip
    np.testing.assert_allclose(batch.ctf, expected, atol=1e-5)


def test_white_noise_around_particles_is_measured(particles):
    """The simulation normalises its white background to deviation 1."""
    images = jr.load_images(particles)
    # Twelve images, of which the corners count: few numbers in each shell.
    np.testing.assert_allclose(images.noise_power[4:], 1.0, atol=0.4)
    assert float(jnp.mean(images.noise_power[6:])) == pytest.approx(1.0, abs=0.1)


def test_a_selection_and_the_whole_go_through_jit(particles):
    images, model = jr.load_images(particles), jr.relaxed("C4")
    volume = jr.volume(symmetric_start(particles), model, "C4", images.geometry)

    @jax.jit
    def scores(images):
        return jr.log_marginal(model, model.init(), volume, *images.inputs())

    whole = scores(images)
    chosen = jnp.array([5, 0])
    np.testing.assert_allclose(scores(images.select(chosen)), whole[chosen], rtol=1e-5)


def symmetric_start(particles):
    return jr.read_map(particles.source.parent / "reference.mrc")[0]


@pytest.mark.parametrize(
    ("premultiplied", "flipped"), [(False, True), (True, False), (True, True)]
)  # fmt: skip
def test_multiplied_and_flipped_images_are_as_before(particles, tmp_path, premultiplied, flipped):
    """c·y and sign(c)·y say what y says, also when the defocus is changed."""
    plain = jr.load_images(particles)
    table = np.asarray(plain.inputs()[0].ctf)
    factor = table if premultiplied else np.sign(table)
    changed = np.asarray(unpack(jnp.asarray(plain.data * factor), plain.geometry.packing))
    write_stack(tmp_path / "changed.mrcs", changed, PIXEL)
    optics = tuple(
        replace(group, ctf_premultiplied=premultiplied, phase_flipped=flipped)
        for group in particles.optics
    )
    other = replace(
        particles, optics=optics, stack_paths=(tmp_path / "changed.mrcs",),
        image_names=("changed.mrcs",), stack_index=np.zeros(len(particles), np.int32),
        image_index=np.arange(len(particles)),
    )  # fmt: skip
    again = jr.load_images(other)
    change = jnp.full(len(particles), 800.0)
    one, two = (
        images.inputs(defocus_change_angstrom=change)[0] for images in (plain, again)
    )  # fmt: skip
    usable = np.abs(table) > 0.02 if premultiplied else np.ones(table.shape, bool)
    np.testing.assert_array_equal(np.asarray(two.ctf)[usable], np.asarray(one.ctf)[usable])
    # Where the CTF is small, what was rounded is divided by it.
    np.testing.assert_allclose(
        np.asarray(two.data)[usable], np.asarray(one.data)[usable], atol=1e-3
    )
    assert not np.any(np.asarray(two.ctf)[~usable])


def test_several_optics_groups_are_refused(folder):
    with pytest.raises(jr.InputError, match="several optics groups"):
        jr.load_images(folder / "particles.star")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_resolution_angstrom": 10.0}, "the images end at 16"),
        ({"particle_diameter_angstrom": 300.0}, "does not fit the box"),
        ({"rows": np.zeros(0, int)}, "no images were chosen"),
    ],
)
def test_what_makes_no_sense_is_refused(particles, arguments, words):
    with pytest.raises(jr.InputError, match=words):
        jr.load_images(particles, **arguments)


def test_images_that_cannot_be_scored_are_refused(particles, tmp_path):
    with pytest.raises(jr.InputError, match="no poses"):
        jr.load_images(replace(particles, has_poses=False))
    broken = np.random.default_rng(0).standard_normal((len(particles), BOX, BOX))
    broken[2, 3, 4] = np.nan
    for values, words in ((broken, "no numbers"), (np.zeros_like(broken), "no noise")):
        write_stack(tmp_path / "bad.mrcs", values.astype(np.float32), PIXEL)
        other = replace(
            particles, stack_paths=(tmp_path / "bad.mrcs",), image_names=("bad.mrcs",),
            stack_index=np.zeros(len(particles), np.int32),
            image_index=np.arange(len(particles)),
        )  # fmt: skip
        with pytest.raises(jr.InputError, match=words):
            jr.load_images(other)


@pytest.mark.parametrize(("name", "to"), [("C4", "C1"), ("D2", "C2"), ("C3", "C1")])
def test_the_volume_is_that_of_maps_turned_one_by_one(name, to):
    """By FINUFFT, resampled beforehand, every channel by itself."""
    n, shell = 32, 9
    x = np.arange(n) - n // 2
    rng = np.random.default_rng(0)
    ball = np.exp(-(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) / 40.0)
    map_ = resample_map((ball * rng.standard_normal((n, n, n))).astype(np.float32), 16)
    map_ = resample_map(map_, n)
    group, model = point_group(name), jr.relaxed(name, to, symmetric=True)
    found = hypothesis_volume(map_[None], model.table, [group], max_shell=shell, image_box=n)
    small = resample_map(map_, working_box(shell))
    symmetric = symmetrise(small, group)
    operators = model.table.operators[~model.table.symmetrised]
    cosets = right_cosets(group, subgroup(group, to)).representatives
    np.testing.assert_allclose(operators, cosets)
    turned = [symmetric + d for d in rotated_maps(small - symmetric, operators.mT)]
    expected = fourier_volume(
        jnp.asarray(np.stack([*turned, symmetric])), radius=volume_radius(shell), image_box=n
    )
    inside = (half_grid_frequencies(found.radius) <= shell).ravel()
    scale = np.abs(np.asarray(expected.values)).max()
    difference = np.asarray(found.values - expected.values)[inside]
    assert np.abs(difference).max() < 2e-5 * scale
    # Registers differ, by much more.
    assert np.abs(np.asarray(found.values[:, 0] - found.values[:, 1])).max() > 1e-2 * scale


def test_a_channel_at_a_pose_is_the_map_at_its_mate():
    """V_j at A is V at A r_jᵀ, for a map that interpolation hurts little."""
    n, shell = 32, 6
    x = np.arange(n) - n // 2
    map_ = np.exp(
        -((x[:, None, None] - 2) ** 2 + (x[:, None] - 3) ** 2 + (x - 1) ** 2) / 20.0
    ).astype(np.float32)  # fmt: skip
    model = jr.relaxed("D2")
    seen = hypothesis_volume(
        map_[None], model.table, [point_group("D2")], max_shell=shell, image_box=n
    )
    one = hypothesis_volume(
        map_[None], Model().table, [point_group("C1")], max_shell=shell, image_box=n
    )
    rotation = jnp.asarray(point_group("I").operators[7], jnp.float32)
    waves = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 4.0]], np.float32)
    channels = extract_slices(seen, rotation[None], waves)[0]
    for channel, operator in zip(channels, model.table.operators, strict=True):
        mate = rotation @ jnp.asarray(operator.T, jnp.float32)
        expected = extract_slices(one, mate[None], waves)[0, 0]
        np.testing.assert_allclose(channel, expected, atol=2e-2 * float(jnp.abs(expected).max()))


def test_maps_that_do_not_belong_are_refused(particles, tmp_path):
    images = jr.load_images(particles, np.arange(2))
    model, map_ = jr.relaxed("C4"), symmetric_start(particles)
    with pytest.raises(jr.InputError, match="an operator that C2 does not have"):
        jr.volume(map_, model, "C2", images.geometry)
    with pytest.raises(jr.InputError, match="the table has 1 maps; given were 2"):
        jr.volume(np.stack([map_, map_]), model, "C4", images.geometry)
    write_map(tmp_path / "large.mrc", map_, 2.0 * PIXEL)
    with pytest.raises(jr.InputError, match="that of the images is 256"):
        jr.volume(tmp_path / "large.mrc", model, "C4", images.geometry)
    for group, to in (("C5x", "C1"), ("C4", "C3")):
        with pytest.raises(jr.InputError):
            jr.relaxed(group, to)


def test_a_map_from_a_file_is_that_of_its_array(particles):
    images, model = jr.load_images(particles, np.arange(2)), jr.relaxed("C4")
    path = particles.source.parent / "reference.mrc"
    one = jr.volume(path, model, "C4", images.geometry)
    other = jr.volume(symmetric_start(particles), model.table, "C4", images.geometry)
    np.testing.assert_array_equal(one.values, other.values)
    assert isinstance(model.latents[0], Register)
