"""The command `import`: its output, its resume, and names and dates, which stay in the key folder."""

import csv
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack

import edfio
import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.commands import import_recordings
from hms_dist.core.signal_format import CHANNELS
from hms_dist.datasets import read_dataset
from hms_dist.imports import sharing, write_files
from hms_dist.labels.table import read_labels
from hms_dist.recordings.reader import RecordingReader, read_spectrogram
from hms_dist.signals.regional_power import regional_power

FOUR = (
    "name: lab\nclasses: [seizure, lpd, slow, rest]\nlabels:\n  Anfall: seizure\n  Spikes re: lpd\n  Augen zu: null\n"
)


@pytest.fixture
def folder(eeg, files, tmp_path):
    """Five recordings of three patients, each with annotations."""
    data = tmp_path / "data"
    texts = ["seizure", "LPD", "GPD", "Lrda", "other"]
    for number, text in enumerate(texts):
        patient = edfio.Patient(code=f"MRNUMBER{number // 2}", name="Smith_John", birthdate=datetime.date(1960, 1, 2))
        path = data / f"ward{number % 2}" / f"Smith_John_{number}.edf"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(
            path, eeg(40)(200), annotations=[(10, 20, text), (1, None, "Dr Miller called")], patient=patient,
            starttime=datetime.time(21, 17, 5),
        )  # fmt: skip
    return data


def run(*words, code=0):
    assert main(["import", *map(str, words)]) == code


def rows_of(out, split="train"):
    return pd.read_csv(out / f"{split}.csv")


