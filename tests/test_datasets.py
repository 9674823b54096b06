"""Description of a data set: what a file may hold, and what is refused in one line."""

import ast
import re
from pathlib import Path

import pytest

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.datasets import DATASET_NAME, HMS, Dataset, Submission, read_dataset, write_dataset

LAB = Dataset(
    name="lab",
    classes=("calm", "spikes", "slow", "artefact"),
    target="yes_no",
    annotated_s=5.0,
    submission=Submission(key="recording", column="s{number}"),
    label_texts={"Spike & wave": "spikes", "EYE": None, "1": "calm"},
)


BIRDS = Dataset(
    name="birds", classes=("s0", "s1"), target="yes_no", signal="audio", rate_hz=48_000,
    window_s=10.0, context_s=10.0, annotated_s=2.5,
)  # fmt: skip


def test_a_folder_without_a_file_is_hms(tmp_path: Path) -> None:
    assert read_dataset(tmp_path) == HMS
    assert HMS.vote_columns[0] == "seizure_vote"
    assert HMS.titles[1] == "LPD"
    assert HMS.submission.columns(HMS.classes) == HMS.vote_columns


def test_a_file_reads_back(tmp_path: Path) -> None:
    for dataset in (HMS, LAB, BIRDS, Dataset(name="two", classes=("a", "b"))):
        write_dataset(tmp_path, dataset)
        assert read_dataset(tmp_path) == dataset
    assert LAB.submission.columns(LAB.classes) == ("s0", "s1", "s2", "s3")
    assert LAB.titles == LAB.classes
    assert LAB.stored.label_texts == {}
    assert len({LAB, LAB.stored, HMS}) == 3


def test_what_a_file_leaves_out_is_as_in_hms(tmp_path: Path) -> None:
    (tmp_path / DATASET_NAME).write_text("name: lab\nclasses: [calm, spikes]\nlabels: {SPW: spikes, eye: null}\n")
    expected = Dataset(name="lab", classes=("calm", "spikes"), label_texts={"SPW": "spikes", "eye": None})
    assert read_dataset(tmp_path) == expected


def test_audio_has_lengths_and_a_rate_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / DATASET_NAME
    path.write_text("{name: birds, classes: [s0, s1], target: yes_no, signal: audio, annotated_s: 2.5}")
    assert read_dataset(tmp_path) == BIRDS
    assert BIRDS.window_samples == 480_000
    path.write_text("{name: bats, classes: [a, b], signal: audio, rate_hz: 250000, window_s: 3}")
    bats = read_dataset(tmp_path)
    assert (bats.window_s, bats.context_s, bats.annotated_s, bats.window_samples) == (3, 3, 3, 750_000)
    stored = LAB.to_json()  # descriptions of EEG are stored as before
    assert not {"rate_hz", "test_step_s"} & stored.keys()
    assert "pool" not in stored["submission"]


