"""Mutated input of every kind: one line or the right answer; never a traceback, a hang, or another answer.

A mutation that fails is repeated by the seed that pytest prints and its number, which the failure shows as `number`.
"""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import tar_names
from hms_dist.shards.schema import crc32
from hms_dist.stream.read.batch import Request
from hms_dist.stream.read.loader import load
from hms_dist.stream.read.reader import ShardReader

SLOW, LONG = 20, 500
amounts = pytest.mark.parametrize(
    "amount", [pytest.param(SLOW, marks=pytest.mark.slow), pytest.param(LONG, marks=pytest.mark.long)]
)
PANELS = ("eeg_spectrogram", "kaggle_spectrogram")


def answer(folder):
    """All values of a set: from the index, and by range in compiled threads."""
    manifest, index = open_set(folder)
    reader = ShardReader(folder, manifest, index, PANELS)
    rows = np.arange(len(index))
    found = [index.frame[["key", "patient_id", "lpd_vote"]].to_json()]
    for batch in load(reader, [Request(rows)], threads=1):
        found += [batch.panels[name].numpy().tobytes() for name in PANELS]
    return found


class TestSets:
    """A manifest, an index and tars."""

    @amounts
    def test_damaged_bytes_give_one_line_or_the_same_values(self, small, fresh, mutations, outcome, amount):
        expected = answer(small)
        for number in range(amount):
            folder = fresh(small)
            names = ["manifest.json", "index.parquet", *tar_names(open_set(small)[0])]
            path = folder / mutations.pick(names)
            path.write_bytes(mutations.bytes(path.read_bytes()))
            found = outcome.call(lambda folder=folder: answer(folder))
            assert found is None or found == expected, (number, path)
            if number % 5 == 0:
                outcome.command("verify", "--shards", folder)

    @amounts
    def test_a_manifest_that_is_sealed_again(self, small, fresh, mutations, outcome, reseal, tmp_path, amount):
        value = json.loads((small / "manifest.json").read_bytes())
        for number in range(amount):
            folder = fresh(small)
            if number % 3:
                changed = mutations.plain(value)
                try:
                    reseal(folder, changed)
                except (AttributeError, TypeError, ValueError):  # what cannot be sealed
                    (folder / "manifest.json").write_text(json.dumps(changed))
            else:
                (folder / "manifest.json").write_text(mutations.json(value))
            outcome.call(lambda folder=folder: answer(folder))
            words = [("verify", "--shards", folder), ("show", "--shards", folder, "--out", tmp_path / "p.png")]
            outcome.command(*words[number % 2])

    @amounts
    def test_an_index_that_is_sealed_again(self, small, fresh, mutations, outcome, reseal, tmp_path, amount):
        table = pq.read_table(small / "index.parquet")
        for number in range(amount):
            folder = fresh(small)
            if number % 4:
                pq.write_table(mutations.table(table), folder / "index.parquet")
            else:
                (folder / "index.parquet").write_bytes(mutations.bytes((small / "index.parquet").read_bytes()))
            reseal(folder)
            outcome.call(lambda folder=folder: answer(folder))
            words = [("verify", "--shards", folder), ("show", "--shards", folder, "--out", tmp_path / "p.png")]
            outcome.command(*words[number % 2])

    @amounts
    def test_tars_that_are_sealed_again(self, small, fresh, mutations, outcome, reseal, amount):
        table = pq.read_table(small / "index.parquet").to_pandas()
        for number in range(amount):
            folder = fresh(small)
            path = folder / "shard-000000.tar"
            content = path.read_bytes()
            if number % 2:
                row, member = int(mutations.rng.integers(4)), mutations.pick([*PANELS, "json"])
                start, size = (int(table[f"{member}.{field}"][row]) for field in ("offset", "size"))
                changed = mutations.bytes(content[start : start + size])[:size].ljust(size, b"\0")
                path.write_bytes(content[:start] + changed + content[start + size :])
                frame = table.copy()
                frame.loc[row, f"{member}.crc32"] = crc32(changed)
                schema = pq.read_schema(folder / "index.parquet")
                pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), folder / "index.parquet")
            else:
                path.write_bytes(mutations.bytes(content) if number % 4 else foreign_tar(mutations, content))
            reseal(folder)
            outcome.call(lambda folder=folder: answer(folder))
            outcome.command("verify", "--shards", folder)


