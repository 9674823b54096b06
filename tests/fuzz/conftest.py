"""Fixtures of the fuzz tests: a small set and a run made once, mutations that know the structure, and the expected
outcome."""

import copy
import hashlib
import json
import re
import resource
import shutil
import signal
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.files import digest, indented_json
from hms_dist.model.build import build
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import open_set
from hms_dist.train.folder.checkpoint import save_weights
from hms_dist.train.folder.record import write_status
from hms_dist.train.folder.run_folder import begin_folder
from hms_dist.train.settings import TrainConfig

HANGS_AFTER_S = 60
MEMORY_BYTES = 4 << 30
"""More than a command may take for input of some kB."""
WORDS = [
    "", "a\nb", "\x1b[2J", "$x^", "$(touch hit)", "../../../x", "/dev/zero", "é" * 5000, "nan", "1e999", "None", "~",
    "evilmod.Evil", "subprocess.Popen", "sub.yaml", "best", "json", "__class__", "\ud800",
]  # fmt: skip
NUMBERS = [0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**64, -(2**63), 10**30, 1e-320, 1e308, 0.5, -0.0]
RAW = [
    "NaN",
    "Infinity",
    "-Infinity",
    "[" * 2000 + "]" * 2000,
    '{"a":' * 300 + "1" + "}" * 300,
    "1" * 5000,
    "01",
    "tru",
]
"""Values that no JSON writer produces, or only for None."""


class Mutations:
    """Draws mutations of bytes, plain values and tables."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def value(self) -> Any:
        """A value that is not expected."""
        kind = self.rng.integers(6)
        if kind == 0:
            return self.pick([None, True, False, [], {}, [[]], [None], {"": None}])
        if kind == 1:
            return self.pick(WORDS)
        if kind == 2:
            return {"class_path": self.pick(WORDS), "init_args": {"args": ["touch", "hit"]}}
        if kind == 3:
            return [self.pick(NUMBERS) for _ in range(self.rng.integers(4))]
        return self.pick(NUMBERS)

    def plain(self, value: Any) -> Any:
        """A plain value with one node changed, removed, added, doubled or moved."""
        value = copy.deepcopy(value)
        places = list(_places(value))
        holder, key = self.pick(places) if places else (None, None)
        kind = self.rng.integers(6)
        if holder is None or self.rng.random() < 0.02:
            return self.value()
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[self.pick(WORDS)] = self.value()
        elif kind == 2 and isinstance(holder, dict):
            holder[self.pick(WORDS)] = holder.pop(key)
        elif kind == 3 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 4:
            other, place = self.pick(places)
            holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = self.value()
        return value

    def json(self, value: Any) -> str:
        """JSON text of a changed value; sometimes with invalid JSON in it."""
        if self.rng.random() < 0.25:
            mark = "9178235611"
            text = json.dumps(_with(copy.deepcopy(value), self, int(mark)))
            return text.replace(mark, self.pick(RAW), 1)
        return json.dumps(self.plain(value))

    def yaml(self, value: Any) -> str:
        """YAML text of a changed value; sometimes with tags, aliases or depth."""
        text = yaml.safe_dump(_speakable(self.plain(value)), sort_keys=False)
        kind = self.rng.integers(8)
        if kind > 3:
            return text
        lines = text.splitlines()
        bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '1'] * 9)}]" for n in range(9))
        extra = [bomb, "x: &x [*x]", "? [a]\n: b", "<<: [1]", "x: !!python/object/apply:os.system [touch hit]",
                 "x: " + "[" * 3000, "x: 2020-99-99", "\tx: 1", "x: !!binary a", "x: " + "9" * 5000, "- 1"]  # fmt: skip
        place = int(self.rng.integers(len(lines) + 1))
        if kind == 0:
            return "\n".join([*lines, self.pick(extra)])
        if kind == 1:
            return "\n".join([*lines[:place], self.pick(extra), *lines[place:]])
        return self.bytes(text.encode()).decode("latin-1")

    def bytes(self, content: bytes) -> bytes:
        """Bytes with a flip, a cut, zeros, a copy or noise."""
        if not content:
            return b"x"
        place, length = int(self.rng.integers(len(content))), int(self.rng.integers(1, 65))
        kind = self.rng.integers(6)
        if kind == 0:
            return content[:place]
        if kind == 1:
            return content[:place] + bytes(length) + content[place + length :]
        if kind == 2:
            return content[:place] + self.rng.bytes(length) + content[place + length :]
        if kind == 3:
            return content[:place] + content[place : place + length] + content[place:]
        if kind == 4:
            return content[place:]
        return content[:place] + bytes([content[place] ^ (1 << int(self.rng.integers(8)))]) + content[place + 1 :]

    def table(self, table: pa.Table) -> pa.Table:
        """A table with a cell, a column, a type or the rows changed."""
        name = self.pick(table.column_names)
        place = table.column_names.index(name)
        kind = self.rng.integers(7)
        if kind == 0:
            return table.drop_columns([name])
        if kind == 1:
            rows = self.rng.integers(0, len(table), int(self.rng.integers(0, len(table) * 2)))
            return table.take(rows)
        if kind == 2:
            column = pa.array([self.pick(WORDS[:5]) for _ in range(len(table))])
            return table.set_column(place, name, column)
        if kind == 3:
            return table.append_column(self.pick([name, "x", "$x^"]), table[name])
        if kind == 4:
            other = self.pick(table.column_names)
            return table.set_column(place, name, table[other])
        cells = table[name].to_pylist()
        row = int(self.rng.integers(len(cells)))
        for value in (self.pick([None, *NUMBERS, *WORDS[:5], float("nan"), float("inf")]) for _ in range(20)):
            try:
                column = pa.array([*cells[:row], value, *cells[row + 1 :]], table[name].type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                continue
            return table.set_column(place, name, column)
        return table.drop_columns([name])


def _places(value: Any) -> Any:
    """(holder, key) of every node below a plain value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _with(value: Any, mutations: Mutations, mark: int) -> Any:
    places = list(_places(value))
    if not places:
        return mark
    holder, key = mutations.pick(places)
    holder[key] = mark
    return value


