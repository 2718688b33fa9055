"""Criteria asked of runs that are over."""

import csv
import dataclasses

import pytest

from jaxrelax.cli import main
from jaxrelax.io import InputError
from jaxrelax.refinement import (
    Criterion,
    MaxIterations,
    RegistersSettled,
    ResolutionStalled,
    criterion_from_text,
    read_history,
    replay,
)

from .made_up import NOTHING


class SeesMaps(Criterion):
    """Looks at more than the history."""

    name: str = ""

    def reason(self, state):
        return str(state.maps.fsc)


POSTERIORS = [0.25, 0.26, 0.5, 0.9, 0.95, 0.951, 0.952, 0.952]
HISTORY = tuple(
    dataclasses.replace(NOTHING, iteration=i, mean_max_posterior=p, settled=i >= 4)
    for i, p in enumerate(POSTERIORS, start=1)
)


def written(folder, history, without=()):
    """As a run writes it."""
    table = [{k: v for k, v in one.row().items() if k not in without} for one in history]
    names = list(dict.fromkeys(name for row in table for name in row))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return folder


def test_it_stops_where_the_run_would_have():
    stop = replay(HISTORY, RegistersSettled())
    assert stop is not None
    assert (stop.iteration, stop.info) == (7, HISTORY[6])
    assert replay(HISTORY, RegistersSettled(tolerance=1e-6)) is None
    early = replay(HISTORY, RegistersSettled(iterations=1, tolerance=0.02), everywhere=True)
    assert early is not None
    assert early.iteration == 2  # at the saddle
    limit = replay(HISTORY, RegistersSettled() | MaxIterations(3))
    assert limit is not None
    assert limit == (3, "3 iterations done", HISTORY[2])


def test_the_history_comes_back_from_its_folder(tmp_path):
    with_states = dataclasses.replace(HISTORY[-1], fractions=(0.75, 0.25), state_change=0.125)
    history = (*HISTORY, with_states)
    assert read_history(written(tmp_path, history)) == history


def test_what_cannot_be_replayed_is_said(tmp_path):
    with pytest.raises(InputError, match=r"history\.csv: there is no such file"):
        read_history(tmp_path)
    with pytest.raises(InputError, match="register_flow is missing"):
        read_history(written(tmp_path, HISTORY, without=["register_flow"]))
    with pytest.raises(InputError, match=r"looks at state\.maps"):
        replay(HISTORY, SeesMaps())


def test_criteria_are_written_as_in_python():
    text = "RegistersSettled(iterations=3) & ResolutionStalled | MaxIterations(20)"
    expected = (RegistersSettled(iterations=3) & ResolutionStalled()) | MaxIterations(20)
    assert criterion_from_text(text) == expected
    outside = criterion_from_text(f"MaxIterations(3) | {__name__}:SeesMaps('a:b')").second
    assert outside.name == "a:b"
    assert type(outside).__name__ == "SeesMaps"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("RegistersSetled", "there is no RegistersSetled. Criteria: "),
        ("RegistersSettled(", "was never closed"),
        ("RegistersSettled(steps=3)", "RegistersSettled: it takes iterations, tolerance"),
        ("RegistersSettled(iterations=open('x'))", "RegistersSettled: what stands in its brackets"),
        ("3", "there is no 3"),
        ("json:dumps(1)", "is no jaxrelax.Criterion"),
        ("no.such.module:Name", "No module"),
    ],
)
def test_what_is_no_criterion_is_named(text, match):
    with pytest.raises(InputError, match=match):
        criterion_from_text(text)


def test_the_command(tmp_path, capsys):
    written(tmp_path, HISTORY)
    status = main(["replay", str(tmp_path), "--until", "RegistersSettled", "MaxIterations(30)"])
    out = capsys.readouterr().out
    assert status == 0
    assert "8 iterations, mean posterior 0.952" in out
    assert "  7  0.952" in out
    assert "does not stop" in out
    assert main(["replay", str(tmp_path / "none"), "--until", "RegistersSettled"]) == 2
    assert "no such file" in capsys.readouterr().err
