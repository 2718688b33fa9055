"""States come back from a checkpoint as they were, types and infinities included."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxrelax.io import InputError, OutputFolder
from jaxrelax.refinement.checkpoint import HEADER, load_checkpoint, save_checkpoint
from jaxrelax.refinement.state import number
from tests.refinement.made_up import NOTHING, made_up_state


def state():
    """After one iteration."""
    return made_up_state(
        [dataclasses.replace(NOTHING, resolution_angstrom=1 / 3, asymmetric_fsc=float("nan"))]
    )


def test_a_state_comes_back_as_it_was(tmp_path):
    before, folder = state(), OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, before, {"seed": 1})
    after = load_checkpoint(folder, {"seed": 1})
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert type(one) is type(other) is np.ndarray
        assert one.dtype == other.dtype
        np.testing.assert_equal(other, one)
        assert not other.flags.writeable


def test_scalars_do_not_raise_the_precision_of_arrays():
    factor = number(state().maps.strength.factor)
    assert (np.ones(2, np.float32) * factor).dtype == np.float32


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


@pytest.mark.parametrize(
    "tree", [None, {"array": ".iteration"}, {"kind": "os:system", "children": {}}]
)
def test_a_header_that_describes_no_state_is_refused(tmp_path, tree):
    folder = OutputFolder.create(tmp_path / "out")
    save_checkpoint(folder, state(), {})
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, "tree": tree}))
    with pytest.raises(InputError, match=r"checkpoint.json: the checkpoint cannot be read"):
        load_checkpoint(folder, {})
