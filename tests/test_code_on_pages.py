"""Python on the pages is run as it stands, in a folder with the files that it names."""

import re
import shutil
from pathlib import Path

import jax
import pytest

import jaxrelax as jr
from jaxrelax.assessment import save
from jaxrelax.simulate import Simulation, simulate

ROOT = Path(__file__).resolve().parents[1]
EXTENDING = ROOT / "docs" / "extending.md"
# Of the command on that page.
OPTIONS = Simulation(n_images=100, box=32, pixel_size_angstrom=8.0)
ON_THE_PAGE = "--n-images 100 --box 32 --pixel-size-angstrom 8"
# Run elsewhere, in one go with what is asked of their results.
ELSEWHERE = {"gradients-and-vmap.md", EXTENDING.name}
# What pages call the files.
CALLED = {
    "particles.star": "run_data.star",
    "reference.mrc": "run_class001.mrc ref.mrc partner.mrc",
}
LONGEST = 30  # lines of a component


def blocks(page: Path) -> list[str]:
    """Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


PAGES = [
    (page, number)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name not in ELSEWHERE
    for number in range(len(blocks(page)))
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A simulated folder."""
    folder = tmp_path_factory.mktemp("pages")
    simulate("phantom", folder, OPTIONS)
    for name, others in CALLED.items():
        for other in others.split():
            shutil.copy(folder / name, folder / other)
    shutil.copytree(folder, folder / "data")
    return folder


@pytest.fixture(scope="module")
def finished(data):
    """The same with finished runs in it."""
    result = jr.refine(
        data / "particles.star", data / "reference.mrc", relax="C4", until=jr.MaxIterations(2)
    )
    for name in ("out", "out1", "out2"):
        save(result, jr.OutputFolder.create(data / name))
    shutil.copy(data / "out" / "mask.mrc", data / "mask.mrc")  # of a part, as far as code knows
    return data


def test_components_are_run_and_short(data, tmp_path, monkeypatch):
    assert ON_THE_PAGE in EXTENDING.read_text()
    folder = tmp_path / "here"
    shutil.copytree(data, folder)
    monkeypatch.chdir(folder)
    found: dict = {}
    code = blocks(EXTENDING)
    for number, block in enumerate(code):
        exec(compile(block, f"{EXTENDING.name}, block {number}", "exec"), found)
    for kind in (jr.Criterion, jr.imaging.NoiseModel, jr.inference.PoseSearch):
        made = [
            name
            for name, one in found.items()
            if isinstance(one, type)
            and issubclass(one, kind)
            and one.__module__ not in ("abc",)
            and not one.__module__.startswith("jaxrelax")
        ]
        assert len(made) >= (3 if kind is jr.Criterion else 1), kind
        for name in made:
            lines = next(b for b in code if f"class {name}(" in b)
            body = lines[lines.index(f"class {name}(") :].split("\n\n\n")[0]
            assert len(body.strip().splitlines()) <= LONGEST, name
    assert len(found["right"]) == 2
    assert found["result"].evidence is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"), PAGES, ids=[f"{page.name}-{number}" for page, number in PAGES]
)
def test_the_rest(finished, tmp_path, monkeypatch, page, number):
    block = blocks(page)[number]
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    if "OutputFolder" in block:
        shutil.rmtree(folder / "out")
    monkeypatch.chdir(folder)
    # One process stands for several.
    monkeypatch.setattr(jax.distributed, "initialize", lambda: None)
    exec(compile(block, f"{page.name}, block {number}", "exec"), {})
