"""What moves between host and device in one iteration, and that it does not grow where it should not.

    python experiments/benchmarks/transfers.py [--images N]

A phantom of C4 (240 images of 48² by default) is relaxed at its poses. Of the third iteration, which
scores with sums of the folds, every put to the device and every pull from it is counted with its
bytes, as a processor goes through it, where maps are made by NumPy and FINUFFT and handed over, and
as an accelerator would, where they are made by programs; then with twice the images and with twice
the folds. What batches need (images, CTFs, poses in; posteriors and poses out) is counted apart.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from jaxrelax.engine import streams
from jaxrelax.refinement import Registers, Relax, expectation, prepare, scoring, step
from jaxrelax.simulate import Simulation, simulate


class Counter:
    """Puts and pulls by where they come from: [kind] of (number, bytes)."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        self._batches = 0

    def count(self, kind: str, tree) -> None:
        """Count the arrays of a tree; those of a batch apart."""
        kind += " of batches" if self._batches else ""
        for leaf in jax.tree.leaves(tree):
            if isinstance(leaf, np.ndarray | np.generic | jax.Array | int | float):
                self.found[kind][0] += 1
                self.found[kind][1] += np.asarray(leaf).nbytes

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count while this lasts."""
        put, get = jax.device_put, jax.device_get
        prepared = streams.prepared_batches

        def counted_put(tree, *rest, **options):
            self.count("put", [x for x in jax.tree.leaves(tree) if not isinstance(x, jax.Array)])
            return put(tree, *rest, **options)

        def counted_get(tree):
            self.count("pull", tree)
            return get(tree)

        def counted_batches(*arguments):
            found = prepared(*arguments)
            while True:
                self._batches += 1
                batch = next(found, None)
                self._batches -= 1
                if batch is None:
                    return
                yield batch

        with (
            mock.patch.object(jax, "device_put", counted_put),
            mock.patch.object(jax, "device_get", counted_get),
            mock.patch.object(scoring, "prepared_batches", counted_batches),
        ):
            yield
