"""A result as files: the output folder's contract."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from jaxrelax.assessment.chimerax import chimerax_script
from jaxrelax.assessment.findings import warnings
from jaxrelax.assessment.hand_over import from_cryosparc
from jaxrelax.assessment.local_resolution import local_summary
from jaxrelax.assessment.occupancy import Populations, populations
from jaxrelax.assessment.positions import difference_summary, differences, positions_csv
from jaxrelax.assessment.report import report_html
from jaxrelax.assessment.saving_cryosparc import save_for_cryosparc
from jaxrelax.assessment.state_shares import expected_state_accuracy, in_state, state_shares
from jaxrelax.assessment.versions import versions
from jaxrelax.inference.orientation_test import SMALLEST_COUNTED_P
from jaxrelax.io import OutputFolder, write_fsc_star, write_map, write_star
from jaxrelax.judgement import AsymmetryEvidence
from jaxrelax.refinement.result import Result

# RELION's names in postprocess.star, for the curves that it has too.
RELION_CURVES = {
    "corrected": "rlnFourierShellCorrelationCorrected",
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "random": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
}


def save(result: Result, folder: OutputFolder) -> None:
    """Write everything of a result into its folder.

    ``particles.star``, ``map.mrc``, ``half1.mrc``, ``half2.mrc``, ``mask.mrc``,
    ``local_resolution.mrc``, ``fsc.star``, ``history.csv``, ``view.cxc``, ``report.html`` and
    ``result.json``; with relaxation also ``registers.npz``, ``map_symmetrised.mrc``,
    ``difference.mrc``, ``difference_sigma.mrc`` and ``difference_positions.csv``; of a part
    ``map_composite.mrc``, its map with the rest as it was; when the input was a ``.cs`` file,
    ``particles.cs`` and cryoSPARC's result groups. With states the maps are of their mean, and
    every state has ``particles_classNN.star`` (images that show it most probably, less junk),
    ``map_classNN.mrc``, ``half1_classNN.mrc``, ``half2_classNN.mrc``, ``mask_classNN.mrc``,
    ``local_resolution_classNN.mrc`` (and no ``local_resolution.mrc``),
    ``difference_sigma_classNN.mrc`` and ``fsc_classNN.star``; where states are occupancy
    patterns there is ``populations.json``.
    Every file appears whole; ``result.json`` is the last one, so a folder with it is complete.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    # That of an earlier, shorter run would say that these files are all there.
    (folder / "result.json").unlink(missing_ok=True)
    write_star(result.particles, folder / "particles.star")
    maps = {
        "map": result.map,
        "half1": result.half_maps[0],
        "half2": result.half_maps[1],
        "mask": result.mask,
    }
    if len(result.operators) > 1:
        maps |= {"map_symmetrised": result.map_symmetrised, "difference": result.difference}
        folder.write_npz("registers.npz", register_arrays(result))
    if result.map_composite is not None:
        maps["map_composite"] = result.map_composite
    if result.local_resolution is not None:
        maps["local_resolution"] = result.local_resolution
    if result.in_sigma is not None:
        maps["difference_sigma"] = result.in_sigma.sigma
    for name, array in maps.items():
        write_map(folder / f"{name}.mrc", array, result.pixel_size_angstrom)
    write_fsc_star(folder / "fsc.star", fsc_table(result.fsc, result.shell_edge_angstrom))
    save_states(result, folder)
    if from_cryosparc(result):
        save_for_cryosparc(result, folder)
    if any(differences(result)):
        folder.write_text("difference_positions.csv", positions_csv(result))
    folder.write_text("history.csv", history_csv(result))
    folder.write_text("view.cxc", chimerax_script(result))
    folder.write_text("report.html", report_html(result, folder.path))
    folder.write_json("result.json", summary(result))


def save_states(result: Result, folder: OutputFolder) -> None:
    """Files of every state, if there are states."""
    for number, one in enumerate(result.states, start=1):
        mine = in_state(result, number - 1)
        if mine.any():
            chosen = result.particles.select(np.flatnonzero(mine))
            write_star(chosen, folder / f"particles_class{number:02d}.star")
        maps = {
            "map": one.map, "half1": one.half_maps[0], "half2": one.half_maps[1], "mask": one.mask
        }  # fmt: skip
        if one.local_resolution is not None:
            maps["local_resolution"] = one.local_resolution
        if one.in_sigma is not None:
            maps["difference_sigma"] = one.in_sigma.sigma
        for name, array in maps.items():
            path = folder / f"{name}_class{number:02d}.mrc"
            write_map(path, array, result.pixel_size_angstrom)
        table = fsc_table(one.fsc, result.shell_edge_angstrom)
        write_fsc_star(folder / f"fsc_class{number:02d}.star", table)
    if result.patterns is not None:
        folder.write_json("populations.json", pattern_populations(result).to_dict())


