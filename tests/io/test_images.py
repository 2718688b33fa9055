"""Images by slices: the right ones, only those, and clear words when a stack is not as named."""

import os
import threading
import time
import weakref

import mrcfile
import numpy as np
import pytest

from jaxrelax.io import (
    ImageReader,
    InputError,
    LostImagesError,
    MissingImagesError,
    drop_bad_images,
    find_bad_images,
    prefetch,
    read_particles,
    write_stack,
)


@pytest.fixture
def reader(particle_set):
    particle_set.write_stack()
    return ImageReader(read_particles(particle_set.write()))


def test_rows_come_in_the_order_asked(reader, particle_set):
    reader.validate()
    assert reader.box() == 16
    np.testing.assert_array_equal(reader.read([5, 0, 3, 0]), particle_set.images[[5, 0, 3, 0]])
    with pytest.raises(IndexError):
        reader.read([6])


def test_many_stacks_are_read_with_few_open(particle_set):
    images = particle_set.images
    for i in range(6):
        write_stack(particle_set.folder / f"s{i}.mrcs", images[[i, 5 - i]], 1.5)
    particle_set.columns["rlnImageName"] = [f"1@s{i}.mrcs" for i in range(6)]
    with ImageReader(read_particles(particle_set.write()), max_open=2) as reader:
        np.testing.assert_array_equal(reader.read(np.arange(6)), images)
        assert len(reader._open) == 2
        np.testing.assert_array_equal(reader.read([0, 5]), images[[0, 5]])
    assert len(reader._open) == 0


def test_float16_stacks_and_cryosparc_sign(particle_set):
    particle_set.write_stack(dtype=np.float16)
    particle_set.columns["jrxImageSign"] = ["-1", "1", "1", "1", "1", "1"]
    reader = ImageReader(read_particles(particle_set.write()))
    images = reader.read([0, 1])
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[0], -particle_set.images[0], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(images[1], particle_set.images[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int8, np.int16, np.uint16])
def test_images_as_they_are_stored(particle_set, kind):
    """The type is that of the stack; numbers are those that are read as float32."""
    images = np.round(20 + 10 * np.clip(particle_set.images, -2, 2)).astype(kind)
    with mrcfile.new(particle_set.folder / "stack.mrcs") as file:
        file.set_data(images)
    reader = ImageReader(read_particles(particle_set.write()))
    stored, single = reader.read([3, 0], as_stored=True), reader.read([3, 0])
    assert (stored.dtype, single.dtype) == (np.dtype(kind), np.dtype(np.float32))
    np.testing.assert_array_equal(stored.astype(np.float32), single)
    np.testing.assert_array_equal(stored, images[[3, 0]])


def test_what_no_type_holds_is_read_as_float32(particle_set):
    particle_set.write_stack("a.mrcs", dtype=np.float16)
    with mrcfile.new(particle_set.folder / "b.mrcs") as file:
        file.set_data(np.round(20 * particle_set.images).astype(np.int16))
    particle_set.columns["rlnImageName"] = [f"{i + 1}@{'ab'[i // 3]}.mrcs" for i in range(6)]
    particle_set.columns["jrxImageSign"] = ["-1", "1", "1", "1", "1", "1"]
    reader = ImageReader(read_particles(particle_set.write()))
    for rows, kind in (([1, 2], "f2"), ([3, 4], "i2"), ([2, 3], "f4"), ([0, 1], "f4")):
        images = reader.read(rows, as_stored=True)
        assert images.dtype == np.dtype(kind)
        np.testing.assert_array_equal(images.astype(np.float32), reader.read(rows))


def test_real_stacks_are_read(shared_data):
    for name, box in [
        ("images/sample_particles_relion31.star", 200),
        ("na-fab-c4/particles.star", 128),
    ]:
        reader = ImageReader(read_particles(shared_data / name))
        reader.validate()
        assert reader.read([0, len(reader) - 1]).shape == (2, box, box)


