"""Options that commands share are the fields of the components, with their defaults."""

import dataclasses
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from jaxrelax.cli.option_groups import (
    ClassificationOptions,
    LocalSearchOptions,
    PoseErrorOptions,
    PosePriorOptions,
    RegisterOptions,
    RelaxationOptions,
)
from jaxrelax.io import InputError
from jaxrelax.refinement import Homogeneous, Local, OccupancyPatterns, Registers, Relax


def names(kind):
    return {field.name for field in dataclasses.fields(kind)}


def test_every_field_of_the_components_has_an_option():
    # What becomes of an image's registers is an option of refine alone: a test needs soft ones.
    options = {name.removeprefix("register_") for name in names(RelaxationOptions)}
    assert names(Relax) == {"group", "register", *options}
    assert names(Local) == {"pose_search", *names(LocalSearchOptions)}


def test_what_the_options_allow_is_what_the_component_allows():
    hints = get_type_hints(RelaxationOptions)
    for name in ("prior", "start"):
        for choice in get_args(hints[name]):
            assert getattr(Relax("C4", **{name: choice}), name) == choice


def test_defaults_make_the_default_components():
    for options in (RegisterOptions(), RelaxationOptions()):
        assert options.component("C4") == Relax("C4")
    for options in (PoseErrorOptions(), PosePriorOptions()):
        assert options.mode("--mode", "local") == Local()
        assert options.mode("--mode", "registers") == Registers()


def test_patterns_are_those_of_the_relaxed_group_or_of_a_name():
    for states, relax in (("patterns", Relax("C4")), ("patterns:C4", None)):
        options = ClassificationOptions(states=(states,), classification_resolution=9.0)
        mode = options.component(relax, "C1", "held")
        assert isinstance(mode, OccupancyPatterns)
        assert (mode.group, mode.poses, mode.max_resolution, mode.tied) == ("C4", "held", 9.0, True)
    for states in (("patterns",), ("patterns:C4", "C4")):
        with pytest.raises(InputError, match="stands alone"):
            ClassificationOptions(states=states).component(None, "C1", "local")
    with pytest.raises(InputError, match="state-start"):
        ClassificationOptions(states=("patterns:C4",), state_start="random").component(
            None, "C1", "local"
        )
    with pytest.raises(InputError, match="C1 has one site"):
        ClassificationOptions(states=("patterns:C1",)).component(None, "C1", "local")


def test_several_references_and_runs_belong_to_states():
    further = (Path("b.mrc"),)
    mode = ClassificationOptions(states=("C4", "C4"), further_references=further)
    # Until prepare tells it of the references.
    assert mode.component(None, "C1", Homogeneous()).starts_from() == "directions"
    with pytest.raises(InputError, match="further-references"):
        ClassificationOptions(states=("patterns:C4",), further_references=further).component(
            None, "C1", "local"
        )
    with pytest.raises(InputError, match="state-start"):
        ClassificationOptions(
            states=("C4", "C4"), further_references=further, state_start="random"
        ).component(None, "C1", "local")
    with pytest.raises(InputError, match="--seeds is 0"):
        ClassificationOptions(states=("C4", "C4"), seeds=0).component(None, "C1", "local")
    assert PosePriorOptions().mode("--poses", "global") == Homogeneous()
    with pytest.raises(InputError, match="sigma-rotation-deg"):
        PosePriorOptions(sigma_rotation_deg=3.0).mode("--poses", "global")
