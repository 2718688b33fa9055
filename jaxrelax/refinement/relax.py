"""Symmetry relaxation, as a user asks for it."""

from __future__ import annotations

import equinox as eqx

from jaxrelax.geometry import PointGroup, parse_group, point_group, subgroup
from jaxrelax.io import InputError


class Relax(eqx.Module):
    """Symmetry relaxation: registers of G over H are inferred for every particle.

    Attributes:
        group: G, the symmetry of the consensus: a point group's name, or a text file of matrices.
        to: H, the symmetry that is kept.
        mask: path of a map-sized mask (0…1); only density inside it tells registers apart.
        max_resolution: registers are told apart by frequencies up to this, in Å (None: no limit).
        register: ``"soft"`` weighs an image over registers by its posterior, ``"hard"`` gives it
            to the best.
        cross_fit: folds per half-set; an image is scored against maps without its fold. 1 scores
            images against maps that contain them, as other programs do.
        prior: ``"isotypic"`` gives the asymmetric part its own gain, from its own FSC and
            calibrated by the other half-set's images; ``"local"`` does so with gains that vary in
            space as well; ``"plain"`` takes one FSC for the whole map, as other programs do.
        optimism: standard errors added to the asymmetric FSC: how much of what may be noise is
            kept. Withdrawn when the asymmetric FSC stands without it. Not for the plain prior.
        junk: how surely every image shows the particle is inferred too; images that show none of
            it, or another object, count by the probability that they do.
        inner_iterations: after every search of poses, registers and maps are iterated at these
            poses until registers stand still, so many times at the most. 0: every iteration
            searches poses and registers together.
        start: ``"symmetric"`` from the symmetrised reference, ``"reference"`` from the reference
            as it is, ``"poses"`` from the registers of the input poses.
    """

    group: str
    to: str = "C1"
    mask: str | None = None
    max_resolution: float | None = None
    register: str = "soft"
    cross_fit: int = 5
    prior: str = "isotypic"
    optimism: float = 6.0
    junk: bool = True
    inner_iterations: int = 0
    start: str = "symmetric"

    def __check_init__(self):
        for name in ("group", "to"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f'{name} is the name of a group, such as "C4", or the path of a file, not '
                    f"{getattr(self, name)!r}"
                )
        if self.inner_iterations < 0:
            raise ValueError(f"inner_iterations cannot be negative; got {self.inner_iterations}")
        if self.register not in ("soft", "hard"):
            raise ValueError(f'register is "soft" or "hard", not {self.register!r}')
        if self.prior not in ("isotypic", "local", "plain"):
            raise ValueError(f'prior is "isotypic", "local" or "plain", not {self.prior!r}')
        if self.start not in ("symmetric", "reference", "poses"):
            raise ValueError(f'start is "symmetric", "reference" or "poses", not {self.start!r}')
        if self.cross_fit < 1:
            raise ValueError(f"cross_fit is a number of folds, at least 1; got {self.cross_fit}")
        if self.optimism < 0:
            raise ValueError(f"optimism cannot be negative; got {self.optimism}")


def relaxation_groups(
    relax: Relax | None, symmetry: str, *, placed: bool = True
) -> tuple[PointGroup, PointGroup]:
    """(G, H): relaxed from G to H; without relaxation both are the map's symmetry.

    Args:
        relax, symmetry: as of `refine`.
        placed: whether axes may pass elsewhere than through the centre of the box.

    Raises:
        InputError: unknown groups, or H not contained in G.
    """
    try:
        if relax is None:
            group = parse_group(symmetry, placed=placed)
            return group, group
        group = parse_group(relax.group, placed=placed)
        kept = point_group("C1") if relax.to.upper() == "C1" else subgroup(group, relax.to)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    if kept.order == group.order:
        raise InputError(
            f"relaxing {group.name} to {kept.name} leaves nothing to relax; give a smaller group"
        )
    return group, kept
