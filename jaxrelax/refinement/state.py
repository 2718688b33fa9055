"""What changes during a refinement: a product of sub-states, each written by one component.

A pytree whose leaves are arrays that nobody can write to: it can be mapped, compared, and saved by
tree path. They are the host's, but for sums on an accelerator. What is not there is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.engine.streams import Conditions
from jaxrelax.reconstruction import IsotypicParts, MapSums, ShellSums
from jaxrelax.refinement.history import History


class PoseState(eqx.Module):
    """Poses; written by the pose search and its prior. ``n`` particles.

    Attributes:
        rotations, origins_angstrom: of the best register, without its operator.
        centre_rotations, centre_origins_angstrom: where the prior of a local search is centred:
            the poses of the input, or the last ones of a search that knew of none.
        mode_rotations, mode_origins_angstrom: poses of every image that its last search found
            possible, from the best to the worst; None before there was one.
        sigma_rotation_deg, sigma_shift_angstrom: widths of that prior, per axis.
        sigma_offset_angstrom: standard deviation of origins from those of the input: the prior of
            a global search.
    """

    rotations: Float64[np.ndarray, "n 3 3"]
    origins_angstrom: Float64[np.ndarray, "n 2"]
    centre_rotations: Float64[np.ndarray, "n 3 3"]
    centre_origins_angstrom: Float64[np.ndarray, "n 2"]
    mode_rotations: Float32[np.ndarray, "n modes 3 3"] | None
    mode_origins_angstrom: Float32[np.ndarray, "n modes 2"] | None
    sigma_rotation_deg: Float64[np.ndarray, ""]
    sigma_shift_angstrom: Float64[np.ndarray, ""]
    sigma_offset_angstrom: Float64[np.ndarray, ""]


class Claimed(eqx.Module):
    """What copies of one parent say of a state that excludes itself; see ``inference.exclusion``.

    Attributes:
        state: its number; None: the images have not been asked yet.
        log_ratio: of every copy, of the likelihoods that it has the state and that it does not.
    """

    state: Int[np.ndarray, ""] | None
    log_ratio: Float32[np.ndarray, " n"]


class Beliefs(eqx.Module):
    """Posteriors of the last pass; written by the E-step.

    Attributes:
        registers: of every particle; with several maps, of all their registers together.
        symmetric: probability of the symmetric state.
        junk: probability that an image shows no particle.
        log_gain: see ``StepInfo.held_out_gain``.
        sought: registers from before they were amplified or calibrated: what the held-out test
            judges if they came to nothing.
        claimed: where copies exclude each other, what they said; None before states have grown.
    """

    registers: Float32[np.ndarray, "n places"]
    symmetric: Float32[np.ndarray, " n"]
    junk: Float32[np.ndarray, " n"]
    log_gain: Float32[np.ndarray, " n"]
    sought: Float32[np.ndarray, "n places"]
    claimed: Claimed | None = None


class Strength(eqx.Module):
    """How strongly the asymmetric part speaks in the maps that score; written by its calibration.

    Attributes:
        factor: of its gain.
        held_nats: mean squared distance between the views of a register and of the symmetrised
            map that the scoring maps are held to; None: they keep the factor.
        nats_per_power: of what is expected from the maps, so much was seen; None: not yet.
        log_odds: that there is asymmetry at all; None: not asked yet.
    """

    factor: Float64[np.ndarray, ""]
    held_nats: Float64[np.ndarray, ""] | None
    nats_per_power: Float64[np.ndarray, ""] | None
    log_odds: Float64[np.ndarray, ""] | None

    @classmethod
    def untouched(cls) -> Strength:
        """The map as its prior makes it."""
        return cls(np.asarray(1.0), None, None, None)


class FoldSums(eqx.Module):
    """Sums over images, and how they become maps; written by the M-step.

    Attributes:
        values: of every half-set, fold and map, up to the last shell; where they were summed,
            without a copy.
        weight: mean weight per voxel and shell of each half-set and map.
        prior: what the map prior has learned.
    """

    values: tuple[tuple[tuple[Float32[AnyArray, "kept 3"], ...], ...], ...]
    weight: Float[AnyArray, "halves maps shells"]
    prior: Any

    @classmethod
    def of(cls, sums: list[list[MapSums]], weight, prior: Any) -> FoldSums:
        """Of sums by half-set and fold."""
        values = tuple(
            tuple(tuple(one.values for one in fold.maps) for fold in folds) for folds in sums
        )
        return cls(values, weight, prior)

    def by_half(self) -> list[list[MapSums]]:
        """Sums by half-set and fold."""
        last = self.weight.shape[2] - 1
        return [
            [MapSums(tuple(ShellSums(values, last) for values in maps)) for maps in folds]
            for folds in self.values
        ]


class MapState(eqx.Module):
    """Maps and their agreement; written by the M-step.

    Attributes:
        symmetric, asymmetric: parts of maps on a working box: one before the first iteration, then
            that of each half-set, in its own frame; or one per half-set and fold, where maps are
            given to score with. Where images may show several maps, all of these for each.
        sums: what scoring maps are made of; None where the maps above score.
        fsc, fsc_symmetric, fsc_asymmetric: between the half-maps, and their parts.
        alignment: index in G: g × (half-map 2) is in the frame of half-map 1; of the first map.
        strength: of the asymmetric part.
    """

    symmetric: Float32[np.ndarray, "maps b b b"]
    asymmetric: Float32[np.ndarray, "maps b b b"]
    sums: FoldSums | None
    fsc: Float64[np.ndarray, " shells"]
    fsc_symmetric: Float64[np.ndarray, " shells"]
    fsc_asymmetric: Float64[np.ndarray, " shells"]
    alignment: Int[np.ndarray, ""]
    strength: Strength

    def parts(self) -> list[IsotypicParts]:
        """The maps one by one."""
        return [IsotypicParts(s, a) for s, a in zip(self.symmetric, self.asymmetric, strict=True)]

    @staticmethod
    def stacked(parts: list[IsotypicParts]) -> tuple[np.ndarray, np.ndarray]:
        """Symmetric and asymmetric parts as arrays of maps."""
        return (
            np.stack([p.symmetric for p in parts]).astype(np.float32),
            np.stack([p.asymmetric for p in parts]).astype(np.float32),
        )


class Band(eqx.Module):
    """Which frequencies score; part of every course's state.

    Attributes:
        score_shell: last shell that scores images.
        growing: half-maps agree to the end of the band: look beyond it.
        first: the score shell of the first iteration.
    """

    score_shell: Int[np.ndarray, ""]
    growing: Bool[np.ndarray, ""]
    first: Int[np.ndarray, ""]

    @classmethod
    def starting(cls, shell: int, growing: bool) -> Band:
        """The band of the first iteration."""
        return cls(np.asarray(shell), np.asarray(growing), np.asarray(shell))


class State(eqx.Module):
    """Everything that a step changes: enough, with the inputs, to go on from here.

    Attributes:
        iteration: so many are done.
        stage: which of the stages of the refinement this is, from 0.
        poses, beliefs, maps: see these.
        latents: parameters of every latent variable, by its name; written by the model.
        noise_power: spectrum per optics group; written by the noise model.
        course: what the course needs to know to go on, its band among it; written by the course.
        history: one row per iteration.
        history_before: the same of the stages before this one.
    """

    iteration: Int[np.ndarray, ""]
    stage: Int[np.ndarray, ""]
    poses: PoseState
    beliefs: Beliefs
    latents: Mapping[str, Any]
    noise_power: Float64[np.ndarray, "groups all_shells"]
    maps: MapState
    course: Any
    history: History
    history_before: History

    @property
    def iterations_done(self) -> int:
        """Iterations so far, those of earlier stages included."""
        return len(self.history_before) + int(self.iteration)

    @property
    def score_shell(self) -> int:
        """Last shell that scores images in the next pass."""
        return int(self.course.band.score_shell)

    @property
    def relaxed(self) -> bool:
        """Whether it is of a relaxation: only there are registers to choose from."""
        return self.beliefs.registers.shape[1] > 1

    def conditions(self) -> Conditions:
        """Under which images are scored next."""
        poses = self.poses
        return Conditions(
            poses.rotations, poses.origins_angstrom, self.noise_power, self.score_shell
        )

    def replace(self, **changes: Any) -> State:
        """A copy with some sub-states changed."""
        return replaced(self, **changes)


def replaced(module: Any, **changes: Any) -> Any:
    """A copy of a module with some of its fields changed, and their arrays made read-only."""
    fields = {name: getattr(module, name) for name in type(module).__dataclass_fields__}
    return type(module)(**fields | {name: frozen(value) for name, value in changes.items()})


def frozen(tree: Any) -> Any:
    """The tree with arrays that nobody can write to; those of an accelerator stay there."""

    def one(leaf):
        if isinstance(leaf, jax.Array) and not on_host(leaf):
            return leaf
        array = np.asarray(leaf)
        view = array.view()
        view.flags.writeable = False
        return view

    return jax.tree.map(one, tree)


def number(value: Float[np.ndarray, ""] | None, otherwise: float = 0.0) -> float:
    """A scalar of the state as one of Python; those of NumPy raise the precision of arrays."""
    return otherwise if value is None else float(value)
