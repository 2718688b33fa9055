"""What is left of images without the rest, against blobs whose projections are known by formula."""

import numpy as np
import pytest

from jaxrelax.engine.data import Data
from jaxrelax.engine.execution import Execution
from jaxrelax.engine.rest import Rest
from jaxrelax.engine.streams import prepared_batches
from jaxrelax.engine.workers import available_workers
from jaxrelax.geometry import Aberrations
from jaxrelax.imaging import Shells
from jaxrelax.io import every_row, read_particles
from tests.refinement.blobs import BODY, PART, PART_WEIGHT, WEIGHTS, Blobs, Group

TILTED = Aberrations(
    odd=(30.0, -20.0, 15.0, 400.0, -300.0, 60.0),
    even=(0.0, 25.0, 0.0, -20.0, 300.0),
    magnification=(1.03, 0.01, -0.02, 0.98),
)
PIXEL = Group().pixel
PART_BOX = 24


def execution_of(table, rest=None, box=PART_BOX, devices=None):
    particles = read_particles(table)
    n = len(particles)
    half = (np.arange(n) % 2 + 1).astype(np.int8)
    data = Data(particles, half, np.arange(n) // 2 % 3, every_row(n))
    shells = Shells(box, PIXEL, data.last_shell(box, PIXEL))
    return Execution(
        data, shells, channels=1, particle_diameter_angstrom=50.0, rest=rest,
        workers=available_workers(devices),
    )  # fmt: skip


def streamed(execution, groups):
    """Packed images, scored ones and CTFs by row, all optics groups together."""
    found = {}
    for group in range(groups):
        last = execution.shells.last
        geometry = execution.geometry(group, last, last // 2)
        rows = np.flatnonzero(execution.data.particles.optics_group == group)
        power = np.ones(execution.shells.count)
        for batch in prepared_batches(execution, group, rows, geometry, power, last // 2, 8):
            for place, row in enumerate(batch.rows):
                found[int(row)] = (
                    np.asarray(batch.images.data[place]), np.asarray(batch.scored.data[place]),
                    np.asarray(batch.images.ctf[place]),
                )  # fmt: skip
    return [found[row] for row in range(len(found))]


def rest_of(blobs, particles, factors=None):
    """The body as a map, for every half-set and fold."""
    body = blobs.map(BODY, WEIGHTS)
    factors = np.ones((2, 3)) if factors is None else factors
    maps = (factors[:, :, None, None, None] * body).astype(np.float32)
    return Rest(maps, PIXEL, particles.rotations, particles.origins_angstrom)


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        pytest.param([Group()], 1, id="plain"),
        pytest.param([Group(aberrations=TILTED)], 2, id="aberrations, two devices"),
        pytest.param([Group(phase_flipped=True), Group(premultiplied=True)], 1, id="corrected"),
        pytest.param([Group(), Group(box=40, pixel=3.0)], 1, id="other box"),
    ],
)
def test_what_is_left_is_the_image_of_the_part(groups, devices, tmp_path):
    blobs = Blobs(groups)
    table = blobs.write(tmp_path / "all")
    particles = read_particles(table)
    left = streamed(execution_of(table, rest_of(blobs, particles), devices=devices), len(groups))
    with_all = streamed(execution_of(table), len(groups))
    # The same stacks with the part alone.
    only = Blobs(groups)
    only.image = lambda i, *_: Blobs.image(only, i, PART[None], np.array([PART_WEIGHT]))
    expected = streamed(execution_of(only.write(tmp_path / "part")), len(groups))
    for mine, before, alone in zip(left, with_all, expected, strict=True):
        power = np.sum(np.abs(alone[0]) ** 2)
        assert np.sum(np.abs(mine[0] - alone[0]) ** 2) < 0.01 * power
        assert np.sum(np.abs(before[0] - alone[0]) ** 2) > power
        # The scored band is the same images.
        np.testing.assert_array_equal(mine[1], mine[0][: len(mine[1])])
        np.testing.assert_array_equal(mine[2], before[2])


def test_every_side_has_a_rest_of_its_own(tmp_path):
    blobs = Blobs([Group()])
    table = blobs.write(tmp_path)
    particles = read_particles(table)
    factors = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    execution = execution_of(table, rest_of(blobs, particles, factors))
    left, before = streamed(execution, 1), streamed(execution_of(table), 1)
    one = streamed(execution_of(table, rest_of(blobs, particles)), 1)
    data = execution.data
    for row in range(len(particles)):
        factor = factors[data.half_set[row] - 1, data.fold[row]]
        taken = before[row][0] - left[row][0]
        unit = before[row][0] - one[row][0]
        np.testing.assert_allclose(taken, factor * unit, atol=2e-4 * np.abs(unit).max() * 5)
