"""Small inputs that once went wrong, from the shared test data."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def case(shared_data, tmp_path):
    """A function of a case's number: a writable copy of its folder, images beside the tables.

    Some folders hold the path of another folder's stack in place of a stack of their own.
    """

    def copied(number: str) -> Path:
        folder = shared_data / "cases" / number
        if not folder.is_dir():
            pytest.skip(f"no case {number} in {shared_data / 'cases'}")
        target = tmp_path / number
        target.mkdir()
        for source in folder.iterdir():
            if source.stat().st_size < 100:
                source = (folder / source.read_text().strip()).resolve()
            shutil.copyfile(source, target / source.name)
        return target

    return copied