def test_image_root_and_parents_are_searched(particle_set, tmp_path):
    stack = particle_set.write_stack()
    path = particle_set.write()
    job = particle_set.folder / "Refine3D" / "job001"
    job.mkdir(parents=True)
    moved = path.rename(job / "run_data.star")
    ImageReader(read_particles(moved)).validate()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stack.rename(elsewhere / "stack.mrcs")
    with pytest.raises(MissingImagesError, match="--image-root"):
        ImageReader(read_particles(moved)).validate()
    ImageReader(read_particles(moved, image_root=elsewhere)).validate()


def test_missing_images_do_not_stop_the_metadata(shared_data):
    particles = read_particles(shared_data / "images" / "trpv1_small_stack.star")
    assert len(particles) == 10
    reader = ImageReader(particles)
    message = r"'./batch_0_restacked.mrc' does not exist in any of .*images.*--image-root"
    with pytest.raises(MissingImagesError, match=message):
        reader.validate()
    with pytest.raises(MissingImagesError, match=message):
        reader.read([0])


def test_a_truncated_stack_is_named_with_its_size(particle_set):
    stack = particle_set.write_stack()
    stack.write_bytes(stack.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"stack.mrcs: truncated: 7164 bytes.*promises 7168"):
        ImageReader(read_particles(particle_set.write())).validate()


def test_a_stack_cut_short_while_it_is_read_is_named_with_the_row(particle_set):
    stack = particle_set.write_stack()
    reader = ImageReader(read_particles(particle_set.write()))
    reader.validate()
    reader.read([5])
    os.truncate(stack, stack.stat().st_size - 4)
    message = r"stack.mrcs: image '6@stack.mrcs' \(row 6 of .*\) can no longer be read: .*shorter"
    with pytest.raises(LostImagesError, match=message):
        reader.read([0, 5])
    np.testing.assert_array_equal(reader.read([4]), particle_set.images[[4]])


def test_a_stack_that_vanishes_is_named_with_the_row(particle_set):
    for i in range(6):
        write_stack(particle_set.folder / f"s{i}.mrcs", particle_set.images[[i]], 1.5)
    particle_set.columns["rlnImageName"] = [f"1@s{i}.mrcs" for i in range(6)]
    reader = ImageReader(read_particles(particle_set.write()), max_open=2)
    reader.validate()
    reader.read([3])
    reader.read([0, 1])
    (particle_set.folder / "s3.mrcs").unlink()
    with pytest.raises(LostImagesError, match=r"s3.mrcs: image .* \(row 4 of .*No such file"):
        reader.read([3])


def test_a_stack_of_another_box_is_refused(particle_set):
    particle_set.images = particle_set.images[:, :14, :14]
    particle_set.write_stack()
    with pytest.raises(InputError, match=r"box is 14 pixels, but .* says 16"):
        ImageReader(read_particles(particle_set.write())).validate()


@pytest.mark.parametrize(
    ("shape", "message"), [((15, 15), "15 pixels is odd"), ((16, 14), "not sq")]
)
def test_odd_and_oblong_images_are_refused(particle_set, shape, message):
    particle_set.images = particle_set.images[:, : shape[0], : shape[1]]
    particle_set.write_stack()
    with pytest.raises(InputError, match=message):
        ImageReader(read_particles(particle_set.write())).validate()


def test_an_image_outside_its_stack_is_named(particle_set):
    particle_set.write_stack()
    particle_set.columns["rlnImageName"][3] = "000007@stack.mrcs"
    reader = ImageReader(read_particles(particle_set.write()))
    message = r"row 4: image '7@stack.mrcs' is outside its stack.*which has 6 images"
    with pytest.raises(InputError, match=message):
        reader.validate()
    with pytest.raises(InputError, match=message):
        reader.read([3])


