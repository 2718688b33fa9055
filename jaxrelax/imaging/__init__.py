"""How an image comes about: Fourier packing, CTF, slices and their adjoint, noise."""

from jaxrelax.imaging.batch import (
    ImageBatch,
    ImageGeometry,
    batch_ctf,
    image_geometry,
    undo_premultiplication,
    without_odd_phase,
)
from jaxrelax.imaging.chunks import Blocks, in_stages
from jaxrelax.imaging.ctf import CTFParameters, ctf, electron_wavelength_angstrom
from jaxrelax.imaging.half_spectrum import HalfSpectrum, half_spectrum, pack, shift_phases, unpack
from jaxrelax.imaging.noise import NoiseModel, RadialNoise, pixel_weights, white_spectrum
from jaxrelax.imaging.preprocess import (
    BackgroundStatistics,
    background_power,
    background_statistics,
    normalise_background,
    radii_px,
    soft_circle,
)
from jaxrelax.imaging.recorded import mean_slices, recorded
from jaxrelax.imaging.shells import MARGIN, Shells
from jaxrelax.imaging.slices import (
    FourierVolume,
    Parts,
    extract_parts,
    extract_parts_and_derivatives,
    extract_slices,
    fold_friedel,
    half_shape,
    insert_slices,
    slice_stages,
    volume_radius,
)
from jaxrelax.imaging.smooth_noise import SmoothNoise
from jaxrelax.imaging.volume import (
    fourier_volume,
    gridding_correction,
    half_grid_frequencies,
    half_grid_shells,
    map_from_half_transform,
    rebox_map,
    resample_map,
    working_box,
)

__all__ = [
    "MARGIN",
    "BackgroundStatistics",
    "Blocks",
    "CTFParameters",
    "FourierVolume",
    "HalfSpectrum",
    "ImageBatch",
    "ImageGeometry",
    "NoiseModel",
    "Parts",
    "RadialNoise",
    "Shells",
    "SmoothNoise",
    "background_power",
    "background_statistics",
    "batch_ctf",
    "ctf",
    "electron_wavelength_angstrom",
    "extract_parts",
    "extract_parts_and_derivatives",
    "extract_slices",
    "fold_friedel",
    "fourier_volume",
    "gridding_correction",
    "half_grid_frequencies",
    "half_grid_shells",
    "half_shape",
    "half_spectrum",
    "image_geometry",
    "in_stages",
    "insert_slices",
    "map_from_half_transform",
    "mean_slices",
    "normalise_background",
    "pack",
    "pixel_weights",
    "radii_px",
    "rebox_map",
    "recorded",
    "resample_map",
    "shift_phases",
    "slice_stages",
    "soft_circle",
    "undo_premultiplication",
    "unpack",
    "volume_radius",
    "white_spectrum",
    "without_odd_phase",
    "working_box",
]
