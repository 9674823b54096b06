"""Configuration from files and words: what is accepted, what is refused and with which line."""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from hms_dist.commands.completion import Completion
from hms_dist.config.command_line import with_subject
from hms_dist.config.load import from_dict, load, save, to_dict
from hms_dist.config.types import fits
from hms_dist.core.errors import UserError
from hms_dist.train.settings import TrainConfig


class Shape(ABC):
    """Something with an area."""

    @abstractmethod
    def area(self) -> float:
        """Square metres."""


@dataclass(frozen=True, kw_only=True)
class Square(Shape):
    """A square."""

    side_m: float = 1.0
    """Side, metres."""

    def __post_init__(self) -> None:
        if self.side_m <= 0:
            raise ValueError(f"side_m: expected more than 0, found {self.side_m}")

    def area(self) -> float:
        return self.side_m**2


@dataclass(frozen=True, kw_only=True)
class Paint:
    """Colour and coats."""

    coats: int = 1
    """Number of coats."""
    glossy: bool = False
    """Shiny."""


@dataclass(frozen=True, kw_only=True)
class House:
    """Shapes, painted."""

    out: Path
    """Where to build."""
    shapes: dict[str, Shape] = field(default_factory=lambda: {"door": Square()})
    """Shapes by name."""
    paint: Paint = field(default_factory=Paint)
    """Paint."""
    floor: int | Literal["none"] = 0
    """Floor."""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_file_and_words_merge_in_order(tmp_path):
    first = write(
        tmp_path, "a.yaml", "paint: {coats: 2}\nshapes: {wall: {class_path: Square, init_args: {side_m: 3}}}\n"
    )
    second = write(tmp_path, "b.yaml", "paint: {coats: 4}\n")
    house = load(House, ["--config", first, "--config", second, "--out", "x", "--floor", "none"])
    assert house == House(out=Path("x"), shapes={"wall": Square(side_m=3)}, paint=Paint(coats=4), floor="none")
    assert load(House, ["--config", first, "--paint.coats=7", "--out", "x"]).paint.coats == 7


@pytest.mark.parametrize(
    ("words", "glossy"),
    [
        (["--paint.glossy", "--out", "x"], True),
        (["--out", "x", "--paint.glossy"], True),
        (["--out", "x", "--paint.glossy", "true"], True),
        (["--paint.glossy=true", "--out", "x"], True),
        (["--paint.glossy", "false", "--out", "x"], False),
        (["--out", "x"], False),
    ],
)
def test_an_option_that_is_yes_or_no_may_stand_alone(words, glossy):
    assert load(House, words) == House(out=Path("x"), paint=Paint(glossy=glossy))


def test_other_options_may_not_stand_alone():
    with pytest.raises(UserError, match=r"paint\.coats"):
        load(House, ["--out", "x", "--paint.coats"])


@dataclass(frozen=True, kw_only=True)
class Street:
    """Lists."""

    photos: tuple[Path, ...] = ()
    """Files."""
    numbers: tuple[int, ...] | None = (1,)
    """Numbers."""
    trees: tuple[int, ...] | Literal["all", "none"] = "all"
    """Numbers, or a word."""
    lamps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Lists by name: one value, whatever it holds."""


@pytest.mark.parametrize(
    ("words", "street"),
    [
        ("--photos a 2024 --numbers 3 4", Street(photos=(Path("a"), Path("2024")), numbers=(3, 4))),
        ("--numbers null --photos a", Street(photos=(Path("a"),), numbers=None)),
        ("--trees none", Street(trees="none")),
        ("--trees 1 2", Street(trees=(1, 2))),
        ('--lamps {"a":[1,2]} --trees 1', Street(lamps={"a": (1, 2)}, trees=(1,))),
        ("--photos [a,b] --numbers=[5]", Street(photos=(Path("a"), Path("b")), numbers=(5,))),
    ],
)
def test_several_words_fill_a_list(words, street):
    assert load(Street, words.split()) == street


@dataclass(frozen=True, kw_only=True)
class Garden:
    """A part that need not be there, within another."""

    paint: Paint | None = None
    """Of its fence; None: no fence."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A garden."""

    garden: Garden = field(default_factory=Garden)
    """The garden."""


@pytest.mark.parametrize("text", ["{}", "garden: {paint: null}", "garden: {paint: {coats: 5}}"])
def test_options_of_a_part_that_need_not_be_there_are_words_too(tmp_path, text):
    file = ["--config", write(tmp_path, "a.yaml", text)]
    given = load(Plot, file).garden.paint
    words = ["--garden.paint.coats", "7", "--garden.paint.glossy"]
    assert load(Plot, [*file, *words]).garden.paint == Paint(coats=7, glossy=True)
    coats = given.coats if given else Paint().coats
    assert load(Plot, [*file, "--garden.paint.glossy"]).garden.paint == Paint(coats=coats, glossy=True)
    assert load(Plot, [*file, "--garden.paint", "null"]).garden.paint is None


