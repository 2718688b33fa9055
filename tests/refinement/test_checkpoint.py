"""States come back from a checkpoint as they were, types and infinities included."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.io import InputError, OutputFolder
from jaxrelax.refinement.checkpoint import load_checkpoint, save_checkpoint
from jaxrelax.refinement.state import State


def state(iteration=1, **changes):
    n, box = 3, 4
    fields = dict(
        iteration=iteration,
        score_shell=7,
        rotations=np.tile(np.eye(3), (n, 1, 1)),
        origins_angstrom=np.full((n, 2), 0.1),
        prior_rotations=np.tile(np.eye(3), (n, 1, 1)),
        prior_origins_angstrom=np.zeros((n, 2)),
        registers=np.full((n, 2), 0.5, np.float32),
        log_gain=np.zeros(n, np.float32),
        symmetric_probability=np.full(n, 0.25, np.float32),
        junk_probability=np.zeros(n, np.float32),
        sought=np.full((n, 2), 0.5, np.float32),
        noise_power=np.ones((1, 5)),
        sigma_rotation_deg=np.float64(1) / 3,
        sigma_shift_angstrom=1.0,
        sigma_offset_angstrom=5.0,
        symmetric=np.ones((2, box, box, box), np.float32),
        asymmetric=np.zeros((2, box, box, box), np.float32),
        fsc=np.ones(5),
        fsc_symmetric=np.ones(5),
        fsc_asymmetric=np.zeros(5),
        optimism=np.float64(0.1),
        stage="settle",
        growing=True,
        alignment=0,
        log_odds=-np.inf,
        history=({"resolution_angstrom": 1 / 3, "asymmetric_fsc": float("nan")},) * iteration,
    )
    return State(**fields | changes)


def test_a_state_comes_back_as_it_was(tmp_path):
    before, folder = state(), OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, before, {"seed": 1})
    after = load_checkpoint(folder, {"seed": 1})
    for field in dataclasses.fields(State):
        one, other = getattr(before, field.name), getattr(after, field.name)
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
        np.testing.assert_equal(other, one)


def test_scalars_do_not_raise_the_precision_of_arrays():
    amplitude = state(amplitude=np.float64(2.0)).amplitude
    assert (np.ones(2, np.float32) * amplitude).dtype == np.float32


def test_what_a_killed_run_left_is_removed(tmp_path):
    folder = OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, state(), {})
    for name in (".map.mrc.7.jrx-tmp", "checkpoint/.state_002.npz.7.jrx-tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "checkpoint/state_002.npz").write_bytes(b"whole, but its header never came")
    (folder / "notes.txt").write_text("not ours")
    assert load_checkpoint(folder, {}).iteration == 1
    left = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert left == {"checkpoint/checkpoint.json", "checkpoint/state_001.npz", "notes.txt"}


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_damaged_arrays_are_refused_with_a_way_out(tmp_path, kept):
    folder = OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, state(), {})
    arrays = folder / "checkpoint/state_001.npz"
    arrays.write_bytes(arrays.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"checkpoint.json: the checkpoint cannot be read"):
        load_checkpoint(folder, {})
