"""Devices and processes that share the images of a refinement.

Images are shared, maps are everywhere. Inside a process a one-dimensional ``jax.sharding.Mesh``
holds its devices: every batch of images is cut into equal parts, one for each device, and every
device has sums of its own, which are added when a fold is complete. Processes
(``jax.distributed``, on one machine or many) each read their own rows of the table, and exchange
sums and per-image results on the host. Everything between two passes over the images is done by
every process for itself, from identical numbers; what is decided is taken from process 0.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from jaxrelax.io import InputError

T = TypeVar("T")

AXIS = "images"
# How an argument or result of a program lies on the devices: a part on each, or alike on all.
EACH, ALL = PartitionSpec(AXIS), PartitionSpec()
WAY_OUT = (
    "start them all again: with --resume (in Python resume=True) a refinement goes on from its "
    "last checkpoint"
)
# Exchanged at once, in numbers of four bytes: bounds the memory of the device.
BLOCK = 2**24


class WorkerLost(RuntimeError):
    """Another process of the run has ended, and this one cannot go on without its images."""


@dataclass(frozen=True)
class Workers:
    """The devices of this process, and its place among the processes.

    Attributes:
        devices: of this process; at least one.
        index: of this process, from 0. Process 0 writes files.
        count: of processes.
    """

    devices: tuple[jax.Device, ...]
    index: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.index == 0

    def __str__(self) -> str:
        kind = self.devices[0].device_kind
        local = f"{len(self.devices)} × {kind}"
        return local if self.count == 1 else f"{self.count} processes of {local}"

    # --- devices of this process ---

    @cached_property
    def mesh(self) -> Mesh:
        """The devices of this process in a row."""
        return Mesh(np.array(self.devices), (AXIS,))

    def split(self, tree: Any) -> Any:
        """Arrays on the devices, an equal part of their first axis on each."""
        return self._put(tree, EACH)

    def everywhere(self, tree: Any) -> Any:
        """Arrays on all devices."""
        return self._put(tree, ALL)

    def _put(self, tree, spec: PartitionSpec):
        if len(self.devices) == 1:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def program(
        self, function: Callable, arguments: tuple, results: Any, donate_argnums: tuple = ()
    ) -> Callable:
        """A compiled function, each device working on its part.

        Args:
            function: pure; where results are ``ALL`` it must make them so, see :meth:`added`.
            arguments: ``EACH`` or ``ALL`` for every argument.
            results: the same for the result, or for each of several.
            donate_argnums: arguments whose memory may be used for results.
        """
        function = _in_single_precision(function)
        if len(self.devices) > 1:
            # Results that are alike on all devices are so by construction, which the check does
            # not see through loops.
            function = jax.shard_map(
                function, mesh=self.mesh, in_specs=arguments, out_specs=results, check_vma=False
            )
        return jax.jit(function, donate_argnums=donate_argnums)

    def alike(self, function: Callable) -> Callable:
        """A compiled function of what is alike on all devices, each of which does all of it."""
        return jax.jit(_in_single_precision(function))

    def added(self, tree: T) -> T:
        """Inside a program: the sum over devices, on all of them."""
        return tree if len(self.devices) == 1 else jax.lax.psum(tree, AXIS)

    def one_each(self, tree: T) -> T:
        """A copy of arrays for every device, one behind the other along the first axis."""
        if len(self.devices) == 1:
            return tree

        def copies(array):
            host = np.asarray(array)
            shape = (len(self.devices) * len(host), *host.shape[1:])
            sharding = NamedSharding(self.mesh, EACH)
            return jax.make_array_from_callback(shape, sharding, lambda _: host)

        return jax.tree.map(copies, tree)

    def summed(self, tree: T) -> T:
        """The sum of what :meth:`one_each` gave to the devices, on the first; uses it up."""
        if len(self.devices) == 1:
            return tree
        return jax.tree.map(lambda x: x.addressable_data(0), _adding(self)(tree))

    # --- processes ---

    def total(self, tree: T) -> T:
        """Sums over processes of arrays and floats, the same bits in every process.

        Arrays of single precision are summed on the way, others are collected and summed in the
        order of the processes.

        Raises:
            WorkerLost: another process has ended.
        """
        return tree if self.count == 1 else jax.tree.map(self._total, tree)

    def _total(self, value):
        array = np.asarray(value)
        if array.dtype == np.float32:
            return self._exchanged(np.ravel(array)).reshape(array.shape)
        every = np.zeros((self.count, *array.shape), array.dtype)
        every[self.index] = array
        whole = self._bits(every).sum(axis=0)
        return whole if array.ndim else type(value)(whole)

    def rows(self, tree: T, mine: Bool[np.ndarray, " n"]) -> T:
        """Arrays with one row per image, every row from the process that has the image.

        Args:
            tree: arrays of n rows.
            mine: rows of this process; every row belongs to one process.

        Raises:
            WorkerLost: another process has ended.
        """
        if self.count == 1:
            return tree

        def whole(array):
            own = np.zeros_like(array)
            own[mine] = array[mine]
            return self._bits(own)

        return jax.tree.map(whole, tree)

    def agreed(self, value: T) -> T:
        """What process 0 has; every process asks at the same point of the run.

        For decisions: processors that are not alike may round differently.

        Raises:
            WorkerLost: another process has ended.
        """
        if self.count == 1:
            return value
        data = np.zeros(0, np.uint8)
        if self.index == 0:
            data = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        length = int(self._bits(np.array([len(data)], np.int64))[0])
        padded = np.zeros(length, np.uint8)
        padded[: len(data)] = data
        return pickle.loads(self._bits(padded).tobytes())

    def _bits(self, array: np.ndarray) -> np.ndarray:
        """The sum over processes where all but one have zeros: its bits, of any type."""
        data = np.ravel(array).view(np.uint8)
        words = np.pad(data, (0, -len(data) % 4)).view(np.uint32)
        whole = self._exchanged(words).view(np.uint8)[: len(data)]
        return whole.view(array.dtype).reshape(array.shape)

    def _exchanged(self, words: np.ndarray) -> np.ndarray:
        """The sum over processes of a vector of four-byte numbers, block by block."""
        parts = []
        for start in range(0, len(words), BLOCK):
            block = words[start : start + BLOCK]
            # Powers of two, so that few programs serve all lengths.
            size = min(BLOCK, 1 << max(len(block) - 1, 1).bit_length())
            padded = np.pad(block, (0, size - len(block)))
            parts.append(self._added_up(padded)[: len(block)])
        return np.concatenate(parts) if parts else words

    def _added_up(self, block: np.ndarray) -> np.ndarray:
        mesh = _first_devices(self.count)
        own = jax.device_put(block[None], mesh.devices[self.index])
        try:
            every = jax.make_array_from_single_device_arrays(
                (self.count, len(block)), NamedSharding(mesh, EACH), [own]
            )
            return np.asarray(_process_sum(mesh)(every).addressable_data(0))
        # A program that runs at once raises a failed exchange as a ValueError.
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            raise WorkerLost(
                f"another of the {self.count} processes of this run was lost "
                f"({str(error).splitlines()[0]}); {WAY_OUT}"
            ) from error


def available_workers(devices: int | Literal["all"] | None = None) -> Workers:
    """What works on a refinement: devices of this process, and the processes of the run.

    Args:
        devices: how many of this process's, or ``"all"``. By default one on CPUs, which uses all
            cores by itself, and all accelerators.

    Raises:
        InputError: there are not so many devices.
    """
    local = jax.local_devices()
    if devices is None:
        devices = 1 if jax.default_backend() == "cpu" else "all"
    if devices == "all":
        devices = len(local)
    if devices < 1:
        raise InputError(f"devices: at least one is needed, not {devices}")
    if devices > len(local):
        raise InputError(
            f"devices: {devices} are asked for and JAX has {len(local)} "
            f"({local[0].device_kind}); CPU devices are made with "
            f'jax.config.update("jax_num_cpu_devices", {devices}) before JAX is first used'
        )
    return Workers(tuple(local[:devices]), jax.process_index(), jax.process_count())


def alone() -> Workers:
    """This process with one device, whatever else there is."""
    return Workers((jax.local_devices()[0],))


def _in_single_precision(function: Callable) -> Callable:
    """Matrix products in all digits of single precision: accelerators have faster ones with three.

    Evidences are hundreds of nats, of which a thousandth decides registers.
    """

    @wraps(function)
    def precise(*arguments):
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return precise


@lru_cache(maxsize=4)
def _adding(workers: Workers) -> Callable:
    return workers.program(workers.added, (EACH,), ALL, donate_argnums=(0,))


@lru_cache(maxsize=1)
def _first_devices(count: int) -> Mesh:
    """One device of every process."""
    first = [next(d for d in jax.devices() if d.process_index == p) for p in range(count)]
    return Mesh(np.array(first), (AXIS,))


@lru_cache(maxsize=1)
def _process_sum(mesh: Mesh) -> Callable:
    def added(every):
        return jax.numpy.sum(every, axis=0, dtype=every.dtype)

    return jax.jit(added, out_shardings=NamedSharding(mesh, ALL))
