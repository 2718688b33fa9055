"""``jaxrelax simulate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxrelax.simulate import Simulation, SimulationResult, simulate


@dataclass(frozen=True)
class Options(Simulation):
    """What can be asked of a simulation, under the names that options have in all commands."""

    group: Annotated[str, tyro.conf.arg(name="symmetry", aliases=["--group"])] = Simulation.group
    """Symmetry that the consensus poses assume: a name (Cn, Dn, T, O, I, I1 to I4; in RELION's
    setting) or a text file of operators."""
    swing_deg: Annotated[float, tyro.conf.arg(name="swing", aliases=["--swing-deg"])] = (
        Simulation.swing_deg
    )
    """Root-mean-square angle in degrees by which the partner is turned about the point where it
    touches the body, anew in every image (isotropic: each component of the rotation vector is
    normal with this over √3). A model's partner are the chains that break the symmetry."""
    hinge_angstrom: Annotated[
        tuple[float, float, float] | None,
        tyro.conf.arg(name="hinge", aliases=["--hinge-angstrom"]),
    ] = Simulation.hinge_angstrom
    """Point x y z (Å) about which they swing, from the centre of the box; by default where they
    touch the rest."""


@dataclass(frozen=True)
class Command:
    """Make particle images with known truth: consensus poses, true poses, maps and a stack."""

    source: tyro.conf.Positional[str]
    """Atomic model (.cif, .pdb), map (.mrc), or the word phantom."""
    out: Path
    """Folder to write into."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=Options)

    def run(self) -> SimulationResult:
        """Simulate, and say where the files are."""
        result = simulate(self.source, self.out, self.options)
        measured = result.measured
        print(
            f"{self.options.n_images} images of {self.options.box} px, SNR "
            f"{measured['snr']:.3g}, particle diameter "
            f"{measured['particle_diameter_angstrom']:.0f} Å, asymmetric power "
            f"{100 * measured['asymmetric_power_fraction']:.2g} %"
        )
        swing = measured.get("swing")
        if swing is not None and swing["rms_angle_deg"] is not None:
            x, y, z = swing["hinge_angstrom"]
            chains = f"chains {', '.join(swing['chains'])}" if swing["chains"] else "the partner"
            print(f"{chains}: {swing['rms_angle_deg']:.1f}° rms about {x:.1f} {y:.1f} {z:.1f} Å")
        paths = (result.particles, result.truth, result.reference, result.truth_map)
        for path in (*paths, result.truth_part, result.part_mask):
            if path is not None:
                print(f"  {path}")
        return result
