"""Isotypic projectors against the character tables."""

import numpy as np
import pytest

from jaxrelax.geometry import isotypic_weights, point_group

# Dimensions of the components of the regular representation, d² each; complex pairs together.
DIMENSIONS = {
    "C1": [1],
    "C2": [1, 1],
    "C3": [1, 2],
    "C4": [1, 1, 2],
    "C6": [1, 1, 2, 2],
    "C7": [1, 2, 2, 2],
    "D2": [1, 1, 1, 1],
    "D3": [1, 1, 4],
    "D7": [1, 1, 4, 4, 4],
    "T": [1, 2, 9],
    "O": [1, 1, 4, 9, 9],
    "I": [1, 9, 9, 16, 25],
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_dimensions_are_those_of_the_irreducible_representations(name):
    group = point_group(name)
    weights = isotypic_weights(group)
    np.testing.assert_allclose(group.order * weights[:, 0], DIMENSIONS[name], atol=1e-9)
    np.testing.assert_allclose(weights[0], 1.0 / group.order, atol=1e-12)


@pytest.mark.parametrize("name", ["C4", "D7", "T", "O", "I"])
def test_projectors_are_orthogonal_idempotent_and_complete(name):
    group = point_group(name)
    weights = isotypic_weights(group)
    # Multiplication by Σ_h w(h) h on functions on the group: M[x, y] = w(x y⁻¹).
    projectors = weights[:, group.multiplication_table[:, group.inverse]]
    products = np.einsum("axy,byz->abxz", projectors, projectors)
    for a in range(len(weights)):
        for b in range(len(weights)):
            expected = projectors[a] if a == b else np.zeros_like(projectors[a])
            np.testing.assert_allclose(products[a, b], expected, atol=1e-9)
    np.testing.assert_allclose(projectors.sum(axis=0), np.eye(group.order), atol=1e-9)


def test_c4_sign_component():
    group = point_group("C4")
    angle = np.rint(np.arctan2(group.operators[:, 1, 0], group.operators[:, 0, 0]) / (np.pi / 2))
    np.testing.assert_allclose(isotypic_weights(group)[1], (-1.0) ** angle / 4, atol=1e-9)
