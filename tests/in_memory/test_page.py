"""The page "Gradients and vmap" is run as it stands; what it says of its results is asked here."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax.simulate import Simulation, simulate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "gradients-and-vmap.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's code leaves behind."""
    folder = tmp_path_factory.mktemp("page")
    options = Simulation(n_images=96, box=32, pixel_size_angstrom=8.0, snr=0.5, seed=3)
    assert "--n-images 96 --box 32 --pixel-size-angstrom 8 --snr 0.5 --seed 3" in PAGE.read_text()
    simulate("phantom", folder, options)
    found: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), found)
    return found


def test_the_likelihood_and_its_gradient_take_eight_lines(names):
    assert sum(bool(line.strip()) for line in BLOCKS[0].splitlines()) <= 8
    assert "value_and_grad" in BLOCKS[0]
    assert names["gradient"].shape == names["map_"].shape
    direction = np.asarray(names["gradient"]) / np.linalg.norm(names["gradient"])
    step = 0.02 * np.linalg.norm(names["map_"])
    ahead, behind = (names["score"](names["map_"] + s * step * direction) for s in (1, -1))
    assert float(ahead - behind) / (2 * step) == pytest.approx(
        np.linalg.norm(names["gradient"]), rel=0.02
    )


def test_all_examples_are_there():
    imported = {
        alias.name
        for block in BLOCKS
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "average_over" in imported
    assert len(BLOCKS) == 5


def test_pose_gradients_are_those_of_each_image(names):
    images, model, jr = names["images"], names["model"], names["jr"]

    def total(turns):
        return jr.log_marginal(
            model, model.init(), names["volume"], *images.inputs(turns_rad=turns)
        ).sum()

    together = jax.grad(total)(names["turns"])
    np.testing.assert_allclose(names["per_particle"], together, rtol=2e-3, atol=1e-2)
    assert np.abs(together).max() > 10.0


def test_the_defocus_is_found(names):
    assert float(names["change_um"]) == pytest.approx(-0.15, abs=0.03)


def test_the_noise_is_that_around_the_particles(names):
    measured = np.asarray(names["images"].noise_power)
    np.testing.assert_allclose(np.exp(names["log_power"])[3:], measured[3:], rtol=0.25)
    assert (
        float(names["held_out_misfit"])
        < float(names["judged"](names["start"], names["held_out"])) - 100.0
    )


def test_the_gradient_of_the_penalty_is_the_asymmetric_part(names):
    map_ = jnp.asarray(names["map_"])
    asymmetric = map_ - names["average_over"](map_, names["group"])
    np.testing.assert_allclose(
        names["penalty_gradient"], asymmetric, atol=1e-5 * float(jnp.abs(map_).max())
    )
    assert float(jnp.abs(asymmetric).max()) > 0.05 * float(jnp.abs(map_).max())
    assert np.isfinite(names["step_uphill"]).all()
