"""Whole data sets: files, conventions, and that every option acts."""

import json
import logging
from dataclasses import fields, replace

import numpy as np
import pytest

from jaxrelax.geometry import point_group
from jaxrelax.io import InputError, read_map, read_particles, write_map
from jaxrelax.reconstruction import fsc, soft_sphere
from jaxrelax.refinement.reconstruct import reconstruct
from jaxrelax.simulate import Simulation, simulate
from jaxrelax.simulate.images import Microscope
from jaxrelax.simulate.specimen import load_specimen
from jaxrelax.simulate.truth import draw_truth

SMALL = Simulation(
    n_images=40,
    box=48,
    pixel_size_angstrom=5.0,
    protomer_kda=8.0,
    partner_kda=10.0,
    max_shift_angstrom=8.0,
    dtype="float32",
)


def stack_of(result):
    raw = (result.folder / "particles.mrcs").read_bytes()
    config = json.loads((result.folder / "simulation.json").read_text())["simulation"]
    n, box, dtype = config["n_images"], config["box"], config["dtype"]
    return np.frombuffer(raw[1024:], dtype).reshape(n, box, box).astype(np.float64)


def column(result, name):
    return np.array(read_particles(result.truth).column(name).tolist())


def microscope(config, source="phantom"):
    specimen = load_specimen(source, config)
    rng = np.random.default_rng([config.seed, 0])
    truth = draw_truth(config, specimen.group, specimen.occupancy, rng)
    return Microscope(specimen, truth, config, specimen.radius_angstrom())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return simulate("phantom", tmp_path_factory.mktemp("plain"), SMALL)


def test_tables_read_back(plain):
    particles, truth = read_particles(plain.particles), read_particles(plain.truth)
    assert len(particles) == len(truth) == 40
    expected = draw_truth(
        SMALL,
        point_group("C4"),
        load_specimen("phantom", SMALL).occupancy,
        np.random.default_rng([0, 0]),
    )
    assert np.allclose(particles.rotations, expected.consensus_poses, atol=1e-7)
    assert np.allclose(truth.rotations, expected.poses, atol=1e-7)
    assert np.allclose(truth.origins_angstrom, expected.origins_angstrom, atol=1e-6)
    assert particles.optics[0].box == 48
    assert particles.optics[0].pixel_size_angstrom == 5.0
    assert set(particles.half_set.tolist()) == {1, 2}
    assert np.array_equal(particles.half_set, truth.half_set)
    assert np.array_equal(column(plain, "jrxTrueRegister").astype(int), expected.registers)
    assert set(column(plain, "jrxOccupiedSites")) == {"0"}


def test_images_are_found_and_normalised(plain):
    particles = read_particles(plain.particles)
    assert particles.stack_paths[0] == (plain.folder / "particles.mrcs").resolve()
    images = stack_of(plain)
    axis = np.arange(48) - 24
    radius = 0.5 * plain.measured["particle_diameter_angstrom"] / 5.0
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > radius**2
    assert np.allclose(images[:, outside].mean(axis=1), 0.0, atol=1e-4)
    assert np.allclose(images[:, outside].std(axis=1), 1.0, atol=1e-4)


def test_maps_and_record(plain):
    (truth_map, pixel), (reference, _) = (read_map(plain.truth_map), read_map(plain.reference))
    assert pixel == 5.0
    turned = np.rot90(reference[:, 1:, 1:], axes=(1, 2))
    assert np.abs(turned - reference[:, 1:, 1:]).max() < 1e-5 * reference.max()
    # The reference is the mean over the group: here of exact quarter turns of the truth.
    inner = truth_map[:, 1:, 1:]
    mean = np.mean([np.rot90(inner, k, axes=(1, 2)) for k in range(4)], axis=0)
    assert np.abs(mean - reference[:, 1:, 1:]).max() < 1e-5 * reference.max()
    record = json.loads((plain.folder / "simulation.json").read_text())
    assert record["simulation"]["box"] == 48
    measured = record["measured"]
    assert measured["partner_kda"] == pytest.approx(10.0, rel=0.02)
    assert measured["partner_scattering_fraction"] == pytest.approx(10 / 42, rel=0.02)
    assert measured["snr"] == pytest.approx(0.03, rel=0.05)
    difference = np.sum((truth_map - reference) ** 2) / np.sum(truth_map**2)
    assert measured["asymmetric_power_fraction"] == pytest.approx(difference, rel=1e-3)


