"""Stored configurations: what they hold, and what those of earlier versions and of moved code mean."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from hms_dist.config import versions as config_versions
from hms_dist.config.load import from_stored, load, save, stored
from hms_dist.config.versions import as_version_1, comparable_class, with_bare_names
from hms_dist.core.errors import UserError
from hms_dist.model.freeze import FreezeConfig
from hms_dist.train.optimise.optim import OptimConfig
from hms_dist.train.optimise.schedules import ScheduleConfig
from hms_dist.train.settings import TrainConfig


class Lens(ABC):
    """Something to look through."""

    @abstractmethod
    def width_mm(self) -> float:
        """Millimetres."""


@dataclass(frozen=True, kw_only=True)
class Glass:
    """Material of a lens."""

    clear: bool = True
    """Not coloured."""
    coated: bool = False
    """An option that came later."""


@dataclass(frozen=True, kw_only=True)
class Round(Lens):
    """A round lens."""

    radius_mm: float = 5.0
    """Half its width."""
    glass: Glass = field(default_factory=Glass)
    """Its material."""
    tilt: float = 0.0
    """An option that came later."""

    def width_mm(self) -> float:
        return 2 * self.radius_mm


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Lenses."""

    out: Path
    """Where its pictures go."""
    lenses: dict[str, Lens] = field(default_factory=dict)
    """Lenses by name."""
    case: Glass | None = None
    """Its mount."""
    rate_hz: int = 4
    """A default that changed: it was 2."""


CAMERA = Camera(out=Path("1e5"), lenses={"long": Round(radius_mm=1e-5)}, rate_hz=3)
OLD_LENS = {"class_path": "no_such.module.Round", "init_args": {"radius_mm": 1e-5, "glass": {"clear": True}}}
OLD = {"out": "x", "lenses": {"long": OLD_LENS}, "case": None, "rate_hz": 3}
"""The same camera, as an earlier version stored it: without the options that came later, from a module that is gone."""


@pytest.fixture
def absent(monkeypatch):
    """Sets the table of what absent options mean."""

    def fill(table):
        monkeypatch.setattr(config_versions, "ABSENT", table)

    return fill


def test_it_names_classes_and_its_version_alone(tmp_path):
    save(CAMERA, tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text()
    assert yaml.safe_load(text) == stored(CAMERA)
    assert stored(CAMERA)["format_version"] == config_versions.FORMAT_VERSION
    assert stored(CAMERA)["lenses"]["long"]["class_path"] == "Round"
    assert __name__ not in text
    assert from_stored(Camera, yaml.safe_load(text), "a.yaml") == CAMERA
    assert load(Camera, ["--config", str(tmp_path / "a.yaml")]) == CAMERA


def test_an_older_file_means_the_same_without_its_module_and_without_later_options(tmp_path):
    expected = replace(CAMERA, out=Path("x"))
    assert from_stored(Camera, OLD, "a.yaml") == expected
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(OLD))
    assert load(Camera, ["--config", str(tmp_path / "a.yaml")]) == expected
    assert not [name for name in sys.modules if name.startswith("no_such")]


@pytest.mark.parametrize("words", [["--lenses", "{long: LENS}"], ["--lenses={long: LENS}"], ["--lenses.long=LENS"]])
def test_words_and_parts_take_old_paths_too(tmp_path, words):
    (tmp_path / "lens.yaml").write_text(yaml.safe_dump(OLD_LENS))
    given = [word.replace("LENS", str(tmp_path / "lens.yaml")) for word in words]
    assert load(Camera, ["--out", "x", "--rate_hz", "3", *given]) == replace(CAMERA, out=Path("x"))
    inline = [word.replace("LENS", "{class_path: no_such.Round, init_args: {radius_mm: 1e-5}}") for word in words]
    assert load(Camera, ["--out", "x", "--rate_hz", "3", *inline]) == replace(CAMERA, out=Path("x"))


def test_a_stored_part_fills_a_part(tmp_path):
    save(Glass(clear=False), tmp_path / "glass.yaml")
    assert load(Camera, ["--out", "x", "--case", str(tmp_path / "glass.yaml")]).case == Glass(clear=False)


