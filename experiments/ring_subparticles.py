"""Which sites of a ring are occupied: sub-particles one by one, and all sites at once.

    python experiments/ring_subparticles.py OUT [--snr 0.04] [--docs docs]

Simulates a C4 phantom whose sites carry a partner at p = 0.5, each for itself (800 images of 64 px
at 5 Å), refines it with C4 imposed, cuts windows of 28 pixels around all four sites with ``jaxrelax
subparticles`` and classifies them into two states, which differ inside a sphere of 32 Å around the
partner. Beside it the same images, at the same poses, by ``--states patterns``: all sites of a
particle at once, anywhere and inside such spheres around all sites. Which site a copy shows follows
from where the true pose has it; how many sites are told right, how sure the posterior is, and the
occupancy that follows; beside what the true maps tell. ``--docs`` puts the table into
guide/subparticles.md, and a picture beside it. Ten minutes on two cores; what is there already is
kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.patches import Circle, Rectangle
from pages import quote, table
from pictures import WORDS, Painted, draw, label, picture, save_picture

from jaxrelax.assessment import matching_rows, oracle_patterns
from jaxrelax.assessment.difference_plots import BODY
from jaxrelax.assessment.figures import BLUE, INK, ORANGE
from jaxrelax.cli import main as jaxrelax
from jaxrelax.geometry import occupancy_patterns, point_group
from jaxrelax.io import Particles, read_map, read_particles, write_map
from jaxrelax.reconstruction import soft_sphere
from jaxrelax.reconstruction.masks import otsu_threshold
from jaxrelax.simulate.phantom import phantom_atoms

GROUP, BOX, WINDOW, PIXEL = "C4", 64, 28, 5.0
SITES = point_group(GROUP).order
PROTOMER_KDA, PARTNER_KDA = 20.0, 45.0
SIMULATED = (
    *("--symmetry", GROUP, "--protomer-kda", PROTOMER_KDA, "--partner-kda", PARTNER_KDA),
    *("--occupancy", "0.5", "--n-images", 800, "--box", BOX, "--pixel-size-angstrom", PIXEL),
    *("--max-shift-angstrom", 8, "--seed", 1),
)
FOCUS_ANGSTROM, EDGE_ANGSTROM = 32.0, 10.0
# Of a site from where the true pose has it; sites are several times as far apart.
SAME_SITE_ANGSTROM = 15.0
# Of the picture: what is shown of the ring, in Å from its centre.
ACROSS, UP = (-125.0, 155.0), (-120.0, 120.0)


class Told(NamedTuple):
    """What a run says of every site of every particle.

    Attributes:
        name: of the row.
        carries: posterior that the site carries the partner; of true sites, in the true frame.
        subset: sites that carry it by the most probable answer for all of them together.
    """

    name: str
    carries: Float[np.ndarray, "particles sites"]
    subset: Bool[np.ndarray, "particles sites"]


def run(*words: object) -> None:
    """A command of jaxrelax, which must succeed."""
    if jaxrelax([str(word) for word in words]):
        raise SystemExit(f"jaxrelax {words[0]} failed")


def centres() -> Float[np.ndarray, "sites 3"]:
    """Where the partners are in the true frame, in Å from the centre of the box."""
    atoms = phantom_atoms(GROUP, PROTOMER_KDA, PARTNER_KDA)
    return np.stack([atoms.positions_angstrom[atoms.sites == k].mean(axis=0) for k in range(SITES)])


def true_sites(truth: Particles) -> Bool[np.ndarray, "particles sites"]:
    """Sites that carry the partner."""
    lists = truth.column("jrxOccupiedSites")
    assert lists is not None
    carried = np.zeros((len(lists), SITES), bool)
    for row, text in enumerate(lists):
        if text != "none":
            carried[row, [int(site) for site in text.split("+")]] = True
    return carried


def sites_shown(
    poses: Float[np.ndarray, "n 3 3"], true: Float[np.ndarray, "n 3 3"], at: np.ndarray
) -> Int[np.ndarray, " n"]:
    """The true site that images show at a place of the map, when they have these poses.

    Raises:
        SystemExit: some show a place that is no site.
    """
    places = np.einsum("nji,njk,k->ni", true, poses, at)
    apart = np.linalg.norm(places[:, None] - centres(), axis=2)
    if apart.min(axis=1).max() > SAME_SITE_ANGSTROM:
        raise SystemExit(f"a place {apart.min(axis=1).max():.1f} Å from all sites")
    return apart.argmin(axis=1)


def cut(symmetric: Path, at: Sequence[object], out: Path) -> tuple[Path, Path, Path]:
    """Windows of all sites, their reconstruction and the mask around the partner."""
    sites, map_path, mask_path = out / "sites.star", out / "sites.mrc", out / "focus.mrc"
    words = ("--symmetry", GROUP, "--at", *at, "--box", WINDOW, "--out", sites, "--overwrite")
    run("subparticles", symmetric / "particles.star", *words)
    run("reconstruct", sites, "--out", map_path, "--overwrite")
    sphere = soft_sphere(WINDOW, FOCUS_ANGSTROM / PIXEL, EDGE_ANGSTROM / PIXEL)
    write_map(mask_path, sphere, PIXEL)
    return sites, map_path, mask_path


def density_of(folder: Path, state: int, mask: np.ndarray) -> float:
    """Density of a state inside a mask."""
    return float(np.sum(read_map(folder / f"map_class{state:02d}.mrc")[0] * mask))


def with_partner(folder: Path, mask: np.ndarray) -> int:
    """The class of two that has more inside the mask."""
    return 1 + int(np.argmax([density_of(folder, state, mask) for state in (1, 2)]))


def one_by_one(folder: Path, mask: np.ndarray, at: np.ndarray, truth: Particles) -> Told:
    """What the classification of sub-particles says."""
    found = read_particles(folder / "particles.star")
    parent = np.asarray(found.column("jrxParent")).astype(int) - 1
    with np.load(folder / "registers.npz") as stored:
        posterior, states = stored["posterior"].astype(np.float64), stored["state"]
    if len(states) != 2:
        raise SystemExit(f"{folder}: {len(states)} columns, not one for each of two states")
    has_it = posterior[:, states == with_partner(folder, mask)][:, 0] / posterior.sum(axis=1)
    site = sites_shown(found.rotations, truth.rotations[parent], at)
    carries = np.full((len(truth), SITES), np.nan)
    carries[parent, site] = has_it
    if len(found) != carries.size or np.isnan(carries).any():
        raise SystemExit(f"{folder}: copies of a particle are not its sites")
    return Told("sub-particles, each for itself", carries, carries > 0.5)


def around_sites(at: np.ndarray, path: Path) -> Path:
    """A mask of soft spheres around all sites, in the frame of the particle."""
    grid = places()
    apart = [np.linalg.norm(grid - g @ at, axis=-1) for g in point_group(GROUP).operators]
    outside = np.clip((np.min(apart, axis=0) - FOCUS_ANGSTROM) / EDGE_ANGSTROM, 0.0, 1.0)
    write_map(path, np.float32(0.5 + 0.5 * np.cos(np.pi * outside)), PIXEL)
    return path


def places() -> Float[np.ndarray, "box box box 3"]:
    """Of voxels, in Å from the centre of the box."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], axis=-1)


