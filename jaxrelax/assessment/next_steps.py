"""What to do next with a result: which map to open, and commands that go on from its files.

Whether a result found anything decides what is worth doing with it; the program that its particles
came from decides where: RELION for a ``.star`` file, cryoSPARC for a ``.cs`` file.
"""

from __future__ import annotations

import os
import shlex

from jaxrelax.assessment.contradictions import contradictions
from jaxrelax.assessment.hand_over import (
    SURE,
    HandOver,
    Step,
    from_cryosparc,
    imposable,
    table_name,
)
from jaxrelax.assessment.next_steps_of_states import steps_of_states
from jaxrelax.assessment.words import percent, relaxation_setting
from jaxrelax.geometry import UnknownGroupError, parse_group, subgroup
from jaxrelax.refinement.result import Result


def next_steps(result: Result, folder: str | os.PathLike = "out") -> list[Step]:
    """What a result calls for, most useful first.

    Args:
        result: of a refinement.
        folder: its output folder, as commands are to name it.
    """
    way = HandOver.of(result, folder)
    if result.states:
        return steps_of_states(result, way)
    if result.part is not None:
        return _of_a_part(result, way)
    if result.evidence is None:
        return _without_relaxation(result, way)
    if not result.evidence.found:
        return _not_found(result, way)
    if contradictions(result):
        return _contradicted(result, way)
    return _found(result, way)


def _of_a_part(result: Result, way: HandOver) -> list[Step]:
    """Other programs see the rest in the images, at the poses of the part: none is named for it."""
    steps = [
        Step(
            "Look at the part in its place",
            "map_composite.mrc has the rest around it as it was.",
            "ChimeraX",
            (f"chimerax {way.file('map.mrc')} {way.file('map_composite.mrc')}",),
        )
    ]
    if not from_cryosparc(result):
        steps += _go_on(result, way, "C1")[:1]  # sharpening
    return [
        *steps,
        Step(
            "Refine the part further, with another mask",
            "The rest stays at its own poses, which are in the table (jrxBase columns); leave out "
            "of the mask what does not move with the part.",
            "jaxrelax",
            (
                f"jaxrelax refine {way.file(table_name(result))} --reference "
                f"{way.file('map_composite.mrc')} --mask tighter.mrc --out {way.beside('tighter')}",
            ),
        ),
    ]


def _found(result: Result, way: HandOver) -> list[Step]:
    kept = relaxation_setting(result, "to") or "C1"
    steps = [
        Step(
            "Look at what breaks the symmetry",
            "map.mrc has the asymmetric density; difference.mrc shows it beside the symmetrised "
            "map, in red and blue.",
            "ChimeraX",
            (f"chimerax {way.file('view.cxc')}",),
        )
    ]
    return [*steps, *_keep_supported(result, way), *_go_on(result, way, kept), _sure(result, way)]


def _keep_supported(result: Result, way: HandOver) -> list[Step]:
    """Another run, with a larger symmetry kept than this one had."""
    evidence = result.evidence
    group, kept = relaxation_setting(result, "group"), relaxation_setting(result, "to") or "C1"
    if evidence is None or group is None or evidence.kept_untested:
        return []
    name = evidence.supported
    if name in (None, "C1") or not _keeps(group, name, evidence):
        return []
    return [
        Step(
            f"Run again with {name} kept",
            f"Images do not contradict {name}: with it imposed there are fewer registers than "
            f"with {kept}, and more particles for every part of the map.",
            "jaxrelax",
            (
                f"jaxrelax refine {way.file(table_name(result))} --reference "
                f"{way.file('map_symmetrised.mrc')} --relax {shlex.quote(group)} --to {name} "
                f"--out {way.beside(name)}",
            ),
        )
    ]


def _keeps(group: str, name: str, evidence) -> bool:
    """Whether ``--to`` means the subgroup that was tested under that name, up to conjugacy.

    A group may have several kinds of one type (D4 three of C2), of which the name means one.
    """
    try:
        subgroup(parse_group(group, placed=True), name)
    except (UnknownGroupError, ValueError):
        return False
    tested = [row.name for row in evidence.subgroups if row.name.split()[0] == name]
    return tested == [name]


def _sure(result: Result, way: HandOver) -> Step:
    share = float((result.registers.max(axis=1) >= SURE).mean())
    out = shlex.quote("sure" + result.particles.source.suffix)
    return Step(
        "Take the particles that are sure of their register",
        f"{percent(share)} have a register probability of at least {SURE:g}, junk included; the "
        "others blur what breaks the symmetry.",
        "jaxrelax",
        (f"jaxrelax select {way.file('')} --min-probability {SURE:g} --out {out}",),
    )


