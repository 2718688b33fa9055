"""Result groups hold what cryoSPARC's guide says, in YAML that a YAML parser reads."""

import datetime

import numpy as np
import pytest

from jaxrelax.io import read_particles, write_cs
from jaxrelax.io.result_groups import (
    PARTICLE_SLOTS,
    result_group,
    write_particle_group,
    write_volume_group,
)

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the docs extra")


@pytest.fixture
def records(shared_data, tmp_path):
    source = shared_data / "metadata" / "cryosparc_P12_J24_001_particles.cs"
    particles = read_particles(source).select(np.arange(7))
    path = tmp_path / "particles.cs"
    write_cs(particles.with_updates(extra_columns={"jrxRegister": np.arange(7)}), path)
    return path


def test_particles_have_the_documented_slots(records):
    path = records.with_suffix(".csg")
    write_particle_group(path, records, "All particles")
    group = yaml.safe_load(path.read_text())
    assert set(group) == {"created", "group", "results", "version"}
    assert isinstance(group["created"], datetime.datetime)
    assert group["group"] == {
        "description": "All particles, refined by jaxrelax",
        "name": "particles",
        "title": "All particles",
        "type": "particle",
    }
    entry = {"metafile": ">particles.cs", "num_items": 7}
    assert group["results"] == {
        slot: entry | {"type": f"particle.{slot}"} for slot in ("alignments3D", "blob", "ctf")
    }
    assert group["version"].startswith("v")


def test_every_slot_has_fields_in_its_file(records):
    path = records.with_suffix(".csg")
    write_particle_group(path, records, "All particles")
    there = {name.split("/")[0] for name in np.load(records).dtype.names}
    # What we add is no slot that cryoSPARC knows.
    assert "jrx" in there
    assert set(yaml.safe_load(path.read_text())["results"]) == there & set(PARTICLE_SLOTS)


def test_passthrough_fields_are_slots(records, tmp_path):
    array = np.load(records)
    more = [("location/micrograph_uid", "<u8"), ("pick_stats/ncc_score", "<f4")]
    with_more = np.zeros(len(array), array.dtype.descr + more)
    with open(tmp_path / "more.cs", "wb") as handle:
        np.save(handle, with_more)
    write_particle_group(tmp_path / "more.csg", tmp_path / "more.cs", "All particles")
    results = yaml.safe_load((tmp_path / "more.csg").read_text())["results"]
    assert results["location"]["type"] == "particle.location"
    assert results["pick_stats"]["metafile"] == ">more.cs"


def test_maps_are_named_relative_to_the_group(tmp_path):
    files = {"map": "map.mrc", "map_half_A": "half1.mrc", "map_half_B": "half2.mrc"}
    write_volume_group(tmp_path / "volume.csg", "volume", files, 96, 1.5, "Map and half-maps")
    group = yaml.safe_load((tmp_path / "volume.csg").read_text())
    assert group["group"]["type"] == "volume"
    entry = {"metafile": ">volume.cs", "num_items": 1, "type": "volume.blob"}
    assert group["results"] == dict.fromkeys(files, entry)
    row = np.load(tmp_path / "volume.cs")
    assert len(row) == 1
    for slot, name in files.items():
        assert row[f"{slot}/path"][0] == f">{name}".encode()
        assert row[f"{slot}/shape"][0].tolist() == [96, 96, 96]
        assert row[f"{slot}/psize_A"][0] == np.float32(1.5)


def test_a_mask_is_one(tmp_path):
    write_volume_group(tmp_path / "mask.csg", "mask", {"mask_refine": "mask.mrc"}, 8, 2.0, "Mask")
    group = yaml.safe_load((tmp_path / "mask.csg").read_text())
    assert group["group"]["type"] == "mask"
    assert group["results"]["mask_refine"]["type"] == "mask.blob"


@pytest.mark.parametrize("title", ["It's: a # title", "- no list", "yes", "'", "a\\tb", "{x: 1}"])
def test_any_title_is_read_as_it_was(title):
    text = result_group("particle", "particles", title, {"ctf": "particle.ctf"}, "it's.cs", 3)
    group = yaml.safe_load(text)
    assert group["group"]["title"] == title
    assert group["results"]["ctf"]["metafile"] == ">it's.cs"
