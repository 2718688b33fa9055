"""Reading operators from text files, and what the errors say."""

import numpy as np
import pytest

from jaxrelax.geometry import (
    NotAGroupError,
    UnknownGroupError,
    parse_group,
    point_group,
    read_operators,
)

# The form of what relion_refine --sym D1 --print_symmetry_ops prints.
RELION_OUTPUT = """ Running CPU instructions in double precision. 
 ++++ Using symmetry group D1, with the following 2 transformation matrices:
 R(1)= 
            1             0             0 
            0             1             0 
            0             0             1 
 R(2)= 
            1             0             0 
            0            -1             0 
            0             0            -1 
     Euler angles: 0 180 180
"""  # noqa: W291

ROWS_OF_NINE = """# a two-fold on z
1 0 0  0 1 0  0 0 1

-1 0 0  0 -1 0  0 0 1   # the two-fold
"""

ROWS_OF_THREE = """1, 0, 0
0, 1, 0
0, 0, 1
# no blank line is needed
-1 0 0
0 -1\t0
0 0 1
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "expected"), [(RELION_OUTPUT, "D1"), (ROWS_OF_NINE, "C2"), (ROWS_OF_THREE, "C2")]
)
def test_formats(write, text, expected):
    group = read_operators(write(text))
    assert group.name == "mine"
    np.testing.assert_array_equal(group.operators, point_group(expected).operators)


def test_rounded_numbers_give_an_exact_group(write):
    operators = point_group("I2").operators
    lines = [" ".join(f"{x:.5f}" for x in g.ravel()) for g in operators]
    group = read_operators(write("\n".join(lines)), name="I")
    np.testing.assert_allclose(group.operators, operators, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 1 0 0 0 1\n1 0 zero\n", r"mine\.txt, line 2: cannot read .*'1 0 zero'"),
        ("1 0 0 0 1\n", r"line 1: found 5 numbers"),
        ("# title\n1 0 0\n0 1 0\n", r"line 2: .* three rows"),
        ("1 0 0\n0 1 0\n1 0 0 0 1 0 0 0 1\n", r"line 1: .* three rows"),
        ("1 0 0 0\n0 1 0 0\n0 0 1\n", r"line 1: .* three rows of four"),
        ("# nothing\n\n", r"mine\.txt: no operators"),
        ("rot_axis 4 0 0 1\n", r"line 1: cannot read"),
    ],
)
def test_unreadable_files(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_operators(write(text))


def test_incomplete_groups_are_not_completed(write):
    quarter_turn = "1 0 0 0 1 0 0 0 1\n\n0 -1 0 1 0 0 0 0 1  # 90° about z\n"
    with pytest.raises(
        NotAGroupError,
        match=r"mine\.txt: .*operator 2 \(line 3\) and operator 2 \(line 3\).*group of order 4",
    ):
        read_operators(write(quarter_turn))


def affine_lines(group, centre, width=12):
    """Operators about a point as text, x → R (x − c) + c."""
    lines = []
    for g in group.operators:
        rows = np.column_stack([g, centre - g @ centre]).reshape(-1, width)
        lines += [" ".join(f"{x:.5f}" for x in row) for row in rows]
    return "\n".join(lines)


@pytest.mark.parametrize("width", [12, 4])
@pytest.mark.parametrize(("name", "nearest"), [("C6", [30.0, -12.0, 0.0]), ("D3", [30, -12, 40])])
def test_axes_elsewhere(write, width, name, nearest):
    """Of one axis the point nearest to the centre of the box, of several where they meet."""
    expected = point_group(name)
    path = write(affine_lines(expected, np.array([30.0, -12.0, 40.0]), width))
    group = parse_group(path, placed=True)
    np.testing.assert_allclose(group.operators, expected.operators, atol=1e-12)
    np.testing.assert_allclose(group.centre_angstrom, nearest, atol=1e-3)
    with pytest.raises(
        ValueError, match=r"mine\.txt: .* about 30\.0 -12\.0 .*the centre of the box"
    ):
        parse_group(path)


def test_translations_that_do_nothing(write):
    group = read_operators(write(affine_lines(point_group("C3"), np.array([0.0, 0.0, 7.0]))))
    assert group.centre_angstrom == (0.0, 0.0, 0.0)


def test_a_screw_leaves_no_point_where_it_is(write):
    screw = "1 0 0 0  0 1 0 0  0 0 1 0\n-1 0 0 4  0 -1 0 2  0 0 1 9\n"
    with pytest.raises(NotAGroupError, match=r"operator 2 \(line 2\) moves .* by 9\.0 Å"):
        read_operators(write(screw), placed=True)


def test_mirrors_are_refused_with_their_line(write):
    with pytest.raises(NotAGroupError, match=r"mine\.txt: operator 2 \(line 2\): .*mirror"):
        read_operators(write("1 0 0 0 1 0 0 0 1\n1 0 0 0 1 0 0 0 -1\n"))


def test_parse_group(write, tmp_path, monkeypatch):
    path = write(ROWS_OF_NINE)
    group = parse_group(path)
    assert parse_group(group) is group
    assert parse_group(str(path)) == group
    assert parse_group("d2") is point_group("D2")
    with pytest.raises(FileNotFoundError):
        parse_group(tmp_path / "absent.txt")
    with pytest.raises(UnknownGroupError, match=r"'absent\.txt'.*Accepted.*file of operators"):
        parse_group("absent.txt")
    # A group's name wins over a file of that name, which ./ can still reach.
    monkeypatch.chdir(tmp_path)
    path.rename(tmp_path / "C4")
    assert parse_group("C4").order == 4
    assert parse_group("./C4").order == 2
