"""The sphere of viewing directions as a disc of equal area.

The north pole (+z) is the centre, the south pole the rim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from jaxrelax.assessment.figures import BLUE, FAINT, INK, MUTED, PANEL_WIDTH, new_figure

# Directions in a cell, on average, and cells at most.
PER_CELL, FEWEST_CELLS, MOST_CELLS = 25, 27, 432
ROUNDNESS = 12  # parts in which a sector is drawn
FROSTED = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8}
PALE_TO_BLUE = LinearSegmentedColormap.from_list("views", ["#f7f9fb", "#9ecae1", BLUE, "#08244a"])


def cells_for(directions: int) -> int:
    """So many cells that each holds some of them."""
    return int(np.clip(directions / PER_CELL, FEWEST_CELLS, MOST_CELLS))


def binned(
    directions: Float[np.ndarray, "n 3"],
    cells: int,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, "azimuths rings"]:
    """Directions, or the sum of their weights, in cells of about equal area."""
    rings = round(np.sqrt(cells / 3.0))
    azimuths = np.linspace(-np.pi, np.pi, 3 * rings + 1)
    # Equal areas of the sphere, and of the disc.
    cosines = np.linspace(-1.0, 1.0, rings + 1)
    x, y, z = directions.T
    counts, _, _ = np.histogram2d(
        np.arctan2(y, x), -np.clip(z, -1.0, 1.0), bins=(azimuths, cosines), weights=weights
    )
    return counts


def new_disc(title: str) -> tuple[Figure, Any]:
    """A panel with a disc; its title may have two lines."""
    figure = new_figure(PANEL_WIDTH, 3.5)
    figure.set_label(" ".join(title.split()))
    axes = figure.add_subplot(projection="polar")
    axes.set_title(title, fontsize=9, color=INK)
    return figure, axes


def on_disc(
    axes: Any, values: Float[np.ndarray, "azimuths rings"], colours: Colormap, norm: Normalize
) -> None:
    """Draw the values of cells."""
    axes.grid(False)
    radii = np.sqrt(np.linspace(0.0, 1.0, values.shape[1] + 1))
    # Chords of the sectors: short ones look round.
    edges = np.linspace(-np.pi, np.pi, values.shape[0] * ROUNDNESS + 1)
    fine = np.repeat(values, ROUNDNESS, axis=0).T
    axes.pcolormesh(edges, radii, fine, cmap=colours, norm=norm)
    axes.set_yticks(np.sin(np.deg2rad([45.0, 67.5])), ["tilt 90°", "135°"])
    axes.set_rlabel_position(-90)
    axes.set_xticks(np.deg2rad([0, 90, 180, 270]), ["x", "y", "", ""])
    axes.tick_params(colors=MUTED, labelsize=7.5, pad=-1)
    for label in axes.get_yticklabels():
        label.set(color=INK, ha="center", bbox=FROSTED)
    axes.grid(True, color="#cbd2d9", linewidth=0.5)
    axes.spines["polar"].set_color(FAINT)


def colour_bar(figure: Figure, axes: Any, colours: Colormap, norm: Normalize, label: str) -> None:
    """Below a disc, what its colours mean."""
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, location="bottom", shrink=0.7, aspect=22, pad=0.03
    )
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]
