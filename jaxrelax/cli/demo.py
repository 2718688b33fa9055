"""``jaxrelax demo``: the whole way on made-up data, next to what is possible at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jaxrelax.assessment import consensus_error, oracle_registers, register_accuracy
from jaxrelax.cli import refine as refine_command
from jaxrelax.cli.option_groups import RefinementOptions
from jaxrelax.cli.options import Switch
from jaxrelax.io import OutputFolder, read_map, read_particles
from jaxrelax.refinement import Local
from jaxrelax.simulate import Simulation, simulate

# Small enough to be simulated, refined and judged in about two minutes on two cores.
DATA = Simulation(n_images=400, box=64, pixel_size_angstrom=4.0, snr=0.1)


@dataclass(frozen=True)
class Command:
    """Simulate a C4 particle with one partner, relax its symmetry, and compare with the truth."""

    out: Path = Path("demo_out")
    """Folder for the data and the results."""
    n_images: int = DATA.n_images
    """Number of images."""
    seed: int = DATA.seed
    """Seed of the data and of the refinement."""
    overwrite: Switch = False
    """Replace an earlier demo."""

    def run(self) -> None:
        """Simulate, refine, judge, and say where to look."""
        OutputFolder.create(self.out / "refined", overwrite=self.overwrite)
        config = replace(DATA, n_images=self.n_images, seed=self.seed)
        print(
            f"Simulating {config.n_images} images of a {config.group} particle with one partner …"
        )
        data = simulate("phantom", self.out / "data", config)
        result = refine_command.Command(
            particles=data.particles,
            reference=data.reference,
            out=self.out / "refined",
            relax=config.group,
            refinement=RefinementOptions(seed=self.seed),
        ).run()

        print("\nAgainst the truth:")
        truth, consensus = read_particles(data.truth), read_particles(data.particles)
        print(register_accuracy(result, truth, config.group).summary())
        rotation, shift = consensus_error(consensus, truth, config.group)
        truth_map, pixel = read_map(data.truth_map)
        for name, options in (
            ("at the true poses", {}),
            (
                "at the consensus poses",
                {
                    "poses": consensus,
                    "mode": Local(sigma_rotation_deg=rotation, sigma_shift_angstrom=shift),
                },
            ),
        ):
            best = oracle_registers(
                truth, truth_map, pixel_size_angstrom=pixel, group=config.group, **options
            )
            print(f"with the true map     {best.accuracy:.3f}  ({name}: nobody can do better)")