def together(name: str, folder: Path, at: np.ndarray, truth: Particles) -> Told:
    """What patterns say: of every site the sum over all subsets that have it.

    Register r of a pattern S, in an image whose pose without register is A, shows S at the pose
    A rᵀ.
    """
    found = read_particles(folder / "particles.star")
    rows = matching_rows(found, truth)
    group = point_group(GROUP)
    patterns = occupancy_patterns(group).patterns
    with np.load(folder / "registers.npz") as stored:
        posterior = stored["posterior"].astype(np.float64)
        operators, states = stored["operators"], stored["state"]
    posterior /= posterior.sum(axis=1, keepdims=True)
    # The partner of the first site is where one partner has more density than none.
    single = read_map(folder / "map_class02.mrc")[0] - read_map(folder / "map_class01.mrc")[0]
    grid = places()
    density = [
        float(single[np.linalg.norm(grid - g @ at, axis=-1) < FOCUS_ANGSTROM].sum())
        for g in group.operators
    ]
    first = group.operators[int(np.argmax(density))] @ at
    # Each pattern's registers of its own are numbered from the identity on, and so is the best one.
    best = posterior.argmax(axis=1)
    base = found.rotations @ operators[best]
    carries, subset = np.zeros((len(truth), SITES)), np.zeros((len(truth), SITES), bool)
    true = truth.rotations[rows]
    for column, (operator, state) in enumerate(zip(operators, states, strict=True)):
        for g in group.operators[patterns[state - 1].sites]:
            site = sites_shown(base @ operator.T, true, g @ first)
            carries[rows, site] += posterior[:, column]
            mine = best == column
            subset[rows[mine], site[mine]] = True
    return Told(name, carries, subset)


def row_of(told: Told, carried: np.ndarray) -> list[str]:
    """Of the table."""
    right = (told.carries > 0.5) == carried
    # With any other turn for all of them fewer sites are right, or the frame is not the true one.
    turned = [np.mean((told.carries > 0.5) == np.roll(carried, k, axis=1)) for k in range(1, SITES)]
    if max(turned) >= right.mean():
        raise SystemExit(f"{told.name}: sites are those of the truth turned about the axis")
    return [
        told.name,
        f"{right.mean():.3f}",
        f"{np.maximum(told.carries, 1.0 - told.carries).mean():.3f}",
        f"{np.all(told.subset == carried, axis=1).mean():.3f}",
        f"{told.carries.mean():.3f}",
    ]


