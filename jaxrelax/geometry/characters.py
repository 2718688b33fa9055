"""Isotypic components of functions that a finite rotation group acts on.

A function on space splits, orthogonally, into one part per irreducible representation χ of G (over
the real numbers; a complex one goes together with its conjugate). Its projector is a sum over the
group, P_χ = Σ_h w_χ(h) h with w_χ(h) = d_χ χ(h)*/|G| (Serre, Linear Representations of Finite
Groups, 1977, 2.6). The weights are found from the multiplication table alone, so that they serve
groups of any orientation, groups read from files too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from .groups import PointGroup

# Eigenvalues nearer than this belong to one component; generic ones differ by far more.
SAME_EIGENVALUE = 1e-6


@lru_cache(maxsize=16)
def isotypic_weights(group: PointGroup) -> Float64[np.ndarray, "components order"]:
    """Weights w_χ(h) of the projectors on G's real isotypic components, the trivial one first.

    An operator that commutes with the regular representation and is its own transpose is constant
    on every component; the eigenspaces of a generic one are the components.

    Returns:
        (components, order); the sum over components is 1 at the identity and 0 elsewhere. The
        trivial component is followed by the others in the order of their dimension.
    """
    table, inverse = group.multiplication_table, group.inverse
    rng = np.random.default_rng(0)
    values = rng.standard_normal(group.order)
    values = values + values[inverse]
    central = values[table[table, inverse[:, None]]].mean(axis=0)  # over g of a(g h g⁻¹)
    # M[x, y] = a(x y⁻¹): multiplication by Σ_h a(h) h on functions on the group.
    operator = central[table[:, inverse]]
    eigenvalues, vectors = np.linalg.eigh(0.5 * (operator + operator.T))
    breaks = np.flatnonzero(np.diff(eigenvalues) > SAME_EIGENVALUE) + 1
    spaces = np.split(vectors, breaks, axis=1)
    # P_χ applied to the identity's indicator, element by element.
    weights = np.array([space @ space[0] for space in spaces])
    trivial = np.abs(weights - 1.0 / group.order).max(axis=1) < SAME_EIGENVALUE
    order = sorted(range(len(weights)), key=lambda i: (not trivial[i], round(weights[i, 0], 9), i))
    result = weights[order]
    result.setflags(write=False)
    return result
