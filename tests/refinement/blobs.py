"""Images of Gaussian blobs by their formula, in double precision: what projections are held to.

A blob is its own projection, so nothing is sampled or interpolated: its transform is known at every
frequency, whatever the pose.
"""

from dataclasses import dataclass, field

import numpy as np

from jaxrelax.geometry import Aberrations, matrix_to_euler, random_rotations
from jaxrelax.io import write_map, write_stack
from jaxrelax.io.aberrations import aberration_columns
from jaxrelax.io.star import make_table, write_star_tables

PART = np.array([24.0, -15.0, 18.0])
BODY = np.array([[-12.0, 6.0, 3.0], [3.0, 15.0, -18.0], [-9.0, -18.0, -6.0]])
WEIGHTS = np.array([500.0, 300.0, 400.0])  # of the body's blobs
PART_WEIGHT = 350.0
KV, CS_MM, Q0 = 200.0, 2.0, 0.08


@dataclass
class Group:
    """An optics group."""

    box: int = 48
    pixel: float = 2.5
    n: int = 12
    aberrations: Aberrations = field(default_factory=Aberrations)
    phase_flipped: bool = False
    premultiplied: bool = False
    gain: float = 1.0


@dataclass
class Blobs:
    """Images of some groups, what is known of them, and files."""

    groups: list[Group]
    seed: int = 0
    width: float = 5.0  # Å

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.group = np.repeat(np.arange(len(self.groups)), [g.n for g in self.groups])
        n = len(self.group)
        self.rotations = random_rotations(n, rng)
        self.origins = rng.uniform(-6.0, 6.0, (n, 2))
        self.u = rng.uniform(8e3, 2e4, n)
        self.v = self.u - 400.0
        self.angle = rng.uniform(0.0, 180.0, n)

    @property
    def everything(self):
        """Positions and weights of all blobs."""
        return np.vstack([BODY, PART]), np.append(WEIGHTS, PART_WEIGHT)

    def image(self, i, positions, weights, *, rotation=None, origin=None, defocus=0.0, box=None):
        """One image; a shift of the defocus (Å), and another pose, origin or box where given."""
        group = self.groups[self.group[i]]
        box = group.box if box is None else box
        rotation = self.rotations[i] if rotation is None else rotation
        origin = self.origins[i] if origin is None else origin
        kx, ky = np.meshgrid(np.fft.rfftfreq(box), np.fft.fftfreq(box))
        k = np.stack([kx, ky], axis=-1) / group.pixel
        q = k @ group.aberrations.matrix.T
        seen = (positions @ rotation.T)[:, :2]
        q2 = np.sum(q**2, axis=-1)
        waves = np.exp(-2j * np.pi * np.einsum("yxc,bc->byx", q, seen))
        slice_ = np.einsum("b,byx->yx", weights, waves) * np.exp(-2 * np.pi**2 * self.width**2 * q2)
        image = slice_ * np.exp(2j * np.pi * (k @ origin)) * self._ctf(i, q, defocus)
        flat = q.reshape(-1, 2)
        image = image * np.exp(1j * group.aberrations.odd_phase(flat)).reshape(kx.shape)
        if group.premultiplied:
            image = image * self._ctf(i, q, defocus)
        elif group.phase_flipped:
            image = image * np.sign(self._ctf(i, q, defocus))
        # One dose per area: signal goes with the pixel's edge where the noise is 1.
        amplitude = self.groups[0].pixel / group.pixel
        real = np.fft.irfft2(image, s=(box, box)) * amplitude * group.gain
        return np.fft.fftshift(real)

    def images(self, positions, weights, **other):
        """Those of all particles, which are of one box."""
        n = len(self.group)
        return np.stack([self.image(i, positions, weights, **other) for i in range(n)])

    def _ctf(self, i, q, change):
        volts = KV * 1e3
        wavelength = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
        theta = np.arctan2(q[..., 1], q[..., 0])
        u, v = self.u[i] + change, self.v[i] + change
        defocus = 0.5 * (u + v) + 0.5 * (u - v) * np.cos(2 * (theta - np.deg2rad(self.angle[i])))
        q2 = np.sum(q**2, axis=-1)
        phase = np.pi * wavelength * defocus * q2
        phase -= 0.5 * np.pi * CS_MM * 1e7 * wavelength**3 * q2**2
        even = self.groups[self.group[i]].aberrations.even_phase(q.reshape(-1, 2)).reshape(q2.shape)
        return np.sin(phase + np.arctan(Q0 / np.sqrt(1 - Q0**2)) - even)

    def map(self, positions, weights):
        """The density on the first group's grid; its sum over z is the image."""
        first = self.groups[0]
        axis = first.pixel * (np.arange(first.box) - first.box // 2)
        total = np.zeros((first.box,) * 3)
        norm = (first.pixel / (np.sqrt(2 * np.pi) * self.width)) ** 3
        for centre, weight in zip(positions, weights, strict=True):
            x, y, z = (np.exp(-0.5 * ((axis - c) / self.width) ** 2) for c in centre)
            total += weight * norm * z[:, None, None] * y[:, None] * x
        return total.astype(np.float32)

    def mask(self, radius=17.0):
        """1 where the part is."""
        first = self.groups[0]
        axis = first.pixel * (np.arange(first.box) - first.box // 2)
        x, y, z = ((axis - c) ** 2 for c in PART)
        distance = np.sqrt(z[:, None, None] + y[:, None] + x)
        return np.clip((radius - distance) / 4.0 + 0.5, 0.0, 1.0).astype(np.float32)

    def write(self, folder, images=None, rotations=None, scale=1.0, extra=None):
        """``particles.star`` with its stacks, ``map.mrc`` and ``keep.mrc``; returns the table."""
        folder.mkdir(exist_ok=True)
        names = []
        for number, group in enumerate(self.groups):
            rows = np.flatnonzero(self.group == number)
            mine = [self.image(i, *self.everything) for i in rows] if images is None else images
            write_stack(folder / f"g{number}.mrcs", np.stack(list(mine)), group.pixel)
            names += [f"{i + 1:06d}@g{number}.mrcs" for i in range(len(rows))]
        angles = matrix_to_euler(self.rotations if rotations is None else rotations)
        columns = {
            "rlnImageName": names,
            "rlnOpticsGroup": [str(g + 1) for g in self.group],
            "rlnDefocusU": [f"{x:.6f}" for x in self.u],
            "rlnDefocusV": [f"{x:.6f}" for x in self.v],
            "rlnDefocusAngle": [f"{x:.6f}" for x in self.angle],
            **{
                label: [f"{x:.8f}" for x in values]
                for label, values in zip(
                    ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles, strict=True
                )
            },
            "rlnOriginXAngst": [f"{x:.6f}" for x in self.origins[:, 0]],
            "rlnOriginYAngst": [f"{x:.6f}" for x in self.origins[:, 1]],
            **(extra or {}),
        }
        groups = range(len(self.groups))
        optics = {
            "rlnOpticsGroup": [str(g + 1) for g in groups],
            "rlnOpticsGroupName": [f"opticsGroup{g + 1}" for g in groups],
            "rlnAmplitudeContrast": [f"{Q0}" for _ in groups],
            "rlnSphericalAberration": [f"{CS_MM}" for _ in groups],
            "rlnVoltage": [f"{KV}" for _ in groups],
            "rlnImagePixelSize": [f"{g.pixel}" for g in self.groups],
            "rlnImageSize": [str(g.box) for g in self.groups],
            "rlnCtfDataArePhaseFlipped": [str(int(g.phase_flipped)) for g in self.groups],
            "rlnCtfDataAreCtfPremultiplied": [str(int(g.premultiplied)) for g in self.groups],
        }
        optics |= aberration_columns([g.aberrations for g in self.groups])
        version = "# version 30001"
        tables = [
            make_table("optics", optics, comment=version),
            make_table("particles", columns, comment=version),
        ]
        write_star_tables(folder / "particles.star", tables)
        write_map(folder / "map.mrc", scale * self.map(*self.everything), self.groups[0].pixel)
        write_map(folder / "keep.mrc", self.mask(), self.groups[0].pixel)
        return folder / "particles.star"
