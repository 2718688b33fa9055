"""Images of which a few, or a group, are not like the others: cured, named, or told apart."""

import shutil

import numpy as np
import pytest

from jaxrelax.cli.inspect import Command as Inspect
from jaxrelax.cli.option_groups import ParticleOptions
from jaxrelax.cli.reconstruct import Command as Reconstruct
from jaxrelax.io import (
    ImageReader,
    InputError,
    read_map,
    read_particles,
    write_map,
    write_star,
)
from jaxrelax.io.mrc import write_stack
from jaxrelax.refinement import Homogeneous, Local
from jaxrelax.refinement.preparation import prepare

RNG = np.random.default_rng(0)
ALL = np.ones(300, bool)
LAST = np.arange(300) >= 200
THIRD = np.isin(np.arange(300), RNG.permutation(300)[:100])
FEW = np.isin(np.arange(300), RNG.permutation(300)[:6])
MODES = {"local": Local(), "homogeneous": Homogeneous()}


def raw(images):
    return 37 * images + 500


@pytest.fixture
def base(case):
    """A function: the base case with some images changed, and perhaps in a group of their own."""
    folder = case("base")
    particles = read_particles(folder / "particles.star")
    images = ImageReader(particles).read(np.arange(300))

    def changed(rows, change, own_group=False):
        altered = images.copy()
        altered[rows] = change(altered[rows])
        write_stack(folder / "particles.mrcs", altered, 5.2)
        if own_group:
            _regroup(folder / "particles.star", rows)
        return folder

    return changed


def _regroup(path, rows):
    lines, row = [], 0
    for line in path.read_text().splitlines():
        words = line.split()
        if line.startswith("1 opticsGroup1"):
            lines.append(line)
            line = " ".join(["2", "joined", *words[2:]])
        elif "@particles.mrcs" in line:
            words[2] = "2" if rows[row] else "1"
            line, row = " ".join(words), row + 1
        lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def prepared(folder, mode="local", **options):
    return prepare(
        folder / "particles.star", folder / "reference.mrc", mode=MODES[mode], relax="C4", **options
    ).problem


@pytest.mark.parametrize("mode", MODES)
def test_good_images_are_left_as_they_are(base, mode, caplog):
    problem = prepared(base(ALL, lambda x: x), mode)
    assert problem.execution.images.normalise == (False,)
    assert not (problem.data.particles.image_sign < 0).any()
    assert "normalis" not in caplog.text
    assert "black" not in caplog.text


@pytest.mark.parametrize(
    ("rows", "change"),
    [(FEW, lambda x: 100 * x), (THIRD, raw), (np.arange(300) == 5, lambda x: 100 * x)],
    ids=["2 % x 100", "a third raw", "one x 100"],
)
def test_a_minority_that_is_not_normalised_decides(base, rows, change, caplog):
    wanted = normalised(prepared(base(ALL, lambda x: x), normalise="yes"))
    problem = prepared(base(rows, change))
    assert problem.execution.images.normalise == (True,)
    assert f"the background of {rows.sum()} of 300 images is not normalised" in caplog.text
    # What is made of the images is what would be made of the clean ones.
    np.testing.assert_allclose(normalised(problem), wanted, atol=0.02)


def normalised(problem):
    images = problem.execution.images
    return np.asarray(images.normalised(images.reader.read(np.arange(300)), 0))


def test_an_optics_group_is_normalised_by_itself(base, caplog):
    problem = prepared(base(LAST, raw, own_group=True))
    assert problem.execution.images.normalise == (False, True)
    assert "optics group 'joined': the background of all images is not normalised" in caplog.text


def test_a_slope_is_taken_from_the_images(base):
    y = np.linspace(-1, 1, 64, dtype=np.float32)
    wanted = normalised(prepared(base(ALL, lambda x: x), normalise="yes"))
    problem = prepared(base(ALL, lambda x: x + 3 * y[None, :, None] + 500))
    np.testing.assert_allclose(normalised(problem), wanted, atol=0.02)


def test_what_is_left_alone_on_request_is_said(base, caplog):
    problem = prepared(base(THIRD, raw), normalise="no")
    assert problem.execution.images.normalise == (False,)
    assert "--normalise no leaves it so" in caplog.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("rows", "own_group", "named"),
    [
        (ALL, False, "black in all images"),
        (LAST, True, "all of optics group 'joined'"),
        (THIRD, False, "100 of 300 images"),
    ],
    ids=["all", "an optics group", "a third"],
)
def test_black_particles_are_made_white(base, mode, rows, own_group, named, caplog):
    problem = prepared(base(rows, lambda x: -x, own_group), mode)
    # Without poses a few single images may be told wrong.
    wrong = np.sum((problem.data.particles.image_sign < 0) != rows)
    assert wrong <= (2 if mode == "homogeneous" and named.startswith("100") else 0)
    assert "multiplied by -1" in caplog.text
    if wrong == 0:
        assert named in caplog.text
    assert "to match the grey scale" not in caplog.text


def test_a_raw_group_may_be_black(base):
    problem = prepared(base(LAST, lambda x: -raw(x), own_group=True))
    assert problem.execution.images.normalise == (False, True)
    np.testing.assert_array_equal(problem.data.particles.image_sign < 0, LAST)


