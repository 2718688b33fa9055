"""Test-wide settings: two CPU devices, strict ranks, jaxtyping shapes checked at run time."""

import os

# Once: processes of one run inherit it, and programs are kept under the flags that made them.
os.environ["XLA_FLAGS"] = " ".join(
    dict.fromkeys(
        [*os.environ.get("XLA_FLAGS", "").split(), "--xla_force_host_platform_device_count=2"]
    )
)
os.environ["JAX_PLATFORMS"] = "cpu"

from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
# What another test or the last run has compiled is not compiled again. Not by way of the
# environment: commands that tests start, and kill, compile for themselves.
COMPILED = Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
settings.register_profile("jaxrelax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("jaxrelax")

# Shapes and dtypes in annotations are checked at run time for the whole package.
with install_import_hook("jaxrelax", "beartype.beartype"):
    import jaxrelax  # noqa: F401


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared test data, or a skip with the reason."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("JAXRELAX_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder} (set JAXRELAX_DATA)")
    return folder
