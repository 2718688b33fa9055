"""What stays fixed during a refinement: images, groups, masks, boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int, Int8

from jaxrelax.geometry import (
    PointGroup,
    RightCosets,
    parse_group,
    point_group,
    right_cosets,
    subgroup,
)
from jaxrelax.imaging import (
    CTFParameters,
    ImageGeometry,
    NoiseModel,
    half_spectrum,
    image_geometry,
    resample_map,
    working_box,
)
from jaxrelax.imaging.chunks import equal_part, fitting, on_cpu
from jaxrelax.inference import Hypotheses, Junk, Latent, Model, PoseSearch, Register, SymmetricState
from jaxrelax.io import InputError, Particles, Units, every_row
from jaxrelax.reconstruction import density_mask, independent_fraction, soft_sphere
from jaxrelax.refinement.components import Mode, Relax, Specimen
from jaxrelax.refinement.image_source import ImageSource
from jaxrelax.refinement.workers import Workers, alone

# Shell limits come from this ladder, so that a whole run compiles a bounded number of programs; a
# rung is about a fifth above the one before.
LADDER = (6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 57, 68, 80, 96, 114, 136, 160, 192, 228,
          272, 320, 384)  # fmt: skip
# Rungs nearer to each other than this cost a program and save nothing.
LADDER_STEP = 1.08
# Accumulated beyond the scored band, so that the FSC can show whether there is more.
HEADROOM = 1.25
# Of Nyquist: beyond it slices are interpolated worst, and folds would be accumulated at full size.
SCORED_SHARE = 0.9
# Shells beyond the band over which maps fall smoothly to nothing.
MARGIN = 2
BATCH_STEP, MOST_IMAGES = 32, 512
# Edge of the map's box over the particle's diameter. What trilinear interpolation of the twofold
# oversampled transform leaves of the neighbouring copies at the end of the particle grows with the
# narrowness of the box: 4 % of the amplitude where the box is 1.5 times as wide, 9 % here.
ROOM = 1.1
# Over which the sphere around the particle falls to nothing, at least.
SPHERE_EDGE_ANGSTROM, SPHERE_EDGE_PX = 10.0, 3.0


class Problem:
    """Inputs of a refinement and everything derived from them once."""

    def __init__(
        self,
        particles: Particles,
        *,
        mode: Mode,
        relax: Relax | None,
        symmetry: str,
        noise: NoiseModel,
        map_box: int,
        map_pixel_size_angstrom: float,
        particle_diameter_angstrom: float,
        register_mask: Float32[np.ndarray, "b b b"] | None,
        half_set: Int8[np.ndarray, " n"],
        fold: Int[np.ndarray, " n"],
        units: Units | None = None,
        normalise: bool | Sequence[bool],
        seed: int,
        cache_bytes: int,
        max_alignment_resolution_angstrom: float | None = None,
        workers: Workers | None = None,
    ):
        self.particles = particles
        self.mode = mode
        self.relax = relax
        self.noise = noise
        self.map_box = map_box
        self.map_pixel_size_angstrom = map_pixel_size_angstrom
        self.particle_diameter_angstrom = particle_diameter_angstrom
        self.register_mask = register_mask
        self.half_set = half_set
        self.fold = fold
        # What shares noise: never on two sides, and exchanged as a whole in tests.
        self.units = every_row(len(particles)) if units is None else units
        self.seed = seed
        self.max_alignment_resolution_angstrom = max_alignment_resolution_angstrom
        self.workers = alone() if workers is None else workers
        # At least two, so that a half-set can be judged from within.
        self.n_folds = max(int(fold.max()) + 1, 2)
        self.cross_fitted = relax is None or relax.cross_fit > 1
        self.group, self.subgroup = relaxation_groups(relax, symmetry)
        self.registers: RightCosets = right_cosets(self.group, self.subgroup)
        self.images = ImageSource(
            particles,
            [0.5 * particle_diameter_angstrom / g.pixel_size_angstrom for g in particles.optics],
            normalise,
            cache_bytes,
            self.own,
            self.workers,
        )
        self._geometries: dict[tuple[int, int, int], ImageGeometry] = {}

    @property
    def n_registers(self) -> int:
        """Number of registers, |G|/|H|; 1 without relaxation."""
        return len(self.registers.representatives)

    @cached_property
    def model(self) -> Model:
        """What is unknown of an image besides its pose."""
        latents: list[Latent] = []
        if self.n_registers > 1:
            latents += [SymmetricState(), Register(self.registers.representatives)]
        return Model((*latents, Junk(self.n_shells)))

    @cached_property
    def hypotheses(self) -> Hypotheses:
        """The model's table: what the channels of a volume stand for."""
        return self.model.table

    @property
    def n_shells(self) -> int:
        """Shells 0 … Nyquist of the map."""
        return self.map_box // 2 + 1

    @property
    def last_shell(self) -> int:
        """The last shell that is ever used: Nyquist itself is left out."""
        return min(
            [self.map_box // 2 - 1]
            + [
                int(
                    # What the images hold in every direction.
                    (g.box // 2 - 1)
                    * g.aberrations.stretches[1]
                    * self.box_edge_angstrom
                    / (g.box * g.pixel_size_angstrom)
                )
                for g in self.particles.optics
            ]
        )

    @property
    def box_edge_angstrom(self) -> float:
        """Edge of the map's box in Å."""
        return self.map_box * self.map_pixel_size_angstrom

    def resolution(self, shell: int) -> float:
        """Resolution of a shell in Å."""
        return self.box_edge_angstrom / max(shell, 1)

    def shell(self, resolution_angstrom: float) -> int:
        """Last shell at or below a resolution, between 1 and the last one used."""
        return int(np.clip(self.box_edge_angstrom / resolution_angstrom, 1, self.last_shell))

    @property
    def last_score_shell(self) -> int:
        """The last shell that may score images."""
        if self.max_alignment_resolution_angstrom is None:
            return self.last_shell
        return self.shell(self.max_alignment_resolution_angstrom)

    @cached_property
    def rungs(self) -> list[int]:
        """The ladder up to the last shell used; what is accumulated ends at the last but one.

        Maps of what was accumulated then serve whatever they may score.
        """
        ceiling = max(int(SCORED_SHARE * self.last_shell), 1)
        below = [r for r in LADDER if LADDER_STEP * r <= ceiling]
        return sorted({*below, ceiling, self.last_shell})

    def rung(self, shell: int | float) -> int:
        """The ladder's first rung at or beyond ``shell``; the last shell used at most."""
        return next((r for r in self.rungs if shell <= r), self.last_shell)

    def accumulated(self, score_shell: int, grow: bool) -> int:
        """Last shell to accumulate when images are scored up to ``score_shell``."""
        rung = self.rung(score_shell)
        if grow:
            rung = max(rung, min(self.rung(HEADROOM * rung), self.rungs[-2]))
        return min(rung + MARGIN, self.last_shell)

    def whole(self, accumulated: int) -> int:
        """Last shell of a map that is not in the margin, where it falls to nothing."""
        return accumulated - MARGIN

    def search(
        self, score_shell: int, everywhere: bool, sigma_offset_angstrom: float
    ) -> PoseSearch:
        """How poses are searched when images are scored up to a shell."""
        specimen = Specimen(
            self.particle_diameter_angstrom,
            self.group,
            sigma_offset_angstrom,
            self.hypotheses.guide,
        )
        return self.mode.search(specimen, self.resolution(score_shell), everywhere)

    def geometry(self, group: int, max_shell: int, score_shell: int) -> ImageGeometry:
        """Image geometry of an optics group up to ``max_shell``, scored band first."""
        key = (group, max_shell, score_shell)
        if key not in self._geometries:
            optics = self.particles.optics[group]
            packing = half_spectrum(
                optics.box,
                self.image_shell(group, max_shell),
                self.image_shell(group, score_shell),
                optics.aberrations,
            )
            self._geometries[key] = image_geometry(
                packing,
                optics.pixel_size_angstrom,
                self.map_box,
                self.map_pixel_size_angstrom,
                optics.aberrations,
            )
        return self._geometries[key]

    def image_shell(self, group: int, shell: int) -> int:
        """Last shell of the images of an optics group inside a shell of the map."""
        optics = self.particles.optics[group]
        ratio = optics.box * optics.pixel_size_angstrom / self.box_edge_angstrom
        return int(np.clip(np.floor(shell * ratio), 1, optics.box // 2 - 1))

    def ctf_parameters(self, rows: Int[np.ndarray, " batch"]) -> CTFParameters:
        """CTF parameters of some particles, on the devices."""
        p = self.particles
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
        channels = len(self.hypotheses)
        numbers = channels + 12 if on_cpu() else 32 * channels
        return min(fitting(4 * n_pixels * numbers), MOST_IMAGES)

    @cached_property
    def _largest_fold(self) -> int:
        """Most images of one half-set, fold and optics group that a process has."""
        largest = int(np.bincount(self._groupings).max())
        return -(-largest // self.workers.count)

    @cached_property
    def _groupings(self) -> Int[np.ndarray, " n"]:
        """Number of the half-set, fold and optics group of every image."""
        keys = np.stack([self.half_set, self.fold, self.particles.optics_group], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def own(self) -> Bool[np.ndarray, " n"]:
        """Images that this process reads: an equal part of every half-set, fold and optics group.

        Parts are consecutive in the table, so that processes read different parts of the stacks.
        """
        own = np.zeros(len(self.particles), bool)
        for number in range(self._groupings.max() + 1):
            rows = np.flatnonzero(self._groupings == number)
            # Who has one more than others differs from group to group.
            part = (self.workers.index + number) % self.workers.count
            own[np.array_split(rows, self.workers.count)[part]] = True
        return own

    def batches(self, half: int, fold: int | None) -> list[tuple[int, np.ndarray]]:
        """Rows of a half-set (and fold), by optics group: (group, rows)."""
        chosen = self.half_set == half
        if fold is not None:
            chosen &= self.fold == fold
        return [
            (g, rows)
            for g in range(len(self.particles.optics))
            if len(rows := np.flatnonzero(chosen & (self.particles.optics_group == g)))
        ]

    def mine(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " mine"]:
        """Those of some rows that this process reads."""
        return rows[self.own[rows]]

    @cached_property
    def normaliser(self) -> list[int]:
        """Indices in G of register representatives that keep H in place: possible alignments."""
        table, inverse = self.group.multiplication_table, self.group.inverse
        members = [self.group.index_of(h) for h in self.subgroup.operators]
        found = []
        for representative in self.registers.representatives:
            g = self.group.index_of(representative)
            conjugate = {int(table[table[g, h], inverse[g]]) for h in members}
            if conjugate == set(members):
                found.append(g)
        return found

    def sphere(self, box: int) -> Float32[np.ndarray, "b b b"]:
        """Soft spherical mask of the particle on a working box."""
        pixel = self.box_edge_angstrom / box
        radius = 0.5 * self.particle_diameter_angstrom / pixel
        edge = min(max(SPHERE_EDGE_PX, SPHERE_EDGE_ANGSTROM / pixel), 0.5 * box - radius)
        return soft_sphere(box, radius, edge)

    def density_mask(
        self,
        first: Float32[np.ndarray, "b b b"],
        second: Float32[np.ndarray, "b b b"],
        *,
        faintest: float = 1.0,
    ) -> Float32[np.ndarray, "b b b"]:
        """Mask of what stands out in two unregularised half-maps on a working box.

        Where they are in different registers what breaks the symmetry counts as noise, too.
        ``faintest`` is that of :func:`jaxrelax.reconstruction.density_mask`.
        """
        return density_mask(
            first,
            second,
            self.box_edge_angstrom / len(first),
            0.5 * self.particle_diameter_angstrom,
            self.group,
            faintest=faintest,
        )

    def register_mask_at(self, box: int) -> Float32[np.ndarray, "b b b"]:
        """The register mask on a working box."""
        if self.register_mask is None:
            raise ValueError("this refinement has no register mask")
        return np.clip(resample_map(self.register_mask, box), 0.0, 1.0)

    def independent_fraction(self, box: int) -> float:
        """Share of Fourier coefficients that the sphere leaves independent."""
        return independent_fraction(self.sphere(box))


def particle_box(image_box: int, pixel_size_angstrom: float, diameter_angstrom: float) -> int:
    """Box in which the map of a particle is refined, at most that of the images.

    Images need room around the particle for what the CTF spreads; their map does not. Volumes,
    sums and transforms grow with the third power of the box, and a typical image is half as wide
    again as its particle.

    Args:
        image_box: of the images.
        pixel_size_angstrom: of images and map.
        diameter_angstrom: of the particle's sphere.
    """
    diameter = diameter_angstrom / pixel_size_angstrom
    edge = max(SPHERE_EDGE_PX, SPHERE_EDGE_ANGSTROM / pixel_size_angstrom)
    needed = max(ROOM * diameter, diameter + 2.0 * edge)
    return min(image_box, working_box(math.ceil(0.5 * needed) - 1))


def relaxation_groups(relax: Relax | None, symmetry: str) -> tuple[PointGroup, PointGroup]:
    """(G, H): relaxed from G to H; without relaxation both are the map's symmetry.

    Raises:
        InputError: unknown groups, or H not contained in G.
    """
    try:
        if relax is None:
            group = parse_group(symmetry)
            return group, group
        group = parse_group(relax.group)
        kept = point_group("C1") if relax.to.upper() == "C1" else subgroup(group, relax.to)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    if kept.order == group.order:
        raise InputError(
            f"relaxing {group.name} to {kept.name} leaves nothing to relax; give a smaller group"
        )
    return group, kept
