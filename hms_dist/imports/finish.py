"""Tables of an imported set: train.csv or test.csv, recordings.csv, dataset.yaml, and what the report lists."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.core.files import write_json
from hms_dist.datasets import HMS, Dataset, write_dataset
from hms_dist.imports.job import Work
from hms_dist.imports.key import TEXTS_NAME, Key, KeyRow, write_csv

REPORT_NAME = "import_report.json"
_IDS = (
    "eeg_id", "eeg_sub_id", "eeg_label_offset_seconds", "spectrogram_id", "spectrogram_sub_id",
    "spectrogram_label_offset_seconds", "label_id", "patient_id",
)  # fmt: skip
_RECORDING = (
    "recording", "patient_id", "format", "length_s", "rates_hz", "num_channels", "montage", "reference", "missing",
    "gaps", "gaps_s", "num_rows", "warnings",
)  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """Results of an import, for its report."""

    values: dict[str, Any]
    """Content of import_report.json. Texts of annotations are not in it: people write names into them."""
    rows: list[dict[str, Any]]
    """Label rows, as in the table."""
    unknown_texts: Counter[str]


def table_path(work: Work) -> Path:
    """Path of the label table."""
    return work.out / f"{work.split}.csv"


def collect(work: Work, key: Key, rows: Sequence[KeyRow], rejected: Mapping[int, str]) -> Imported:
    """Read the results of all recordings. `rejected`: number -> reason, without the name of the file.

    Raises UserError if there is no label row.
    """
    recordings: list[dict[str, Any]] = []
    label_rows: list[dict[str, Any]] = []
    unknown: Counter[str] = Counter()
    for row in rows:
        result = None if row.number in rejected else key.result(row.number)
        if result is None:
            continue
        recordings.append({"recording": row.number, "patient_id": row.patient_id, **result["facts"]})
        label_rows += [_label_row(row, place, one, work.dataset) for place, one in enumerate(result["rows"])]
        unknown.update(result["unknown_texts"])
    if not label_rows:
        raise _no_rows(work, unknown, rejected)
    votes = {name: sum(row[f"{name}_vote"] or 0 for row in label_rows) for name in work.dataset.classes}
    values = {
        "format_version": 1,
        "dataset": work.dataset.stored.to_json(),
        "num_recordings": len(recordings),
        "num_patients": len({one["patient_id"] for one in recordings}),
        "num_rows": len(label_rows),
        "hours": round(sum(one["length_s"] for one in recordings) / 3600, 3),
        "votes": votes if work.labelled else None,
        "num_unknown_texts": len(unknown),
        "rejected": [{"recording": number, "reason": reason} for number, reason in sorted(rejected.items())],
        "recordings": recordings,
    }
    return Imported(values, label_rows, unknown)


def write_tables(work: Work, key: Key, imported: Imported) -> None:
    """Write all tables but the label table."""
    if work.dataset.stored != HMS:
        write_dataset(work.out, work.dataset.stored)
    cells = [
        [_cell(one["recording"] if name == "recording" else one[name]) for name in _RECORDING]
        for one in imported.values["recordings"]
    ]
    write_csv(work.out / "recordings.csv", _RECORDING, cells)
    write_csv(key.folder / TEXTS_NAME, ("text", "count"), imported.unknown_texts.most_common())
    write_json(work.out / REPORT_NAME, imported.values)


def write_label_table(work: Work, imported: Imported) -> None:
    """Write train.csv or test.csv, which marks the set as complete."""
    names = [*_IDS]
    if work.labelled:
        names += [*(["expert_consensus"] if work.dataset.consensus_names else []), *work.dataset.vote_columns]
    write_csv(table_path(work), names, [[row[name] for name in names] for row in imported.rows])


def _label_row(key: KeyRow, place: int, row: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    votes = row["votes"]
    consensus = list(dataset.consensus_names)
    counts = [vote or 0 for vote in votes]
    return {
        "eeg_id": row["eeg_id"],
        "eeg_sub_id": row["eeg_sub_id"],
        "eeg_label_offset_seconds": row["eeg_offset_s"],
        "spectrogram_id": key.number,
        "spectrogram_sub_id": place,
        "spectrogram_label_offset_seconds": row["spectrogram_offset_s"],
        "label_id": key.number * 1_000_000 + place,
        "patient_id": key.patient_id,
        "expert_consensus": consensus[counts.index(max(counts))] if consensus else "",
        **dict(zip(dataset.vote_columns, votes, strict=True)),
    }


def _no_rows(work: Work, unknown: Counter[str], rejected: Mapping[int, str]) -> UserError:
    if unknown:
        texts = ", ".join(f"'{text[:40]}' ({count})" for text, count in unknown.most_common(8))
        return UserError(
            f"no label rows: no class is known for {texts}; give these texts their classes under labels: in "
            "dataset.yaml (--dataset)"
        )
    if rejected:
        return UserError("no label rows: every recording was rejected; without --on_error skip the first one is named")
    return UserError(
        "no label rows: no recording has labels with a duration; --every_s null makes a row of each event, "
        "--labels FILE reads a table, --labels none imports recordings without labels"
    )


def _cell(value: Any) -> Any:
    return (
        "; ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
        if isinstance(value, list)
        else value
    )
