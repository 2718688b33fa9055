"""The marginal likelihood of images in NumPy float64, every step written out; no code of jaxrelax.

Two states of C2, each with two registers and a symmetric part, and junk. Slices are read by
trilinear interpolation, as in the package, from transforms summed voxel by voxel.
"""

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import expit, log_softmax, logsumexp

BOX, SHELL, EDGE_ANGSTROM = 12, 5, 64.0
VOLTAGE_KV, CS_MM, Q0, ASTIGMATISM_ANGSTROM, ANGLE_DEG = 300.0, 2.7, 0.1, 400.0, 30.0


def plane():
    """(kx, ky) of the whole plane inside the band, and the shell of each."""
    k = np.arange(-BOX // 2 + 1, BOX // 2)
    ky, kx = (each.ravel() for each in np.meshgrid(k, k, indexing="ij"))
    shell = np.rint(np.hypot(kx, ky)).astype(int)
    inside = shell <= SHELL
    return np.stack([kx, ky], axis=1)[inside], shell[inside]


WAVES, SHELLS = plane()


def transform(images):
    """Unitary transform of real images about pixel BOX // 2, (images, waves)."""
    x = np.arange(BOX) - BOX // 2
    phase = WAVES[:, 1, None, None] * x[None, :, None] + WAVES[:, 0, None, None] * x[None, None]
    return np.einsum("byx,kyx->bk", images, np.exp(-2j * np.pi * phase / BOX)) / BOX


def contrast(defocus):
    """CTFs of mean defoci, (images, waves)."""
    volts = 1e3 * VOLTAGE_KV
    wavelength = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    k = np.hypot(*WAVES.T) / EDGE_ANGSTROM
    angle = np.arctan2(WAVES[:, 1], WAVES[:, 0])
    astigmatic = 0.5 * ASTIGMATISM_ANGSTROM * np.cos(2.0 * (angle - np.deg2rad(ANGLE_DEG)))
    local = np.asarray(defocus)[:, None] + astigmatic
    phase = np.pi * wavelength * local * k**2 - 0.5 * np.pi * 1e7 * CS_MM * wavelength**3 * k**4
    return np.sin(phase + np.arcsin(Q0))


def half_turned(map_):
    """The map turned by 180° about z, voxel by voxel."""
    index = (-np.arange(BOX)) % BOX  # about BOX // 2
    return map_[:, index][:, :, index]


def channels(maps):
    """Of each state: two registers and the symmetric part."""
    found = []
    for map_ in maps:
        symmetric = 0.5 * (map_ + half_turned(map_))
        asymmetric = map_ - symmetric
        found += [symmetric + asymmetric, symmetric + half_turned(asymmetric), symmetric]
    return found


def views(map_, rotations):
    """Slices at k3 = Aᵀ (kx, ky, 0), (images, waves)."""
    x = np.arange(BOX) - BOX // 2
    profile = np.sinc(x / (2.0 * BOX)) ** 2
    corrected = map_ / (profile[:, None, None] * profile[None, :, None] * profile)
    q = np.arange(-BOX - 1, BOX + 2)
    kernel = np.exp(-2j * np.pi * np.outer(q, x) / (2 * BOX))
    grid = np.einsum("zyx,az,by,cx->abc", corrected, kernel, kernel, kernel, optimize=True) / BOX
    flat = np.concatenate([WAVES, np.zeros((len(WAVES), 1))], axis=1)
    point = 2.0 * np.einsum("ki,bij->bkj", flat, rotations)
    low = np.floor(point).astype(int)
    part = point - low
    total = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner), part, 1.0 - part), axis=-1)
        ix, iy, iz = np.moveaxis(low + np.array(corner) + BOX + 1, -1, 0)
        total = total + weight * grid[iz, iy, ix]
    return total


