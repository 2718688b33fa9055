"""Maps, masks and stacks: written as others read them, and refused when they cannot be used."""

import mrcfile
import numpy as np
import pytest

from jaxrelax.io import (
    InputError,
    read_map,
    read_mask,
    read_reference,
    write_map,
    write_stack,
)
from jaxrelax.io.mrc_header import read_header


@pytest.fixture
def volume():
    return np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)


def rewrite_header(path, **fields):
    """Change header fields of an MRC file in place."""
    with mrcfile.open(path, "r+", permissive=True) as handle:
        for name, value in fields.items():
            handle.header[name] = value


def test_maps_that_cannot_be_a_particle_are_refused(tmp_path, volume):
    path = tmp_path / "map.mrc"
    write_map(path, volume * np.float32(1e30), 1.0)
    with pytest.raises(InputError, match="beyond what single precision can square"):
        read_reference(path)
    corner = np.zeros_like(volume)
    corner[0, 0, :2] = 1.0
    write_map(path, corner, 1.0)
    with pytest.raises(InputError, match="nothing in this map within 4 voxels"):
        read_reference(path)


def test_a_map_survives_and_others_read_it(tmp_path, volume):
    path = tmp_path / "a.mrc"
    write_map(path, volume.astype(np.float64), 1.31)
    array, pixel_size = read_map(path)
    np.testing.assert_array_equal(array, volume)
    assert pixel_size == 1.31
    assert mrcfile.validate(path)
    with mrcfile.open(path) as handle:
        assert handle.is_volume()
        np.testing.assert_array_equal(handle.data, volume)
        np.testing.assert_allclose(handle.header.rms, volume.std(), rtol=1e-5)
        assert handle.header.dmax == volume.max()
        assert handle.header.origin.item() == (0, 0, 0)


def test_an_experimental_map_is_read(shared_data):
    array, pixel_size = read_map(shared_data / "maps" / "emd_1080.mrc")
    assert array.shape == (100, 100, 100)
    assert pixel_size == 2.7
    with mrcfile.open(shared_data / "maps" / "emd_1080.mrc") as handle:
        np.testing.assert_array_equal(array, handle.data)


@pytest.mark.parametrize("kind", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_modes_and_byte_orders_are_read(tmp_path, kind, order):
    data = np.arange(8**3).reshape(8, 8, 8).astype("i1").astype(kind)
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, data.astype(np.dtype(kind).newbyteorder(order))) as handle:
        handle.voxel_size = 2.0
        handle.set_extended_header(np.zeros(80, "V1"))
    assert read_header(path).dtype.itemsize == np.dtype(kind).itemsize
    np.testing.assert_array_equal(read_map(path)[0], data.astype(np.float32))


def test_maps_that_cannot_be_used_are_refused(tmp_path, volume):
    path = tmp_path / "a.mrc"
    with pytest.raises(InputError, match="no such file"):
        read_map(path)
    write_map(path, volume[:6], 1.0)
    with pytest.raises(InputError, match="8 x 8 x 6 voxels is not a cube"):
        read_map(path)
    write_map(path, volume[:7, :7, :7], 1.0)
    with pytest.raises(InputError, match="box of 7 voxels is odd"):
        read_map(path)
    holed = volume.copy()
    holed[1, 2, 3] = np.nan
    write_map(path, holed, 1.0)
    with pytest.raises(InputError, match="1 voxels are NaN or infinite"):
        read_map(path)
    write_map(path, volume, 1.0)
    rewrite_header(path, mapc=2, mapr=1)
    with pytest.raises(InputError, match=r"order \(2, 1, 3\)"):
        read_map(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"truncated: 2972 bytes .* promises {1024 + 4 * 8**3}"):
        read_map(path)
    path.write_bytes(b"short")
    with pytest.raises(InputError, match="too short"):
        read_map(path)
    path.write_bytes(b"\xff" * 2000)
    with pytest.raises(InputError, match="not one of an MRC"):
        read_map(path)


def test_a_mode_that_is_not_supported_is_named(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, np.zeros((4, 4, 4), np.complex64)):
        pass
    with pytest.raises(InputError, match="mode 4 is not supported"):
        read_map(path)


def test_a_map_without_pixel_size_needs_one(tmp_path, volume):
    path = tmp_path / "a.mrc"
    write_map(path, volume, 1.0)
    rewrite_header(path, cella=(0, 0, 0))
    with pytest.raises(
        InputError, match=r"no pixel size.*--map-pixel-size-angstrom.*--force_header_angpix"
    ):
        read_map(path)
    assert read_map(path, pixel_size_angstrom=1.5)[1] == 1.5


