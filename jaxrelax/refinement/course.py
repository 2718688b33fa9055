"""The course of a refinement: what is done when.

A course reads what an iteration reports and says what the next one does: how much of the asymmetric
part is believed, how strongly it speaks, how far images are scored, and when criteria are asked.

*Seek, amplify, settle.* At the symmetric saddle nothing that a pose- or register-based criterion
watches moves, while the asymmetric FSC grows by a factor per iteration underneath. Low resolution
decides nearly every register, so asymmetry is sought in the starting band, where iterations are
also cheap; if nothing rises there, once more in the band of the current resolution. While it is
sought the asymmetric part has a small, held strength: images vote in proportion, and no register
locks on what the first iterations happened to find.

Images that vote in proportion cannot tell apart registers that are nearly alike: a mixture of them
then looks settled, with a clear asymmetric FSC. So an asymmetry that is clear is amplified, to its
full strength and in all its components, until it stands still again. Cross-fitting keeps noise from
growing with it; where there is nothing but noise nothing is amplified. At last the strength is
calibrated by the other half-set's images, and the band follows the FSC.

*Straight* is only the last part of this.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float64, Int

from jaxrelax.imaging import Shells
from jaxrelax.reconstruction import Belief, resolution_shell
from jaxrelax.refinement.history import StepInfo
from jaxrelax.refinement.state import Band

# Mean squared distance between the views of a register and of the symmetrised map, in nats, while
# asymmetry is sought. So little that the posterior follows the images in proportion, and does not
# lock on what the first iterations happened to find.
HELD_NATS = 0.1
# Until the strength is calibrated every image may count in every register: the band is widened by
# this factor only.
WIDENED = 1.5
# Shells whose half-maps agree less add little to a score and much to its cost.
SCORE_ABOVE = 0.3
FEWEST_SEEKING = 10  # iterations before a standstill counts
FEWEST_CLEAR = 5  # the same where there is a clear signal
WINDOW = 3
RELATIVE_RISE = 1.05
ABSOLUTE_RISE = 0.005
CLEAR_SIGNAL = 5.0  # standard errors of the mean asymmetric FSC
# Above so many, the FSC of the asymmetric part is known well enough without optimism.
STRONG_SIGNAL = 20.0
WITHDRAWAL_FACTOR = 0.4
KEPT_OPTIMISM = 0.5
NEGLIGIBLE_OPTIMISM = 0.1


class Orders(NamedTuple):
    """What an iteration does.

    Attributes:
        belief: how much of the asymmetric part its maps believe.
        held_nats: what the strength of the asymmetric part is held to; None leaves it.
        calibrates: before it, the strength is found by the other half-set's images, and held to
            what they say.
        seeks: asymmetry is sought: what its registers say is kept for the held-out test.
        stands: maps no longer change with what is sought, so poses may settle.
    """

    belief: Belief
    held_nats: float | None
    calibrates: bool
    seeks: bool
    stands: bool


class Seen(NamedTuple):
    """What a course sees of an iteration.

    Attributes:
        info: its scalars.
        fsc_symmetric: of the symmetric parts of the half-maps.
        accumulated: last shell that was accumulated.
        shells: of the map.
    """

    info: StepInfo
    fsc_symmetric: Float64[np.ndarray, " shells"]
    accumulated: int
    shells: Shells


class Course(eqx.Module):
    """Interface of courses; hyper-parameters are fields.

    A course's state is a pytree of arrays with a :class:`Band` as its field ``band``.
    """

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of its parts, for people."""
        return ("",)

    def phase(self, state: Any) -> int:
        """Which part the next iteration belongs to."""
        return 0

    @abc.abstractmethod
    def init(self, shell: int) -> Any:
        """State before the first iteration, which scores up to a shell."""

    @abc.abstractmethod
    def orders(self, state: Any) -> Orders:
        """What the next iteration does."""

    @abc.abstractmethod
    def next(self, state: Any, seen: Seen) -> Any:
        """State after an iteration."""

    @abc.abstractmethod
    def may_stop(self, state: Any) -> bool:
        """Whether criteria are asked; a fixed number of iterations stops a run anyway."""


class StraightState(eqx.Module):
    """See :class:`Straight`."""

    band: Band
    optimism: Float64[np.ndarray, ""]


