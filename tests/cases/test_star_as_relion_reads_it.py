"""Tables that RELION reads are read, with as many rows and the same text."""

import pytest

from jaxrelax.io import ImageReader, read_particles, write_star

READ = {
    "02/latin1.star", "02/nel.star", "07/indent.star", "07/labels_tab_space.star",
    "08/optics_noloop_tab.star", "09/last_data.star", "09/mid_data.star",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(READ))
def test_all_rows_are_read_and_written_as_they_were(case, name):
    number, file = name.split("/")
    folder = case(number)
    particles = read_particles(folder / file)
    assert len(particles) == 300
    ImageReader(particles).validate()
    assert particles.optics[0].voltage_kv == 300.0
    assert particles.optics[0].pixel_size_angstrom == 5.2
    write_star(particles, folder / "again.star")

    def rows(path):
        lines = (line.strip() for line in path.read_bytes().split(b"\n"))
        return [line for line in lines if b"@" in line]

    assert rows(folder / "again.star") == rows(folder / file)
    assert len(rows(folder / file)) == 300
