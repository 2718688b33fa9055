"""Results that look like those of a refinement, made without one."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrelax.geometry import parse_group, subgroup
from jaxrelax.inference import entropy
from jaxrelax.io import read_particles
from jaxrelax.judgement import AsymmetryEvidence, Discriminability, SubgroupTest
from jaxrelax.reconstruction import (
    Band,
    corrected_fsc,
    difference_in_sigma,
    fsc,
    isotypic_parts,
    local_resolution,
    soft_sphere,
)
from jaxrelax.refinement.result import Result, StateMap

N = 24
PIXEL = 4.0
ITERATIONS = 9


def write_particles(path, n=60, seed=0):
    """A STAR file of particles without images."""
    rng = np.random.default_rng(seed)
    rows = [
        f"{i + 1:06d}@stack.mrcs 1 15000.0 14000.0 30.0 {rng.uniform(-180, 180):.6f} "
        f"{np.rad2deg(np.arccos(rng.uniform(-1, 1))):.6f} {rng.uniform(-180, 180):.6f} "
        f"{rng.normal():.6f} {rng.normal():.6f} {1 + i % 2} keep{i}"
        for i in range(n)
    ]
    labels = ["rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    labels += ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]
    labels += ["rlnRandomSubset", "rlnOther"]
    optics = (
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n"
        "_rlnVoltage #3\n_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n"
        f"_rlnImagePixelSize #6\n_rlnImageSize #7\n1 first 300 2.7 0.1 {PIXEL} {N}\n\n"
    )
    table = "# version 30001\n\ndata_particles\n\nloop_\n"
    table += "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 1))
    path.write_text(optics + table + "\n".join(rows) + "\n")
    return path


def density(rng, noise=0.2):
    """A ring of four blobs, one of them with a partner, and noise."""
    axis = np.arange(N) - N // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    result = noise * rng.standard_normal((N, N, N))
    for turn in range(4):
        c, s = np.cos(turn * np.pi / 2), np.sin(turn * np.pi / 2)
        result += np.exp(-((x - 5 * c) ** 2 + (y - 5 * s) ** 2 + z**2) / 8.0)
    result += np.exp(-((x - 5) ** 2 + y**2 + (z - 5) ** 2) / 8.0)
    return result.astype(np.float32)


def in_sigma(pair, density, mask, group, kept, removed=None):
    """A difference over its error, as a refinement makes it."""
    return difference_in_sigma(
        pair, density, mask > 0.5, Band(np.ones(N // 2), N // 2 - 1, True), PIXEL,
        group=group, kept=kept, removed=removed, coefficients=np.full(N // 2 + 1, 100.0),
    )  # fmt: skip


def make_result(folder, n=60, found=True, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    particles = read_particles(write_particles(folder / "particles.star", n))
    group, kept = parse_group("C4"), parse_group("C1")
    halves = (density(rng), density(rng))
    mean = 0.5 * (halves[0] + halves[1])
    parts = isotypic_parts(mean, group, kept)
    mask = soft_sphere(N, 9.0, 2.0)
    curves = corrected_fsc(*halves, mask, rng)
    split = [isotypic_parts(h, group, kept) for h in halves]
    curves["symmetric"] = fsc(split[0].symmetric, split[1].symmetric)
    curves["asymmetric"] = fsc(split[0].asymmetric, split[1].asymmetric)
    sharpness = rng.uniform(0, 8, n) if found else np.full(n, 0.05)
    posterior = np.exp(sharpness[:, None] * rng.random((n, 4)))
    posterior = (posterior / posterior.sum(axis=1, keepdims=True)).astype(np.float32)
    best = posterior.argmax(axis=1)
    predicted = Discriminability(
        squared_distance=rng.normal(2.5, 1.0, n),
        expected_accuracy=np.linspace(0.26, 0.98, n),
        chance=0.25,
        resolution_angstrom=10.8,
        view_deg=rng.uniform(0.0, 90.0, n),
        pose_uncertain=True,
    )
    particles = particles.with_updates(
        rotations=particles.rotations @ group.operators[best].transpose(0, 2, 1),
        extra_columns={
            "jrxRegister": best,
            "jrxRegisterProbability": posterior.max(axis=1),
            "jrxRegisterEntropy": -np.sum(posterior * np.log(posterior), axis=1),
            "jrxJunkProbability": np.where(np.arange(n) % 5 == 0, 0.9, 0.05),
            "jrxSymmetricProbability": np.full(n, 0.125),
            **predicted.columns(),
        },
    )
    gain = rng.normal(1.2 if found else -0.02, 1.0, n)
    rows = [SubgroupTest("C4", group.operators, 0.2, 0.42, np.log10(0.42), float(gain.mean()))]
    if found:
        c2 = subgroup(group, "C2").operators
        rows = [
            SubgroupTest("C4", group.operators, 40.0, 0.0, -350.2, float(gain.mean())),
            SubgroupTest("C2", c2, 1.0, 0.16, np.log10(0.16), 0.01),
        ]
    evidence = AsymmetryEvidence(
        log_gain=gain,
        z_score=rows[0].z_score,
        p_value=rows[0].p_value,
        found=found,
        half_set_agreement=0.81 if found else 0.27,
        expected_accuracy=float(posterior.max(axis=1).mean()),
        nats_per_particle=float(gain.mean()),
        subgroups=tuple(rows),
        supported=rows[-1].name,
    )
    return Result(
        particles=particles,
        map=mean,
        half_maps=halves,
        map_symmetrised=parts.symmetric,
        difference=parts.asymmetric,
        mask=mask,
        local_resolution=local_resolution(*halves, mask, PIXEL),
        pixel_size_angstrom=PIXEL,
        shell_edge_angstrom=N * PIXEL,
        registers=posterior,
        operators=group.operators,
        fsc=curves,
        resolution_angstrom=9.6,
        evidence=evidence,
        discriminability=predicted,
        noise_power=np.geomspace(2.0, 0.9, N // 2 + 1)[None],
        history=[history_row(i, found) for i in range(1, ITERATIONS + 1)],
        reason="The registers have settled: fewer than 1 % changed for 3 iterations.",
        settings={
            "relax": {"group": "C4", "to": "C1", "mask": None, "cross_fit": 5},
            "mode": {"name": "Local", "sigma_rotation_deg": 2.0},
            "seed": 0,
        },
        seconds=83.2,
        peak_memory_gib=1.21,
        in_sigma=in_sigma(
            tuple(part.asymmetric for part in split), parts.symmetric, mask, group, kept, group
        ),
    )


SHARES = (0.5, 0.3, 0.2)


def make_states(result, shares=SHARES, certainty=0.88, seed=0):
    """The result as one of a classification: one partner of four, all of them, none."""
    rng = np.random.default_rng(seed)
    n, group = len(result.particles), parse_group("C4")
    axis = np.arange(N) - N // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    partner = np.exp(-((x - 5) ** 2 + y**2 + (z + 5) ** 2) / 8.0).astype(np.float32)
    of_four = 4.0 * isotypic_parts(partner, group, group).symmetric
    body = isotypic_parts(density(rng, 0.0), group, parse_group("C1")).symmetric
    fractions = np.array(shares) / np.sum(shares)
    mean = body + 0.25 * fractions[0] * of_four + fractions[1] * of_four
    names = ("C4 relaxed to C1", "C4", "C4")
    counts = (4, 1, 1)
    truth = rng.choice(3, n, p=fractions)
    of_states = np.full((n, 3), 0.5 * (1.0 - certainty))
    of_states[np.arange(n), truth] = certainty
    within = rng.dirichlet(np.full(4, 0.3), n)
    posterior = np.concatenate([of_states[:, :1] * within, of_states[:, 1:]], axis=1)
    junk = np.where(np.arange(n) % 10 == 0, 0.9, 0.05)
    states = []
    for number, own in enumerate((partner, of_four, 0.0 * partner)):
        pair = [body + own + 0.05 * rng.standard_normal(own.shape) for _ in range(2)]
        halves = tuple(half.astype(np.float32) for half in pair)
        curves = corrected_fsc(*halves, result.mask, rng)
        curves["own"] = fsc(*(half - mean for half in halves))
        if number == 0:
            curves["asymmetric"] = curves["own"]
        states.append(
            StateMap(
                name=names[number],
                group="C4",
                kept="C1" if number == 0 else "C4",
                fraction=float(fractions[number]),
                count=int(np.sum((truth == number) & (junk < 0.5))),
                registers=counts[number],
                map=(body + own).astype(np.float32),
                half_maps=halves,
                mask=result.mask,
                local_resolution=local_resolution(*halves, result.mask, PIXEL),
                fsc=curves,
                resolution_angstrom=9.0 + number,
                in_sigma=in_sigma(
                    tuple(half - mean.astype(np.float32) for half in halves),
                    mean,
                    result.mask,
                    group,
                    parse_group("C1" if number == 0 else "C4"),
                ),
            )
        )
    place = posterior[:, :4].argmax(axis=1)
    history = [
        row | {"held_out_gain": 0.0, "phase": 0.0, "settled": float(row["iteration"] > 6)}
        for row in result.history
    ]
    for i, row in enumerate(history[3:]):
        row["state_change"] = 0.2 / (1 + i)
        row |= {f"fraction_class{k:02d}": float(f) for k, f in enumerate(fractions, start=1)}
    columns = {k: v for k, v in result.particles.extra_columns.items() if k[:3] != "jrx"}
    return replace(
        result,
        particles=replace(
            result.particles,
            class_number=of_states.argmax(axis=1).astype(np.int32) + 1,
            extra_columns=columns
            | {
                "rlnClassNumber": of_states.argmax(axis=1).astype(np.int32) + 1,
                "jrxStateProbability": of_states.max(axis=1),
                "jrxStateEntropy": entropy(of_states),
                "jrxRegister": np.where(truth == 0, place, 0) + 1,
                "jrxRegisterProbability": np.where(truth == 0, within.max(axis=1), 1.0),
                "jrxJunkProbability": junk,
            },
        ),
        map=mean.astype(np.float32),
        registers=posterior.astype(np.float32),
        operators=np.concatenate([group.operators, np.eye(3)[None], np.eye(3)[None]]),
        fsc={k: v for k, v in result.fsc.items() if k not in ("symmetric", "asymmetric")},
        evidence=None,
        discriminability=None,
        history=history,
        reason="states have settled",
        states=tuple(states),
        in_sigma=None,
        local_resolution=None,
    )


def history_row(i, found):
    rise = i / ITERATIONS if found else 0.02
    return {
        "iteration": float(i),
        "resolution_angstrom": 15.0 - 0.6 * i,
        "score_resolution_angstrom": 15.0 - 0.5 * i,
        "mean_max_posterior": 0.25 + 0.5 * rise,
        "register_change": 0.7 * (1 - rise),
        "rotation_change_deg": 1.0 / i,
        "shift_change_angstrom": 0.5 / i,
        "asymmetric_fsc": 0.9 * rise,
        "asymmetric_power": 0.3 * rise,
        "held_out_gain": 1.2 * rise,
        "optimism": 6.0,
        "amplitude": 1.0 if i < ITERATIONS - 3 else rise,
        "symmetric_fraction": 0.0 if i < ITERATIONS - 3 else 0.125,
        "junk_fraction": 0.02 * i,
        "sigma_rotation_deg": 2.0 - 0.1 * i,
        "sigma_shift_angstrom": 1.5 - 0.05 * i,
        "seconds": 9.0,
        "score_shell": 6.0,
        "phase": 0.0 if i < ITERATIONS - 3 else 3.0,
        "settled": 0.0 if i < ITERATIONS - 3 else 1.0,
    }


@pytest.fixture(scope="session")
def result(tmp_path_factory):
    return make_result(tmp_path_factory.mktemp("found"))


@pytest.fixture(scope="session")
def symmetric_result(tmp_path_factory):
    """No asymmetry was found."""
    return make_result(tmp_path_factory.mktemp("not_found"), found=False)


@pytest.fixture(scope="session")
def states_result(tmp_path_factory):
    """Of a classification with three states."""
    return make_states(make_result(tmp_path_factory.mktemp("states"), n=400))


@pytest.fixture(scope="session")
def plain_result(result):
    """Without relaxation."""
    n = len(result.particles)
    columns = result.particles.extra_columns
    ours = [name for name in columns if name.startswith("jrx")]
    return replace(
        result,
        particles=replace(
            result.particles,
            extra_columns={k: v for k, v in columns.items() if k not in ours},
        ),
        discriminability=None,
        registers=np.ones((n, 1), np.float32),
        operators=np.eye(3)[None],
        map_symmetrised=result.map,
        difference=np.zeros_like(result.map),
        fsc={k: v for k, v in result.fsc.items() if k not in ("symmetric", "asymmetric")},
        evidence=None,
        in_sigma=None,
        settings={"symmetry": "C4"},
    )
