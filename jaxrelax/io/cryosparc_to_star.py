"""A RELION 3.1 STAR file for particles that came from cryoSPARC."""

from __future__ import annotations

import logging

import numpy as np

from jaxrelax.geometry import matrix_to_euler
from jaxrelax.io.aberrations import aberration_columns
from jaxrelax.io.particles import Particles, named_images
from jaxrelax.io.relion_tables import StarDocument
from jaxrelax.io.star import make_table

logger = logging.getLogger("jaxrelax")

_VERSION = "# version 30001"


def star_document(particles: Particles) -> StarDocument:
    """Optics and particles as RELION writes them.

    Fields of the ``.cs`` file that have no counterpart stay in the ``.cs`` file. RELION has no
    column for dark particles (``blob/sign`` -1): the column ``jrxImageSign`` tells jaxrelax,
    and a warning tells the user.
    """
    groups = particles.optics
    optics = {
        "rlnOpticsGroup": [str(i + 1) for i in range(len(groups))],
        "rlnOpticsGroupName": [group.name for group in groups],
        "rlnAmplitudeContrast": [f"{group.amplitude_contrast:.7g}" for group in groups],
        "rlnSphericalAberration": [f"{group.spherical_aberration_mm:.7g}" for group in groups],
        "rlnVoltage": [f"{group.voltage_kv:.7g}" for group in groups],
        "rlnImagePixelSize": [f"{group.pixel_size_angstrom:.7g}" for group in groups],
        "rlnImageSize": [str(group.box) for group in groups],
        "rlnImageDimensionality": ["2"] * len(groups),
    }
    optics |= aberration_columns([group.aberrations for group in groups])
    rot, tilt, psi = matrix_to_euler(particles.rotations)
    numbers = {
        "rlnDefocusU": particles.defocus_u_angstrom,
        "rlnDefocusV": particles.defocus_v_angstrom,
        "rlnDefocusAngle": particles.defocus_angle_deg,
        "rlnPhaseShift": particles.phase_shift_deg,
        "rlnCtfBfactor": particles.bfactor_angstrom2,
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": particles.origins_angstrom[:, 0],
        "rlnOriginYAngst": particles.origins_angstrom[:, 1],
    }
    if particles.ctf_scale is not None:
        numbers["rlnCtfScalefactor"] = particles.ctf_scale
    columns = {"rlnImageName": _image_names(particles)}
    if particles.micrograph is not None:
        columns["rlnMicrographName"] = [str(name) for name in particles.micrograph]
    columns["rlnOpticsGroup"] = [str(group + 1) for group in particles.optics_group]
    for label, values in numbers.items():
        columns[label] = [f"{x:.6f}" for x in np.round(values, 6) + 0.0]
    if np.any(particles.half_set):
        columns["rlnRandomSubset"] = [str(half) for half in particles.half_set]
    if np.any(particles.class_number):
        columns["rlnClassNumber"] = [str(number) for number in particles.class_number]
    if np.any(particles.image_sign < 0):
        columns["jrxImageSign"] = [str(sign) for sign in particles.image_sign]
        logger.warning(
            "The images of %s are dark on light: multiply them by -1 before RELION reads the "
            "STAR file (relion_image_handler --multiply_constant -1).",
            particles.source,
        )
    tables = (
        make_table("optics", optics, comment=_VERSION),
        make_table("particles", columns, comment=_VERSION),
    )
    return StarDocument(tables, particle_block=1, optics_block=0)


def _image_names(particles: Particles) -> list[str]:
    """``000001@stack.mrcs``; RELION takes other names for stacks only with ``:mrcs`` behind."""
    files = [
        name if name.endswith((".mrcs", ":mrcs")) else f"{name}:mrcs"
        for name in particles.image_names
    ]
    return named_images(particles.image_index, particles.stack_index, files)
