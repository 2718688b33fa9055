"""What an image may show, as a table: one row per hypothesis, which is one channel of a volume.

No code but this and the latents that write the table (:mod:`jaxrelax.inference.latents`) knows
which channel stands for what: who makes the volume reads which map a row takes and how it is
turned, who makes posteriors asks the latents for their priors, and who accumulates images reads at
which poses a row's weight is deposited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int32

NO_VALUE = -1


class Hypotheses(eqx.Module):
    """A static table; arrays are NumPy's, and programs that use it hold them as constants.

    Row j is channel j of the volume: of map ``map_index[j]`` the view at the pose ``A rⱼᵀ``, where
    A is the image's pose and rⱼ the operator; or, where ``symmetrised``, of its symmetric part
    alone. The weight of a row is spread evenly over its *places*: poses ``A rᵀ`` in the map of the
    place's own row, at which the image goes into that map.

    Attributes:
        map_index: of every row.
        operators: r of every row.
        symmetrised: whether a row is of the symmetric part alone.
        values: by the name of a latent, its value in every row; ``NO_VALUE`` where it has none.
        place_rows: row of every place, whose pose, map and operator it takes.
        deposited: whether a row's weight goes to a place.
    """

    map_index: Int32[np.ndarray, " rows"]
    operators: Float64[np.ndarray, "rows 3 3"]
    symmetrised: Bool[np.ndarray, " rows"]
    values: Mapping[str, Int32[np.ndarray, " rows"]]
    place_rows: Int32[np.ndarray, " places"]
    deposited: Bool[np.ndarray, "rows places"]

    @classmethod
    def single(cls) -> Hypotheses:
        """One map, seen at the image's pose: nothing is unknown."""
        return cls(
            map_index=np.zeros(1, np.int32),
            operators=np.eye(3)[None],
            symmetrised=np.zeros(1, bool),
            values={},
            place_rows=np.zeros(1, np.int32),
            deposited=np.ones((1, 1), bool),
        )

    def __len__(self) -> int:
        return len(self.map_index)

    @property
    def n_maps(self) -> int:
        """Maps that rows are of."""
        return int(self.map_index.max()) + 1

    @property
    def place_maps(self) -> Int32[np.ndarray, " places"]:
        """Map of every place."""
        return self.map_index[self.place_rows]

    @property
    def n_places(self) -> int:
        """Poses at which an image may go into a map."""
        return len(self.place_rows)

    @property
    def place_operators(self) -> Float64[np.ndarray, "places 3 3"]:
        """Operator r of every place."""
        return self.operators[self.place_rows]

    @property
    def symmetric_row(self) -> int:
        """The row of a symmetric part; the first where there is none."""
        return int(np.argmax(self.symmetrised))

    @property
    def guides(self) -> tuple[tuple[int, ...], ...]:
        """For every map, rows whose mean a search of all orientations looks at.

        That of a symmetric part if there is one, else all of the map: the mean over registers is
        the symmetric part. What breaks the symmetry then neither helps nor misleads the search, and
        one direction of every orbit suffices.
        """
        guides = []
        for number in range(self.n_maps):
            rows = np.flatnonzero(self.map_index == number)
            alike = rows[self.symmetrised[rows]]
            guides.append(tuple(map(int, alike[:1] if len(alike) else rows)))
        return tuple(guides)

    def value(self, latent: str) -> Int32[np.ndarray, " rows"]:
        """A latent's value in every row.

        Raises:
            KeyError: the table has no such latent.
        """
        return self.values[latent]

    def with_values(self, latent: str, values: Sequence[int] | np.ndarray) -> Hypotheses:
        """The same with the value of a latent in every row.

        Raises:
            ValueError: the table has that latent already.
        """
        if latent in self.values:
            raise ValueError(f"the table has a latent {latent!r} already")
        added = {**self.values, latent: np.asarray(values, np.int32)}
        return eqx.tree_at(lambda t: t.values, self, added, is_leaf=lambda x: x is self.values)

    def product(self, operators: Float64[np.ndarray, "m 3 3"], latent: str) -> Hypotheses:
        """Every row that is not symmetrised once for each operator, which turns it further.

        Rows of one original row follow each other; so do places. A symmetrised row stays one, and
        what went to a place goes to all that became of it.
        """
        times = np.where(self.symmetrised, 1, len(operators))
        rows = np.repeat(np.arange(len(self)), times)
        number = np.concatenate([np.arange(m) for m in times])
        turned = np.where(
            self.symmetrised[rows, None, None],
            self.operators[rows],
            operators[number] @ self.operators[rows],
        )
        first = np.cumsum(times) - times
        place_times = times[self.place_rows]
        places = np.repeat(np.arange(self.n_places), place_times)
        place_number = np.concatenate([np.arange(m) for m in place_times])
        place_rows = (first[self.place_rows[places]] + place_number).astype(np.int32)
        # A row's weight goes to what became of its places; its own place is its own row.
        deposited = self.deposited[rows][:, places]
        own = ~self.symmetrised[rows]
        deposited &= ~own[:, None] | (place_number[None] == number[:, None])
        table = Hypotheses(
            map_index=self.map_index[rows],
            operators=turned,
            symmetrised=self.symmetrised[rows],
            values={name: values[rows] for name, values in self.values.items()},
            place_rows=place_rows,
            deposited=deposited,
        )
        return table.with_values(latent, np.where(own, number, NO_VALUE))

    def with_symmetrised(self, latent: str) -> Hypotheses:
        """A further row for the symmetric part of every map, whose weight is spread over the map.

        The latent is 1 in these rows and 0 in the others. They come last, so that the rows of a
        table without them are the first of this one.
        """
        maps = np.unique(self.map_index)
        of_map = self.map_index[self.place_rows][None] == maps[:, None]
        table = Hypotheses(
            map_index=np.concatenate([self.map_index, maps]).astype(np.int32),
            operators=np.concatenate(
                [self.operators, np.broadcast_to(np.eye(3), (len(maps), 3, 3))]
            ),
            symmetrised=np.concatenate([self.symmetrised, np.ones(len(maps), bool)]),
            values={
                name: np.concatenate([values, np.full(len(maps), NO_VALUE, np.int32)])
                for name, values in self.values.items()
            },
            place_rows=self.place_rows,
            deposited=np.concatenate([self.deposited, of_map]),
        )
        return table.with_values(latent, np.repeat([0, 1], [len(self), len(maps)]))

    def over_places(self, weights: Float[Array, "batch rows"]) -> Float[Array, "batch places"]:
        """Weights of rows as weights of the places where they are deposited."""
        spread = jnp.asarray(self.deposited.sum(axis=1), weights.dtype)
        return (weights / spread[None]) @ jnp.asarray(self.deposited, weights.dtype)


