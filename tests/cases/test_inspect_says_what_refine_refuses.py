"""`inspect` and `refine` stop at the same things, with the same words; exit status 1."""

import contextlib

import numpy as np
import pytest

from jaxrelax.cli.inspect import Command
from jaxrelax.io import InputError
from jaxrelax.refinement.preparation import prepare

REFUSED = ["10/some3.star", "10/frac.star", "19/ac10.star", "23/same_pose.star"]
TAKEN = ["02/latin1.star", "07/indent.star", "09/mid_data.star", "base/particles.star"]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_same_words(case, shared_data, name, capsys):
    number, file = name.split("/")
    path = case(number) / file
    with pytest.raises(InputError) as refused:
        prepare(path, shared_data / "cases" / "base" / "reference.mrc", relax="C4")
    command = Command(path)
    assert command.inspection().refusals == (str(refused.value),)
    assert command.run() == 1
    assert "A refinement would refuse this file" in capsys.readouterr().out


@pytest.mark.parametrize("name", TAKEN)
def test_taken(case, name, capsys):
    number, file = name.split("/")
    assert Command(case(number) / file).run() == 0


def test_images_that_cannot_be_used_are_found(case):
    folder = case("base")
    stack = np.memmap(folder / "particles.mrcs", np.uint8, "r+")
    stack[1024 : 1024 + 64] = 0xFF  # NaN in half and in single precision
    stack.flush()
    found = Command(folder / "particles.star").inspection()
    assert len(found.refusals) == 1
    assert "cannot be used" in found.refusals[0]
    assert not Command(folder / "particles.star", headers_only=True).inspection().refusals


def test_a_half_set_too_small_and_a_missing_stack(case):
    folder = case("base")
    text = (folder / "particles.star").read_text().split("\n")
    rows = [i for i, line in enumerate(text) if "@" in line]
    (folder / "few.star").write_text("\n".join(text[: rows[12]]) + "\n")
    assert "too small" in Command(folder / "few.star").inspection().refusals[0]
    with contextlib.suppress(FileNotFoundError):
        (folder / "particles.mrcs").unlink()
    assert "does not exist" in Command(folder / "particles.star").inspection().refusals[0]
