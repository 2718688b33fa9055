"""Short ways in: images, maps and latents as arrays that JAX can differentiate.

From a table of particles and a map to the arguments of :func:`jaxrelax.inference.log_marginal`, for
as many images as are held in memory.
"""

from jaxrelax.in_memory.images import Images, load_images
from jaxrelax.in_memory.models import relaxed, volume

__all__ = ["Images", "load_images", "relaxed", "volume"]
