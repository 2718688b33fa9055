"""What STAR files of many programs look like: read as RELION reads them, or refused with a line."""

import logging

import pytest

from jaxrelax.io import InputError, read_particles, write_star
from jaxrelax.io.star import read_star, write_star_tables

HEAD = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n_rlnMicrographName #3\n"
ROWS = ["1@a.mrcs 1 m", "2@a.mrcs 2 n"]


def table(tmp_path, text):
    path = tmp_path / "a.star"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return read_star(path)[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("data_", "DATA_").replace("loop_", "LOOP_"),
        lambda text: text.replace("loop_", "loop_  \t").replace(
            "data_particles", "data_particles # a"
        ),
        lambda text: text.replace(" #1", "").replace(" #2", "\t").replace(" #3", "#3"),
        lambda text: text.replace("\n_", "\n \t_").replace("data_", " data_"),
        lambda text: text.replace("\n1@", "\n# c\n\n1@"),
        lambda text: text.replace("\n2@", "\n# c\n2@"),
        lambda text: text.replace(" m\n", "\tm   # a comment\n"),
        lambda text: text.replace("1@a.mrcs", "'1@a.mrcs'"),
        lambda text: text.rstrip("\n"),
        lambda text: "data_first\n\n_a\t\t'x y'  # note\n\n" + text,
        lambda text: "data_empty\n\nloop_\n_a #1\n\n" + text,
    ],
)
def test_the_same_rows(tmp_path, change):
    found = table(tmp_path, change(HEAD + "\n".join(ROWS) + "\n"))
    assert found.labels == ("rlnImageName", "rlnDefocusU", "rlnMicrographName")
    assert found.columns(found.labels) == {
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs"],
        "rlnDefocusU": ["1", "2"],
        "rlnMicrographName": ["m", "n"],
    }


def test_rows_that_look_like_heads_and_labels(tmp_path):
    rows = ["data_1/m 1 x", "_m 2 data_particles", "data_particles 3 loop_", "loop_x 4 #_", "a 5 b"]
    found = table(tmp_path, HEAD + "\n".join(rows[:3] + rows[4:]) + "\n\ndata_next\n\n_a 1\n")
    assert found.name == "next"
    found = read_star(tmp_path / "a.star")[0]
    assert found.column("rlnImageName") == ["data_1/m", "_m", "data_particles", "a"]


def test_a_first_row_that_begins_with_an_underscore(tmp_path):
    found = table(tmp_path, HEAD + "_mic 2 x\n")
    assert found.lines == ("_mic 2 x",)


def test_one_column_whose_values_begin_with_data(tmp_path):
    text = "data_mics\nloop_\n_rlnMicrographName #1\ndata_1/a.mrc\ndata_2/b.mrc\n\n"
    text += "data_x\nloop_\n_b\n1\n"
    table(tmp_path, text)
    first, second = read_star(tmp_path / "a.star")
    assert first.lines == ("data_1/a.mrc", "data_2/b.mrc")
    assert (second.name, second.lines) == ("x", ("1",))


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\xa0", "\udce9", "é"])
def test_only_ascii_white_space_separates(tmp_path, odd):
    name = f"m{odd}x"
    found = table(tmp_path, HEAD + f"1@a.mrcs 1 {name}\n2@a.mrcs 2 n\n")
    assert found.column("rlnMicrographName") == [name, "n"]
    changed = found.updated([0], {"rlnDefocusU": ["7"]})
    write_star_tables(tmp_path / "b.star", [changed])
    assert f" {name}\n".encode("utf-8", "surrogateescape") in (tmp_path / "b.star").read_bytes()


def test_comments_behind_rows_stay_behind_new_columns(tmp_path):
    found = table(tmp_path, HEAD + "1@a.mrcs 1 m # said so\n2@a.mrcs 2 n\n")
    changed = found.updated([0], {"rlnDefocusU": ["7"]}).appended({"jrxRegister": ["1", "2"]})
    assert changed.lines == ("1@a.mrcs 7 m 1 # said so", "2@a.mrcs 2 n 2")
    assert changed.column("jrxRegister") == ["1", "2"]
    quoted = found.updated([0], {"rlnMicrographName": ["#m"]})
    assert quoted.column("rlnMicrographName") == ["#m", "n"]


def test_rows_behind_a_blank_line_are_read_and_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "jaxrelax"):
        found = table(tmp_path, HEAD + ROWS[0] + "\n  \n" + ROWS[1] + "\n")
    assert len(found) == 2
    assert "line 9: a blank line" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1@a.mrcs 1", "line 7: 2 values for the 3 columns"),
        ("1@a.mrcs 1 m extra", "line 7: 4 values for the 3 columns"),
        ("1@a.mrcs 1 #m", "line 7: 2 values for the 3 columns"),
    ],
)
def test_rows_of_another_length_are_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        table(tmp_path, HEAD + row + "\n")


def test_values_outside_of_a_loop_are_named(tmp_path):
    with pytest.raises(InputError, match="line 3: a value without a label"):
        table(tmp_path, "data_a\n_b 1\n7\n")


def test_blocks_that_are_left_aside_are_told(particle_set, caplog):
    particle_set.write_stack()
    path = particle_set.write()
    text = path.read_text()
    read_particles(path)
    assert not caplog.records
    path.write_text(text + "\n" + text)
    assert len(read_particles(path)) == 6
    assert caplog.text.count("a further block") == 2
    assert "'data_particles' (6 rows) is not" in caplog.text


def test_classes_taken_together_are_told(particle_set, caplog):
    particle_set.columns["rlnClassNumber"] = ["2"] * 6
    read_particles(particle_set.write())
    assert not caplog.records
    particle_set.columns["rlnClassNumber"][3] = "1"
    read_particles(particle_set.write())
    assert "2 classes are taken together: class 1 (1), 2 (5)" in caplog.text


def test_a_name_without_number_is_that_of_a_single_image(particle_set):
    particle_set.columns["rlnImageName"][2] = "stack.mrcs"
    particle_set.write_stack()
    with pytest.raises(InputError, match=r"row 3: rlnImageName 'stack.mrcs' does not say which"):
        read_particles(particle_set.write())
    particle_set.columns["rlnImageName"][2] = "one.mrcs"
    particle_set.images = particle_set.images[:1]
    particle_set.write_stack("one.mrcs")
    assert read_particles(particle_set.write()).image_index[2] == 0


def test_notes_are_written_and_old_files_stay_old(particle_set, tmp_path):
    particle_set.write_stack()
    particle_set.optics = ""
    del particle_set.columns["rlnOpticsGroup"]
    n = len(particle_set.columns["rlnImageName"])
    particle_set.columns |= {
        "rlnVoltage": ["300"] * n, "rlnSphericalAberration": ["2.7"] * n,
        "rlnAmplitudeContrast": ["0.1"] * n, "rlnPixelSize": ["1.5"] * n,
    }  # fmt: skip
    write_star(read_particles(particle_set.write()), tmp_path / "out.star")
    text = (tmp_path / "out.star").read_text()
    assert "# jaxrelax image root: project\n" in text
    assert "# version" not in text