def content_of(folder):
    """All files of a folder except hidden ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_folder_of_edf_files(folder, tmp_path, caplog) -> None:
    out = tmp_path / "out"
    run("--data", folder, "--out", out)
    table = read_labels(out / "train.csv")
    assert table.frame["eeg_id"].tolist() == [1000, 1000, 2000, 2000, 3000, 3000, 4000, 4000, 5000, 5000]
    assert rows_of(out)["expert_consensus"].tolist()[::2] == ["Seizure", "GPD", "Other", "LPD", "LRDA"]
    assert table.frame["patient_id"].tolist()[::2] == [1, 2, 3, 1, 2]
    assert read_dataset(out).name == "hms"
    assert not (out / "dataset.yaml").exists()
    report = json.loads((out / "import_report.json").read_text())
    assert report["num_patients"] == 3
    assert report["votes"] == {"seizure": 2, "lpd": 2, "gpd": 2, "lrda": 2, "grda": 0, "other": 2}
    assert "texts have no class: 'Dr Miller called' (5)" in caplog.text
    before = content_of(out)
    run("--data", folder, "--out", out)
    assert "complete already: nothing to do" in caplog.text
    assert content_of(out) == before


def test_no_name_and_no_date_is_written(folder, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copy(next(folder.rglob("*.edf")), folder / "Miller_Ann_2019.edf")
    (folder / "Jones_broken.edf").write_bytes(b"0       Jones_Mary")
    run("--data", folder, "--out", out, "--on_error", "skip")
    files = content_of(out)
    assert {path.split("/")[0] for path in files} == {
        "train.csv", "train_eegs", "train_spectrograms", "recordings.csv", "import_report.html", "import_report.json"
    }  # fmt: skip
    for path, content in files.items():
        assert not re.search(rb"smith|miller|jones|mrn", path.encode(), re.IGNORECASE)
        for name in (b"Smith_John", b"Miller", b"MRNUMBER"):  # shorter ones occur by chance in 5 MB of samples
            assert name not in content, path
        if path.endswith(".parquet"):
            continue
        text = re.sub(rb"base64,[^\"]*", b"", content)
        for name in (
            b"Smith",
            b"John",
            b"Jones",
            b"Ann",
            b"MRN",
            b"ward",
            b"04.03.19",
            b"21.17.05",
            b"21:17:05",
            b"MAR-2019",
        ):
            assert name not in text, (path, name)
        assert not re.search(rb"(?<![0-9.])(1960|2019|2026)(?![0-9.])", text), path
    key = (tmp_path / "out.key/files.csv").read_text()
    assert "ward1/Smith_John_3.edf,3,MRNUMBER1,04.03.19 21.17.05" in key
    assert (tmp_path / "out.key").stat().st_mode & 0o077 == 0
    assert "Dr Miller called,6" in (tmp_path / "out.key/texts.csv").read_text()


def test_windows_are_around_the_labelled_seconds(eeg, files, tmp_path, read_eegs) -> None:
    signal = eeg(95)
    files.write(tmp_path / "a.edf", signal(256), 256, annotations=[(0, 95, "LPD")])
    out = tmp_path / "out"
    run("--data", tmp_path / "a.edf", "--out", out, "--pictures", 0)
    rows, eegs = rows_of(out), read_eegs(out)
    assert len(rows) == 9
    centres = 5 + 10 * np.arange(9)
    assert rows["eeg_label_offset_seconds"].tolist() == (centres - 5.0).tolist()
    true = np.full((20, 20 * 200 + 95 * 200 + 25 * 200), np.nan)
    true[:, 20 * 200 : 20 * 200 + 95 * 200] = signal(200)  # the file begins 20 s early, for the first window
    found = eegs[1000]
    assert found.shape == (20, (20 + 85 + 25) * 200)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(true[:, : found.shape[1]]))
    part = slice(20 * 200 + 50, 115 * 200 - 50)
    assert np.abs(found - true[:, : found.shape[1]])[:, part].max() < 0.5
    reader = RecordingReader(out)
    power = regional_power(signal(200).T)  # its row r is at 2 r + 2 s
    for offset in rows["spectrogram_label_offset_seconds"]:
        recording = reader.read(1000, 1)
        first = int(np.searchsorted(recording.spectrogram_time_s, offset))
        shown = recording.spectrogram[first : first + 300]
        recorded = np.flatnonzero(np.isfinite(shown).all(axis=(1, 2)))
        times = recording.spectrogram_time_s[first : first + 300] - 300
        assert len(shown) == 300
        assert times[150] - offset in (0, 1, 2)
        assert times[recorded].min() == 3  # its 4 s begin at 1 s; those of second 1 would begin before the file
        assert times[recorded].max() == 93
    times = recording.spectrogram_time_s - 300
    row = int(np.flatnonzero(times == 41)[0])
    np.testing.assert_allclose(
        recording.spectrogram[row], regional_power(signal(200)[:, 39 * 200 : 43 * 200].T)[0], rtol=0.05, atol=1e-3
    )
    assert len(power) == 46


def test_segments_of_a_long_recording_equal_one(eeg, files, tmp_path, read_eegs, monkeypatch) -> None:
    files.write(tmp_path / "a.edf", eeg(290)(256), 256, annotations=[(0, 130, "LPD"), (270, 20, "GPD")])
    words = ("--data", tmp_path / "a.edf", "--pictures", 0, "--out")
    run(*words, tmp_path / "whole")
    monkeypatch.setattr(write_files, "SEGMENT_S", 60)
    run(*words, tmp_path / "parts")
    whole, parts = read_eegs(tmp_path / "whole"), read_eegs(tmp_path / "parts")
    assert sorted(whole) == [1000]
    assert sorted(parts) == [1000, 1001, 1002, 1004]  # nothing is labelled from 180 to 240 s
    assert parts[1001].shape[1] == (60 + 50) * 200
    rows, other = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    assert rows["spectrogram_label_offset_seconds"].tolist() == other["spectrogram_label_offset_seconds"].tolist()
    for one, two in zip(rows.itertuples(), other.itertuples(), strict=True):
        first, second = round(one.eeg_label_offset_seconds * 200), round(two.eeg_label_offset_seconds * 200)
        np.testing.assert_allclose(
            whole[1000][:, first : first + 10_000], parts[two.eeg_id][:, second : second + 10_000], atol=1e-4
        )
    spectrograms = [read_spectrogram(tmp_path / name / "train_spectrograms/1.parquet") for name in ("whole", "parts")]
    np.testing.assert_array_equal(spectrograms[0][0], spectrograms[1][0])
    np.testing.assert_allclose(spectrograms[0][1], spectrograms[1][1], rtol=1e-4)


def test_a_lab_with_its_own_classes(folder, files, eeg, tmp_path) -> None:
    (folder / "dataset.yaml").write_text(FOUR)
    files.write(folder / "b.edf", eeg(60)(250), 250, annotations=[(12, 20, "ANFALL"), (35, 9, "Augen zu")])
    out = tmp_path / "out"
    run("--data", folder / "b.edf", "--out", out, "--background", "rest", "--pictures", 0)
    dataset = read_dataset(out)
    assert (dataset.name, dataset.classes) == ("lab", ("seizure", "lpd", "slow", "rest"))
    rows = rows_of(out)
    assert "expert_consensus" not in rows
    assert rows[list(dataset.vote_columns)].to_numpy().argmax(1).tolist() == [3, 0, 0, 3, 3, 3]
    run("--data", folder / "b.edf", "--out", tmp_path / "events", "--every_s", "null", "--pictures", 0)
    assert rows_of(tmp_path / "events")["eeg_label_offset_seconds"].tolist() == [0.0]
    assert rows_of(tmp_path / "events")["spectrogram_label_offset_seconds"].tolist() == [22.0]


def test_yes_no_labels_with_unknown_ones(eeg, files, tmp_path) -> None:
    files.write(tmp_path / "a.edf", eeg(60)(200))
    (tmp_path / "dataset.yaml").write_text("name: each\nclasses: [spike, slow]\ntarget: yes_no\n")
    (tmp_path / "labels.csv").write_text("file,time_s,spike_vote,slow_vote,patient\na,25,1,,7\na,35,0,1,7\n")
    run("--data", tmp_path, "--out", tmp_path / "out", "--labels", tmp_path / "labels.csv", "--pictures", 0)
    with (tmp_path / "out/train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["spike_vote"], row["slow_vote"]) for row in rows] == [("1", ""), ("0", "1")]


def test_recordings_without_labels_are_a_test_set(folder, tmp_path) -> None:
    out = tmp_path / "out"
    run("--data", folder, "--out", out, "--labels", "none", "--every_s", 20, "--pictures", 1)
    table = read_labels(out / "test.csv")
    assert not table.labelled
    assert len(table.frame) == 10
    assert len(list((out / "test_eegs").iterdir())) == 5
    assert not (out / "train.csv").exists()


def test_files_beside_the_recordings(eeg, files, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "sub-1_eeg"):
        files.write(data / f"{name}.edf", eeg(30)(200), annotations=[(0, 30, "other")])
    (data / "a.csv_bi").write_text("channel,start_time,stop_time,label,confidence\nTERM,0,30,seizure,1\n")
    (data / "sub-1_events.tsv").write_text("onset\tduration\ttrial_type\n0\t30\tGPD\n")
    run("--data", data, "--out", tmp_path / "out", "--patient", "file", "--pictures", 0)
    assert rows_of(tmp_path / "out")["expert_consensus"].tolist() == ["Seizure"] * 3 + ["Other"] * 3 + ["GPD"] * 3


def test_a_changed_file_and_a_new_one_are_imported_and_nothing_else(folder, eeg, files, tmp_path) -> None:
    out = tmp_path / "out"
    words = ("--data", folder, "--out", out, "--pictures", 0)
    run(*words)
    before = {path: path.stat().st_mtime_ns for path in out.glob("train_*/*")}
    numbers = {row.file: row.number for row in pd.read_csv(tmp_path / "out.key/files.csv").itertuples()}
    files.write(folder / "a_new.edf", eeg(30)(200), annotations=[(0, 30, "GRDA")], patient=edfio.Patient(code="N"))
    files.write(folder / "ward0/Smith_John_2.edf", eeg(60)(200), annotations=[(0, 60, "GRDA")],
                patient=edfio.Patient(code="MRNUMBER1"))  # fmt: skip
    run(*words)
    after = {path: path.stat().st_mtime_ns for path in out.glob("train_*/*")}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"2.parquet", "2000.parquet", "6.parquet", "6000.parquet"}
    rows = pd.read_csv(tmp_path / "out.key/files.csv")
    assert {row.file: row.number for row in rows.itertuples()} == {**numbers, "a_new.edf": 6}
    assert rows_of(out)["eeg_id"].value_counts().to_dict() == {1000: 2, 2000: 6, 3000: 2, 4000: 2, 5000: 2, 6000: 3}


def test_other_options_need_a_rebuild(folder, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    run("--data", folder, "--out", out, "--pictures", 0)
    run("--data", folder, "--out", out, "--pictures", 0, "--every_s", 5, "--reference", "average", code=2)
    assert "imported with other options (every_s, reference); --rebuild" in capsys.readouterr().err
    run("--data", folder, "--out", out, "--pictures", 0, "--every_s", 5, "--rebuild")
    assert len(rows_of(out)) == 25  # a label that covers half of the window is enough if it is the only one
    run("--data", folder, "--out", out, "--pictures", 0, "--labels", "none", "--rebuild")
    assert [path.name for path in out.glob("*.csv")].count("train.csv") == 0
    assert not list(out.glob("train_*/*"))
    shutil.rmtree(tmp_path / "out.key")
    run("--data", folder, "--out", out, "--pictures", 0, "--labels", "none", code=2)
    assert "a label table is there already" in capsys.readouterr().err


def test_an_import_without_label_rows_does_not_bind_the_options_of_the_next(folder, tmp_path, capsys) -> None:
    out, table = tmp_path / "out", tmp_path / "data/labels.csv"
    run("--data", folder, "--out", out, "--pictures", 0, "--labels", "rec", code=2)
    table.write_text("file,label\nward0/Smith_John_0.edf,lpd\n")
    run("--data", folder, "--out", out, "--pictures", 0, "--labels", table)
    assert rows_of(out)["expert_consensus"].unique().tolist() == ["LPD"]
    run("--data", folder, "--out", out, "--pictures", 0, code=2)
    assert "imported with other options (labels); --rebuild" in capsys.readouterr().err


def test_a_missing_recording(folder, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    run("--data", folder, "--out", out, "--pictures", 0)
    (folder / "ward0/Smith_John_0.edf").unlink()
    run("--data", folder, "--out", out, "--pictures", 0, code=2)
    assert "1 recordings of the earlier import are missing, such as 'ward0/Smith_John_0.edf'" in capsys.readouterr().err


def test_bad_recordings_are_skipped_on_request(folder, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    (folder / "bad.edf").write_bytes(b"x" * 1000)
    run("--data", folder, "--out", out, "--pictures", 0, code=2)
    assert "bad.edf: not an EDF or BDF file" in capsys.readouterr().err
    run("--data", folder, "--out", out, "--pictures", 0, "--on_error", "skip")
    report = json.loads((out / "import_report.json").read_text())
    assert len(rows_of(out)) == 10
    (rejected,) = report["rejected"]
    assert rejected == {
        "recording": 1,
        "reason": "the file: not an EDF or BDF file: expected a header that begins with version 0 or BIOSEMI",
    }


@pytest.mark.parametrize(
    ("rule", "patients"),
    [
        ("header", [1, 2, 3, 1, 2]),
        ("folder", [1, 1, 1, 2, 2]),
        ("file", [1, 2, 3, 4, 5]),
        ("_([0-9])[.]", [1, 2, 3, 4, 5]),
    ],
)
def test_patients(folder, tmp_path, rule, patients) -> None:
    run("--data", folder, "--out", tmp_path / "out", "--pictures", 0, "--patient", rule, "--labels", "none")
    assert rows_of(tmp_path / "out", "test")["patient_id"].tolist()[::4] == patients


def test_recordings_without_a_patient_are_refused(eeg, files, tmp_path, capsys) -> None:
    for name in "ab":
        files.write(tmp_path / f"{name}.edf", eeg(20)(200))
    run("--data", tmp_path, "--out", tmp_path / "out", "--labels", "none", code=2)
    assert (
        "a.edf: patient: expected a patient in the label table or in the header, found none" in capsys.readouterr().err
    )
    run("--data", tmp_path, "--out", tmp_path / "out", "--labels", "none", "--patient", "(x)", code=2)
    assert "patient: expected a match of '(x)', found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "none", "--map", "X"), "map: expected LABEL=ELECTRODE"),
        (("--labels", "table"), "labels: expected a table ending in .csv"),
        (("--labels", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--every_s", "0"), "every_s: expected 0.1 to 3600"),
        (("--workers", "0"), "workers: expected at least 1"),
        (("--patient", "name"), "patient: expected auto, table"),
        (("--background", "rest"), "background: unknown 'rest'"),
        (("--labels", "rec"), "Smith_John_0.rec beside it"),
        (("--dataset", "nothing.yaml"), "nothing.yaml: cannot read"),
        (("--out", "."), "out: expected a folder with a name, which OUT.key beside it gets too, found '.'"),
        (("--out", "/"), "out: expected a folder with a name"),
        (("--out", "lab/.."), "out: expected a folder with a name"),
    ],
)
def test_wrong_options(folder, tmp_path, capsys, words, message) -> None:
    run("--data", folder, *(() if "--out" in words else ("--out", tmp_path / "out")), *words, code=2)
    assert message in capsys.readouterr().err


def test_the_folder_of_the_recordings_is_no_place_for_the_output(folder, capsys) -> None:
    before = sorted(folder.rglob("*"))
    run("--data", folder, "--out", folder / ".." / folder.name, code=2)
    assert "holds the recordings (--data); choose another folder" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before


def test_a_data_set_of_audio_is_refused(folder, tmp_path, capsys) -> None:
    (folder / "dataset.yaml").write_text(
        "name: lab\nclasses: [a, b]\nsignal: audio\nrate_hz: 32000\nwindow_s: 10\ncontext_s: 10\n"
    )
    run("--data", folder, "--out", tmp_path / "out", code=2)
    assert (
        "dataset.yaml: signal: import converts EEG, found audio; render reads audio as it is" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_no_label_row_at_all(folder, tmp_path, capsys) -> None:
    (folder / "dataset.yaml").write_text("name: lab\nclasses: [a, b]\n")
    run("--data", folder, "--out", tmp_path / "out", code=2)
    assert "no label rows: no class is known for 'Dr Miller called' (5), 'seizure' (1)" in capsys.readouterr().err


def test_events_without_a_duration(eeg, files, tmp_path, capsys) -> None:
    files.write(tmp_path / "a.edf", eeg(40)(200), annotations=[(12, None, "LPD"), (30, None, "GPD")])
    words = ("--data", tmp_path / "a.edf", "--pictures", 0, "--out", tmp_path / "out")
    run(*words, code=2)
    assert (
        "no recording has labels with a duration; --every_s null makes a row of each event" in capsys.readouterr().err
    )
    run(*words, "--every_s", "null", "--rebuild")
    assert rows_of(tmp_path / "out")["spectrogram_label_offset_seconds"].tolist() == [12, 30]


def environment(repository):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}


@pytest.mark.slow
def test_a_killed_import_resumes_to_the_same_bytes(folder, tmp_path, repository, capsys) -> None:
    out = tmp_path / "out"
    run("--data", folder, "--out", tmp_path / "whole", "--pictures", 0)
    words = [sys.executable, "-m", "hms_dist", "import", "--data", str(folder), "--out", str(out), "--pictures", "0"]
    process = subprocess.Popen(words, env=environment(repository), stderr=subprocess.PIPE)
    results = tmp_path / "out.key/files"
    ends = time.monotonic() + 240
    while not (results.is_dir() and list(results.glob("[0-9]*.json"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < ends
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in results.glob("[0-9]*.json")}
    assert not (out / "train.csv").exists()
    run("--data", folder, "--out", out, "--pictures", 0)
    assert content_of(out) == content_of(tmp_path / "whole")
    assert {name: (results / name).stat().st_mtime_ns for name in done} == done
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(folder, tmp_path) -> None:
    run("--data", folder, "--out", tmp_path / "one", "--pictures", 0)
    run("--data", folder, "--out", tmp_path / "two", "--pictures", 0, "--workers", 2)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def importing(repository, *words):
    """Another process that imports, with its descendants in a group of their own."""
    command = [sys.executable, "-m", "hms_dist", "import", *map(str, words)]
    return subprocess.Popen(command, env=environment(repository), stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_processes_share_an_import(eeg, files, tmp_path, repository, killed) -> None:
    """Every recording is imported once, to the bytes of a single process; those of a killed one are taken over."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for number in range(6):
        files.write(data / f"{number}.edf", eeg(60)(256), 256, annotations=[(0, 60, "GPD")])
    (data / "broken.edf").write_bytes(b"x")
    words = ("--data", data, "--patient", "file", "--pictures", 0, "--on_error", "skip", "--out")
    run(*words, tmp_path / "whole")
    processes = [importing(repository, *words, out) for _ in range(2)]
    results = tmp_path / "out.key/files"
    ends = time.monotonic() + 120
    while not (results.is_dir() and list(results.glob("[0-9]*.json"))):
        assert time.monotonic() < ends
        time.sleep(0.002)
    if killed:
        os.killpg(processes[0].pid, signal.SIGKILL)
    written = defaultdict(set)
    while any(process.poll() is None for process in processes):
        for path in results.glob("[0-9]*.json"):
            written[path.name].add(path.stat().st_mtime_ns)
        time.sleep(0.01)
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL if killed else 0, 0], errors
    assert [len(times) for times in written.values()] == [1] * 6
    assert content_of(out) == content_of(tmp_path / "whole")
    run(*words, out)  # removes the lease of the killed one
    assert not list((tmp_path / "out.key").rglob("*.claim"))
    if not killed:
        assert (
            sum(error.count("finished by another process") + error.count("complete already") for error in errors) == 1
        )


