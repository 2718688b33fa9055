"""Before a refinement: could these data tell the registers of such a map apart?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from jaxrelax.imaging import NoiseModel
from jaxrelax.io import InputError, Particles
from jaxrelax.judgement import Discriminability, discriminability
from jaxrelax.refinement import Local, Map, Mode, Relax, prepare


def predict_registers(
    particles: Particles | str | Path,
    asymmetric_map: Map | str | Path,
    relax: Relax | str,
    *,
    mode: Mode | None = None,
    noise: NoiseModel | None = None,
    max_resolution: float = 12.0,
    particle_diameter: float | None = None,
    normalise: Literal["auto", "yes", "no"] = "auto",
    contrast: Literal["auto", "white", "black"] = "auto",
    seed: int = 0,
    force_group: bool = False,
) -> Discriminability:
    """How often the register of every particle would be found if this were the true map.

    Needs CTFs and poses; the images are read once, for the noise spectrum and the grey scale. The
    registers of the poses do not matter. It is an upper limit: in a refinement the map has to be
    found from the same data.

    Args:
        particles: table of particles (or its path) with consensus poses and CTFs.
        asymmetric_map: a map with the asymmetry, such as a reference with `partner_ball` added.
        relax: what symmetry would be relaxed, and its mask and resolution limit; a group's name
            stands for ``Relax(name)``.
        mode: ``Local(...)`` (default) knows poses to a prior of these widths, ``Registers()``
            takes them for exact.
        noise: noise model; ``RadialNoise()`` by default.
        max_resolution: limit in Å of the frequencies used.
        particle_diameter, normalise, contrast, seed, force_group: as for `jaxrelax.refine`.

    Raises:
        InputError: what `jaxrelax.refine` would refuse, or a noise spectrum that is not finite.
    """
    relax = Relax(relax) if isinstance(relax, str) else relax
    mode = Local() if mode is None else mode
    # Two folds, because the state holds a copy of the map for each.
    relax = Relax(
        relax.group, relax.to, relax.mask, relax.max_resolution, cross_fit=2, start="reference"
    )
    setup = prepare(
        particles, asymmetric_map, mode=mode, relax=relax, noise=noise, ini_high=max_resolution,
        particle_diameter=particle_diameter, normalise=normalise, contrast=contrast,
        skip_bad_images=None, seed=seed, keep_copies=True, force_group=force_group,
    )  # fmt: skip
    problem, state = setup.problem, setup.state
    if not np.isfinite(state.noise_power).all():
        raise InputError(
            f"{problem.data.particles.source}: the noise spectrum is not a number; some images are "
            "damaged. Find them with jaxrelax.io.find_bad_images."
        )
    return discriminability(
        problem.execution,
        problem.particle,
        state.maps.symmetric[0],
        problem.particle.region(state.maps.asymmetric[0]),
        noise_power=state.noise_power,
        max_shell=problem.particle.register_limit(state.score_shell),
        pose_prior=None if mode.holds_poses else mode.prior_widths(),
        blur=True,
    )
