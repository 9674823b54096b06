"""Each mistake in the first table of docs/errors.md gives the line of the table."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.commands.table import COMMANDS
from hms_dist.core.files import digest, indented_json, sealed_text
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.shards.index import read_index

ROW = re.compile(r"^\| ([^|]+?) \| `(.+)` \|$", re.MULTILINE)
TEXT = (Path(__file__).parents[1] / "docs/errors.md").read_text()
SUBMISSION = ",".join(["eeg_id", *HMS.vote_columns])
TABLE = dict(ROW.findall(TEXT[: TEXT.index("## From one run to many")]))


class Sandbox:
    """A folder with one EEG to corrupt, a good shard set, and the commands."""

    def __init__(self, folder, recordings, shard_set, small_file):
        self.folder, self.shards, self.small_file = folder, shard_set, small_file
        table = pd.read_csv(recordings / "train.csv")
        rows = table[table["eeg_id"] == table["eeg_id"].value_counts().idxmax()].head(2)
        self.data = folder / "data"
        for kind in ("eegs", "spectrograms"):
            (self.data / f"train_{kind}").mkdir(parents=True)
            for number in set(rows[f"{kind[:-1]}_id"]):
                shutil.copy(recordings / f"train_{kind}/{number}.parquet", self.data / f"train_{kind}")
        rows.to_csv(self.data / "train.csv", index=False)
        self.eeg = next((self.data / "train_eegs").iterdir())

    def render(self, *words):
        return main(["render", "--data", str(self.data), "--out", str(self.folder / "set"), *words])

    def subset(self, rule, *words):
        return main(["subset", "--data", str(self.data), "--out", str(self.folder / "sub.csv"), "--rule", rule, *words])

    def table(self, change):
        frame = change(pd.read_csv(self.data / "train.csv", dtype=object))
        frame.to_csv(self.data / "train.csv", index=False)
        return self.render()

    def cell(self, column, value, row=1):
        def change(frame):
            frame.loc[row, column] = value
            return frame

        return self.table(change)

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def train(self, *words):
        given = ["--config", str(self.small_file), "--shards", str(self.shards), "--out", str(self.folder / "run")]
        try:
            return main(["train", *given, *words])
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)

    def copy_of_shards(self):
        self.shards = Path(shutil.copytree(self.shards, self.folder / "copy"))
        return self.shards

    def submission(self, text):
        words = ["--predictions", self.write("s.csv", text), "--labels", str(self.shards)]
        return main(["score", *words])

    def predictions(self, change, *words):
        frame = read_index(self.shards / "index.parquet").frame[["key", "eeg_id", "eeg_sub_id"]].head(5).copy()
        frame["fold"] = 0
        frame[list(CLASSES)] = 1 / 6
        change(frame).to_parquet(self.folder / "p.parquet")
        given = ["--predictions", str(self.folder / "p.parquet"), "--labels", str(self.shards)]
        return main(["score", *given, *map(str, words)])


MISTAKES = {}


def mistake(name):
    def register(function):
        MISTAKES[name] = function
        return function

    return register


def simple(name, function):
    MISTAKES[name] = function


simple("no label table", lambda d: (d.data / "train.csv").unlink() or d.render())
simple("a column of the label table is missing", lambda d: d.table(lambda f: f.drop(columns="lpd_vote")))
simple("a cell is not a number", lambda d: d.cell("lpd_vote", "two"))
simple("a fraction of a vote", lambda d: d.cell("lpd_vote", "0.5"))
simple("a negative vote", lambda d: d.cell("lpd_vote", "-1"))
simple("a row without votes", lambda d: d.table(lambda f: f.assign(**{f"{c}_vote": "0" for c in CLASSES})))
simple("an unknown class", lambda d: d.cell("expert_consensus", "Spike"))
simple("a key twice", lambda d: d.table(lambda f: f.assign(eeg_sub_id="0")))
simple("a parquet file is missing", lambda d: d.eeg.unlink() or d.render())
simple("a parquet file is empty", lambda d: d.eeg.write_bytes(b"") or d.render())
simple("a parquet file is something else", lambda d: bool(d.eeg.write_text("a,b\n1,2\n")) and d.render())
simple(
    "a channel is missing",
    lambda d: pq.write_table(pq.read_table(d.eeg).drop_columns(["Cz"]), d.eeg) or d.render(),
)
simple("an EEG shorter than its window", lambda d: pq.write_table(pq.read_table(d.eeg)[:9999], d.eeg) or d.render())
simple("a class with too few rows for a subset", lambda d: d.subset("balanced", "--rows_per_class", "500"))
simple("a subset that leaves no row", lambda d: d.subset("golden", "--min_votes", "1000"))
simple("an option of another rule", lambda d: d.subset("golden", "--seed", "1"))
simple(
    "another file where a subset is to be written", lambda d: d.write("sub.csv", "a") and d.subset("spectrogram_sum")
)
simple("shards of another recipe in the folder", lambda d: d.render() or d.render("--samples_per_shard", "3"))
simple("an unknown command", lambda d: main(["rander"]))
simple("a repair without the recordings", lambda d: main(["verify", "--shards", str(d.shards), "--repair"]))
simple("an unknown option", lambda d: d.render("--workrs", "2"))
simple("an unknown key in a file", lambda d: d.train("--config", d.write("bad.yaml", "epoch: 3\n")))
simple("a value of the wrong type", lambda d: d.train("--epochs", "many"))
simple(
    "an unknown panel class",
    lambda d: d.render("--config", d.write("bad.yaml", "panels: {a: {class_path: Scalp}}\n")),
)
simple(
    "an option that was removed, in an older file",
    lambda d: d.train("--config", d.write("config.yaml", "optim: {layer_decay: 0.8}\n")),
)
simple(
    "a configuration that a later program stored",
    lambda d: d.train("--config", d.write("a.yaml", "format_version: 3\n")),
)
simple("training without a recipe", lambda d: main(["train"]))
simple("a recipe that is not there", lambda d: d.train("--config", "publc_baseline"))
simple("a recipe that is not there, in a file", lambda d: d.train("--config", d.write("a.yaml", "canvas: dem\n")))
simple("a recipe without its folder", lambda d: main(["recipes", "demo"]))
simple("a configuration file that is not there", lambda d: d.render("--config", "no/such.yaml"))
simple("another file in place of a configuration", lambda d: d.render("--config", d.write("a.csv", "key,fold\n1,2\n")))
simple("a seed out of range", lambda d: d.train("--seed", "28446341235"))
simple("a fold out of range", lambda d: d.train("--fold", "3"))
simple("a batch that groups do not fill", lambda d: d.train("--global_batch", "5"))
simple("a negative batch", lambda d: d.train("--global_batch", "-4"))
simple("too many epochs", lambda d: d.train("--epochs", "999999999999"))
simple("a negative time-out", lambda d: d.train("--timeout_s", "-1"))
simple("an option of several values twice", lambda d: d.train("--left_out_folds", "1", "--left_out_folds", "2"))
simple("an empty configuration file", lambda d: d.train("--config", d.write("a.yaml", "# nothing\n")))
simple(
    "a name twice in a configuration file", lambda d: d.train("--config", d.write("a.yaml", "epochs: 1\nepochs: 2\n"))
)
simple(
    "a table in place of a part of a configuration", lambda d: d.train("--canvas", d.write("a.csv", "key,fold\n1,2"))
)
simple("no rows left after a filter", lambda d: d.train("--selection.min_votes", "1000"))
simple("fewer rows than one step needs", lambda d: d.train("--global_batch", "1000"))
simple("more folds than patients", lambda d: d.train("--num_folds", "10"))
simple("a shard set that is not there", lambda d: d.train("--shards", str(d.folder / "nowhere")))
simple("a label table in place of a shard set", lambda d: d.train("--shards", str(d.data / "train.csv")))
simple(
    "a shard set that is not finished",
    lambda d: (d.copy_of_shards() / "manifest.json").unlink() or d.train(),
)
simple(
    "a run folder of another configuration", lambda d: d.train("--epochs", "1") or d.train("--epochs=1", "--optim.lr=1")
)
simple("an unknown model", lambda d: d.train("--model.name", "efficientnet_x9"))
simple("an unknown loss", lambda d: d.train("--loss.name", "focal"))
simple("an unknown selection", lambda d: d.train("--selection.rule", "best"))
simple("a model of a fixed size on another canvas", lambda d: d.train("--model.name", "vit_tiny_patch16_224"))
simple(
    "a group of one where a batch norm sees single pixels",
    lambda d: d.train("--model.name", "resnest14d", "--group_size", "1"),
)
simple("an argument that a model lacks", lambda d: d.train("--model.name", "resnet18", "--model.kwargs", "{depht: 2}"))
simple("an argument that another option decides", lambda d: d.train("--model.kwargs", "{num_classes: 3}"))
simple("a folder without a model", lambda d: d.train("--model.name", f"local-dir:{d.folder}"))
simple(
    "packaged weights of another model",
    lambda d: d.train("--model.name", "resnet34d", "--model.weights", "package"),
)
simple("weights that are not there", lambda d: d.train("--model.weights", str(d.folder / "no.pth")))
simple(
    "an unknown key to show",
    lambda d: main(["show", "--shards", str(d.shards), "--key", "1-1", "--out", str(d.folder / "a.png")]),
)
simple("keys of an unknown class", lambda d: main(["keys", str(d.shards), "--classes", "lpx"]))
simple("keys that no filter leaves", lambda d: main(["keys", str(d.shards), "--min_votes", "1000"]))
simple("predictions that do not sum to one", lambda d: d.predictions(lambda f: f.assign(lpd=0.5)))
simple(
    "predictions of rows without labels",
    lambda d: d.predictions(
        lambda f: f.assign(
            key=["1-0", *f["key"][1:]], eeg_id=[1, *f["eeg_id"][1:]], eeg_sub_id=[0, *f["eeg_sub_id"][1:]]
        )
    ),
)
simple(
    "predictions whose keys are others' ids", lambda d: d.predictions(lambda f: f.assign(key=f["key"].to_numpy()[::-1]))
)
simple(
    "a submission with an id that is not an integer",
    lambda d: d.submission(f"{SUBMISSION}\n8.5,1,0,0,0,0,0\n"),
)
simple("a submission with a column twice", lambda d: d.submission(f"{SUBMISSION},lpd_vote\n8,1,0,0,0,0,0,0\n"))
simple("booleans instead of probabilities", lambda d: d.predictions(lambda f: f.assign(lpd=True)))
simple("an id stored as a float that cannot hold it", lambda d: d.predictions(lambda f: f.assign(eeg_id=2.0**54)))
simple("scores over what they score", lambda d: d.predictions(lambda f: f, "--out", d.folder / "p.parquet"))
simple("scores into no folder", lambda d: d.predictions(lambda f: f, "--out", d.folder / "no/score.json"))
simple(
    "predicting without a run",
    lambda d: main(["predict", "--run", str(d.folder), "--shards", str(d.shards), "--out", str(d.folder / "p.csv")]),
)


@mistake("a truth with a row twice")
def _truth(sandbox):
    frame = read_index(sandbox.shards / "index.parquet").frame[["eeg_id", "eeg_sub_id"]].iloc[[0, 1, 0]]
    frame.assign(**dict.fromkeys(CLASSES, 1 / 6)).to_parquet(sandbox.folder / "t.parquet")
    return sandbox.predictions(lambda f: f, "--truth", sandbox.folder / "t.parquet")


@mistake("a run whose stored configuration was changed")
def _record(sandbox):
    (sandbox.folder / "run").mkdir()
    (sandbox.folder / "run/config.yaml").write_text(sealed_text("epochs: 1\n").replace("1", "2", 1))
    return sandbox.train()


@mistake("a batch that the ranks cannot share equally")
def _ranks(sandbox):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "3")
        return sandbox.train()


simple("passes that would cut a group", lambda d: d.train("--pass_rows", "1"))
simple(
    "a network that draws random numbers by itself",
    lambda d: d.train("--model", "{name: test_resnet, kwargs: {drop_block_rate: 0.5}}"),
)


@mistake("training under a variable that asks for DeepSpeed")
def _engine(sandbox):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        return sandbox.train()


@mistake("training under a variable that changes the arithmetic")
def _arithmetic(sandbox):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
        return sandbox.train()


@mistake("a plug-in that is not there")
def _no_plugin(sandbox):
    return sandbox.render("--plugins", "my_panels")


@mistake("a plug-in that fails")
def _broken_plugin(sandbox):
    sandbox.write("broken_plugin.py", "1 / 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sandbox.folder)
        patch.setattr(sys, "path", [*sys.path])
        return sandbox.render("--plugins", "broken_plugin")


@mistake("a set that was made with a plug-in")
def _made_with_plugin(sandbox):
    path = sandbox.copy_of_shards() / "manifest.json"
    value = json.loads(path.read_bytes())
    value["render_config"]["plugins"] = {"my_panels": "1.0"}
    value.pop("digest")
    path.write_bytes(indented_json({**value, "digest": digest(value)}))
    return sandbox.train()


@mistake("a manifest that was edited")
def _manifest(sandbox):
    path = sandbox.copy_of_shards() / "manifest.json"
    path.write_text(path.read_text().replace('"num_samples"', '"num_sample"', 1))
    return sandbox.train()


@mistake("a damaged file of a set, verified")
def _verified(sandbox):
    (sandbox.copy_of_shards() / "index.parquet").write_bytes(b"PAR1")
    return main(["verify", "--shards", str(sandbox.shards)])


@mistake("a set without manifest and copy, verified")
def _no_manifest(sandbox):
    for path in sandbox.copy_of_shards().glob("manifest*.json"):
        path.unlink()
    return main(["verify", "--shards", str(sandbox.shards)])


@mistake("a manifest that names a file outside of its folder")
def _outside(sandbox):
    path = sandbox.copy_of_shards() / "manifest.json"
    value = json.loads(path.read_bytes())
    value["files"][0]["name"] = "../x.tar"
    value.pop("digest")
    path.write_bytes(indented_json({**value, "digest": digest(value)}))
    return sandbox.train()


@mistake("a manifest that is a pipe")
def _pipe(sandbox):
    path = sandbox.copy_of_shards() / "manifest.json"
    path.unlink()
    os.mkfifo(path)
    return sandbox.train()


@mistake("a configuration that is a pipe")
def _configuration_pipe(sandbox):
    os.mkfifo(sandbox.folder / "a.yaml")
    return sandbox.train("--config", str(sandbox.folder / "a.yaml"))


@mistake("a configuration whose aliases stand for too much")
def _aliases(sandbox):
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 9)}]\n" for n in range(9)]
    return sandbox.train("--config", sandbox.write("a.yaml", "".join(lines)))


@mistake("a class of other code in a nested file")
def _foreign_class(sandbox):
    sandbox.write("sub.yaml", "{x: {class_path: evilmod.Evil}}")
    return sandbox.render("--config", sandbox.write("a.yaml", "panels: sub.yaml"))


@mistake("torchvision that was built for another torch")
def _torchvision(_):
    """Without what `make setup` puts into the environment for a CPU-only torch."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", "-m", "hms_dist", "train", "--config", "demo", "--shards", "s", "--out", "o"]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "manifest.json" in done.stderr:
        pytest.skip("torchvision matches torch here")
    print(done.stderr, file=sys.stderr)
    return done.returncode


