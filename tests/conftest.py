"""Test-wide settings: two CPU devices, strict ranks, jaxtyping shapes checked at run time."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
os.environ["JAX_PLATFORMS"] = "cpu"

from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
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
