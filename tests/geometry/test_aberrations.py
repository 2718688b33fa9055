"""Aberrations: Zernike terms against their polynomials written out, in RELION's order."""

import numpy as np
import pytest

from jaxrelax.geometry import Aberrations, zernike_sum

K = np.random.default_rng(0).uniform(-0.4, 0.4, (60, 2))
X, Y = K.T
R2 = X**2 + Y**2
ODD = [
    Y, X, 3 * X**2 * Y - Y**3, (3 * R2 - 2) * Y, (3 * R2 - 2) * X, X**3 - 3 * X * Y**2,
]  # fmt: skip
EVEN = [
    np.ones_like(X), 2 * X * Y, 2 * R2 - 1, X**2 - Y**2, 4 * X * Y * (X**2 - Y**2),
    (4 * R2 - 3) * 2 * X * Y, 6 * R2**2 - 6 * R2 + 1, (4 * R2 - 3) * (X**2 - Y**2),
    X**4 - 6 * X**2 * Y**2 + Y**4,
]  # fmt: skip


@pytest.mark.parametrize(("parity", "polynomials"), [(1, ODD), (0, EVEN)])
def test_terms_are_the_polynomials_in_relions_order(parity, polynomials):
    for place, expected in enumerate(polynomials):
        terms = (0.0,) * place + (1.0,)
        np.testing.assert_allclose(zernike_sum(terms, K, parity), expected, atol=1e-12)


def test_phases_are_odd_and_even():
    some = Aberrations(odd=(0.3, 0.1, 20.0, -4.0, 3.0, 9.0, 50.0), even=(0.1, 2.0, 3.0, -1.0, 40.0))
    np.testing.assert_allclose(some.odd_phase(-K), -some.odd_phase(K), atol=1e-12)
    np.testing.assert_allclose(some.even_phase(-K), some.even_phase(K), atol=1e-12)


def test_what_is_the_same_is_equal_and_nothing_is_false():
    assert Aberrations(odd=(1.0, 0.0, 0.0)) == Aberrations(odd=(1.0,))
    assert not Aberrations((0.0, 0.0), (0.0,))
    assert Aberrations(magnification=(1.0, 0.01, 0.0, 1.0))
    assert Aberrations().stretches == (1.0, 1.0)
    assert Aberrations(magnification=(1.02, 0.0, 0.0, 0.99)).stretches == pytest.approx(
        (1.02, 0.99)
    )
