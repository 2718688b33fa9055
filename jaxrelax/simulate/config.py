"""What can be asked of a simulation, and what of it makes no sense."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from jaxrelax.geometry import Aberrations
from jaxrelax.geometry.aberrations import IDENTITY
from jaxrelax.io.aberrations import (
    COS3,
    COS4,
    SIN3,
    SIN4,
    STRETCHES,
    aberrations_of,
    with_terms,
)
from jaxrelax.io.errors import InputError

MODEL_ONLY = ("assembly", "delete_chains", "partner_chains", "swing_chains")
MAP_ONLY = ("map_pixel_size_angstrom",)
SWING_ONLY = ("swing_chains", "hinge_angstrom")
PHANTOM_ONLY = ("protomer_kda", "partner_kda", "phantom_seed")


@dataclass(frozen=True)
class Simulation:
    """Options of `simulate`; the defaults make 1,000 images of a C4 particle with one partner."""

    n_images: int = 1000
    """Number of images."""
    box: int = 128
    """Side of the images in pixels, even."""
    pixel_size_angstrom: float = 2.6
    """Pixel size in Å."""
    group: str = "C4"
    """Symmetry that the consensus poses assume: a name (Cn, Dn, T, O, I, I1 to I4; in
    RELION's setting) or a text file of operators."""
    assembly: str = "1"
    """Atomic models: name of the biological assembly; '' takes the coordinates as they are."""
    delete_chains: tuple[str, ...] = ()
    """Atomic models: chains of the assembly that only the fully symmetric particles carry."""
    partner_chains: tuple[str, ...] = ()
    """Atomic models: the partner's chains at each site, such as 'H1,L1' 'H3,L3'; see occupancy."""
    occupancy: str = "one"
    """Which sites carry the partner: 'one' (the first), 'all', one digit per site such as '1010',
    a probability with a decimal point such as '0.5', drawn for each site of each particle, or
    subsets of the sites with their shares of the particles, which add up to 1, such as
    '0000:0.25,1000:0.1,1010:0.4,1111:0.25'."""
    swing_deg: float = 0.0
    """Root-mean-square angle by which the partner is turned about the point where it touches the
    body, anew in every image (isotropic: each component of the rotation vector is normal with this
    over √3). A model's partner are the chains that break the symmetry."""
    swing_chains: tuple[str, ...] = ()
    """Atomic models: chains that swing, instead of those that break the symmetry."""
    hinge_angstrom: tuple[float, float, float] | None = None
    """Point x y z about which they swing, from the centre of the box; by default where they touch
    the rest."""
    protomer_kda: float = 30.0
    """Phantom: mass of each of the symmetric subunits."""
    partner_kda: float = 45.0
    """Phantom: mass of the partner at one site."""
    phantom_seed: int = 0
    """Phantom: another seed gives another object."""
    bfactor_angstrom2: float | None = None
    """Blur exp(-B k²/4) of the object; by default 100 Å² for atoms and 0 for maps."""
    resolution_angstrom: float | None = None
    """Low-pass of the object (half amplitude); by default only Nyquist limits it."""
    map_pixel_size_angstrom: float | None = None
    """Maps: their pixel size in Å, instead of the header's."""
    snr: float = 0.03
    """Variance of the CTF-modulated signal over that of the noise inside the particle's circle."""
    particle_diameter_angstrom: float | None = None
    """Diameter of the particle's circle; by default that of the object itself."""
    voltage_kv: float = 300.0
    """Acceleration voltage of the first optics group; each further one has 10 % less."""
    spherical_aberration_mm: float = 2.7
    """Spherical aberration."""
    amplitude_contrast: float = 0.1
    """Amplitude contrast Q0, between 0 and 1."""
    phase_shift_deg: float = 0.0
    """Phase shift of a phase plate."""
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    """Beam tilt along x and y (mrad): coma, RELION's rlnBeamTiltX and rlnBeamTiltY."""
    trefoil: tuple[float, float] = (0.0, 0.0)
    """Trefoil (rad Å³): the images have the phase k³ (X cos 3θ + Y sin 3θ)."""
    tetrafoil: tuple[float, float] = (0.0, 0.0)
    """Tetrafoil (rad Å⁴): k⁴ (X cos 4θ + Y sin 4θ) is taken from the argument of the CTF's sine."""
    odd_zernike: tuple[float, ...] = ()
    """Further antisymmetric terms (rad, k in 1/Å) in the order of RELION's rlnOddZernike."""
    even_zernike: tuple[float, ...] = ()
    """Further symmetric terms in the order of RELION's rlnEvenZernike."""
    magnification: tuple[float, float, float, float] = IDENTITY
    """Magnification matrix, rlnMagMat00, 01, 10, 11; images show the transform of the particle at
    M k."""
    defocus_min_um: float = 1.0
    """Least mean defocus of the first optics group; each further one has 0.3 µm more."""
    defocus_max_um: float = 2.5
    """Largest mean defocus of the first optics group."""
    astigmatism_um: float = 0.03
    """Largest difference between the two principal defoci."""
    noise_colour: float = 1.0
    """Excess of the noise amplitude at low resolution: a(k) ~ 1 + colour/(1 + (30 Å k)²), white
    for 0. Each further optics group has half of the first one's colour more."""
    pose_error_deg: float = 1.5
    """Root-mean-square angle between the consensus poses and the true ones (or their mates)."""
    shift_error_angstrom: float = 0.8
    """Root-mean-square length of the error of the consensus origins."""
    max_shift_angstrom: float = 10.0
    """True origins are uniform in a disc of this radius."""
    n_optics_groups: int = 1
    """Number of optics groups; they differ in voltage, defocus and colour of the noise."""
    junk_fraction: float = 0.0
    """Part of the images that do not show the particle."""
    junk_kind: Literal["noise", "object"] = "noise"
    """What junk shows: nothing but noise, or another compact protein of the same scattering."""
    symmetric_fraction: float = 0.0
    """Part of the images that show the fully symmetric particle, all sites occupied (and no chain
    deleted; for a map, its symmetrised self)."""
    seed: int = 0
    """Seed of poses, optics and noise; the same options and seed give the same files."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the pixels in the stack (MRC mode 2, or 12, which is half the size and which RELION
    before version 4 does not read)."""

    def __post_init__(self):
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is {value:g}; it must be between {low:g} and {high:g}.")
        if self.box % 2:
            raise InputError(f"box is {self.box}; it must be even (the centre is box // 2).")
        if self.defocus_max_um < self.defocus_min_um:
            raise InputError(
                f"defocus_max_um ({self.defocus_max_um:g}) is less than defocus_min_um "
                f"({self.defocus_min_um:g})."
            )
        if self.junk_fraction + self.symmetric_fraction > 1.0:
            raise InputError("junk_fraction and symmetric_fraction add up to more than 1.")
        nyquist = 2.0 * self.pixel_size_angstrom
        if self.resolution_angstrom is not None and self.resolution_angstrom < nyquist:
            raise InputError(
                f"resolution_angstrom is {self.resolution_angstrom:g}, beyond Nyquist "
                f"({nyquist:g} Å). Leave it out or choose a smaller pixel."
            )
        if self.swing_deg == 0.0:
            refuse(self, SWING_ONLY, "a rigid particle", "swing_deg is 0")
        if self.junk_kind != "noise" and self.junk_fraction == 0.0:
            raise InputError(f"junk_kind is '{self.junk_kind}' but junk_fraction is 0.")
        low, high = STRETCHES
        stretches = self.aberrations(self.voltage_kv).stretches
        if not low <= min(stretches) <= max(stretches) <= high:
            raise InputError(
                f"magnification {self.magnification} is not the identity but for a few per cent."
            )

    def aberrations(self, voltage_kv: float) -> Aberrations:
        """What the microscope does to the images of an optics group of this voltage."""
        return aberrations_of(
            *self.zernike_terms(),
            self.beam_tilt,
            self.magnification,
            voltage_kv,
            self.spherical_aberration_mm,
        )

    def zernike_terms(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """``rlnOddZernike`` and ``rlnEvenZernike``: what is not beam tilt."""
        odd = with_terms(self.odd_zernike, {COS3: self.trefoil[0], SIN3: self.trefoil[1]})
        even = with_terms(self.even_zernike, {COS4: self.tetrafoil[0], SIN4: self.tetrafoil[1]})
        return odd, even


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("n_images", 1, 10**8),
    ("box", 16, 4096),
    ("pixel_size_angstrom", 0.05, 100.0),
    ("map_pixel_size_angstrom", 0.01, 1e3),
    ("protomer_kda", 1.0, 1e4),
    ("partner_kda", 1.0, 1e4),
    ("bfactor_angstrom2", 0.0, 1e5),
    ("resolution_angstrom", 1e-3, 1e4),
    ("snr", 1e-6, 1e6),
    ("particle_diameter_angstrom", 1e-3, 1e5),
    ("voltage_kv", 10.0, 2000.0),
    ("spherical_aberration_mm", 0.0, 100.0),
    ("amplitude_contrast", 0.0, 0.999),
    ("phase_shift_deg", -360.0, 360.0),
    ("defocus_min_um", -100.0, 100.0),
    ("defocus_max_um", -100.0, 100.0),
    ("astigmatism_um", 0.0, 10.0),
    ("noise_colour", 0.0, 1e3),
    ("pose_error_deg", 0.0, 90.0),
    ("shift_error_angstrom", 0.0, 1e3),
    ("max_shift_angstrom", 0.0, 1e4),
    ("n_optics_groups", 1, 10),
    ("swing_deg", 0.0, 60.0),
    ("junk_fraction", 0.0, 0.99),
    ("symmetric_fraction", 0.0, 1.0),
    ("phantom_seed", 0, 2**63),
    ("seed", 0, 2**63),
)


def refuse(config: Simulation, names: tuple[str, ...], source: str, reason: str) -> None:
    """Raise for those of the named options that were given although they cannot act.

    Raises:
        InputError: names the options, the source and the reason.
    """
    given = [f.name for f in fields(config) if f.name in names and _differs(config, f)]
    if given:
        raise InputError(f"{', '.join(given)}: cannot act on {source}: {reason}.")


def _differs(config: Simulation, field: Any) -> bool:
    return getattr(config, field.name) != field.default


@dataclass(frozen=True)
class SimulationResult:
    """Where a simulation was written, and what was measured on the way.

    ``measured`` is what ``simulation.json`` holds under the same name; ``pattern_maps`` are those
    of the patterns, where sites are occupied at random; ``truth_part`` and ``part_mask`` are those
    of the part that swings, if any does.
    """

    folder: Path
    particles: Path
    truth: Path
    reference: Path
    truth_map: Path
    measured: dict[str, Any]
    pattern_maps: tuple[Path, ...] = ()
    truth_part: Path | None = None
    part_mask: Path | None = None