def test_signal_is_the_truth_map_seen_through_the_ctf():
    config = replace(SMALL, n_images=4, max_shift_angstrom=0.0)
    scope = microscope(config)
    scope.truth.poses[0] = np.eye(3)
    density = scope.scale * scope.specimen.mean_map(np.array([1.0, 0, 0, 0]), symmetrise=False)
    expected = np.fft.irfft2(np.fft.rfft2(density.sum(axis=0)) * scope.ctf(np.arange(1))[0])
    signal = scope.signals(np.arange(1))[0]
    assert np.abs(signal - expected).max() < 1e-4 * np.abs(expected).max()


def test_shifting_by_the_origin_centres_the_particle():
    scope = microscope(replace(SMALL, n_images=2))
    scope.truth.origins_angstrom[0] = [10.0, -15.0]  # 2 and −3 pixels
    scope.truth.origins_angstrom[1] = 0.0
    for values in (scope.truth.poses, scope.truth.defocus_u_angstrom):
        values[1] = values[0]
    for values in (scope.truth.defocus_v_angstrom, scope.truth.defocus_angle_deg):
        values[1] = values[0]
    shifted, centred = scope.signals(np.arange(2))
    moved = np.roll(shifted, (-3, 2), axis=(0, 1))
    assert np.abs(moved - centred).max() < 1e-6 * np.abs(centred).max()


def test_register_mates_render_the_same_only_for_a_symmetric_particle():
    scope = microscope(replace(SMALL, n_images=2, symmetric_fraction=1.0, max_shift_angstrom=0.0))
    specimen, pose = scope.specimen, scope.truth.poses[0]
    images = [specimen.symmetric_fourier(pose @ g.T) for g in specimen.group.operators]
    assert np.abs(images - images[0]).max() < 5e-3 * np.abs(images[0]).max()
    mask = specimen.mask(np.array([True, False, False, False]))
    a, b = (
        specimen.projector.image_fourier(pose @ g.T, mask) for g in specimen.group.operators[:2]
    )
    assert np.abs(a - b).max() > 0.05 * np.abs(a).max()


def test_consensus_register_offset_is_the_one_in_the_truth(tmp_path):
    config = replace(SMALL, pose_error_deg=0.0, shift_error_angstrom=0.0)
    result = simulate("phantom", tmp_path, config)
    consensus, truth = read_particles(result.particles), read_particles(result.truth)
    registers = column(result, "jrxTrueRegister").astype(int)
    operators = point_group("C4").operators[registers]
    assert np.allclose(consensus.rotations @ operators.mT, truth.rotations, atol=1e-7)


