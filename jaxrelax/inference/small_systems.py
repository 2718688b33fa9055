"""Many small positive definite systems at once, without LAPACK.

XLA's batched Cholesky on a CPU (jaxlib 0.10.2) shares large batches out to the threads on which
programs run: two programs that do so at once wait for each other, some for ever. Half-sets are
searched side by side, so theirs are written out here, entry by entry, over the batch.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

Rows = list[list[Array]]  # entries of a lower triangle, each over the batch


def solved(
    matrix: Float[Array, "*batch k k"], right: Float[Array, "*batch k"]
) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch k k"], Float[Array, "*batch"]]:
    """Solution, inverse and log-determinant of symmetric positive definite systems.

    By Cholesky's factor L, A = L Lᵀ: A⁻¹ = L⁻ᵀ L⁻¹. Not a number where A is not positive definite.

    Args:
        matrix: A; its lower triangle is read.
        right: b of A x = b.
    """
    factor = _cholesky(matrix)
    inverse = _inverse(factor)
    size = len(factor)
    columns = [
        [sum(inverse[k][i] * inverse[k][j] for k in range(max(i, j), size)) for j in range(size)]
        for i in range(size)
    ]
    whole = jnp.stack([jnp.stack(row, axis=-1) for row in columns], axis=-2)
    log_determinant = 2.0 * sum(jnp.log(factor[i][i]) for i in range(size))
    # Through the factor: A⁻¹ b would round twice.
    first = [sum(inverse[i][j] * right[..., j] for j in range(i + 1)) for i in range(size)]
    solution = [sum(inverse[k][i] * first[k] for k in range(i, size)) for i in range(size)]
    return jnp.stack(solution, axis=-1), whole, jnp.asarray(log_determinant)


def cholesky(matrix: Float[Array, "*batch k k"]) -> Float[Array, "*batch k k"]:
    """The factor L of symmetric positive definite matrices, A = L Lᵀ, as a lower triangle.

    Args:
        matrix: A; its lower triangle is read.
    """
    rows = _cholesky(matrix)
    nothing = jnp.zeros_like(rows[0][0])
    full = [row + [nothing] * (len(rows) - len(row)) for row in rows]
    return jnp.stack([jnp.stack(row, axis=-1) for row in full], axis=-2)


def _cholesky(matrix: Float[Array, "*batch k k"]) -> Rows:
    rows: Rows = []
    for i in range(matrix.shape[-1]):
        row: list[Array] = []
        for j in range(i):
            known = sum(row[k] * rows[j][k] for k in range(j))
            row.append((matrix[..., i, j] - known) / rows[j][j])
        row.append(jnp.sqrt(matrix[..., i, i] - sum(one * one for one in row)))
        rows.append(row)
    return rows


def _inverse(factor: Rows) -> Rows:
    """Of a lower triangle, which is one too."""
    rows: Rows = []
    for i, own in enumerate(factor):
        row = [-sum(own[k] * rows[k][j] for k in range(j, i)) / own[i] for j in range(i)]
        row.append(1.0 / own[i])
        rows.append(row)
    return rows
