"""The short cut through polars: the same numbers as without it, and out of the way when anything is unusual."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.core.signal_format import CHANNELS, KAGGLE_COLUMNS
from hms_dist.recordings.polars_reader import quick_frame, quick_matrix
from hms_dist.recordings.reader import read_eeg, read_spectrogram

pytest.importorskip("polars")


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def kaggle_file(path: Path, rng: np.random.Generator, **options: Any) -> Path:
    """A spectrogram with gaps, as NaN in one column and as null in another."""
    powers = rng.lognormal(0, 3, (400, 310)).astype(np.float32)
    powers[7, 3:9] = np.nan
    columns: dict[str, Any] = {"time": np.arange(310) * 2 + 1} | dict(zip(KAGGLE_COLUMNS, powers, strict=True))
    columns["LP_4.1"] = pa.array([None, *powers[0, 1:].tolist()], pa.float32())
    return written(path, columns, **options)


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"row_group_size": 100}, {"use_dictionary": False}])
def test_spectrograms_are_the_same_with_and_without(
    rng: np.random.Generator, tmp_path: Path, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kaggle_file(tmp_path / "1.parquet", rng, **options)
    assert quick_matrix(quick_frame(path.read_bytes()), KAGGLE_COLUMNS) is not None
    quick = read_spectrogram(path)
    monkeypatch.setitem(sys.modules, "polars", None)
    assert quick_frame(path.read_bytes()) is None
    for found, expected in zip(quick, read_spectrogram(path), strict=True):
        assert (found.dtype, found.strides) == (expected.dtype, expected.strides)
        np.testing.assert_array_equal(found, expected)


def test_eegs_are_the_same_with_and_without(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = rng.normal(0, 50, (20, 700)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    order = rng.permutation(20)
    path = written(tmp_path / "1.parquet", {CHANNELS[k]: values[k] for k in order} | {"notes": ["x"] * 700})
    quick = read_eeg(path)
    np.testing.assert_array_equal(quick, values.T)
    monkeypatch.setitem(sys.modules, "polars", None)
    np.testing.assert_array_equal(read_eeg(path), quick)
    assert read_eeg(path).strides == quick.strides


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda columns: columns | {"O1": np.zeros(5)},
        lambda columns: columns | {"O1": np.zeros(5, np.int32)},
        lambda columns: {name: values for name, values in columns.items() if name != "O1"},
    ],
    ids=["float64", "int32", "missing"],
)
def test_unusual_columns_are_left_to_others(tmp_path: Path, corrupt: Callable[[dict], dict]) -> None:
    columns = corrupt({name: np.ones(5, np.float32) for name in CHANNELS})
    frame = quick_frame(written(tmp_path / "1.parquet", columns).read_bytes())
    assert frame is not None
    assert quick_matrix(frame, CHANNELS) is None


def test_unreadable_and_empty_files_are_left_to_others(rng: np.random.Generator, tmp_path: Path) -> None:
    content = kaggle_file(tmp_path / "1.parquet", rng).read_bytes()
    empty = written(tmp_path / "2.parquet", {name: np.zeros(0, np.float32) for name in CHANNELS}).read_bytes()
    for corrupted in (b"no parquet", content[: len(content) // 2], content[:4] + bytes(3000) + content[3004:], empty):
        assert quick_frame(corrupted) is None
    assert quick_matrix(None, CHANNELS) is None
