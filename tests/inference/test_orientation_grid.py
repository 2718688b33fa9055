"""Scores on the shared grid against analytic projections summed in float64, point by point."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import (
    direction_neighbours,
    healpix_directions,
    healpix_spacing_deg,
    poses_of_directions,
    random_rotations,
    rotation_angle,
    rotvec_to_matrix,
)
from jaxrelax.imaging import (
    ImageBatch,
    fourier_volume,
    half_spectrum,
    image_geometry,
    shift_phases,
    volume_radius,
)
from jaxrelax.imaging.polar import RINGS_BEYOND, angular_coefficients, polar_grid, polar_samples
from jaxrelax.inference.orientation_grid import (
    best_peaks,
    grid_scores,
    in_plane_angles,
    references,
)

BOX, SHELL, PIXEL, IMAGES, QUARTER = 48, 11, 3.0, 4, 6
LAST = SHELL + RINGS_BEYOND
SIGMA, DIAMETER = 1.7, 30.0
SHIFTS = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, -2.0], [1.0, 1.0]], np.float32)
FLAT = jnp.zeros(len(SHIFTS))


class Blobs:
    """A map of Gaussian blobs, its exact projections, and images of it."""

    def __init__(self, noise_over_signal, directions):
        rng = np.random.default_rng(2)
        self.centres = rng.uniform(-6.5, 6.5, (30, 3))
        self.weights = rng.uniform(0.5, 1.5, 30)
        x = np.arange(BOX) - BOX // 2
        blob = [np.exp(-((x[None] - c[:, None]) ** 2) / (2 * SIGMA**2)) for c in self.centres.T]
        self.map = np.einsum("p,pz,py,px->zyx", self.weights, *blob[::-1]).astype(np.float32)
        self.packing = half_spectrum(BOX, SHELL)
        self.geometry = image_geometry(self.packing, PIXEL, BOX, PIXEL)
        self.grid = polar_grid(self.packing, DIAMETER, LAST)
        self.rotations = random_rotations(IMAGES, rng)
        self.shifts = rng.uniform(-1.5, 1.5, (IMAGES, 2))  # of the particle from the centre
        self.ctf = self._ctf()
        clean = self.projections(self.rotations) * self.ctf
        clean = clean * np.asarray(shift_phases(jnp.asarray(self.shifts), self.packing))
        self.noise_power = noise_over_signal * np.mean(np.abs(clean) ** 2)
        noise = rng.standard_normal((2, *clean.shape)) * np.sqrt(self.noise_power / 2)
        self.data = clean + noise[0] + 1j * noise[1]
        self.poses = poses_of_directions(directions)
        volume = fourier_volume(
            jnp.asarray(self.map[None]), radius=volume_radius(LAST + 1), image_box=BOX
        )
        self.references = references(volume, jnp.asarray(self.poses, jnp.float32), self.grid, 1.0)

    def _ctf(self):
        """Strongly astigmatic, another defocus for every image; float64 formula of its own."""
        k = self.geometry.frequencies.astype(np.float64)
        k2, angle = (k**2).sum(axis=1), np.arctan2(k[:, 1], k[:, 0])
        defocus = 12000 + 3000 * np.arange(IMAGES)[:, None] + 600 * np.cos(2 * (angle - 0.6))[None]
        return np.sin(np.pi * 0.0197 * defocus * k2 - 0.5 * np.pi * 2.7e7 * 0.0197**3 * k2**2 + 0.1)

    def projections(self, rotations):
        """Exact transforms of the projections, float64."""
        k = self.packing.wavevectors_px.astype(np.float64)
        xy = np.einsum("nij,pj->npi", rotations[:, :2], self.centres)
        waves = np.exp(-2j * np.pi / BOX * np.einsum("fi,npi->nfp", k, xy))
        width = 2 * np.pi * SIGMA / BOX
        profile = (2 * np.pi) ** 1.5 * SIGMA**3 / BOX * np.exp(-0.5 * width**2 * (k**2).sum(axis=1))
        return np.einsum("nfp,p,f->nf", waves, self.weights, profile)

    def batch(self):
        weights = self.packing.multiplicity / self.noise_power
        return ImageBatch(
            jnp.asarray(self.data, jnp.complex64), jnp.asarray(self.ctf, jnp.float32),
            jnp.asarray(weights, jnp.float32), jnp.ones(IMAGES, bool),
        )  # fmt: skip

    def exact_scores(self):
        """(angles, batch, shifts, directions), one grid point after the other."""
        weights = self.packing.multiplicity.astype(np.float64) / self.noise_power
        found = np.empty((4 * QUARTER, IMAGES, len(SHIFTS), len(self.poses)))
        for a, psi in enumerate(in_plane_angles(QUARTER)):
            turn = rotvec_to_matrix(np.array([0.0, 0.0, psi])).T
            views = self.projections(turn @ self.poses)
            norm = 0.5 * (self.ctf**2 * weights) @ (np.abs(views) ** 2).T
            for t, shift in enumerate(SHIFTS):
                moved = self.data * np.asarray(shift_phases(jnp.asarray(shift), self.packing))
                found[a, :, t] = ((moved * self.ctf * weights).conj() @ views.T).real - norm
        return found


@pytest.fixture(scope="module")
def blobs():
    return Blobs(5.0, healpix_directions(1))


def test_grid_scores_are_those_of_the_likelihood(blobs):
    got = grid_scores(
        blobs.batch(), blobs.references, blobs.grid, jnp.asarray(SHIFTS), FLAT, QUARTER
    )
    expected = blobs.exact_scores()
    unfolded = np.asarray(got.unfolded())
    # Up to a constant of the image.
    error = (unfolded - expected) - (unfolded - expected).mean(axis=(0, 2, 3))[None, :, None, None]
    assert expected.std(axis=(0, 2, 3)).min() > 5.0
    assert error.std() < 0.03 * expected.std()
    assert np.abs(error).max() < 0.15 * expected.std()


def test_the_prior_of_shifts_is_added(blobs):
    log_prior = np.array([-3.0, 0.5, 0.0, -1.0], np.float32)
    common = (blobs.batch(), blobs.references, blobs.grid, jnp.asarray(SHIFTS))
    flat, got = (
        np.asarray(grid_scores(*common, jnp.asarray(prior), QUARTER).unfolded())
        for prior in (np.zeros(4), log_prior)
    )
    expected = np.broadcast_to(log_prior[None, None, :, None], got.shape)
    np.testing.assert_allclose(got - flat, expected, atol=1e-3)


def test_the_largest_of_each_direction_needs_no_unfolding(blobs):
    got = grid_scores(
        blobs.batch(), blobs.references, blobs.grid, jnp.asarray(SHIFTS), FLAT, QUARTER
    )
    unfolded = np.asarray(got.unfolded())
    np.testing.assert_allclose(got.largest(), unfolded.max(axis=(0, 2)), rtol=1e-5, atol=1e-3)
    some = jnp.asarray(np.random.default_rng(0).integers(48, size=(IMAGES, 5)))
    chosen = np.take_along_axis(unfolded, np.asarray(some)[None, :, None], axis=3)
    np.testing.assert_allclose(got.at(some).unfolded(), chosen)


def test_candidates_are_the_local_maxima_with_their_best_angle_and_shift(blobs):
    directions = healpix_directions(1)
    neighbours = direction_neighbours(directions, healpix_spacing_deg(1))
    got = grid_scores(
        blobs.batch(), blobs.references, blobs.grid, jnp.asarray(SHIFTS), FLAT, QUARTER
    )
    found = best_peaks(got, neighbours, jnp.asarray(SHIFTS), 3)
    unfolded = np.asarray(got.unfolded())
    best = unfolded.max(axis=(0, 2))
    for image in range(IMAGES):
        peaks = [d for d in range(48) if best[image, d] >= best[image, neighbours[d]].max()]
        peaks = sorted(peaks, key=lambda d: -best[image, d])[:3]
        assert np.asarray(found.directions[image])[: len(peaks)].tolist() == peaks
        for mode, d in enumerate(peaks):
            angle, shift = np.unravel_index(unfolded[:, image, :, d].argmax(), (24, len(SHIFTS)))
            assert found.psi_rad[image, mode] == in_plane_angles(QUARTER)[angle]
            assert np.array_equal(found.shifts_px[image, mode], SHIFTS[shift])
            assert np.isclose(found.scores[image, mode], best[image, d])
        assert np.all(np.asarray(found.scores[image])[len(peaks) :] == -np.inf)


def test_the_best_candidate_is_near_the_true_pose():
    blobs = Blobs(0.5, healpix_directions(2))
    shifts = np.stack(np.meshgrid([-1.5, 0.0, 1.5], [-1.5, 0.0, 1.5]), -1).reshape(-1, 2)
    shifts = jnp.asarray(shifts, jnp.float32)
    neighbours = direction_neighbours(healpix_directions(2), healpix_spacing_deg(2))
    got = grid_scores(blobs.batch(), blobs.references, blobs.grid, shifts, jnp.zeros(9), QUARTER)
    found = best_peaks(got, neighbours, shifts, 2)
    rotations = np.asarray(found.rotations(jnp.asarray(blobs.poses)))[:, 0]
    error = np.rad2deg(rotation_angle(rotations @ blobs.rotations.mT))
    # Directions lie up to 10° and angles up to 7.5° off; a peak between grid points is flat.
    assert error.max() < 20.0
    assert np.median(error) < 10.0
    # Images are moved by what centres the particle.
    assert np.abs(np.asarray(found.shifts_px)[:, 0] + blobs.shifts).max() < 1.6


def test_turning_an_image_turns_the_phases_of_its_coefficients(blobs):
    angle = 0.7
    turn = rotvec_to_matrix(np.array([0.0, 0.0, angle])).T
    images = [blobs.projections(r) for r in (blobs.rotations, turn @ blobs.rotations)]
    before, after = (
        angular_coefficients(polar_samples(jnp.asarray(i, jnp.complex64), blobs.grid), blobs.grid)
        for i in images
    )
    for orders, name in ((blobs.grid.even_orders, "even"), (blobs.grid.odd_orders, "odd")):
        first, second = (
            np.asarray(getattr(c, f"{name}_real") + 1j * getattr(c, f"{name}_imaginary"))
            for c in (before, after)
        )
        turned = first * np.exp(1j * orders * angle)[:, None, None]
        inside = slice(0, SHELL - 2)  # the sinc of rings at the edge reaches out of the band
        scale = np.abs(first).max()
        assert np.abs(second - turned)[..., inside].max() < 0.02 * scale


def test_objects_too_wide_for_the_interpolation_are_refused(blobs):
    with pytest.raises(ValueError, match=r"at most 0\.8 of the box"):
        polar_grid(blobs.packing, 0.9 * BOX, LAST)
