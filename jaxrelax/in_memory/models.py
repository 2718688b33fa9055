"""Latents of a relaxation, and the volume of a map for them."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrelax.arrays import AnyArray
from jaxrelax.geometry import PointGroup, parse_group, right_cosets, subgroup
from jaxrelax.imaging import FourierVolume, ImageGeometry
from jaxrelax.inference import Hypotheses, Junk, Latent, Model, Register, SymmetricState
from jaxrelax.io import InputError, read_map
from jaxrelax.io.mrc import require_density
from jaxrelax.reconstruction import hypothesis_volume

EDGE_TOLERANCE = 0.005  # of the edge of a box


def relaxed(
    group: str | PointGroup,
    to: str | PointGroup = "C1",
    *,
    symmetric: bool = False,
    junk_shells: int | None = None,
) -> Model:
    """Latents of images whose poses are known up to a symmetry.

    Parameters to begin with are ``model.init()``: no image is symmetric or junk. Set the logits of
    ``"symmetric"`` and ``"junk"`` (:func:`jaxrelax.inference.logit`) where they may be.

    Args:
        group: G, as :func:`jaxrelax.geometry.parse_group` reads it.
        to: H, which the map keeps; registers are the cosets of H in G.
        symmetric: whether particles may be without what breaks the symmetry.
        junk_shells: shells of the power that junk may show
            (:class:`jaxrelax.inference.JunkParameters`); None leaves junk out.

    Raises:
        InputError: unknown groups, or H not in G.
    """
    try:
        whole = parse_group(group)
        registers = right_cosets(whole, subgroup(whole, to)).representatives
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    latents: list[Latent] = [SymmetricState()] if symmetric else []
    latents.append(Register(registers))
    if junk_shells is not None:
        latents.append(Junk(junk_shells))
    return Model(tuple(latents))


def volume(
    maps: str | os.PathLike | Float[AnyArray, "*maps n n n"],
    hypotheses: Model | Hypotheses,
    group: str | PointGroup,
    geometry: ImageGeometry,
) -> FourierVolume:
    """What images are scored against: a map with a channel for each hypothesis.

    :func:`jaxrelax.reconstruction.hypothesis_volume`, which is differentiable in the maps, for
    images whose box has the same edge in Å as the map's. Maps are on the scale of the images:
    their sum over z, times the CTF, is the signal.

    Args:
        maps: a file, a map [z, y, x], or one for each of the table's maps, stacked.
        hypotheses: the model, or its table.
        group: over which a map's symmetric part is the average; it has all registers. For groups
            that differ between maps take :func:`jaxrelax.reconstruction.hypothesis_volume`.
        geometry: of the images (``Images.geometry``); its band is that of the volume.

    Raises:
        InputError: an unknown group or one without the registers, the wrong number of maps, or a
            file that cannot be read, has nothing in it or another edge than the images.
    """
    table = hypotheses.table if isinstance(hypotheses, Model) else hypotheses
    if isinstance(maps, str | os.PathLike):
        maps = _read_on_edge(maps, geometry)
    maps = jnp.asarray(maps)
    maps = maps[None] if maps.ndim == 3 else maps
    try:
        return hypothesis_volume(
            maps,
            table,
            [parse_group(group)] * len(maps),
            max_shell=int(geometry.slice_shell.max()),
            image_box=geometry.packing.box,
        )
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def _read_on_edge(path: str | os.PathLike, geometry: ImageGeometry) -> Float[np.ndarray, "n n n"]:
    values, pixel = read_map(path)
    require_density(values, str(path))
    edge = len(values) * pixel
    expected = geometry.packing.box * geometry.pixel_size_angstrom
    if abs(edge - expected) > EDGE_TOLERANCE * expected:
        raise InputError(
            f"{path}: box of {len(values)} px at {pixel:.4g} Å ({edge:.1f} Å); that of the images "
            f"is {expected:.1f} Å. Crop or pad the map to that edge: jaxrelax.imaging.rebox_map"
        )
    return values