def pattern_populations(result: Result) -> Populations:
    """How frequent every occupancy pattern is, by the posteriors of a result.

    Raises:
        ValueError: its states are no occupancy patterns.
    """
    if result.patterns is None:
        raise ValueError("the states of this result are no occupancy patterns")
    junk = np.asarray(result.particles.extra_columns["jrxJunkProbability"], np.float64)
    posterior = np.asarray(result.state_posterior, np.float64)
    return populations(result.patterns, posterior, 1.0 - junk)


def register_arrays(result: Result) -> dict[str, np.ndarray]:
    """Arrays of ``registers.npz``, row by row with ``particles.star``.

    ``posterior`` (particles, registers); ``operators`` (registers, 3, 3), the r_j such that
    register j of pose A is ``A r_jᵀ`` (the poses of ``particles.star`` are in the most probable
    one); ``operator_shifts_angstrom`` (registers, 3), t_j such that mate j of the map is at
    ``r_j x + t_j``, where axes do not go through the centre of the box; and ``log_gain``, held-
    out log likelihood ratio of asymmetric over symmetrised map, less its mean at foreign
    orientations, in nats, where it was computed. With states the posterior is over the
    registers of all, and ``state`` (registers,) says to which class each belongs, from 1.
    """
    arrays = {
        "posterior": np.asarray(result.registers, np.float32),
        "operators": result.operators,
    }
    if result.operator_shifts_angstrom is not None:
        arrays["operator_shifts_angstrom"] = result.operator_shifts_angstrom
    if result.evidence is not None:
        arrays["log_gain"] = result.evidence.log_gain
    if result.states:
        counts = [one.registers for one in result.states]
        arrays["state"] = np.repeat(np.arange(1, len(counts) + 1), counts)
    return arrays


def fsc_table(fsc: Mapping[str, np.ndarray], shell_edge_angstrom: float) -> dict[str, np.ndarray]:
    """Columns of ``fsc.star``: RELION's labels where RELION has the curve.

    Args:
        fsc: curves by name.
        shell_edge_angstrom: shell s is at so much over s.

    Raises:
        ValueError: the curves differ in length.
    """
    lengths = {name: len(curve) for name, curve in fsc.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"FSC curves of different lengths: {lengths}")
    shells = np.arange(next(iter(lengths.values()), 0))
    frequency = shells / shell_edge_angstrom
    with np.errstate(divide="ignore"):
        table = {
            "rlnSpectralIndex": shells,
            "rlnResolution": frequency,
            "rlnAngstromResolution": 1.0 / frequency,
        }
    order = [*(n for n in RELION_CURVES if n in fsc)]
    order += [name for name in fsc if name not in RELION_CURVES]
    return table | {fsc_label(name): np.asarray(fsc[name], float) for name in order}


def fsc_label(curve: str) -> str:
    """RELION's label of a curve, or ``jrxFourierShellCorrelation…`` for ours."""
    if curve in RELION_CURVES:
        return RELION_CURVES[curve]
    words = re.split(r"[^A-Za-z0-9]+", curve)
    return "jrxFourierShellCorrelation" + "".join(word[:1].upper() + word[1:] for word in words)