def _speakable(value: Any) -> Any:
    """Without what YAML's writer itself refuses."""
    return json.loads(json.dumps(value).replace("\\ud800", "?"))


class CommandOutcome:
    """Runs one command in this process; what it may do is answer, or refuse in one line."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys, self._folder = capsys, folder

    def command(self, *words: object) -> int:
        """Exit code of a command. Fails for a traceback, a hang, several lines, or code that ran."""
        self._capsys.readouterr()
        with self._watched():
            code = main([str(word) for word in words])
        printed = self._capsys.readouterr().err
        lines = [line for line in printed.splitlines() if line and not re.match(r"\d{4}-\d\d-\d\d |verify: ", line)]
        assert code in (0, 1, 2), printed
        assert "Traceback" not in printed, printed
        assert "out of memory" not in printed, printed
        if code:
            assert len(lines) == 1, printed
            assert lines[0].startswith(f"hms-dist {words[0]}: "), printed
            assert len(lines[0]) < 5000, printed
        return code

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of a call, or None where it refuses in one line."""
        from hms_dist.core.errors import exit_status

        with self._watched():
            try:
                return function()
            except Exception as error:
                known = exit_status(error)
                if known is None:
                    raise
                assert "\n" not in known[1], known[1]
                assert "out of memory" not in known[1], known[1]
                return None

    @contextmanager
    def _watched(self) -> Any:
        def hangs(*_: object) -> None:
            raise AssertionError(f"no answer within {HANGS_AFTER_S} s")

        before = signal.signal(signal.SIGALRM, hangs)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES, limits[1]))
        signal.alarm(HANGS_AFTER_S)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            resource.setrlimit(resource.RLIMIT_AS, limits)
            assert not (Path.cwd() / "hit").exists()
            assert not (self._folder / "hit").exists()


@pytest.fixture
def mutations(rng) -> Mutations:
    return Mutations(rng)


