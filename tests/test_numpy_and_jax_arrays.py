"""Public functions of the numerical core take arrays of NumPy and of JAX, and give the same."""

import functools
import importlib
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelax import geometry, imaging, inference, reconstruction
from jaxrelax.imaging import CTFParameters, FourierVolume, ImageBatch
from jaxrelax.inference import (
    FixedPoses,
    GaussNewton,
    Junk,
    JunkParameters,
    Model,
    PermutationTest,
    PoseGrid,
    PosePosterior,
    PosePrior,
    Poses,
    Register,
    SymmetricState,
)
from jaxrelax.reconstruction import Accumulator, Candidates
from jaxrelax.reconstruction.contrasts import Contrasts

PACKAGES = (geometry, imaging, inference, reconstruction)
N, BOX, SHELL, REGISTERS = 4, 16, 5, 2
N_SHELLS = BOX // 2 + 1
RADIUS = imaging.volume_radius(SHELL)
PACKING = imaging.half_spectrum(BOX, SHELL)
GEOMETRY = imaging.image_geometry(PACKING, 3.0, BOX, 3.0)
TILTED = imaging.image_geometry(
    PACKING, 3.0, BOX, 3.0, geometry.Aberrations(odd=(0.5, 0.2, 10.0), even=(0.3,))
)
C1, C2, C4 = (geometry.point_group(name) for name in ("C1", "C2", "C4"))
KEY = jax.random.key(0)
VOXELS = int(np.prod(imaging.half_shape(RADIUS)))


