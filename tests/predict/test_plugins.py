"""Plug-ins of docs/plugins.md: rendered, trained and predicted with; refused in one line without their option."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import hms_dist
from hms_dist.cli import main
from hms_dist.cluster.pipeline_spec import PipelineStep
from hms_dist.config.load import load
from hms_dist.core import plugins
from hms_dist.core.errors import UserError
from hms_dist.core.plugins import check_plugins, plugin_words, split_plugins
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.model.loss import LOSSES
from hms_dist.rendering.render import Render
from hms_dist.stream.rows.selections import SELECTIONS

PAGE = Path(__file__).parents[2] / "docs/plugins.md"
ALL = ("my_panel", "my_augmentation", "my_loss", "my_selection", "my_model")
RENDER = {"panels": {"activity": {"class_path": "Activity", "init_args": {"largest_uv": 400}}}}


@pytest.fixture(scope="module", autouse=True)
def _registries():
    """Leave the registries without the plug-ins to the tests of other files in this process."""
    kept = [(registry, dict(registry)) for registry in (LOSSES, SELECTIONS)]
    yield
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)
    for name in ALL:
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the modules and the recipe of the page; none is loaded before or after the test."""
    code = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert tuple(name for name, _ in code) == ALL
    for name, text in code:
        (tmp_path / f"{name}.py").write_text(text)
    render, recipe = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    options = {"num_folds": 3, "epochs": 1, "global_batch": 4, "group_size": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**recipe, **options}))
    assert render == {"panels": {"activity": {"class_path": "Activity"}}}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump(RENDER))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_loaded", {})
    return tmp_path


@pytest.fixture
def without(monkeypatch, capsys, forget):
    """Runs a command as a process that does not name the plug-ins; its exit code and message."""

    def run(*words):
        with monkeypatch.context() as patch:
            patch.setattr(plugins, "_loaded", {})
            capsys.readouterr()
            code = main([str(word) for word in words])
            forget()
            return code, capsys.readouterr().err.splitlines()[-1]

    return run


def test_the_plug_ins_of_the_page_from_recordings_to_predictions(folder, recordings, without, forget):
    data = ["--data", recordings, "--out", "set"]
    render = ["render", "--config", "panels.yaml", *data]
    train = ["train", "--config", "./mine.yaml", "--shards", "set", "--out", "run"]
    predict = ["predict", "--run", "run", "--shards", "set", "--out", "a.parquet", "--tta", "flip"]

    code, line = without(*render)
    assert code == 2
    assert "unknown panel 'Activity'" in line

    assert main([*map(str, render), "--plugins", "my_panel"]) == 0
    assert main([*map(str, train), "--plugins", *ALL]) == 0
    forget()
    assert main([*predict, "--plugins", *ALL]) == 0
    forget()
    hms_dist.load_plugins(*ALL)
    table = hms_dist.load_run("run").predict("set", tta=["flip"])
    assert np.isfinite(table[["seizure", "other"]].to_numpy()).all()
    hms_dist.load_run("run").export("exported")

    manifest = json.loads(Path("set/manifest.json").read_text())
    assert manifest["render_config"]["plugins"] == {"my_panel": "1.0"}
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    assert stored["plugins"] == dict.fromkeys(ALL, "1.0")
    assert stored["loss"]["name"] == "root_kl"
    assert json.loads(Path("run/environment.json").read_text())["plugins"] == dict.fromkeys(ALL, "1.0")
    assert json.loads(Path("exported/model_card.json").read_text())["snippet"][0].endswith(", ".join(ALL))

    expected = (
        "made with the plug-in my_panel, not loaded here; add --plugins my_panel (in Python hms_dist.load_plugins)"
    )
    for words in (
        ["verify", "--shards", "set"],
        ["show", "--shards", "set", "--out", "a.png"],
        ["train", "--config", "demo", "--shards", "set", "--out", "other"],
        render,
    ):
        code, line = without(*words)
        assert (code, line.partition("manifest.json: ")[2]) == (2, expected), words[0]
    for words in (predict, ["train", "--config", "run/config.yaml", "--shards", "set", "--out", "run"]):
        code, line = without(*words)
        assert code == 2
        assert f"config.yaml: made with the plug-ins {', '.join(ALL)}, not loaded" in line
        assert f"--plugins {' '.join(ALL)}" in line
    code, line = without(*predict, "--plugins", "my_panel")
    assert "my_panel" not in line.partition("add ")[2]