def _go_on(result: Result, way: HandOver, symmetry: str) -> list[Step]:
    """Sharpening and a local refinement, in the program that the particles came from."""
    if from_cryosparc(result):
        return [
            Step(
                f"Refine in cryoSPARC with {symmetry}",
                "Poses, registers and half-sets go with the particles; a local refinement keeps "
                "them, where a global one would mix the registers again.",
                "cryoSPARC",
                (
                    *way.cryosparc_import("particles.csg", "volume.csg", "mask.csg"),
                    way.cryosparc_refinement(symmetry),
                ),
            )
        ]
    return [
        Step(
            "Sharpen the map in RELION",
            "The half-maps have no prior and no mask, which is what post-processing wants.",
            "RELION",
            (way.relion_folder, way.relion_postprocess()),
        ),
        Step(
            f"Refine in RELION with {symmetry}",
            "Poses have the register applied; searched near where they are, they keep it, while a "
            "global search would mix the registers again.",
            "RELION",
            (
                way.relion_folder,
                way.relion_refine(
                    way.file("particles.star"),
                    way.file("map.mrc"),
                    way.file("mask.mrc"),
                    symmetry,
                ),
            ),
        ),
    ]


def _not_found(result: Result, way: HandOver) -> list[Step]:
    group = relaxation_setting(result, "group") or "the group"
    steps = [
        Step(
            "Use the symmetrised map",
            f"Held-out images do not contradict {group}; asymmetric features of map.mrc are noise.",
            "ChimeraX",
            (f"chimerax {way.file('map_symmetrised.mrc')}",),
        )
    ]
    if result.history and result.history[-1].get("settled", 1.0) == 0.0:
        steps.insert(
            0,
            Step(
                "Let the run end by itself",
                "It was cut short while asymmetry was still being sought: repeat its command, "
                "which is in log.txt, with --resume and without --max-iterations or --until.",
                "jaxrelax",
                (),
            ),
        )
    name = imposable(group)
    if name is None:
        return steps
    imposed = Step(
        f"Refine with {name} imposed",
        "Every particle then counts for all symmetry-related parts of the map, and half-maps "
        "have the symmetry, too.",
        "jaxrelax",
        (
            f"jaxrelax refine {way.file(table_name(result))} --reference "
            f"{way.file('map_symmetrised.mrc')} --symmetry {name} --out {way.beside(name)}",
        ),
    )
    if from_cryosparc(result):
        return [*steps, imposed]
    inside = Step(
        f"Or refine in RELION with {name}",
        "All registers of a pose are one with the symmetry imposed, so these poses serve.",
        "RELION",
        (
            way.relion_folder,
            way.relion_refine(
                way.file("particles.star"),
                way.file("map_symmetrised.mrc"),
                way.file("mask.mrc"),
                name,
            ),
        ),
    )
    return [*steps, imposed, inside]


def _contradicted(result: Result, way: HandOver) -> list[Step]:
    group = relaxation_setting(result, "group") or "the group"
    source = shlex.quote(os.fspath(result.particles.source))
    root = result.particles.image_root
    where = "" if root is None else f" --image-root {shlex.quote(os.fspath(root))}"
    suffix = result.particles.source.suffix
    steps = [
        Step(
            "Do not go on with these registers",
            "Compare map.mrc with map_symmetrised.mrc first: what the posterior is sure of is not "
            "in the density.",
            "ChimeraX",
            (f"chimerax {way.file('view.cxc')}",),
        )
    ]
    if (name := imposable(group)) is None:
        return steps
    return [
        *steps,
        Step(
            f"See whether the particle has {name}, on these axes",
            "A map from the input poses shows which symmetry they were refined with; aligning its "
            "axes says how well it agrees with its rotated copies.",
            "jaxrelax",
            (
                f"jaxrelax reconstruct {source}{where} --out consensus.mrc",
                f"jaxrelax align consensus.mrc --symmetry {name} --out aligned.mrc "
                f"--particles {source}{where} --out-particles aligned{suffix}",
            ),
        ),
        Step(
            "Then run again in the aligned frame",
            "An axis off its place, or poses in another frame than the reference, tell registers "
            "apart without any density that does.",
            "jaxrelax",
            (
                f"jaxrelax refine aligned{suffix} --reference aligned.mrc --relax {name} "
                f"--out {way.beside('aligned')}",
            ),
        ),
    ]


def _without_relaxation(result: Result, way: HandOver) -> list[Step]:
    symmetry = str(result.settings.get("symmetry") or "C1")
    steps = [
        Step(
            "Look at the map",
            "The script opens it at the level that separates it from the solvent.",
            "ChimeraX",
            (f"chimerax {way.file('view.cxc')}",),
        )
    ]
    name = imposable(symmetry)
    if name not in (None, "C1"):
        steps.append(
            Step(
                f"Ask whether the particle really has {name}",
                "The symmetry was imposed; held-out images say whether they contradict it.",
                "jaxrelax",
                (
                    f"jaxrelax test-symmetry {way.file(table_name(result))} --reference "
                    f"{way.file('map.mrc')} --group {name} --out {way.beside('symmetry')}",
                ),
            )
        )
    return steps if name is None else [*steps, *_go_on(result, way, name)]
