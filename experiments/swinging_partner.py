"""A partner that swings: relaxed, then refined by itself with its mask.

    python experiments/swinging_partner.py OUT --model 6q20.cif.gz [--snr 0.03 0.1]
        [--docs docs [--only-picture]]

Simulates neuraminidase with one Fab that swings about its hinge (10° rms; 1,500 images of 128 px at
2.6 Å), refines it with ``--relax C4``, and then refines the Fab from where that left it, by
`jaxrelax refine relaxed/particles.star --mask fab.mrc --fulcrum X Y Z`. The mask is that of the
truth, turned into the frame of the relaxed map, without the body; the fulcrum is the hinge. The
same is done about the mask's centre, and about the hinge from the true map and the true poses of
the body: what the images can tell of the Fab at all. What all of them know of the Fab's own pose,
over the images whose register is right, and to which resolution half-maps agree inside the mask;
and the FSC with the true Fab. ``--docs`` puts the table into guide/local.md, and makes its picture
of the Fab before and after, at the last SNR; with ``--only-picture`` nothing else is made, and only
what it shows is refined. Half an hour on two cores; what is there already is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from pages import quote, table
from pictures import WORDS, Painted, draw, label, outline, picture, save_picture, show
from scipy import ndimage

from jaxrelax.assessment import register_accuracy
from jaxrelax.assessment.against_truth import true_part_poses
from jaxrelax.assessment.difference_plots import BODY
from jaxrelax.assessment.figures import BLUE, INK, ORANGE
from jaxrelax.assessment.surfaces import seen_along
from jaxrelax.cli import main as jaxrelax
from jaxrelax.geometry import (
    recentred_origins,
    rotation_angle,
)
from jaxrelax.io import Particles, read_map, read_particles, write_map, write_star
from jaxrelax.reconstruction import corrected_fsc, fsc, resolution_shell, rotate_map
from jaxrelax.reconstruction.masks import otsu_threshold
from jaxrelax.refinement.subtraction import mass_centre

SIMULATED = (
    *("--symmetry", "C4", "--delete-chains", "H2", "L2", "H3", "L3", "H4", "L4"),
    *("--n-images", 1500, "--box", 128, "--pixel-size-angstrom", 2.6),
    *("--pose-error-deg", 1.5, "--shift-error-angstrom", 0.8, "--swing", 10, "--seed", 3),
)
GROUP = "C4"
# Of the picture, in Å along y and z of the true frame: what is shown of it.
ACROSS, UP, EDGE_ANGSTROM = (-108.0, 62.0), (-46.0, 74.0), 110.0


class Known(NamedTuple):
    """What a run knows of the partner.

    Attributes:
        angle_deg: median error of its orientation.
        rms_deg: root mean square error.
        place_angstrom: median distance of its centre in the images from where it is.
        resolution_angstrom: half-maps inside the mask, FSC at 0.143 corrected for the mask.
        to_truth_angstrom: FSC with the true partner inside the mask at 0.5.
    """

    angle_deg: float
    rms_deg: float
    place_angstrom: float
    resolution_angstrom: float
    to_truth_angstrom: float


def run(*words: object) -> None:
    """A command of jaxrelax; its failure ends the experiment."""
    code = jaxrelax([str(word) for word in words])
    if code:
        raise SystemExit(code)


def known(folder: Path, truth: Particles, right, operator, mask, true_part, pixel) -> Known:
    """What a finished run knows of the partner."""
    found = read_particles(folder / "particles.star")
    of_part = true_part_poses(truth)
    assert of_part is not None
    rotations, origins = of_part
    angle = np.rad2deg(rotation_angle(found.rotations @ operator.T @ np.swapaxes(rotations, 1, 2)))
    # Of the truth's frame; the map of the run is turned against it.
    centre = mass_centre(mask, pixel)
    here = -recentred_origins(found.origins_angstrom, found.rotations, centre)
    there = -recentred_origins(origins, rotations, operator @ centre)
    apart = np.linalg.norm(here - there, axis=1)
    halves = [read_map(folder / f"half{k}.mrc")[0] for k in (1, 2)]
    curves = corrected_fsc(*halves, mask, np.random.default_rng(0))
    shell = resolution_shell(curves["corrected"])
    mean = 0.5 * (halves[0] + halves[1])
    with_truth = fsc(mean * mask, true_part * mask)
    edge = len(mask) * pixel
    return Known(
        float(np.median(angle[right])),
        float(np.sqrt(np.mean(angle[right] ** 2))),
        float(np.median(apart[right])),
        edge / max(shell, 1),
        edge / max(int(np.flatnonzero(with_truth[1:] < 0.5)[0]), 1),
    )


def of_the_part(folder: Path, operator: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask without the body, map and hinge of the partner in the frame of a refined map."""
    mask, _ = read_map(folder / "part_mask.mrc")
    part, _ = read_map(folder / "truth_part.mrc")
    body = ndimage.gaussian_filter(read_map(folder / "truth_map.mrc")[0] - part, 1.0)
    solid = (body > 0.15 * body.max()).astype(np.float32)
    mask = mask * (1.0 - np.clip(1.5 * ndimage.gaussian_filter(solid, 0.8), 0.0, 1.0))
    told = json.loads((folder / "simulation.json").read_text())["measured"]["swing"]
    turned = [np.asarray(rotate_map(m.astype(np.float32), operator.T)) for m in (mask, part)]
    return np.clip(turned[0], 0.0, 1.0), turned[1], operator.T @ np.array(told["hinge_angstrom"])


