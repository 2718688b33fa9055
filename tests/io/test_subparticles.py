"""Sub-particles and their windows: geometry, defocus, what the tables say, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from jaxrelax.geometry import parse_group, point_group
from jaxrelax.imaging import CTFParameters, ctf
from jaxrelax.io import (
    ImageReader,
    InputError,
    find_units,
    plan_windows,
    read_particles,
    sub_particles,
    write_cs,
    write_stack,
    write_star,
    write_windows,
)
from jaxrelax.io.cut import cut_images
from jaxrelax.io.moved import require_unmoved
from jaxrelax.io.original_images import original_images

CS = "metadata/cryosparc_P12_J24_001_particles.cs"
SIZE, PIXEL = 48, 1.5

TABLE = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
_rlnMicrographOriginalPixelSize #9
one 1 300.000000 2.700000 0.100000 {pixel} {size} 2 0.75

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnAngleRot #6
_rlnAngleTilt #7
_rlnAnglePsi #8
_rlnOriginXAngst #9
_rlnOriginYAngst #10
_rlnRandomSubset #11
_rlnCoordinateX #12
_rlnCoordinateY #13
_rlnAngleTiltPrior #14
"""


@pytest.fixture
def parents(tmp_path):
    """Ten particles of 48 pixels with noise for images."""
    return made_table(tmp_path, 10, np.random.default_rng(2))


def made_table(folder: Path, n: int, rng, images=None):
    rot, psi = rng.uniform(-180, 180, (2, n))
    tilt = rng.uniform(0, 180, n)
    x, y = rng.uniform(-4, 4, (2, n))
    rows = [
        f"{i + 1:06d}@parents.mrcs 1 {15000 + 100 * i}.0 {14000 + 100 * i}.0 30.0 {rot[i]:.6f} "
        f"{tilt[i]:.6f} {psi[i]:.6f} {x[i]:.6f} {y[i]:.6f} {i % 2 + 1} {1000 + i}.0 {2000 + i}.0 90"
        for i in range(n)
    ]
    path = folder / "parents.star"
    path.write_text(TABLE.format(pixel=PIXEL, size=SIZE) + "\n".join(rows) + "\n")
    if images is None:
        images = rng.standard_normal((n, SIZE, SIZE)).astype(np.float32)
    write_stack(folder / "parents.mrcs", images, PIXEL)
    return read_particles(path)


def windows_of(particles, box, folder, name="out", **options):
    windows = plan_windows(particles, box, folder / f"{name}.mrcs", **options)
    write_windows(windows)
    write_star(windows.particles, folder / f"{name}.star")
    return windows, read_particles(folder / f"{name}.star")


@settings(max_examples=10)
@given(
    name=st.sampled_from(["C4", "D3", "T", "O", "I"]),
    position=st.tuples(*[st.floats(-14.0, 14.0)] * 3).filter(lambda p: np.linalg.norm(p) > 8.0),
    seed=st.integers(0, 1000),
)
def test_a_point_at_the_site_is_in_the_middle_of_every_window(
    tmp_path_factory, name, position, seed
):
    """Against float64 sums: a point at each mate, drawn band-limited where it projects to."""
    folder, rng = tmp_path_factory.mktemp("point"), np.random.default_rng(seed)
    group = point_group(name)
    parents = made_table(folder, 3, rng)
    try:
        made = sub_particles(parents, group, position, defocus_by_height="none")
    except InputError:  # too near to an axis
        reject()
    windows, read = windows_of(made, 16, folder)
    origins = read.origins_angstrom
    assert np.abs(origins).max() <= 0.5 * PIXEL + 1e-5
    centres = windows.offsets_px + SIZE // 2
    copies = read.column("jrxCopy").astype(int) - 1
    rows = read.column("jrxParent").astype(int) - 1
    moved = group.operators @ np.asarray(position)
    snapped = moved[np.linalg.norm(moved - position, axis=1) <= 0.5].mean(axis=0)
    for row in range(len(read)):
        # Of the whole particle: where the mate gᵀ p is seen, in pixels of the parent's image.
        mate = group.operators[copies[row]].T @ snapped
        parent = parents.rotations[rows[row]] @ mate
        at = SIZE // 2 + (parent[:2] - parents.origins_angstrom[rows[row]]) / PIXEL
        # Of the sub-particle: the middle of the window less what is left of the origin.
        np.testing.assert_allclose(centres[row] - origins[row] / PIXEL, at, atol=1e-5)
        # And its pose shows what is around the site as the first copy does.
        around = np.array([0.3, -0.2, 0.5])
        turned = group.operators[copies[row]].T @ (snapped + around)
        shown = parents.rotations[rows[row]] @ turned - parent
        np.testing.assert_allclose(read.rotations[row] @ around, shown, atol=1e-6)


