"""Subtracted stacks in RELION: its reconstruction against ours, and against what was kept."""

import numpy as np
import pytest
from scipy import ndimage

from jaxrelax.cli import main
from jaxrelax.imaging import rebox_map
from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.refinement.subtraction import mass_centre

from .conftest import BAND, BOX, PIXEL_ANGSTROM


@pytest.fixture(scope="module")
def keep(data_set, true_map):
    """A mask of the partner; written, too."""
    symmetric = read_map(data_set / "reference.mrc")[0]
    odd = ndimage.gaussian_filter(true_map - symmetric, 1.0)
    labels, _ = ndimage.label(odd > 0.12 * odd.max())
    part = labels == np.bincount(labels[labels > 0]).argmax()
    part = ndimage.binary_dilation(part, iterations=2)
    mask = np.clip(ndimage.gaussian_filter(part.astype(np.float32), 1.5), 0.0, 1.0)
    write_map(data_set / "keep.mrc", mask, PIXEL_ANGSTROM)
    return mask


def subtracted(data_set, name, *options):
    """The table that the command writes, seen from the data's folder."""
    given = {"--map": "truth_map.mrc", "--keep": "keep.mrc", "--out": name}
    words = [w for option, file in given.items() for w in (option, str(data_set / file))]
    assert main(["subtract", str(data_set / "truth.star"), *words, *options]) == 0
    return f"{name}/particles_subtracted.star"


def maps_of(relion, data_set, name, *options):
    """Ours and RELION's, of what the command writes."""
    table = subtracted(data_set, name, *options)
    relion("relion_reconstruct", "--i", table, "--o", f"{name}.mrc", "--ctf", folder=data_set)
    ours, _ = reconstruct(read_particles(data_set / table))
    theirs, pixel = read_map(data_set / f"{name}.mrc")
    assert pixel == pytest.approx(PIXEL_ANGSTROM)
    return ours, theirs


def test_both_reconstruct_the_kept_part(relion, data_set, true_map, keep):
    ours, theirs = maps_of(relion, data_set, "subtracted")
    ball = soft_sphere(BOX, 0.38 * BOX, 4.0)
    assert fsc(ours * ball, theirs * ball)[: BAND + 1].min() > 0.98
    assert fsc(theirs * keep, true_map * keep)[: BAND + 1].min() > 0.97
    # Outside of the mask hardly anything is left.
    rest = (1.0 - keep) * ball
    assert np.sum((theirs * rest) ** 2) < 0.05 * np.sum((true_map * rest) ** 2)


def test_the_recentred_part_is_at_the_centre_of_its_window(relion, data_set, true_map, keep):
    box = 48
    ours, theirs = maps_of(relion, data_set, "recentred", "--recentre", "--box", str(box))
    assert ours.shape == theirs.shape == (box,) * 3
    centre = mass_centre(keep, PIXEL_ANGSTROM) / PIXEL_ANGSTROM
    part = ndimage.fourier_shift(np.fft.fftn(true_map * keep), -centre[::-1])
    part = rebox_map(np.fft.ifftn(part).real, box)
    ball = soft_sphere(box, 0.3 * box, 3.0)
    last = int(0.8 * box / 2)
    assert fsc(ours * ball, theirs * ball)[: last + 1].min() > 0.98
    assert fsc(theirs * ball, part * ball)[: last // 2].min() > 0.97


def test_relion_centres_and_reverts_alike(relion, data_set, keep):
    options = ("--recentre", "--defocus-by-height", "none", "--scale", "1")
    table = subtracted(data_set, "centred", *options)
    centre = mass_centre(keep, PIXEL_ANGSTROM) / PIXEL_ANGSTROM
    axes = [w for a, c in zip("XYZ", centre, strict=True) for w in (f"--center_{a}", f"{c:.8f}")]
    relion(
        "relion_star_handler", "--i", "truth.star", "--o", "theirs.star", "--center", *axes,
        folder=data_set,
    )  # fmt: skip
    ours = read_particles(data_set / table)
    theirs = read_particles(data_set / "theirs.star")
    np.testing.assert_allclose(ours.origins_angstrom, theirs.origins_angstrom, atol=2e-4)
    (data_set / "reverted").mkdir(exist_ok=True)
    relion("relion_particle_subtract", "--revert", table, "--o", "reverted/", folder=data_set)
    back = read_particles(data_set / "reverted/original.star")
    before = read_particles(data_set / "truth.star")
    np.testing.assert_array_equal(back.column("rlnImageName"), before.column("rlnImageName"))
