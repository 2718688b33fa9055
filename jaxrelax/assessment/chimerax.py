"""A ChimeraX script that opens the maps of an output folder, contoured and coloured."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from jaxrelax.assessment.figures import SERIES
from jaxrelax.assessment.state_shares import state_shares
from jaxrelax.reconstruction.masks import otsu_threshold
from jaxrelax.refinement.result import Result, StateMap

# The same colours as the difference maps of the report.
MORE, LESS, GREY = "#b2182b", "#2166ac", "#c9ccd1"
DIFFERENCE_SIGMAS = 3.0
# Of the map's own contour level: a difference below it is not worth a surface.
SMALLEST_DIFFERENCE = 0.2
# Model number, of no other map.
LOCAL = 9
# As in the report: viridis.
SHARP_TO_COARSE = "#440154:#3b528b:#21918c:#5ec962:#fde725"


def contour_levels(result: Result) -> tuple[float, float]:
    """Contour levels (map, ± difference) in the map's own units.

    The map's level separates density from solvent inside the mask (Otsu); the difference's is
    three standard deviations of the difference inside the mask.
    """
    inside = result.mask > 0.5
    inside = inside if inside.any() else np.ones_like(inside)
    density = otsu_threshold(result.map[inside])
    spread = float(np.std(result.difference[inside]))
    return density, max(DIFFERENCE_SIGMAS * spread, SMALLEST_DIFFERENCE * abs(density))


def local_resolution_of_density(
    result: Result, of: Result | StateMap
) -> Float32[np.ndarray, " voxels"]:
    """Local resolution, in Å, above the contour level of the maps.

    Args:
        result: whose contour level it is.
        of: the same result, or one of its states.

    Returns:
        its voxels; all inside the mask if none is above the level, none without local resolution.
    """
    if of.local_resolution is None:
        return np.zeros(0, np.float32)
    inside = of.local_resolution > 0.0
    dense = inside & (of.map > contour_levels(result)[0])
    return of.local_resolution[dense if dense.any() else inside]


def chimerax_script(result: Result) -> str:
    """Commands that open the maps next to the script; ChimeraX runs it in its own folder.

    The map is transparent grey; density that it has beyond its symmetrised self is red, density
    that it lacks is blue. With states there is a map of each, all at one level and in the colours
    of the report, and nothing else.
    """
    density, difference = contour_levels(result)
    lines = [
        "# ChimeraX: open this file, or run `chimerax view.cxc`.",
        "set bgColor white",
        "lighting soft",
    ]
    if result.states:
        return "\n".join([*lines, *_states(result, density), "view"]) + "\n"
    lines += [
        "open map.mrc",
        f"volume #1 style surface step 1 level {density:.4g} color {GREY}",
    ]
    if len(result.operators) > 1:
        lines += [
            "open map_symmetrised.mrc",
            f"volume #2 style surface step 1 level {density:.4g} color #9aa5b1",
            "hide #2 models",
            "open difference.mrc",
            f"volume #3 style surface step 1 level {-difference:.4g} color {LESS} "
            f"level {difference:.4g} color {MORE}",
            "transparency #1 60",
            "# Show the symmetrised map instead: hide #1 models; show #2 models",
        ]
    if result.in_sigma is not None and result.in_sigma.regions:
        limit = result.in_sigma.threshold
        lines += [
            "open difference_sigma.mrc",
            f"volume #4 style surface step 1 level {-limit:.4g} color {LESS} "
            f"level {limit:.4g} color {MORE}",
            "hide #4 models",
            "# Where the difference is significant: hide #3 models; show #4 models",
        ]
    return "\n".join([*lines, *_local(result), "view"]) + "\n"


def _local(result: Result) -> list[str]:
    """The map's local resolution, to colour it by."""
    values = local_resolution_of_density(result, result)
    if not len(values):
        return []
    low, high = np.percentile(values, [2, 98])
    return [
        f"open local_resolution.mrc id {LOCAL}",
        f"hide #{LOCAL} models",
        f"# By local resolution: hide #2-4 models; transparency #1 0; color sample #1 map #{LOCAL} "
        f"palette {SHARP_TO_COARSE} range {low:.1f},{high:.1f}",
    ]


def _states(result: Result, level: float) -> list[str]:
    """Commands that open the maps of all states at one level."""
    lines = []
    for share in state_shares(result):
        colour = SERIES[(share.number - 1) % len(SERIES)]
        lines += [
            f"# {share.title}",
            f"open map_class{share.number:02d}.mrc",
            f"volume #{share.number} style surface step 1 level {level:.4g} color {colour}",
            f"transparency #{share.number} 50",
        ]
    return [*lines, "# One at a time: hide #2-99 models. Side by side: tile"]