class Straight(Course):
    """The band follows the FSC and the strength is calibrated, from the first iteration on.

    Every criterion is asked from the beginning. That is right where asymmetry is given by the start
    or not inferred, and what a study of convergence criteria needs. At the symmetric saddle
    criteria are satisfied before the answer is there.

    Attributes:
        optimism: standard errors added to the asymmetric FSC at first; withdrawn step by step.
    """

    optimism: float = 0.0

    def init(self, shell: int) -> Any:
        """The band grows at once."""
        return StraightState(Band.starting(shell, growing=True), np.asarray(self.optimism))

    def orders(self, state: StraightState) -> Orders:
        """Calibrated maps, component by component."""
        return Orders(Belief(float(state.optimism)), None, True, False, True)

    def next(self, state: StraightState, seen: Seen) -> StraightState:
        """Band after the FSC, less optimism."""
        optimism = withdrawn(self.optimism, float(state.optimism), seen.info.asymmetric_signal)
        return StraightState(followed(state.band, seen), np.asarray(optimism))

    def may_stop(self, state: Any) -> bool:
        """Always."""
        return True


class SeededState(eqx.Module):
    """See :class:`Seeded`.

    Attributes:
        band: which frequencies score.
        done: iterations so far.
        grown: states have grown.
    """

    band: Band
    done: Int[np.ndarray, ""]
    grown: Bool[np.ndarray, ""]


class Seeded(Course):
    """For states that start from images: they grow first, and are judged afterwards.

    What random states differ by is noise, of which gains leave nothing, and images that are sure of
    it lock. So while states grow their gains are optimistic, as those of the asymmetric part are
    while it is sought, and states are held alike at first: posteriors then follow the images in
    proportion, and what grows is what images differ by most. As soon as images are sure of their
    states, gains are what the half-sets agree on: what was noise falls back, and goes on growing
    where optimism stays until one state has everything.

    Attributes:
        optimism: standard errors added to the FSCs while states grow.
        certainty: 1 − normalised entropy, in the mean over images, from which on they have.
        longest: iterations that they have for it.
        alike: iterations over which similarity falls to nothing; 1: they are not held alike, for
            clusters that maps can begin from.
        settling: iterations afterwards before criteria are asked.
    """

    optimism: float = 6.0
    certainty: float = 0.2
    longest: int = 16
    alike: int = 6
    settling: int = 3

    def init(self, shell: int) -> SeededState:
        """The band grows at once."""
        return SeededState(Band.starting(shell, growing=True), np.asarray(0), np.asarray(False))

    def orders(self, state: SeededState) -> Orders:
        """Optimistic maps that are alike at first."""
        similarity = max(0.0, 1.0 - (int(state.done) + 1) / self.alike)
        optimism = 0.0 if bool(state.grown) else self.optimism
        return Orders(Belief(optimism, similarity=similarity), None, True, False, True)

    def next(self, state: SeededState, seen: Seen) -> SeededState:
        """Band after the FSC, and whether states have grown."""
        done, sure = int(state.done) + 1, seen.info.state_certainty > self.certainty
        grown = bool(state.grown) or (sure and done > 1) or done >= self.longest
        if grown and not bool(state.grown):
            done = self.alike  # nothing is held alike any more; from here on they settle
        return SeededState(followed(state.band, seen), np.asarray(done), np.asarray(grown))

    def may_stop(self, state: SeededState) -> bool:
        """When states have grown, and what was noise had time to fall back."""
        return bool(state.grown) and int(state.done) >= self.alike + self.settling


class Stage(IntEnum):
    """Parts of :class:`SeekAmplifySettle`."""

    SEEK, WIDEN, AMPLIFY, SETTLE = range(4)


class SeekState(eqx.Module):
    """See :class:`SeekAmplifySettle`.

    Attributes:
        band: which frequencies score.
        stage: a :class:`Stage`.
        optimism: of the next iteration.
        curve: mean asymmetric FSC of the iterations of this stage.
    """

    band: Band
    stage: Int[np.ndarray, ""]
    optimism: Float64[np.ndarray, ""]
    curve: Float64[np.ndarray, " iterations"]


