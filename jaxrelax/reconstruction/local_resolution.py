"""Local resolution: how finely two half-maps agree around every voxel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Bool, Complex64, Float, Float32, Float64, Int32

from jaxrelax.arrays import AnyArray
from jaxrelax.imaging import rebox_map
from jaxrelax.reconstruction.fsc import cross_power, spectrum

THRESHOLD = 0.5
# Standard deviation of the window, in wavelengths of the band: as much as a ball 4.4 wide.
WINDOW = 1.0
# Standard deviation of a band in the logarithm of the frequency, and how far bands are apart.
BAND_WIDTH = 0.12
BAND_STEP = 1.08
# Where a band ends: 0.2 % of its power lies beyond.
BAND_END = float(np.exp(2.5 * BAND_WIDTH))
# Wavelengths of the first band across the mask: it has some ten independent coefficients.
WAVES_ACROSS = 2.0


def local_resolution(
    first: Float[AnyArray, "n n n"],
    second: Float[AnyArray, "n n n"],
    mask: Float[AnyArray, "n n n"],
    pixel_size_angstrom: float,
    *,
    threshold: float = THRESHOLD,
) -> Float32[np.ndarray, "n n n"]:
    """Where the local Fourier shell correlation of two half-maps falls below a threshold, in Å.

    A local FSC (Cardone, Heymann & Steven, J. Struct. Biol. 184 (2013) 226) without a transform
    per voxel: the half-maps a and b are filtered to a band, and W∗(m a b) / √(W∗(m a²) W∗(m b²)) is
    their correlation around every voxel, with the mask m as a weight and a Gaussian window W whose
    width follows the band's wavelength. So each window holds about 150 independent values in every
    band, and noise correlates by about ±0.08 in it: 0.143 would be reached by noise, 0.5 is not.
    The mask acts after the filter and correlates nothing, so that there is nothing to correct.
    Bands go from coarse to fine and end where nothing is resolved any more; each is made in a box
    that just holds it, and its correlation on every second voxel, between which is interpolated.

    Args:
        first, second: unregularised half-maps in one frame, not masked.
        mask: solvent mask, 0 to 1.
        pixel_size_angstrom: of all.
        threshold: of the local FSC.

    Returns:
        resolution in Å where the mask is above 0.5, and 0 elsewhere. From half of the mask's
        diameter (that of a ball of its volume), where not even this is resolved, to two pixels.

    Raises:
        ValueError: the threshold is not between 0 and 1, or the arrays are no cubes of one size.
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"a threshold of a correlation is between 0 and 1, not {threshold:g}")
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    mask = np.asarray(mask, np.float32)
    n = len(mask)
    if {first.shape, second.shape, mask.shape} != {(n, n, n)}:
        shapes = f"{first.shape}, {second.shape} and {mask.shape}"
        raise ValueError(f"half-maps and mask are cubes of one size, not {shapes}")
    if n % 2:
        first, second, mask = (rebox_map(one, n + 1) for one in (first, second, mask))
        found = local_resolution(first, second, mask, pixel_size_angstrom, threshold=threshold)
        return rebox_map(found, n)
    inside = mask > 0.5
    found = np.zeros((n, n, n), np.float32)
    if not inside.any():
        return found
    # What interpolation needs: the coarse voxels next to one that is asked for.
    near = np.asarray(scipy.ndimage.maximum_filter(inside, 3, mode="wrap"))
    wanted: Bool[np.ndarray, "h h h"] = near[::2, ::2, ::2].astype(bool)
    coarse = np.zeros((n // 2,) * 3, np.float32)
    shells = bands(mask)
    coarse[wanted] = _first_below(first, second, mask, wanted, shells, threshold)
    found[inside] = _between(coarse)[inside]
    found[inside] = n * pixel_size_angstrom / found[inside]
    return found


def bands(mask: Float[np.ndarray, "n n n"]) -> Float64[np.ndarray, " bands"]:
    """Centres of the bands, in cycles per box: evenly in the logarithm, up to Nyquist."""
    n = len(mask)
    diameter = (6.0 * float(np.sum(mask, dtype=np.float64)) / np.pi) ** (1.0 / 3.0)
    first = min(max(WAVES_ACROSS * n / max(diameter, 1.0), 2.0), 0.5 * n)
    count = 1 + int(np.ceil(np.log(0.5 * n / first) / np.log(BAND_STEP)))
    return np.geomspace(first, 0.5 * n, count)


def band_gain(frequency: Float[np.ndarray, "..."], centre: float) -> Float[np.ndarray, "..."]:
    """Gain of a band, a Gaussian of the logarithm of the frequency; 0 beyond its end."""
    distance = np.log(np.maximum(frequency, 1e-6) / centre) / BAND_WIDTH
    return np.where(frequency <= BAND_END * centre, np.exp(-0.5 * distance**2), 0.0)


def _first_below(
    first, second, mask, wanted: Bool[np.ndarray, "h h h"], shells, threshold: float
) -> Float32[np.ndarray, " wanted"]:
    """Frequency, in cycles per box, at which the local FSC of every wanted voxel falls."""
    n = len(mask)
    spectra = [_transform(one) for one in (first, second)]
    white = _whitening(first, second, mask)
    support = _transform(mask)
    frequency = np.full(np.count_nonzero(wanted), shells[-1], np.float32)
    resolved = np.ones(len(frequency), bool)
    before = np.ones(len(frequency), np.float32)  # above any threshold; not used by the first band
    for number, shell in enumerate(shells):
        box = min(n, _even(2.0 * BAND_END * shell + 2.0))
        a, b = (_in_band(one, n, box, shell, white) for one in spectra)
        weight = np.maximum(_inverse(_on_box(support, box), box), 0.0)
        now = _correlation(a, b, weight, shell, wanted)
        falls = resolved & (now < threshold)
        # Between two bands linearly in the logarithm of the frequency.
        last = shells[max(number - 1, 0)]
        part = (before[falls] - threshold) / (before[falls] - now[falls])
        frequency[falls] = last * (shell / last) ** part
        resolved &= ~falls
        before = now
        if not resolved.any():
            break
    return frequency


def _correlation(
    a: Float32[np.ndarray, "b b b"],
    b: Float32[np.ndarray, "b b b"],
    weight: Float32[np.ndarray, "b b b"],
    shell: float,
    wanted: Bool[np.ndarray, "h h h"],
) -> Float32[np.ndarray, " wanted"]:
    """Correlation of two filtered half-maps in the window around every wanted voxel."""
    h, box = len(wanted), len(weight)
    small = min(h, box)
    squared = _squared_frequency(small)
    window = np.exp(-2.0 * (np.pi * WINDOW / shell) ** 2 * np.arange(squared.max() + 1))
    window = window.astype(np.float32)[squared]

    def around(product) -> Float32[np.ndarray, " wanted"]:
        transform = _on_box(_transform(product), small) * window
        return _inverse(_on_box(transform, h), h)[wanted]

    b_weighted = b * weight
    together, of_second = around(a * b_weighted), around(b * b_weighted)
    power = np.sqrt(np.maximum(around(a * a * weight), 0.0) * np.maximum(of_second, 0.0))
    return np.divide(together, power, out=np.zeros_like(power), where=power > 0.0)


def _whitening(first, second, mask) -> Float64[np.ndarray, " shells"]:
    """Per shell one over the amplitude of the masked half-maps.

    An FSC does not ask how strong a shell is; a band of several shells would be decided by its
    coarse end, where density is stronger.
    """
    n = len(mask)
    power = np.zeros(n // 2 + 1)
    for one in (first, second):
        transform = spectrum(one * mask)
        power += cross_power(transform, transform, n)
    shells = np.maximum(np.arange(len(power)), 0.5)
    mean = power / shells**2
    floor = 1e-12 * mean.max()
    return np.sqrt(np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > floor))


def _in_band(
    transform: Complex64[np.ndarray, "z y x"], n: int, box: int, shell: float, white
) -> Float32[np.ndarray, "b b b"]:
    """A half-map filtered to a band, in the box that holds it."""
    squared = _squared_frequency(box)
    radius = np.sqrt(np.arange(squared.max() + 1))
    last = np.minimum(np.rint(radius).astype(int), n // 2)
    gain = band_gain(radius, shell) * white[last] * (radius <= 0.5 * n)
    return _inverse(_on_box(transform, box) * gain.astype(np.float32)[squared], box)


@lru_cache(maxsize=2)
def _squared_frequency(n: int) -> Int32[np.ndarray, "z y x"]:
    f = np.rint(scipy.fft.fftfreq(n, 1.0 / n)).astype(np.int32) ** 2
    x = np.arange(n // 2 + 1, dtype=np.int32) ** 2
    return f[:, None, None] + f[None, :, None] + x


def _transform(map_: Float32[np.ndarray, "n n n"]) -> Complex64[np.ndarray, "z y x"]:
    return np.asarray(scipy.fft.rfftn(map_, workers=-1))


def _inverse(transform: Complex64[np.ndarray, "z y x"], n: int) -> Float32[np.ndarray, "n n n"]:
    return np.asarray(scipy.fft.irfftn(transform, s=(n, n, n), workers=-1))


def _on_box(
    transform: Complex64[np.ndarray, "z y x"], box: int
) -> Complex64[np.ndarray, "zz yy xx"]:
    """The frequencies that both boxes have; voxel 0 stays where it is. Scaled by no factor.

    What lies at the end of the smaller box is nothing: there bands and windows have ended.
    """
    n = len(transform)
    if box == n:
        return transform
    half = min(n, box) // 2
    result = np.zeros((box, box, box // 2 + 1), np.complex64)
    low, high = slice(None, half), slice(-half, None)
    for z in (low, high):
        for y in (low, high):
            result[z, y, : half + 1] = transform[z, y, : half + 1]
    return result


def _even(size: float) -> int:
    """The next even size whose transform is fast."""
    return 2 * (scipy.fft.next_fast_len(int(np.ceil(0.5 * size)), real=True) or 0)


def _between(coarse: Float32[np.ndarray, "h h h"]) -> Float32[np.ndarray, "n n n"]:
    """Linear interpolation of every second voxel to all of them."""
    for axis in range(3):
        shape = list(coarse.shape)
        shape[axis] *= 2
        finer = np.empty(shape, np.float32)
        even, odd = [slice(None)] * 3, [slice(None)] * 3
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        finer[tuple(even)] = coarse
        finer[tuple(odd)] = 0.5 * (coarse + np.roll(coarse, -1, axis))
        coarse = finer
    return coarse
