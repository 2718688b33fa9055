"""What components of a user return is checked where they return it, and named in words."""

import numpy as np
import pytest

import jaxrelax as jr
from jaxrelax.imaging import NoiseModel, RadialNoise
from jaxrelax.inference import FixedPoses, PoseSearch
from jaxrelax.io import InputError
from jaxrelax.refinement.criteria import reason_of
from jaxrelax.refinement.learned_noise import next_spectrum
from jaxrelax.simulate import Simulation, simulate
from tests.refinement.conftest import TINY
from tests.refinement.made_up import made_up_state


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    asked = Simulation(**TINY | {"n_images": 40, "group": "C2", "dtype": "float32"})
    return simulate("phantom", tmp_path_factory.mktemp("returned"), asked)


class Returning(PoseSearch):
    """Makes something else of what a search found."""

    what: str

    def __call__(self, target, batch, geometry, poses, prior, n_shells):
        found = FixedPoses()(target, batch, geometry, poses, prior, n_shells)
        if self.what == "tuple":
            return found.log_evidence, found.rotations
        if self.what == "nothing":
            return None
        changed = {
            "scores": {"log_evidence": found.log_evidence[:, 0]},
            "poses": {"rotations": found.rotations[:, 0]},
            "list": {"offset": [0.0]},
            "shells": {"residual_power": found.residual_power[..., :-1]},
        }[self.what]
        fields = {name: getattr(found, name) for name in vars(found)} | changed
        return type(found)(**fields)


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("tuple", TypeError, "pose search Returning returned tuple; a search returns a"),
        ("nothing", TypeError, "pose search Returning returned NoneType"),
        ("list", TypeError, "pose search Returning: offset is list, not an array"),
        ("scores", ValueError, "pose search Returning: log_evidence has shape"),
        ("poses", ValueError, "hypotheses (1 mode of 3 channels of the volume)"),
        ("shells", ValueError, "pose search Returning: residual_power has shape"),
    ],
)
def test_a_search_that_returns_something_else(data, what, kind, said):
    mode = jr.Local(pose_search=Returning(what))
    with pytest.raises(kind) as raised:
        jr.refine(data.particles, data.reference, mode=mode, relax="C2", until=jr.MaxIterations(1))
    assert said in str(raised.value)


class Says(jr.Criterion):
    answer: object

    def reason(self, state):
        return self.answer


class LimitedBy(Says):
    def limit(self, state):
        return self.answer


@pytest.mark.parametrize("answer", [True, False, 3, ("done",), np.True_])
@pytest.mark.parametrize(
    "combined", [lambda c: c, lambda c: c & Says("yes"), lambda c: Says(None) | c]
)
def test_a_criterion_that_returns_no_text_is_named(answer, combined):
    state = made_up_state()
    with pytest.raises(InputError, match=r"Says\.reason returned .*to go on"):
        reason_of(combined(Says(answer)), state)
    with pytest.raises(InputError, match=r"LimitedBy\.limit returned"):
        reason_of(LimitedBy(answer), state, limit=True)


def test_a_criterion_that_returns_text_or_none():
    state = made_up_state()
    assert reason_of(Says("enough"), state) == "enough"
    assert reason_of(Says(None) & Says("enough"), state) is None
    assert reason_of(Says("enough"), state, limit=True) is None


def test_a_run_ends_with_what_the_criterion_returned(data):
    with pytest.raises(InputError, match=r"Says\.reason returned True"):
        jr.refine(
            data.particles, data.reference, mode=jr.Registers(), relax="C2",
            course=jr.refinement.Straight(), until=Says(True),
        )  # fmt: skip


class Wrong(NoiseModel):
    from_images: bool = True
    what: object = None

    def update(self, power, residual, count):
        return self.what


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (np.ones(5), "Wrong.update returned an array of shape (5,); a noise model returns"),
        (1.0, "optics groups by shells: (1, 5)"),
        (None, "Wrong.update returned NoneType"),
        (np.full((1, 5), np.nan), "a noise power of nan in shell 0"),
        ("white", "Wrong.update returned str"),
        (np.full((1, 5), np.inf), "a noise power of inf in shell 0 of optics group 1"),
        (-np.ones((1, 5)), "it is finite and not negative"),
    ],
)
def test_noise_that_is_no_spectrum(what, said):
    power, count = np.ones((1, 5)), np.ones((1, 5))
    with pytest.raises(InputError) as raised:
        next_spectrum(Wrong(what=what), power, 2 * power, count)
    assert said in str(raised.value)


def test_noise_that_is_one():
    power = np.ones((1, 5))
    learned = next_spectrum(RadialNoise(), power, 6 * power, 2 * power)
    np.testing.assert_array_equal(learned, 3 * power)
    assert next_spectrum(Wrong(what=[[1, 2, 3, 4, 5]]), power, power, power).dtype == np.float64


class Watch(jr.Callback):
    def __init__(self):
        self.seen = []

    def on_start(self, problem, state):
        self.seen.append("start")

    def on_batch(self, images):
        self.seen.append(images)

    def on_step(self, problem, state, info):
        self.seen.append(f"step {info.iteration}")

    def on_finish(self, reason):
        self.seen.append(reason)


def test_iterate_tells_its_callbacks(data):
    first, second = Watch(), Watch()
    steps = jr.iterate(
        data.particles, data.reference, mode=jr.Registers(), relax="C2",
        until=jr.MaxIterations(2), callbacks=[first, second],
    )  # fmt: skip
    assert [info.iteration for _, info in steps] == [1, 2]
    assert first.seen == second.seen
    told = [one for one in first.seen if isinstance(one, str)]
    assert told == ["start", "step 1", "step 2", "2 iterations done"]
    assert sum(one for one in first.seen if isinstance(one, int)) == 80
