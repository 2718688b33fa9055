"""A smooth noise spectrum, for optics groups of few images.

log σ² of a group is a cubic B-spline in the logarithm of the shell: coefficients that all groups
share, and a deviation of the group with a Gaussian prior. Its maximum given the expected residuals
is the M-step of the marginal likelihood (Dempster, Laird & Rubin, J. R. Stat. Soc. B 39 (1977) 1);
the widths of the prior are learned from the groups (empirical Bayes: Efron & Morris, J. Am. Stat.
Assoc. 70 (1975) 311), so that a group of few images borrows from the others what it cannot know.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float64, Int
from scipy.interpolate import BSpline

from jaxrelax.imaging.noise import NoiseModel

DEGREE = 3
# Shells below this lie close on the axis of the spline, those above as their logarithms.
CORNER_SHELL = 6.0
# Shells that no image was scored in count this share of a shell that was, at what they were before.
UNSEEN_SHARE = 0.01
# Shells at the end of what was seen that say how much the spectrum beyond has changed.
JOINED_SHELLS = 3
# A residual below this share of the old power is taken for this.
SMALLEST_RESIDUAL = 1e-6
# In log power: what a spline may rise above the highest or fall below the lowest mean of its group.
OVERSHOOT = 1.0
# Prior of second differences of shared coefficients, in log power: next to nothing.
SECOND_DIFFERENCE = 1.0
# The widths are learned as if two more groups had deviated by three percent.
TYPICAL_WIDTH, TYPICAL_GROUPS = 0.03, 2.0
WIDEST = 1.0  # where learning them starts: a factor of e
# The fit ends this many standard errors from its maximum, and the widths when they move no more.
GRADIENT_TOLERANCE, WIDTH_TOLERANCE = 1e-5, 1e-3
MAX_STEPS, MAX_WIDTH_STEPS = 200, 100


class SmoothNoise(NoiseModel):
    """One smooth spectrum per optics group, shrunk towards what the groups have in common.

    For groups of few images, such as one group per micrograph. `RadialNoise` learns every shell of
    every group on its own. The power at the origin, which the normalisation of the images takes
    away, is not part of the smooth spectrum and is the mean residual. A shell in which nothing
    was scored keeps the shape it had, scaled to join.

    Attributes:
        from_images: estimate it from the image background before the first iteration (shell by
            shell); otherwise start from white noise of unit variance.
        coefficients: of the spline, 4 or more.
    """

    from_images: bool = True
    coefficients: int = 8

    def __check_init__(self):
        if self.coefficients <= DEGREE:
            raise ValueError(
                f"a cubic spline needs {DEGREE + 1} coefficients or more, not {self.coefficients}"
            )

    def update(
        self,
        power: Float64[np.ndarray, "groups shells"],
        residual: Float64[np.ndarray, "groups shells"],
        count: Float64[np.ndarray, "groups shells"],
    ) -> Float64[np.ndarray, "groups shells"]:
        """The smooth spectra that are most probable given the residuals.

        Args:
            power: the spectra before, E|X|² of the unitary transform.
            residual: summed expected residual power.
            count: pixels of the full Fourier plane in that sum.
        """
        if not (count > 0).any():
            return power
        mean = np.divide(residual, count, out=power.copy(), where=count > 0)
        mean = np.maximum(mean, SMALLEST_RESIDUAL * power)
        basis = spline_basis(power.shape[1], self.coefficients)
        means, counts = _with_unseen(power[:, 1:], mean[:, 1:], count[:, 1:])
        found = fit_smooth(basis, means, counts)
        smooth = np.exp(
            np.clip(
                (found.shared + found.deviation) @ basis.T,
                np.log(means.min(axis=1, keepdims=True)) - OVERSHOOT,
                np.log(means.max(axis=1, keepdims=True)) + OVERSHOOT,
            )
        )
        origin = np.where(count[:, :1] > 0, mean[:, :1], smooth[:, :1])
        return np.concatenate([origin, smooth], axis=1)


class SmoothFit(NamedTuple):
    """Spline coefficients of log power.

    Attributes:
        shared: of all groups.
        deviation: of each group from them.
        widths: standard deviation of the deviation's components under its prior: the mean, the
            slope, and so on (`deviation_modes`).
        gradient: norm of the log posterior's gradient, in standard errors; 0 at its maximum.
    """

    shared: Float64[np.ndarray, " coefficients"]
    deviation: Float64[np.ndarray, "groups coefficients"]
    widths: Float64[np.ndarray, " coefficients"]
    gradient: float


def spline_basis(n_shells: int, coefficients: int) -> Float64[np.ndarray, "seen coefficients"]:
    """Cubic B-splines at shells 1 … n_shells − 1, equal knots in log(shell + 6)."""
    place = np.log(np.arange(1, n_shells) + CORNER_SHELL)
    place = (place - place[0]) / max(place[-1] - place[0], 1e-12)
    inner = np.linspace(0.0, 1.0, coefficients - DEGREE + 1)
    knots = np.concatenate([np.zeros(DEGREE), inner, np.ones(DEGREE)])
    return BSpline.design_matrix(place, knots, DEGREE).toarray()


def deviation_modes(coefficients: int) -> Float64[np.ndarray, "coefficients coefficients"]:
    """Orthogonal polynomials over the coefficients, in columns of root mean square 1.

    The first is a factor of the power, the second a slope; where few images tell them apart, the
    prior keeps higher ones small.
    """
    place = np.linspace(-1.0, 1.0, coefficients)
    modes, triangle = np.linalg.qr(np.polynomial.legendre.legvander(place, coefficients - 1))
    return np.sqrt(coefficients) * modes * np.sign(np.diag(triangle))


def fit_smooth(
    basis: Float64[np.ndarray, "seen coefficients"],
    mean: Float64[np.ndarray, "groups seen"],
    count: Float64[np.ndarray, "groups seen"],
) -> SmoothFit:
    """Coefficients of greatest posterior probability, and the widths of their prior.

    Maximises ½ Σ count·(−log σ² − mean/σ²) plus the log prior (a concave function) by L-BFGS in
    coordinates in which the information is the identity, in turn with the EM update of the widths.

    Args:
        basis: splines at the shells.
        mean: mean expected residual power, above 0.
        count: pixels of the full Fourier plane, two of which are one independent number.
    """
    with jax.enable_x64(True):
        shared, amounts, widths, gradient = _fit(
            jnp.asarray(basis), jnp.asarray(mean), jnp.asarray(0.5 * count)
        )
        modes = deviation_modes(basis.shape[1])
        return SmoothFit(
            modes @ np.array(shared), np.array(amounts) @ modes.T, np.array(widths), float(gradient)
        )


def penalised_deviance(
    shared: Float[Array, " coefficients"],
    amounts: Float[Array, "groups coefficients"],
    widths: Float[Array, " coefficients"],
    basis: Float[Array, "seen coefficients"],
    mean: Float[Array, "groups seen"],
    weight: Float[Array, "groups seen"],
) -> Float[Array, ""]:
    """What the fit minimises: minus the log posterior, 0 for spectra equal to the residuals.

    Args:
        shared: amounts of the modes (`deviation_modes`) that all groups have in common.
        amounts: of the modes of deviation in each group.
        widths: of their prior.
        basis, mean: as for `fit_smooth`.
        weight: half its ``count``.
    """
    modes = jnp.asarray(deviation_modes(basis.shape[1]))
    log_power = (shared[None] + amounts) @ (basis @ modes).T
    excess = jnp.log(mean) - log_power
    bend = jnp.diff(modes @ shared, n=2) / SECOND_DIFFERENCE
    prior = 0.5 * jnp.sum(bend**2) + 0.5 * jnp.sum((amounts / widths[None]) ** 2)
    return jnp.sum(weight * (jnp.expm1(excess) - excess)) + prior


class _Whitening(NamedTuple):
    """Cholesky factor of the expected information: a block per group, bordered by the shared."""

    shared: Float[Array, "modes modes"]
    groups: Float[Array, "groups modes modes"]
    lean: Float[Array, "groups modes modes"]  # of a group's amounts on the shared ones

    def whiten(self, shared, amounts):
        leaning = amounts + jnp.einsum("gij,j->gi", self.lean, shared)
        return self.shared.T @ shared, jnp.einsum("gji,gj->gi", self.groups, leaning)

    def colour(self, white):
        shared = _solve_upper(self.shared.T, white[0])
        amounts = _solve_upper(self.groups.mT, white[1][..., None])[..., 0]
        return shared, amounts - jnp.einsum("gij,j->gi", self.lean, shared)


def _solve_upper(triangle, right):
    return jax.scipy.linalg.solve_triangular(triangle, right, lower=False)


def _information(basis, weight, widths) -> tuple[_Whitening, Array]:
    """Whitening of the amounts of the modes, and their posterior variance in every group."""
    modes = jnp.asarray(deviation_modes(basis.shape[1]))
    across, prior = basis @ modes, jnp.diag(widths**-2)
    own = jnp.einsum("gs,si,sj->gij", weight, across, across) + prior[None]
    groups = jnp.linalg.cholesky(own)
    identity = jnp.broadcast_to(jnp.eye(len(prior)), own.shape)
    inverse = jax.scipy.linalg.cho_solve((groups, True), identity)
    bend = jnp.diff(modes, n=2, axis=0) / SECOND_DIFFERENCE
    # What a group says of the shared part, its own integrated out: data and prior in series.
    rest = jnp.sum(prior[None] - prior[None] @ inverse @ prior[None], axis=0) + bend.T @ bend
    variance = jnp.diagonal(inverse, axis1=1, axis2=2)
    return _Whitening(jnp.linalg.cholesky(rest), groups, identity - inverse @ prior[None]), variance


@jax.jit
def _fit(basis, mean, weight):
    """Amounts of the modes that groups share and have, widths, the gradient's norm in the end."""
    n_groups, n_modes = len(mean), basis.shape[1]
    solver = optax.lbfgs(
        learning_rate=None,
        scale_init_precond=False,
        linesearch=optax.scale_by_backtracking_linesearch(
            max_backtracking_steps=40, decrease_factor=0.5
        ),
    )

    def maximum(shared, amounts, widths):
        whitening, variance = _information(basis, weight, widths)

        def loss(white):
            return penalised_deviance(*whitening.colour(white), widths, basis, mean, weight)

        def unfinished(carry):
            step, _, _, gradient = carry
            return (step < MAX_STEPS) & (gradient > GRADIENT_TOLERANCE)

        def advance(carry):
            step, white, memory, _ = carry
            value, gradient = jax.value_and_grad(loss)(white)
            change, memory = solver.update(
                gradient, memory, white, value=value, grad=gradient, value_fn=loss
            )
            return step + 1, optax.apply_updates(white, change), memory, optax.tree.norm(gradient)

        white = whitening.whiten(shared, amounts)
        start = (0, white, solver.init(white), jnp.inf)
        _, white, _, gradient = jax.lax.while_loop(unfinished, advance, start)
        return *whitening.colour(white), variance, gradient

    def learned(amounts, variance):
        moment = jnp.sum(amounts**2 + variance, axis=0)
        typical = TYPICAL_GROUPS * TYPICAL_WIDTH**2
        return jnp.sqrt((typical + moment) / (TYPICAL_GROUPS + n_groups))

    def moving(carry):
        step, _, _, widths, after, _ = carry
        return (step < MAX_WIDTH_STEPS) & (
            jnp.max(jnp.abs(jnp.log(after / widths))) > WIDTH_TOLERANCE
        )

    def again(carry):
        step, shared, amounts, _, widths, _ = carry
        shared, amounts, variance, gradient = maximum(shared, amounts, widths)
        return step + 1, shared, amounts, widths, learned(amounts, variance), gradient

    # Start from the mean power and widths that permit much; given the widths the fit is concave.
    level = jnp.log(jnp.sum(weight * mean) / jnp.sum(weight))
    shared, amounts = level * jnp.eye(n_modes)[0], jnp.zeros((n_groups, n_modes))
    widest = jnp.full(n_modes, WIDEST)
    start = (0, shared, amounts, 2.0 * widest, widest, jnp.inf)
    _, shared, amounts, widths, _, gradient = jax.lax.while_loop(moving, again, start)
    return shared, amounts, widths, gradient


def _with_unseen(
    power: Float64[np.ndarray, "groups seen"],
    mean: Float64[np.ndarray, "groups seen"],
    count: Float64[np.ndarray, "groups seen"],
) -> tuple[Float64[np.ndarray, "groups seen"], Float64[np.ndarray, "groups seen"]]:
    """Mean and count in which shells that nothing was scored in stand for what they were.

    They hold the old power times its change in the last shells that were scored, and count little.
    """
    mean, filled = mean.copy(), count.copy()
    for group, seen in enumerate(count > 0):
        if seen.all():
            continue
        change, share = 1.0, 1.0
        if seen.any():
            last: Int[np.ndarray, " last"] = np.flatnonzero(seen)[-JOINED_SHELLS:]
            weights = count[group, last]
            change = np.average(mean[group, last] / power[group, last], weights=weights)
            share = UNSEEN_SHARE * count[group, seen].mean()
        mean[group, ~seen] = change * power[group, ~seen]
        filled[group, ~seen] = share
    return mean, filled
