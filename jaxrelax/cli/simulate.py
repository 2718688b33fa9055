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
        for path in (result.particles, result.truth, result.reference, result.truth_map):
            print(f"  {path}")
        return result
