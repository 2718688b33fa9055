"""Files: STAR and ``.cs`` tables, MRC maps and stacks, image streams and the output folder.

The only package that knows file formats; it knows geometry and nothing else of jaxrelax.
"""

from jaxrelax.io.errors import InputError, MissingImagesError, UnsupportedError
from jaxrelax.io.images import ImageReader, drop_bad_images, find_bad_images, prefetch
from jaxrelax.io.mrc import read_map, read_mask, write_map, write_stack
from jaxrelax.io.particles import OpticsGroup, Particles, Refusal
from jaxrelax.io.reading import check_supported, read_particles

__all__ = [
    "ImageReader",
    "InputError",
    "MissingImagesError",
    "OpticsGroup",
    "Particles",
    "Refusal",
    "UnsupportedError",
    "check_supported",
    "drop_bad_images",
    "find_bad_images",
    "prefetch",
    "read_map",
    "read_mask",
    "read_particles",
    "write_map",
    "write_stack",
]
