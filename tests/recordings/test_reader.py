"""The reader on random files, and its message for each kind of damaged file."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS, FREQUENCIES_HZ, REGIONS
from hms_dist.recordings.reader import RecordingReader, read_eeg, read_spectrogram

REAL = Path(__file__).parents[2].parent / "shared/data/iiic"
POWERS = [f"{region}_{hertz:g}" for region in REGIONS for hertz in FREQUENCIES_HZ]


def random_eeg(rng: np.random.Generator, num_samples: int = 300) -> dict[str, np.ndarray]:
    values = rng.normal(0, 50, (num_samples, 20)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    return dict(zip(CHANNELS, values.T, strict=True))


def random_spectrogram(rng: np.random.Generator, num_rows: int = 40) -> dict[str, np.ndarray]:
    values = rng.lognormal(0, 3, (num_rows, 400)).astype(np.float32)
    values[rng.random(num_rows) < 0.1] = np.nan
    return {"time": np.arange(num_rows) * 2 + 1} | dict(zip(POWERS, values.T, strict=True))


def shuffled(columns: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {name: columns[name] for name in rng.permutation(list(columns))}


def write(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_are_found_by_name_in_any_order_among_others(rng: np.random.Generator, tmp_path: Path) -> None:
    eeg, spectrogram = random_eeg(rng), random_spectrogram(rng)
    notes = {"notes": ["x"] * 300, "__index_level_0__": np.arange(300)}
    found = read_eeg(write(tmp_path / "1.parquet", shuffled(eeg | notes, rng)))
    assert found.dtype == np.float32
    assert found.T.flags.c_contiguous
    np.testing.assert_array_equal(found, np.stack(list(eeg.values()), axis=1))

    extra = {"LL_25.0": np.ones(40), "LL_notes": ["x"] * 40}
    time_s, power = read_spectrogram(write(tmp_path / "2.parquet", shuffled(spectrogram | extra, rng)))
    assert (time_s.dtype, power.dtype, power.shape) == (np.float64, np.float32, (40, 4, 100))
    np.testing.assert_array_equal(time_s, spectrogram["time"])
    for region, hertz in (("LL", 4.1), ("RP", 12.5), ("LP", 3.13), ("RL", 19.92)):
        column = power[:, REGIONS.index(region), FREQUENCIES_HZ.index(hertz)]
        np.testing.assert_array_equal(column, spectrogram[f"{region}_{hertz:g}"])


def test_frequencies_are_compared_as_numbers(rng: np.random.Generator, tmp_path: Path) -> None:
    """`LL_4.1` and `LL_4.10` are one frequency."""
    columns = random_spectrogram(rng)
    renamed = {name + "0" if name.endswith("_4.1") else name: values for name, values in columns.items()}
    expected = read_spectrogram(write(tmp_path / "1.parquet", columns))
    found = read_spectrogram(write(tmp_path / "2.parquet", renamed))
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float64])
def test_other_number_types_are_converted(rng: np.random.Generator, tmp_path: Path, dtype: type) -> None:
    values = rng.integers(-3000, 3000, (50, 20)).astype(dtype)
    found = read_eeg(write(tmp_path / "1.parquet", dict(zip(CHANNELS, values.T, strict=True))))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)
    columns = random_spectrogram(rng)
    time_s, _ = read_spectrogram(write(tmp_path / "2.parquet", columns | {"time": columns["time"].astype(dtype)}))
    np.testing.assert_array_equal(time_s, columns["time"])


def test_nulls_become_nan(rng: np.random.Generator, tmp_path: Path) -> None:
    columns: dict[str, Any] = random_eeg(rng, 4)
    columns["Cz"] = pa.array([1, None, 3, None], pa.int64())
    columns["Pz"] = pa.array([1.5, None, None, 4.5], pa.float32())
    found = read_eeg(write(tmp_path / "1.parquet", columns))
    np.testing.assert_array_equal(found[:, CHANNELS.index("Cz")], [1, np.nan, 3, np.nan])
    np.testing.assert_array_equal(found[:, CHANNELS.index("Pz")], [1.5, np.nan, np.nan, 4.5])


def test_reader_reads_each_file_once_and_fingerprints_it(rng: np.random.Generator, tmp_path: Path) -> None:
    eegs = [write(tmp_path / f"test_eegs/{number}.parquet", random_eeg(rng)) for number in (11, 12)]
    spectrogram = write(tmp_path / "test_spectrograms/21.parquet", random_spectrogram(rng))
    reader = RecordingReader(tmp_path, "test")
    first, again = reader.read(11, 21), reader.read(11, 21)
    assert again.eeg is first.eeg
    other = reader.read(12, 21)
    assert other.spectrogram is first.spectrogram
    np.testing.assert_array_equal(other.eeg, read_eeg(eegs[1]))
    content = spectrogram.read_bytes()
    assert reader.fingerprints["test_spectrograms/21.parquet"] == f"{len(content)}-{zlib.crc32(content):08x}"
    assert sorted(reader.fingerprints) == [
        "test_eegs/11.parquet",
        "test_eegs/12.parquet",
        "test_spectrograms/21.parquet",
    ]


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("read", [read_eeg, read_spectrogram])
def test_files_that_cannot_be_read(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "1.parquet"
    assert "no such file; the label table names it" in refusal(read, path)
    path.write_bytes(b"")
    assert "the file is empty; expected parquet" in refusal(read, path)
    path.write_bytes(b"eeg_id,Fp1\n1,2\n")
    assert "not a readable parquet file" in refusal(read, path)
    assert "not a file; expected parquet; put the file in its place" in refusal(read, tmp_path)
    write(path, {name: np.zeros(0, np.float32) for name in (*CHANNELS, "time", *POWERS)})
    assert "the file has no rows; expected at least one" in refusal(read, path)


def test_truncated_and_damaged_files(rng: np.random.Generator, tmp_path: Path) -> None:
    path = write(tmp_path / "1.parquet", random_eeg(rng, 5000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "not a readable parquet file" in refusal(read_eeg, path)
    path.write_bytes(content[:4] + bytes(30_000) + content[30_004:])
    assert "damaged parquet data" in refusal(read_eeg, path)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1.1e9, -1e30, 1e300])
def test_too_large_voltages(rng: np.random.Generator, tmp_path: Path, value: float) -> None:
    row, name = int(rng.integers(300)), str(rng.choice(CHANNELS))
    eeg = random_eeg(rng)
    eeg[name] = eeg[name].astype(np.float64)
    eeg[name][row] = value
    found = value if abs(value) < 3e38 else np.copysign(np.inf, value)
    expected = f"row {row}, column {name}: expected microvolts, found {found:g}; mark what was not recorded as NaN"
    assert expected in refusal(read_eeg, write(tmp_path / "1.parquet", eeg))


@pytest.mark.parametrize("step_s", [1.0, 1.9, 4.0])
def test_rows_that_are_not_two_seconds_apart(rng: np.random.Generator, tmp_path: Path, step_s: float) -> None:
    columns = random_spectrogram(rng, 40) | {"time": 1 + step_s * np.arange(40)}
    message = refusal(read_spectrogram, write(tmp_path / "1.parquet", columns))
    assert f"column time: expected rows 2 s apart, found {step_s:g} s; resample the file" in message
    columns["time"] = np.delete(np.arange(41) * 2.0 + 1, 7)  # a missing row is not another rate
    assert len(read_spectrogram(write(tmp_path / "2.parquet", columns))[0]) == 40


def test_missing_columns(rng: np.random.Generator, tmp_path: Path) -> None:
    eeg, spectrogram = random_eeg(rng), random_spectrogram(rng)
    del eeg["Fp2"], eeg["EKG"], spectrogram["LP_4.1"]
    message = refusal(read_eeg, write(tmp_path / "1.parquet", eeg))
    assert "missing columns Fp2, EKG; found Fp1, F3, C3, P3, F7, T3 and 12 more" in message
    message = refusal(read_spectrogram, write(tmp_path / "2.parquet", spectrogram))
    assert "missing columns LP_4.1; found time, LL_0.59" in message
    del spectrogram["time"], spectrogram["LL_12.5"]
    message = refusal(read_spectrogram, write(tmp_path / "2.parquet", spectrogram))
    assert "missing columns time, LL_12.5, LP_4.1;" in message


def test_columns_that_are_not_numeric_or_appear_twice(rng: np.random.Generator, tmp_path: Path) -> None:
    eeg: dict[str, Any] = random_eeg(rng, 3)
    message = refusal(read_eeg, write(tmp_path / "1.parquet", eeg | {"O1": ["a", "b", "c"]}))
    assert "column O1: expected numbers, found string; convert it" in message
    message = refusal(read_eeg, write(tmp_path / "2.parquet", eeg | {"O1": [True, False, True]}))
    assert "column O1: expected numbers, found bool" in message
    twice = pa.Table.from_arrays([pa.array(eeg[name]) for name in (*CHANNELS, "Fz")], names=[*CHANNELS, "Fz"])
    pq.write_table(twice, tmp_path / "3.parquet")
    assert "columns Fz appear more than once; expected once" in refusal(read_eeg, tmp_path / "3.parquet")


def test_exchanged_folders(rng: np.random.Generator, tmp_path: Path) -> None:
    eeg = write(tmp_path / "train_spectrograms/1.parquet", random_eeg(rng))
    spectrogram = write(tmp_path / "train_eegs/1.parquet", random_spectrogram(rng))
    assert "expected an EEG (columns Fp1, F3, C3" in refusal(read_eeg, spectrogram)
    assert "found a spectrogram; exchange the files" in refusal(read_eeg, spectrogram)
    assert "expected a spectrogram (columns time, LL_0.59, ...), found an EEG" in refusal(read_spectrogram, eeg)
    with pytest.raises(UserError, match=r"test_eegs: no such folder; expected the test eegs in Kaggle's layout"):
        RecordingReader(tmp_path, "test").read(1, 1)


@pytest.mark.parametrize(
    ("time_s", "complaint"),
    [
        ([1.0, 3.0, 3.0, 5.0], "row 2, column time: expected seconds that rise, found 3 after 3"),
        ([1.0, 5.0, 3.0, 7.0], "row 2, column time: expected seconds that rise, found 3 after 5"),
        ([1.0, np.nan, 5.0, 7.0], "row 1, column time: expected seconds that rise, found nan after 1"),
        ([np.nan, 3.0, 5.0, 7.0], "row 0, column time: expected seconds that rise, found nan"),
        ([1.0, 3.0, 5.0, np.inf], "row 3, column time: expected seconds that rise, found inf after 5"),
    ],
)
def test_time_that_does_not_rise(rng: np.random.Generator, tmp_path: Path, time_s: list[float], complaint: str) -> None:
    columns = random_spectrogram(rng, 4) | {"time": time_s}
    assert complaint in refusal(read_spectrogram, write(tmp_path / "1.parquet", columns))


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/iiic beside the checkout")
def test_real_files() -> None:
    recording = RecordingReader(REAL).read(9100000, 9200000)
    assert recording.eeg.shape == (10_000, 20)
    assert recording.spectrogram.shape == (300, 4, 100)
    assert 1 < np.nanstd(recording.eeg) < 500
    table = pq.read_table(REAL / "train_spectrograms/9200000.parquet").to_pydict()
    np.testing.assert_array_equal(recording.spectrogram[:, 1, 20], np.float32(table[f"RL_{FREQUENCIES_HZ[20]}"]))
