"""What each iteration reports, and the table of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, overload

import equinox as eqx
import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True)
class StepInfo:
    """What one iteration reports; the scalars become a row of ``history.csv``.

    Attributes:
        iteration: counted from 1.
        resolution_angstrom: where the FSC of the aligned half-maps falls below 0.143.
        mean_fsc: of the same half-maps, over all shells up to the last that is ever used; zero
            where nothing was accumulated. It moves where the resolution, as one shell, does not.
        score_resolution_angstrom: limit of the frequencies that scored images.
        mean_max_posterior: mean over particles of the largest register probability.
        register_change: fraction of particles whose best register changed.
        rotation_change_deg, shift_change_angstrom: median change of the pose (without registers).
        pose_jumps: fraction of images whose pose moved so far, modulo the group, that they found
            another one (``JUMP_DEG``).
        asymmetric_fsc: FSC of the asymmetric parts, averaged over the scored shells with the
            square root of their number of independent coefficients as weight.
        asymmetric_signal: the same in units of its standard error under pure noise.
        asymmetric_resolution_angstrom: where that FSC falls below 0.143; zero where the asymmetric
            parts do not agree at all, or there are none. Of the first state that has registers.
        asymmetric_power: rms of the asymmetric part over that of the symmetric one.
        register_nats: mean squared distance, in noise standard deviations, between the view of a
            register and that of the symmetrised map, under the maps that scored.
        held_out_gain: mean over particles of log p(y | asymmetric map) − log p(y | symmetrised
            map), in nats, each image scored against a map that does not contain it.
        optimism: standard errors added to the asymmetric FSC in this iteration.
        amplitude: factor of the asymmetric part's gain, calibrated by the other half-set's images.
        symmetric_fraction: of the particles, those that fit the symmetrised map better.
        junk_fraction: of the images, those that show no particle.
        sigma_rotation_deg, sigma_shift_angstrom: width of the pose prior after it; of a global
            search that of origins around those of the input.
        seconds: wall time.
        score_shell: last shell that scored images.
        phase: part of the course that it belonged to, counted from 0 (see ``Course.phases``).
        settled: nothing was sought any more and poses had settled: criteria count it.
        poses_settled: searching poses had come to an end.
        held_poses: poses were held.
        relaxed: registers were inferred.
        searched_globally: all orientations were searched.
        rotation_change_95_deg, shift_change_95_angstrom: what 95 % of the images moved less than,
            registers left out, each counted by how surely it shows the particle.
        full_rotation_change_deg: mean change of the pose with its best register.
        relaxed_rotation_deg: mean angle between the pose that was searched and the pose in its
            best register.
        start_rotation_deg, start_shift_angstrom: median difference from the poses that the prior of
            a local search is centred at (those of the input), modulo the group.
        start_full_rotation_deg: mean angle between those and the poses with their best registers.
        register_flow: of the images, those whose best register changed, each counted by how sure it
            is of its register and of showing the particle (1 − normalised entropy, 1 − junk).
        log_likelihood: mean over images of the log of their marginal likelihood under maps without
            them, in nats, up to what depends on the image alone and to the noise's normalisation.
        state_change: of the images, those whose most probable state changed, each counted by how
            sure it is of its state and of showing the particle (1 − normalised entropy, 1 − junk),
            so that junk and what looks alike cannot keep a run alive; zero without states.
        state_certainty: mean of 1 − the normalised entropy of the state, over images that show the
            particle; zero without states.
        fractions: of every state; empty without states.
        deviations: rms of V − Sym V over that of Sym V in each of `DEVIATION_BANDS`; empty where
            nothing is relaxed.
    """

    iteration: int
    resolution_angstrom: float
    mean_fsc: float
    score_resolution_angstrom: float
    mean_max_posterior: float
    register_change: float
    rotation_change_deg: float
    shift_change_angstrom: float
    pose_jumps: float
    asymmetric_fsc: float
    asymmetric_signal: float
    asymmetric_power: float
    register_nats: float
    held_out_gain: float
    optimism: float
    amplitude: float
    symmetric_fraction: float
    junk_fraction: float
    sigma_rotation_deg: float
    sigma_shift_angstrom: float
    seconds: float
    score_shell: int
    phase: int
    settled: bool
    poses_settled: bool
    held_poses: bool
    relaxed: bool
    searched_globally: bool
    asymmetric_resolution_angstrom: float = 0.0
    register_flow: float = 0.0
    log_likelihood: float = 0.0
    rotation_change_95_deg: float = 0.0
    shift_change_95_angstrom: float = 0.0
    full_rotation_change_deg: float = 0.0
    relaxed_rotation_deg: float = 0.0
    start_rotation_deg: float = 0.0
    start_shift_angstrom: float = 0.0
    start_full_rotation_deg: float = 0.0
    state_change: float = 0.0
    state_certainty: float = 0.0
    fractions: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    def row(self) -> dict[str, float]:
        """The scalars by name, all as numbers; those of states only where there are states."""
        values = dataclasses.asdict(self)
        several = {name: values.pop(name) for name in SEVERAL}
        if not several["fractions"]:
            values = {name: value for name, value in values.items() if name not in OF_STATES}
        values |= {f"{FRACTION}{k:02d}": one for k, one in enumerate(several["fractions"], start=1)}
        values |= dict(zip(DEVIATIONS, several["deviations"], strict=False))
        return {k: float(v) for k, v in values.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> StepInfo:
        """What :meth:`row` became as text, as in ``history.csv``.

        Args:
            row: text by column; an empty one is as good as none.

        Raises:
            KeyError: names a column that is missing.
        """
        given = {name: float(text) for name, text in row.items() if text}
        values: dict[str, Any] = {
            field.name: _KINDS[str(field.type)](given[field.name])
            for field in dataclasses.fields(cls)
            # What there are only with states is missing without.
            if field.name not in SEVERAL and (field.name in given or field.name not in OF_STATES)
        }
        shares = [share for name, share in given.items() if name.startswith(FRACTION)]
        deviations = [given[name] for name in DEVIATIONS if name in given]
        return cls(**values, fractions=tuple(shares), deviations=tuple(deviations))


_KINDS = {"int": int, "float": float, "bool": bool}
SEVERAL = ("fractions", "deviations")  # fields that are no scalars
OF_STATES = ("state_change", "state_certainty")
FRACTION = "fraction_class"
# Finer ends of bands of resolution in Å; the first begins beside the origin of Fourier space.
DEVIATION_BANDS = (30, 20, 15, 12, 10, 8, 6, 5, 4, 3)
DEVIATIONS = tuple(f"deviation_to_{edge}_angstrom" for edge in DEVIATION_BANDS)


class History(eqx.Module):
    """One :class:`StepInfo` per iteration, kept as columns; a sequence, and a pytree of arrays."""

    columns: Mapping[str, Shaped[np.ndarray, "iterations *each"]]

    @classmethod
    def empty(cls) -> History:
        """No iteration yet."""
        return cls(
            {
                field.name: np.zeros(0, _KINDS[str(field.type)])
                for field in dataclasses.fields(StepInfo)
                if field.name not in SEVERAL
            }
            | {name: np.zeros((0, 0)) for name in SEVERAL}
        )

    def appended(self, info: StepInfo) -> History:
        """With one more iteration."""
        columns = {
            name: np.append(values, values.dtype.type(getattr(info, name)))
            for name, values in self.columns.items()
            if name not in SEVERAL
        }
        return History(columns | {name: self._longer(name, info) for name in SEVERAL})

    def _longer(self, name: str, info: StepInfo) -> np.ndarray:
        """A column of several values, with one more row; NaN where a stage has none of them."""
        values, before = np.asarray(getattr(info, name), np.float64), self.columns[name]
        several = np.full((len(before) + 1, max(len(values), before.shape[1])), np.nan)
        several[:-1, : before.shape[1]] = before
        several[-1, : len(values)] = values
        return several

    def __len__(self) -> int:
        return len(self.columns["iteration"])

    @overload
    def __getitem__(self, which: int) -> StepInfo: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[StepInfo, ...]: ...
    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return tuple(self[i] for i in range(*which.indices(len(self))))
        values: dict[str, Any] = {
            n: v[which].item() for n, v in self.columns.items() if n not in SEVERAL
        }
        for name in SEVERAL:
            row = self.columns[name][which]
            values[name] = tuple(row[~np.isnan(row)].tolist())
        return StepInfo(**values)

    def __iter__(self) -> Iterator[StepInfo]:
        return (self[i] for i in range(len(self)))
