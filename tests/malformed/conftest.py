"""A small data folder to corrupt, and the comparison of what render makes of it with docs/malformed_inputs.md."""

import ctypes
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_dist.cli import main
from hms_dist.rendering.find_faults import find_faults
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest

ROW = re.compile(r"^\| ([^|]+?) \| (`.+`|as the clean input|rendered: [^|`]+) \|$", re.MULTILINE)
SECTIONS = (Path(__file__).parents[2] / "docs/malformed_inputs.md").read_text().split("\n## ")[1:]
DOCUMENTED = {text.partition("\n")[0]: dict(ROW.findall(text)) for text in SECTIONS}


def two_rows(folder, recordings):
    """Write a folder of two label rows, each with an EEG of 53 s and a spectrogram of 10 minutes of its own."""
    table = pd.read_csv(recordings / "train.csv").drop_duplicates("patient_id").head(2)
    table = table.assign(eeg_sub_id=0, eeg_label_offset_seconds=[0.0, 3.0], spectrogram_label_offset_seconds=0.0)
    for kind, num_rows in (("eeg", 10_600), ("spectrogram", 300)):
        (folder / f"train_{kind}s").mkdir(parents=True)
        for number in table[f"{kind}_id"]:
            name = f"train_{kind}s/{number}.parquet"
            pq.write_table(pq.read_table(recordings / name)[:num_rows], folder / name)
    table.to_csv(folder / "train.csv", index=False)
    return folder


class Sandbox:
    """A copy of those two rows to corrupt: the second row's files are `eeg` and `spectrogram`."""

    def __init__(self, folder, source):
        self.folder, self.data = folder, shutil.copytree(source, folder / "data")
        self.csv = self.data / "train.csv"
        self.frame = pd.read_csv(self.csv)
        self.eeg = self.data / f"train_eegs/{self.frame['eeg_id'][1]}.parquet"
        self.spectrogram = self.data / f"train_spectrograms/{self.frame['spectrogram_id'][1]}.parquet"

    def render(self):
        return main(["render", "--data", str(self.data), "--out", str(self.folder / "set")])

    def tars(self):
        return {path.name: path.read_bytes() for path in sorted((self.folder / "set").glob("*.tar"))}

    def panels(self, row=1):
        """The panels of a row of the table, decoded."""
        manifest, index = read_manifest(self.folder / "set"), read_index(self.folder / "set/index.parquet")
        at, content = index.row_of(f"{self.frame['eeg_id'][row]}-0"), self.tars()["shard-000000.tar"]
        found = {}
        for name, spec in manifest.panels.items():
            offset, size = index.member(name).offset[at], index.member(name).size[at]
            found[name] = spec.decode(content[offset : offset + size])
        return found


@contextmanager
def without_root_rights():
    """Drop root's right to read what it has no permission for (capabilities 1 and 2), in this thread, for a while."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    before = list(sets)
    sets[0] &= ~0b110
    if libc.capset(header, sets):
        pytest.skip("cannot drop root's rights here")
    try:
        yield
    finally:
        libc.capset(header, (ctypes.c_uint32 * 6)(*before))


@pytest.fixture(scope="session")
def documented():
    """Section of the document -> input -> documented outcome."""
    return DOCUMENTED


@pytest.fixture(scope="session")
def clean(recordings, tmp_path_factory):
    """The folder as it should be, rendered."""
    folder = tmp_path_factory.mktemp("clean")
    sandbox = Sandbox(folder, two_rows(folder / "source", recordings))
    assert sandbox.render() == 0
    return sandbox


@pytest.fixture
def compare(clean, tmp_path, capfd):
    """Corrupt a folder, render it and compare the result with the document; `check` is for rendered ones."""

    def compared(section, name, corrupt, check):
        sandbox, outcome = Sandbox(tmp_path, clean.data), DOCUMENTED[section][name]
        corrupt(sandbox)
        with without_root_rights():
            code = sandbox.render()
        printed = capfd.readouterr().err
        assert "Warning" not in printed
        if outcome.startswith("`"):
            lines = [line for line in printed.splitlines() if line.startswith("hms-dist render: ")]
            expected = ".*".join(map(re.escape, outcome.strip("`").split("…")))
            assert [bool(re.fullmatch(f"hms-dist render: {expected}", line)) for line in lines] == [True], lines
            assert code == 2
            assert not (tmp_path / "set/manifest.json").exists()
            return
        assert code == 0
        assert list(find_faults(tmp_path / "set")) == []
        if outcome == "as the clean input":
            assert sandbox.tars() == clean.tars()
        else:
            assert check(sandbox, clean)

    return compared
