"""Comparing registers and poses of two runs, or of a run and the truth.

A volume is only known up to one operator of G: V and ``V' = g V`` explain the same images, with
poses ``A`` and ``A gᵀ``. So registers are compared after the one operator that fits best. Its
choice is a selection: n random assignments to m registers agree in a fraction somewhat above 1/m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from jaxrelax.arrays import AnyArray

from .cosets import right_cosets
from .groups import PointGroup, nearest_operator
from .subgroups import subgroup_indices


class GlobalOperator(NamedTuple):
    """The operator that takes one set of registers to another, and how well.

    Attributes:
        index: index in G of q, where volume b is ``q`` times volume a.
        agreement: fraction of particles whose registers agree after it.
    """

    index: int
    agreement: float


class RegisterAgreement(NamedTuple):
    """Estimated registers against true ones.

    Attributes:
        index: index in G of the operator g; ``g`` times the estimated volume is the true one,
            and the estimated poses in its frame are ``A gᵀ``.
        fraction: fraction of particles in the right register.
        correct: (n,) whether each particle is.
    """

    index: int
    fraction: float
    correct: Bool[np.ndarray, "n"]


def best_global_operator(
    registers_a: Int[AnyArray, "n"],
    registers_b: Int[AnyArray, "n"],
    group: PointGroup,
    subgroup: PointGroup | None = None,
) -> GlobalOperator:
    """The one operator of G under which two assignments of registers agree best.

    With a common pose ``A_i`` and registers as elements of G, run a has poses ``A_i a_iᵀ``. If
    its volume is turned, ``V_b = q V_a``, the poses become ``A_i a_iᵀ qᵀ = A_i (q a_i)ᵀ``: the
    operator multiplies registers **from the left**, ``b_i = q a_i``.

    Args:
        registers_a: for each particle, the index of an element of G; with ``subgroup``, the
            index of a register of `right_cosets`.
        registers_b: the same for the other run.
        group: G.
        subgroup: the H kept in both runs; C1 if None. Only the q with ``q H = H q`` are searched:
            others would take an H-symmetric volume to one that is not.

    Returns:
        The index in G of q, the lowest among equally good ones, and the fraction of particles
        with ``b_i = q a_i``.

    Raises:
        ValueError: if the arrays differ in length, are empty, or hold indices out of range.
    """
    a, b = np.asarray(registers_a), np.asarray(registers_b)
    if subgroup is None:
        registers = np.arange(group.order)
        representatives, searched = registers, registers
    else:
        registers = right_cosets(group, subgroup).coset_table
        representatives = np.unique(registers, return_index=True)[1]
        searched = _normaliser(group, subgroup)
    _check_registers(a, b, len(representatives))
    # Particles enter only through how often each pair of registers occurs.
    counts = np.zeros((len(representatives), len(representatives)))
    np.add.at(counts, (a, b), 1.0)
    moved = registers[group.multiplication_table[searched][:, representatives]]
    agreeing = counts[np.arange(len(representatives)), moved].sum(axis=1)
    best = int(np.argmax(agreeing))
    return GlobalOperator(int(searched[best]), float(agreeing[best] / len(a)))


def _check_registers(a: Int[np.ndarray, "n"], b: Int[np.ndarray, "m"], n_registers: int) -> None:
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(
            f"registers of the same particles are needed, at least one; got {a.shape} and "
            f"{b.shape}."
        )
    for name, registers in (("registers_a", a), ("registers_b", b)):
        wrong = np.flatnonzero((registers < 0) | (registers >= n_registers))
        if len(wrong):
            raise ValueError(
                f"{name}[{wrong[0]}] is {registers[wrong[0]]}; there are {n_registers} registers, "
                f"0 to {n_registers - 1}."
            )


def _normaliser(group: PointGroup, subgroup: PointGroup) -> Int[np.ndarray, "n"]:
    """Indices of the q in G with ``q H q⁻¹ = H``."""
    members = subgroup_indices(group, subgroup)
    table = group.multiplication_table
    conjugates = table[table[:, members], group.inverse[:, None]]
    return np.flatnonzero(np.all(np.isin(conjugates, members), axis=1))


def _relating_elements(
    estimated: Float[np.ndarray, "n 3 3"], true: Float[np.ndarray, "n 3 3"], group: PointGroup
) -> tuple[Int[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """The e in G with ``A_estimated`` nearest to ``A_true e``, and the angle between them."""
    estimated = np.asarray(estimated, dtype=np.float64)
    true = np.asarray(true, dtype=np.float64)
    if len(estimated) != len(true) or len(true) == 0:
        raise ValueError(
            "poses of the same particles are needed, at least one; got "
            f"{len(estimated)} estimated and {len(true)} true."
        )
    return nearest_operator(true.mT @ estimated, group.operators)


def register_agreement(
    estimated: Float[AnyArray, "n 3 3"],
    true: Float[AnyArray, "n 3 3"],
    group: PointGroup,
    subgroup: PointGroup,
) -> RegisterAgreement:
    """How many particles are in the right register, from poses that may have small errors.

    A particle is right when the element of G nearest to ``A_trueᵀ A_estimated gᵀ`` lies in H,
    for the one g of G that makes most of them right. Since ``e gᵀ`` is in H exactly when ``e`` is
    in the coset ``H g``, g is any element of the coset that most particles fall in; the one of
    lowest index is returned (the identity, when the estimate is in the frame of the truth).

    Args:
        estimated: (n, 3, 3) poses to judge.
        true: (n, 3, 3) poses for the true volume, which is H-symmetric.
        group: G.
        subgroup: H, the symmetry that is kept.

    Raises:
        ValueError: if the numbers of poses differ or are zero, or H is not a subgroup of G.
    """
    cosets = right_cosets(group, subgroup)
    elements, _ = _relating_elements(np.asarray(estimated), np.asarray(true), group)
    registers = cosets.coset_table[elements]
    best = int(np.argmax(np.bincount(registers)))
    correct = registers == best
    index = int(np.argmax(cosets.coset_table == best))
    return RegisterAgreement(index, float(np.mean(correct)), correct)


def pose_error_mod_group(
    estimated: Float[AnyArray, "n 3 3"], true: Float[AnyArray, "n 3 3"], group: PointGroup
) -> Float64[np.ndarray, "n"]:
    """Geodesic angle in radians between poses, at the element of G that makes it smallest.

    Each particle has its own element: this is the error of the poses alone, whatever the
    registers are.

    Raises:
        ValueError: if the numbers of poses differ or are zero.
    """
    return _relating_elements(np.asarray(estimated), np.asarray(true), group)[1]