@mistake("a damaged shard")
def _shard(sandbox):
    for path in sandbox.copy_of_shards().glob("*.tar"):
        content = bytearray(path.read_bytes())
        content[2000::1000] = bytes(byte ^ 1 for byte in content[2000::1000])
        path.write_bytes(content)
    return sandbox.train()


@mistake("a panel that the set lacks")
def _panel(sandbox):
    placement = "{panel: scalp, top: 0, left: 0, height: 8, width: 8}"
    canvas = sandbox.write("canvas.yaml", f"height: 8\nwidth: 8\nplacements: [{placement}]\n")
    return sandbox.train("--canvas", canvas)


@mistake("an estimate for a canvas whose panels no packaged recipe renders")
def _estimated_canvas(sandbox):
    placement = "{panel: scalp, top: 0, left: 0, height: 8, width: 8}"
    canvas = sandbox.write("canvas.yaml", f"height: 8\nwidth: 8\nplacements: [{placement}]\n")
    return main(["estimate", "--config", "demo", "--canvas", str(canvas), "--rows", "10"])


def test_the_table_and_the_tests_name_the_same_mistakes():
    assert set(TABLE) == set(MISTAKES)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_the_line_is_the_one_in_the_table(name, tmp_path, recordings, shard_set, small_file, capsys):
    assert MISTAKES[name](Sandbox(tmp_path, recordings, shard_set, small_file)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if re.match(r"hms-dist \w+: ", line)]
    assert len(lines) == 1
    expected = ".*".join(map(re.escape, TABLE[name].split("…")))
    assert re.fullmatch(rf"hms-dist \w+: {expected}", lines[0])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_and_names_every_option(command, capsys, monkeypatch):
    """--help has a line for each option of the class, or for a group of them; --help_all explains all in full."""
    monkeypatch.setenv("COLUMNS", "80")
    module, name, _ = COMMANDS[command]
    cls = getattr(importlib.import_module(module), name)
    shown = {}
    for option in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as ended:
            main([command, option])
        assert ended.value.code == 0
        shown[option], errors = capsys.readouterr()
        assert errors == ""
    lines = shown["--help"].splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert lines[-1].startswith(f"hms-dist {command} --help_all")
    first_words = [line.split()[0].removesuffix(".*") for line in lines if line.startswith("  --")]
    assert sorted(first_words) == sorted(f"--{field.name}" for field in dataclasses.fields(cls))
    for field in dataclasses.fields(cls):
        assert f"--{field.name}" in shown["--help_all"]
    usage = " ".join(lines[: lines.index("")])
    required = [line.split()[0] for line in lines if line.endswith("(required)")]
    assert re.findall(r"(--\w+) [A-Z_]+", usage) == ["--config", *required, "--option"]
    assert {f"--{field.name}" for field in dataclasses.fields(cls) if field.default is field.default_factory} >= {
        *required
    }


def test_help_of_a_process_of_its_own():
    """In a separate process, as for a user: the command exits with 0 and prints nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "hms_dist", "show", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--shards" in done.stdout