class SeekAmplifySettle(Course):
    """Seek asymmetry, widen the band if nothing is found, amplify what is found, settle.

    Attributes:
        optimism: standard errors added to the asymmetric FSC: how much of what may be noise is
            kept. Withdrawn when asymmetry is no longer sought.
    """

    optimism: float = 6.0

    @property
    def phases(self) -> tuple[str, ...]:
        """Of the stages."""
        return tuple(stage.name.lower() for stage in Stage)

    def phase(self, state: SeekState) -> int:
        """The stage."""
        return int(state.stage)

    def init(self, shell: int) -> SeekState:
        """Seeking; the band is held."""
        band = Band.starting(shell, growing=False)
        return SeekState(band, np.asarray(int(Stage.SEEK)), np.asarray(self.optimism), np.zeros(0))

    def orders(self, state: SeekState) -> Orders:
        """By stage."""
        stage = Stage(int(state.stage))
        settles = stage == Stage.SETTLE
        belief = Belief(
            float(state.optimism), faint=not settles, by_component=settles,
            full=stage == Stage.AMPLIFY,
        )  # fmt: skip
        return Orders(
            belief,
            held_nats=HELD_NATS if stage in (Stage.SEEK, Stage.WIDEN) else None,
            calibrates=settles,
            seeks=stage in (Stage.SEEK, Stage.WIDEN),
            stands=settles,
        )

    def next(self, state: SeekState, seen: Seen) -> SeekState:
        """The next stage when the asymmetric FSC stands still."""
        stage = Stage(int(state.stage))
        curve = np.append(state.curve, seen.info.asymmetric_fsc)
        after = next_stage(stage, curve.tolist(), seen.info.asymmetric_signal > CLEAR_SIGNAL)
        if after != stage:
            curve = np.zeros(0)
        optimism, band = self.optimism, state.band
        if after == Stage.SETTLE:
            optimism = withdrawn(self.optimism, float(state.optimism), seen.info.asymmetric_signal)
            band = followed(band, seen)
        elif after == Stage.SEEK:
            # The band is held: no need to know what lies beyond it.
            band = Band(band.score_shell, np.asarray(False), band.first)
        else:
            band = followed(band, seen, widest=WIDENED)
        return SeekState(band, np.asarray(int(after)), np.asarray(optimism), curve)

    def may_stop(self, state: SeekState) -> bool:
        """Not before it settles: at the symmetric saddle every criterion is satisfied."""
        return Stage(int(state.stage)) == Stage.SETTLE


def followed(band: Band, seen: Seen, widest: float | None = None) -> Band:
    """The band up to where half-maps agree, and whether to look beyond it.

    Args:
        band: of the iteration that was seen.
        seen: that iteration.
        widest: in multiples of the first band.
    """
    shells, lowest = seen.shells, int(band.first)
    # Poses rest on the symmetric part, which has |G| times the images behind each voxel; the
    # gains keep what is noise in either part from scoring.
    reach = resolution_shell(seen.fsc_symmetric, SCORE_ABOVE)
    if widest is not None:
        reach = min(reach, int(widest * lowest))
    last = min(max(shells.whole(seen.accumulated), lowest), shells.last_scored)
    # Where no more is asked for there is no need to look beyond, either.
    growing = reach >= last and last < shells.last_scored
    score_shell = int(np.clip(reach, min(lowest, last), last))
    return Band(np.asarray(score_shell), np.asarray(bool(growing)), band.first)


def standstill(curve: Sequence[float], clear: bool = False) -> bool:
    """Whether the mean asymmetric FSC has stopped rising."""
    if len(curve) < max(FEWEST_CLEAR if clear else FEWEST_SEEKING, WINDOW + 1):
        return False
    return max(curve[-WINDOW:]) < RELATIVE_RISE * max(curve[:-WINDOW]) + ABSOLUTE_RISE


def next_stage(stage: Stage, curve: Sequence[float], clear: bool) -> Stage:
    """Stage of the next iteration.

    Args:
        stage: of the last one.
        curve: mean asymmetric FSC of the iterations of this stage.
        clear: whether the last one stands out of noise.
    """
    if stage == Stage.SETTLE or not standstill(curve, clear):
        return stage
    if clear and stage != Stage.AMPLIFY:
        return Stage.AMPLIFY
    return Stage.WIDEN if stage == Stage.SEEK else Stage.SETTLE


def withdrawn(full: float, optimism: float, signal: float) -> float:
    """Optimism of the next iteration: withdrawn step by step.

    Half of it stays where the signal is weak: to leave the saddle takes more than not to fall back.

    Args:
        full: what was asked for.
        optimism: of the last one.
        signal: mean asymmetric FSC in standard errors.
    """
    least = 0.0 if signal > STRONG_SIGNAL else KEPT_OPTIMISM * full
    optimism = max(WITHDRAWAL_FACTOR * optimism, least)
    return optimism if optimism >= NEGLIGIBLE_OPTIMISM else 0.0
