"""Subtraction against blobs whose projections are known by formula, in double precision."""

import numpy as np
import pytest

from jaxrelax.geometry import Aberrations, point_group
from jaxrelax.io import ImageReader, InputError, read_map, read_mask, read_particles
from jaxrelax.io.moved import Moved
from jaxrelax.io.registers import RegisterPosterior
from jaxrelax.refinement.subtracted_files import Layout, write_subtracted
from jaxrelax.refinement.subtraction import Scale, Subtraction, mass_centre
from tests.refinement.blobs import BODY, PART, PART_WEIGHT, WEIGHTS, Blobs, Group

KEPT = (PART[None], np.array([PART_WEIGHT]))
TILTED = Aberrations(
    odd=(30.0, -20.0, 15.0, 400.0, -300.0, 60.0),
    even=(0.0, 25.0, 0.0, -20.0, 300.0),
    magnification=(1.03, 0.01, -0.02, 0.98),
)


def subtraction_of(table, registers=None):
    folder = table.parent
    particles = read_particles(table)
    return Subtraction(
        particles, read_map(folder / "map.mrc")[0], read_mask(folder / "keep.mrc")[0], registers
    )


def relative_power(found, expected):
    """Of what is wrong with each image, over that of the image that is expected."""
    wrong = np.sum((np.asarray(found, np.float64) - expected) ** 2, axis=(1, 2))
    return wrong / np.sum(expected**2, axis=(1, 2))


def all_images(subtraction, factors):
    found = {}
    for group, factor in enumerate(factors):
        for rows, images in subtraction.images(group, factor):
            found |= dict(zip(rows.tolist(), images, strict=True))
    return [found[i] for i in range(len(found))]


@pytest.mark.parametrize(
    "group",
    [
        Group(),
        Group(aberrations=TILTED),
        Group(phase_flipped=True),
        Group(premultiplied=True),
    ],
    ids=["plain", "aberrations", "phase_flipped", "premultiplied"],
)
def test_what_is_left_is_the_projection_of_the_kept_part(group, tmp_path):
    blobs = Blobs([group])
    left = all_images(subtraction_of(blobs.write(tmp_path)), [1.0])
    wrong = relative_power(left, blobs.images(*KEPT))
    assert wrong.max() < 0.01
    # Before, the rest was most of every image.
    assert relative_power(blobs.images(*blobs.everything), blobs.images(*KEPT)).min() > 1.0


def test_optics_groups_of_another_pixel_size_have_their_amplitude(tmp_path):
    blobs = Blobs([Group(n=7), Group(box=36, pixel=3.5, n=6)])
    left = all_images(subtraction_of(blobs.write(tmp_path)), [1.0, 1.0])
    for i, image in enumerate(left):
        expected = blobs.image(i, *KEPT)
        assert relative_power(image[None], expected[None])[0] < 0.01


def test_the_scale_is_found_group_by_group_where_there_are_enough_images(tmp_path):
    blobs = Blobs([Group(n=110), Group(n=120, gain=1.4), Group(n=5, gain=1.2)])
    scale = subtraction_of(blobs.write(tmp_path, scale=0.37)).matched_scale()
    assert np.array(scale.factors[:2]) * 0.37 == pytest.approx([1.0, 1.4], rel=0.005)
    assert scale.factors[2] == scale.overall
    assert 1.0 < 0.37 * scale.overall < 1.4
    assert scale.correlation is not None
    assert 0.97 < scale.correlation < 0.999  # one factor for three


def test_a_scale_below_zero_is_refused(tmp_path):
    blobs = Blobs([Group()])
    with pytest.raises(InputError, match="check contrast"):
        subtraction_of(blobs.write(tmp_path, scale=-1.0)).matched_scale()


def test_what_is_subtracted_is_the_mean_over_registers(tmp_path):
    blobs, rng = Blobs([Group(n=9)]), np.random.default_rng(5)
    operators = point_group("C4").operators
    posterior = rng.dirichlet([0.4] * 4, 9)
    posterior[0] = [1.0, 0.0, 0.0, 0.0]
    best = posterior.argmax(axis=1)
    # The table is in the most probable register: A r_bᵀ.
    there = blobs.rotations @ operators[best].transpose(0, 2, 1)
    table = blobs.write(tmp_path, rotations=there)
    registers = RegisterPosterior(posterior.astype(np.float32), operators, best)
    left = all_images(subtraction_of(table, registers), [1.0])
    for i, image in enumerate(left):
        rest = sum(
            p * blobs.image(i, BODY, WEIGHTS, rotation=blobs.rotations[i] @ r.T)
            for p, r in zip(posterior[i], operators, strict=True)
        )
        whole = blobs.image(i, *blobs.everything)
        wrong = image - (whole - rest)
        assert np.sum(wrong**2) < 0.01 * np.sum(rest**2)


