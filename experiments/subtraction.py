"""Subtracted stacks: RELION's reconstruction beside ours, and both beside what was kept.

    python experiments/subtraction.py OUT [--data NA_FAB_C4] [--docs docs]

Simulates a C4 phantom with one partner (300 images of 64 px at 4.2 Å, SNR 2), keeps the partner and
subtracts the rest with ``jaxrelax subtract`` at true poses, with the true map; the same with the
Fab of neuraminidase (a folder with truth.star, truth_map.mrc and reference.mrc) if it is given.
Reconstructs the stacks by ``relion_reconstruct`` and by ``jaxrelax reconstruct``, and prints to
which resolution the FSC stays above a level in every shell: between both, and of ours with the true
part; inside the mask and in the sphere around it. ``--docs`` puts the table into
guide/subtracting.md. Three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from pages import quote, table
from scipy import ndimage

from jaxrelax.cli import main as jaxrelax
from jaxrelax.io import read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate

LAST = 0.9  # of Nyquist: beyond it RELION rolls its maps off
PHANTOM = Simulation(
    n_images=300, box=64, pixel_size_angstrom=4.2, group="C4", protomer_kda=40.0,
    partner_kda=60.0, snr=2.0, max_shift_angstrom=6.0, seed=1,
)  # fmt: skip


def partner_mask(folder: Path, whole: np.ndarray, pixel: float) -> np.ndarray:
    """A soft mask of what the true map has and its average over the group lacks."""
    sigma = 4.0 / pixel
    odd = ndimage.gaussian_filter(whole - read_map(folder / "reference.mrc")[0], sigma)
    labels = np.asarray(ndimage.label(odd > 0.12 * odd.max())[0])  # type: ignore[index]
    part = labels == np.bincount(labels[labels > 0]).argmax()
    part = ndimage.binary_dilation(part, iterations=max(round(2.0 * sigma), 1))
    return np.clip(ndimage.gaussian_filter(part.astype(np.float32), 1.5), 0.0, 1.0)


def reaches(curve: np.ndarray, level: float, edge: float) -> str:
    """To which resolution every shell is at or above a level."""
    last = int(LAST * (len(curve) - 1))
    below = np.flatnonzero(curve[1 : last + 1] < level)
    shell = int(below[0]) if len(below) else last
    text = f"{edge / shell:.1f} Å" if shell else "nowhere"
    return text + ("" if len(below) else f" ({LAST:g} of Nyquist)")


def measured(name: str, data: Path, out: Path) -> list[str]:
    """The row of a data set with its truth."""
    out.mkdir(parents=True, exist_ok=True)
    true, pixel = read_map(data / "truth_map.mrc")
    keep = partner_mask(data, true, pixel)
    write_map(out / "keep.mrc", keep, pixel)
    words = ["subtract", str(data / "truth.star"), "--map", str(data / "truth_map.mrc")]
    words += ["--keep", str(out / "keep.mrc"), "--out", str(out / "subtracted"), "--overwrite"]
    if jaxrelax([*words, "--table-poses"]):
        raise SystemExit(f"{name}: jaxrelax subtract failed")
    stack = out / "subtracted" / "particles_subtracted.star"
    ours = reconstruct(read_particles(stack))[0]
    # Names are relative to the working directory, or whole.
    words = ["relion_reconstruct", "--i", str(stack), "--o", str(out / "theirs.mrc"), "--ctf"]
    subprocess.run(words, check=True, capture_output=True)
    theirs = read_map(out / "theirs.mrc")[0]
    edge, n = len(true) * pixel, len(true)
    ball = soft_sphere(n, 0.38 * n, 4.0)
    scale = json.loads((out / "subtracted" / "subtraction.json").read_text())["scale"]["overall"]
    both, part = (np.asarray(fsc(ours * keep, x * keep)) for x in (theirs, true))
    around = np.asarray(fsc(ours * ball, theirs * ball))
    return [
        name,
        reaches(both, 0.98, edge),
        reaches(around, 0.98, edge),
        reaches(part, 0.98, edge),
        reaches(part, 0.9, edge),
        f"{scale:.3f}",
    ]


def main() -> None:
    """Simulate, subtract, reconstruct, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    phantom = asked.out / "phantom"
    simulate("phantom", phantom, PHANTOM)
    sets = {"phantom, 300 images of 64 px at 4.2 Å, SNR 2": phantom}
    if asked.data is not None:
        sets["neuraminidase with one Fab, 1,500 images of 128 px at 2.6 Å, SNR 0.03"] = asked.data
    lines = table(
        ["set", "RELION 3.1.3 and ours: ≥ 0.98 to", "the same in the sphere",
         "ours and the true part: ≥ 0.98 to", "≥ 0.9 to", "scale (truth: 1)"], heading=True,
    )  # fmt: skip
    for number, (name, data) in enumerate(sets.items()):
        lines += table(measured(name, data, asked.out / str(number)), heading=False)
    print("\n".join(lines))
    if asked.docs:
        quote(asked.docs / "guide" / "subtracting.md", "subtracted-stacks", lines)


if __name__ == "__main__":
    main()