def test_windows_are_pixels_of_their_parents(parents, tmp_path):
    made = sub_particles(parents, point_group("C4"), (26.0, 5.0, 10.0))
    windows, read = windows_of(made, 16, tmp_path)
    assert len(read) == 40
    assert 0 < windows.partial.sum() < 40
    images, cut = ImageReader(parents).read(np.arange(10)), ImageReader(read).read(np.arange(40))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    outer = np.hypot(x, y) >= SIZE // 2
    for row in range(40):
        parent = images[int(read.column("jrxParent")[row]) - 1]
        mean = parent[outer].mean(dtype=np.float64)
        padded = np.pad(parent, 40, constant_values=mean.astype(np.float32))
        cx, cy = windows.offsets_px[row] + SIZE // 2 + 40
        np.testing.assert_array_equal(cut[row], padded[cy - 8 : cy + 8, cx - 8 : cx + 8])
        assert windows.partial[row] == np.any(np.abs(windows.offsets_px[row]) > 16)
    whole, again = windows_of(made, 16, tmp_path, "whole", leave_out_partial=True)
    assert len(again) == 40 - windows.partial.sum()
    np.testing.assert_array_equal(
        ImageReader(again).read(np.arange(len(again))), cut[~windows.partial]
    )
    assert not whole.partial.any()


def test_what_the_tables_say(parents, tmp_path):
    made = sub_particles(parents, point_group("C4"), (20.0, 5.0, 10.0))
    windows, read = windows_of(made, 16, tmp_path)
    rows = read.column("jrxParent").astype(int) - 1
    np.testing.assert_array_equal(rows, np.repeat(np.arange(10), 4))
    np.testing.assert_array_equal(read.column("jrxCopy").astype(int), np.tile([1, 2, 3, 4], 10))
    np.testing.assert_array_equal(read.half_set, parents.half_set[rows])
    names = parents.column("rlnImageName")
    np.testing.assert_array_equal(read.column("rlnImageOriginalName"), names[rows])
    assert read.optics[0].box == 16
    assert read.column("rlnAngleTiltPrior") is None
    # Micrographs have pixels of 0.75 Å, images of 1.5 Å.
    moved = windows.offsets_px
    for axis, letter in enumerate("XY"):
        before = parents.column(f"rlnCoordinate{letter}").astype(float)[rows]
        after = read.column(f"rlnCoordinate{letter}").astype(float)
        np.testing.assert_allclose(after, before + 2 * moved[:, axis])
        column = read.column(f"jrxWindow{letter}").astype(int)
        np.testing.assert_array_equal(column, windows.offsets_px[:, axis])
    heights = read.column("jrxHeight").astype(float)
    for value, before in (
        (read.defocus_u_angstrom, parents.defocus_u_angstrom),
        (read.defocus_v_angstrom, parents.defocus_v_angstrom),
    ):
        np.testing.assert_allclose(value, before[rows] - heights, atol=1e-3)
    # Without windows the images are the parents', and so are positions in the micrograph.
    write_star(made, tmp_path / "table.star")
    table = read_particles(tmp_path / "table.star")
    np.testing.assert_allclose(table.origins_angstrom, made.origins_angstrom, atol=1e-6)
    for label in ("rlnImageName", "rlnCoordinateX"):
        np.testing.assert_array_equal(table.column(label), parents.column(label)[rows])


