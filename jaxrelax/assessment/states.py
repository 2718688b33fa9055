"""States of particles against the truth of a simulation, and the labels of one run against another.

States have no names of their own: a run's state 2 may be the truth's state 1. Labels are compared
after the matching, one to one, under which most images agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from jaxrelax.assessment.calibration import Calibration, calibration
from jaxrelax.geometry import PointGroup, RegisterAgreement, register_agreement

JUNK = -1
"""True label of an image that shows no particle."""
UNMATCHED = -1
"""Partner of a found state that stands for no true one."""


@dataclass(frozen=True)
class StateAccuracy:
    """How many particles ended in the right state, and whether the run knows how many.

    True states are numbered as the truth has them, found ones as the run has them; ``matching``
    says which is which.

    Attributes:
        accuracy: fraction of the images that show a particle whose found state stands for the true
            one.
        matching: true state that every found state stands for, `UNMATCHED` for none.
        confusion: images of every true state (row) in every found one (column); junk left out.
        true_populations: fractions of the true states among the images that show a particle.
        label_populations: fractions of the true states as the run has them from best states: of
            the found state that stands for each, among the images that are more likely a particle
            than junk; 0 where none does.
        posterior_populations: the same from the posterior, each image weighted by how likely it is
            to show a particle; None where no posterior is known.
        mean_posterior: mean posterior probability of the best state, over the images that show a
            particle; None where none is known.
        calibration: reliability table of it; None likewise.
        junk_auc: area under the ROC curve of the junk probability; None where none is known, or
            the truth has no junk, or nothing else.
        n_judged, n_junk: images that show a particle, and that do not.
    """

    accuracy: float
    matching: Int64[np.ndarray, " found"]
    confusion: Int64[np.ndarray, "true found"]
    true_populations: Float64[np.ndarray, " true"]
    label_populations: Float64[np.ndarray, " true"]
    posterior_populations: Float64[np.ndarray, " true"] | None
    mean_posterior: float | None
    calibration: Calibration | None
    junk_auc: float | None
    n_judged: int
    n_junk: int

    @property
    def overconfidence(self) -> float | None:
        """Mean posterior minus accuracy; None where no posterior is known."""
        return None if self.mean_posterior is None else self.mean_posterior - self.accuracy

    @property
    def population_error(self) -> float:
        """Largest difference of a population from the true one, of the posterior if known."""
        found = self.posterior_populations
        found = self.label_populations if found is None else found
        return float(np.abs(found - self.true_populations).max())

    def summary(self) -> str:
        """A few lines for people."""
        found = self.posterior_populations
        found = self.label_populations if found is None else found
        shares = ", ".join(
            f"{share:.3f} (true {true:.3f})"
            for share, true in zip(found, self.true_populations, strict=True)
        )
        lines = [
            f"state accuracy        {self.accuracy:.3f}  ({self.n_judged} particles)",
            f"populations           {shares}",
        ]
        if self.overconfidence is not None:
            lines.append(
                f"mean posterior        {self.mean_posterior:.3f}  "
                f"({self.overconfidence:+.3f} of the accuracy)"
            )
        if self.junk_auc is not None:
            lines.append(f"junk AUC              {self.junk_auc:.4f}  ({self.n_junk} images)")
        return "\n".join(lines)


def state_accuracy(
    states: Int[np.ndarray, " n"],
    true: Int[np.ndarray, " n"],
    *,
    n_states: int | None = None,
    probability: Float[np.ndarray, " n"] | None = None,
    posterior: Float[np.ndarray, "n found"] | None = None,
    junk_probability: Float[np.ndarray, " n"] | None = None,
    matched: bool = True,
) -> StateAccuracy:
    """Judge a classification against the truth.

    Args:
        states: best state of every image, from 0.
        true: true state, from 0; `JUNK` where the image shows no particle.
        n_states: number of states of the run, those without an image included; by default from
            the posterior or the largest label.
        probability: posterior probability of the best state, given that the image shows a
            particle; by default the largest of ``posterior``.
        posterior: the same of every state.
        junk_probability: that the image shows none.
        matched: find which found state stands for which true one; otherwise those of the same
            number do, as in a run that was told the states in order.

    Raises:
        ValueError: lengths differ, labels are negative or too large, or no image shows a particle.
    """
    states, true = np.asarray(states), np.asarray(true)
    _require_same_length(states, true, probability, posterior, junk_probability)
    if n_states is None:
        n_states = int(states.max(initial=0)) + 1 if posterior is None else len(posterior.T)
    shown = true != JUNK
    if not shown.any():
        raise ValueError("no image shows a particle: all of the true states are junk")
    n_true = int(true.max()) + 1
    confusion = confusion_matrix(states[shown], true[shown], n_states, n_true)
    if matched:
        matching = match_states(confusion)
    else:
        numbers = np.arange(n_states)
        matching = np.where(numbers < n_true, numbers, UNMATCHED)
    correct = matching[states] == true
    if probability is None and posterior is not None:
        probability = np.asarray(posterior).max(axis=1)
    junk = np.zeros(len(true)) if junk_probability is None else np.asarray(junk_probability)
    mean = reliability = None
    if probability is not None:
        mean = float(np.mean(probability[shown], dtype=np.float64))
        reliability = calibration(probability[shown], correct[shown])
    auc = None
    if junk_probability is not None and not shown.all():
        auc = area_under_roc(junk, ~shown)
    one_hot = np.eye(n_states)[states]
    return StateAccuracy(
        accuracy=float(np.mean(correct[shown])),
        matching=matching,
        confusion=confusion,
        true_populations=confusion.sum(axis=1) / shown.sum(),
        label_populations=_populations(one_hot, (junk < 0.5).astype(float), matching, n_true),
        posterior_populations=None
        if posterior is None
        else _populations(np.asarray(posterior, np.float64), 1.0 - junk, matching, n_true),
        mean_posterior=mean,
        calibration=reliability,
        junk_auc=auc,
        n_judged=int(shown.sum()),
        n_junk=int((~shown).sum()),
    )


def confusion_matrix(
    states: Int[np.ndarray, " n"], true: Int[np.ndarray, " n"], n_states: int, n_true: int
) -> Int64[np.ndarray, "true found"]:
    """Images of every true state (row) in every found state (column).

    Raises:
        ValueError: lengths differ, or a label is negative or too large.
    """
    states, true = np.asarray(states), np.asarray(true)
    _require_same_length(states, true)
    for what, labels, count in (("found", states, n_states), ("true", true, n_true)):
        wrong = np.flatnonzero((labels < 0) | (labels >= count))
        if len(wrong):
            raise ValueError(
                f"the {what} state of image {wrong[0]} is {labels[wrong[0]]}; there are {count}, "
                f"0 to {count - 1}"
            )
    flat = true.astype(np.int64) * n_states + states
    return np.bincount(flat, minlength=n_true * n_states).reshape(n_true, n_states)


def match_states(
    confusion: Int[np.ndarray, "true found"],
) -> Int64[np.ndarray, " found"]:
    """The true state that every found one stands for, so that most images agree.

    One to one: where there are more found states than true ones, some stand for none
    (`UNMATCHED`). Kuhn, Naval Res. Logist. Q. 2 (1955) 83.
    """
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    matching = np.full(confusion.shape[1], UNMATCHED, np.int64)
    matching[columns] = rows
    return matching


def area_under_roc(score: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Probability that a positive scores above a negative, ties counted half.

    From ranks: the statistic of Mann & Whitney, Ann. Math. Stat. 18 (1947) 50.

    Raises:
        ValueError: lengths differ, or there are no positives or no negatives.
    """
    score, positive = np.asarray(score, np.float64), np.asarray(positive)
    _require_same_length(score, positive)
    n, n_positive = len(positive), int(positive.sum())
    if n_positive in (0, n):
        raise ValueError("positives and negatives are needed, at least one of each")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive)))


