"""Sub-particles of which one shows the partner: found together, streamed, resumed, and refused."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.assessment import save
from jaxrelax.assessment.findings import warnings
from jaxrelax.cli import main as jaxrelax
from jaxrelax.geometry import nearest_operator, point_group
from jaxrelax.io import InputError, OutputFolder, read_particles, write_map
from jaxrelax.io.units import find_units
from jaxrelax.reconstruction import soft_sphere
from jaxrelax.refinement import (
    Callback,
    Classification,
    Map,
    MaxIterations,
    prepare,
    refine,
    step,
)
from jaxrelax.refinement import expectation as of_expectation
from jaxrelax.refinement.claims import prior_of_images
from jaxrelax.refinement.exclusive import copies_in_states, exclusive_copies
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.refinement.stages import done, following
from jaxrelax.refinement.state import replaced
from jaxrelax.simulate import Simulation, phantom_atoms, simulate

WINDOW = 32
PIXEL = 6.0
DATA = Simulation(
    n_images=100, box=48, pixel_size_angstrom=PIXEL, group="C4", protomer_kda=30.0,
    partner_kda=45.0, snr=0.3, pose_error_deg=1.0, shift_error_angstrom=0.5,
    max_shift_angstrom=6.0, seed=2,
)  # fmt: skip


def column(particles, label, kind: type = int):
    return np.asarray(particles.column(label)).astype(kind)


class Copies:
    """Windows around all four sites of every particle, and which of them the partner is at."""

    def __init__(self, folder, **changes):
        simulate("phantom", folder, dataclasses.replace(DATA, **changes))
        atoms = phantom_atoms("C4", DATA.protomer_kda, DATA.partner_kda, DATA.phantom_seed)
        at = atoms.positions_angstrom[atoms.sites == 0].mean(axis=0)
        self.folder, self.star = folder, folder / "sites.star"
        words = ["subparticles", folder / "particles.star", "--symmetry", "C4", "--at", *at]
        words += ["--box", WINDOW, "--out", self.star]
        assert jaxrelax([str(word) for word in words]) == 0
        self.particles = read_particles(self.star)
        write_map(folder / "focus.mrc", soft_sphere(WINDOW, 5.0, 3.0), PIXEL)
        self.reference = Map(reconstruct(self.particles)[0], PIXEL)
        truth = read_particles(folder / "truth.star")
        self.parent = column(self.particles, "jrxParent") - 1
        operators = point_group("C4").operators
        between = self.particles.rotations.transpose(0, 2, 1) @ truth.rotations[self.parent]
        self.has = nearest_operator(between, operators)[0] == 0
        assert np.all(np.bincount(self.parent, self.has) == 1)
        self.bound = np.asarray(truth.column("jrxOccupiedSites")) == "0"

    def refined(self, exclusive="auto", reference=None, or_none=False, **options):
        return refine(
            self.particles, self.reference if reference is None else reference,
            mode=self.mode(exclusive, or_none), max_alignment_resolution=15.0, **options,
        )  # fmt: skip

    def mode(self, exclusive="auto", or_none=False):
        return Classification(
            ("C1", "C1"), poses="held", focus_mask=str(self.folder / "focus.mrc"),
            exclusive=exclusive, exclusive_or_none=or_none,
        )  # fmt: skip


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    return Copies(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def found(copies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = copies.refined(out=OutputFolder(out))
    save(result, OutputFolder(out))
    return result, out


def test_one_copy_of_every_particle_has_the_partner(copies, found):
    result, out = found
    assert result.copies is not None
    assert result.copies.parents == 100
    exclusive = result.copies.exclusive
    assert exclusive is not None
    written = read_particles(out / "particles.star")
    state = column(written, "rlnClassNumber")
    np.testing.assert_array_equal(np.bincount(copies.parent[state == exclusive]), 1)
    assert np.mean(copies.has[state == exclusive]) > 0.95
    has = column(written, "jrxExclusiveProbability", float)
    np.testing.assert_allclose(np.bincount(copies.parent, has), 1.0, atol=1e-4)
    # Nobody is junk here, so the state's posterior is the probability that it is this copy.
    posterior = result.state_posterior[:, exclusive - 1]
    np.testing.assert_allclose(posterior[result_sure(result)], has[result_sure(result)], atol=0.02)
    assert result.states[exclusive - 1].fraction == pytest.approx(0.25, abs=0.01)
    assert not any("several sub-particles" in note for note in warnings(result))


def result_sure(result):
    return np.asarray(result.particles.extra_columns["jrxJunkProbability"]) < 1e-3


@pytest.mark.slow
def test_a_class_with_a_reference_of_its_own_can_be_named(copies, found):
    """It excludes itself from the first iteration on."""
    first = found[0]
    bound = first.copies.exclusive - 1
    maps = [Map(first.states[k].map, PIXEL) for k in (1 - bound, bound)]
    result = copies.refined(2, reference=maps, until=MaxIterations(2))
    assert result.copies is not None
    assert result.copies.exclusive == 2
    state = np.asarray(result.particles.extra_columns["rlnClassNumber"])
    np.testing.assert_array_equal(np.bincount(copies.parent[state == 2]), 1)
    assert np.mean(copies.has[state == 2]) > 0.95
    # Named the other way round there is still one of each, if the wrong one.
    result = copies.refined(1, reference=maps, until=MaxIterations(1))
    state = np.asarray(result.particles.extra_columns["rlnClassNumber"])
    np.testing.assert_array_equal(np.bincount(copies.parent[state == 1]), 1)


@pytest.mark.slow
def test_particles_without_a_partner(tmp_path):
    """Two of five have none, and nobody is told how many."""
    copies = Copies(tmp_path, occupancy="1000:0.6,0000:0.4", seed=5)
    result = copies.refined(or_none=True)
    assert result.copies is not None
    number = result.copies.exclusive
    assert number is not None
    state = np.asarray(result.particles.extra_columns["rlnClassNumber"])
    claims = np.bincount(copies.parent[state == number], minlength=DATA.n_images)
    assert claims.max() == 1
    assert np.mean((claims == 1) == copies.bound) > 0.95
    right = copies.has[(state == number) & copies.bound[copies.parent]]
    assert right.mean() > 0.95
    share = result.states[number - 1].fraction
    assert share == pytest.approx(0.25 * copies.bound.mean(), abs=0.02)


@pytest.mark.slow
def test_alone_violations_are_counted(copies):
    result = copies.refined(None, until=MaxIterations(6))
    assert result.copies is not None
    assert result.copies.exclusive is None
    state = np.asarray(result.particles.extra_columns["rlnClassNumber"])
    shown = np.asarray(result.particles.extra_columns["jrxJunkProbability"]) < 0.5
    for number, count in enumerate(result.copies.several, start=1):
        mine = np.bincount(copies.parent[(state == number) & shown], minlength=100)
        assert count == np.sum(mine > 1)
    (note,) = [one for one in warnings(result) if "several sub-particles" in one]
    assert "--exclusive" in note


def grown(copies, **options):
    """Problem and state of the states' stage after some iterations."""
    setup = prepare(
        copies.particles, copies.reference, mode=copies.mode(), max_alignment_resolution=15.0,
        **options,
    )  # fmt: skip
    for _ in range(2):
        state = setup.state
        while state.iteration == 0 or done(setup, state) is None:
            state, _info = step(setup.problem, state)
        if setup.following:
            setup = following(setup, state)
    return setup.problem, state


