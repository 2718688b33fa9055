"""jaxrelax: symmetry-relaxed cryo-EM refinement in JAX.

For every particle, which symmetry-related register is right, with an honest posterior, and the
asymmetric map that follows from it.

What is public is listed in ``__init__.pyi``, and imported when it is first used: help of the
command line does not wait for JAX.
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

__version__ = _version("jaxrelax")

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
