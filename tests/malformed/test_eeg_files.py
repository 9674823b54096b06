"""Every line of docs/malformed_inputs.md on EEG files: the input is made and rendered, and the result compared."""

import os
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

INPUTS = {}
MANY_ZEROS = np.zeros(2_000_000, np.float32)


def malformed(name, corrupt, check=None):
    """Register the function that makes an input of a good folder, and for rendered ones the check of the result."""
    INPUTS[name] = (corrupt, check)


def parquet(name, change, check=None):
    """Change the second row's EEG as an arrow table."""

    def corrupt(sandbox):
        pq.write_table(change(pq.read_table(sandbox.eeg)), sandbox.eeg)

    malformed(name, corrupt, check)


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def with_value(name, row, value, dtype=None):
    def change(table):
        values = table[name].to_numpy().astype(dtype or table[name].to_numpy().dtype)
        values[row] = value
        return with_column(table, name, values)

    return change


def cast(table, kind):
    return pa.table({name: table[name].cast(kind) for name in table.column_names})


malformed("no folder of EEGs", lambda d: d.eeg.parent.rename(d.data / "eegs"))
malformed("no EEG file", lambda d: d.eeg.unlink())
malformed("a link to nowhere", lambda d: d.eeg.unlink() or d.eeg.symlink_to(d.folder / "nowhere"))
malformed("a folder in place of an EEG", lambda d: d.eeg.unlink() or d.eeg.mkdir())
malformed("a pipe in place of an EEG", lambda d: d.eeg.unlink() or os.mkfifo(d.eeg))
malformed("an EEG without permission", lambda d: d.eeg.chmod(0))
malformed("a zero-byte EEG", lambda d: d.eeg.write_bytes(b""))
malformed("an EEG cut short", lambda d: os.truncate(d.eeg, d.eeg.stat().st_size // 2))
malformed("CSV text named .parquet", lambda d: d.eeg.write_text("Fp1,F3\n1.0,2.0\n"))
malformed("a spectrogram among the EEGs", lambda d: d.eeg.write_bytes(d.spectrogram.read_bytes()))


def damage(sandbox):
    content = sandbox.eeg.read_bytes()
    sandbox.eeg.write_bytes(content[:4] + bytes(30_000) + content[30_004:])


malformed("an EEG damaged inside", damage)


parquet("an EEG without rows", lambda t: t[:0])
parquet("19 channels", lambda t: t.drop_columns("Cz"))
parquet("channels in small letters", lambda t: t.rename_columns([n.lower() for n in t.column_names]))
parquet("channels in another order", lambda t: t.select(t.column_names[::-1]))
parquet("extra channels", lambda t: t.append_column("A1", t["Cz"]).append_column("notes", [["x"] * len(t)]))
parquet("a channel twice", lambda t: t.append_column("Cz", t["Cz"]))
parquet("a channel of text", lambda t: with_column(t, "Cz", ["1.5"] * len(t)))
parquet("a channel of true and false", lambda t: with_column(t, "Cz", [True] * len(t)))
parquet("microvolts as float64", lambda t: cast(t, pa.float64()))
parquet("nulls instead of NaN", lambda t: pa.Table.from_pandas(t.to_pandas(), preserve_index=False))
parquet("an infinite voltage", with_value("Cz", 17, np.inf))
parquet("a kilovolt", with_value("Cz", 17, -2e9))
parquet("a voltage beyond float32", with_value("Cz", 17, 1e300, np.float64))
parquet("half the sampling rate", lambda t: t.take(np.arange(0, len(t), 2)))
parquet("one sample too few", lambda t: t[:-1])
parquet(
    "microvolts as whole numbers",
    lambda t: pa.table({n: pa.array(np.full(len(t), 7, np.int16)) for n in t.column_names}),
    lambda d, clean: d.panels()["eeg_spectrogram"].std() == 0,
)  # fmt: skip
parquet(
    "nothing recorded at all",
    lambda t: pa.table({n: np.full(len(t), np.nan, np.float32) for n in t.column_names}),
    lambda d, clean: (d.panels()["eeg_spectrogram"] == 255).all(),
)  # fmt: skip
parquet("an EEG of few bytes and many hours", lambda t: pa.table(dict.fromkeys(t.column_names, MANY_ZEROS)))
malformed("a socket in place of an EEG", lambda d: d.eeg.unlink() or os.mknod(d.eeg, stat.S_IFSOCK | 0o600))
parquet(
    "one channel not recorded", lambda t: with_column(t, "Fp1", np.full(len(t), np.nan, np.float32)),
    lambda d, clean: all(
        np.array_equal(d.panels()["eeg_spectrogram"][chain], clean.panels()["eeg_spectrogram"][chain])
        for chain in (2, 3)
    ),
)  # fmt: skip


def test_the_document_and_the_tests_name_the_same_inputs(documented):
    assert len(INPUTS) >= 25
    assert set(documented["EEG files"]) == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_the_result_is_the_documented_one(name, compare):
    compare("EEG files", name, *INPUTS[name])
