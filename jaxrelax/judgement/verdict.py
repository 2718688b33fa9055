"""What a judgement says: tests of subgroups, and whether images know of the asymmetry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxrelax.inference.orientation_test import SMALLEST_COUNTED_P

SIGNIFICANCE = 0.01
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def p_text(log10_p: float) -> str:
    """A p-value for people: ``0.42``, or ``< 10⁻³`` where permutations do not tell how small.

    Below :data:`jaxrelax.inference.SMALLEST_COUNTED_P` the logarithm is the tail of a Gaussian, to
    which sums of some hundred scores have not come that close: it ranks results, but no number of
    draws bears it out. How far beyond is said in standard deviations.

    Args:
        log10_p: logarithm of the p-value.
    """
    smallest = round(np.log10(SMALLEST_COUNTED_P))
    if log10_p < smallest:
        return "< 10" + str(smallest).translate(SUPERSCRIPT)
    return f"{10.0**log10_p:.2g}"


def p_statement(log10_p: float, z_score: float) -> str:
    """``p = 0.42``, or ``p < 10⁻³ (52 σ)``, see :func:`p_text`.

    Args:
        log10_p: logarithm of the p-value.
        z_score: in standard deviations of the null.
    """
    text = p_text(log10_p)
    if not text.startswith("<"):
        return f"p = {text}"
    return f"p {text} ({z_score:.{0 if z_score >= 10 else 1}f} σ)"


class SubgroupTest(NamedTuple):
    """The test of "the particle is invariant under this subgroup of G".

    Attributes:
        name: type of the subgroup, with its axes where G has several classes of that type.
        operators: its rotations, in the frame of half-set 1.
        z_score: held-out gain of what breaks the subgroup, in standard deviations of the null.
        p_value: one-sided, of this test alone; 0.0 where too small for a float.
        log10_p: its logarithm.
        nats: mean gain per particle over that at foreign orientations.
        implied_by: name of a larger symmetry that is not rejected and contains this one, although
            p is below 0.01; None where there is no such thing.
    """

    name: str
    operators: Float64[np.ndarray, "order 3 3"]
    z_score: float
    p_value: float
    log10_p: float
    nats: float
    implied_by: str | None = None

    @property
    def order(self) -> int:
        """Number of operators."""
        return len(self.operators)

    @property
    def rejected(self) -> bool:
        """Whether the images contradict this symmetry: p below 0.01 here and in all larger ones."""
        return self.p_value < SIGNIFICANCE and self.implied_by is None

    def verdict(self) -> str:
        """``rejected``, ``implied by C4`` or ``not contradicted``."""
        if self.implied_by is not None:
            return f"implied by {self.implied_by}"
        return "rejected" if self.rejected else "not contradicted"

    def p_text(self) -> str:
        """The p-value, see :func:`p_text`."""
        return p_text(self.log10_p)


@dataclass(frozen=True)
class AsymmetryEvidence:
    """Whether images know of the asymmetry in a map that was not made from them.

    Each half-set's images are judged by the *other* half-set's map, at their own orientations and
    at those of other images. If the particle is symmetric, what the symmetric map leaves of an
    image is noise, and noise does not know the orientation: own and foreign orientations do
    equally well. See docs/theory.md.

    Attributes:
        log_gain: per particle, in nats: log likelihood ratio of the asymmetric map over the
            symmetrised one at the particle's own orientation, less its mean at foreign ones. Zero
            for particles without others to exchange orientations with.
        z_score: sum of the gains in standard deviations of the null.
        p_value: one-sided p-value of "the particle has the full symmetry".
        found: p below 0.01.
        half_set_agreement: fraction of particles with the same best register under either map.
        expected_accuracy: mean largest posterior probability of the registers that are written.
        nats_per_particle: mean of ``log_gain``.
        subgroups: one row per tested subgroup, the full group first.
        supported: the largest symmetry that is not rejected, or None where the full symmetry is
            rejected and subgroups were not tested.
        tested: whether the maps held anything asymmetric to test.
        poses_held_to: where the poses of the input were held: errors of rotation (degrees) and
            shift (Å) that they must be well within, for the test takes them for exact (see
            :func:`jaxrelax.judgement.held_out_test.harmless_pose_errors`). None where poses were
            searched.
    """

    log_gain: Float64[np.ndarray, " n"]
    z_score: float
    p_value: float
    found: bool
    half_set_agreement: float
    expected_accuracy: float
    nats_per_particle: float
    subgroups: tuple[SubgroupTest, ...]
    supported: str | None
    tested: bool = True
    poses_held_to: tuple[float, float] | None = None

    def p_statement(self) -> str:
        """The p-value of the full symmetry, see :func:`p_statement`."""
        return p_statement(self.subgroups[0].log10_p, self.z_score)

    def _assumption(self) -> str:
        """What the test takes for granted, as the end of a sentence."""
        if self.poses_held_to is None:
            return ""
        angle, shift = self.poses_held_to
        return (
            f", assuming that the poses, which were held, are exact to well within {angle:.1f}° "
            f"and {shift:.1f} Å"
        )

    def sentence(self) -> str:
        """One or two sentences for people."""
        group = self.subgroups[0].name
        if not self.tested:
            return (
                "No asymmetry was found: all registers fit alike, so the maps hold nothing "
                f"asymmetric that could be tested. The data do not contradict {group}."
            )
        if not self.found:
            return (
                "No asymmetry was found: held-out images fit the asymmetric map no better at "
                f"their own orientations than at others'{self._assumption()}: "
                f"{self.p_statement()}. The data do not contradict {group}."
            )
        text = (
            f"Asymmetry was found: held-out images contradict {group}{self._assumption()}: "
            f"{self.p_statement()}, {self.nats_per_particle:.3g} nats per particle."
        )
        if self.poses_held_to is not None:
            text += " Errors of the poses alone can look like this; refine them to tell."
        if self.supported is None:
            return text
        if self.kept_untested:
            return (
                f"{text} They contradict all symmetries that were tested; {self.supported}, which "
                "was kept, was not."
            )
        return f"{text} The largest symmetry that they do not contradict is {self.supported}."

    @property
    def kept_untested(self) -> bool:
        """Whether the supported symmetry is one that every map was given, and not C1."""
        tested = {row.name for row in self.subgroups}
        return self.supported not in (None, "C1") and self.supported not in tested

    def table(self) -> str:
        """The tested subgroups as lines of text, one each."""
        width = max(len("symmetry"), *(len(row.name) for row in self.subgroups))
        lines = [f"{'symmetry':{width}}  order  {'p':>8}  {'z':>7}  nats/particle"]
        lines += [
            f"{row.name:{width}}  {row.order:5d}  {row.p_text():>8}  {row.z_score:7.2f}  "
            f"{row.nats:13.3g}{'' if row.verdict() == 'not contradicted' else '  ' + row.verdict()}"
            for row in self.subgroups
        ]
        return "\n".join(lines)