def test_another_version_of_a_panel_is_another_recipe(folder, recordings, capsys, monkeypatch):
    words = ["render", "--config", "panels.yaml", "--data", str(recordings), "--out", "set", "--plugins", "my_panel"]
    assert main(words) == 0
    assert main(words) == 0
    monkeypatch.setitem(plugins._loaded, "my_panel", "1.1")
    assert main(words) == 2
    assert "render_config.plugins.my_panel: 1.1, was 1.0" in capsys.readouterr().err


@pytest.mark.slow
def test_worker_processes_load_them(folder, recordings):
    words = ["--config", "panels.yaml", "--data", str(recordings), "--out", "set", "--samples_per_shard", "24"]
    assert main(["render", *words, "--workers", "2", "--plugins", "my_panel"]) == 0


def test_no_configuration_names_a_plug_in(folder, capsys):
    for content in ({"plugins": ["my_loss"], **RENDER}, {"format_version": 2, "plugins": {"my_loss": "1"}, **RENDER}):
        Path("evil.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=r"unknown option 'plugins'|add --plugins my_loss"):
            load(Render, ["--config", "evil.yaml", "--data", "d", "--out", "o"])
    with pytest.raises(UserError, match="unknown panel"):
        load(Render, ["--panels", '{"a": {"class_path": "my_panel.Activity2"}}', "--data", "d", "--out", "o"])
    with pytest.raises(ValueError, match="command line alone"):
        PipelineStep(name="a", command="render --plugins my_loss", makes="o")
    for recipe in ({"options": {"plugins": "my_loss"}}, {"configs": ["--plugins=my_loss"]}):
        recipes = json.dumps([{"name": "a", "configs": ["demo"], **recipe}])
        assert main(["grid", "--recipes", recipes, "--shards", "s", "--out", "{seed}/{fold}"]) == 2
        assert "unknown option 'plugins'" in capsys.readouterr().err
    assert not plugins.loaded_plugins()
    assert "my_loss" not in sys.modules or sys.modules["my_loss"].__file__ != str(folder / "my_loss.py")


def test_started_commands_get_them(folder):
    hms_dist.load_plugins("my_selection")
    assert plugin_words() == ["--plugins", "my_selection"]
    assert LaunchConfig().command(["--fold", "0"])[-4:] == ["--fold", "0", "--plugins", "my_selection"]


def test_words():
    assert split_plugins(["--a", "1", "--plugins", "b", "c.d", "--e"]) == (["b", "c.d"], ["--a", "1", "--e"])
    assert split_plugins(["--plugins=b,c", "--e=1"]) == (["b", "c"], ["--e=1"])
    assert split_plugins(["x"]) == ([], ["x"])


MISTAKES = {
    "no module": (["no_such_plugin"], "no module 'no_such_plugin' in the current folder"),
    "no name": ([], "expected import paths of modules"),
    "a path": (["./my_panel.py"], "expected the import path of a module, such as my_panels, found './my_panel.py'"),
    "a fault in it": (["faulty"], "faulty cannot be imported: ZeroDivisionError: division by zero"),
    "a module that it lacks": (["lacking"], "lacking cannot be imported: ModuleNotFoundError"),
    "a version that is none": (["versioned"], "versioned.__version__: expected text such as '1.0', found '3'"),
    "a taken name": (["taken"], "ValueError: kl: there is a loss of this name"),
    "a taken class": (
        ["class_taken"],
        "two classes are named 'Multitaper', in class_taken and hms_dist.panels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake, folder, capsys):
    Path("faulty.py").write_text("1 / 0\n")
    Path("lacking.py").write_text("import no_such_package_at_all\n")
    Path("versioned.py").write_text("__version__ = 3\n")
    Path("taken.py").write_text(
        "from hms_dist.model.loss import LOSSES, register_loss\nregister_loss('kl', LOSSES['kl'])"
    )
    Path("class_taken.py").write_text(
        "from hms_dist.panels.multitaper import Multitaper as M\nclass Multitaper(M): ...\n"
    )
    names, words = MISTAKES[mistake]
    given = ["--panels", '{"a": {"class_path": "Multitaper"}}', "--data", "d", "--out", "o"]
    try:
        assert main(["render", *given, "--plugins", *names]) == 2
        assert words in capsys.readouterr().err
    finally:
        if module := sys.modules.pop("class_taken", None):
            module.Multitaper.__bases__[0].__subclasses__()
            module.Multitaper.__name__ = "NotMultitaper"  # classes live until they are collected


@pytest.mark.parametrize("record", [3, [], {"a b": "1"}, {"a": 1}, {"a": "1\n2"}, {str(n): "1" for n in range(99)}])
def test_a_damaged_record_is_one_line(record):
    with pytest.raises(UserError, match=r"f: plugins: expected names of modules with versions"):
        check_plugins(record, "f")
