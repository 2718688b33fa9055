"""FSCs and gains of isotypic components, against components that are projected one by one."""

import numpy as np
import pytest

from jaxrelax.geometry import isotypic_weights, point_group
from jaxrelax.reconstruction import (
    apply_component_gains,
    apply_gain,
    component_counts,
    component_fsc,
    component_shares,
    fsc,
    isotypic_parts,
    rotate_map,
    share_of_components,
    symmetrise,
)
from jaxrelax.reconstruction.components import component_gained_maps

from .blobs import blobs

N = 32


def asymmetric(group, seed, kept="C1"):
    # Smooth and inside the box: turning is then exact.
    return isotypic_parts(blobs(N, seed + 1), group, point_group(kept)).asymmetric


def projected(map_, group):
    """Every asymmetric component in turn."""
    turned = np.stack([rotate_map(map_, h) for h in group.operators])
    return np.tensordot(isotypic_weights(group)[1:], turned, axes=1).astype(np.float32)


# Turning permutes the voxels of a shell for the first three only; for the others a shell is a
# sample of a sphere, another one after turning.
@pytest.mark.parametrize(
    ("name", "tolerance"), [("C4", 2e-3), ("D2", 2e-3), ("O", 2e-3), ("D3", 0.1), ("T", 0.1)]
)
def test_component_fsc_is_that_of_the_projected_maps(name, tolerance):
    group = point_group(name)
    first, noise = asymmetric(group, 0), asymmetric(group, 1)
    second = 0.7 * first + 0.5 * noise
    turn = group.order - 1
    second = rotate_map(second, group.operators[group.inverse[turn]])
    found = component_fsc(first, second, group, np.full(N // 2 + 1, turn))
    back = rotate_map(second, group.operators[turn])
    expected = np.array(
        [fsc(a, b) for a, b in zip(projected(first, group), projected(back, group), strict=True)]
    )
    np.testing.assert_allclose(found[:, 2:7], expected[:, 2:7], atol=tolerance)


@pytest.mark.parametrize("name", ["C4", "D3", "O"])
def test_gains_act_on_projected_components(name):
    group = point_group(name)
    map_ = asymmetric(group, 2)
    components = projected(map_, group)
    # A filter with steps between shells rings, and turning what rings out of the box is not exact:
    # hence smooth curves and a tolerance.
    width = np.linspace(3.0, 6.0, len(components))[:, None]
    gains = np.exp(-((np.arange(N // 2) / width) ** 2))
    expected = sum(apply_gain(c, g) for c, g in zip(components, gains, strict=True))
    found = apply_component_gains(map_, gains, group)
    assert np.linalg.norm(found - expected) < 0.04 * np.linalg.norm(expected)


def test_equal_gains_are_one_gain():
    group = point_group("D3")
    map_, curve = asymmetric(group, 4), np.exp(-((np.arange(N // 2) / 5.0) ** 2))
    found = apply_component_gains(map_, np.stack([curve, curve]), group)
    np.testing.assert_array_equal(found, apply_gain(map_, curve))
    nearly = apply_component_gains(map_, np.stack([curve, curve + 1e-6]), group)
    assert np.linalg.norm(nearly - found) < 0.04 * np.linalg.norm(found)


@pytest.mark.parametrize("name", ["C4", "D3"])
def test_several_gains_at_once_are_each_by_itself(name):
    group, rng = point_group(name), np.random.default_rng(5)
    map_ = asymmetric(group, 4)
    gains = rng.uniform(size=(3, len(projected(map_, group)), N // 2))
    for some in (gains, np.repeat(gains[:, :1], gains.shape[1], axis=1)):
        made = list(component_gained_maps(map_, some, group))
        each = [apply_component_gains(map_, one, group) for one in some]
        np.testing.assert_allclose(made, each, atol=1e-6 * np.abs(map_).max())
    assert len(made) == 3


def test_shares_count_what_the_kept_subgroup_leaves():
    group = point_group("D7")
    everything = component_shares(group, point_group("C1"))
    np.testing.assert_allclose(everything, np.array([1, 4, 4, 4]) / 14, atol=1e-9)
    kept = component_shares(group, point_group("C7"))
    np.testing.assert_allclose(kept, [1 / 14, 0, 0, 0], atol=1e-9)


def test_a_map_that_keeps_a_subgroup_has_its_components_only():
    group = point_group("D7")
    capped = symmetrise(asymmetric(group, 5), point_group("C7"))
    other = symmetrise(asymmetric(group, 6), point_group("C7"))
    found = component_fsc(capped, capped + other, group, np.zeros(N // 2 + 1, int))
    assert np.all(found[0, 2:7] > 0.3)
    power = [np.linalg.norm(c) for c in projected(capped, group)]
    assert max(power[1:]) < 0.02 * power[0]


def test_component_without_signal_gets_little_gain():
    """One component has all the signal: its FSC stays, that of the others falls to their noise."""
    group = point_group("D7")
    box, fraction = 48, 0.3
    counts = component_counts(box, fraction, group, point_group("C1"))
    rng = np.random.default_rng(7)
    true = np.array([0.95, 0.0, 0.0, 0.0])[:, None]
    scatter = rng.standard_normal(counts.shape) / np.sqrt(np.maximum(counts, 1.0))
    found = true + (1 - true) * scatter
    whole = np.average(found, axis=0, weights=None)
    whole = np.full(box // 2 + 1, 0.8)
    shared = share_of_components(whole, found, counts)
    assert shared[0, 5:].min() > 0.9
    assert shared[1:, 5:].mean() < 0.1


def test_without_evidence_components_are_alike():
    group = point_group("C4")
    counts = component_counts(16, 0.1, group, point_group("C1"))
    whole = np.full(9, 0.05)
    rng = np.random.default_rng(8)
    found = 0.05 + rng.standard_normal(counts.shape) / np.sqrt(np.maximum(counts, 1.0))
    shared = share_of_components(whole, found, counts)
    assert np.all(np.abs(shared[:, 1:] - 0.05) < 0.04)
