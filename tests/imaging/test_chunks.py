"""Work cut into blocks and taken through stages gives what it gives in one piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrelax.geometry import random_rotations
from jaxrelax.imaging import (
    Blocks,
    extract_parts,
    extract_parts_and_derivatives,
    fourier_volume,
    half_spectrum,
    in_stages,
    volume_radius,
)
from jaxrelax.imaging import chunks as module

BOX, SHELL = 24, 10


# Few sizes: each is a program of its own.
@given(st.sampled_from((1, 4, 12)), st.sampled_from((1, 7, 40)), st.sampled_from((1, 11, 60)))
def test_blocks_give_back_what_was_cut(n_images, n_points, most_points):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", most_points * 64)
        patch.setattr(module, "on_cpu", lambda: True)
        blocks = Blocks.of(n_images, n_points, 64)
    assert blocks.images * blocks.points <= most_points
    assert blocks.images == 1 or blocks.parts == 1
    rng = np.random.default_rng(0)
    values = rng.integers(-9, 9, (n_images, n_points)).astype(np.float32)
    shared = rng.integers(-9, 9, n_points).astype(np.float32)
    split, parts = blocks.split(jnp.asarray(values)), blocks.split(jnp.asarray(shared))
    assert split.shape == (n_images, blocks.parts, blocks.points)
    found = np.stack(
        [
            np.asarray(blocks.of_points(split, i))[:, None] * np.asarray(blocks.part(parts, i))
            for i in map(jnp.int32, range(blocks.count))
        ]
    )
    np.testing.assert_array_equal(blocks.joined(jnp.asarray(found))[:, 0], values * shared)
    np.testing.assert_array_equal(
        blocks.total(jnp.asarray(found.sum(axis=-1)))[:, 0], (values * shared).sum(axis=1)
    )


@given(st.sampled_from((1, 2, 7)), st.sampled_from((1, 2, 5)))
def test_stages_are_taken_one_after_another(count, n_stages):
    offsets = jnp.arange(20.0) ** 2

    def stage(step):
        def work(item, value):
            value = jnp.zeros(3) if value is None else value["kept"]
            return {"kept": 2.0 * value + offsets[item] + step, "shape changes": value[:1]}

        return work

    found = in_stages(tuple(stage(i) for i in range(n_stages)), count)
    for item in range(count):
        value = np.zeros(3)
        for step in range(n_stages):
            before, value = value, 2.0 * value + float(item) ** 2 + step
        np.testing.assert_allclose(found["kept"][item], value)
        np.testing.assert_allclose(found["shape changes"][item], before[:1])


def test_derivatives_go_through_the_stages():
    def scaled(x):
        stages = (lambda i, _: x * i, lambda i, v: jnp.sin(v), lambda i, v: v**2)
        return jnp.sum(in_stages(stages, 4))

    x = jnp.array([0.3, -0.7])
    expected = sum(2 * i * np.sin(i * x) * np.cos(i * x) for i in range(4))
    np.testing.assert_allclose(jax.grad(scaled)(x), expected, rtol=1e-5)


@pytest.mark.parametrize("points", [7, 64, 500])
def test_slices_do_not_depend_on_the_blocks(monkeypatch, points):
    rng = np.random.default_rng(1)
    maps = jnp.asarray(rng.standard_normal((3, 22, 22, 22)), jnp.float32)
    volume = fourier_volume(maps, radius=volume_radius(SHELL), image_box=BOX)
    wavevectors = half_spectrum(BOX, SHELL).wavevectors_px
    rotations = jnp.asarray(random_rotations(6, rng), jnp.float32)

    def everything():
        found = extract_parts_and_derivatives(volume, rotations, wavevectors)
        return [extract_parts(volume, rotations, wavevectors), *found]

    monkeypatch.setattr(module, "on_cpu", lambda: False)  # all at once, as on an accelerator
    whole = everything()
    monkeypatch.setattr(module, "on_cpu", lambda: True)
    monkeypatch.setattr(module, "BLOCK_BYTES", points * 64 * 3)
    for parts, expected in zip(everything(), whole, strict=True):
        for part, other in zip(parts, expected, strict=True):
            np.testing.assert_allclose(part, other, atol=1e-5 * float(jnp.abs(other).max()))
