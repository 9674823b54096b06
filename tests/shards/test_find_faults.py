"""The full check finds every flipped bit of every file, and faults that hashes cannot show; the quick look finds
sizes."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hms_dist.core.errors import UserError
from hms_dist.core.files import canonical_json, digest
from hms_dist.labels.table import LabelTable
from hms_dist.rendering.find_faults import find_faults, find_size_faults, foreign_files
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.metadata_writer import file_entry, write_manifest, write_rejected
from hms_dist.shards.schema import MANIFEST_COPY_NAME, MANIFEST_NAME


def fault_texts(folder: Path) -> list[str]:
    """Faults found by the full check, a UserError included."""
    try:
        return [str(fault) for fault in find_faults(folder)]
    except UserError as error:
        return [str(error)]


def test_a_whole_set_has_no_fault(tiny):
    assert fault_texts(tiny.folder) == []
    assert list(find_size_faults(tiny.folder)) == []
    labels = LabelTable(path=Path("train.csv"), frame=tiny.labels, labelled=True)
    assert list(find_faults(tiny.folder, labels=labels, workers=2)) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_found(tiny, data):
    paths = sorted(tiny.folder.iterdir())
    path = data.draw(st.sampled_from(paths), "file")
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1), "byte")
    bit = data.draw(st.integers(0, 7), "bit")
    path.write_bytes(original[:place] + bytes([original[place] ^ 1 << bit]) + original[place + 1 :])
    try:
        faults = fault_texts(tiny.folder)
        assert len(faults) == 1
        assert faults[0].startswith(f"{path}: ")
    finally:
        path.write_bytes(original)
    assert len(paths) == 6


@pytest.mark.parametrize("name", [MANIFEST_NAME, MANIFEST_COPY_NAME])
@pytest.mark.parametrize(
    "respell",
    [
        lambda value, text: text.rstrip(),
        lambda value, text: text.replace(": ", ":  ", 1),
        lambda value, text: text.replace("\n", "\r\n"),
        lambda value, text: json.dumps(value),
        lambda value, text: json.dumps(dict(reversed(value.items())), indent=1) + "\n",
        lambda value, text: (
            json.dumps(value | {"files": [dict(reversed(e.items())) for e in value["files"]]}, indent=1) + "\n"
        ),
        lambda value, text: json.dumps(value | {"panels": dict(reversed(value["panels"].items()))}, indent=1) + "\n",
        lambda value, text: text.replace('"num_samples": 11', '"num_samples": 11.0', 1),
        lambda value, text: text.replace("lines", "\\u006cines", 1),
        lambda value, text: text.replace("{", '{"digest": "0",', 1),
    ],
)
def test_a_manifest_of_equal_value_in_other_words_is_found(tiny, name, respell):
    path = tiny.folder / name
    before = json.loads(path.read_text())
    text = respell(before, path.read_text())
    assert json.loads(text) == before
    path.write_text(text, newline="")
    faults = list(find_faults(tiny.folder))
    assert [(fault.path, fault.damaged) for fault in faults] == [(path, True)]
    assert list(find_size_faults(tiny.folder)) == faults


def test_a_changed_manifest_with_a_digest_that_fits_is_not_the_copy(tiny):
    value = json.loads((tiny.folder / MANIFEST_COPY_NAME).read_text())
    del value["digest"]
    value["versions"]["numpy"] = "0"
    (tiny.folder / MANIFEST_COPY_NAME).write_text(json.dumps(value | {"digest": digest(value)}, indent=1) + "\n")
    assert fault_texts(tiny.folder) == [f"{tiny.folder / MANIFEST_COPY_NAME}: is the copy of another manifest.json"]


def test_the_digest_is_over_the_canonical_json_of_the_rest(tiny):
    value = json.loads((tiny.folder / MANIFEST_NAME).read_text())
    own = value.pop("digest")
    assert own == digest(value)
    assert canonical_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_missing_cut_and_displaced_files(tiny):
    shard = "shard-000000.tar"
    (tiny.folder / shard).unlink()
    with (tiny.folder / "shard-000001.tar").open("r+b") as file:
        file.truncate(1000)
    (tiny.folder / "shard-000002.tar").unlink()
    (tiny.folder / "shard-000002.tar").mkdir()
    for faults in (list(find_faults(tiny.folder)), list(find_size_faults(tiny.folder))):
        texts = sorted(str(fault).removeprefix(f"{tiny.folder}/") for fault in faults)
        assert texts[0] == "shard-000000.tar: missing"
        assert texts[1] == "shard-000001.tar: expected 30720 bytes, found 1000"
        assert texts[2] == "shard-000002.tar: is not a file"
        assert all(fault.damaged for fault in faults)


def test_the_quick_look_reads_no_shard_but_counts_rows(tiny):
    path = tiny.folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[::-1])
    assert list(find_size_faults(tiny.folder)) == []
    index = tiny.folder / "index.parquet"
    index.write_bytes(index.read_bytes()[::-1])
    assert "not a readable Parquet file" in str(next(find_size_faults(tiny.folder)))


def test_counts_that_disagree(tiny):
    tiny.respell(lambda rows: rows.iloc[:-1])
    assert [str(fault) for fault in find_size_faults(tiny.folder)] == [
        f"{tiny.folder / 'index.parquet'}: expected 11 rows, found 10"
    ]


def test_without_manifest_and_copy_there_is_no_set(tiny):
    (tiny.folder / MANIFEST_NAME).unlink()
    assert fault_texts(tiny.folder) == [f"{tiny.folder / MANIFEST_NAME}: no such file"]
    (tiny.folder / MANIFEST_COPY_NAME).write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: no such file; run hms-dist render, which keeps"):
        list(find_faults(tiny.folder))


def test_the_copy_of_an_older_set_does_not_speak_for_an_unfinished_one(tiny):
    (tiny.folder / MANIFEST_NAME).unlink()
    (tiny.folder / ".parts").mkdir()
    with pytest.raises(UserError, match=r"manifest.json: no such file; run hms-dist render"):
        list(find_faults(tiny.folder))


def test_foreign_files_are_named_and_a_foreign_tar_is_a_fault(tiny):
    (tiny.folder / "notes.txt").write_text("mine")
    (tiny.folder / ".hidden").write_text("mine")
    stray = Path(shutil.copy(tiny.folder / "shard-000000.tar", tiny.folder / "shard-000009.tar"))
    assert foreign_files(tiny.folder, read_manifest(tiny.folder)) == [tiny.folder / "notes.txt", stray]
    assert fault_texts(tiny.folder) == [f"{stray}: not in the manifest; remove it"]


def test_with_a_damaged_index_the_tars_are_still_checked(rng, tiny):
    for name in ("index.parquet", "shard-000001.tar"):
        path = tiny.folder / name
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 4
        path.write_bytes(content)
    assert [fault.path.name for fault in find_faults(tiny.folder)] == ["index.parquet", "shard-000001.tar"]


def test_rejected_rows_are_not_missing(tiny):
    """Rows of the table that the set lacks are faults unless rejected.parquet, a file of the set, has them."""
    labels = LabelTable(
        path=Path("train.csv"), frame=pd.concat([tiny.labels, tiny.labels.iloc[[0]].assign(eeg_id=5)]), labelled=True
    )
    faults = [str(fault) for fault in find_faults(tiny.folder, labels=labels)]
    assert faults == [f"{tiny.folder / 'index.parquet'}: 5-0 is missing; train.csv has it"]
    path = tiny.folder / "rejected.parquet"
    write_rejected(path, [{"key": "5-0", "row": 11, "reason": "no such file"}])
    manifest = read_manifest(tiny.folder)
    write_manifest(tiny.folder, dataclasses.replace(manifest, files=(*manifest.files, file_entry(path, 1))))
    assert list(find_faults(tiny.folder, labels=labels)) == []
    path.write_bytes(path.read_bytes()[:-1])
    assert next(find_faults(tiny.folder, labels=labels)).path == path
