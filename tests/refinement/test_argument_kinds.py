"""Arguments of the wrong kind fail at once, with what was meant."""

import inspect
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxrelax as jr
from jaxrelax.geometry import point_group
from jaxrelax.io import InputError
from jaxrelax.refinement.argument_kinds import require_kinds

# Reading any of these would fail otherwise.
NOTHING = ("nowhere/particles.star", "nowhere/reference.mrc")


def watch(problem, state, info):
    pass


class Mine(jr.Criterion):
    def reason(self, state):
        return None


WRONG = [
    ({"mode": "local"}, "mode='local' is no mode; write mode=jr.Local()"),
    ({"mode": "Registers"}, "write mode=jr.Registers()"),
    ({"mode": jr.Local}, "mode is the class Local itself; write mode=Local(…)"),
    ({"mode": jr.GaussNewton()}, "belongs to a mode: mode=jr.Local(pose_search=…)"),
    ({"mode": jr.Relax("C4")}, "mode=Relax(…) is no mode; that belongs to relax"),
    ({"relax": 4}, 'relax=4 is no relaxation; write relax="C4"'),
    ({"relax": point_group("D2")}, 'write relax="D2"'),
    ({"relax": True}, 'write relax=jr.Relax("C4")'),
    ({"until": 3}, "until=3 is no criterion; write until=jr.MaxIterations(3)"),
    ({"until": np.int64(3)}, "until=3 is no criterion; write until=jr.MaxIterations(3)"),
    (
        {"until": "PosesSettled | MaxIterations(9)"},
        "write until=jr.refinement.criterion_from_text('PosesSettled | MaxIterations(9)')",
    ),
    ({"until": "soon"}, "write until=jr.MaxIterations(30)"),
    ({"until": lambda state: None}, "a class Mine(jr.Criterion)"),
    ({"until": Mine}, "until is the class Mine itself; write until=Mine(…)"),
    ({"noise": "white"}, "write noise=jr.RadialNoise(from_images=False)"),
    ({"noise": "from-images"}, "write noise=jr.RadialNoise()"),
    ({"noise": np.ones(3)}, "noise=an array of shape (3,) is no noise model"),
    ({"course": "straight"}, "write course=jr.refinement.Straight()"),
    ({"map_prior": "plain"}, "write map_prior=jr.reconstruction.Plain()"),
    ({"map_prior": "local"}, "write map_prior=jr.reconstruction.LocalPrior()"),
    ({"latents": None}, "latents=None is no list of latent variables"),
    ({"callbacks": watch}, "callbacks=the function watch is no list of callbacks; derive a class"),
    ({"callbacks": [watch]}, "callbacks: the function watch is no callback"),
    ({"callbacks": jr.Callback()}, "write callbacks=[…] around the one Callback"),
    ({"callbacks": [jr.Callback]}, "write callbacks=[Callback(…)]"),
    ({"symmetry": 4}, 'write symmetry="C4"'),
    ({"symmetry": None}, 'write symmetry="C1"'),
    ({"normalise": True}, 'normalise is "auto", "yes" or "no", not True; write normalise="yes"'),
    ({"contrast": "grey"}, "contrast is \"auto\", \"white\" or \"black\", not 'grey'"),
    ({"ini_high": "12"}, "ini_high is a resolution in Å, a number, not '12'"),
    ({"ini_high": -3.0}, "ini_high is a resolution in Å, above 0; got -3.0"),
    ({"max_alignment_resolution": float("nan")}, "above 0; got nan"),
    ({"particle_diameter": 0}, "particle_diameter is a diameter in Å, above 0"),
    ({"seed": 0.5}, "seed is a whole number, 0 or above, not 0.5"),
    ({"seed": -1}, "seed is a whole number, 0 or above, not -1"),
    ({"cache_gib": -1.0}, "cache_gib is a number of GiB, 0 or above, not -1.0"),
    ({"devices": "2"}, "devices is a number of devices or \"all\", not '2'"),
    ({"skip_bad_images": "yes"}, "skip_bad_images is True or False, not 'yes'"),
    ({"force_group": None}, "force_group is True or False, not None"),
]  # fmt: skip
OF_REFINE = [
    ({"out": "run1"}, "write out=jr.OutputFolder.create('run1')"),
    ({"out": Path("run1")}, "write out=jr.OutputFolder.create('run1')"),
    ({"resume": 1}, "resume is True or False, not 1"),
    ({"subgroups": "some"}, 'subgroups is "auto", "all" or "none", not \'some\''),
]