def propagated(point, defocus, k, wavelength):
    """Intensity of a weak point scatterer, electrons coming from where z is large.

    The wave leaves the point's plane at the height z. Under focus the plane that is imaged lies
    towards the source, at the height of the defocus: the wave is propagated back to it, with
    exp(−iπλ d k²) over a distance d along the beam.
    """
    kx, ky = k
    k2 = kx**2 + ky**2
    soft = np.exp(-2.0 * np.pi**2 * k2) * np.exp(-2j * np.pi * (kx * point[0] + ky * point[1]))
    thickness = np.fft.ifft2(soft).real
    leaving = np.fft.fft2(np.exp(1e-3j * thickness / thickness.max()))
    back = point[2] - defocus
    imaged = np.fft.ifft2(leaving * np.exp(-1j * np.pi * wavelength * back * k2))
    return np.abs(imaged) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_defocus_is_that_of_a_wave_from_the_sites_height(tmp_path, seed):
    """No CTF in the simulation, but the propagation of a wave from the height of the point."""
    rng = np.random.default_rng(seed)
    parents = made_table(tmp_path, 1, rng)
    position, group = rng.normal(size=3) * 60.0 + [0, 0, 90.0], point_group("C4")
    image_size, pixel, wavelength = 256, 1.0, 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    f = np.fft.fftfreq(image_size, pixel)
    k = np.meshgrid(f, f)
    parents = read_particles(_round(parents, tmp_path))
    by_sign = {
        sign: sub_particles(parents, group, position, defocus_by_height=sign)
        for sign in ("minus", "plus", "none")
    }
    made = by_sign["minus"]
    # The image of these parents holds few of the sites; depth is all that counts here.
    for row in range(len(made)):
        g = group.operators[made.extra_columns["jrxCopy"][row] - 1]
        seen = parents.rotations[0] @ g.T @ position
        image = propagated([0.0, 0.0, seen[2]], parents.defocus_u_angstrom[0], k, wavelength)
        spectrum = -np.fft.fft2(image - image.mean()).real  # RELION's sign: white particles
        fits = {}
        for sign, table in by_sign.items():
            values = contrast_transfer(table, row, k)
            in_band = np.hypot(*k) < 0.35
            fits[sign] = np.corrcoef(
                (values * np.exp(-2.0 * np.pi**2 * np.hypot(*k) ** 2))[in_band], spectrum[in_band]
            )[0, 1]
        assert fits["minus"] > 0.99999
        assert fits["minus"] > fits["none"]
        if abs(seen[2]) > 30:
            assert fits["plus"] < 0.998


def _round(parents, folder):
    """The same particle without astigmatism and spherical aberration, in an image of 900 Å."""
    text = Path(parents.source).read_text().replace(f"{PIXEL} {SIZE} 2", "18.75 48 2")
    text = text.replace("300.000000 2.700000 0.100000", "300.000000 0.0 0.000000")
    text = text.replace("15000.0 14000.0", "8000.0 8000.0")
    path = folder / "round.star"
    path.write_text(text)
    return path


def contrast_transfer(table, row, k):
    optics = table.optics[0]
    zero = np.zeros(())
    parameters = CTFParameters(
        defocus_u_angstrom=np.asarray(table.defocus_u_angstrom[row]),
        defocus_v_angstrom=np.asarray(table.defocus_v_angstrom[row]),
        defocus_angle_deg=zero, phase_shift_deg=zero, bfactor_angstrom2=zero,
        voltage_kv=np.asarray(optics.voltage_kv),
        spherical_aberration_mm=np.asarray(optics.spherical_aberration_mm),
        amplitude_contrast=np.asarray(optics.amplitude_contrast),
    )  # fmt: skip
    shape = k[0].shape
    return np.asarray(ctf(parameters, np.stack([k[0].ravel(), k[1].ravel()], 1))).reshape(shape)


def test_siblings_share_a_unit_and_count_by_what_windows_show(parents, tmp_path):
    made = sub_particles(parents, point_group("C4"), (20.0, 5.0, 10.0))
    windows, read = windows_of(made, 16, tmp_path)
    for units in (find_units(windows.particles), find_units(read)):
        np.testing.assert_array_equal(units.unit, np.repeat(np.arange(10), 4))
        np.testing.assert_array_equal(units.picture, np.arange(40))
        assert not units.copied.any()
        for parent in range(10):
            rows = np.arange(4 * parent, 4 * parent + 4)
            covered = np.zeros((4, 200, 200))
            for layer, (cx, cy) in zip(covered, windows.offsets_px[rows] + 100, strict=True):
                layer[cy : cy + 16, cx : cx + 16] = 1.0
            shares = np.einsum("iyx,jyx->i", covered, covered) / 256
            np.testing.assert_allclose(units.weight[rows], 1 / shares, rtol=1e-6)
        # Fewer siblings overlap less.
        np.testing.assert_allclose(units.select(np.arange(0, 40, 4)).weight, 1.0)
    # Named by the images of their parents, they show the whole of them.
    write_star(made, tmp_path / "table.star")
    units = find_units(read_particles(tmp_path / "table.star"))
    np.testing.assert_array_equal(units.unit, np.repeat(np.arange(10), 4))
    np.testing.assert_array_equal(units.picture, np.arange(40))
    np.testing.assert_allclose(units.weight, 0.25)


