"""Stopping criteria on made-up histories."""

import dataclasses

import numpy as np
import pytest

from jaxrelax.refinement import (
    AsymmetryStalled,
    DeviationSettled,
    LikelihoodStalled,
    MaxIterations,
    PosesSettled,
    RegisterFlowSettled,
    RegistersSettled,
    ResolutionStalled,
)
from jaxrelax.refinement.loop import flow
from tests.refinement.made_up import NOTHING, made_up_state


def criterion_rows(resolutions, posteriors, settled=True):
    return made_up_state(
        [
            dataclasses.replace(
                NOTHING, resolution_angstrom=r, mean_fsc=4.0 / r, mean_max_posterior=p,
                settled=settled,
            )
            for r, p in zip(resolutions, posteriors, strict=True)
        ]
    )  # fmt: skip


def test_resolution_must_stand_still_after_seeking():
    still = criterion_rows([8.0, 8.0, 8.0], [0.5] * 3)
    assert "8.00" in ResolutionStalled().reason(still)
    assert ResolutionStalled().reason(criterion_rows([8.0] * 3, [0.5] * 3, settled=False)) is None
    assert ResolutionStalled().reason(criterion_rows([9.0, 8.5, 8.0], [0.5] * 3)) is None


def test_half_maps_may_come_to_agree_further_at_one_resolution():
    """Where they agree to the last shell the resolution stands still from the beginning."""
    rising = criterion_rows([8.0] * 5, [0.5] * 5)
    rows = [
        dataclasses.replace(info, mean_fsc=fsc)
        for info, fsc in zip(rising.history, (0.60, 0.61, 0.62, 0.62, 0.621), strict=True)
    ]
    assert ResolutionStalled().reason(made_up_state(rows[:4])) is None
    assert ResolutionStalled().reason(made_up_state(rows))
    # By chance the resolution may be a shell better, and half-maps agree no better.
    jumped = (*rows[2:4], dataclasses.replace(rows[4], resolution_angstrom=7.5))
    assert ResolutionStalled().reason(made_up_state(jumped))


def with_deviations(*rows):
    return made_up_state(
        [dataclasses.replace(NOTHING, settled=True, deviations=tuple(row)) for row in rows]
    )


def test_density_may_settle_in_a_band_of_resolution():
    """Bands end at 30, 20, 15, 12, 10, 8, 6, 5, 4 and 3 Å."""
    coarse, fine = [0.02] * 3, np.array([0.1, 0.2, 0.25])
    state = with_deviations(*([c] * 3 + [f] * 7 for c, f in zip(coarse, fine, strict=True)))
    assert DeviationSettled(finest_angstrom=15.0).reason(state).endswith("in bands to 30 … 15 Å")
    assert DeviationSettled(finest_angstrom=12.0).reason(state) is None
    assert DeviationSettled(coarsest_angstrom=12.0).reason(state) is None
    one = DeviationSettled(coarsest_angstrom=20.0, finest_angstrom=15.0).reason(state)
    assert "2.0 %" in one
    assert one.endswith("in bands to 20 … 15 Å")
    # All frequencies together are another figure, and a run without relaxation has none of these.
    assert DeviationSettled().reason(state)
    assert DeviationSettled(finest_angstrom=15.0).reason(with_deviations([], [], [])) is None
    # Bands beyond the map are 0, and no standstill.
    ended = with_deviations(*([0.1, 0.1, f] + [0.0] * 7 for f in fine))
    assert DeviationSettled(coarsest_angstrom=10.0).reason(ended) is None
    assert DeviationSettled(coarsest_angstrom=15.0).reason(ended) is None
    assert DeviationSettled(finest_angstrom=20.0).reason(ended)
    with pytest.raises(ValueError, match="no band ends between 14 and 13 Å"):
        DeviationSettled(coarsest_angstrom=14, finest_angstrom=13)


def test_registers_must_settle_after_seeking():
    still = [0.97, 0.971, 0.972]
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, still))
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, still, settled=False)) is None
    assert RegistersSettled().reason(criterion_rows([8.0] * 3, [0.9, 0.95, 0.97])) is None


def test_criteria_combine():
    still = criterion_rows([8.0, 8.0, 8.0], [0.9, 0.95, 0.97])
    assert (ResolutionStalled() & RegistersSettled()).reason(still) is None
    assert (ResolutionStalled() | RegistersSettled()).reason(still)
    assert (RegistersSettled() | MaxIterations(3)).reason(still) == "3 iterations done"


def test_only_a_fixed_number_is_a_limit_while_seeking():
    still = criterion_rows([8.0, 8.0, 8.0], [0.97, 0.97, 0.97])
    assert RegistersSettled().limit(still) is None
    assert (RegistersSettled() | MaxIterations(3)).limit(still) == "3 iterations done"
    assert (RegistersSettled() & MaxIterations(3)).limit(still) is None


def rows(**columns):
    length = len(next(iter(columns.values())))
    return made_up_state(
        [
            dataclasses.replace(NOTHING, settled=True, **{n: v[i] for n, v in columns.items()})
            for i in range(length)
        ]
    )


@pytest.mark.parametrize(
    ("criterion", "still", "moving"),
    [
        (
            RegisterFlowSettled(),
            {"register_flow": [0.4, 0.005, 0.004], "register_change": [0.4] * 3},
            {"register_flow": [0.4, 0.02, 0.004]},
        ),
        (
            PosesSettled(),
            {"rotation_change_deg": [3.0, 0.05, 0.02], "shift_change_angstrom": [1.0, 0.05, 0.05]},
            {"rotation_change_deg": [3.0, 0.05, 0.02], "shift_change_angstrom": [1.0, 0.05, 0.5]},
        ),
        (
            AsymmetryStalled(),
            {"asymmetric_fsc": [0.3, 0.302, 0.303]},
            {"asymmetric_fsc": [0.3, 0.302, 0.31]},
        ),
        (
            DeviationSettled(),
            {"asymmetric_power": [0.2, 0.201, 0.2005]},
            {"asymmetric_power": [0.2, 0.21, 0.2101]},
        ),
        (
            LikelihoodStalled(),
            {"log_likelihood": [-80.0, -79.98, -80.5]},
            {"log_likelihood": [-80.0, -79.98, -79.0]},
        ),
    ],
)
def test_each_sees_its_quantity_stand_still(criterion, still, moving):
    assert criterion.reason(rows(**still))
    assert criterion.reason(rows(**moving)) is None
    assert criterion.reason(rows(**{n: v[:1] for n, v in still.items()})) is None
    assert criterion.limit(rows(**still)) is None
    seeking = [dataclasses.replace(one, settled=False) for one in rows(**still).history]
    assert criterion.reason(made_up_state(seeking)) is None


def test_flow_counts_images_by_their_certainty():
    posterior = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    before = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert flow(posterior, before, np.zeros(4)) == pytest.approx(1 / 3)
    assert flow(posterior, before, np.array([0.0, 0.0, 1.0, 0.0])) == 0.0
    assert flow(np.full((4, 2), 0.5), before, np.zeros(4)) == 0.0