def test_a_recording_that_another_process_imports_is_waited_for_and_taken_over(
    folder, tmp_path, caplog, monkeypatch
) -> None:
    from hms_dist.imports.key import Key
    from hms_dist.jobs.lease import acquire

    words = ("--data", folder, "--pictures", 0, "--out")
    run(*words, tmp_path / "whole")
    key, imported = Key(tmp_path / "out"), []
    key.create()
    make = import_recordings.import_recording
    monkeypatch.setattr(import_recordings, "import_recording", lambda task: imported.append(task.number) or make(task))
    with ExitStack() as other:
        other.enter_context(acquire(key.imports / "other.claim"))
        other.enter_context(acquire(key.file_lease(2)))
        leaves = other.pop_all()
        monkeypatch.setattr(sharing.time, "sleep", lambda _: leaves.close())  # without a result
        run(*words, tmp_path / "out")
    assert imported == [1, 2, 3, 4, 5, 2]
    assert f"sharing the import with process {os.getpid()}" in caplog.text
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_an_import_with_other_options_is_refused_while_another_runs(folder, tmp_path, capsys) -> None:
    from hms_dist.imports.key import Key
    from hms_dist.jobs.lease import acquire

    words, key = ("--data", folder, "--pictures", 0, "--out", tmp_path / "out"), Key(tmp_path / "out")
    run(*words)
    with acquire(key.imports / "other.claim"):
        for given, named in ((("--rebuild",), "--rebuild"), (("--every_s", 5), "every_s")):
            run(*words, *given, code=2)
            line = f"another import writes it (process {os.getpid()} on "
            assert line in (error := capsys.readouterr().err)
            assert f"cannot be joined with other options ({named}); wait for it" in error
    run(*words, "--rebuild")