class Prepared(NamedTuple):
    """A data set whose whole particles are relaxed.

    Attributes:
        out: folder of all that is made of it.
        truth: of its images.
        accuracy: share of right registers.
        operator: turns the frame of the relaxed map to the true one.
        mask, true_part: in the frame of the relaxed map.
        hinge: in that frame, in Å.
        pixel: of the maps, in Å.
    """

    out: Path
    truth: Particles
    accuracy: float
    operator: np.ndarray
    mask: np.ndarray
    true_part: np.ndarray
    hinge: np.ndarray
    pixel: float

    @property
    def from_hinge(self) -> tuple[object, ...]:
        """How the Fab is searched about its hinge."""
        return (
            *("--fulcrum", *self.hinge.round(1)),
            *("--sigma-rotation-deg", 6, "--sigma-shift-angstrom", 0.7),
        )

    def refined(self, name: str, table_: Path, reference: Path, *words: object) -> Path:
        """A finished refinement of the Fab; made unless it is there."""
        folder = self.out / name
        if not (folder / "result.json").exists():
            run(
                "refine", table_, "--reference", reference, "--mask", self.out / "fab.mrc",
                *words, "--out", folder, "--overwrite",
            )  # fmt: skip
        return folder

    def local(self) -> Path:
        """The Fab from where the relaxation left it, about its hinge."""
        relaxed = self.out / "relaxed"
        table_, reference = relaxed / "particles.star", relaxed / "map.mrc"
        return self.refined("local", table_, reference, *self.from_hinge)


def prepared(out: Path, model: str, snr: float) -> Prepared:
    """Simulate, relax, and turn mask and hinge of the Fab into the frame of the relaxed map."""
    data, relaxed = out / "data", out / "relaxed"
    if not (data / "truth.star").exists():
        run("simulate", model, *SIMULATED, "--snr", snr, "--out", data)
    if not (relaxed / "result.json").exists():
        run(
            "refine", data / "particles.star", "--reference", data / "reference.mrc",
            "--relax", GROUP, "--out", relaxed, "--overwrite",
        )  # fmt: skip
    truth = read_particles(data / "truth.star")
    accuracy = register_accuracy(read_particles(relaxed / "particles.star"), truth, GROUP)
    mask, true_part, hinge = of_the_part(data, accuracy.operator)
    pixel = read_map(relaxed / "map.mrc")[1]
    write_map(out / "fab.mrc", mask, pixel)
    return Prepared(
        out, truth, accuracy.accuracy, accuracy.operator, mask, true_part, hinge, pixel
    )  # fmt: skip