def history_csv(result: Result) -> str:
    """One line per iteration; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(name for row in result.history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    for row in result.history:
        writer.writerow({name: f"{value:.8g}" for name, value in row.items()})
    return text.getvalue()


def subgroup_table(evidence: AsymmetryEvidence) -> list[dict[str, Any]]:
    """One entry per tested symmetry, as ``result.json`` and ``symmetry_test.json`` hold it."""
    return [
        {
            "symmetry": row.name,
            "order": row.order,
            "rejected": row.rejected,
            "implied_by": row.implied_by,
            "p_value": max(row.p_value, SMALLEST_COUNTED_P),
            "log10_p": row.log10_p,
            "z_score": row.z_score,
            "nats_per_particle": row.nats,
            "operators": row.operators,
        }
        for row in evidence.subgroups
    ]


def symmetry_summary(result: Result) -> dict[str, Any]:
    """Content of ``symmetry_test.json``: which symmetry the images support.

    Raises:
        ValueError: nothing was relaxed, so there is no test.
    """
    evidence = result.evidence
    if evidence is None:
        raise ValueError("a refinement without relaxation has no symmetry test")
    return {
        "sentence": evidence.sentence(),
        "supported_symmetry": evidence.supported,
        "subgroups": subgroup_table(evidence),
        "n_particles": len(result.particles),
        "input": str(result.particles.source),
        "warnings": [*result.notes, *warnings(result)],
        "settings": result.settings,
        "versions": versions(),
    }


def state_table(result: Result) -> list[dict[str, Any]]:
    """One entry per state, as ``result.json`` has them; empty without states."""
    return [
        {
            "class": share.number,
            "name": share.name,
            "symmetry": one.group,
            "kept": one.kept,
            "registers": one.registers,
            "fraction": share.fraction,
            "particles": share.particles,
            "mean_probability": share.mean_probability if share.particles else None,
            "resolution_angstrom": share.resolution_angstrom,
            "own_resolution_angstrom": one.own_resolution_angstrom or None,
            "asymmetric_resolution_angstrom": one.asymmetric_resolution_angstrom or None,
            "difference": difference_summary(one.in_sigma, result.pixel_size_angstrom),
            "local_resolution": local_summary(result, one),
        }
        for one, share in zip(result.states, state_shares(result), strict=True)
    ]


def mixture(result: Result) -> dict[str, Any]:
    """What the images show besides registers, and how well these can be told apart at all."""
    columns = result.particles.extra_columns
    content: dict[str, Any] = {}
    if "jrxJunkProbability" in columns:
        content["junk_fraction"] = float(np.mean(columns["jrxJunkProbability"]))
    if "jrxSymmetricProbability" in columns:
        content["symmetric_fraction"] = float(np.mean(columns["jrxSymmetricProbability"]))
    predicted = result.discriminability
    if predicted is not None:
        content["discriminability"] = {
            "sentence": predicted.sentence(),
            "possible_register_accuracy": predicted.mean_accuracy,
            "nats_per_particle": float(predicted.nats.mean()),
            "blind_fraction": float(predicted.blind.mean()),
        }
    return content


def summary(result: Result) -> dict[str, Any]:
    """Content of ``result.json``: the answer first, then what was asked and how it went."""
    particles, evidence = result.particles, result.evidence
    content: dict[str, Any] = {
        "reason_for_stopping": result.reason,
        "resolution_angstrom": result.resolution_angstrom,
        "asymmetric_resolution_angstrom": result.asymmetric_resolution_angstrom or None,
        "local_resolution": local_summary(result, result),
        "n_particles": len(particles),
        "n_registers": len(result.operators),
        "n_iterations": len(result.history),
        "box": result.map.shape[0],
        "shell_edge_angstrom": result.shell_edge_angstrom,
        "pixel_size_angstrom": result.pixel_size_angstrom,
        "evidence": None,
    }
    if evidence is not None:
        content["evidence"] = {
            "sentence": evidence.sentence(),
            "found": bool(evidence.found),
            "p_value": max(evidence.p_value, SMALLEST_COUNTED_P),
            "log10_p": evidence.subgroups[0].log10_p,
            "z_score": evidence.z_score,
            "nats_per_particle": evidence.nats_per_particle,
            "supported_symmetry": evidence.supported,
            "subgroups": subgroup_table(evidence),
            "expected_register_accuracy": evidence.expected_accuracy,
            "half_set_agreement": evidence.half_set_agreement,
            "chance": 1.0 / len(result.operators),
        }
        content |= mixture(result)
        content["difference"] = difference_summary(result.in_sigma, result.pixel_size_angstrom)
        content["register_occupancy"] = result.registers.mean(axis=0, dtype=np.float64)
    if result.states:
        content |= mixture(result)
        content["expected_state_accuracy"] = expected_state_accuracy(result)
        content["states"] = state_table(result)
        content["states_supported"] = None
        if result.states_apart is not None:
            content["states_supported"] = {
                "supported": result.states_apart.supported,
                "sentence": result.states_apart.sentence(),
                "nats_per_particle": result.states_apart.tests[0].nats,
                "z_score": result.states_apart.tests[0].z_score,
                "told_apart": result.states_apart.groups,
            }
        content["states_by_either_half"] = result.either_half
        content["copies_of_parents"] = None
        if result.copies is not None:
            content["copies_of_parents"] = {
                "parents": result.copies.parents,
                "with_several_in_class": list(result.copies.several),
                "exclusive_class": result.copies.exclusive,
            }
        content["repeats_adjusted_rand"] = result.repeats
    if result.part is not None:
        content["part"] = asdict(result.part)
    content |= {
        "seconds": result.seconds,
        "peak_memory_gib": result.peak_memory_gib,
        "compiled_programs": result.compiled_programs,
        "compile_seconds": result.compile_seconds,
        "input": str(particles.source),
        "settings": result.settings,
        "versions": versions(),
        "warnings": [*result.notes, *warnings(result)],
        "noise": [
            {
                "optics_group": group.name,
                "rlnSigma2Noise": power / (2.0 * group.box**2),
            }
            for group, power in zip(particles.optics, result.noise_power, strict=True)
        ],
    }
    return content