def test_small_numbers_in_exponent_form_are_numbers(tmp_path):
    path = write(tmp_path, "a.yaml", "shapes: {s: {class_path: Square, init_args: {side_m: 1e-4}}}\n")
    assert load(House, ["--config", path, "--out", "x"]).shapes["s"].side_m == 1e-4


def test_a_part_may_be_a_file_beside_its_parent(tmp_path):
    write(tmp_path, "parts/paint.yaml", "coats: 9\n")
    path = write(tmp_path, "house.yaml", "paint: parts/paint.yaml\n")
    assert load(House, ["--config", path, "--out", "x"]).paint.coats == 9


def test_save_and_load_give_an_equal_configuration(tmp_path):
    house = House(out=tmp_path / "x", shapes={"a": Square(side_m=2)}, floor=3)
    save(house, tmp_path / "saved.yaml")
    assert load(House, ["--config", str(tmp_path / "saved.yaml")]) == house
    assert from_dict(House, to_dict(house)) == house


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paint: {coat: 2}", "unknown option 'coat'; did you mean coats? one of: coats"),
        ("pant: 3", "unknown option 'pant'; did you mean paint? one of: out, shapes, paint, floor"),
        ("paint: {coats: many}", "bad.yaml: paint.coats: expected a whole number, found 'many'"),
        ("shapes: {a: {class_path: Circle}}", "unknown shape 'Circle'; one of: Square"),
        ("shapes: {a: {class_path: os.path.join}}", "unknown shape 'os.path.join'"),
        (
            "shapes: {a: {class_path: Square, init_args: {side: 1}}}",
            "unknown option 'side'; did you mean side_m? one of: side_m",
        ),
        ("shapes: {a: {class_path: Square, init_args: {side_m: -1}}}", "side_m: expected more than 0, found -1"),
        ("- just\n- a list", "expected options"),
        ("a: [", "not valid YAML"),
        ("floor: cellar", "bad.yaml: floor: expected a whole number or none, found 'cellar'"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, text, message):
    path = write(tmp_path, "bad.yaml", text)
    with pytest.raises(UserError) as caught:
        load(House, ["--config", path, "--out", "x"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--out", "x", "--paint.coat", "2"],
            "--paint.coat: unknown option 'coat'; did you mean --paint.coats? one of: coats",
        ),
        (["--out", "x", "--paint.coats", "x"], "--paint.coats: expected a whole number, found 'x'"),
        (["--out", "x", "--shapes.a.class_path", "subprocess.Popen"], "unknown shape 'subprocess.Popen'"),
        (["--out", "x", "--shapes.a", "subprocess.Popen"], "unknown shape 'subprocess.Popen'"),
        (["--out", "x", "--shapes", "{a: {class_path: subprocess.Popen}}"], "unknown shape 'subprocess.Popen'"),
        (["--config", "no/such.yaml", "--out", "x"], "no/such.yaml: cannot read this configuration file"),
        (["--paint.coats", "2"], "out"),
        (["--out", ""], "--out: expected a path, found an empty one; give one, or leave the option out"),
        (["--out="], "--out: expected a path, found an empty one; give one, or leave the option out"),
    ],
)
def test_words_are_checked_like_files(words, message):
    with pytest.raises(UserError) as caught:
        load(House, words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_in_a_nested_file_is_checked_too(tmp_path):
    write(tmp_path, "shape.yaml", "class_path: shutil.rmtree\n")
    path = write(tmp_path, "a.yaml", "shapes: {a: shape.yaml}\n")
    with pytest.raises(UserError, match=r"unknown shape 'shutil\.rmtree'"):
        load(House, ["--config", path, "--out", "x"])


def test_python_objects_in_yaml_are_not_built(tmp_path):
    path = write(tmp_path, "a.yaml", "paint: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load(House, ["--config", path, "--out", "x"])


def test_the_package_is_installed_with_its_version():
    from hms_dist import __version__

    assert importlib.metadata.version("hms-dist") == __version__


def test_the_one_thing_a_command_needs_may_be_given_without_its_name():
    assert with_subject(House, ["here", "--floor", "2"]) == ["--out=here", "--floor", "2"]
    for words in (["--out", "here"], [], ["--floor=2"]):
        assert with_subject(House, words) == words
    assert with_subject(Paint, ["red"]) == ["red"], "nothing is needed: nothing to stand for"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Holds paint, or none."""

    litres: int | None = None
    """How much."""
    state: Literal["open", "shut"] | None = None
    """Of the lid."""
    inner: "Bucket | None" = None
    """One within."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--litres", "many"], "--litres: expected a whole number or null, found 'many'"),
        (["--state", "ajar"], "--state: expected one of open, shut or null, found 'ajar'"),
        (["--inner.litres", "many"], "--inner.litres: expected a whole number or null, found 'many'"),
        (["--inner.state=ajar"], "--inner.state: expected one of open, shut or null, found 'ajar'"),
        (["--inner", "{state: ajar}"], "--inner.state: expected one of open, shut or null, found 'ajar'"),
        (["--inner", "{inner: 5}"], "--inner.inner: expected options or null, found 5"),
    ],
)
def test_an_option_of_several_types_names_what_it_takes(words, message):
    with pytest.raises(UserError) as caught:
        load(Bucket, words)
    assert str(caught.value) == message


