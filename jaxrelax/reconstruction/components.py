"""Isotypic components of the asymmetric part: their FSCs, and a gain for each.

What breaks a symmetry seldom breaks all of it alike: a cap on one end of a D7 particle leaves C7,
and all its signal is in one of the four components that are not symmetric. One FSC for them all
would take the noise of the other three for signal as strong as that, and break C7 too.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from jaxrelax.arrays import AnyArray, on_host
from jaxrelax.geometry import PointGroup, is_axis_aligned_permutation, isotypic_weights
from jaxrelax.reconstruction.ball import half_ball, permuted, traced_ball
from jaxrelax.reconstruction.fsc import shell_counts
from jaxrelax.reconstruction.isotypic import apply_gain, gained, gained_maps
from jaxrelax.reconstruction.rotate import map_in_ball, rotated_spectra
from jaxrelax.reconstruction.turning import map_of_ball, sum_of_turned

# Of a shell and its neighbours together, before a component is told from the rest.
FEWEST_COEFFICIENTS = 30.0
# Of the power of the asymmetric part: less is rounding.
NO_POWER = 1e-9
LARGEST_FSC = 0.999


def component_shares(group: PointGroup, subgroup: PointGroup) -> Float64[np.ndarray, " components"]:
    """Share of the Fourier coefficients that an H-invariant map has in each asymmetric component.

    They add up to 1/|H| − 1/|G|; components in which H leaves nothing invariant have none.
    """
    members = [group.index_of(h) for h in subgroup.operators]
    return np.maximum(isotypic_weights(group)[1:, members].mean(axis=1), 0.0)


def component_fsc(
    asymmetric1: Float32[AnyArray, "n n n"],
    asymmetric2: Float32[AnyArray, "n n n"],
    group: PointGroup,
    operators: Int[AnyArray, " shells"],
) -> Float64[np.ndarray, "components shells"]:
    """FSC of every asymmetric component between two (masked) asymmetric parts.

    With c_h = ⟨A₁, h A₂⟩ the cross power of a component is Σ_h w(h) c_{h⁻¹g}: no map need be
    projected.

    Args:
        asymmetric1, asymmetric2: asymmetric parts of the half-maps.
        group: G.
        operators: for each shell the index of g such that ``g A₂`` is in the frame of A₁.
    """
    asymmetric1, asymmetric2 = np.asarray(asymmetric1), np.asarray(asymmetric2)
    operators, n = np.asarray(operators), len(asymmetric1)
    weights = isotypic_weights(group)[1:]
    auto1, _ = _correlations(asymmetric1, asymmetric1, group)
    auto2, cross = _correlations(asymmetric2, asymmetric1, group)
    shells = np.arange(n // 2 + 1)
    aligned = group.multiplication_table[group.inverse[:, None], operators[None]]  # h⁻¹ g
    projected = weights @ cross[aligned, shells[None]]
    power = np.sqrt(np.maximum(weights @ auto1, 0.0) * np.maximum(weights @ auto2, 0.0))
    seen = power > NO_POWER * np.sqrt(auto1[0] * auto2[0])
    return np.divide(projected, power, out=np.zeros_like(power), where=seen)


def _correlations(map_, other, group: PointGroup):
    """⟨V, h V⟩ and ⟨W, h V⟩ per operator and shell."""
    ball = half_ball(len(map_))
    mine, its = (next(rotated_spectra(m, np.eye(3)[None])) for m in (map_, other))
    rows = []
    for turned in rotated_spectra(map_, group.operators):
        for fixed in (mine, its):
            products = np.real(fixed.conj() * turned)
            rows.append(
                np.bincount(ball.shell, ball.multiplicity * products, minlength=len(map_) // 2 + 1)
            )
    return np.array(rows[::2]), np.array(rows[1::2])


def share_of_components(
    fsc: Float[AnyArray, " shells"],
    components: Float[AnyArray, "components shells"],
    counts: Float[AnyArray, "components shells"],
) -> Float64[np.ndarray, "components shells"]:
    """FSCs of the components, each no surer than its number of coefficients allows.

    A component has few coefficients in a shell, so its FSC is averaged with that of neighbouring
    shells until they have enough, and shrunk towards the average of all components, as if it were
    known beforehand that they differ by about that much. The ratio of signal to noise that comes
    out is applied to that of each shell, so that the curve keeps its shape.

    Args:
        fsc: of the whole asymmetric part.
        components: of each component by itself.
        counts: independent coefficients.
    """
    fsc, components, counts = (np.asarray(each) for each in (fsc, components, counts))
    result = np.zeros(components.shape)
    total = counts.sum(axis=0)
    for row, (mine, count) in enumerate(zip(components, counts, strict=True)):
        if not np.any(count > 0):
            continue
        for shell in range(1, len(fsc)):
            near = _neighbours(shell, count)
            whole = float(np.average(fsc[near], weights=total[near]))
            if whole <= 0.0:
                result[row, shell] = fsc[shell]
                continue
            have = float(count[near].sum())
            found = float(np.average(mine[near], weights=np.maximum(count[near], 1e-9)))
            found = (found * have + whole / whole**2) / (have + 1.0 / whole**2)
            ratio = _snr(found) / _snr(whole)
            snr = ratio * _snr(fsc[shell])
            result[row, shell] = snr / (1.0 + snr)
    return result


def _neighbours(shell: int, count) -> slice:
    """The shells around one, as few as have enough coefficients together."""
    for width in range(len(count)):
        near = slice(max(shell - width, 1), shell + width + 1)
        if count[near].sum() >= FEWEST_COEFFICIENTS:
            return near
    return slice(1, len(count))


def _snr(fsc):
    f = np.clip(fsc, 0.0, LARGEST_FSC)
    return f / (1.0 - f)


def component_counts(
    n: int, independent_fraction: float, group: PointGroup, subgroup: PointGroup
) -> Float64[np.ndarray, "components shells"]:
    """Independent coefficients per component and shell of an n-box, under a mask."""
    return component_shares(group, subgroup)[:, None] * shell_counts(n) * independent_fraction


def apply_component_gains(
    map_: Float32[AnyArray, "n n n"],
    gains: Float[AnyArray, "components shells"],
    group: PointGroup,
) -> Float32[AnyArray, "n n n"]:
    """Multiply every component and shell of an asymmetric part by its gain.

    The sum Σ_h [Σ_χ gain_χ w_χ(h)] h V.
    """
    return next(component_gained_maps(map_, gains[None], group))


def component_gained_maps(
    map_: Float32[AnyArray, "n n n"],
    gains: Float[AnyArray, "levels components shells"],
    group: PointGroup,
) -> Iterator[Float32[AnyArray, "n n n"]]:
    """The map with each of several sets of gains, as by :func:`apply_component_gains`.

    It is turned and transformed once for all.
    """
    if not on_host(map_, gains):
        map_ = jnp.asarray(map_, jnp.float32)
        yield from (_gains_on_device(map_, each, group) for each in gains)
        return
    map_, gains = np.asarray(map_), np.asarray(gains)
    if np.all(gains == gains[:, :1]):
        yield from gained_maps(map_, gains[:, 0])
        return
    ball = half_ball(len(map_))
    curves = np.zeros((len(gains), group.order, len(map_) // 2 + 1), np.float32)
    kept = min(gains.shape[2], curves.shape[2])
    curves[..., :kept] = (isotypic_weights(group)[1:].T @ gains)[..., :kept]
    total = np.zeros((len(gains), len(ball.index)), np.complex64)
    for number, spectrum in enumerate(rotated_spectra(map_, group.operators)):
        for level, curve in zip(total, curves[:, number], strict=True):
            level += curve[ball.shell] * spectrum
    for each in total:
        yield map_in_ball(each, len(map_))


def _gains_on_device(map_, gains, group: PointGroup):
    gains = jnp.asarray(gains, jnp.float32)
    if len(gains) == 1:
        return apply_gain(map_, gains[0])
    weights = jnp.asarray(isotypic_weights(group)[1:].T, jnp.float32)
    rotations = jnp.asarray(group.operators, jnp.float32)
    exact = np.array([is_axis_aligned_permutation(g) for g in group.operators])
    by_axes = jnp.stack([permuted(map_, g) for g in group.operators[exact]])
    return _component_gains(
        map_, gains, by_axes, weights[exact], weights[~exact], rotations[~exact]
    )


@jax.jit
def _component_gains(map_, gains, by_axes, exact_weights, weights, rotations):
    n = map_.shape[0]
    kept = min(gains.shape[1], n // 2 + 1)
    exact, others = (
        jnp.pad(
            jnp.matmul(each, gains[:, :kept], precision=jax.lax.Precision.HIGHEST),
            ((0, 0), (0, n // 2 + 1 - kept)),
        )
        for each in (exact_weights, weights)
    )

    def each_by_itself():
        index, frequencies = traced_ball(n)
        radius = jnp.sqrt(jnp.sum(frequencies**2, axis=1).astype(map_.dtype))
        shells = jnp.rint(radius).astype(jnp.int32)

        def add(total, one):
            turned, curve = one
            transform = jnp.fft.rfftn(jnp.fft.ifftshift(turned)).reshape(-1)
            return total + curve[shells] * transform[index], None

        total, _ = jax.lax.scan(add, jnp.zeros(len(index), jnp.complex64), (by_axes, exact))
        if len(rotations):
            total = total + sum_of_turned(map_, rotations, others)
        return map_of_ball(total, n)

    # Where all components are alike no map need be turned.
    return jax.lax.cond(jnp.all(gains == gains[:1]), lambda: gained(map_, gains[0]), each_by_itself)
