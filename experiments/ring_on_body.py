"""A ring whose axis is not the particle's: C6 on a body with C5, 30 Å off its axis.

    python experiments/ring_on_body.py OUT [--snr 0.3 0.08] [--docs docs [--only-picture]]

A phantom of two parts (64 px of 4.2 Å): a body of five subunits about z, and beside its axis a ring
of six of which one is larger. In every image the ring is in another of its six registers. 600
images at exact poses of the body. The ring is relaxed from C6 inside its mask, about its own axis:

    jaxrelax refine OUT/particles.star --reference OUT/reference.mrc --mask OUT/ring.mrc
        --relax C6 --axis-at 30 0 40 --rest-symmetry C5 --mode registers

beside an oracle that is shown the ring alone, under the same noise, with its true map and poses,
and a relaxation of these images of the ring alone: what there is to lose by the body. And about the
axis of the body, where it is refused. ``--docs`` puts what came of it into guide/local.md, and the
ring with its mask and both axes into its picture, at the first SNR; with ``--only-picture``
nothing else is made. Ten minutes on two cores; what is there already is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from pathlib import Path

import numpy as np
from pages import quote, table
from pictures import WORDS, Painted, draw, label, outline, picture, save_picture

from jaxrelax.assessment import oracle_registers, save
from jaxrelax.assessment.difference_plots import BODY
from jaxrelax.assessment.figures import BLUE, INK, ORANGE
from jaxrelax.geometry import (
    frame_along,
    matrix_to_euler,
    parse_group,
    point_group,
    register_agreement,
)
from jaxrelax.io import (
    InputError,
    OutputFolder,
    read_map,
    read_particles,
    write_map,
    write_stack,
)
from jaxrelax.io.star import make_table, write_star_tables
from jaxrelax.reconstruction.masks import otsu_threshold, soft_region
from jaxrelax.refinement import MaxIterations, Part, Registers, Relax, refine
from jaxrelax.simulate import Simulation
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.occupancy import Occupancy
from jaxrelax.simulate.phantom import beads, phantom_atoms
from jaxrelax.simulate.projection import Projector
from jaxrelax.simulate.specimen import Specimen
from jaxrelax.simulate.swing import SwingingPart
from jaxrelax.simulate.truth import draw_truth

AT = np.array([30.0, 0.0, 40.0])
PIXEL, BOX = 4.2, 64
BODY_GROUP, RING = "C5", "C6"
# Of the picture: what is shown, in Å.
ALONG_X, ALONG_Y, ALONG_Z = (-66.0, 124.0), (-96.0, 96.0), (-78.0, 112.0)
DARK_ORANGE = "#8f3a00"
OPTIONS = Simulation(
    n_images=600, box=BOX, pixel_size_angstrom=PIXEL, group=RING, snr=0.08, max_shift_angstrom=6.0,
    pose_error_deg=0.0, shift_error_angstrom=0.0, seed=5,
)  # fmt: skip


class Ring:
    """The two parts, and where images show them."""

    def __init__(self, options: Simulation = OPTIONS):
        self.options = options
        body = phantom_atoms(BODY_GROUP, 30.0, 5.0, seed=1)
        ring = phantom_atoms(RING, 12.0, 15.0, seed=2)
        self.body = body.positions_angstrom[body.sites < 0]  # without partners
        self.body = self.body - np.array([0.0, 0.0, 15.0])
        self.ring = ring.positions_angstrom[ring.sites <= 0] + AT  # and that of one site
        six = parse_group(RING).operators
        self.symmetric_ring = np.concatenate(
            [(ring.positions_angstrom[ring.sites <= 0] @ g.T) + AT for g in six]
        )
        rng, self.noise_seed = np.random.default_rng(options.seed), options.seed + 1
        self.truth = draw_truth(options, point_group("C1"), Occupancy(np.zeros(0)), rng)
        self.register = rng.integers(6, size=options.n_images)
        self.truth = dataclasses.replace(self.truth, swings=six[self.register])

    def write(self, folder: Path) -> None:
        """Tables, stacks, maps and the mask of the ring."""
        folder.mkdir(parents=True, exist_ok=True)
        both = np.concatenate([self.body, self.ring])
        n_body = len(self.body)
        moving = np.arange(len(both)) >= n_body
        whole = self._microscope(both, moving)
        scale = whole.scale
        write_stack(folder / "particles.mrcs", self._images(whole, scale), PIXEL)
        alone = self._microscope(self.ring, np.ones(len(self.ring), bool))
        write_stack(folder / "ring.mrcs", self._images(alone, scale), PIXEL)
        self._table(folder / "particles.star", "particles.mrcs")
        self._table(folder / "ring.star", "ring.mrcs")
        # The ring as its own map, about its own centre.
        centred = Projector(beads(self.ring - AT), BOX, PIXEL, 100.0)
        write_map(folder / "ring_map.mrc", np.float32(scale) * centred.map(), PIXEL)
        six = Projector(beads(self.symmetric_ring), BOX, PIXEL, 100.0)
        body = Projector(beads(self.body), BOX, PIXEL, 100.0)
        reference = body.map() + six.map() / 6.0
        own = Projector(beads(self.symmetric_ring - AT), BOX, PIXEL, 100.0)
        write_map(folder / "ring_reference.mrc", np.float32(scale / 6.0) * own.map(), PIXEL)
        write_map(folder / "reference.mrc", np.float32(scale) * reference, PIXEL)
        solid = np.zeros((BOX,) * 3, bool)
        index = np.rint(self.symmetric_ring / PIXEL).astype(int) + BOX // 2
        solid[index[:, 2], index[:, 1], index[:, 0]] = True
        write_map(folder / "ring.mrc", soft_region(solid, PIXEL, 5.0, 10.0), PIXEL)

    def _microscope(self, positions, moving) -> Microscope:
        atoms = beads(positions)
        part = SwingingPart(moving, AT)
        specimen = Specimen(
            parse_group(RING), atoms, Occupancy(np.zeros(0)), Projector(atoms, BOX, PIXEL, 100.0),
            part=part,
        )  # fmt: skip
        return Microscope(specimen, self.truth, self.options, 0.4 * BOX * PIXEL)

    def _images(self, microscope: Microscope, scale: float):
        """All of them, on one grey scale and under one noise."""
        microscope.scale = scale
        return np.concatenate(list(microscope.images(np.random.default_rng(self.noise_seed))))

    def _table(self, path: Path, stack: str) -> None:
        truth, n = self.truth, self.options.n_images
        angles = matrix_to_euler(truth.poses)
        columns = {
            "rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(n)],
            "rlnOpticsGroup": ["1"] * n,
            "rlnRandomSubset": [str(h) for h in truth.half_set],
            **{
                name: [f"{x:.6f}" for x in values]
                for name, values in (
                    ("rlnDefocusU", truth.defocus_u_angstrom),
                    ("rlnDefocusV", truth.defocus_v_angstrom),
                    ("rlnDefocusAngle", truth.defocus_angle_deg),
                    ("rlnAngleRot", angles[0]),
                    ("rlnAngleTilt", angles[1]),
                    ("rlnAnglePsi", angles[2]),
                    ("rlnOriginXAngst", truth.origins_angstrom[:, 0]),
                    ("rlnOriginYAngst", truth.origins_angstrom[:, 1]),
                )
            },
        }
        optics = {
            "rlnOpticsGroup": ["1"], "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnAmplitudeContrast": [f"{self.options.amplitude_contrast}"],
            "rlnSphericalAberration": [f"{self.options.spherical_aberration_mm}"],
            "rlnVoltage": [f"{self.options.voltage_kv}"], "rlnImagePixelSize": [f"{PIXEL}"],
            "rlnImageSize": [str(BOX)], "rlnImageDimensionality": ["2"],
        }  # fmt: skip
        version = "# version 30001"
        tables = [make_table("optics", optics, comment=version)]
        tables.append(make_table("particles", columns, comment=version))
        write_star_tables(path, tables)


def relaxed(folder: Path, particles, reference, part: Part | None = None) -> dict:
    """A finished relaxation; made unless it is there."""
    if not (folder / "result.json").exists():
        result = refine(particles, reference, part=part, relax=Relax(RING), mode=Registers())
        save(result, OutputFolder.create(folder, overwrite=True))
    return json.loads((folder / "result.json").read_text())["evidence"]


def data_set(folder: Path, snr: float) -> Ring:
    """Images of both parts; written unless they are there."""
    made = Ring(dataclasses.replace(OPTIONS, snr=snr))
    if not (folder / "ring.mrc").exists():
        made.write(folder)
    return made


def ring_of(folder: Path) -> Part:
    """The ring, as a refinement is told of it."""
    mask = str(folder / "ring.mrc")
    return Part(mask=mask, axis_at=(30.0, 0.0, 40.0), rest_symmetry=BODY_GROUP)


def on_its_body(folder: Path) -> dict:
    """The ring relaxed about its own axis."""
    table_, reference = folder / "particles.star", folder / "reference.mrc"
    return relaxed(folder / "relaxed", table_, reference, ring_of(folder))


def at_snr(folder: Path, snr: float) -> tuple[list[list[str]], str]:
    """Rows of the table for one SNR, and what was said about the wrong axis."""
    made = data_set(folder, snr)
    six, frame, truth = point_group(RING), frame_along(AT), made.truth
    # In the frame of the ring: where the body has its centre, and turned by its register.
    base, origins = frame.poses(truth.poses, truth.origins_angstrom)
    poses = base @ truth.swings
    images = read_particles(folder / "ring.star")
    oracle = oracle_registers(
        images.with_updates(rotations=poses, origins_angstrom=origins),
        read_map(folder / "ring_map.mrc")[0], pixel_size_angstrom=PIXEL, group=RING,
    )  # fmt: skip

    def right(table: Path, framed: bool) -> float:
        done = read_particles(table)
        found = done.rotations
        if not framed:
            found = frame.poses(done.rotations, done.origins_angstrom)[0]
        return register_agreement(found, poses, six, point_group("C1")).fraction

    alone = relaxed(
        folder / "alone", images.with_updates(rotations=base, origins_angstrom=origins),
        folder / "ring_reference.mrc",
    )  # fmt: skip
    on_body = on_its_body(folder)
    words = "it was not"
    try:
        refine(
            folder / "particles.star", folder / "reference.mrc",
            part=dataclasses.replace(ring_of(folder), axis_at=None), relax=Relax(RING),
            mode=Registers(), until=MaxIterations(1),
        )  # fmt: skip
    except InputError as error:
        words = str(error).split(": ", 1)[1]
    name = "expected_register_accuracy"
    of_alone = right(folder / "alone" / "particles.star", True)
    of_body = right(folder / "relaxed" / "particles.star", False)
    rows = [
        [f"{snr:g}", "oracle: the ring alone, true map and poses", f"{oracle.accuracy:.3f}",
         f"{oracle.mean_max_posterior:.3f}"],
        [f"{snr:g}", "the ring alone, relaxed", f"{of_alone:.3f}",
         f"{alone[name]:.3f}"],
        [f"{snr:g}", "the ring on its body, relaxed about its axis",
         f"{of_body:.3f}", f"{on_body[name]:.3f}"],
    ]  # fmt: skip
    return rows, words


def both_axes(folder: Path, path: Path) -> None:
    """What came of it with the mask of the ring and the axes of both groups, from two sides."""
    mask, _ = read_map(folder / "ring.mrc")
    map_, _ = read_map(folder / "relaxed" / "map_composite.mrc")
    level = float(otsu_threshold(map_[map_ > 0.1 * map_.max()]))
    surfaces = [Painted(map_ * (1 - mask), level, BODY), Painted(map_ * mask, level, ORANGE)]
    figure, panels = picture(0.6, [["y", "z"]])
    for axis, upwards in (("y", ALONG_Z), ("z", ALONG_Y)):
        axes = panels[axis]
        draw(axes, surfaces, PIXEL, axis, ALONG_X[1])
        outline(axes, mask, PIXEL, axis, INK)
        axes.set_title(f"seen along {axis}", fontsize=WORDS, color=INK)
        axes.set_xlim(*(ALONG_X[::-1] if axis == "y" else ALONG_X))
        axes.set_ylim(*upwards)
    side, above = panels["y"], panels["z"]
    low, high = ALONG_Z[0] + 8.0, ALONG_Z[1] - 6.0
    for x, group, colour in ((0.0, BODY_GROUP, BLUE), (AT[0], RING, DARK_ORANGE)):
        side.plot([x, x], [low, high], color=colour, lw=1.4)
        # x runs to the left.
        away = {"ha": "right", "x": x + 5.0} if x else {"ha": "left", "x": x - 5.0}
        label(side, y=high - 4.0, text=group, colour=colour, **away)
        corners = int(group[1:])
        above.plot(x, 0.0, marker=(corners, 0, 0), ms=9, mfc=colour, mec="white", mew=1.0)
        label(above, x, -17.0 if x else 17.0, group, colour)
    arrow = {"arrowstyle": "<->", "color": INK}
    side.annotate("", (0.0, low + 8.0), (AT[0], low + 8.0), arrowprops=arrow)
    label(side, AT[0] + 5.0, low + 8.0, f"{AT[0]:g} Å", INK, ha="right")
    label(side, 80.0, 68.0, "mask", INK)
    save_picture(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.3, 0.08])
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--only-picture", action="store_true")
    given = parser.parse_args()
    if given.docs is not None:
        folder = given.out / f"snr{given.snr[0]:g}"
        data_set(folder, given.snr[0])
        on_its_body(folder)
        both_axes(folder, given.docs / "figures" / "local_ring.png")
    if given.only_picture:
        return
    lines = table(["SNR", "", "registers right", "mean largest posterior"], heading=True)
    words = ""
    for snr in given.snr:
        rows, words = at_snr(given.out / f"snr{snr:g}", snr)
        for row in rows:
            lines += table(row, heading=False)
    lines += ["", "About the axis of the body it is refused:"]
    lines += ["", "```text", *textwrap.wrap(words, 100), "```"]
    print(*lines, sep="\n")
    if given.docs is not None:
        quote(given.docs / "guide" / "local.md", "ring-on-body", lines)


if __name__ == "__main__":
    main()