def ring_and_states(symmetric: Path, alone: Path, mask: np.ndarray, at, path: Path) -> None:
    """The ring with its sites and a window, and the maps of both states in that window."""
    map_, _ = read_map(symmetric / "map.mrc")
    level = 0.5 * float(otsu_threshold(map_[map_ > 0.1 * map_.max()]))
    figure, panels = picture(0.66, [["ring", "ring", "there"], ["ring", "ring", "not"]])
    ring = panels["ring"]
    draw(ring, [Painted(map_, level, BODY)], PIXEL, "z", ACROSS[1])
    ring.set_xlim(*ACROSS)
    ring.set_ylim(*UP)
    ring.set_title(f"{GROUP} imposed", fontsize=WORDS, color=INK)
    for number, operator in enumerate(point_group(GROUP).operators, start=1):
        x, y, _ = operator.T @ at
        ring.add_patch(Circle((x, y), FOCUS_ANGSTROM, fill=False, ec=BLUE, lw=1.2, ls="dashed"))
        label(ring, x, y, str(number), BLUE)
    half = 0.5 * WINDOW * PIXEL
    corner = (at[0] - half, at[1] - half)
    ring.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, ec=INK, lw=1.2))
    partner = with_partner(alone, mask)
    for name, state in (("there", partner), ("not", 3 - partner)):
        window, _ = read_map(alone / f"map_class{state:02d}.mrc")
        surfaces = [
            Painted(window * (1.0 - mask), level, BODY), Painted(window * mask, level, ORANGE)
        ]  # fmt: skip
        draw(panels[name], surfaces, PIXEL, "z", half)
        circle = Circle((0.0, 0.0), FOCUS_ANGSTROM, fill=False, ec=BLUE, lw=1.2, ls="dashed")
        panels[name].add_patch(circle)
        square = Rectangle((-half, -half), 2 * half, 2 * half, fill=False, ec=INK, lw=1.2)
        square.set_clip_on(False)
        panels[name].add_patch(square)
        title = "partner there" if name == "there" else "not there"
        panels[name].set_title(title, fontsize=WORDS, color=INK)
    save_picture(figure, path)


def main() -> None:
    """Simulate, refine, cut, classify in both ways, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--snr", type=float, default=0.04)
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    out = asked.out
    data, symmetric, alone, joint, focused = (
        out / name for name in ("data", "symmetric", "bound", "patterns", "patterns_focused")
    )
    if not (data / "truth.star").exists():
        run("simulate", "phantom", *SIMULATED, "--snr", asked.snr, "--out", data)
    if not (symmetric / "result.json").exists():
        run(
            "refine", data / "particles.star", "--reference", data / "reference.mrc",
            "--symmetry", GROUP, "--out", symmetric, "--overwrite",
        )  # fmt: skip
    at = centres()[0].round(0)
    if not (alone / "result.json").exists():
        sites, map_path, mask_path = cut(symmetric, at.astype(int), out)
        run(
            "refine", sites, "--reference", map_path, "--mode", "classification",
            "--states", "C1", "C1", "--poses", "held", "--focus-mask", mask_path,
            "--out", alone, "--overwrite",
        )  # fmt: skip
    words = (
        *("--mode", "classification", "--states", "patterns", "--relax", GROUP, "--poses", "held"),
        *("--reference", symmetric / "map.mrc"),
    )
    for folder, more in (
        (joint, ()),
        (focused, ("--focus-mask", around_sites(at, out / "focus_all.mrc"))),
    ):
        if not (folder / "result.json").exists():
            table_ = symmetric / "particles.star"
            run("refine", table_, *words, *more, "--out", folder, "--overwrite")
    truth = read_particles(data / "truth.star")
    carried = true_sites(truth)
    mask = read_map(out / "focus.mrc")[0]
    maps = [read_map(path)[0] for path in sorted(data.glob("truth_map_*.mrc"))]
    heading = [
        f"{len(truth):,} images", "sites right", "mean largest posterior of a site",
        "all four right", "occupancy of a site",
    ]  # fmt: skip
    lines = table(heading, heading=True)
    for told in (
        one_by_one(alone, mask, at, truth),
        together("patterns, all sites at once", joint, at, truth),
        together("the same, with spheres as `--focus-mask`", focused, at, truth),
    ):
        lines += table(row_of(told, carried), heading=False)
    partners = occupancy_patterns(point_group(GROUP)).n_partners / SITES
    for name, poses in (
        ("oracle: true maps, at these poses", read_particles(symmetric / "particles.star")),
        ("oracle: true maps and poses", None),
    ):
        ceiling = oracle_patterns(truth, maps, group=GROUP, poses=poses)
        best = ceiling.accuracy * ceiling.register_accuracy
        occupancy = float((ceiling.states @ partners).mean())
        lines += table([name, "–", "–", f"{best:.3f}", f"{occupancy:.3f}"], heading=False)
    lines += table(["the truth", "–", "–", "–", f"{carried.mean():.3f}"], heading=False)
    print(f"--at {at}", json.loads((alone / "result.json").read_text())["copies_of_parents"])
    print(*lines, sep="\n")
    if asked.docs is not None:
        path = asked.docs / "figures" / "ring_subparticles.png"
        ring_and_states(symmetric, alone, mask, at, path)
        quote(asked.docs / "guide" / "subparticles.md", "ring-subparticles", lines)


if __name__ == "__main__":
    main()