def test_the_tables_are_not_written_of_fewer_recordings_than_another_process_found(
    folder, eeg, files, tmp_path, monkeypatch, capsys
) -> None:
    words = ("--data", folder, "--pictures", 0, "--out", tmp_path / "out")
    make = import_recordings.import_recording

    def during(task):
        if task.number == 1 and not (folder / "new.edf").exists():  # another process begins, and ends before this one
            files.write(
                folder / "new.edf", eeg(40)(200), annotations=[(0, 40, "GRDA")], patient=edfio.Patient(code="N")
            )
            run(*words)
        return make(task)

    monkeypatch.setattr(import_recordings, "import_recording", during)
    run(*words, code=1)
    assert "another import changed it meanwhile; rerun the same command" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "out")["eeg_id"].unique()) == 6


@pytest.mark.slow
def test_an_imported_set_is_rendered(folder, tmp_path) -> None:
    run("--data", folder, "--out", tmp_path / "out", "--pictures", 0, "--missing", "nan")
    assert main(["render", "--data", str(tmp_path / "out"), "--out", str(tmp_path / "set")]) == 0
    assert main(["verify", "--shards", str(tmp_path / "set")]) == 0


def test_the_report(folder, tmp_path) -> None:
    run("--data", folder, "--out", tmp_path / "out", "--pictures", 3)
    page = (tmp_path / "out/import_report.html").read_text()
    assert page.count("data:image/png;base64") == 6
    assert page.count("<article>") == 3
    assert len(CHANNELS) == 20
    assert "20 of 20" in page


