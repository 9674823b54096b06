"""Files stored by commit 5e6f9d5 are read, verified, compared equal, resumed and predicted from."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_dist.canvas.options import CanvasConfig
from hms_dist.cli import main
from hms_dist.config.load import from_stored, to_dict
from hms_dist.config.versions import FORMAT_VERSION, as_version_1, bare_name, comparable_class, with_bare_names
from hms_dist.core.errors import UserError
from hms_dist.core.files import canonical_json, digest, write_json
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.labels.table import read_labels
from hms_dist.panels.panel import Panel
from hms_dist.rendering.find_faults import find_faults
from hms_dist.rendering.render import RenderConfig
from hms_dist.results.lineage import read_sources
from hms_dist.results.predictions import read_predictions
from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.metadata_writer import write_manifest
from hms_dist.stream.read.reader import ShardReader
from hms_dist.train.data.run_canvas import kept_canvas, read_canvas, read_recipe
from hms_dist.train.data.run_data import check_recipes, open_shards, panel_recipes
from hms_dist.train.folder.checkpoint import read_meta
from hms_dist.train.folder.run_folder import stage_names
from hms_dist.train.stages import check_folders, check_products

RENDER = ("render", "--config", "render.yaml", "--data", "recordings", "--out")
TABLES = ("--predictions", "oof_a.parquet", "oof_b.parquet")


def texts(folder):
    """The text files of a folder that programs read, by path; logs and the command that ran aside."""
    names = ("*.yaml", "*.json")
    paths = [path for name in names for path in folder.rglob(name) if path.name != "environment.json"]
    assert paths
    return {path: path.read_text() for path in paths}


def moved(text):
    """A stored text after its modules have moved to where nothing is."""
    found = text.replace("hms_dist.images.", "no_such.panels.").replace("hms_dist.canvas.", "no_such.canvas.")
    assert found != text
    return found


def assert_close(found, expected):
    """Two tables of predictions of the same rows."""
    found, expected = (table.sort_values("key").reset_index(drop=True) for table in (found, expected))
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=0, atol=1e-5)


class TestSets:
    """Shard sets."""

    def test_it_is_whole(self, folder, run_command):
        assert list(find_faults(folder / "set", labels=read_labels(folder / "recordings/train.csv"))) == []
        run_command("verify", "--shards", "set", "--data", "recordings")

    def test_rendering_it_again_finds_nothing_to_do(self, folder, run_command, caplog):
        before = {path: path.read_bytes() for path in (folder / "set").iterdir()}
        run_command(*RENDER, "set")
        assert "set is complete already: nothing to do" in caplog.text
        assert {path: path.read_bytes() for path in (folder / "set").iterdir()} == before

    def test_a_set_whose_panels_have_moved_is_the_same_set(self, folder, run_command, caplog):
        manifest = read_manifest(folder / "set")
        write_manifest(
            folder / "set", replace(manifest, render_config=json.loads(moved(json.dumps(manifest.render_config))))
        )
        assert list(find_faults(folder / "set")) == []
        run_command(*RENDER, "set")
        assert "nothing to do" in caplog.text

    def test_a_set_from_before_a_field_of_its_panels_is_the_same_set(self, folder, run_command, caplog):
        value = json.loads((folder / "set/manifest.json").read_bytes())
        for spec in value["panels"].values():
            del spec["rows_hz" if spec["traces"] else "traces"]
        del value["digest"]
        for name in ("manifest.json", "manifest.copy.json"):
            write_json(folder / "set" / name, {**value, "digest": digest(value)})
        assert list(find_faults(folder / "set")) == []
        run_command(*RENDER, "set")
        assert "nothing to do" in caplog.text

    def test_another_option_is_another_set(self, folder, capsys):
        assert main([*RENDER, "set", "--samples_per_shard", "7"]) == 2
        assert "made from other input (render_config.samples_per_shard: 7, was 6); --rebuild" in capsys.readouterr().err

    def test_an_unfinished_set_continues_with_its_finished_shards(self, folder, run_command, same_machine):
        kept = folder / "unfinished_set/shard-000002.tar"
        stamp = kept.stat().st_mtime_ns, kept.stat().st_ino
        run_command(*RENDER, "unfinished_set")
        assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == stamp
        assert list(find_faults(folder / "unfinished_set", labels=read_labels(folder / "recordings/train.csv"))) == []
        (before, index), (now, found) = open_set(folder / "set"), open_set(folder / "unfinished_set")
        assert from_stored(RenderConfig, now.render_config, "") == from_stored(RenderConfig, before.render_config, "")
        rows, panels = np.arange(len(index)), list(before.panels)
        expected = ShardReader(folder / "set", before, index, panels).read(rows)
        values = ShardReader(folder / "unfinished_set", now, found, panels).read(rows)
        for name in panels:
            np.testing.assert_array_equal(values[name], expected[name])
        if same_machine:
            assert now.fingerprint == before.fingerprint
        assert "hms_dist." not in "".join(texts(folder / "unfinished_set").values())

    def test_finish_completes_a_set_whose_shards_are_all_there(self, folder, run_command):
        run_command(*RENDER, "unfinished_set", "--job", "1/2")
        assert list(find_faults(folder / "unfinished_set")) == []


@pytest.mark.parametrize("number", range(7))  # those that commit had; later ones have no earlier form
def test_a_panel_compares_equal_to_what_it_was(folder, number):
    """An option that a panel has gained since needs an entry in `config_versions.ABSENT`, to be added there."""
    before = json.loads((folder / "panels.json").read_text())[number]
    (panel,) = (each for each in Panel.__subclasses__() if each.__name__ == bare_name(before["class_path"]))
    now = to_dict(from_stored(panel, before["init_args"], "panels.json"))
    assert canonical_json(comparable_class(now, FORMAT_VERSION)) == canonical_json(comparable_class(before, 1))
    assert as_version_1(comparable_class(now, FORMAT_VERSION)) == comparable_class(before, 1) | {
        "class_path": before["class_path"]
    }


class TestRuns:
    """Run folders."""

    @pytest.mark.parametrize(
        ("out", "files"), [("finished_run", ()), ("killed_run", ("killed.yaml",)), ("staged_run", ("staged.yaml",))]
    )
    def test_the_same_command_finds_its_run(self, folder, config, out, files):
        check_folders(config(out, *files))
        for path, text in texts(folder / out).items():
            if "hms_dist." in text:
                path.write_text(moved(text))
        check_folders(config(out, *files))

    def test_it_is_read_without_options_that_came_later(self, folder, config):
        path = folder / "finished_run/config.yaml"
        values = yaml.safe_load(path.read_text())
        for name in ("max_replaced", "locality", "left_out_folds", "freeze"):
            del values[name]
        path.write_text(yaml.safe_dump(values))
        check_folders(config("finished_run"))
        check_products(config("finished_run"))

    def test_a_finished_run_is_done(self, config):
        check_products(config("finished_run"))

    def test_its_canvas_and_recipe_are_those_of_its_set(self, folder, config):
        assert read_canvas(folder / "finished_run") == config("finished_run").canvas
        recipe = from_stored(RenderConfig, read_recipe(folder / "finished_run"), "render.yaml")
        assert recipe == from_stored(RenderConfig, read_manifest(folder / "set").render_config, "")

    def test_its_panels_are_those_of_its_set_in_every_form(self, folder):
        trained = read_meta(folder / "finished_run/best")["panels"]
        canvas = read_canvas(folder / "finished_run")
        manifest = read_manifest(folder / "set")
        for plain in (manifest.render_config, with_bare_names(manifest.render_config)):
            write_manifest(folder / "set", replace(manifest, render_config=plain))
            shards = open_shards("set", canvas, flips=False)
            check_recipes("set", shards, trained)
            check_recipes("set", shards, panel_recipes(shards))

    def test_data_wide_statistics_are_kept(self, folder):
        path = folder / "data_wide_run/statistics.json"
        depends_on = json.loads(path.read_text())["depends_on"]
        canvas = from_stored(CanvasConfig, depends_on["canvas"], str(path))
        assert kept_canvas(path, {**depends_on, "canvas": canvas}) == read_canvas(folder / "data_wide_run")
        assert kept_canvas(path, {**depends_on, "canvas": canvas, "shards": "another"}) is None

    def test_a_killed_run_that_trained_by_groups_cannot_continue_by_rows(self, folder, config, train):
        path = folder / "killed_run/config.yaml"
        before = path.read_text()
        with pytest.raises(UserError, match=r"killed_run: begun by an earlier version, which trained by groups"):
            train(config("killed_run", "killed.yaml"))
        assert path.read_text() == before

    @pytest.mark.slow
    def test_a_killed_run_with_stages_continues(self, folder, config, train):
        before = (folder / "staged_run/stages/first/best/model.safetensors").stat().st_mtime_ns
        train(config("staged_run", "staged.yaml"))
        assert stage_names(folder / "staged_run") == ["first", "second"]
        assert (folder / "staged_run/stages/first/best/model.safetensors").stat().st_mtime_ns == before
        assert json.loads((folder / "staged_run/status.json").read_text())["state"] == "finished"
        train(config("staged_run", "staged.yaml"))


class TestPredictions:
    """Predictions, and what is fitted to them."""

    def test_a_run_predicts_what_it_predicted(self, folder, run_command):
        run_command("predict", "--run", "finished_run", "--shards", "set", "--tta", "flip", "--out", "again.parquet")
        assert_close(read_predictions(folder / "again.parquet"), read_predictions(folder / "predicted.parquet"))
        assert read_sources(folder / "again.parquet") == read_sources(folder / "predicted.parquet")

    def test_a_killed_prediction_ends_as_one_that_was_not(self, folder, run_command):
        """Its parts carry no digest, so they are computed again."""
        for out in ("unfinished.parquet", "fresh.parquet"):
            run_command("predict", "--run", "finished_run", "--shards", "set", "--out", out)
        assert not (folder / "unfinished.parquet.parts").exists()
        assert (folder / "unfinished.parquet").read_bytes() == (folder / "fresh.parquet").read_bytes()

    def test_straight_from_recordings_too(self, folder, run_command):
        given = ("--data", "recordings", "--split", "train", "--tta", "flip", "--out", "again.parquet")
        run_command("predict", "--run", "finished_run", *given)
        names = ["key", *CLASSES]
        found, expected = (read_predictions(folder / name)[names] for name in ("again.parquet", "predicted.parquet"))
        assert_close(found, expected)

    def test_the_runs_of_a_grid_are_finished_and_joined(self, folder, run_command, capsys):
        recipes = "[{name: a, configs: [train.yaml]}, {name: b, configs: [train.yaml], options: {optim.lr: 0.01}}]"
        run_command("grid", "--shards", "set", "--recipes", recipes, "--out", "grid/{recipe}/{fold}", "--list")
        assert "all finished" in capsys.readouterr().out
        run_command("oof", "--runs", *(f"grid/a/{fold}" for fold in range(3)), "--out", "again.parquet")
        assert_close(read_predictions(folder / "again.parquet"), read_predictions(folder / "oof_a.parquet"))
        assert read_sources(folder / "again.parquet") == read_sources(folder / "oof_a.parquet")

    def test_they_are_scored(self, run_command, capsys):
        run_command("score", "--predictions", "oof_a.parquet", "--labels", "set")
        run_command("score", "--predictions", "finished_run/predictions.parquet", "--labels", "set")
        assert capsys.readouterr().out

    def test_an_ensemble_is_applied(self, folder, run_command):
        run_command("ensemble", *TABLES, "--weights", "ensemble.json", "--out", "again.parquet")
        assert_close(read_predictions(folder / "again.parquet"), read_predictions(folder / "ensemble_applied.parquet"))

    def test_a_stack_is_applied(self, folder, run_command):
        run_command("stack", *TABLES, "--apply", "stack", "--out", "again.parquet")
        assert_close(read_predictions(folder / "again.parquet"), read_predictions(folder / "stack_applied.parquet"))


@pytest.mark.slow
def test_a_killed_search_continues(folder, run_command):
    space = (
        "{lr: {sets: optim.lr, low: 0.001, high: 0.01, log: true}, "
        "shift: {sets: canvas.placements.0.normalise.init_args.shift, low: 70, high: 90}}"
    )
    before = pd.read_csv(folder / "study/trials.csv")
    words = ("--configs", "train.yaml", "--space", space, "--folds", "0", "--options", "{epochs: 1}")
    run_command("search", "--shards", "set", *words, "--num_trials", "2", "--out", "study")
    table = pd.read_csv(folder / "study/trials.csv")
    pd.testing.assert_frame_equal(table.head(1), before)
    assert table["state"].tolist() == ["complete", "complete"]
    assert "hms_dist." not in (folder / "study/search.json").read_text() + (folder / "study/best.yaml").read_text()