def test_seed_decides_everything(tmp_path, plain):
    again = simulate("phantom", tmp_path / "again", SMALL)
    other = simulate("phantom", tmp_path / "other", replace(SMALL, seed=1))
    for name in ("particles.star", "truth.star", "particles.mrcs", "truth_map.mrc"):
        assert (again.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    for name in ("particles.star", "truth.star", "particles.mrcs"):
        assert (other.folder / name).read_bytes() != (plain.folder / name).read_bytes()


def test_junk_is_noise_or_another_object(tmp_path):
    config = replace(SMALL, junk_fraction=0.5, snr=10.0, max_shift_angstrom=0.0)
    noise = simulate("phantom", tmp_path / "noise", config)
    junk = column(noise, "jrxJunk") == "1"
    assert junk.sum() == 20
    centre = np.s_[:, 18:30, 18:30]
    variance = stack_of(noise)[centre].var(axis=(1, 2))
    assert variance[junk].max() < variance[~junk].min()
    thing = simulate("phantom", tmp_path / "object", replace(config, junk_kind="object"))
    assert stack_of(thing)[centre].var(axis=(1, 2))[junk].min() > 2.0
    assert set(column(thing, "jrxOccupiedSites")[junk]) == {"none"}
    assert thing.measured["n_junk"] == 20


def test_junk_object_is_not_the_particle():
    scope = microscope(replace(SMALL, junk_fraction=0.5, junk_kind="object"))
    row = int(np.flatnonzero(scope.truth.junk)[0])
    pose = scope.truth.poses[row]
    shown, particle = scope._projection(row), scope.specimen.projector.image_fourier(pose)
    scattering = scope.specimen.atoms.where(scope.specimen.object_mask()).scattering().sum()
    assert abs(shown[0, 0]) == pytest.approx(scattering, rel=0.02)
    band = np.s_[1:8, 1:8]
    overlap = np.sum(shown[band] * particle[band].conj()).real
    assert abs(overlap) < 0.5 * np.linalg.norm(shown[band]) * np.linalg.norm(particle[band])


def test_symmetric_particles_carry_all_partners(tmp_path):
    result = simulate("phantom", tmp_path, replace(SMALL, symmetric_fraction=0.25))
    symmetric = column(result, "jrxSymmetric") == "1"
    sites = column(result, "jrxOccupiedSites")
    assert symmetric.sum() == 10
    assert set(sites[symmetric]) == {"0+1+2+3"}
    assert set(sites[~symmetric]) == {"0"}


def test_occupancy_pattern_acts(tmp_path):
    two = simulate("phantom", tmp_path / "two", replace(SMALL, occupancy="1010"))
    density, _ = read_map(two.truth_map)
    inner = density[:, 1:, 1:]
    half_turn = np.rot90(inner, 2, axes=(1, 2))
    assert np.abs(half_turn - inner).max() < 1e-5 * inner.max()
    assert np.abs(np.rot90(inner, axes=(1, 2)) - inner).max() > 0.1 * inner.max()
    none = simulate("phantom", tmp_path / "random", replace(SMALL, occupancy="0.5"))
    sites = column(none, "jrxOccupiedSites")
    assert len(set(sites)) > 5
    assert none.measured["asymmetric_power_fraction"] < 1e-9
    full = simulate("phantom", tmp_path / "all", replace(SMALL, occupancy="all"))
    assert full.measured["asymmetric_power_fraction"] < 1e-9


def test_optics_groups_differ(tmp_path):
    result = simulate("phantom", tmp_path, replace(SMALL, n_images=60, n_optics_groups=3))
    particles = read_particles(result.particles)
    assert [group.voltage_kv for group in particles.optics] == [300.0, 270.0, 243.0]
    images = stack_of(result)
    power = np.abs(np.fft.rfft2(images)) ** 2
    ky, kx = np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(48)[None, :]
    low = (np.hypot(kx, ky) < 0.12) & (kx + np.abs(ky) > 0)
    high = np.hypot(kx, ky) > 0.35
    ratio = power[:, low].mean(axis=1) / power[:, high].mean(axis=1)
    means = [ratio[particles.optics_group == g].mean() for g in range(3)]
    assert means[0] < means[1] < means[2]
    defocus = [particles.defocus_u_angstrom[particles.optics_group == g].mean() for g in range(3)]
    assert defocus[0] < defocus[2]
    assert len(result.measured["snr_per_optics_group"]) == 3


@pytest.mark.parametrize("snr", [0.01, 2.0])
def test_snr_is_achieved(snr):
    scope = microscope(replace(SMALL, n_images=100, snr=snr))
    for _ in scope.images(np.random.default_rng(0)):
        pass
    assert scope.variance.mean() == pytest.approx(snr, rel=0.1)


def test_particle_circle_sets_the_snr_and_the_background(tmp_path, plain):
    small = simulate("phantom", tmp_path, replace(SMALL, particle_diameter_angstrom=90.0))
    assert small.measured["particle_diameter_angstrom"] == 90.0
    # The middle of the particle is denser, so it needs less signal for the same ratio.
    assert small.measured["grey_scale"] < 0.95 * plain.measured["grey_scale"]
    axis = np.arange(48) - 24
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > 9.0**2
    assert np.allclose(stack_of(small)[:, outside].std(axis=1), 1.0, atol=1e-4)


@pytest.mark.parametrize(
    "option",
    [
        {"voltage_kv": 200.0},
        {"spherical_aberration_mm": 0.5},
        {"amplitude_contrast": 0.2},
        {"phase_shift_deg": 90.0},
        {"defocus_min_um": 1.4},
        {"defocus_max_um": 3.0},
        {"astigmatism_um": 0.5},
        {"bfactor_angstrom2": 300.0},
        {"resolution_angstrom": 15.0},
        {"max_shift_angstrom": 2.0},
        {"phantom_seed": 7},
        {"protomer_kda": 9.0},
        {"partner_kda": 12.0},
        {"group": "C5"},
        {"beam_tilt": (3.0, -2.0)},
        {"trefoil": (400.0, 0.0)},
        {"tetrafoil": (0.0, 900.0)},
        {"odd_zernike": (0.5,)},
        {"even_zernike": (0.0, 5.0)},
        {"magnification": (1.02, 0.0, 0.0, 0.99)},
    ],
)
def test_option_changes_the_signal(option):
    base = replace(SMALL, n_images=4)
    a, b = (microscope(c).signals(np.arange(4)) for c in (base, replace(base, **option)))
    assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


def test_optics_options_reach_the_table(tmp_path):
    config = replace(
        SMALL,
        n_images=4,
        voltage_kv=200.0,
        spherical_aberration_mm=1.4,
        amplitude_contrast=0.07,
        phase_shift_deg=60.0,
    )
    particles = read_particles(simulate("phantom", tmp_path, config).particles)
    optics = particles.optics[0]
    assert (optics.voltage_kv, optics.spherical_aberration_mm) == (200.0, 1.4)
    assert optics.amplitude_contrast == 0.07
    assert np.all(particles.phase_shift_deg == 60.0)


ABERRATIONS = dict(
    beam_tilt=(3.0, -2.0), trefoil=(900.0, -500.0), tetrafoil=(3000.0, 1000.0),
    odd_zernike=(0.5, 1.0), even_zernike=(0.2, 4.0), magnification=(1.02, 0.004, 0.006, 0.99),
)  # fmt: skip


def test_aberrations_reach_the_table_and_stay_off_where_there_are_none(tmp_path, plain):
    assert not read_particles(plain.particles).optics[0].aberrations
    config = replace(SMALL, n_images=4, n_optics_groups=2, **ABERRATIONS)
    particles = read_particles(simulate("phantom", tmp_path, config).particles)
    for group in particles.optics:
        expected = config.aberrations(group.voltage_kv)
        np.testing.assert_allclose(group.aberrations.odd, expected.odd, rtol=1e-8)
        np.testing.assert_allclose(group.aberrations.even, expected.even, rtol=1e-8)
        assert group.aberrations.magnification == expected.magnification
    with pytest.raises(InputError, match="magnification"):
        Simulation(magnification=(2.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize("ignored", [None, "odd", "even", "magnification"])
def test_reconstruction_undoes_what_the_microscope_did(tmp_path, ignored):
    """Poses and aberrations as the table has them give the object; less gives less."""
    config = replace(
        SMALL, n_images=150, snr=100.0, noise_colour=0.0, defocus_min_um=1.5, **ABERRATIONS
    )
    result = simulate("phantom", tmp_path, config)
    truth, _ = read_map(result.truth_map)
    particles = read_particles(result.truth)
    if ignored is not None:
        neutral = {"odd": (), "even": (), "magnification": (1.0, 0.0, 0.0, 1.0)}
        (group,) = particles.optics
        less = replace(group.aberrations, **{ignored: neutral[ignored]})
        particles = replace(particles, optics=(replace(group, aberrations=less),))
    sphere = soft_sphere(config.box, 0.38 * config.box, 3.0)
    curve = fsc(reconstruct(particles)[0] * sphere, truth * sphere)
    worst = curve[1 : int(0.4 * config.box)].min()
    assert (worst > 0.98) == (ignored is None), worst


def test_noise_colour_acts():
    spectra = []
    for colour in (0.0, 4.0):
        scope = microscope(replace(SMALL, snr=1e-6, noise_colour=colour))
        images = np.concatenate(list(scope.images(np.random.default_rng(0))))
        power = (np.abs(np.fft.rfft2(images)) ** 2).mean(axis=0)
        spectra.append(power[1:3, 1:3].mean() / power[20:28, 20:].mean())
    assert spectra[0] == pytest.approx(1.0, abs=0.25)
    assert spectra[1] > 10.0


def test_float16(tmp_path, plain):
    result = simulate("phantom", tmp_path, replace(SMALL, dtype="float16"))
    size = (result.folder / "particles.mrcs").stat().st_size
    assert size == 1024 + 2 * 40 * 48 * 48
    assert np.allclose(stack_of(result), stack_of(plain), atol=5e-3)


def test_map_as_source(tmp_path, plain):
    source = plain.truth_map
    config = Simulation(
        n_images=6, box=48, pixel_size_angstrom=5.0, symmetric_fraction=0.5, snr=0.5
    )
    result = simulate(source, tmp_path / "map", config)
    density, _ = read_map(result.truth_map)
    original, _ = read_map(source)
    inside = np.s_[4:44, 4:44, 4:44]
    ratio = result.measured["grey_scale"]
    assert np.allclose(density[inside], ratio * original[inside], atol=0.01 * density.max())
    reference, _ = read_map(plain.reference)
    symmetric = microscope(config, source).specimen.symmetric
    assert symmetric is not None
    image, expected = symmetric.image(np.eye(3)), reference.sum(axis=0)
    assert np.abs(image - expected).max() < 0.02 * expected.max()


def test_options_that_cannot_act_are_refused(tmp_path, plain):
    for option, match in [
        ({"delete_chains": ("A",)}, "delete_chains"),
        ({"partner_chains": ("A", "B")}, "partner_chains"),
        ({"assembly": "2"}, "assembly"),
        ({"occupancy": "10101"}, "5 digits"),
        ({"group": "C0"}, "group"),
        ({"occupancy": "all", "symmetric_fraction": 0.5}, "symmetric_fraction"),
        ({"max_shift_angstrom": 90.0}, "does not fit.*box"),
        ({"particle_diameter_angstrom": 300.0}, "larger than the box"),
        ({"particle_diameter_angstrom": 5.0}, "few pixels"),
    ]:
        with pytest.raises(InputError, match=match):
            simulate("phantom", tmp_path, replace(SMALL, **option))
    onmap = Simulation(n_images=2, box=48, pixel_size_angstrom=5.0)
    for option in ({"occupancy": "all"}, {"protomer_kda": 5.0}, {"phantom_seed": 3}):
        with pytest.raises(InputError, match=next(iter(option))):
            simulate(plain.truth_map, tmp_path, replace(onmap, **option))
    with pytest.raises(InputError, match="junk_kind"):
        simulate(plain.truth_map, tmp_path, replace(onmap, junk_fraction=0.5, junk_kind="object"))
    with pytest.raises(InputError, match="no such file"):
        simulate(tmp_path / "nothing.cif", tmp_path, SMALL)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="by its name"):
        simulate(tmp_path / "file.txt", tmp_path, onmap)
    write_map(tmp_path / "zero.mrc", np.zeros((48, 48, 48), np.float32), 5.0)
    with pytest.raises(InputError, match="zero everywhere"):
        simulate(tmp_path / "zero.mrc", tmp_path, onmap)
    with pytest.raises(InputError, match="folder"):
        simulate("phantom", tmp_path / "file.txt", SMALL)


def test_group_from_a_file_of_operators(tmp_path):
    rows = [" ".join(map(str, g.ravel())) for g in point_group("C2").operators]
    (tmp_path / "operators.txt").write_text("\n".join(rows))
    config = replace(SMALL, n_images=2, group=str(tmp_path / "operators.txt"), occupancy="11")
    result = simulate("phantom", tmp_path / "out", config)
    assert result.measured["asymmetric_power_fraction"] < 1e-9


def test_every_option_says_what_it_is():
    import inspect

    source = inspect.getsource(Simulation)
    for field in fields(Simulation):
        _, _, after = source.partition(f"    {field.name}: ")
        assert after.split("\n", 1)[1].lstrip().startswith('"""'), field.name


def test_log_says_what_was_made(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "jaxrelax"):
        simulate("phantom", tmp_path, replace(SMALL, n_images=2))
    assert "2 images" in caplog.text