def joint(values, images, rotations):
    """Log of prior times density, (images, hypotheses): six rows of the states, then junk.

    Args:
        values: maps, turns (rad), shifts (px), defocus (Å), noise and object power per shell, and
            logits of the states, of the symmetric parts and of junk.
        images: real, (images, y, x).
        rotations: A before the turns.
    """
    turned = Rotation.from_rotvec(values["turns"]).as_matrix() @ rotations
    # The particle sits at −origin.
    moved = np.exp(2j * np.pi / BOX * (values["shifts"] @ WAVES.T))
    ctf, data = contrast(values["defocus"]), transform(images)
    noise, thing = values["noise"][SHELLS], values["object"][SHELLS]

    def density(residual, power):
        return -0.5 * np.sum(np.abs(residual) ** 2 / power + np.log(2 * np.pi * power), axis=1)

    with np.errstate(divide="ignore"):
        states, particle = log_softmax(values["state"]), np.log(expit(-values["junk"]))
        symmetric, broken = np.log(expit(values["symmetric"])), np.log(expit(-values["symmetric"]))
        junk = np.log(expit(values["junk"]))
    priors = []
    for k in range(2):
        priors += [particle + states[k] + broken[k] - np.log(2.0)] * 2
        priors += [particle + states[k] + symmetric[k]]
    rows = [
        prior + density(data - ctf * moved * views(channel, turned), noise)
        for prior, channel in zip(priors, channels(values["maps"]), strict=True)
    ]
    nothing = density(data, noise[None]), density(data, noise[None] + ctf**2 * thing[None])
    rows.append(junk + np.logaddexp(*nothing) - np.log(2.0))
    return np.stack(rows, axis=1)


def log_marginal(values, images, rotations):
    """Log-density of every image."""
    return logsumexp(joint(values, images, rotations), axis=1)


def simulated(n_images, seed, signal):
    """Values, images drawn from the model but for junk, and rotations."""
    rng = np.random.default_rng(seed)
    x = np.arange(BOX) - BOX // 2
    ball = np.exp(-(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) / 18.0)
    maps = signal * ball * rng.standard_normal((2, BOX, BOX, BOX))
    values = {
        "maps": maps,
        "turns": 0.05 * rng.standard_normal((n_images, 3)),
        "shifts": rng.uniform(-1.0, 1.0, (n_images, 2)),
        "defocus": rng.uniform(4e3, 8e3, n_images),
        "noise": np.linspace(2.0, 0.8, SHELL + 1),
        "object": np.linspace(0.6, 0.1, SHELL + 1),
        "state": np.array([0.3, -0.2]),
        "symmetric": np.array([-0.7, -1.2]),
        "junk": np.array(-1.0),
    }
    rotations = Rotation.random(n_images, rng=rng).as_matrix()
    turned = Rotation.from_rotvec(values["turns"]).as_matrix() @ rotations
    moved = np.exp(2j * np.pi / BOX * (values["shifts"] @ WAVES.T))
    shown = np.stack([views(channel, turned) for channel in channels(maps)])
    shown = shown[np.arange(n_images) % 6, np.arange(n_images)]
    waves = contrast(values["defocus"]) * moved * shown + coloured(values["noise"], n_images, rng)
    return values, real(waves), rotations


def coloured(power, n_images, rng):
    """Noise whose mean power over these images is exactly that of the spectrum, shell by shell."""
    waves = transform(rng.standard_normal((n_images, BOX, BOX)))
    for shell in range(SHELL + 1):
        mine = shell == SHELLS
        waves[:, mine] *= np.sqrt(power[shell] / np.mean(np.abs(waves[:, mine]) ** 2))
    return waves


def real(waves):
    """Images of these coefficients."""
    x = np.arange(BOX) - BOX // 2
    phase = WAVES[:, 1, None, None] * x[None, :, None] + WAVES[:, 0, None, None] * x[None, None]
    return np.einsum("bk,kyx->byx", waves, np.exp(2j * np.pi * phase / BOX)).real / BOX
