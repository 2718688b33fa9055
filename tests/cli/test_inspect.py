"""`jaxrelax inspect` exits with 1 on what `jaxrelax refine` refuses, and says the same."""

import mrcfile
import numpy as np
import pytest


def _changed(lines, change):
    return "\n".join(one for line in lines if (one := change(line)) is not None) + "\n"


def _image(line):
    return int(line.split("@")[0].split()[-1]) if "@" in line else 0


TABLES = {
    "few": lambda line: line if _image(line) <= 5 else None,
    "no images": lambda line: line if _image(line) == 0 else None,
    "beyond its stack": lambda line: line.replace("000003@", "000999@"),
    "stack is missing": lambda line: line.replace("@particles", "@nowhere"),
    "no defocus": lambda line: line.replace("_rlnDefocusU", "_rlnOther"),
    "defocus of zero kV": lambda line: line.replace(" 300.0", " 0.0").replace(" 300 ", " 0 "),
}
MAPS = {
    "constant": lambda values: np.ones_like(values),
    "holes": lambda values: np.where(values > values.mean(), np.nan, values),
    "odd": lambda values: values[:-1, :-1, :-1],
    "nothing in its middle": lambda values: values[:2, :2, :2],
}


def refused(run, words, source):
    """What both say of a file that neither takes."""
    status, out, err = run("inspect", source)
    assert (status, err) == (1, "")
    status, _, err = run(*words)
    assert status == 2
    said = err.removeprefix("jaxrelax: ").strip()
    assert said in out
    assert "refuse" in out


@pytest.mark.parametrize("what", TABLES)
def test_tables(run, data, tmp_path, what):
    table = data.particles.parent / f"{what.replace(' ', '_')}.star"
    table.write_text(_changed(data.particles.read_text().splitlines(), TABLES[what]))
    assert table.read_text() != data.particles.read_text()
    words = ["refine", table, "--reference", data.reference, "--relax", "C4"]
    refused(run, [*words, "--out", tmp_path / "out"], table)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", MAPS)
@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_maps(run, data, tmp_path, what):
    path = tmp_path / f"{what.replace(' ', '_')}.mrc"
    with mrcfile.new(path) as file:
        file.set_data(MAPS[what](mrcfile.read(data.reference)).astype(np.float32))
        file.voxel_size = 7.0
    words = ["refine", data.particles, "--reference", path, "--relax", "C4"]
    refused(run, [*words, "--out", tmp_path / "out"], path)


def test_what_a_refinement_takes(run, data):
    for source in (data.particles, data.reference, data.particles.with_suffix(".mrcs")):
        assert run("inspect", source)[0] == 0