TYPES = (
    bool, int, float, str, Path, int | None, str | int, float | Literal["none"], Literal["a", "b"], tuple[int, ...],
    tuple[float, float], tuple[tuple[int, float], ...], dict[str, Any], Mapping[str, float], tuple[Path, ...] | None,
)  # fmt: skip
VALUES = (
    True, 0, 3, 1.5, -1e-4, "a", "none", "3", "1.5", "true", "1e3", "", "x: y", "a: 1", "[1, 2]", "[",
    [], [1], [1, 2], [1.5, 2], ["a"],
    ["3", 4], [[1, 2.5]], [[1.5, 2]], [None], {}, {"a": 1}, {"a": "x"}, {"a": None},
)  # fmt: skip


@pytest.mark.parametrize("target", TYPES, ids=str)
def test_types_are_checked_as_the_parser_checks_them(target):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=target)

    def taken(value):
        try:
            parser.parse_object({"x": value})
        except ArgumentError:
            return False
        return True

    assert [value for value in VALUES if fits(value, target)] == [value for value in VALUES if taken(value)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--photos a 5 --numbers 1 x", "--numbers: expected a list, each a whole number or null, found [1, 'x']"),
        ("--trees some", "--trees: expected a list, each a whole number or one of all, none, found ['some']"),
        ("--lamps 5", "--lamps: expected names, each with a list, each a whole number, found 5"),
    ],
)
def test_what_a_list_takes_is_named(words, message):
    with pytest.raises(UserError) as caught:
        load(Street, words.split())
    assert str(caught.value) == message


def test_missing_options_are_named_with_the_way_to_give_them():
    with pytest.raises(UserError) as missing:
        load(TrainConfig, ["--config", "small", "--shards", "a", "--out", "b"])
    assert str(missing.value) == (
        "required and not given: --canvas.height, --canvas.width, --canvas.placements; give them on the command line, "
        "or by --config a recipe that has them (hms-dist recipes)"
    )


def test_a_missing_option_lists_its_words():
    with pytest.raises(UserError, match=r"^required and not given: --shell \(one of bash, zsh\); give "):
        load(Completion, [])


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Posts and a gate."""

    posts: int = 2
    """Number of posts."""
    gates: tuple[str, ...] = ()
    """Names of its gates."""
    paints: tuple[Paint, ...] = ()
    """Paints, one over another."""

    def __post_init__(self) -> None:
        if self.posts < 2:
            raise ValueError(f"posts: expected at least 2, found {self.posts}")
        if "" in self.gates:
            raise ValueError("gates: expected names")
        if len(self.gates) > self.posts:
            raise ValueError("more gates than posts")


@dataclass(frozen=True, kw_only=True)
class Yard:
    """Two fences and one within."""

    front: Fence = field(default_factory=Fence)
    """To the street."""
    back: Fence = field(default_factory=Fence)
    """To the field."""
    posts: int = 4
    """Number of posts in store."""

    def __post_init__(self) -> None:
        if self.posts < 0:
            raise ValueError(f"posts: expected at least 0, found {self.posts}")


@dataclass(frozen=True, kw_only=True)
class Farm:
    """A yard."""

    yard: Yard = field(default_factory=Yard)
    """In the middle."""


@pytest.mark.parametrize(
    ("cls", "words", "message"),
    [
        (Yard, ["--front.posts", "1"], "front.posts: expected at least 2, found 1"),
        (Yard, ["--back.posts", "1"], "back.posts: expected at least 2, found 1"),
        (Yard, ["--back.gates", "['']"], "back.gates: expected names"),
        (Yard, ["--back.gates", "[a, b, c]"], "more gates than posts"),
        (Yard, ["--posts", "-1"], "posts: expected at least 0, found -1"),
        (Farm, ["--yard.posts", "-1"], "yard.posts: expected at least 0, found -1"),
        (Farm, ["--yard.back.posts", "0"], "yard.back.posts: expected at least 2, found 0"),
        (
            Fence,
            ["--paints", "red"],
            "--paints: expected options or a .yaml file of them, found 'red'; one of: coats, glossy",
        ),
    ],
)
def test_a_refused_option_is_named_with_its_group(cls, words, message):
    with pytest.raises(UserError) as caught:
        load(cls, words)
    assert str(caught.value) == message


def test_a_refused_option_of_a_file_is_named_with_its_group(tmp_path):
    path = write(tmp_path, "farm.yaml", "yard: {front: {posts: 3}, back: {posts: 1}}\n")
    with pytest.raises(UserError, match=r"^yard\.back\.posts: expected at least 2, found 1$"):
        load(Farm, ["--config", path])


def test_an_empty_path_in_a_file_is_refused(tmp_path):
    path = write(tmp_path, "house.yaml", "out: ''\n")
    with pytest.raises(UserError, match=r"house.yaml: out: expected a path, found an empty one"):
        load(House, ["--config", path])
