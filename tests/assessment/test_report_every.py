"""Reports of a run that goes on."""

import numpy as np
import pytest

from jaxrelax.assessment import ReportEvery, Strip
from jaxrelax.imaging import rebox_map, resample_map
from jaxrelax.io import OutputFolder
from jaxrelax.refinement import Callback, MaxIterations, refine
from jaxrelax.simulate import Simulation, simulate


def _box(kept, result):
    """Box of the particle, in voxels of the result."""
    return round(kept.edge_angstrom / result.pixel_size_angstrom)


class Sizes(Callback):
    """Whether the report was there after each iteration, and what it said."""

    def __init__(self, path):
        self.path, self.seen = path, []

    def on_step(self, problem, state, info):
        self.seen.append(self.path.read_text() if self.path.exists() else "")


@pytest.mark.parametrize("relax", ["C4", pytest.param(None, marks=pytest.mark.slow)])
def test_it_is_written_on_the_way_and_changes_nothing(tmp_path, relax):
    simulate(
        "phantom", tmp_path / "data",
        Simulation(
            n_images=100, box=32, pixel_size_angstrom=8.0, group="C4", protomer_kda=30.0,
            partner_kda=40.0, snr=0.5, pose_error_deg=1.0, seed=4,
        ),
    )  # fmt: skip
    folder = OutputFolder.create(tmp_path / "out")
    sizes = Sizes(folder / "report.html")

    def run(callbacks):
        return refine(
            tmp_path / "data/particles.star", tmp_path / "data/reference.mrc", relax=relax,
            until=MaxIterations(3), ini_high=24.0, subgroups="none", callbacks=callbacks,
        )  # fmt: skip

    strip = Strip()
    watched = run([strip, ReportEvery(folder, 2, "jaxrelax refine these", strip), sizes])
    assert sizes.seen[0] == ""
    assert "this is iteration 2 of a run that goes on" in sizes.seen[1]
    assert "jaxrelax refine these" in sizes.seen[1]
    assert sizes.seen[2] == sizes.seen[1]
    assert "iteration 2</figcaption>" in sizes.seen[1]
    kept = strip.added_to(watched).maps_of_iterations
    assert kept is not None
    assert kept.iterations == (1, 2, 3)
    assert (kept.asymmetric is None) == (relax is None)
    # The frame of the results: the map that they kept is that of the end, but for resolution.
    kept_map = kept.symmetric[-1].astype(np.float32)
    if kept.asymmetric is not None:
        kept_map += kept.asymmetric[-1]
    written = resample_map(rebox_map(watched.map, _box(kept, watched)), len(kept_map))
    assert np.corrcoef(kept_map.ravel(), written.ravel())[0, 1] > 0.8
    alone = run([])
    np.testing.assert_array_equal(watched.map, alone.map)
    np.testing.assert_array_equal(watched.registers, alone.registers)
