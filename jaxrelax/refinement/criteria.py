"""When to stop: small classes that look at the state and say why they are satisfied.

A criterion is a class with ``reason(state) -> str | None``; combine them with ``&`` and ``|``.
It sees the whole state: maps and their curves, posteriors, poses, and ``state.history``, one
:class:`StepInfo` per iteration. It is asked when the course allows it: by default not while
asymmetry is sought, for at the symmetric saddle every criterion is satisfied and the answer is not
yet there (``course=Straight()`` asks it from the first iteration).
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import numpy as np

from jaxrelax.io import InputError
from jaxrelax.refinement.history import DEVIATION_BANDS
from jaxrelax.refinement.state import State


class Criterion(eqx.Module):
    """Interface of stopping criteria."""

    @abc.abstractmethod
    def reason(self, state: State) -> str | None:
        """Why the refinement may stop here, or None to go on."""

    def limit(self, state: State) -> str | None:
        """Why to stop even while asymmetry is still being sought; None for most criteria."""
        return None

    def __and__(self, other: Criterion) -> Criterion:
        return Both(self, other)

    def __or__(self, other: Criterion) -> Criterion:
        return Either(self, other)


def reason_of(criterion: Criterion, state: State, *, limit: bool = False) -> str | None:
    """What a criterion says: its reason, or its limit.

    Raises:
        InputError: that is neither text nor None. Taken for true or false it would stop a run
            that was to go on, or never stop it.
    """
    said = criterion.limit(state) if limit else criterion.reason(state)
    if said is None or isinstance(said, str):
        return said
    method = f"{type(criterion).__name__}.{'limit' if limit else 'reason'}"
    raise InputError(
        f"{method} returned {said!r}; a criterion returns a text that says why to stop, or None "
        "to go on"
    )


class Both(Criterion):
    """Satisfied when both are."""

    first: Criterion
    second: Criterion

    def reason(self, state: State) -> str | None:
        """The reasons of both."""
        first, second = reason_of(self.first, state), reason_of(self.second, state)
        return f"{first}; {second}" if first and second else None

    def limit(self, state: State) -> str | None:
        """The limits of both."""
        first, second = self.first.limit(state), self.second.limit(state)
        return f"{first}; {second}" if first and second else None


class Either(Criterion):
    """Satisfied when either is."""

    first: Criterion
    second: Criterion

    def reason(self, state: State) -> str | None:
        """The reason of the first that has one."""
        return reason_of(self.first, state) or reason_of(self.second, state)

    def limit(self, state: State) -> str | None:
        """The limit of the first that has reached one."""
        return self.first.limit(state) or self.second.limit(state)


class MaxIterations(Criterion):
    """A fixed number of iterations.

    Attributes:
        iterations: how many; in each stage, where a relaxation follows a symmetric refinement.
    """

    iterations: int = 40

    def reason(self, state: State) -> str | None:
        """Satisfied from that iteration on."""
        if int(state.iteration) < self.iterations:
            return None
        return f"{self.iterations} iterations done"

    def limit(self, state: State) -> str | None:
        """A fixed number holds whatever is going on."""
        return self.reason(state)


class FinalPasses(Criterion):
    """So many more iterations after another criterion is satisfied.

    The other one is asked of the history as it was so many iterations ago, so that nothing has to
    be remembered and a resumed run ends where it would have. What else a criterion looks at, it
    sees as it is now.

    Attributes:
        criterion: the other one; its limit holds as it stands.
        passes: how many more.
    """

    criterion: Criterion
    passes: int

    def reason(self, state: State) -> str | None:
        """Satisfied when the other one was satisfied so many iterations ago."""
        count = len(state.history) - self.passes
        earlier = None
        if count > 0 and state.history[count - 1].settled:
            then: Any = _Earlier(state, count)
            earlier = reason_of(self.criterion, then)
        if earlier is None:
            return reason_of(self.criterion, state, limit=True)
        return f"{earlier}; and {self.passes} more iterations"

    def limit(self, state: State) -> str | None:
        """That of the other one."""
        return self.criterion.limit(state)


class _Earlier:
    """A state whose last iterations are left out of its history."""

    def __init__(self, state: State, count: int):
        self._state, self.iteration = state, count
        self.history = tuple(state.history[:count])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


class ResolutionStalled(Criterion):
    """The half-maps have not come to agree better for some iterations.

    Judged by their FSC averaged over all shells (``mean_fsc``). The resolution itself moves by
    whole shells, up and down by chance, and not at all where half-maps agree to the end of the
    images' frequencies, while poses still get better.

    Attributes:
        iterations: length of the standstill, counted once asymmetry is no longer sought.
        tolerance: relative improvement that counts.
    """

    iterations: int = 2
    tolerance: float = 0.005

    def reason(self, state: State) -> str | None:
        """Satisfied when the last iterations were no better than the best before them."""
        calm = [info for info in state.history if info.settled]
        if len(calm) <= self.iterations:
            return None
        curve = [info.mean_fsc for info in calm]
        before, recent = max(curve[: -self.iterations]), max(curve[-self.iterations :])
        if recent > before * (1.0 + self.tolerance):
            return None
        return (
            f"half-maps agree no better in {self.iterations} iterations, to "
            f"{calm[-1].resolution_angstrom:.2f} Å"
        )


class RegisterFlowSettled(Criterion):
    """Images that are sure of their register have stopped changing it.

    Each counts by 1 − the normalised entropy of its posterior and by how surely it shows the
    particle, so that junk and views that cannot tell do not keep a run alive.

    Attributes:
        iterations: length of the standstill.
        tolerance: largest share that may change.
    """

    iterations: int = 2
    tolerance: float = 0.01

    def reason(self, state: State) -> str | None:
        """Satisfied when fewer than the tolerance changed in each of the last iterations."""
        calm = [info.register_flow for info in state.history if info.settled]
        if len(calm) < self.iterations or max(calm[-self.iterations :]) > self.tolerance:
            return None
        return f"{100 * calm[-1]:.1f} % of the registers changed, by certainty"


class PosesSettled(Criterion):
    """Poses have stopped moving, registers left out.

    Attributes:
        iterations: length of the standstill.
        rotation_deg, shift_angstrom: what they may move by in an iteration.
        trimmed: judge what 95 % of the particles moved less than, instead of the median; images
            that show no particle do not count.
    """

    iterations: int = 2
    rotation_deg: float = 0.1
    shift_angstrom: float = 0.1
    trimmed: bool = False

    def reason(self, state: State) -> str | None:
        """Satisfied when poses moved less in each of the last iterations."""
        calm = [info for info in state.history if info.settled][-self.iterations :]
        if len(calm) < self.iterations:
            return None
        if self.trimmed:
            turned = max(info.rotation_change_95_deg for info in calm)
            moved = max(info.shift_change_95_angstrom for info in calm)
        else:
            turned = max(info.rotation_change_deg for info in calm)
            moved = max(info.shift_change_angstrom for info in calm)
        if turned > self.rotation_deg or moved > self.shift_angstrom:
            return None
        which = "95 % of the poses" if self.trimmed else "half of the poses"
        return f"{which} moved by less than {turned:.2f}° and {moved:.2f} Å"


class AsymmetryStalled(Criterion):
    """The FSC of the asymmetric parts has stopped rising.

    Registers get better as long as it rises, by however little where the signal is weak. Satisfied
    where nothing is relaxed.

    Attributes:
        iterations: length of the standstill.
        tolerance: relative rise that counts.
        least: rise that counts whatever it is relative to: next to nothing is noise.
    """

    iterations: int = 2
    tolerance: float = 0.01
    least: float = 0.001

    def reason(self, state: State) -> str | None:
        """Satisfied when the last iterations were no better than the best before them."""
        curve = [info.asymmetric_fsc for info in state.history if info.settled]
        before = max(curve[: -self.iterations], default=0.0)
        if not _stalled(curve, self.iterations, max(self.tolerance * before, self.least)):
            return None
        return f"asymmetric FSC stalled at {curve[-1]:.3f}"


class DeviationSettled(Criterion):
    """The density at symmetry-related positions has stopped moving apart.

    The rms of V − Sym V over that of Sym V, of the regularised half-maps; with states the mean over
    these, and in bands that of all together.
    Density breaks the symmetry only inside the particle's mask, and inside a register mask where
    there is one. With a band of resolution, in every band of `DEVIATION_BANDS` that ends in it.

    Attributes:
        iterations: length of the standstill.
        tolerance: largest relative change of it from one iteration to the next.
        coarsest_angstrom, finest_angstrom: band of resolution; None: all frequencies together.
    """

    iterations: int = 2
    tolerance: float = 0.01
    coarsest_angstrom: float | None = None
    finest_angstrom: float | None = None

    def __check_init__(self):
        if self._banded and not self._bands():
            raise ValueError(
                f"no band ends between {self.coarsest_angstrom} and {self.finest_angstrom} Å; "
                f"bands end at {', '.join(map(str, DEVIATION_BANDS))} Å"
            )

    @property
    def _banded(self) -> bool:
        return self.coarsest_angstrom is not None or self.finest_angstrom is not None

    def _bands(self) -> list[int]:
        """Numbers of those that end in the band of resolution."""
        coarsest = np.inf if self.coarsest_angstrom is None else self.coarsest_angstrom
        finest = 0.0 if self.finest_angstrom is None else self.finest_angstrom
        return [k for k, edge in enumerate(DEVIATION_BANDS) if finest <= edge <= coarsest]

    def reason(self, state: State) -> str | None:
        """Satisfied when it changed by less than the tolerance in each of the last iterations."""
        last = [info for info in state.history if info.settled][-self.iterations - 1 :]
        if len(last) <= self.iterations:
            return None
        values = np.array([[info.asymmetric_power] for info in last])
        if self._banded:
            if not all(info.deviations for info in last):
                return None  # nothing is relaxed, or the run is of a version without them
            values = np.array([info.deviations for info in last])[:, self._bands()]
            values = values[:, (values > 0.0).any(axis=0)]  # others are beyond the map
            if not values.size:
                return None
        change = np.abs(np.diff(values, axis=0)) / np.maximum(values[:-1], 1e-12)
        if change.max() > self.tolerance:
            return None
        where = ""
        if self._banded:
            edges = [DEVIATION_BANDS[k] for k in self._bands()]
            where = f" in bands to {edges[0]}{f' … {edges[-1]}' if len(edges) > 1 else ''} Å"
        largest = 100 * values[-1].max()
        return f"symmetry-related density differs by {largest:.1f} %, no longer changing{where}"


class LikelihoodStalled(Criterion):
    """Images are explained no better by maps without them.

    The mean log marginal likelihood of an image moves with the band and the noise, too; what counts
    is that it no longer rises.

    Attributes:
        iterations: length of the standstill.
        tolerance: rise that counts, in nats per image.
    """

    iterations: int = 2
    tolerance: float = 0.05

    def reason(self, state: State) -> str | None:
        """Satisfied when the last iterations were no better than the best before them."""
        curve = [info.log_likelihood for info in state.history if info.settled]
        if not _stalled(curve, self.iterations, self.tolerance):
            return None
        return f"held-out log-likelihood no longer rises by {self.tolerance:g} nats per image"


def _stalled(curve: list[float], iterations: int, tolerance: float) -> bool:
    """Whether the last of a curve are no better than the best before them, by so much."""
    if len(curve) <= iterations:
        return False
    return max(curve[-iterations:]) <= max(curve[:-iterations]) + tolerance


class StatesSettled(Criterion):
    """Images that are sure of their state have stopped changing it.

    Attributes:
        iterations: length of the standstill.
        tolerance: largest share that may change, each image weighted by its certainty.
    """

    iterations: int = 2
    tolerance: float = 0.01

    def reason(self, state: State) -> str | None:
        """Satisfied when fewer than the tolerance changed in each of the last iterations."""
        calm = [info.state_change for info in state.history if info.settled]
        if len(calm) <= self.iterations or max(calm[-self.iterations :]) > self.tolerance:
            return None
        return f"{100 * calm[-1]:.1f} % of the states changed"


class RegistersSettled(Criterion):
    """The mean largest register probability and the best registers have stopped moving.

    Junk and uninformative views keep flipping for ever, so it is the change of the *mean*
    posterior that is judged, not every particle's register.

    Attributes:
        iterations: length of the standstill.
        tolerance: largest change of the mean over it.
    """

    iterations: int = 2
    tolerance: float = 0.005

    def reason(self, state: State) -> str | None:
        """Satisfied when the mean largest posterior moved less than the tolerance."""
        calm = [info.mean_max_posterior for info in state.history if info.settled]
        if len(calm) <= self.iterations:
            return None
        last = calm[-self.iterations - 1 :]
        if max(last) - min(last) > self.tolerance:
            return None
        return f"mean register posterior settled at {last[-1]:.3f}"
