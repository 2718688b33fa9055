"""Figures without global state: one look for all, turned into text that a page can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

INK, MUTED, FAINT = "#1f2933", "#616e7c", "#e4e7eb"
# Okabe–Ito: told apart by colour-blind readers and in print.
BLUE, ORANGE, GREEN, PINK, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, "#e69f00", INK)


def new_figure(width: float, height: float, by_hand: bool = False) -> Figure:
    """A figure in inches, drawn by Agg whatever the display; ``by_hand`` leaves axes in place."""
    layout = None if by_hand else "constrained"
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


PANEL_WIDTH = 3.43  # inches: three side by side on a page, one on a telephone


def new_panel(
    title: str, xlabel: str = "", ylabel: str = "", height: float = 2.3
) -> tuple[Figure, Axes]:
    """A small figure of one plot, of which a page stacks as many as fit side by side.

    Its label is what it shows, for who cannot see it.
    """
    figure = new_figure(PANEL_WIDTH, height)
    figure.set_label(title)
    return figure, style(figure.add_subplot(), xlabel, ylabel, title)


def style(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> Axes:
    """Light axes: no box, faint grid, small labels."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=MUTED, labelsize=8, width=0.8, length=3)
    axes.grid(True, color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    if title:
        axes.set_title(title, fontsize=9.5, color=INK, loc="left", fontweight="bold")
    return axes


def legend(axes: Axes, **options) -> None:
    """A legend without a frame."""
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, handlelength=1.8, **options)


def as_data_uri(figure: Figure, kind: str = "svg", dpi: int = 160) -> str:
    """The figure as the ``src`` of an image: SVG for lines, PNG for pictures, JPEG for many."""
    buffer = io.BytesIO()
    # Without a date the same result gives the same report.
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return data_uri(buffer, kind)


def picture_uri(picture: Float[np.ndarray, "rows columns 3"]) -> str:
    """A picture, 0 to 1, as the ``src`` of an image: JPEG, one pixel for one."""
    buffer = io.BytesIO()
    imsave(buffer, np.uint8(np.rint(255.0 * np.clip(picture, 0.0, 1.0))), format="jpeg")
    return data_uri(buffer, "jpeg")


def data_uri(buffer: io.BytesIO, kind: str) -> str:
    """A file as the ``src`` of an image."""
    mime = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}[kind]
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
