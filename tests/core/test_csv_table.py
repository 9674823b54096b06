"""CSV cells as numbers: exactly as in the text, or an error that names the row."""

import pytest

from hms_dist.core.csv_table import MAX_INTEGER, CsvTable, integer, number
from hms_dist.core.errors import UserError


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return CsvTable(tmp_path / "t.csv")


def test_whole_numbers_are_exact_however_they_are_written(rng):
    for value in [0, 1, 2**53 + 1, MAX_INTEGER, *map(int, rng.integers(0, MAX_INTEGER, 50))]:
        for text in (f"{value}", f"+{value}", f"00{value}", f"{value}.0", f"{value}.", f"{value}0e-1"):
            assert integer(text, MAX_INTEGER) == value


def test_numbers_are_the_nearest_float64(rng):
    for value in map(float, rng.uniform(0, 1e6, 200)):
        assert number(repr(value), 1e9) == value
        assert number(f"{value:.17e}", 1e9) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "nan", "inf", "1_0", "0x1", "1,5", "--1", "1e", "e5", ".", "\N{ARABIC-INDIC DIGIT ONE}", "True"]
)
def test_what_is_not_a_number(text):
    for parse in (number, integer):
        with pytest.raises(ValueError, match="a number of at least 0"):
            parse(text, 100)


def test_limits():
    assert integer("-0", 5) == 0
    assert number("5.0", 5.0) == 5
    for text, expected in (("6", "an integer of at most 5"), ("1e999", "of at most 5"), ("0.5", "an integer$")):
        with pytest.raises(ValueError, match=expected):
            integer(text, 5)
    with pytest.raises(ValueError, match=r"a number of at most 1e\+09"):
        number("1e300", 1e9)


def test_columns_and_the_first_bad_row(tmp_path):
    read = table(tmp_path, "a, b ,c\n1, 2.5,x\n\n3,4, y y \n1,?,z\n5,!,\n  \n")
    assert (read.names, len(read)) == (["a", "b", "c"], 4)
    assert read.integers("a").tolist() == [1, 3, 1, 5]
    assert read.words("c") == ["x", "y y", "z", ""]
    with pytest.raises(UserError, match=r"t.csv: row 4, column b: expected a number of at least 0, found '\?'; fix"):
        read.numbers("b", 9.0)


def test_only_columns_that_are_known_must_be_single(tmp_path):
    read = table(tmp_path, "a,b,b\n1,2,3\n")
    read.check_names(["a"], ["a"])
    with pytest.raises(UserError, match=r"column b appears more than once; expected once; remove the others$"):
        read.check_names(["a"], ["a", "b"])
    with pytest.raises(UserError, match=r"column c is missing; expected a, c$"):
        read.check_names(["a", "c"], [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n3\n", "row 3: expected 2 cells, found 1; fix the table"),
        ("a,b\n\n1,2\n3,4,\n", "row 3: expected 2 cells, found 3; fix the table"),
        ('a,b\n1,"2\n3,4\n', "row 2: a quote never ends; fix the table"),
        ('a,b\n1,2\n"3,4\n5,6', "row 3: a quote never ends; fix the table"),
        ('a\n1\n"2\n3', "row 3: a quote never ends; fix the table"),
        ('a,"b\n1,2\n', "cannot read it as CSV (a quote never ends); fix the table"),
        ("\n \n", "the file is empty; expected the label table"),
    ],
)
def test_a_table_that_is_not_a_table(tmp_path, text, line):
    with pytest.raises(UserError) as caught:
        table(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 't.csv'}: {line}"


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n", "\n \n"])
def test_lines_may_end_in_several_ways(tmp_path, end):
    (tmp_path / "t.csv").write_bytes(f'{end}a,b{end}1,"x{end}y"{end}2,z{end}'.encode("utf-8-sig"))
    read = CsvTable(tmp_path / "t.csv")
    assert read.integers("a").tolist() == [1, 2]
    assert read.words("b") == [f"x{end}y", "z"]


def test_a_table_of_any_size_is_read(tmp_path, rng):
    values = rng.integers(0, 2**62, (50_000, 3))
    read = table(tmp_path, "a,b,c\n" + "".join('{},{}.0,"{}"\n'.format(*row) for row in values.tolist()))
    for column, name in enumerate("abc"):
        assert (read.integers(name) == values[:, column]).all()