def test_contrast_as_it_is_told(base):
    folder = base(ALL, lambda x: -x)
    assert (prepared(folder, contrast="black").data.particles.image_sign == -1).all()
    with pytest.raises(InputError, match="particles must be white"):
        prepared(folder, contrast="white")


def test_a_black_reference_is_no_reason_to_invert_images(base):
    folder = base(ALL, lambda x: x)
    map_, pixel = read_map(folder / "reference.mrc")
    write_map(folder / "reference.mrc", -map_, pixel)
    with pytest.raises(InputError, match=r"reference.mrc: its density is negative"):
        prepared(folder)


def masked(images):
    x = np.arange(64) - 32
    return np.where(np.hypot(x[:, None], x) < 24, images, np.float32(0.1))


def with_pixel(place, value):
    def change(images):
        images[:, *place] = value
        return images

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: 0 * x + 3, "all pixels are equal"),
        (masked, "the background around the particle is constant"),
        (with_pixel((30, 30), np.nan), "NaN or infinite pixels"),
        (with_pixel((30, 30), 1e6), "standard deviations of the background away"),
        (with_pixel((2, 2), -1e6), "standard deviations of the background away"),
    ],
    ids=["constant", "constant background", "NaN", "hot pixel inside", "hot pixel outside"],
)
def test_one_image_that_cannot_be_used(base, change, reason, caplog):
    rows = np.arange(300) == 7
    folder = base(rows, change)
    with pytest.raises(InputError, match=rf"8@particles.mrcs \(row 8: .*{reason}"):
        prepared(folder)
    problem = prepared(folder, skip_bad_images=True)
    assert len(problem.data.particles) == 299
    assert problem.execution.images.normalise == (False,)
    assert "Left out 1 of 300 images" in caplog.text


hot = with_pixel((10, 10), 1e5)


@pytest.mark.parametrize(("change", "reason"), [(hot, "a pixel is"), (masked, "constant")])
def test_inspect_says_so_with_the_same_words(base, change, reason):
    folder = base(np.arange(300) == 7, change)
    with pytest.raises(InputError, match=reason) as refused:
        prepared(folder)
    assert Inspect(folder / "particles.star").inspection().refusals == (str(refused.value),)
    skipping = Inspect(folder / "particles.star", table=ParticleOptions(skip_bad_images=True))
    found = skipping.inspection()
    assert not found.refusals
    assert "Left out 1 of 300 images" in found.warnings[0]


def test_reconstruct_leaves_out_the_same(base, tmp_path):
    folder, out = base(np.arange(300) == 7, hot), tmp_path / "map.mrc"
    with pytest.raises(InputError, match=r"8@particles\.mrcs .*--skip-bad-images"):
        Reconstruct(folder / "particles.star", out, max_resolution=30.0).run()
    table = ParticleOptions(skip_bad_images=True)
    Reconstruct(folder / "particles.star", out, max_resolution=30.0, table=table).run()
    assert np.abs(read_map(out)[0]).max() < 10.0


def test_too_few_that_are_left_are_refused_before_the_iterations(base):
    folder = base(np.arange(300) < 290, with_pixel((10, 10), np.nan))
    with pytest.raises(InputError, match="too small to refine"):
        prepared(folder, skip_bad_images=True)


def test_an_optics_group_of_which_no_image_is_left(base):
    problem = prepared(base(LAST, hot, own_group=True), skip_bad_images=True)
    assert len(problem.data.particles) == 200


def test_rows_are_those_of_the_file_when_copies_have_gone(base):
    folder = base(np.arange(300) == 7, hot)
    lines = (folder / "particles.star").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if "@particles" in line)
    lines[first + 1 : first + 1] = [lines[first]] * 20
    (folder / "particles.star").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"8@particles\.mrcs \(row 28: a pixel"):
        prepared(folder)


def test_a_stack_that_was_copied_is_noticed(base):
    folder = base(ALL, lambda x: x)
    shutil.copy(folder / "particles.mrcs", folder / "copy.mrcs")
    lines = (folder / "particles.star").read_text().splitlines()
    copies = [line.replace("@particles", "@copy") for line in lines if "@particles" in line]
    (folder / "particles.star").write_text("\n".join([*lines, *copies[:40]]) + "\n")
    with pytest.raises(InputError, match=r"rows 301, .*: these images are, pixel by pixel, those"):
        prepared(folder)


def test_images_that_all_are_masked(base):
    folder = base(ALL, masked)
    with pytest.raises(InputError, match=r"they were masked .* --normalise no --noise white"):
        prepared(folder)
    assert Inspect(folder / "particles.star").inspection().refusals
    assert not Inspect(folder / "particles.star", normalise="no").inspection().refusals


def test_what_was_inverted_stays_so_in_the_results(base, tmp_path):
    problem = prepared(base(THIRD, lambda x: -x))
    folder = tmp_path / "again"
    folder.mkdir()
    write_star(problem.data.particles, folder / "particles.star")
    shutil.copy(tmp_path / "base" / "particles.mrcs", folder)
    np.testing.assert_array_equal(
        read_particles(folder / "particles.star").image_sign, problem.data.particles.image_sign
    )