@pytest.fixture(scope="module")
def stage(copies):
    return grown(copies)


def test_images_under_what_siblings_said_have_the_joint_posterior(stage, monkeypatch):
    """Scored batch by batch, siblings in different ones; maps are the same in both passes."""
    problem, state = stage
    assert state.beliefs.claimed is not None
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    joint = of_expectation.expectation(problem, state, shell)
    claimed = replaced(state.beliefs, claimed=joint.claimed)
    monkeypatch.setattr(of_expectation, "make_joint", lambda *given: None)
    streamed = of_expectation.expectation(problem, state.replace(beliefs=claimed), shell)
    free = of_expectation.expectation(
        problem, state.replace(beliefs=replaced(state.beliefs, claimed=None)), shell
    )
    # Folds are scored against the newest sums of those before, which the prior has moved a little.
    np.testing.assert_allclose(streamed.junk, joint.junk, atol=5e-3)
    off = np.abs(streamed.registers - joint.registers).max(axis=1)
    assert np.mean(off < 0.02) > 0.98
    assert np.abs(free.registers - joint.registers).max() > 0.2


def test_prior_of_images_is_what_siblings_say(stage):
    problem, state = stage
    claimed, exclusive = state.beliefs.claimed, problem.exclusive
    assert exclusive is not None
    assert claimed is not None
    number = int(claimed.state)
    prior = prior_of_images(problem, state)
    assert prior is not None
    prior = prior.astype(np.float64)
    logits = np.asarray(state.latents["state"][0], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum()
    ratio = np.exp(claimed.log_ratio.astype(np.float64))
    for row in range(0, len(prior), 37):
        mine = exclusive.parent == exclusive.parent[row]
        rivals = ratio[mine].sum() - ratio[row]
        with_prior = np.exp(prior[row]) * shares
        expected = 1.0 / (1.0 + rivals)
        np.testing.assert_allclose(with_prior[number], expected, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(with_prior.sum(), 1.0, rtol=1e-4)
    # Nobody knows anything before states have grown.
    before = state.replace(beliefs=replaced(state.beliefs, claimed=None))
    nothing = prior_of_images(problem, before)
    assert nothing is not None
    assert not nothing.any()
    assert prior_of_images(dataclasses.replace(problem, exclusive=None), state) is None


def test_devices_share_the_copies(copies, stage):
    problem, state = stage
    setup = prepare(
        copies.particles, copies.reference, mode=copies.mode(), max_alignment_resolution=15.0,
        devices=2,
    )  # fmt: skip
    (of_states,) = setup.following
    shared = of_states.problem(setup.problem, state, problem.data.particles)
    assert len(shared.execution.workers.devices) == 2
    shell = problem.shells.accumulated(state.score_shell, grow=False)
    one, two = (of_expectation.expectation(p, state, shell) for p in (problem, shared))
    np.testing.assert_allclose(two.registers, one.registers, atol=5e-3)
    assert two.claimed is not None
    assert one.claimed is not None
    np.testing.assert_allclose(two.claimed.log_ratio, one.claimed.log_ratio, atol=0.05)


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_it_would_have(copies, found, tmp_path):
    result, _ = found

    class Killed(Callback):
        def on_step(self, problem, state, info):
            if state.beliefs.claimed is not None:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copies.refined(out=OutputFolder(tmp_path), callbacks=[Killed()])
    resumed = copies.refined(out=OutputFolder(tmp_path), resume=True)
    np.testing.assert_allclose(resumed.registers, result.registers, atol=1e-4)
    assert resumed.copies == result.copies


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"exclusive": 3}, "class from 1 to 2"),
        ({"exclusive": 0}, "class from 1 to 2"),
        ({"exclusive": "first"}, "not 'first'"),
        ({"exclusive": True}, "not True"),
        ({"exclusive_or_none": True}, "no class excludes itself"),
        ({"exclusive": "auto", "states": ("C1",), "start": "splits"}, "named beforehand"),
    ],
)
def test_classes_that_cannot_exclude_themselves(fields, match):
    with pytest.raises(ValueError, match=match):
        Classification(**({"states": ("C1", "C1")} | fields))


