"""Maps from particles that we wrote: ours against ``relion_reconstruct``, in shape and scale."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.geometry import point_group, register_mates
from jaxrelax.imaging import (
    ImageBatch,
    batch_ctf,
    half_spectrum,
    image_geometry,
    pack,
    resample_map,
    volume_radius,
    working_box,
)
from jaxrelax.io import ImageReader, read_map, write_star
from jaxrelax.reconstruction import (
    Candidates,
    accumulate,
    completed,
    empty_accumulator,
    fsc,
    rotate_map,
    soft_sphere,
    symmetrise,
    wiener_map,
)

from .conftest import BAND, BOX, PIXEL_ANGSTROM, ctf_parameters

LAST_SHELL = BOX // 2 - 2  # accumulated; judged up to BAND


def reconstruct(particles, group):
    """Unregularised map with unit noise weights, at all mates of every pose."""
    n = len(particles)
    packing = half_spectrum(BOX, LAST_SHELL)
    geometry = image_geometry(packing, PIXEL_ANGSTROM, BOX, PIXEL_ANGSTROM)
    batch = ImageBatch(
        data=pack(jnp.asarray(ImageReader(particles).read(np.arange(n))), packing),
        ctf=batch_ctf(ctf_parameters(particles), geometry, phase_flipped=False),
        weights=jnp.asarray(packing.multiplicity),
        valid=jnp.ones(n, bool),
    )
    mates = register_mates(particles.rotations, group.operators).reshape(-1, 3, 3)
    origins = np.repeat(particles.origins_angstrom / PIXEL_ANGSTROM, group.order, axis=0)
    candidates = Candidates(
        row=jnp.repeat(jnp.arange(n), group.order),
        rotations=jnp.asarray(mates, jnp.float32),
        origins_px=jnp.asarray(origins, jnp.float32),
        weight=jnp.ones(len(mates)),
    )
    sums = accumulate(empty_accumulator(volume_radius(LAST_SHELL)), batch, geometry, candidates)
    map_ = wiener_map(
        completed(sums), jnp.zeros(LAST_SHELL + 1), box=working_box(LAST_SHELL), image_box=BOX
    )
    return resample_map(np.asarray(map_), BOX)


@pytest.fixture(scope="module", params=[("C1", -1), ("C4", 1)], ids=["C1", "C4"])
def maps(request, relion, data_set, particles, true_map):
    """Our map, RELION's and the true one: C1 from all particles, C4 from half-set 1."""
    rng = np.random.default_rng(0)
    n = len(particles)
    quarter_turn = point_group("C4").operators[1]
    table = particles.with_updates(
        # Changed poses, so that what RELION reads was formatted by us.
        rotations=particles.rotations @ quarter_turn.T,
        extra_columns={
            "jrxRegister": rng.integers(0, 4, n),
            "jrxRegisterProbability": rng.random(n),
            "jrxRegisterEntropy": rng.random(n),
            "jrxJunkProbability": rng.random(n),
        },
    )
    name, subset = request.param
    write_star(table, data_set / f"ours_{name}.star")
    relion(
        "relion_reconstruct", "--i", f"ours_{name}.star", "--o", f"relion_{name}.mrc", "--ctf",
        "--sym", name, "--subset", subset,
        folder=data_set,
    )  # fmt: skip
    chosen = (table.half_set == subset) | (subset < 0)
    ours = reconstruct(table.select(chosen), point_group(name))
    mask = soft_sphere(BOX, 0.38 * BOX, 4.0)
    theirs, _ = read_map(data_set / f"relion_{name}.mrc")
    truth = symmetrise(rotate_map(true_map, quarter_turn), point_group(name))
    return ours * mask, theirs * mask, truth * mask


def test_map_correlates_with_relions_in_every_shell_of_the_band(maps):
    ours, theirs, _ = maps
    assert fsc(ours, theirs)[: BAND + 1].min() > 0.995


def test_map_has_relions_absolute_scale(maps):
    # The map whose sums over z are the images.
    ours, theirs, _ = maps
    assert np.vdot(theirs, ours) / np.vdot(ours, ours) == pytest.approx(1.0, abs=0.01)


def test_map_is_the_object_at_the_poses_that_were_written(maps):
    # Both programs being wrong in the same way would pass the tests above.
    ours, _, truth = maps
    assert fsc(ours, truth)[: BAND + 1].min() > 0.98
