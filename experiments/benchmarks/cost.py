"""What an E-step costs as images and registers become more.

    python experiments/benchmarks/cost.py [--images 250 500 1000 2000] [--docs docs]
    python experiments/benchmarks/cost.py --extrapolate [--docs docs]

Images of a phantom of exact C12 symmetry are scored, with poses refined locally, under no group
and under Cn for n up to 12, all in one band, against maps of the other folds. The first table and
figure let the number of images grow under C4, the second the order of the group. A search for every
register by itself would take |G| times as long as one without a group: the share of that which one
more register takes here is the slope. All configurations take turns, and the fastest of their
passes counts, so that what else the machine does matters less. Time is split into what is paid
for every image and what is paid for every map, from the two largest numbers of images.

``--extrapolate`` says instead what large sets would take, from small ones (see large_runs.py), and
puts its tables into ``results.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import numpy as np
from large_runs import extrapolated
from matplotlib import rcParams

from jaxrelax.assessment.figures import INK, MUTED, SERIES, legend, new_figure, style
from jaxrelax.io import Particles, read_particles
from jaxrelax.refinement import Local, Problem, Relax, State, prepare, step
from jaxrelax.refinement.expectation import expectation
from jaxrelax.simulate import Simulation, simulate

ORDERS = (1, 2, 3, 4, 6, 8, 12)
ORDER_OF_IMAGES = 4  # the group while the number of images grows
EDGE_ANGSTROM = 384.0  # of a box that holds the particle
INI_HIGH_ANGSTROM = 24.0
sys.path.append(str(Path(__file__).parents[1]))
from pages import quote, table  # noqa: E402

rcParams["svg.hashsalt"] = "jaxrelax"  # the same numbers give the same file


@dataclass
class Configuration:
    """A state from which one E-step is made again and again."""

    problem: Problem
    state: State

    @classmethod
    def of(cls, particles: Particles, reference: Path, order: int) -> Configuration:
        """After two iterations: the second is the first that scores with sums of the folds."""
        relax = Relax(f"C{order}") if order > 1 else None
        setup = prepare(particles, reference, mode=Local(), relax=relax, ini_high=INI_HIGH_ANGSTROM)
        state = setup.state
        for _ in range(2):
            # Every configuration stays in the band that it begins in.
            state, _ = step(setup.problem, state)
            state = eqx.tree_at(lambda s: s.course.band, state, setup.state.course.band)
        return cls(setup.problem, state)

    def seconds(self) -> float:
        """Wall time of an E-step."""
        shell = self.problem.shells.accumulated(self.state.score_shell, grow=False)
        began = time.perf_counter()
        expectation(self.problem, self.state, shell)
        return time.perf_counter() - began


def measured(
    configurations: dict[tuple[int, int], Configuration], rounds: int
) -> dict[tuple[int, int], float]:
    """Seconds of the fastest pass of each, (order, images) by (order, images)."""
    times: dict[tuple[int, int], list[float]] = {key: [] for key in configurations}
    for round_ in range(rounds + 1):
        for key, configuration in configurations.items():
            seconds = configuration.seconds()
            if round_:  # the first one compiles
                times[key].append(seconds)
    return {key: min(some) for key, some in times.items()}


def line(x: list[int], y: list[float]) -> tuple[float, float, float]:
    """Intercept and slope of the least-squares line, and the largest relative distance from it."""
    slope, intercept = np.polyfit(x, y, 1)
    fitted = intercept + slope * np.array(x)
    return float(intercept), float(slope), float(np.max(np.abs(fitted / y - 1.0)))


def draw(
    path: Path, x: list[int], lines: dict[str, list[float]], labels: tuple[str, str], title: str
):
    """One figure of measured lines."""
    figure = new_figure(5.2, 3.6)
    axes = style(figure.add_subplot(), *labels, title)
    for (name, y), colour in zip(lines.items(), (SERIES[0], MUTED, INK), strict=False):
        axes.plot(x, y, "o-", color=colour, label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    legend(axes)
    figure.savefig(path, format="svg", metadata={"Date": None})


def extrapolate(docs: Path | None) -> None:
    """Print what large sets would take, and quote it."""
    with tempfile.TemporaryDirectory() as folder:
        tables = extrapolated(Path(folder))
    for name, rows in zip(("measured-small", "extrapolated"), tables, strict=True):
        lines = [line for i, row in enumerate(rows) for line in table(row, heading=i == 0)]
        print("\n".join(lines), end="\n\n", flush=True)
        if docs is not None:
            quote(docs / "results.md", name, lines)


def main() -> None:
    """Simulate, measure, print two tables, draw two figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--docs", type=Path, help="write the figures under this folder")
    parser.add_argument("--extrapolate", action="store_true", help="to large sets; nothing else")
    asked = parser.parse_args()
    if asked.extrapolate:
        extrapolate(asked.docs)
        return
    numbers = sorted(asked.images)
    if len(numbers) < 2:
        parser.error("two numbers of images are needed to tell images from maps")
    fewer, most = numbers[-2:]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        config = Simulation(
            group="C12", n_images=most, box=asked.box,
            pixel_size_angstrom=EDGE_ANGSTROM / asked.box, snr=0.1,
        )  # fmt: skip
        simulate("phantom", data, config)
        everything = read_particles(data / "particles.star")
        wanted = {(order, n) for order in ORDERS for n in (fewer, most)}
        wanted |= {(ORDER_OF_IMAGES, n) for n in numbers}
        configurations = {
            (order, n): Configuration.of(
                everything.select(np.arange(n)), data / "reference.mrc", order
            )
            for order, n in sorted(wanted)
        }
        times = measured(configurations, asked.rounds)

    print(f"| images, C{ORDER_OF_IMAGES} | E-step, s |\n| --- | --- |")
    by_images = [times[ORDER_OF_IMAGES, n] for n in numbers]
    for n, seconds in zip(numbers, by_images, strict=True):
        print(f"| {n:,} | {seconds:.2f} |")
    intercept, slope, off = line(numbers, by_images)
    print(
        f"{intercept:.2f} s and {1e3 * slope:.2f} ms per image; "
        f"no point is further than {100 * off:.0f} % from that line\n"
    )

    per_image = {
        order: 1e3 * (times[order, most] - times[order, fewer]) / (most - fewer) for order in ORDERS
    }
    whole = {order: times[order, most] for order in ORDERS}
    print(f"| order | ms per image | E-step of {most:,} images, s |\n| --- | --- | --- |")
    for order in ORDERS:
        print(f"| {order} | {per_image[order]:.2f} | {whole[order]:.2f} |")
    for name, values in (("images alone", per_image), ("the whole E-step", whole)):
        _, slope, off = line(list(ORDERS), list(values.values()))
        print(
            f"{name}: one more register takes {slope / values[1]:.2f} of a search without a group; "
            f"no point is further than {100 * off:.0f} % from the line"
        )
    if asked.docs is not None:
        figures = asked.docs / "figures"
        draw(
            figures / "cost_images.svg", numbers, {f"C{ORDER_OF_IMAGES}": by_images},
            ("images", "E-step, s"), "Cost by images",
        )  # fmt: skip
        separate = [order * per_image[1] for order in ORDERS]
        draw(
            figures / "cost_order.svg", list(ORDERS),
            {"all registers together": list(per_image.values()), "each by itself": separate},
            ("order of the group", "ms per image"), "Cost by registers",
        )  # fmt: skip


if __name__ == "__main__":
    main()