AUDIO = "name: lab\nclasses: [a, b]\nsignal: audio"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line for each option like 'name: value', found 'nothing'"),
        ("[a, b]", "expected a line for each option"),
        ("classes: [a, b]", "name is missing"),
        ("name: lab", "classes is missing"),
        ("name: lab\nclass: [a, b]", "unknown option 'class'; did you mean classes?"),
        ("name: lab\nclasses: [a, b]\nclasses: [a, c]", "duplicate key 'classes'"),
        ("name: lab\nclasses: a", "classes: expected a list, each text, found 'a'"),
        ("name: lab\nclasses: '[a, b]'", "classes: expected a list, each text, found '[a, b]'"),
        ("name: lab\nclasses: [yes, no]", "classes: expected text, found True; put it in quotes"),
        ("name: lab\nclasses: [a]", "classes: expected 2 to 512 names, found 1"),
        (f"name: lab\nclasses: [{', '.join(f'c{i}' for i in range(513))}]", "expected 2 to 512 names, found 513"),
        ("name: lab\nclasses: [a, b, a]", "classes: expected different names, found 'a' twice"),
        ("name: lab\nclasses: [a, B, b]", "classes: expected different names, found 'b' twice"),
        ("name: lab\nclasses: [a, spike wave]", "found 'spike wave'"),
        ("name: lab\nclasses: [a, 2nd]", "found '2nd'"),
        ("name: lab\nclasses: [a, Anfälle]", "found 'Anfälle'"),
        ("name: lab\nclasses: [a, fold]", "classes: 'fold' is the name of another column"),
        ("name: lab\nclasses: [a, a_vote]", "classes: 'a_vote' is the name of another column"),
        ("name: lab\nclasses: [a, true_a]", "classes: 'true_a' is the name of another column"),
        ("name: ../lab\nclasses: [a, b]", "name: expected letters, digits"),
        ("name: 3\nclasses: [a, b]", "name: expected text, found 3"),
        ("name: lab\nclasses: [a, b]\ntarget: votes", "target: expected one of shares, yes_no, found 'votes'"),
        ("name: lab\nclasses: [a, b]\nsignal: meg", "signal: expected one of eeg, audio, found 'meg'"),
        ("name: lab\nclasses: [a, b]\nrate_hz: 256", "rate_hz: expected 200 for a set of EEG, found 256"),
        (f"{AUDIO}\nrate_hz: 500", "rate_hz: expected 1000 to 384000, found 500"),
        (f"{AUDIO}\nwindow_s: 0", "window_s: expected above 0, at most 600, found 0"),
        (f"{AUDIO}\nwindow_s: 0.10001", "window_s: expected whole samples at 48000 Hz, found 0.10001"),
        (f"{AUDIO}\ntest_step_s: 11", "test_step_s: expected above 0, at most window_s (10), found 11"),
        (
            f"{AUDIO}\nsubmission: {{pool: sum}}",
            "submission: pool: expected one of none, max, mean, noisy_or, found 'sum'",
        ),
        (f"{AUDIO}\ncontext_s: 60", "context_s: expected window_s (10) for audio, found 60"),
        (f"{AUDIO}\nannotated_s: 11", "annotated_s: expected above 0, at most 10, found 11"),
        ("name: lab\nclasses: [a, t_min]\nsignal: audio", "classes: 't_min' is the name of another column"),
        ("name: lab\nclasses: [a, b]\nwindow_s: 10", "window_s: expected 50 for a set of EEG, found 10"),
        ("name: lab\nclasses: [a, b]\nwindow_s: '50'", "window_s: expected a number, found '50'"),
        ("name: lab\nclasses: [a, b]\ncontext_s: 0", "context_s: expected 600 for a set of EEG, found 0"),
        ("name: lab\nclasses: [a, b]\nannotated_s: 0", "annotated_s: expected above 0, at most 50, found 0"),
        ("name: lab\nclasses: [a, b]\nannotated_s: .nan", "annotated_s: expected above 0, at most 50, found nan"),
        ("name: lab\nclasses: [a, b]\nsubmission: {kye: id}", "submission: unknown option 'kye'; did you mean key?"),
        ("name: lab\nclasses: [a, b]\nsubmission: {column: s}", "submission.column: expected {class} or {number}"),
        ("name: lab\nclasses: [a, b]\nsubmission: {column: '{name}'}", "submission: expected column names"),
        ("name: lab\nclasses: [a, b]\nsubmission: id", "submission: expected options, found 'id'"),
        ("name: lab\nclasses: [a, spikes]\nlabels: {spk: spike}", "'spk': unknown class 'spike'; did you mean spikes?"),
        ("name: lab\nclasses: [a, b]\nlabels: {1: b}", "labels: expected text, found 1; put it in quotes"),
        ("name: lab\nclasses: [a, b]\nlabels: {x: 1}", "labels: expected names, each with text or null"),
        ("name: lab\nclasses: [a, b]\nlabels: {'': a}", "labels: expected 1 to 200 characters, found ''"),
        (
            "name: lab\nclasses: [a, b]\nlabels: {x: a, X: b}",
            "labels: expected one class for 'X' (upper and lower case do not matter)",
        ),
        ("name: lab\nclasses: [a, b]\nlabels: [x]", "labels: expected names, each with text or null"),
        ("name: !!python/object:os.system lab", "not valid YAML"),
        ("#" * (limits.YAML_BYTES + 1), "cannot read this configuration file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / DATASET_NAME
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        read_dataset(tmp_path)
    assert str(refusal.value).startswith(str(path))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


NAMES = re.compile(r"\b(seizure|lpd|gpd|lrda|grda)\b", re.IGNORECASE)
KNOWING = ("hms_dist/datasets.py", "hms_dist/recordings/simulat")
"""Prefixes of the files that may know the classes of HMS."""


def test_only_the_description_and_the_simulator_know_the_classes_of_hms(repository: Path) -> None:
    for path in sorted((repository / "hms_dist").rglob("*.py")):
        name = str(path.relative_to(repository))
        if name.startswith(KNOWING):
            continue
        tree = ast.parse(path.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "hms_dist.datasets":
                assert not {alias.name for alias in node.names} & {"HMS_CLASSES", "HMS_CONSENSUS"}, name
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                assert not NAMES.search(node.value), f"{name}, line {node.lineno}: {node.value!r}"