@pytest.mark.parametrize(("argument", "said"), WRONG + OF_REFINE)
def test_refine_says_what_was_meant_before_it_reads(argument, said):
    with pytest.raises(InputError) as raised:
        jr.refine(*NOTHING, **argument)
    assert said in str(raised.value)


@pytest.mark.parametrize(("argument", "said"), WRONG)
def test_iterate_says_so_when_it_is_called(argument, said):
    with pytest.raises(InputError) as raised:
        jr.iterate(*NOTHING, **argument)
    assert said in str(raised.value)


@pytest.mark.parametrize("argument", [one for one, _ in WRONG if "callbacks" not in one])
def test_prepare_says_so(argument):
    with pytest.raises(InputError):
        jr.prepare(*NOTHING, **argument)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((pd.DataFrame(), "r.mrc"), "particles=DataFrame(…) is no table of particles"),
        (("p.star", np.zeros((4, 4, 4))), "reference=an array of shape (4, 4, 4) is no map"),
        (("p.star", [np.zeros((4, 4, 4))]), "write jr.Map(values, pixel_size_angstrom)"),
        (("p.star", []), "reference is empty"),
        ((None, "r.mrc"), "particles=None is no table of particles"),
    ],
)
def test_inputs_of_the_wrong_kind(inputs, said):
    with pytest.raises(InputError) as raised:
        jr.refine(*inputs)
    assert said in str(raised.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError, match=r"jr\.Local\(\).*jr\.MaxIterations\(3\)"):
        jr.prepare(*NOTHING, mode="local", until=3)


def test_what_is_right_passes():
    """It then fails where the table is read."""
    with pytest.raises(InputError, match="no such file"):
        jr.refine(
            *NOTHING, mode=jr.Registers(), relax="C4", noise=jr.SmoothNoise(), devices="all",
            until=jr.MaxIterations(3) | Mine(), course=jr.refinement.Straight(), seed=np.int32(2),
            map_prior=jr.reconstruction.Plain(), ini_high=np.float32(12), skip_bad_images=None,
            callbacks=[jr.Callback()], cache_gib=1, latents=[], normalise="no", contrast="black",
        )  # fmt: skip


def test_every_argument_is_checked():
    """Also those that come later."""
    asked = inspect.signature(jr.refine).parameters | inspect.signature(jr.prepare).parameters
    strange = object()
    for name in asked:
        with pytest.raises(InputError, match=name):
            require_kinds(**{name: strange})


def test_iterate_takes_what_prepare_takes():
    prepare, iterate = (inspect.signature(one).parameters for one in (jr.prepare, jr.iterate))
    assert dict(prepare) == {n: one for n, one in iterate.items() if n != "callbacks"}
    assert "callbacks" in iterate
    of_refine = inspect.signature(jr.refine).parameters
    assert iterate["callbacks"] == of_refine["callbacks"]
    hints = typing.get_type_hints(jr.iterate)
    assert typing.Any not in hints.values()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: jr.Relax(4), 'group is the name of a group, such as "C4"'),
        (lambda: jr.Relax("C4", to=1), "to is the name of a group"),
        (lambda: jr.Local(pose_search="gauss"), "pose_search is a PoseSearch"),
        (lambda: jr.Local(pose_search=jr.GaussNewton), "pose_search is a PoseSearch"),
        (lambda: jr.Classification("C4"), "states are a list"),
    ],
)
def test_components_refuse_fields_of_the_wrong_kind(make, said):
    with pytest.raises(ValueError, match=r"(group|to|pose_search|states)") as raised:
        make()
    assert said in str(raised.value)
