"""The prior that varies in space beside the uniform one and a local low-pass, on known truth.

    python experiments/local_prior.py --registers DATA [DATA ...] [--docs docs]
    python experiments/local_prior.py --belt OUT --channel 6o1p.pdb.gz [--docs docs]

DATA are folders of ``jaxrelax simulate``; each is relaxed from its symmetric map with every prior,
and registers, their calibration and poses are judged. ``--belt`` simulates a channel with and
without a belt around it, whose pieces are elsewhere in every image, and refines the poses of both
with every prior; the unfiltered mean of the half-maps is compared with the true map of the
channel, inside the channel. Rows of ``--registers`` are kept in DATA, so that each run is made
once. ``--docs`` puts the tables into results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "jaxcache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import numpy as np
import scipy.ndimage
from nonuniform import NonUniform
from pages import quote, table

import jaxrelax as jr
from jaxrelax.assessment import register_accuracy
from jaxrelax.geometry import point_group, pose_error_mod_group
from jaxrelax.imaging import CTFParameters, ctf
from jaxrelax.io import (
    ImageReader,
    Particles,
    read_map,
    read_particles,
    write_map,
    write_stack,
)
from jaxrelax.reconstruction import Isotypic, LocalPrior, fsc, solvent_mask
from jaxrelax.simulate import Simulation, simulate

PRIORS = {"uniform": Isotypic, "local": LocalPrior, "local low-pass": NonUniform}
CHANNEL = Simulation(
    box=80, pixel_size_angstrom=2.6, group="C4", n_images=1500, snr=0.02, pose_error_deg=2.5,
    shift_error_angstrom=1.0, max_shift_angstrom=6.0,
)  # fmt: skip
# Of the belt: between these distances from the axis, so high, pieces of this width, as heavy
# together as so much of the channel.
FROM_AXIS_ANGSTROM, HEIGHT_ANGSTROM = (25.0, 70.0), 50.0
PIECES, PIECE_ANGSTROM, MASS = 60, 4.0, 1.0
# Above so much of its maximum the low-passed channel keeps the belt out.
OCCUPIED, CLEARANCE_ANGSTROM = 0.05, 5.0
SEED = 5


def registers(data: Path, names: list[str], *, held: bool) -> dict[str, dict]:
    """What every prior finds of the registers of one set; runs that the folder holds are kept.

    Args:
        data: the folder.
        names: of priors.
        held: others are left out, instead of being made.
    """
    truth, found = read_particles(data / "truth.star"), {}
    for name in names:
        kept = data / f"registers_{name.replace(' ', '_')}.json"
        if held and not kept.exists():
            continue
        if not kept.exists():
            result = jr.refine(
                data / "particles.star", data / "reference.mrc", relax="C4",
                map_prior=PRIORS[name](), subgroups="none",
            )  # fmt: skip
            judged = register_accuracy(result.particles, truth, "C4")
            assert judged.calibration is not None
            assert result.evidence is not None
            kept.write_text(
                json.dumps(
                    {
                        "accuracy": judged.accuracy,
                        "posterior": judged.mean_max_posterior,
                        "calibration": judged.calibration.expected_error,
                        "pose": judged.pose_error_deg,
                        "iterations": len(result.history),
                        "memory": result.peak_memory_gib,
                        "seconds": result.seconds,
                        "p": result.evidence.p_value,
                    }
                )
            )
        found[name] = json.loads(kept.read_text())
    return found


def register_table(folders: list[Path], names: list[str], *, held: bool) -> list[str]:
    """A row for every set and prior."""
    lines = table(
        ["set", "prior", "register accuracy", "mean largest posterior", "calibration error",
         "median pose error", "iterations", "p of C4"], heading=True,
    )  # fmt: skip
    for folder in folders:
        for name, one in registers(folder, names, held=held).items():
            values = [f"{one[key]:.3f}" for key in ("accuracy", "posterior", "calibration")]
            values += [f"{one['pose']:.2f}°", str(one["iterations"])]
            values.append("< 10⁻³" if one["p"] < 1e-3 else f"{one['p']:.2f}")
            lines += table([folder.name, name, *values], heading=False)
    return lines


def with_belt(bare: Path, out: Path) -> None:
    """The images of a folder with a belt whose pieces are elsewhere in each; once."""
    if (out / "particles.star").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    truth = read_particles(bare / "truth.star")
    channel, pixel = read_map(bare / "truth_map.mrc")
    n, rng = len(channel), np.random.default_rng(SEED)
    axis = pixel * (np.arange(n) - n // 2)
    smooth = scipy.ndimage.gaussian_filter(channel, CLEARANCE_ANGSTROM / pixel)
    far = np.hypot(axis[:, None], axis[None, :])[None]
    low, high = FROM_AXIS_ANGSTROM
    free = (smooth < OCCUPIED * smooth.max()) & (far > low) & (far < high)
    free &= np.abs(axis)[:, None, None] < 0.5 * HEIGHT_ANGSTROM
    places = np.argwhere(free)[:, ::-1] - n // 2
    piece = MASS * float(channel.sum()) / PIECES
    f = np.fft.fftfreq(n), np.fft.rfftfreq(n)
    k2 = f[0][:, None] ** 2 + f[1][None] ** 2
    form = piece * np.exp(-2.0 * (np.pi * PIECE_ANGSTROM / pixel) ** 2 * k2)
    frequencies = np.stack(np.broadcast_arrays(f[1][None], f[0][:, None]), axis=-1) / pixel
    images = np.empty((len(truth), n, n), np.float32)
    with ImageReader(truth) as reader:
        stack = reader.read(np.arange(len(truth)))
    for row in range(len(truth)):
        at = places[rng.integers(len(places), size=PIECES)] + rng.uniform(-0.5, 0.5, (PIECES, 3))
        # Image coordinates; the particle sits at minus the origin.
        x, y = (at @ truth.rotations[row].T)[:, :2].T - truth.origins_angstrom[row][:, None] / pixel
        waves = np.exp(-2j * np.pi * np.multiply.outer(f[0], y + n // 2)) @ np.exp(
            -2j * np.pi * np.multiply.outer(x + n // 2, f[1])
        )
        values = np.asarray(ctf(_optics(truth, row), frequencies.reshape(-1, 2))).reshape(k2.shape)
        images[row] = stack[row] + np.fft.irfft2(values * form * waves, s=(n, n))
    write_stack(out / "particles.mrcs", images, pixel, "float32")
    density = scipy.ndimage.gaussian_filter(free.astype(np.float32), PIECE_ANGSTROM / pixel)
    write_map(out / "reference.mrc", channel + PIECES * piece * density / density.sum(), pixel)
    write_map(out / "truth_map.mrc", channel, pixel)
    for name in ("particles.star", "truth.star"):
        (out / name).write_text((bare / name).read_text())


def _optics(particles: Particles, row: int) -> CTFParameters:
    group = particles.optics[particles.optics_group[row]]
    return CTFParameters(
        particles.defocus_u_angstrom[row], particles.defocus_v_angstrom[row],
        particles.defocus_angle_deg[row], particles.phase_shift_deg[row],
        particles.bfactor_angstrom2[row], group.voltage_kv, group.spherical_aberration_mm,
        group.amplitude_contrast,
    )  # fmt: skip


def channel_curves(folder: Path, names: list[str]) -> dict[str, dict]:
    """FSC to the true channel inside of it, and pose errors, of refinements with every prior."""
    true_map, pixel = read_map(folder / "truth_map.mrc")
    truth, mask = read_particles(folder / "truth.star"), solvent_mask(true_map, pixel)
    found = {}
    for name in names:
        kept = folder / f"channel_{name.replace(' ', '_')}.json"
        if not kept.exists():
            result = jr.refine(
                folder / "particles.star", folder / "reference.mrc", symmetry="C4",
                map_prior=PRIORS[name](),
            )  # fmt: skip
            first, second = result.half_maps
            curve = fsc(0.5 * (first + second), true_map, mask)
            operators = point_group("C4")
            off = pose_error_mod_group(result.particles.rotations, truth.rotations, operators)
            values = {
                "curve": curve.tolist(),
                "pose": float(np.rad2deg(np.median(off))),
                "iterations": len(result.history),
                "seconds": result.seconds,
            }
            kept.write_text(json.dumps(values))
        found[name] = json.loads(kept.read_text())
    return found


def falling(curve: np.ndarray) -> np.ndarray:
    """Shells in which a curve falls from 0.9 to 0.2.

    At low resolution the belt's density inside the mask is an error, too, and nobody's.
    """
    start = int(np.flatnonzero(curve > 0.9)[-1]) + 1
    end = start + int(np.flatnonzero(np.append(curve[start:], 0.0) < 0.2)[0])
    return np.arange(start, end)


def belt_tables(out: Path, source: str, names: list[str]) -> tuple[list[str], list[str]]:
    """Per shell inside the channel of a particle with a belt; and both particles in one line."""
    bare, belted = out / "bare", out / "belt"
    if not (bare / "particles.star").exists():
        simulate(source, bare, CHANNEL)
    with_belt(bare, belted)
    edge = CHANNEL.box * CHANNEL.pixel_size_angstrom
    shells = table(["Å", *names], heading=True)
    summary = table(
        ["particle", "prior", "shells between 0.9 and 0.2", "least difference", "mean difference",
         "median pose error", "iterations"], heading=True,
    )  # fmt: skip
    for folder, what in ((belted, "with a belt"), (bare, "without")):
        found = channel_curves(folder, names)
        curves = {name: np.array(one["curve"]) for name, one in found.items()}
        uniform = curves["uniform"]
        judged = falling(uniform)
        if folder == belted:
            for shell in judged:
                values = [f"{curves[name][shell]:.3f}" for name in names]
                shells += table([f"{edge / shell:.1f}", *values], heading=False)
        for name in names:
            more = (curves[name] - uniform)[judged]
            least, mean = f"{more.min():+.3f}", f"{more.mean():+.3f}"
            if name == "uniform":
                least, mean = "", ""
            summary += table(
                [what, name, str(len(judged)), least, mean, f"{found[name]['pose']:.2f}°",
                 str(found[name]["iterations"])], heading=False,
            )  # fmt: skip
    return shells, summary


def main() -> None:
    """Run, print, and put into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--registers", type=Path, nargs="+", default=[], metavar="DATA")
    parser.add_argument("--belt", type=Path, metavar="OUT")
    parser.add_argument("--channel", metavar="MODEL")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--held", action="store_true", help="only runs that DATA holds already")
    parser.add_argument("--docs", type=Path)
    asked = parser.parse_args()
    found = {}
    if asked.registers:
        found["local-prior-registers"] = register_table(
            asked.registers, asked.priors, held=asked.held
        )
    if asked.belt:
        if asked.channel is None:
            parser.error("--belt needs --channel, the atomic model that the belt is around")
        tables = belt_tables(asked.belt, asked.channel, asked.priors)
        found["local-prior-belt"], found["local-prior-channel"] = tables
    for name, lines in found.items():
        print("\n".join(["", *lines]))
        if asked.docs:
            quote(asked.docs / "results.md", name, lines)


if __name__ == "__main__":
    main()
