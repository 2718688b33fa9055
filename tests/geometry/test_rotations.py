"""Rotations against SciPy, the documented conventions, and finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jaxrelax.geometry import (
    cryosparc_pose_to_matrix,
    euler_to_matrix,
    exp_so3,
    is_axis_aligned_permutation,
    matrix_to_cryosparc_pose,
    matrix_to_euler,
    matrix_to_rotvec,
    project_to_so3,
    random_rotations,
    rotation_angle,
    rotvec_to_matrix,
)

angles = st.floats(-360.0, 360.0)


@given(rot=angles, tilt=angles, psi=angles)
def test_euler_is_scipy_zyz_transposed(rot, tilt, psi):
    scipy = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix().T
    np.testing.assert_allclose(euler_to_matrix(rot, tilt, psi), scipy, atol=1e-14)


def test_euler_by_hand():
    # tilt turns the z axis of the volume towards x of the image: A z = (-sin tilt, 0, cos tilt).
    a = euler_to_matrix(0.0, 30.0, 0.0)
    np.testing.assert_allclose(a @ [0.0, 0.0, 1.0], [-0.5, 0.0, np.sqrt(0.75)], atol=1e-15)
    # The viewing direction Aᵀ z has polar angles (rot, tilt), whatever psi.
    a = euler_to_matrix(40.0, 70.0, -15.0)
    rot, tilt = np.deg2rad([40.0, 70.0])
    direction = [np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)]
    np.testing.assert_allclose(a.T @ [0.0, 0.0, 1.0], direction, atol=1e-15)
    # psi alone turns the image.
    np.testing.assert_allclose(
        euler_to_matrix(0.0, 0.0, 90.0), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15
    )


@given(rot=st.floats(-179.9, 180.0), tilt=st.floats(0.01, 179.99), psi=st.floats(-179.9, 180.0))
def test_euler_round_trip_of_angles(rot, tilt, psi):
    back = matrix_to_euler(euler_to_matrix(rot, tilt, psi))
    np.testing.assert_allclose(np.stack(back), [rot, tilt, psi], atol=1e-9)


@given(
    rot=angles,
    tilt=st.sampled_from([0.0, 180.0]),
    offset=st.sampled_from([0.0, 1e-14, 1e-12, 1e-9, 1e-8, 1e-7, 1e-5, 1e-3]),
    psi=angles,
)
def test_euler_round_trip_of_matrices_near_the_poles(rot, tilt, offset, psi):
    a = euler_to_matrix(rot, abs(tilt - offset), psi)
    back = matrix_to_euler(a)
    assert 0.0 <= back[1] <= 180.0
    np.testing.assert_allclose(euler_to_matrix(*back), a, atol=1e-9)


def test_euler_at_the_poles_has_rot_zero():
    rot, tilt, psi = matrix_to_euler(euler_to_matrix(25.0, 0.0, 35.0))
    np.testing.assert_allclose([rot, tilt, psi], [0.0, 0.0, 60.0], atol=1e-12)
    rot, tilt, psi = matrix_to_euler(euler_to_matrix(25.0, 180.0, 35.0))
    np.testing.assert_allclose([rot, tilt, psi], [0.0, 180.0, 10.0], atol=1e-12)


def test_euler_shapes_broadcast():
    a = euler_to_matrix(np.arange(4.0)[:, None], np.arange(5.0), 3.0)
    assert a.shape == (4, 5, 3, 3)
    assert all(angle.shape == (4, 5) for angle in matrix_to_euler(a))
    assert euler_to_matrix(np.zeros(0), 0.0, 0.0).shape == (0, 3, 3)
    assert matrix_to_euler(np.zeros((0, 3, 3)))[0].shape == (0,)


def test_rotation_vectors_and_cryosparc_poses(rng):
    v = rng.normal(size=(4, 5, 3))
    r = rotvec_to_matrix(v)
    np.testing.assert_allclose(rotvec_to_matrix(matrix_to_rotvec(r)), r, atol=1e-12)
    # A rotation vector (0, 0, a) turns x towards y.
    quarter = rotvec_to_matrix(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)
    a = cryosparc_pose_to_matrix(v)
    np.testing.assert_array_equal(a, np.swapaxes(r, -1, -2))
    np.testing.assert_allclose(cryosparc_pose_to_matrix(matrix_to_cryosparc_pose(a)), a, atol=1e-12)
    # Both packages' poses agree for a rotation about z: rlnAnglePsi = -angle of the vector.
    np.testing.assert_allclose(
        cryosparc_pose_to_matrix(np.array([0.0, 0.0, -0.3])),
        euler_to_matrix(0.0, 0.0, np.rad2deg(-0.3)),
        atol=1e-15,
    )


def test_wrong_shapes_are_named():
    with pytest.raises(Exception, match="3"):
        rotvec_to_matrix(np.zeros((2, 4)))
    with pytest.raises(Exception, match="3"):
        rotation_angle(np.zeros((2, 4)))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-3, 1.0, 3.0, np.pi - 1e-8, np.pi])
def test_rotation_angle_is_accurate_everywhere(angle, rng):
    axes = rng.normal(size=(20, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    np.testing.assert_allclose(
        rotation_angle(rotvec_to_matrix(angle * axes)), angle, rtol=1e-9, atol=2e-15
    )


def test_random_rotations_are_uniform_rotations(rng):
    r = random_rotations(20_000, rng)
    np.testing.assert_allclose(r @ r.mT, np.broadcast_to(np.eye(3), r.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(r), 1.0, atol=1e-12)
    # Under Haar measure entries have mean 0 and variance 1/3, and the angle density is
    # (1 − cos θ)/π, of mean π/2 + 2/π.
    np.testing.assert_allclose(r.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose((r**2).mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(rotation_angle(r).mean(), np.pi / 2 + 2 / np.pi, atol=0.02)


def test_project_to_so3(rng):
    r = random_rotations(10, rng)
    np.testing.assert_allclose(project_to_so3(r), r, atol=1e-13)
    noisy = project_to_so3(r + 1e-3 * rng.normal(size=r.shape))
    np.testing.assert_allclose(np.linalg.det(noisy), 1.0, atol=1e-12)
    assert np.max(rotation_angle(noisy @ r.mT)) < 1e-2
    # A reflection goes to a rotation, not to itself.
    np.testing.assert_allclose(np.linalg.det(project_to_so3(-r)), 1.0, atol=1e-12)


def test_is_axis_aligned_permutation():
    assert is_axis_aligned_permutation(np.eye(3))
    assert is_axis_aligned_permutation(rotvec_to_matrix(np.array([0.0, np.pi / 2, 0.0])))
    assert is_axis_aligned_permutation(np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    assert not is_axis_aligned_permutation(rotvec_to_matrix(np.array([0.0, 0.0, 1e-6])))
    assert not is_axis_aligned_permutation(np.zeros((3, 3)))
    assert not is_axis_aligned_permutation(np.ones((3, 3)))


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-4, 0.1, 0.7, 1.5, 3.1, 10.0])
def test_exp_so3_values_in_float32(scale, rng):
    v = scale * rng.normal(size=(3, 4, 3))
    r = exp_so3(jnp.asarray(v, dtype=jnp.float32))
    assert r.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(r), rotvec_to_matrix(v), atol=5e-6)


def test_exp_so3_derivatives_at_zero():
    zero = jnp.zeros(3)
    first = jax.jacfwd(exp_so3)(zero)
    # d exp([v]×)/dv_k at 0 is [e_k]×.
    levi_civita = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        levi_civita[i, j, k], levi_civita[i, k, j] = 1.0, -1.0
    np.testing.assert_allclose(np.asarray(first), -levi_civita, atol=1e-7)
    np.testing.assert_allclose(np.asarray(jax.jacrev(exp_so3)(zero)), np.asarray(first), atol=1e-7)
    # The second derivative is ½ (E_k E_l + E_l E_k), E_k = [e_k]×.
    e = -np.moveaxis(levi_civita, -1, 0)
    second = 0.5 * (np.einsum("kab,lbc->ackl", e, e) + np.einsum("lab,kbc->ackl", e, e))
    hessian = jax.hessian(exp_so3)(zero)
    np.testing.assert_allclose(np.asarray(hessian), second, atol=1e-6)


@pytest.mark.parametrize("length", [1e-3, 0.3, 0.7, 0.71, 1.41, 1.42, 3.0])
def test_exp_so3_derivatives_against_finite_differences(length, rng):
    v = rng.normal(size=3)
    v *= length / np.linalg.norm(v)
    step = 1e-5
    basis = np.eye(3)

    def numerical(at):
        plus = rotvec_to_matrix(at[None] + step * basis)
        minus = rotvec_to_matrix(at[None] - step * basis)
        return np.moveaxis((plus - minus) / (2 * step), 0, -1)

    v32 = jnp.asarray(v, dtype=jnp.float32)
    np.testing.assert_allclose(np.asarray(jax.jacfwd(exp_so3)(v32)), numerical(v), atol=2e-5)
    step = 1e-4
    second = np.stack(
        [(numerical(v + step * e) - numerical(v - step * e)) / (2 * step) for e in basis], axis=-1
    )
    np.testing.assert_allclose(np.asarray(jax.hessian(exp_so3)(v32)), second, atol=2e-4)


def test_exp_so3_jits_once_and_vmaps(rng):
    v = jnp.asarray(rng.normal(size=(5, 3)), dtype=jnp.float32)
    counted = eqx.filter_jit(eqx.debug.assert_max_traces(max_traces=1)(exp_so3))
    batched = counted(v)
    counted(v + 1.0)
    np.testing.assert_allclose(np.asarray(jax.vmap(exp_so3)(v)), np.asarray(batched), atol=1e-6)