def test_the_mean_gives_an_unbiased_scale_where_posteriors_are_right(tmp_path):
    rng, n = np.random.default_rng(7), 400
    blobs = Blobs([Group(n=n)])
    operators = point_group("C4").operators
    posterior = rng.dirichlet([0.5] * 4, n)
    true = np.array([rng.choice(4, p=p) for p in posterior])
    best = posterior.argmax(axis=1)
    bare = blobs.rotations
    blobs.rotations = bare @ operators[true].transpose(0, 2, 1)
    table = blobs.write(tmp_path, rotations=bare @ operators[best].transpose(0, 2, 1))
    registers = RegisterPosterior(posterior, operators, best)
    assert subtraction_of(table, registers).matched_scale().overall == pytest.approx(1.0, abs=0.04)
    # At one register each, errors of the registers make the map too faint.
    assert subtraction_of(table).matched_scale().overall < 0.93


def test_recentred_windows_show_the_part_at_their_centre_at_its_own_defocus(tmp_path):
    stretched = Aberrations(magnification=(1.02, 0.0, 0.0, 0.99))
    blobs = Blobs([Group(box=64, pixel=1.6, aberrations=stretched)], width=2.2)
    heights = blobs.rotations[:, 2] @ PART
    images = np.stack([
        blobs.image(i, BODY, WEIGHTS) + blobs.image(i, *KEPT, defocus=-heights[i])
        for i in range(len(heights))
    ])  # fmt: skip
    table = blobs.write(tmp_path, images=images)
    subtraction = subtraction_of(table)
    centre = mass_centre(read_mask(tmp_path / "keep.mrc")[0], 1.6)
    assert centre == pytest.approx(PART, abs=0.5)
    moved = Moved.to(subtraction.particles, PART, defocus_by_height="minus", box=44)
    layout = Layout.of(subtraction.particles, tmp_path, 44)
    content = write_subtracted(subtraction, Scale((1.0,), 1.0), moved, layout)
    assert content["box"] == 44
    new = read_particles(layout.tables[0])
    assert new.optics[0].box == 44
    assert np.abs(new.origins_angstrom / 1.6).max() <= 0.5
    found = ImageReader(new).read(np.arange(len(new)))

    def expected(defocus):
        # The part at the centre of the box, by what the new table says.
        return np.stack([
            blobs.image(i, np.zeros((1, 3)), KEPT[1], origin=new.origins_angstrom[i],
                        defocus=defocus[i], box=64)[10:54, 10:54]
            for i in range(len(new))
        ])  # fmt: skip

    change = new.defocus_u_angstrom - blobs.u
    np.testing.assert_allclose(change, new.defocus_v_angstrom - blobs.v, atol=1e-5)
    right = relative_power(found, expected(change))
    inside = content["windows_beyond_their_image"]
    assert inside < len(new)
    whole = moved.windows_px + 10
    complete = np.all((whole >= 0) & (whole <= 20), axis=1)
    assert complete.sum() == len(new) - inside
    assert right[complete].max() < 0.01
    far = complete & (np.abs(heights) > 15.0)
    assert far.any()
    wrong = relative_power(found, expected(-change))
    none = relative_power(found, expected(0.0 * change))
    assert np.all(wrong[far] > none[far])
    assert np.all(none[far] > right[far])


def test_nothing_outside_the_mask_is_refused(tmp_path):
    table = Blobs([Group()]).write(tmp_path)
    map_ = read_map(tmp_path / "map.mrc")[0]
    with pytest.raises(InputError, match="nothing of the map lies outside"):
        Subtraction(read_particles(table), map_, np.ones_like(map_))


def test_images_that_are_dark_stay_dark(tmp_path):
    blobs = Blobs([Group(n=6)])
    images = -blobs.images(*blobs.everything)
    table = blobs.write(tmp_path, images=images, extra={"jrxImageSign": ["-1"] * 6})
    left = all_images(subtraction_of(table), [1.0])
    assert relative_power(left, -blobs.images(*KEPT)).max() < 0.01