def summed(tables: Sequence[Hypotheses], latent: str) -> Hypotheses:
    """Alternatives, each with maps of its own: the rows of one table after those of another.

    Args:
        tables: of the alternatives; map 0 of the second comes after the last map of the first.
        latent: whose value is the number of the alternative.
    """
    maps = np.cumsum([0, *(int(t.map_index.max()) + 1 for t in tables)])
    rows = np.cumsum([0, *(len(t) for t in tables)])
    places = np.cumsum([0, *(t.n_places for t in tables)])
    deposited = np.zeros((rows[-1], places[-1]), bool)
    for number, table in enumerate(tables):
        block = np.s_[rows[number] : rows[number + 1], places[number] : places[number + 1]]
        deposited[block] = table.deposited
    names = dict.fromkeys(name for table in tables for name in table.values)
    table = Hypotheses(
        map_index=np.concatenate(
            [t.map_index + m for t, m in zip(tables, maps, strict=False)]
        ).astype(np.int32),
        operators=np.concatenate([t.operators for t in tables]),
        symmetrised=np.concatenate([t.symmetrised for t in tables]),
        values={
            name: np.concatenate(
                [t.values.get(name, np.full(len(t), NO_VALUE, np.int32)) for t in tables]
            )
            for name in names
        },
        place_rows=np.concatenate(
            [t.place_rows + r for t, r in zip(tables, rows, strict=False)]
        ).astype(np.int32),
        deposited=deposited,
    )
    return table.with_values(latent, np.repeat(np.arange(len(tables)), np.diff(rows)))
