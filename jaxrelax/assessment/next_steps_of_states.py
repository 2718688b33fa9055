"""What to do next with the states of a classification."""

from __future__ import annotations

import shlex

from jaxrelax.assessment.hand_over import SURE, HandOver, Step, from_cryosparc, imposable
from jaxrelax.assessment.state_shares import StateShare, state_shares
from jaxrelax.assessment.state_warnings import empty_states, unsupported_states
from jaxrelax.refinement.result import Result

MOST_STATES = 4  # with commands of their own


def steps_of_states(result: Result, way: HandOver) -> list[Step]:
    """Select and refine every state that nothing speaks against."""
    steps = [
        Step(
            "Look at the states side by side",
            "All maps are at one level; map.mrc is their mean.",
            "ChimeraX",
            (f"chimerax {way.file('view.cxc')}",),
        )
    ]
    good = _supported(result)
    if not good:
        return steps
    suffix = result.particles.source.suffix
    tables = {one.number: shlex.quote(f"state{one.number}{suffix}") for one in good}
    steps.append(
        Step(
            "Take the particles that are sure of their state",
            "Each map is sharper without particles that may show another state.",
            "jaxrelax",
            tuple(
                f"jaxrelax select {way.file('')} --state {number} --min-probability {SURE:g} "
                f"--out {table}"
                for number, table in tables.items()
            ),
        )
    )
    for share in good:
        steps.append(_state_alone(result, way, share, tables[share.number]))
    return steps


def _supported(result: Result) -> list[StateShare]:
    """The most populated states about which nothing speaks against going on."""
    against = {*empty_states(result), *unsupported_states(result)}
    if result.patterns is not None:
        against = set(empty_states(result))
    elif result.states_apart is not None:
        against |= {k for one in result.states_apart.groups if len(one) > 1 for k in one}
    good = [one for one in state_shares(result) if one.particles and one.number not in against]
    return sorted(good, key=lambda one: -one.fraction)[:MOST_STATES]


def _state_alone(result: Result, way: HandOver, share: StateShare, table: str) -> Step:
    """Refine the particles of a state, once they are selected."""
    suffix = f"_class{share.number:02d}"
    kept = result.states[share.number - 1].kept
    title = f"Refine state {share.number} by itself"
    why = f"{share.particles:,} particles show it most probably; their poses fit the mean so far."
    name = imposable(kept)
    reference, mask = (way.file(f"{part}{suffix}.mrc") for part in ("map", "mask"))
    if from_cryosparc(result) or name is None:
        symmetry = shlex.quote(kept)
        command = (
            f"jaxrelax refine {table} --reference {reference} --symmetry {symmetry} "
            f"--out {way.beside(f'state{share.number}')}"
        )
        return Step(title, why, "jaxrelax", (command,))
    commands = (
        way.relion_folder,
        way.relion_postprocess(suffix),
        way.relion_refine(table, reference, mask, name, name=f"state{share.number}"),
    )
    return Step(title, why, "RELION", commands)