def test_a_mask_goes_from_zero_to_one(tmp_path, volume):
    path = tmp_path / "mask.mrc"
    write_map(path, (volume > 0).astype(np.float32), 1.0)
    assert set(np.unique(read_mask(path)[0])) == {0.0, 1.0}
    write_map(path, volume, 1.0)
    with pytest.raises(InputError, match="values from 0 to 1"):
        read_mask(path)
    write_map(path, np.zeros_like(volume), 1.0)
    with pytest.raises(InputError, match="mask is as good as empty"):
        read_mask(path)


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, 2), (np.float16, 12)])
def test_a_stack_is_written_as_a_stream(tmp_path, dtype, mode):
    images = np.random.default_rng(0).standard_normal((5, 6, 6))
    path = tmp_path / "a.mrcs"
    pieces = iter([images[0], images[1:3], images[3:]])
    assert write_stack(path, pieces, 1.2, dtype) == 5
    assert mrcfile.validate(path)
    with mrcfile.open(path) as handle:
        assert handle.is_image_stack()
        assert handle.header.mode == mode
        np.testing.assert_array_equal(handle.data, images.astype(dtype))
        np.testing.assert_allclose(handle.header.dmean, images.mean(), atol=1e-3)
    np.testing.assert_allclose(read_header(path).pixel_size_angstrom, 1.2, rtol=1e-6)


def test_a_bad_stack_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.mrcs"
    for images, message in [
        ([np.zeros((4, 4)), np.zeros((6, 6))], "in a stack of"),
        ([], "at least one image"),
        ([np.full((4, 4), 1e6)], "too large for float16"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_stack(path, images, 1.0, np.float16)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="float32 or float16"):
        write_stack(path, [np.zeros((4, 4))], 1.0, np.int16)
    with pytest.raises(ValueError, match="positive"):
        write_stack(path, [np.zeros((4, 4))], 0.0)


def test_unsigned_bytes_of_imod_are_read(tmp_path):
    path = tmp_path / "bytes.mrc"
    data = np.arange(8**3).reshape(8, 8, 8).astype(np.uint8)
    with mrcfile.new(path, data.view(np.int8)) as handle:
        handle.voxel_size = 2.0
    np.testing.assert_array_equal(read_map(path)[0], data.view(np.int8))
    raw = bytearray(path.read_bytes())
    for flags, kind in ((0, np.uint8), (4, np.uint8), (1, np.int8)):
        raw[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(raw)
        np.testing.assert_array_equal(read_map(path)[0], data.view(kind))


def test_voxels_are_cubes(tmp_path, volume):
    path = tmp_path / "a.mrc"
    write_map(path, volume, 2.0)
    rewrite_header(path, cella=(16.0, 16.0, 24.0))
    with pytest.raises(InputError, match=r"voxels of 2 x 2 x 3 Å are no cubes"):
        read_map(path)
    assert read_map(path, 2.0)[1] == 2.0  # asked to leave the header aside
    rewrite_header(path, cella=(16.0, 16.004, 16.0))  # a header's rounding
    assert read_map(path)[1] == 2.0
    rewrite_header(path, cella=(16.0, 0.0, 0.0))  # left out, as some programs do
    assert read_map(path)[1] == 2.0


@pytest.mark.parametrize("angles", [(90, 105, 90), (90, 90, 120)])
def test_cells_are_rectangular(tmp_path, volume, angles):
    path = tmp_path / "a.mrc"
    write_map(path, volume, 2.0)
    rewrite_header(path, cellb=angles)
    for pixel_size in (None, 2.0):
        with pytest.raises(InputError, match=rf"angles .* {angles[0]}, {angles[1]}, {angles[2]}"):
            read_map(path, pixel_size)
    rewrite_header(path, cellb=(0, 0, 0))  # unset
    read_map(path)


@pytest.mark.parametrize(
    ("peak", "taken"), [(1e-6, False), (1e-2, False), (0.4, False), (0.9, True)]
)
def test_a_mask_comes_near_one(tmp_path, volume, peak, taken):
    path = tmp_path / "mask.mrc"
    write_map(path, peak * (volume > 0), 1.0)
    if taken:
        assert read_mask(path)[0].max() == np.float32(peak)
        return
    with pytest.raises(InputError, match="as good as empty"):
        read_mask(path)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_reference_holds_something(tmp_path, volume, value):
    path = tmp_path / "a.mrc"
    write_map(path, np.full_like(volume, value), 1.0)
    with pytest.raises(InputError, match="there is nothing in this map"):
        read_reference(path)
    write_map(path, 1e-6 * volume, 1.0)
    read_reference(path)


@pytest.mark.parametrize(
    ("name", "shape", "space_group", "sampled", "stack"),
    [
        ("a.mrc", (8, 8, 8), 1, 8, False),
        ("a.mrc", (8, 8, 8), 0, 8, False),  # relion_image_handler, IMOD, cryoSPARC
        ("a.mrc", (8, 8, 8), 0, 1, True),
        ("a.mrcs", (8, 8, 8), 1, 8, True),
        ("a.mrc", (5, 8, 8), 0, 5, True),  # cryoSPARC
        ("a.mrc", (5, 8, 8), 1, 5, True),
        ("a.mrc", (5, 8, 10), 1, 5, False),
        ("a.mrc", (1, 8, 8), 0, 1, True),
    ],
)
def test_stacks_and_maps_are_told_apart(tmp_path, name, shape, space_group, sampled, stack):
    path = tmp_path / name
    write_map(path, np.ones(shape), 1.0)
    rewrite_header(path, ispg=space_group, mz=sampled)
    assert read_header(path).is_stack() == stack
