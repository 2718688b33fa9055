"""Tables of a STAR file survive reading and writing; bad files are named by line."""

import pytest

from jaxrelax.io import InputError
from jaxrelax.io.star import make_table, read_star, write_star_tables


def test_quoted_values_and_blocks_without_loop_survive(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(
        "# version 50001\ndata_general\n\n_rlnA 'two words'\n_rlnB\t3\n\n"
        'data_particles\nloop_\n_rlnImageName #1\n_rlnNote #2\n1@a.mrcs "a b"\n2@a.mrcs ""\n'
    )
    write_star_tables(tmp_path / "b.star", read_star(path))
    general, particles = read_star(tmp_path / "b.star")
    assert not general.is_loop
    assert general.comment == "# version 50001"
    assert general.columns(["rlnA", "rlnB"]) == {"rlnA": ["two words"], "rlnB": ["3"]}
    assert particles.column("rlnNote") == ["a b", ""]


def test_updating_some_rows_leaves_the_text_of_the_others():
    table = make_table("particles", {"a": ["1.0", "2.00"], "b": ["x", "y"]})
    changed = table.updated([1], {"a": ["7"]}).appended({"c": ["p q", "r"]})
    assert changed.lines == ('1.0 x "p q"', "7 y r")
    assert table.lines == ("1.0 x", "2.00 y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "no 'data_' block"),
        ("data_x\nloop_\n_a #1\n_b #2\n1 2\n3\n", "line 6: 1 values for the 2 columns"),
        ("data_x\nloop_\n_a #1\n_a #2\n1 2\n", "column a stands there more than once"),
        ("data_x\nloop_\n_a #1\n;\n", "multi-line"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "bad.star"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_star(path)
    assert str(path) in str(error.value)


def test_a_missing_or_binary_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_star(tmp_path / "no.star")
    (tmp_path / "binary.star").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not a text file"):
        read_star(tmp_path / "binary.star")
