"""Files: STAR and ``.cs`` tables, MRC maps and stacks, image streams and the output folder.

The only package that knows file formats; it knows geometry and nothing else of jaxrelax.
"""

from jaxrelax.io.atomic import atomic_open, atomic_write_bytes, atomic_write_text
from jaxrelax.io.errors import InputError, LostImagesError, MissingImagesError, UnsupportedError
from jaxrelax.io.expansion import expand_symmetry
from jaxrelax.io.images import ImageReader, drop_bad_images, find_bad_images
from jaxrelax.io.inspect import Inspection, format_inspection, inspect_file
from jaxrelax.io.mrc import read_map, read_mask, read_reference, write_map, write_stack
from jaxrelax.io.output import OutputFolder, require_writable, write_fsc_star
from jaxrelax.io.particles import OpticsGroup, Particles, Refusal
from jaxrelax.io.prefetch import prefetch
from jaxrelax.io.reading import check_supported, read_particles
from jaxrelax.io.selection import select_by_posterior
from jaxrelax.io.subparticles import sub_particles
from jaxrelax.io.units import Units, every_row, find_units
from jaxrelax.io.windows import Windows, plan_windows, write_windows
from jaxrelax.io.writing import write_cs, write_star

__all__ = [
    "ImageReader",
    "InputError",
    "Inspection",
    "LostImagesError",
    "MissingImagesError",
    "OpticsGroup",
    "OutputFolder",
    "Particles",
    "Refusal",
    "Units",
    "UnsupportedError",
    "Windows",
    "atomic_open",
    "atomic_write_bytes",
    "atomic_write_text",
    "check_supported",
    "drop_bad_images",
    "every_row",
    "expand_symmetry",
    "find_bad_images",
    "find_units",
    "format_inspection",
    "inspect_file",
    "plan_windows",
    "prefetch",
    "read_map",
    "read_mask",
    "read_particles",
    "read_reference",
    "require_writable",
    "select_by_posterior",
    "sub_particles",
    "write_cs",
    "write_fsc_star",
    "write_map",
    "write_stack",
    "write_star",
    "write_windows",
]