def numbers(*shape, seed=0, low=-1.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def complexes(*shape, seed=0):
    return (numbers(*shape, seed=seed) + 1j * numbers(*shape, seed=seed + 1)).astype(np.complex64)


def blob(seed=0):
    """A smooth map on nothing, all of it inside its sphere."""
    x = np.arange(BOX) - BOX // 2
    centres = np.random.default_rng(seed).uniform(-3, 3, (6, 3))
    profile = [np.exp(-((x[None] - c[:, None]) ** 2) / 4.5) for c in centres.T]
    return np.einsum("pz,py,px->zyx", *profile).astype(np.float32)


ROTATIONS = geometry.random_rotations(N, np.random.default_rng(1)).astype(np.float32)
NEARBY = (geometry.rotvec_to_matrix(0.01 * numbers(N, 3)) @ ROTATIONS).astype(np.float32)
WEIGHTS = PACKING.multiplicity * numbers(PACKING.n_pixels, low=0.5, high=2.0)
# Modules whose arrays are NumPy's here; `converted` makes them JAX's.
VOLUME = FourierVolume(numbers(VOXELS, 2 * REGISTERS), RADIUS)
ONE = FourierVolume(numbers(VOXELS, 2, seed=3), RADIUS)
CTF = numbers(N, PACKING.n_pixels)
BATCH = ImageBatch(complexes(N, PACKING.n_pixels), CTF, WEIGHTS, np.ones(N, bool))
ORIGINS = numbers(N, 2)
POSES = Poses(ROTATIONS, ORIGINS, NEARBY, ORIGINS, ROTATIONS[:, None], ORIGINS[:, None])
PRIOR = PosePrior(np.array(0.02, np.float32), np.array(1.0, np.float32))
OBJECT_POWER = numbers(N_SHELLS) ** 2
# Two channels, one of them the symmetric part: a group of one register would have no such state.
MODEL = Model((SymmetricState(), Register(np.eye(3)[None]), Junk(N_SHELLS)))
PARAMS = {
    "symmetric": np.array(-1.0, np.float32),
    "register": (),
    "junk": JunkParameters(np.array(-2.0, np.float32), OBJECT_POWER),
}
PARTICLE = reconstruction.Particle(C4, C1, BOX, 3.0, 30.0)
ACCUMULATOR = Accumulator(numbers(VOXELS, 4, low=0.5), RADIUS)
CANDIDATES = Candidates(np.array([1, 3, 0], np.int32), ROTATIONS[:3], ORIGINS[:3], numbers(3) ** 2)
OPTICS = CTFParameters(*(np.full(N, x, np.float32) for x in (1e4, 9e3, 30, 0, 10, 300, 2.7, 0.1)))
POSTERIOR = PosePosterior(
    numbers(N, 1, REGISTERS), NEARBY[:, None, None] + np.zeros((1, 1, REGISTERS, 1, 1), np.float32),
    numbers(N, 1, REGISTERS, 2), numbers(N, 1, REGISTERS, 5), numbers(N, 1, REGISTERS, 5, 5),
    0.01 * numbers(N, 1, REGISTERS, 5, 5), numbers(N, 1, REGISTERS, N_SHELLS) ** 2,
)  # fmt: skip
EVIDENCE = 3.0 * numbers(N, REGISTERS)
SHARES = np.exp(EVIDENCE) / np.exp(EVIDENCE).sum(axis=1, keepdims=True)
VIEWS = numbers(N, REGISTERS, 8)
GRAM = np.einsum("bjf,bkf->bjk", VIEWS - VIEWS.mean(axis=1, keepdims=True), VIEWS)
POINTS = inference.accuracy_points(REGISTERS, 64)
DIRECTIONS = geometry.healpix_directions(1)
CURVE = np.linspace(1.0, 0.05, N_SHELLS).astype(np.float32)
MAP, OTHER, MASK = blob(0), blob(1), reconstruction.soft_sphere(BOX, 5.0, 2.0)
PATTERNS = geometry.occupancy_patterns(C4).patterns
POPULATIONS = np.full(6, 1.0 / 6.0)
ASYMMETRIC = [m - reconstruction.symmetrise(m, C4) for m in (MAP, OTHER)]
COMPONENTS = len(reconstruction.component_shares(C4, C1))
WAVES = GEOMETRY.slice_wavevectors
# Of two states: one contrast, their difference.
OWN_GAINS = reconstruction.OwnGains(
    fsc_shared=CURVE,
    contrasts=Contrasts(np.array([[1.0, -1.0]]), np.array([[0.5], [-0.5]])),
    own=CURVE[None], fsc_own=np.stack([CURVE, CURVE]), asymmetric=(None, None),
    fsc_asymmetric=np.zeros((2, N_SHELLS)), shares=np.array([0.5, 0.5]), density=MASK,
    differing=MASK, own_profile=(1.0 + MASK,), asymmetric_profile=(None, None),
)  # fmt: skip


def stages(volume, rotations, wavevectors):
    blocks, functions = imaging.slice_stages(volume, rotations, wavevectors)
    (parts,) = imaging.in_stages(functions, blocks.count)
    return jax.tree.map(blocks.joined, parts)


def parts(first, second):
    """Of two half-maps, the symmetric ones alike."""
    return [reconstruction.IsotypicParts(MAP, each) for each in (first, second)]


def with_seed(function):
    """A function that is handed a fresh generator in every call."""
    return lambda *arguments: function(*arguments, np.random.default_rng(0))


def bound(function, **keywords):
    return functools.partial(function, **keywords)


# Of every function that takes arrays: how it is called, and with what. Arrays, also those inside
# modules, are NumPy's here. Groups, packings and geometries stay on the host whatever is given.
g, i, f, r = geometry, imaging, inference, reconstruction
COUNTS = np.linspace(4.0, 400.0, len(CURVE)).astype(np.float32)
CASES = {
    geometry: {
        "asymmetric_unit": (g.asymmetric_unit, DIRECTIONS, C4),
        "best_global_operator": (g.best_global_operator, np.arange(4), np.array([1, 2, 3, 3]), C4),
        "cryosparc_pose_to_matrix": (g.cryosparc_pose_to_matrix, numbers(N, 3)),
        "direction_neighbours": (g.direction_neighbours, DIRECTIONS, 29.3),
        "directions_in_tilt_range": (g.directions_in_tilt_range, DIRECTIONS, C4, (20.0, 80.0)),
        "equivalent_sites": (
            lambda x: tuple(g.equivalent_sites(C4, x)), numbers(3, low=5.0, high=9.0),
        ),
        "frame_along": (lambda c, d: tuple(g.frame_along(c, d)), numbers(3), numbers(3)),
        "heights_angstrom": (g.heights_angstrom, ROTATIONS, numbers(3)),
        "recentred_origins": (g.recentred_origins, numbers(N, 2), ROTATIONS, numbers(3)),
        "view_sites": (
            lambda a, t: g.view_sites(a, t, C4, g.equivalent_sites(C4, (5.0, 7.0, 1.0))).rotations,
            ROTATIONS, numbers(N, 2),
        ),
        "euler_to_matrix": (g.euler_to_matrix, *(90.0 * numbers(3, N))),
        "exp_so3": (g.exp_so3, numbers(N, 3)),
        "group_from_operators": (
            lambda x: g.group_from_operators(x).operators, C4.operators.astype(np.float32),
        ),
        "is_axis_aligned_permutation": (g.is_axis_aligned_permutation, C4.operators[1]),
        "matrix_to_cryosparc_pose": (g.matrix_to_cryosparc_pose, ROTATIONS),
        "matrix_to_euler": (g.matrix_to_euler, ROTATIONS),
        "matrix_to_rotvec": (g.matrix_to_rotvec, ROTATIONS),
        "nearest_operator": (g.nearest_operator, ROTATIONS, C4.operators.astype(np.float32)),
        "pose_error_mod_group": (g.pose_error_mod_group, NEARBY, ROTATIONS, C4),
        "poses_of_directions": (g.poses_of_directions, DIRECTIONS),
        "project_to_so3": (g.project_to_so3, ROTATIONS + 0.01 * numbers(N, 3, 3)),
        "register_agreement": (g.register_agreement, NEARBY, ROTATIONS, C4, C1),
        "register_mates": (g.register_mates, ROTATIONS, C4.operators.astype(np.float32)),
        "rotation_angle": (g.rotation_angle, ROTATIONS),
        "rotvec_to_matrix": (g.rotvec_to_matrix, numbers(N, 3)),
        "zernike_sum": (g.zernike_sum, (0.5, 0.2, 0.1), 0.2 * numbers(N, 2), 1),
        "subgroup": (
            lambda axis: g.subgroup(g.point_group("D2"), "C2", axis).operators,
            np.array([1.0, 0.0, 0.0], np.float32),
        ),
    },
    imaging: {
        "background_power": (i.background_power, numbers(N, BOX, BOX), PACKING, 5.0),
        "background_statistics": (i.background_statistics, numbers(N, BOX, BOX), 5.0),
        "batch_ctf": (i.batch_ctf, OPTICS, TILTED, True),
        "mean_slices": (
            i.mean_slices, ONE, np.stack([ROTATIONS, NEARBY], axis=1), numbers(N, 2, low=0.0),
            WAVES,
        ),
        "recorded": (
            lambda s, t: i.recorded(s, OPTICS, GEOMETRY, t), complexes(N, PACKING.n_pixels),
            ORIGINS,
        ),
        "ctf": (i.ctf, OPTICS, GEOMETRY.frequencies, GEOMETRY.frequencies[:, 0]),
        "electron_wavelength_angstrom": (i.electron_wavelength_angstrom, np.array([100.0, 300.0])),
        "extract_parts": (i.extract_parts, VOLUME, ROTATIONS, WAVES),
        "extract_parts_and_derivatives": (
            i.extract_parts_and_derivatives, VOLUME, ROTATIONS, WAVES,
        ),
        "extract_slices": (i.extract_slices, VOLUME, ROTATIONS, WAVES),
        "fold_friedel": (i.fold_friedel, ACCUMULATOR.values, RADIUS),
        "fourier_volume": (
            bound(i.fourier_volume, radius=RADIUS, image_box=BOX), np.stack([MAP, OTHER]),
        ),
        "insert_slices": (
            i.insert_slices, ACCUMULATOR.values, RADIUS, ROTATIONS, WAVES, BATCH.data, BATCH.ctf,
        ),
        "map_from_half_transform": (
            bound(i.map_from_half_transform, box=BOX, image_box=BOX),
            complexes(*i.half_shape(RADIUS)),
        ),
        "normalise_background": (i.normalise_background, numbers(N, BOX, BOX), 5.0),
        "pack": (i.pack, numbers(N, BOX, BOX), PACKING),
        "pixel_weights": (
            i.pixel_weights, numbers(N_SHELLS, low=1, high=2), PACKING, GEOMETRY.slice_shell, 4,
        ),
        "rebox_map": (i.rebox_map, MAP, 12),
        "resample_map": (i.resample_map, MAP, 12),
        "shift_phases": (i.shift_phases, ORIGINS, PACKING),
        "slice_stages": (stages, VOLUME, ROTATIONS, WAVES),
        "in_stages": (stages, VOLUME, ROTATIONS, WAVES),
        "undo_premultiplication": (i.undo_premultiplication, BATCH.data, BATCH.ctf),
        "without_odd_phase": (i.without_odd_phase, BATCH.data, TILTED),
        "unpack": (i.unpack, BATCH.data, PACKING),
    },
    inference: {
        "accuracy_with_estimate": (f.accuracy_with_estimate, GRAM, GRAM, POINTS),
        "combined_log10_p": (
            lambda x: f.combined_log10_p([PermutationTest(1.0, 1.0, each) for each in x]),
            np.array([-2.0, -1.0]),
        ),
        "draw_poses": (
            f.draw_poses, POSTERIOR, np.ones((N, 1, REGISTERS), np.float32), KEY, np.arange(N), 2,
        ),
        "entropy": (f.entropy, SHARES),
        "expected_accuracy": (f.expected_accuracy, GRAM, POINTS),
        "gain_over_mixture": (f.gain_over_mixture, EVIDENCE),
        "harden": (f.harden, SHARES),
        "junk_evidence": (f.junk_evidence, BATCH, GEOMETRY, OBJECT_POWER),
        "log_density": (f.log_density, VOLUME, BATCH, GEOMETRY, ROTATIONS, ORIGINS),
        "log_likelihood": (f.log_likelihood, VOLUME, BATCH, GEOMETRY, ROTATIONS, ORIGINS),
        "log_normaliser": (f.log_normaliser, BATCH, GEOMETRY),
        "infer": (f.infer, MODEL, PARAMS, EVIDENCE, BATCH, GEOMETRY),
        "log_marginal": (f.log_marginal, MODEL, PARAMS, VOLUME, BATCH, GEOMETRY, POSES),
        "e_step": (
            lambda *x: f.e_step(MODEL, PARAMS, FixedPoses(), *x[:1], *x[1:], N_SHELLS),
            VOLUME, BATCH, GEOMETRY, POSES, PRIOR,
        ),
        "over_modes": (f.over_modes, POSTERIOR.log_evidence),
        "split_modes": (f.split_modes, FixedPoses(), jax.tree.map(lambda x: x[:, 0], POSTERIOR)),
        "found_at_places": (f.found_at_places, MODEL, POSTERIOR),
        "statistics": (
            lambda e, p, b: f.statistics(MODEL, f.infer(MODEL, PARAMS, e, b, GEOMETRY), p, b),
            EVIDENCE, POSTERIOR, BATCH,
        ),
        "orientation_scores": (
            f.orientation_scores, ONE, VOLUME, BATCH, GEOMETRY, ROTATIONS, ORIGINS,
            np.stack([ROTATIONS[::-1], NEARBY], axis=1),
        ),
        "permutation_test": (
            bound(with_seed(f.permutation_test)), numbers(N), numbers(N, 3),
        ),
        "posterior": (f.posterior, EVIDENCE, EVIDENCE[0]),
        "register_gram": (f.register_gram, VIEWS, VIEWS, numbers(N, 5, 8)),
        "significant": (f.significant, SHARES),
        "squared_distance": (f.squared_distance, GRAM),
        "whitened_tangents": (
            f.whitened_tangents, ONE, CTF, WEIGHTS, GEOMETRY, ROTATIONS, PRIOR,
        ),
        "whitened_views": (f.whitened_views, VOLUME, CTF, WEIGHTS, GEOMETRY, ROTATIONS),
    },
    reconstruction: {
        "accumulate": (r.accumulate, ACCUMULATOR, BATCH, GEOMETRY, CANDIDATES),
        "align_axes": (r.align_axes, MAP, C2, 16),
        "align_half_maps": (r.align_half_maps, *ASYMMETRIC, C4, [0, 1, 2, 3], CURVE),
        "apply_component_gains": (
            r.apply_component_gains, ASYMMETRIC[0], numbers(COMPONENTS, N_SHELLS), C4,
        ),
        "apply_gain": (r.apply_gain, MAP, CURVE),
        "average_over": (r.average_over, MAP, C4),
        "coarse_copy": (r.coarse_copy, MAP),
        "completed": (r.completed, ACCUMULATOR),
        "completed_sums": (r.completed_sums, ACCUMULATOR, 4),
        "component_curves": (
            lambda *x: r.component_curves(
                PARTICLE, parts(*x[:2]),
                r.match_halves(PARTICLE, parts(*x[:2]), x[2], max_shell=6, score_shell=5), x[2],
            ),
            *ASYMMETRIC, MASK,
        ),
        "each_seen_by_the_other": (
            lambda *x: r.each_seen_by_the_other(PARTICLE, 1, parts(*x)), *ASYMMETRIC,
        ),
        "match_halves": (
            lambda *x: r.match_halves(
                PARTICLE, parts(*x[:2]), x[2], max_shell=6, score_shell=5
            )._asdict(),
            *ASYMMETRIC, MASK,
        ),
        "isotypic_gains": (
            lambda *x: r.isotypic_gains(
                PARTICLE, parts(*x[:2]),
                r.match_halves(PARTICLE, parts(*x[:2]), x[2], max_shell=6, score_shell=5),
                r.Belief(), x[2], (COMPONENTS, 7),
            ),
            *ASYMMETRIC, MASK,
        ),
        "match_states": (
            lambda *x: np.array(
                r.match_states(
                    [PARTICLE] * 2, [parts(*x[:2]), parts(*x[1::-1])], np.array([0.5, 0.5]), x[2],
                    max_shell=6, score_shell=5,
                )
            ),
            *ASYMMETRIC, MASK,
        ),
        "mean_agreement": (
            bound(r.mean_agreement, n_shells=7, score_shell=5), PARTICLE, CURVE.astype(float), MASK,
        ),
        "onto_first": (r.onto_first, PARTICLE, 1, MAP),
        "own_filtered": (
            lambda first, second, state, curve: r.own_filtered(
                [r.IsotypicParts(first, second), r.IsotypicParts(second, first)],
                0.5 * (first + second), state, [curve],
            ),
            MAP, OTHER, OWN_GAINS, CURVE,
        ),
        "registers_filtered": (
            r.registers_filtered, ASYMMETRIC[0], numbers(COMPONENTS, N_SHELLS), 1.0 + MASK,
            PARTICLE,
        ),
        "registers_onto_first": (r.registers_onto_first, PARTICLE, 1, numbers(N, 4)),
        "slice_power": (r.slice_power, MAP, BOX, N_SHELLS),
        "component_fsc": (r.component_fsc, *ASYMMETRIC, C4, np.arange(N_SHELLS) % 4),
        "corrected_fsc": (with_seed(r.corrected_fsc), MAP, OTHER, MASK),
        "density_mask": (r.density_mask, MAP, MAP + 0.01 * numbers(BOX, BOX, BOX), 3.0, 20.0, C4),
        "deposit": (
            r.deposit, ACCUMULATOR, BATCH, GEOMETRY, np.stack([ROTATIONS, NEARBY], 1)[:, :, None],
            numbers(N, 2, 1, 2), numbers(N, 2, 1) ** 2, np.eye(3)[None],
        ),
        "deposit_in_maps": (
            lambda sums, *x: r.deposit_in_maps(
                [sums, sums], x[0], GEOMETRY, *x[1:], np.stack([np.eye(3)] * 2), np.arange(2)
            ),
            ACCUMULATOR, BATCH, np.stack([ROTATIONS, NEARBY], 1)[:, :, None].repeat(2, axis=2),
            numbers(N, 2, 2, 2), numbers(N, 2, 2) ** 2,
        ),
        "first_below": (r.first_below, CURVE, 0.5),
        "band_of_difference": (r.band_of_difference, CURVE, COUNTS, CURVE[::-1].copy(), COUNTS),
        "benjamini_hochberg": (r.benjamini_hochberg, numbers(50, low=0.0, high=0.05), 0.05),
        "benjamini_yekutieli": (r.benjamini_yekutieli, numbers(50, low=0.0, high=0.05), 0.05),
        "difference_in_sigma": (
            lambda one, two, mask: r.difference_in_sigma(
                (one, two), mask, np.asarray(mask) > 0.5,
                r.band_of_difference(CURVE, COUNTS, CURVE, COUNTS), 3.0, group=C4, kept=C1,
                coefficients=COUNTS,
            ).sigma,
            MAP, OTHER, MASK,
        ),
        "local_resolution": (lambda *x: r.local_resolution(*x, 3.0), MAP, OTHER, MASK),
        "resolved_shell": (r.resolved_shell, CURVE, COUNTS),
        "fsc": (r.fsc, MAP, OTHER, MASK),
        "hypothesis_volume": (
            lambda maps: r.hypothesis_volume(
                maps, MODEL.table, [C4], max_shell=SHELL, image_box=BOX
            ),
            MAP[None],
        ),
        "independent_fraction": (r.independent_fraction, MASK),
        "inverse_tau2": (r.inverse_tau2, CURVE, CURVE),
        "isotypic_parts": (r.isotypic_parts, MAP, C4, C2),
        "mean_weight": (r.mean_weight, ACCUMULATOR, SHELL),
        "misaligned_axes": (r.misaligned_axes, MAP, C2),
        "moved": (r.moved, MAP, ROTATIONS[0], numbers(3)),
        "mean_occupancy": (r.mean_occupancy, PATTERNS, POPULATIONS),
        "partner_coefficients": (r.partner_coefficients, PATTERNS, C4, POPULATIONS),
        "partner_map": (
            lambda a, b, c: r.partner_map([a, b] * 3, c, C4), MAP, OTHER, numbers(4, 6),
        ),
        "pattern_parts": (
            lambda c, p: [tuple(one) for one in r.pattern_parts(c, p, 0.5, PATTERNS, C4)],
            MAP, OTHER,
        ),
        "particle_radius_angstrom": (r.particle_radius_angstrom, MAP, 3.0),
        "regularised_parts": (
            lambda sums, tau, gains, mask: r.regularised_parts(
                sums, tau, gains, C4, C1, sphere=mask, symmetric_mask=mask, asymmetric_mask=mask,
                image_box=BOX,
            ),
            r.ShellSums.of(r.completed(ACCUMULATOR), SHELL), CURVE[: SHELL + 1],
            numbers(COMPONENTS, SHELL + 1), numbers(*3 * [imaging.working_box(SHELL)]),
        ),
        "resolution_shell": (r.resolution_shell, CURVE),
        "rotate_map": (r.rotate_map, MAP, ROTATIONS[0]),
        "rotated_maps": (lambda *x: np.stack(list(r.rotated_maps(*x))), MAP, ROTATIONS),
        "scoring_volume": (
            lambda *parts: r.scoring_volume(
                [r.IsotypicParts(*parts)], MODEL.table, max_shell=SHELL, image_box=BOX
            ),
            MAP, ASYMMETRIC[0],
        ),
        "share_of_components": (
            r.share_of_components, CURVE, numbers(2, N_SHELLS), 50.0 * numbers(2, N_SHELLS) ** 2,
        ),
        "solvent_mask": (r.solvent_mask, MAP, 3.0),
        "symmetrise": (r.symmetrise, MAP, C4),
        "symmetry_correlation": (r.symmetry_correlation, MAP, C4),
        "turn_map": (r.turn_map, MAP, ROTATIONS[0]),
        "turned_maps": (
            lambda map_: r.turned_maps(map_, np.stack([C4.operators[1], ROTATIONS[0]])), MAP,
        ),
        "wiener_map": (
            bound(r.wiener_map, box=BOX, image_box=BOX), ACCUMULATOR, CURVE[: SHELL + 1],
        ),
    },
}  # fmt: skip

SEARCHES = {
    "FixedPoses": FixedPoses(),
    "GaussNewton": GaussNewton(),
    "PoseGrid": PoseGrid(n_rotation=1, n_shift=3),
    "KnownModes": None,
    "GlobalSearch": None,
}


def traced_search(search, volume, batch, poses, prior):
    """What a search of a class does with arrays that it closes over, as JAX sees it.

    Compiling it would take long; NumPy refuses to be indexed by what is traced before that.
    """
    chosen = SEARCHES[search]
    if chosen is None:
        chosen = inference.global_search(
            20.0, 40.0, C1, coarsest_order=0, finest_order=0, n_candidates=2, n_modes=1
        )
        chosen = chosen.followed if search == "KnownModes" else chosen
    target = chosen.prepare(volume, GEOMETRY)
    return jax.make_jaxpr(lambda: chosen(target, batch, GEOMETRY, poses, prior, N_SHELLS))()


def takes_arrays(function) -> bool:
    """Whether its annotations name arrays, or modules that hold some."""
    words = ("Array", "ndarray", "Volume", "Batch", "Poses", "Model", "Accumulator", "Candidates")
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    return any(word in str(p.annotation) for p in parameters for word in words)


def functions(package):
    return {
        name: getattr(package, name)
        for name in package.__all__
        if callable(getattr(package, name)) and not inspect.isclass(getattr(package, name))
    }


def converted(value, make):
    """Arrays made of one kind, but for those of the host: packings, geometries and groups."""
    if isinstance(value, imaging.HalfSpectrum | imaging.ImageGeometry | geometry.PointGroup):
        return value
    if isinstance(value, jax.Array | np.ndarray) and value is not KEY:
        return make(value)
    if isinstance(value, eqx.Module):
        leaves, structure = jax.tree.flatten(value)
        return jax.tree.unflatten(structure, [converted(leaf, make) for leaf in leaves])
    return value


def assert_same(one, other):
    one, other = (jax.tree.leaves(x) if jax.tree.leaves(x) else [x] for x in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_every_function_that_takes_arrays_has_a_case(package):
    needed = {name for name, function in functions(package).items() if takes_arrays(function)}
    # What is called by annotation without arrays takes a sequence of them.
    assert needed <= set(CASES[package]) <= set(functions(package))
    classes = {name for name in inference.__all__ if name in SEARCHES}
    assert classes == set(SEARCHES)


@pytest.mark.parametrize(
    ("package", "name"), [(p, name) for p in CASES for name in CASES[p]],
    ids=lambda x: x if isinstance(x, str) else x.__name__.split(".")[-1],
)  # fmt: skip
def test_numpy_and_jax_arrays_give_the_same(package, name):
    function, *arguments = CASES[package][name]
    # Rounded alike: JAX has single precision.
    numpy = [converted(x, lambda a: np.asarray(jnp.asarray(a))) for x in arguments]
    jaxes = [converted(x, jnp.asarray) for x in arguments]
    assert_same(function(*numpy), function(*jaxes))


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_take_both(name):
    target = ONE if SEARCHES[name] is None else VOLUME
    arguments = (target, BATCH, POSES, PRIOR)
    one = traced_search(name, *(converted(x, np.asarray) for x in arguments))
    other = traced_search(name, *(converted(x, jnp.asarray) for x in arguments))
    assert one.out_avals == other.out_avals
    assert sorted(map(str, one.in_avals)) == sorted(map(str, other.in_avals)) == []
    operations = [[str(each.primitive) for each in kind.eqns] for kind in (one, other)]
    assert operations[0] == operations[1]


def test_packages_are_those_of_the_core():
    names = ("geometry", "imaging", "inference", "reconstruction")
    assert list(PACKAGES) == [importlib.import_module(f"jaxrelax.{name}") for name in names]