def test_warnings_name_what_does_not_look_like_eeg(eeg, files, tmp_path) -> None:
    """Microvolts that are volts, mains, doubled channels, an amplifier without a high-pass filter, exchanged names."""
    true, times = eeg(30)(200), np.arange(6000) / 200
    bipolar = [("Fp1", "F7"), ("F7", "T3"), ("T3", "T5"), ("T5", "O1"), ("Fp1", "F3"), ("F3", "C3"), ("C3", "P3"),
               ("P3", "O1"), ("Fp2", "F4"), ("F4", "C4"), ("C4", "P4"), ("P4", "O2"), ("Fp2", "F8"), ("F8", "T4"),
               ("T4", "T6"), ("T6", "O2"), ("Fz", "Cz"), ("Cz", "Pz")]  # fmt: skip
    pairs = [true[CHANNELS.index(one)] - true[CHANNELS.index(other)] for one, other in bipolar]
    labels = ["-".join(pair) for pair in bipolar]
    exchanged = [labels[5], *labels[1:5], labels[0], *labels[6:]]
    doubled = true.copy()
    doubled[3] = doubled[2]
    inputs = {
        "clean": (true, None, ()),
        "volts": (true * 1e-2, None, ("amplitude below 1 uV", "flat for more than half of the time: ")),
        "mains": (true + 300 * np.sin(2 * np.pi * 50 * times), None, ("more than 25% of the power is at 50 Hz",)),
        "doubled": (doubled, None, ("the same samples in C3, P3",)),
        "offset": (true + 2500, None, ("offset above 1000 uV",)),
        "flat": (true * (np.arange(20) != 4)[:, None], None, ("flat for more than half of the time: F7",)),
        "bipolar": (pairs, labels, ()),
        "exchanged": (pairs, exchanged, ("the bipolar chains miss each other by more than 5 uV",)),
    }
    data = tmp_path / "data"
    data.mkdir()
    for name, (signals, named, _) in inputs.items():
        given = {} if named is None else {"labels": named}
        files.write(data / f"{name}.edf", signals, annotations=[(0, 30, "LPD")], **given)
    run("--data", data, "--out", tmp_path / "out", "--patient", "file", "--pictures", 0)
    report = json.loads((tmp_path / "out/import_report.json").read_text())["recordings"]
    for one, name in zip(report, sorted(inputs), strict=True):
        expected = inputs[name][2]
        assert len(one["warnings"]) == len(expected), (name, one["warnings"])
        assert all(part in line for part, line in zip(expected, one["warnings"], strict=True)), (name, one["warnings"])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_kills_do_not_change_the_result(eeg, files, tmp_path, repository, rng) -> None:
    """Imports with two workers into one folder, killed at random moments with all their processes, until one ends."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(12):
        files.write(data / f"{number}.edf", eeg(60)(256), 256, annotations=[(0, 60, "GPD")])
    options = ("--data", data, "--patient", "file", "--pictures", 0, "--workers", 2, "--out")
    began = time.monotonic()
    words = [sys.executable, "-m", "hms_dist", "import", *map(str, options)]
    subprocess.run([*words, str(tmp_path / "whole")], env=environment(repository), check=True, capture_output=True)
    whole_s, num_kills = time.monotonic() - began, 0
    while num_kills < 10:
        process = subprocess.Popen(
            [*words, str(tmp_path / "out")], env=environment(repository), stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            process.wait(rng.uniform(0.2, 1.0) * whole_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        errors = process.communicate()[1].decode()
        assert process.returncode in (0, -signal.SIGKILL), errors
        num_kills += process.returncode != 0
        if process.returncode == 0:
            assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
            shutil.rmtree(tmp_path / "out")
            shutil.rmtree(tmp_path / "out.key")
    subprocess.run([*words, str(tmp_path / "out")], env=environment(repository), check=True, capture_output=True)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    assert not [path for path in tmp_path.rglob(".*") if path.suffix == ".tmp"]