def test_sub_particles_of_a_cs_file(shared_data, tmp_path):
    particles = read_particles(shared_data / CS).select(np.arange(20))
    made = sub_particles(particles, point_group("C3"), (50.0, 0.0, 20.0))
    write_cs(made, tmp_path / "out.cs")
    before, records = particles.document.records, np.load(tmp_path / "out.cs")
    assert len(np.unique(records["uid"])) == 60
    assert not np.isin(records["uid"], before["uid"]).any()
    np.testing.assert_array_equal(records["sym_expand/src_uid"], np.repeat(before["uid"], 3))
    np.testing.assert_array_equal(records["jrx/copy"], np.tile([1, 2, 3], 20))
    np.testing.assert_allclose(
        records["ctf/df1_A"], np.repeat(before["ctf/df1_A"], 3) - records["jrx/height"], atol=2e-3
    )
    read = read_particles(tmp_path / "out.cs")
    np.testing.assert_allclose(read.origins_angstrom, made.origins_angstrom, atol=1e-4)
    np.testing.assert_allclose(read.rotations, made.rotations, atol=1e-6)
    units = find_units(read)
    np.testing.assert_array_equal(units.unit, np.repeat(np.arange(20), 3))


def test_windows_of_a_cs_file(shared_data, tmp_path):
    particles = read_particles(shared_data / CS).select(np.arange(5))
    records = particles.document.records.copy()
    records["blob/path"] = b"stack.mrcs"
    records["blob/idx"] = np.arange(5)
    np.save(tmp_path / "in.npy", records)
    (tmp_path / "in.npy").rename(tmp_path / "in.cs")
    images = np.random.default_rng(0).standard_normal((5, 180, 180)).astype(np.float32)
    write_stack(tmp_path / "stack.mrcs", images, 2.95)
    made = sub_particles(read_particles(tmp_path / "in.cs"), point_group("C3"), (50.0, 0.0, 20.0))
    (tmp_path / "sub").mkdir()
    windows = plan_windows(made, 64, tmp_path / "sub" / "out.mrcs")
    write_windows(windows)
    write_cs(windows.particles, tmp_path / "sub" / "out.cs")
    write_star(windows.particles, tmp_path / "sub" / "out.star")
    cut = cut_images(images[np.arange(15) // 3], windows.offsets_px, 64)
    signs = np.asarray(windows.particles.image_sign, np.float32)[:, None, None]
    for name in ("out.cs", "out.star"):
        read = read_particles(tmp_path / "sub" / name)
        np.testing.assert_allclose(read.rotations, made.rotations, atol=1e-5)
        assert np.abs(read.origins_angstrom).max() < 1.5
        assert read.optics[0].box == 64
        np.testing.assert_array_equal(ImageReader(read).read(np.arange(15)), signs * cut)
        np.testing.assert_array_equal(find_units(read).unit, np.repeat(np.arange(5), 3))
    assert np.load(tmp_path / "sub" / "out.cs")["blob/path"][0] == b">out.mrcs"


def test_groups_of_other_pixel_sizes_have_stacks_of_their_own(parents, tmp_path):
    text = Path(parents.source).read_text()
    second = f"two 2 300.000000 2.700000 0.100000 1.4 {SIZE} 2 0.75\n"
    text = text.replace("2 0.75\n", f"2 0.75\n{second}", 1)
    text = "\n".join(
        line.replace(" 1 ", " 2 ", 1) if line.startswith(("000003", "000007")) else line
        for line in text.splitlines()
    )
    parents.source.write_text(text + "\n")
    made = sub_particles(read_particles(parents.source), point_group("C2"), (10.0, 5.0, 10.0))
    _, read = windows_of(made, 16, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("out*.mrcs")) == ["out_1.mrcs", "out_2.mrcs"]
    ImageReader(read).validate()
    images = ImageReader(parents).read(np.arange(10))
    cut = ImageReader(read).read(np.arange(len(read)))
    for row in range(len(read)):
        parent = images[int(read.column("jrxParent")[row]) - 1]
        offset = np.array([int(read.column(f"jrxWindow{axis}")[row]) for axis in "XY"])
        np.testing.assert_array_equal(cut[row], cut_images(parent[None], offset[None], 16)[0])


def test_windows_of_windows_lie_in_the_first_image(parents, tmp_path):
    made = sub_particles(parents, point_group("C2"), (10.0, 5.0, 10.0))
    _, large = windows_of(made, 24, tmp_path)
    turned = large.with_updates(origins_angstrom=large.origins_angstrom + np.array([4.6, -3.1]))
    _, small = windows_of(turned, 16, tmp_path, "small")
    cut, images = ImageReader(small).read(np.arange(20)), ImageReader(parents).read(np.arange(10))
    offsets = np.stack([small.column(f"jrxWindow{a}").astype(int) for a in "XY"], axis=1)
    assert np.any(offsets != np.stack([large.column(f"jrxWindow{a}") for a in "XY"], 1).astype(int))
    np.testing.assert_array_equal(cut, cut_images(images[np.arange(20) // 2], offsets, 16))
    np.testing.assert_array_equal(
        small.column("rlnImageOriginalName"), parents.column("rlnImageName")[np.arange(20) // 2]
    )


def test_windows_are_taken_back(parents, tmp_path):
    """As subtracted images are: the columns that say where they lie mean the same."""
    made = sub_particles(parents, point_group("C4"), (20.0, 5.0, 10.0))
    _, read = windows_of(made, 16, tmp_path)
    back = original_images(read)
    np.testing.assert_allclose(back.origins_angstrom, made.origins_angstrom, atol=1e-4)
    assert back.stack_paths == parents.stack_paths
    np.testing.assert_array_equal(back.image_index, made.image_index)
    assert back.column("jrxWindowX") is None
    with pytest.raises(InputError, match="has jrxWindowX: its images are windows"):
        require_unmoved(read)
    require_unmoved(parents)


REFUSED = [
    ("C4", (300.0, 0.0, 0.0), "300 Å from the centre, and the images reach 36 Å"),
    ("C60", (4.0, 0.0, 9.0), "neither one site nor several"),
    ("C4", (np.inf, 0.0, 0.0), "three finite numbers"),
]


@pytest.mark.parametrize(("group", "position", "message"), REFUSED)
def test_positions_that_cannot_be(parents, group, position, message):
    with pytest.raises(InputError, match=message):
        sub_particles(parents, parse_group(group), position)


def test_tables_that_cannot_be(parents, tmp_path):
    made = sub_particles(parents, point_group("C4"), (20.0, 5.0, 10.0))
    for box, message in ((15, "even side"), (8, "even side"), (64, "images of 48 pixels")):
        with pytest.raises(InputError, match=message):
            plan_windows(made, box, tmp_path / "out.mrcs")
    with pytest.raises(InputError, match="all windows"):
        plan_windows(made, 48, tmp_path / "out.mrcs", leave_out_partial=True)
    _, read = windows_of(made, 16, tmp_path)
    with pytest.raises(InputError, match=r"expanded already .*jrxParent"):
        sub_particles(read, point_group("C4"), (2.0, 0.0, 1.0))
    flipped = (
        Path(parents.source)
        .read_text()
        .replace("_rlnMicrographOriginalPixelSize #9", "_rlnCtfDataArePhaseFlipped #9")
    )
    path = tmp_path / "flipped.star"
    path.write_text(flipped.replace(" 2 0.75", " 2 1"))
    particles = read_particles(path)
    with pytest.raises(InputError, match=r"sign of their CTF.*--defocus-by-height none"):
        sub_particles(particles, point_group("C4"), (20.0, 0.0, 0.0))
    kept = sub_particles(particles, point_group("C4"), (20.0, 0.0, 0.0), defocus_by_height="none")
    np.testing.assert_array_equal(kept.defocus_u_angstrom[::4], particles.defocus_u_angstrom)
    with pytest.raises(ValueError, match="minus, plus or none"):
        sub_particles(particles, point_group("C4"), (20.0, 0.0, 0.0), defocus_by_height="up")


def test_a_bad_image_leaves_no_stack(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, SIZE, SIZE)).astype(np.float32)
    images[2, 3, 3] = np.nan
    parents = made_table(tmp_path, 4, rng, images)
    made = sub_particles(parents, point_group("C2"), (10.0, 5.0, 10.0))
    windows = plan_windows(made, 16, tmp_path / "out.mrcs")
    with pytest.raises(InputError, match=r"3@parents.mrcs' holds NaN"):
        write_windows(windows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parents.mrcs", "parents.star"]


def test_sites_outside_of_their_images_are_left_out(parents, caplog):
    away = parents.with_updates(origins_angstrom=parents.origins_angstrom + 20.0)
    made = sub_particles(away, point_group("C4"), (26.0, 5.0, 10.0))
    assert 0 < len(made) < 40
    assert f"{40 - len(made)} of 40 sites lie outside" in caplog.text
    assert np.abs(made.origins_angstrom).max() < 0.5 * SIZE * PIXEL
