"""Maps made of Gaussians, which are known everywhere and have no power at high frequency."""

import numpy as np


def gaussians(seed: int = 5, number: int = 12, reach: float = 5.0):
    """Centres (x, y, z) in pixels from the centre of the box, and weights."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-reach, reach, (number, 3)), rng.uniform(0.5, 1.5, number)


def sampled(centres, weights, n: int, scale: float = 1.0, sigma: float = 1.7) -> np.ndarray:
    """Their sum on an n-box whose voxels are ``scale`` pixels wide, centred at ``n // 2``."""
    x = (np.arange(n) - n // 2) * scale
    profile = [np.exp(-((x[None] - c[:, None]) ** 2) / (2 * sigma**2)) for c in centres.T]
    return np.einsum("p,pz,py,px->zyx", weights, *profile[::-1]).astype(np.float32)


def blobs(n: int, seed: int = 5, scale: float = 1.0) -> np.ndarray:
    """A lopsided map."""
    return sampled(*gaussians(seed), n, scale)