@pytest.fixture
def outcome(capsys, tmp_path) -> CommandOutcome:
    return CommandOutcome(capsys, tmp_path)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A set of a compressed and a plain panel."""
    folder = tmp_path_factory.mktemp("fuzz")
    simulate(Simulate(out=folder / "data", num_recordings=4, seed=5))
    (folder / "r.yaml").write_text("panels: {eeg_spectrogram: EegSpectrogram, kaggle_spectrogram: KaggleSpectrogram}\n")
    words = ["--config", folder / "r.yaml", "--data", folder / "data", "--out", folder / "set"]
    config = load(Render, [*map(str, words), "--samples_per_shard", "4"])
    render(config)
    return folder / "set"


CONFIG = """
    canvas:
      height: 32
      width: 64
      placements:
        - {panel: eeg_spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 32, width: 64,
           normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
    model: {name: test_efficientnet}
    num_folds: 2
    epochs: 1
    global_batch: 2
    group_size: 2
"""


@pytest.fixture(scope="session")
def run_folder(small, tmp_path_factory) -> Path:
    """A run folder as training leaves it, without the training: every file, weights as drawn."""
    folder = tmp_path_factory.mktemp("fuzz_run")
    (folder / "t.yaml").write_text(textwrap.dedent(CONFIG))
    out = folder / "run"
    config = load(TrainConfig, ["--config", str(folder / "t.yaml"), "--shards", str(small), "--out", str(out)])
    begin_folder(config)
    from hms_dist.config.load import save

    save(config.canvas, out / "canvas.yaml")
    manifest, index = open_set(small)
    save(dict(manifest.render_config), out / "render.yaml")
    torch.manual_seed(0)
    record = {"run": str(out), "weights": "", "shards": manifest.fingerprint, "fold": 0, "num_folds": 2, "seed": 0,
              "unknown_teacher": "", "patients": "1 2", "learnt_from": []}  # fmt: skip
    from hms_dist.train.data.run_data import open_shards, panel_recipes

    recipes = panel_recipes(open_shards(small, config.canvas, flips=False))
    meta = {"epoch": 0, "step": 3, "val_kl": 1.0, "shards": manifest.fingerprint, "panels": recipes, "seen": record}
    for name in ("best", "final"):
        save_weights(out / name, build(config.model, 0), meta)
    write_status(out, "finished", exit_code=0, best={"val_kl": 1.0, "epoch": 0}, steps=3)
    (out / "environment.json").write_bytes(indented_json({"command": ["train.py", "--config", "a.yaml"], "slurm": {}}))
    line = {"epoch": 0, "step": 3, "loss": 1.5, "lr": 0.001, "images_per_s": 3.5, "data_wait_share": 0.01}
    names = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
    scores = {
        "epoch": 0,
        "step": 3,
        "val_kl": 1.0,
        **{f"val_kl_{n}": 0.1 for n in names},
        "val_confusion": [[1] * 6] * 6,
    }
    (out / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(scores) + "\n")
    (out / "train.log").write_text("2026-01-01 00:00:00 rank 0 INFO begun\n")
    table = prediction_table(index.frame, index.folds(2), np.full((len(index), 6), 1 / 6))
    write_predictions(out / "predictions.parquet", table)
    return out


@pytest.fixture
def reseal() -> Callable[[Path], None]:
    """Let sizes and digests of a set fit what its files are now."""

    def make(folder: Path, manifest: dict[str, Any] | None = None) -> None:
        path = folder / "manifest.json"
        value = json.loads(path.read_bytes()) if manifest is None else manifest
        value.pop("digest", None)
        if manifest is None:
            for entry in value["files"]:
                content = (folder / entry["name"]).read_bytes()
                entry |= {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        text = indented_json({**value, "digest": digest(value)})
        for name in ("manifest.json", "manifest.copy.json"):
            (folder / name).write_bytes(text)

    return make


@pytest.fixture
def fresh(tmp_path) -> Callable[[Path], Path]:
    """A copy of a folder, in place of the one before."""

    def make(source: Path) -> Path:
        target = tmp_path / source.name
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(source, target)

    return make


def write_table(table: pa.Table, path: Path) -> None:
    """A table as Parquet; one of two columns of a name too."""
    pq.write_table(table, path)