def test_tables_without_copies_are_refused(copies):
    units = find_units(copies.particles)
    whole = read_particles(copies.folder / "particles.star")
    with pytest.raises(InputError, match=r"no column jrxParent.*subparticles"):
        exclusive_copies(copies.mode(), whole, find_units(whole), 1)
    with pytest.raises(InputError, match=r"no column jrxParent"):
        refine(whole, copies.folder / "reference.mrc", mode=copies.mode())
    rows = np.flatnonzero(column(copies.particles, "jrxCopy") == 2)
    with pytest.raises(InputError, match="no particle has two rows"):
        exclusive_copies(copies.mode(), copies.particles.select(rows), units.select(rows), 1)
    with pytest.raises(InputError, match=r"classes 1, 2 start from one map.*auto"):
        exclusive_copies(copies.mode(2), copies.particles, units, 1)
    named = exclusive_copies(copies.mode(2), copies.particles, units, 2)
    assert named is not None
    assert named.state == 1
    np.testing.assert_array_equal(np.bincount(named.parent), 4)
    assert exclusive_copies(copies.mode(None), whole, find_units(whole), 1) is None


def test_parents_of_tables_that_were_put_together(copies):
    """Numbers are those of rows of two tables; images tell them apart."""
    doubled = dataclasses.replace(
        copies.particles, extra_columns={"jrxParent": np.ones(len(copies.particles), int)}
    )
    made = exclusive_copies(copies.mode(), doubled, find_units(doubled), 1)
    assert made is not None
    np.testing.assert_array_equal(np.bincount(made.parent), 4)


def test_parents_are_numbers(copies):
    odd = dataclasses.replace(
        copies.particles, extra_columns={"jrxParent": np.array(["x"] * len(copies.particles))}
    )
    with pytest.raises(InputError, match=r"jrxParent holds what is no number"):
        exclusive_copies(copies.mode(), odd, find_units(odd), 1)


def test_counts_in_words():
    parent, state = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    counted = copies_in_states(parent, state, 2)
    assert (counted.parents, counted.several) == (2, (1, 1))
    assert "Of 2 particles" in counted.sentence()
    assert "1 in class 1, 1 in class 2. If at most one" in counted.sentence()
    assert "one of them can be in class 2" in copies_in_states(parent, state, 2, 1).sentence()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--exclusive", "auto"), "--exclusive: can act only with --mode classification"),
        (("--mode", "classification", "--classes", "2", "--exclusive", "3"), "class from 1 to 2"),
        (
            ("--mode", "classification", "--classes", "auto", "--exclusive", "auto"),
            "--exclusive: cannot act with --classes auto",
        ),
        (
            ("--mode", "classification", "--classes", "2", "--exclusive-or-none"),
            "no class excludes itself",
        ),
        (
            ("--mode", "classification", "--states", "patterns:C4", "--exclusive", "auto"),
            "--exclusive: cannot act with --states patterns",
        ),
        (
            ("--mode", "classification", "--states", "C1", "C1", "--exclusive", "auto"),
            "no column jrxParent",
        ),
    ],
)
def test_the_command_refuses(copies, tmp_path, capsys, words, match):
    folder = copies.folder
    command = ["refine", folder / "particles.star", "--reference", folder / "reference.mrc"]
    status = jaxrelax([str(w) for w in [*command, "--out", tmp_path / "out", *words]])
    told = " ".join(capsys.readouterr().err.split())
    assert status == 2
    assert match in told
    assert not (tmp_path / "out").exists()
