"""Small systems against NumPy in double precision, and two programs at once."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrelax.inference.small_systems import cholesky, solved


def positive_definite(seed: int, count: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, size, size))
    return root @ root.transpose(0, 2, 1) + np.eye(size)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((1, 2, 5, 6)))
def test_solution_inverse_and_determinant(seed, size):
    matrix = positive_definite(seed, 7, size)
    right = np.random.default_rng(seed).normal(size=(7, size))
    solution, inverse, log_determinant = solved(
        jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32)
    )
    np.testing.assert_allclose(
        solution, np.linalg.solve(matrix, right[..., None])[..., 0], atol=2e-4
    )
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), atol=1e-4)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1], atol=1e-4)
    factor = np.asarray(cholesky(jnp.asarray(matrix, jnp.float32)))
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), atol=1e-4)


def test_what_is_not_positive_definite_is_not_a_number():
    matrix = jnp.asarray([[[1.0, 2.0], [2.0, 1.0]]])
    assert not np.isfinite(np.asarray(solved(matrix, jnp.ones((1, 2)))[0])).any()


def test_the_gradient_is_that_of_the_inverse():
    matrix, right = jnp.asarray(positive_definite(3, 1, 4)), jnp.ones((1, 4))

    def through(a, solve):
        return jnp.sum(solve(a) ** 2)

    symmetric = lambda a: 0.5 * (a + jnp.swapaxes(a, -1, -2))  # noqa: E731
    got = jax.grad(lambda a: through(symmetric(a), lambda m: solved(m, right)[0]))(matrix)
    expected = jax.grad(
        lambda a: through(symmetric(a), lambda m: jnp.linalg.solve(m, right[..., None])[..., 0])
    )(matrix)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-5)


TWO_AT_ONCE = """
import threading, jax, jax.numpy as jnp, numpy as np
from jaxrelax.inference.small_systems import cholesky, solved
matrix = np.tile(2.0 * np.eye(5, dtype=np.float32), (9000, 1, 1))
def program(x):
    def again(_, total):
        found = solved(x + total[0] * 0, x[:, 0])
        return total + found[0].sum() * 0 + cholesky(x + total[0] * 0)[0, 0, 0]
    return jax.lax.fori_loop(0, 50, again, jnp.zeros(1, jnp.float32))
compiled = jax.jit(program)
compiled(matrix).block_until_ready()
threads = [threading.Thread(target=lambda: [np.asarray(compiled(matrix)) for _ in range(5)])
           for _ in range(2)]
[one.start() for one in threads]; [one.join() for one in threads]
print("done")
"""


def test_two_programs_at_once_end():
    """With LAPACK's batched factor, which shares its batch out to threads, they never do."""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", TWO_AT_ONCE], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.fail("two programs wait for each other")
    assert ran.stdout.strip() == "done", ran.stderr