def test_an_option_that_a_file_lacks_has_the_value_of_its_version(absent, tmp_path):
    absent({1: {"Camera": {"rate_hz": 2}, "Glass": {"coated": True}}, 2: {"Camera": {"rate_hz": 8}}})
    glass = {"clear": True}
    lens = {"class_path": "Round", "init_args": {"glass": glass}}
    for version, rate_hz, coated in ((1, 2, True), (2, 8, False)):
        values = {"format_version": version, "out": "x", "lenses": {"a": lens}, "case": glass}
        found = from_stored(Camera, values, "a.yaml")
        assert found.rate_hz == rate_hz
        assert [found.case.coated, found.lenses["a"].glass.coated] == [coated, coated]
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
        assert load(Camera, ["--config", str(tmp_path / "a.yaml")]) == found
    assert from_stored(Camera, {"out": "x", "rate_hz": 5}, "a.yaml").rate_hz == 5, "it does not lack it"
    (tmp_path / "own.yaml").write_text("out: x")
    assert load(Camera, ["--config", str(tmp_path / "own.yaml")]).rate_hz == 4, "a user's own file is not a stored one"


def test_an_option_that_was_removed_is_read_where_it_changed_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(config_versions, "REMOVED", {"Camera": {"zoom": (1.0, None)}, "Glass": {"tint": ([],)}})
    glass = {"clear": True, "tint": []}
    lens = {"class_path": "Round", "init_args": {"glass": glass}}
    values = {"out": "x", "lenses": {"a": lens}, "case": glass, "zoom": 1.0}
    expected = Camera(out=Path("x"), lenses={"a": Round()}, case=Glass())
    assert from_stored(Camera, values, "a.yaml") == expected
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({**values, "zoom": None}))
    assert load(Camera, ["--config", str(path)]) == expected
    line = "the option '{}' was removed; expected {}, found {}; use the version of hms-dist that wrote the file, or"
    for changed, words in (
        ({"zoom": 2.0}, line.format("zoom", "1.0 or null", "2.0")),
        ({"case": {"tint": ["red"]}}, line.format("tint", r"\[\]", r"\['red'\]")),
    ):
        with pytest.raises(UserError, match=rf"^a\.yaml: {words}"):
            from_stored(Camera, {**values, **changed}, "a.yaml")
        path.write_text(yaml.safe_dump({**values, **changed}))
        with pytest.raises(UserError, match=words):
            load(Camera, ["--config", str(path)])
    for word in ("--zoom=1.0", "--case={tint: []}"):
        with pytest.raises(UserError, match=r"^--(zoom|case): unknown option '(zoom|tint)'"):
            load(Camera, ["--out", "x", word])


def test_removed_options_are_gone():
    for name, options in config_versions.REMOVED.items():
        (found,) = (one for one in (FreezeConfig, OptimConfig, ScheduleConfig, TrainConfig) if one.__name__ == name)
        assert not options.keys() & found.__dataclass_fields__.keys()


def test_a_class_compares_equal_across_versions_and_added_options(absent):
    absent({2: {"Round": {"tilt": 0.0, "glass.coated": False}}})
    now = stored(CAMERA)["lenses"]["long"]
    assert comparable_class(now, 2) == comparable_class(OLD_LENS, 1)
    tilted = stored(Camera(out=Path(), lenses={"long": Round(radius_mm=1e-5, tilt=1.0)}))["lenses"]["long"]
    assert comparable_class(tilted, 2) != comparable_class(OLD_LENS, 1)


def test_a_default_that_changed_is_not_taken_for_that_of_older_files(absent):
    absent({1: {"Round": {"tilt": 1.0}}, 2: {"Round": {"tilt": 0.0}}})
    old, new = {"class_path": "a.Round", "init_args": {}}, {"class_path": "Round", "init_args": {}}
    assert comparable_class(old, 1) != comparable_class(new, 2)
    assert comparable_class(old, 1) == comparable_class({**new, "init_args": {"tilt": 1.0}}, 2)


def test_what_version_1_took_digests_over_can_be_rebuilt():
    old = {"class_path": "hms_dist.images.traces.Traces", "init_args": {"flipped": True}}
    assert as_version_1(comparable_class(old, 1)) == old
    assert with_bare_names({"panels": {"a": old}}) == {
        "format_version": 1,
        "panels": {"a": {"class_path": "Traces", "init_args": {"flipped": True}}},
    }


@pytest.mark.parametrize("version", [3, 0, "2", True, None, 1.0])
def test_another_version_is_refused(tmp_path, version):
    message = rf"a\.yaml: expected format_version 1 to 2, found {version!r}; use the version of hms-dist that wrote"
    with pytest.raises(UserError, match=message):
        from_stored(Camera, {**stored(CAMERA), "format_version": version}, "a.yaml")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**stored(CAMERA), "format_version": version}))
    with pytest.raises(UserError, match=message):
        load(Camera, ["--config", str(tmp_path / "a.yaml")])