def rows_at(made: Prepared, snr: float) -> list[list[str]]:
    """Rows of the table for one SNR."""
    out, relaxed, truth, operator = made.out, made.out / "relaxed", made.truth, made.operator
    particles = read_particles(relaxed / "particles.star")
    whole = np.asarray(rotate_map(read_map(out / "data" / "truth_map.mrc")[0], operator.T))
    write_map(out / "truth_in_frame.mrc", whole, made.pixel)
    exact = particles.with_updates(
        rotations=truth.rotations @ operator, origins_angstrom=truth.origins_angstrom
    )
    write_star(exact, out / "exact.star")
    # About the mask's centre the swing of the far end is a shift, too.
    free = ("--sigma-rotation-deg", 6, "--sigma-shift-angstrom", 3)
    local = made.local()
    centred = made.refined("centred", relaxed / "particles.star", relaxed / "map.mrc", *free)
    few = (*made.from_hinge, "--max-iterations", 3)
    oracle = made.refined("oracle", out / "exact.star", out / "truth_in_frame.mrc", *few)
    back = particles.rotations @ operator.T
    right = np.rad2deg(rotation_angle(back @ np.swapaxes(truth.rotations, 1, 2))) < 20.0
    print(f"SNR {snr:g}: registers right: {made.accuracy:.3f}")
    rows = []
    for name, folder in (
        ("whole particle, relaxed", relaxed),
        ("the Fab by its mask, about its hinge", local),
        ("the same about the mask's centre", centred),
        ("about its hinge, from the true map and poses of the body", oracle),
    ):
        one = known(folder, truth, right, operator, made.mask, made.true_part, made.pixel)
        rows.append([
            f"{snr:g}", name, f"{one.angle_deg:.1f}°", f"{one.rms_deg:.1f}°",
            f"{one.place_angstrom:.1f} Å", f"{one.resolution_angstrom:.1f} Å",
            f"{one.to_truth_angstrom:.1f} Å",
        ])  # fmt: skip
    return rows


def before_and_after(made: Prepared, path: Path) -> None:
    """The Fab in the relaxed map, with its mask and the fulcrum, and after it was refined.

    Above surfaces at one level, below sections through the Fab. Maps are in the true frame, where
    the Fab lies in the plane of the picture, whatever frame the run came to.
    """
    turn = made.operator
    mask = np.asarray(rotate_map(made.mask.astype(np.float32), turn))
    hinge, centre = turn @ made.hinge, mass_centre(mask, made.pixel)
    maps = {
        "whole particle, relaxed": made.out / "relaxed" / "map.mrc",
        "the Fab refined by its mask": made.local() / "map_composite.mrc",
    }
    turned = {name: np.asarray(rotate_map(read_map(path)[0], turn)) for name, path in maps.items()}
    body = turned["whole particle, relaxed"] * (1.0 - mask)
    level = float(otsu_threshold(body[body > 0.1 * body.max()]))
    figure, panels = picture(0.8, [[f"{name} {row}" for name in turned] for row in (0, 1)])
    for name, map_ in turned.items():
        above, below = (panels[f"{name} {row}"] for row in (0, 1))
        draw(
            above, [Painted(map_ * (1.0 - mask), level, BODY), Painted(map_ * mask, level, ORANGE)],
            made.pixel, "x", EDGE_ANGSTROM,
        )  # fmt: skip
        above.set_title(name, fontsize=WORDS, color=INK)
        # Depth runs from the highest x.
        deep = len(map_) - 1 - (len(map_) // 2 + round(centre[0] / made.pixel))
        section = seen_along(map_, "x")[..., deep]
        # From a little above nothing: noise of the solvent says nothing here.
        grey = colormaps["gray_r"](np.clip(section / (2.5 * level) - 0.1, 0.0, 1.0))[..., :3]
        show(below, grey, made.pixel, "x", EDGE_ANGSTROM)
        for axes in (above, below):
            outline(axes, mask, made.pixel, "x", INK)
            axes.plot(hinge[1], hinge[2], "o", ms=5, mfc=BLUE, mec="white", mew=1.0)
            axes.set_xlim(*ACROSS)
            axes.set_ylim(*UP)
    first = panels["whole particle, relaxed 0"]
    label(first, hinge[1] + 4, hinge[2] - 33, "fulcrum", BLUE)
    label(first, -80, 62, "mask", INK)
    save_picture(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.03, 0.1])
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--only-picture", action="store_true")
    given = parser.parse_args()
    made = [prepared(given.out / f"snr{snr:g}", given.model, snr) for snr in given.snr]
    if given.docs is not None:
        before_and_after(made[-1], given.docs / "figures" / "local_fab.png")
    if given.only_picture:
        return
    heading = [
        "SNR", "poses", "Fab's orientation: median error", "rms",
        "its centre in the image: median error", "half-maps inside the mask",
        "with the true Fab, FSC 0.5",
    ]  # fmt: skip
    lines = table(heading, heading=True)
    for snr, one in zip(given.snr, made, strict=True):
        for row in rows_at(one, snr):
            lines += table(row, heading=False)
    print(*lines, sep="\n")
    if given.docs is not None:
        quote(given.docs / "guide" / "local.md", "swinging-partner", lines)


if __name__ == "__main__":
    main()
