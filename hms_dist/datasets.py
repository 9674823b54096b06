"""A data set as a value: its classes, the kind of its labels, its geometry, and the columns of a submission.

A folder of recordings describes itself in `dataset.yaml`; without that file it is HMS, or RFCX if it has RFCX's tables.
Rendering copies the description into the manifest of the shard set, and everything that reads the set takes it from
there. Recordings are EEG in Kaggle's layout (19 electrodes and EKG, 200 Hz, microvolt; rows of fixed lengths), or audio
of one channel at any rate.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from hms_dist.config.safe_yaml import read_yaml, yaml_text
from hms_dist.config.types import expected, fits
from hms_dist.core.errors import UserError, suggestion
from hms_dist.core.files import atomic

DATASET_NAME = "dataset.yaml"
"""File name of the description, in the folder of recordings."""
HMS_CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
"""Classes of HMS, in the order of its logits."""
HMS_CONSENSUS = {"Seizure": 0, "LPD": 1, "GPD": 2, "LRDA": 3, "GRDA": 4, "Other": 5}
"""Kaggle's spelling of HMS's classes in column expert_consensus -> class."""
NUM_CLASSES = range(2, 513)
"""Allowed numbers of classes."""
RESERVED = frozenset(
    (
        "key", "shard", "fold", "row", "rows", "name", "path", "all", "raw", "kl", "confusion", "num_voters",
        "num_votes", "eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id", "expert_consensus",
        "eeg_label_offset_seconds", "spectrogram_label_offset_seconds", "eeg_fingerprint", "spectrogram_fingerprint",
    )
)  # fmt: skip
"""Names of other columns and monitors beside those of classes in tables."""
Target = Literal["shares", "yes_no"]
Pooling = Literal["none", "max", "mean", "noisy_or"]
Signal = Literal["eeg", "audio"]
EEG_RATE_HZ, AUDIO_RATE_HZ = 200, 48_000
"""Sampling rate of every EEG, and of audio unless its description states another."""
AUDIO_RATES_HZ = range(1_000, 384_001)
"""Allowed sampling rates of audio."""
MAX_AUDIO_WINDOW_S = 600.0
"""Longest window of audio."""
AUDIO_RESERVED = frozenset(("recording_id", "species_id", "songtype_id", "t_min", "t_max", "f_min", "f_max", "time_s"))
"""Further names of columns where recordings are audio."""
POSITIVES_NAME, NEGATIVES_NAME = "train_tp.csv", "train_fp.csv"
"""Tables of annotations of audio: species that are there (true positives), and that are not (false positives)."""
_TEXTS = (str, Target, Signal, Pooling)
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_LABEL_CHARACTERS = 200
"""Longest text of `label_texts`."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Columns of a submission (.csv)."""

    key: str = "eeg_id"
    """Column with the id of the recording."""
    column: str = "{class}_vote"
    """Column of each class: {class} is its name, {number} its place, from 0."""
    pool: Pooling = "none"
    """Pooling of the rows of a recording: none allows one row alone; max: the largest probability of each class; mean;
    noisy_or: the probability that at least one row has it, if rows were independent."""

    def columns(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Columns of `classes`, in their order."""
        pairs = enumerate(classes)
        return tuple(self.column.replace("{class}", name).replace("{number}", str(number)) for number, name in pairs)


def _check_classes(classes: tuple[str, ...], reserved: frozenset[str]) -> None:
    if len(classes) not in NUM_CLASSES:
        raise ValueError(f"classes: expected {NUM_CLASSES[0]} to {NUM_CLASSES[-1]} names, found {len(classes)}")
    for name in classes:
        if not _CLASS.fullmatch(name):
            raise ValueError(
                f"classes: expected letters, digits and '_', a letter first (40 characters at most), found '{name}'"
            )
        if name.lower() in reserved or name.endswith("_vote") or name.startswith(("true_", "fold_of_")):
            raise ValueError(f"classes: '{name}' is the name of another column; choose another name")
    lowered = [name.lower() for name in classes]
    twice = next((name for number, name in enumerate(classes) if lowered.index(name.lower()) < number), None)
    if twice is not None:
        raise ValueError(f"classes: expected different names, found '{twice}' twice")


def _check_submission(submission: Submission, classes: tuple[str, ...]) -> None:
    columns = [submission.key, *submission.columns(classes)]
    if not all(name.strip() == name and name for name in columns) or set("".join(columns)) & set(',"\r\n;{}'):
        raise ValueError(
            f"submission: expected column names, with {{class}} or {{number}} in column, found key '{submission.key}' "
            f"and column '{submission.column}'"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"submission.column: expected {{class}} or {{number}}, so that each class has a column of its own, found "
            f"'{submission.column}'"
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Description of a data set. Raises ValueError, `<key>: expected ..., found ...`, for impossible values."""

    name: str = "hms"
    """Name in messages and reports."""
    classes: tuple[str, ...] = HMS_CLASSES
    """Names of the classes, in the order of the logits; a label table has a column <class>_vote for each."""
    target: Target = "shares"
    """shares: a row's target is the share of its votes in each class. yes_no: each class is present (a vote), absent
    (0) or unknown (empty), independently of the others."""
    signal: Signal = "eeg"
    """Kind of the recordings: EEG, or audio of one channel."""
    rate_hz: int = EEG_RATE_HZ
    """Sampling rate of the recordings once they are read: 200 for EEG; audio of another rate is resampled."""
    window_s: float = 50.0
    """Length of a row's EEG or audio, seconds."""
    context_s: float = 600.0
    """Length of the spectrogram of a row of EEG, seconds; of audio: window_s."""
    annotated_s: float = 10.0
    """Length of the part that the label describes, seconds: the middle of a row of EEG; of audio about the mean length
    of an annotation, around its middle."""
    test_step_s: float | None = None
    """Seconds between the rows of a recording of audio without labels. None: half of window_s."""
    submission: Submission = Submission()
    """Columns of a submission."""
    label_texts: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    """Text of an annotation -> its class; None: the annotation is skipped. Key `labels` of the file; only `import`
    uses it, and manifests do not have it."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: expected letters, digits, '.', '-' and '_' (64 at most), found '{self.name}'")
        is_audio = self.signal == "audio"
        _check_classes(self.classes, RESERVED | AUDIO_RESERVED if is_audio else RESERVED)
        if is_audio:
            self._check_audio()
        else:
            # Windows of EEG are rendered with these lengths; import places a shorter label in the middle of one.
            for name, length in (("rate_hz", EEG_RATE_HZ), ("window_s", 50.0), ("context_s", 600.0)):
                if getattr(self, name) != length:
                    raise ValueError(f"{name}: expected {length:g} for a set of EEG, found {getattr(self, name)}")
        if not 0 < self.annotated_s <= self.window_s:
            raise ValueError(f"annotated_s: expected above 0, at most {self.window_s:g}, found {self.annotated_s}")
        _check_submission(self.submission, self.classes)
        texts: dict[str, str] = {}
        for text, found in self.label_texts.items():
            other = texts.setdefault(text.strip().lower(), text)
            if self.label_texts[other] != found:
                raise ValueError(
                    f"labels: expected one class for '{text}' (upper and lower case do not matter), found '{other}' too"
                )
            if found is not None and found not in self.classes:
                hint = suggestion(found, self.classes)
                raise ValueError(f"labels: '{text}': unknown class '{found}'; {hint}one of: {', '.join(self.classes)}")
            if not text.strip() or len(text) > _LABEL_CHARACTERS:
                raise ValueError(f"labels: expected 1 to {_LABEL_CHARACTERS} characters, found '{text[:40]}'")

    def _check_audio(self) -> None:
        if self.rate_hz not in AUDIO_RATES_HZ:
            found = f"expected {AUDIO_RATES_HZ[0]} to {AUDIO_RATES_HZ[-1]}, found {self.rate_hz}"
            raise ValueError(f"rate_hz: {found}")
        if not 0 < self.window_s <= MAX_AUDIO_WINDOW_S:
            raise ValueError(f"window_s: expected above 0, at most {MAX_AUDIO_WINDOW_S:g}, found {self.window_s}")
        if abs(self.window_s * self.rate_hz - self.window_samples) > 1e-6:
            raise ValueError(f"window_s: expected whole samples at {self.rate_hz} Hz, found {self.window_s}")
        if self.test_step_s is not None and not 0 < self.test_step_s <= self.window_s:
            raise ValueError(
                f"test_step_s: expected above 0, at most window_s ({self.window_s:g}), found {self.test_step_s}"
            )
        if self.context_s != self.window_s:
            raise ValueError(f"context_s: expected window_s ({self.window_s:g}) for audio, found {self.context_s}")

    @property
    def window_samples(self) -> int:
        """Samples of a row's EEG or audio."""
        return round(self.window_s * self.rate_hz)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def vote_columns(self) -> tuple[str, ...]:
        """Columns of the votes in label tables and in the index, in the order of the classes."""
        return tuple(f"{name}_vote" for name in self.classes)

    @property
    def consensus_names(self) -> Mapping[str, int]:
        """Spelling of the classes in column expert_consensus -> class. Empty: only HMS has that column."""
        return HMS_CONSENSUS if self.classes == HMS_CLASSES else {}

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the classes for people: Kaggle's spelling of HMS's, else the names themselves."""
        return tuple(self.consensus_names) or self.classes

    @property
    def stored(self) -> "Dataset":
        """The description without what only `import` uses."""
        return replace(self, label_texts={})

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, with the keys of `dataset.yaml`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        submission = {one.name: getattr(self.submission, one.name) for one in fields(Submission)}
        if self.submission.pool == "none":  # as in the files of versions that did not pool
            del submission["pool"]
        labels = dict(values.pop("label_texts"))
        if self.signal == "eeg":  # as in the files of versions that knew no other signal
            del values["rate_hz"], values["test_step_s"]
        return {**values, "classes": list(self.classes), "submission": submission} | (
            {"labels": labels} if labels else {}
        )


HMS = Dataset()
"""The data set of Kaggle's competition HMS - Harmful Brain Activity Classification."""


RFCX = Dataset(
    name="rfcx",
    classes=tuple(f"s{number}" for number in range(24)),
    target="yes_no",
    signal="audio",
    rate_hz=AUDIO_RATE_HZ,
    window_s=10.0,
    context_s=10.0,
    annotated_s=2.5,
    submission=Submission(key="recording_id", column="s{number}", pool="max"),
)
"""The data set of Kaggle's competition Rainforest Connection Species Audio Detection."""


def read_dataset(folder: Path) -> Dataset:
    """Read the description of the recordings in `folder`, FOLDER/dataset.yaml; without that file it is `RFCX` if the
    folder has train_tp.csv, else `HMS`.

    Raises UserError naming file, key, expected and found value.
    """
    path = folder / DATASET_NAME
    if path.exists():
        return read_description(path)
    return RFCX if (folder / POSITIVES_NAME).exists() else HMS


def read_description(path: Path) -> Dataset:
    """Read a description from a file of any name. Raises UserError as `read_dataset`."""
    return dataset_of(read_yaml(path), str(path))


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write the description of the recordings in `folder`, atomically."""
    with atomic(folder / DATASET_NAME, "w") as file:
        file.write(yaml_text(dataset.to_json()))


def dataset_of(values: Any, where: str) -> Dataset:
    """Build a data set from plain values as `Dataset.to_json` returns them; `where` is the file in errors.

    Raises UserError for unknown keys, values of another type, and impossible ones.
    """
    hints = get_type_hints(Dataset)
    hints["labels"] = hints.pop("label_texts")
    values = _checked(values, hints, where)
    for name in ("name", "classes"):
        if name not in values:
            raise UserError(f"{where}: {name} is missing; expected at least name and classes")
    given = dict(values)
    if "submission" in given:
        options = _checked(given["submission"], get_type_hints(Submission), f"{where}: submission")
        given["submission"] = Submission(**options)
    given["label_texts"] = given.pop("labels", {})
    if given.get("signal") == "audio":
        defaults = {"rate_hz": AUDIO_RATE_HZ, "window_s": 10.0, "annotated_s": given.get("window_s", 10.0)}
        given = {**defaults, "context_s": given.get("window_s", 10.0), **given}
    try:
        return Dataset(**{**given, "classes": tuple(given["classes"])})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _checked(values: Any, hints: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check names and types of plain values. Raises UserError."""
    if not isinstance(values, Mapping):
        found = "nothing" if values is None else " ".join(str(values).split())[:40]
        raise UserError(f"{where}: expected a line for each option like 'name: value', found '{found}'")
    for key, value in values.items():
        if key not in hints:
            hint = suggestion(str(key), list(hints))
            raise UserError(f"{where}: unknown option '{str(key)[:40]}'; {hint}one of: {', '.join(hints)}")
        # YAML reads yes, no and 1 as other types than text.
        words = value if isinstance(value, list | Mapping) and key in ("classes", "labels") else ()
        other = next((word for word in words if not isinstance(word, str)), None)
        if other is not None:
            raise UserError(f"{where}: {key}: expected text, found {str(other)[:40]!s}; put it in quotes")
        if not fits(value, hints[key]) or (isinstance(value, str) and hints[key] not in _TEXTS):
            raise UserError(f"{where}: {key}: expected {expected(hints[key])}, found {repr(value)[:100]}")
    return dict(values)
