"""How images are worked on: devices and processes, streams from disk, sizes of batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from jaxrelax.engine.data import Data
from jaxrelax.engine.image_source import ImageSource
from jaxrelax.engine.rest import Rest
from jaxrelax.engine.workers import Workers, alone
from jaxrelax.imaging import CTFParameters, ImageGeometry, Shells, half_spectrum, image_geometry
from jaxrelax.imaging.chunks import equal_part, fitting, on_cpu
from jaxrelax.io import OpticsGroup

BATCH_STEP, MOST_IMAGES = 32, 512


class Execution:
    """Images on their way to the devices.

    It holds data and shells, for what is worked on are those images up to those shells.

    Args:
        data: the table.
        shells: of the map.
        channels: of the volumes that images are scored against.
        particle_diameter_angstrom: outside of it the background shows.
        normalise: bring each image's background to mean 0 and standard deviation 1; for all
            optics groups, or each.
        cache_bytes: packed bands up to this size are kept between passes.
        workers: devices and processes; by default one device of this process.
        origin_counts: whether the mean of an image says something. States of other mass differ in
            nothing as much as in the origin of Fourier space; but what an image has there is what
            the normalisation of its background has set.
        rest: what surrounds the part that is refined; None: all is refined.
    """

    def __init__(
        self,
        data: Data,
        shells: Shells,
        *,
        channels: int,
        particle_diameter_angstrom: float,
        normalise: bool | Sequence[bool] = False,
        cache_bytes: int = 0,
        workers: Workers | None = None,
        origin_counts: bool = True,
        rest: Rest | None = None,
    ):
        self.data = data
        self.rest = rest
        self.origin_counts = origin_counts
        self.shells = shells
        self.channels = channels
        self.workers = alone() if workers is None else workers
        self.images = ImageSource(
            data.particles,
            [0.5 * particle_diameter_angstrom / g.pixel_size_angstrom for g in self.optics],
            normalise,
            cache_bytes,
            self.own,
            self.workers,
        )
        self._geometries: dict[tuple[int, int, int], ImageGeometry] = {}

    @property
    def optics(self) -> Sequence[OpticsGroup]:
        """Optics groups of the table."""
        return self.data.particles.optics

    @cached_property
    def own(self) -> Bool[np.ndarray, " n"]:
        """Images that this process reads."""
        return self.data.share_of(self.workers.index, self.workers.count)

    def mine(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " mine"]:
        """Those of some rows that this process reads."""
        return rows[self.own[rows]]

    def geometry(self, group: int, max_shell: int, score_shell: int) -> ImageGeometry:
        """Image geometry of an optics group up to ``max_shell``, scored band first."""
        key = (group, max_shell, score_shell)
        if key not in self._geometries:
            optics = self.optics[group]
            packing = half_spectrum(
                optics.box,
                self.image_shell(group, max_shell),
                self.image_shell(group, score_shell),
                optics.aberrations,
            )
            self._geometries[key] = image_geometry(
                packing,
                optics.pixel_size_angstrom,
                self.shells.box,
                self.shells.pixel_size_angstrom,
                optics.aberrations,
            )
        return self._geometries[key]

    def image_shell(self, group: int, shell: int) -> int:
        """Last shell of the images of an optics group inside a shell of the map."""
        optics = self.optics[group]
        ratio = optics.box * optics.pixel_size_angstrom / self.shells.edge_angstrom
        return int(np.clip(np.floor(shell * ratio), 1, optics.box // 2 - 1))

    def ctf_parameters(self, rows: Int[np.ndarray, " batch"]) -> CTFParameters:
        """CTF parameters of some particles, on the devices."""
        p = self.data.particles
        optics = [p.optics[g] for g in p.optics_group[rows]]

        def column(values):
            return self.workers.split(np.asarray(values, np.float32))

        return CTFParameters(
            defocus_u_angstrom=column(p.defocus_u_angstrom[rows]),
            defocus_v_angstrom=column(p.defocus_v_angstrom[rows]),
            defocus_angle_deg=column(p.defocus_angle_deg[rows]),
            phase_shift_deg=column(p.phase_shift_deg[rows]),
            bfactor_angstrom2=column(p.bfactor_angstrom2[rows]),
            voltage_kv=column([o.voltage_kv for o in optics]),
            spherical_aberration_mm=column([o.spherical_aberration_mm for o in optics]),
            amplitude_contrast=column([o.amplitude_contrast for o in optics]),
            scale=None if p.ctf_scale is None else column(p.ctf_scale[rows]),
        )

    def batch_size(self, n_pixels: int) -> int:
        """Images per batch: what one transfer and one program call handle.

        Folds are cut into equal parts, so that hardly any of the work is padding.
        """
        devices = len(self.workers.devices)
        step = math.lcm(BATCH_STEP, devices)
        most = devices * max(64, self._fitting(n_pixels))
        parts = -(-self._largest_fold // most)
        return step * -(-self._largest_fold // (step * parts))

    def chunk_size(self, n_pixels: int) -> int:
        """Images that a device works on at once, so that temporaries fit the cache.

        It divides the part of a batch that a device has.
        """
        part = self.batch_size(n_pixels) // len(self.workers.devices)
        return equal_part(part, self._fitting(n_pixels))

    def _fitting(self, n_pixels: int) -> int:
        # Numbers that a pose search holds for a pixel: on a processor what blocks leave behind (see
        # `in_stages`), on an accelerator, where a chunk is one block, the eight corners as well.
        numbers = self.channels + 12 if on_cpu() else 32 * self.channels
        return min(fitting(4 * n_pixels * numbers), MOST_IMAGES)

    @cached_property
    def _largest_fold(self) -> int:
        """Most images of one half-set, fold and optics group that a process has."""
        largest = int(np.bincount(self.data.groupings).max())
        return -(-largest // self.workers.count)
