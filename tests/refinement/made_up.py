"""Iterations and states that no refinement has made."""

import numpy as np

from jaxrelax.refinement import History, SeekAmplifySettle, StepInfo
from jaxrelax.refinement.state import (
    Beliefs,
    FoldSums,
    MapState,
    PoseState,
    State,
    Strength,
    frozen,
)

NOTHING = StepInfo(
    iteration=1, resolution_angstrom=20.0, mean_fsc=0.1, score_resolution_angstrom=20.0,
    mean_max_posterior=0.25, register_change=0.0, rotation_change_deg=0.0,
    shift_change_angstrom=0.0, pose_jumps=0.0, asymmetric_fsc=0.0, asymmetric_signal=0.0,
    asymmetric_power=0.0, register_nats=0.0, held_out_gain=0.0, optimism=0.0, amplitude=1.0,
    symmetric_fraction=0.0, junk_fraction=0.0, sigma_rotation_deg=1.0, sigma_shift_angstrom=1.0,
    seconds=0.0, score_shell=7, phase=0, settled=False, poses_settled=False, held_poses=False,
    relaxed=True, searched_globally=False,
)  # fmt: skip


def history_of(infos) -> History:
    """The table of some iterations."""
    history = History.empty()
    for info in infos:
        history = history.appended(info)
    return history


def made_up_state(history=(), **changes) -> State:
    """A state of three images, two registers and maps of four voxels along an edge."""
    n, box, shells = 3, 4, 5
    alike = np.full((n, 2), 0.5, np.float32)
    rotations, origins = np.tile(np.eye(3), (n, 1, 1)), np.full((n, 2), 0.1)
    one, curve = np.asarray(1.0), np.ones(shells)
    fields = dict(
        iteration=np.asarray(len(history)),
        stage=np.asarray(0),
        poses=PoseState(
            rotations, origins, rotations, np.zeros((n, 2)), None, None,
            np.asarray(1 / 3), one, np.asarray(5.0),
        ),
        beliefs=Beliefs(
            alike, np.full(n, 0.25, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32),
            alike,
        ),
        latents={"symmetric": np.asarray(-np.inf)},
        noise_power=np.ones((1, shells)),
        maps=MapState(
            np.ones((2, box, box, box), np.float32), np.zeros((2, box, box, box), np.float32),
            FoldSums(
                (((np.ones((9, 3), np.float32),),) * 2,) * 2, np.ones((2, 1, shells)),
                {"gain": curve},
            ),
            curve, curve, 0.0 * curve, np.asarray(0),
            Strength(one, np.asarray(0.1), None, np.asarray(-np.inf)),
        ),
        course=SeekAmplifySettle().init(7),
        history=history_of(history),
        history_before=History.empty(),
    )  # fmt: skip
    return frozen(State(**fields | changes))