def adjusted_rand(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    """Adjusted Rand index of two partitions: 1 if they are the same, about 0 if independent.

    Labels are names only. Over pairs of images, with n_ij those with labels i and j and C(m) the
    number of pairs among m: (Σ C(n_ij) − E) ÷ (½ (Σ C(n_i·) + Σ C(n_·j)) − E), where
    E = Σ C(n_i·) Σ C(n_·j) ÷ C(n) is its mean over random partitions with the same sizes.
    Hubert & Arabie, J. Classif. 2 (1985) 193, eq. 5. Where that is 0 ÷ 0, both partitions have
    one set or both have none but single images: they are the same.

    Raises:
        ValueError: lengths differ, or there are fewer than two images.
    """
    first, second = np.asarray(first), np.asarray(second)
    _require_same_length(first, second)
    if len(first) < 2:
        raise ValueError(f"{len(first)} images have no pairs; two at least are needed")
    a = np.unique(first, return_inverse=True)[1].reshape(-1)
    b = np.unique(second, return_inverse=True)[1].reshape(-1)
    table = confusion_matrix(b, a, int(b.max()) + 1, int(a.max()) + 1)
    together, within_a, within_b = (
        _pairs(counts) for counts in (table, table.sum(axis=1), table.sum(axis=0))
    )
    all_pairs = _pairs(np.array([len(first)]))
    # Times C(n), in whole numbers of any size: nothing is rounded, and 0 ÷ 0 is seen for certain.
    chance = within_a * within_b
    possible = (within_a + within_b) * all_pairs - 2 * chance
    if possible == 0:
        return 1.0
    return 2 * (together * all_pairs - chance) / possible


def registers_within(
    chosen: Bool[np.ndarray, " n"],
    poses: Float[np.ndarray, "n 3 3"],
    true: Float[np.ndarray, "n 3 3"],
    group: PointGroup,
    kept: PointGroup,
) -> RegisterAgreement:
    """Registers of the particles of one state against true ones, up to one operator for all.

    A register means something only within its state, so a particle should be chosen if the state
    is both the found and the true one. ``correct`` of the result is of the chosen particles.

    Args:
        chosen: the particles of the state.
        poses: poses with the register applied.
        true: true poses.
        group: G, from which the state was relaxed.
        kept: H, which it kept.

    Raises:
        ValueError: nothing is chosen, or H is not a subgroup of G.
    """
    return register_agreement(poses[chosen], true[chosen], group, kept)


def _populations(
    posterior: Float64[np.ndarray, "n found"],
    weight: Float64[np.ndarray, " n"],
    matching: Int64[np.ndarray, " found"],
    n_true: int,
) -> Float64[np.ndarray, " true"]:
    """Fractions of the true states; what stands for none keeps its share of the whole."""
    found = weight @ posterior
    total = found.sum()
    populations = np.zeros(n_true)
    known = matching != UNMATCHED
    populations[matching[known]] = found[known] / total if total > 0 else 0.0
    return populations


def _pairs(counts: Int64[np.ndarray, "..."]) -> int:
    return sum(n * (n - 1) // 2 for n in counts.reshape(-1).tolist())


def _require_same_length(first: np.ndarray, *others: np.ndarray | None) -> None:
    lengths = [len(first), *(len(other) for other in others if other is not None)]
    if len(set(lengths)) > 1:
        raise ValueError(
            "labels and probabilities of the same images are needed; there are "
            f"{', '.join(map(str, lengths))}"
        )
