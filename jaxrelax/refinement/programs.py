"""Compiled programs of the E-step, one per image geometry and band; a run makes few of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrelax.imaging import (
    ImageBatch,
    ImageGeometry,
    batch_ctf,
    pixel_weights,
    undo_premultiplication,
)
from jaxrelax.inference import (
    PosePrior,
    Poses,
    PoseSearch,
    gain_over_mixture,
    harden,
    posterior,
)
from jaxrelax.reconstruction import accumulate
from jaxrelax.refinement.problem import Problem


def preparation(problem: Problem, group: int, geometry: ImageGeometry):
    """Compiled CTF and weights of a batch."""
    optics = problem.particles.optics[group]
    packing = geometry.packing
    key = (_group_key(problem, group), packing.max_shell, packing.n_inner)
    if key not in problem.programs:
        problem.programs[key] = _preparation_program(
            geometry, optics.phase_flipped, optics.ctf_premultiplied
        )
    return problem.programs[key]


def search_program(problem: Problem, group: int, geometry: ImageGeometry, search: PoseSearch):
    """Compiled search; groups of one geometry share it."""
    packing = geometry.packing
    search_key = (_group_key(problem, group), packing.n_inner, repr(search))
    if search_key not in problem.programs:
        hard = problem.relax is not None and problem.relax.register == "hard"
        problem.programs[search_key] = _search_program(
            search, geometry, problem.n_shells, problem.n_registers,
            problem.chunk_size(geometry.n_inner), hard,
        )  # fmt: skip
    return problem.programs[search_key]


def accumulate_program(problem: Problem, group: int, accumulate_shell: int, score_rung: int):
    """Compiled accumulation; compiles once per number of candidates, a power of two."""
    key = (_group_key(problem, group), accumulate_shell, score_rung, "accumulate")
    if key not in problem.programs:
        geometry = problem.geometry(group, accumulate_shell, score_rung)

        def program(accumulator, images, candidates):
            return accumulate(accumulator, images, geometry, candidates)

        problem.programs[key] = jax.jit(program, donate_argnums=0)
    return problem.programs[key]


def _search_program(
    search: PoseSearch,
    geometry: ImageGeometry,
    n_shells: int,
    registers: int,
    chunk: int,
    hard: bool,
):
    """Compiled E-step of one geometry: posterior over registers with the pose integrated out.

    The batch is worked through in chunks whose temporaries fit the cache.
    """
    inner = geometry.inner()

    @jax.jit
    def program(volume, batch: ImageBatch, poses: Poses, prior: PosePrior):
        images = (batch.data, batch.ctf, batch.valid)
        size = min(chunk, batch.data.shape[0])

        def one_chunk(part):
            (data, ctf, valid), some = part
            return search(
                volume, ImageBatch(data, ctf, batch.weights, valid), inner, some, prior, n_shells
            )

        def split(x):
            return x.reshape(-1, size, *x.shape[1:])

        found = jax.lax.map(one_chunk, jax.tree.map(split, (images, poses)))
        found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        symmetric = found.log_evidence[:, -1]  # the last channel, see register_volume
        found = jax.tree.map(lambda x: x[:, :registers], found)
        weights = posterior(found.log_evidence)
        gain = gain_over_mixture(found.log_evidence) - symmetric
        kept = harden(weights) if hard else weights
        valid = batch.valid[:, None].astype(weights.dtype)
        residual = jnp.einsum("bj,bjs->s", weights * valid, found.residual_power)
        second = found.offset**2 + jnp.diagonal(found.covariance, axis1=-2, axis2=-1)
        second = jnp.einsum("bj,bja->a", weights * valid, second)
        moments = (residual, jnp.sum(second[:3]), jnp.sum(second[3:]))
        return found, moments, weights, kept * valid, gain

    return program


def _preparation_program(geometry: ImageGeometry, phase_flipped: bool, premultiplied: bool):
    @jax.jit
    def program(data, parameters, power, score_shell, valid):
        ctf = batch_ctf(parameters, geometry, phase_flipped)
        if premultiplied:
            data, ctf = undo_premultiplication(data, ctf)
        score = pixel_weights(power, geometry.packing, geometry.slice_shell, score_shell)
        everything = pixel_weights(
            power, geometry.packing, geometry.slice_shell, power.shape[0] - 1
        )
        return (
            ImageBatch(data, ctf, score, valid).inner(geometry.n_inner),
            ImageBatch(data, ctf, everything, valid),
        )

    return program


def _group_key(problem: Problem, group: int):
    optics = problem.particles.optics[group]
    return (
        optics.box, optics.pixel_size_angstrom, optics.phase_flipped, optics.ctf_premultiplied,
    )  # fmt: skip