def test_another_pixel_size_in_the_header_is_a_warning(particle_set, caplog):
    particle_set.write_stack(pixel_size_angstrom=1.6)
    ImageReader(read_particles(particle_set.write())).validate()
    assert "1.6 Å, table 1.5 Å" in caplog.text


def test_boxes_must_agree_within_a_batch(particle_set):
    particle_set.write_stack()
    write_stack(particle_set.folder / "small.mrcs", np.zeros((3, 8, 8)), 3.0)
    particle_set.columns["rlnImageName"][3:] = [f"{i}@small.mrcs" for i in (1, 2, 3)]
    particle_set.optics = particle_set.optics.replace(
        "0.070000 1.500000 16", "0.070000 3.000000  8"
    )
    reader = ImageReader(read_particles(particle_set.write()))
    reader.validate()
    assert reader.read([3, 4]).shape == (2, 8, 8)
    with pytest.raises(InputError, match=r"different boxes \(\[8, 16\]\)"):
        reader.read([2, 3])


def test_bad_images_are_named_or_left_out(particle_set, caplog):
    particle_set.images[1] = 0.5
    particle_set.images[4, 3, 3] = np.nan
    particle_set.images[5, 0, 0] = np.inf
    particle_set.write_stack()
    particles = read_particles(particle_set.write())
    bad = find_bad_images(ImageReader(particles), chunk=2)
    assert bad == {
        1: "all pixels are equal",
        4: "NaN or infinite pixels",
        5: "NaN or infinite pixels",
    }
    message = r"3 of 6 images cannot be used: 2@stack.mrcs \(row 2: all pixels are equal\), 5@"
    with pytest.raises(InputError, match=message):
        drop_bad_images(particles)
    kept = drop_bad_images(particles, skip_bad=True)
    assert kept.image_index.tolist() == [0, 2, 3]
    assert "Left out 3 of 6 images" in caplog.text
    assert drop_bad_images(kept) is kept


def test_prefetch_gives_every_batch_in_order(reader, particle_set):
    batches = [np.array([0, 1]), np.array([5]), np.array([2, 3, 4])]
    got = list(prefetch(reader, batches))
    assert len(got) == 3
    for rows, (got_rows, images) in zip(batches, got, strict=True):
        np.testing.assert_array_equal(got_rows, rows)
        np.testing.assert_array_equal(images, particle_set.images[rows])


def reader_threads():
    return [t for t in threading.enumerate() if t.name == "jaxrelax-reader"]


def test_prefetch_reads_no_further_ahead_than_asked(reader):
    taken = []

    def batches():
        for i in range(6):
            taken.append(i)
            yield np.array([i])

    stream = prefetch(reader, batches(), depth=1)
    next(stream)
    time.sleep(0.2)
    assert len(taken) <= 3  # one with us, one waiting, one in the thread's hands
    stream.close()
    assert reader_threads() == []


@pytest.mark.parametrize("count", [10, 100])
def test_prefetch_holds_as_much_for_few_batches_as_for_many(reader, monkeypatch, count):
    alive, counts, read = set(), [], reader.read

    def watched(rows, **options):
        images = read(rows, **options)
        number = len(counts)
        alive.add(number)
        weakref.finalize(images, alive.discard, number)
        counts.append(len(alive))
        return images

    monkeypatch.setattr(reader, "read", watched)
    for i, _ in enumerate(prefetch(reader, [np.arange(3)] * count)):
        if i < 5:
            time.sleep(0.02)  # time to read on, if it would
    assert len(counts) == count
    # The one in use and the next one; a third for the moment in which one is exchanged.
    assert 2 <= max(counts) <= 3
    assert counts[3] == 2


def test_prefetch_hands_on_errors_and_ends_its_thread(reader):
    stream = prefetch(reader, [np.array([0]), np.array([99])])
    next(stream)
    with pytest.raises(IndexError):
        next(stream)
    assert reader_threads() == []