def foreign_tar(mutations, content):
    """A tar of other members: compressed, linked, sparse, of other names or none."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mutations.pick(["w", "w:gz", "w:xz"]), format=tarfile.PAX_FORMAT) as tar:
        for name in (
            "1-0.json",
            "1-0.eeg_spectrogram.npy.zst",
            "1-0.kaggle_spectrogram.npy",
            "../x.json",
            "/x.json",
            "x",
        ):
            info = tarfile.TarInfo(name)
            info.type = mutations.pick(
                [tarfile.REGTYPE] * 5 + [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
            )
            info.size = 10
            if mutations.rng.random() < 0.3:
                info.pax_headers = {"GNU.sparse.size": str(2**40), "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            tar.addfile(info, io.BytesIO(b"0123456789"))
    return made.getvalue()


class TestRuns:
    """A run folder: its JSON and YAML, weights and predictions."""

    @amounts
    def test_json_and_yaml(self, run_folder, fresh, mutations, outcome, tmp_path, amount):
        for number in range(amount):
            folder = fresh(run_folder)
            name = mutations.pick(
                ["status.json", "environment.json", "metrics.jsonl", ".claim", "config.yaml", "stages.yaml", ".fault"]
            )
            path = folder / name
            if name == ".claim":
                owner = {"host": "h", "machine": "", "pid": 1, "job": "", "nonce": "n", "attempt": 0}
                path.write_text(mutations.json(owner))
            elif name == "stages.yaml":
                path.write_text(mutations.yaml({"stages": [{"name": "a"}, {"name": "b"}]}))
            elif name == "metrics.jsonl":
                lines = path.read_text().splitlines()
                place = int(mutations.rng.integers(len(lines)))
                lines[place] = mutations.json(json.loads(lines[place]))
                path.write_text("\n".join(lines) + "\n", errors="replace")
            elif name.endswith(".yaml"):
                path.write_text(mutations.yaml(yaml.safe_load(path.read_text())), encoding="utf-8", errors="replace")
            else:
                value = json.loads(path.read_bytes()) if path.exists() else {"state": "failed"}
                path.write_text(mutations.json(value))
            outcome.command("status", folder)
            if number % 4 == 0:
                outcome.command("report", "--runs", folder, "--out", tmp_path / "r.html")

    @amounts
    def test_other_files_where_files_are_expected(self, run_folder, fresh, mutations, outcome, amount):
        for _ in range(max(amount // 4, 5)):
            folder = fresh(run_folder)
            path = folder / mutations.pick(sorted(p.name for p in folder.iterdir() if p.is_file()))
            path.unlink()
            mutations.pick([path.mkdir, lambda path=path: os.mkfifo(path), lambda path=path: path.symlink_to(path)])()
            outcome.command("status", folder)

    @amounts
    def test_weights(self, small, run_folder, fresh, mutations, outcome, tmp_path, amount):
        from accelerate.state import AcceleratorState

        for number in range(max(amount // 2, 5)):
            folder = fresh(run_folder)
            name = mutations.pick(["model.safetensors", "meta.json", "hashes.json"])
            path = folder / "best" / name
            if name == "model.safetensors":
                path.write_bytes(mutations.bytes(path.read_bytes()))
            else:
                path.write_text(mutations.json(json.loads(path.read_bytes())))
            if name != "hashes.json" and number % 4:
                hashes = {
                    file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                    for file in (folder / "best").iterdir()
                    if file.name != "hashes.json"
                }
                (folder / "best/hashes.json").write_text(json.dumps(hashes))
            out = tmp_path / f"p{number}.parquet"
            outcome.command("predict", "--run", folder, "--shards", small, "--out", out)
            AcceleratorState._reset_state(reset_partial_state=True)

    @amounts
    def test_predictions(self, small, run_folder, mutations, outcome, tmp_path, amount):
        source = run_folder / "predictions.parquet"
        table, path = pq.read_table(source), tmp_path / "p.parquet"
        for number in range(amount):
            if number % 2:
                pq.write_table(mutations.table(table), path)
            else:
                path.write_bytes(mutations.bytes(source.read_bytes()))
            outcome.command("score", "--predictions", path, "--labels", small, "--num_draws", "0")
            if number % 5 == 0:
                outcome.command("ensemble", "--predictions", path, source, "--out", tmp_path / "e.parquet")


class TestConfigurations:
    """YAML of a canvas, of a recipe for rendering, of a training run."""

    @amounts
    def test_canvas(self, small, run_folder, mutations, outcome, tmp_path, amount):
        value = yaml.safe_load((run_folder / "canvas.yaml").read_text())
        path = tmp_path / "c.yaml"
        for _ in range(amount):
            path.write_text(mutations.yaml(value), encoding="utf-8", errors="replace")
            outcome.command("show", "--shards", small, "--canvas", path, "--out", tmp_path / "p.png", "--axes")

    @amounts
    def test_render(self, run_folder, mutations, outcome, tmp_path, amount):
        value = yaml.safe_load((run_folder / "render.yaml").read_text())
        path = tmp_path / "r.yaml"
        for _ in range(amount):
            path.write_text(mutations.yaml(value), encoding="utf-8", errors="replace")
            outcome.command("render", "--config", path, "--data", tmp_path, "--out", tmp_path / "set")
