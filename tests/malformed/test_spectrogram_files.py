"""Every line of docs/malformed_inputs.md on spectrogram files: the input is made and rendered, and the result
compared."""

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

INPUTS = {}


def malformed(name, corrupt, check=None):
    """Register the function that makes an input of a good folder, and for rendered ones the check of the result."""
    INPUTS[name] = (corrupt, check)


def parquet(name, change, check=None):
    """Change the second row's spectrogram as an arrow table."""

    def corrupt(sandbox):
        pq.write_table(change(pq.read_table(sandbox.spectrogram)), sandbox.spectrogram)

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


malformed("no spectrogram file", lambda d: d.spectrogram.unlink())
malformed("a spectrogram cut short", lambda d: os.truncate(d.spectrogram, d.spectrogram.stat().st_size // 2))
malformed("an EEG among the spectrograms", lambda d: d.spectrogram.write_bytes(d.eeg.read_bytes()))


def renamed(old, new):
    return lambda t: t.rename_columns([re.sub(old, new, name) for name in t.column_names])


parquet("no time column", lambda t: t.drop_columns("time"))
parquet("a region missing", lambda t: t.drop_columns([n for n in t.column_names if n.startswith("RP")]))
parquet("a frequency renamed", renamed("^LL_4.1$", "LL_4"))
parquet("frequencies in another order", lambda t: t.select(t.column_names[::-1]))
parquet("frequencies written 4.10", renamed(r"(\.\d)$", r"\g<1>0"))
parquet("power as float64", lambda t: cast(t, pa.float64()))
parquet("time as text", lambda t: with_column(t, "time", [str(s) for s in t["time"].to_pylist()]))
parquet("time as dates", lambda t: with_column(t, "time", t["time"].to_numpy().astype("datetime64[s]")))
parquet("time whole in one file, float32 in another", lambda t: with_column(t, "time", np.float32(t["time"])))
parquet("time that falls", lambda t: t.take(np.arange(len(t))[::-1]))
parquet("a time twice", with_value("time", 5, 9))
parquet("a time missing", with_value("time", 5, np.nan, np.float64))
parquet("a row every second", lambda t: with_column(t, "time", np.arange(len(t))))


def gap_after_100(sandbox, clean):
    found, whole = sandbox.panels()["kaggle_spectrogram"], clean.panels()["kaggle_spectrogram"]
    return np.isnan(found[..., 100:]).all() and np.array_equal(found[..., :100], whole[..., :100], True)


def gap_in_row_5(sandbox, clean):
    found, expected = sandbox.panels()["kaggle_spectrogram"], clean.panels()["kaggle_spectrogram"].copy()
    expected[0, 0, 5] = np.nan
    return np.array_equal(found, expected, True)


parquet("fewer rows than 10 minutes", lambda t: t[:100], gap_after_100)
parquet(
    "a spectrogram of gaps alone",
    lambda t: pa.table({n: t[n] if n == "time" else pc.multiply(t[n], np.nan) for n in t.column_names}),
    lambda d, clean: np.isnan(d.panels()["kaggle_spectrogram"]).all(),
)
parquet("negative power", with_value("LL_0.59", 5, -1), gap_in_row_5)
parquet("infinite power", with_value("LL_0.59", 5, np.inf), gap_in_row_5)
parquet("power beyond float32", with_value("LL_0.59", 5, 1e300, np.float64), gap_in_row_5)


def test_the_document_and_the_tests_name_the_same_inputs(documented):
    assert len(INPUTS) >= 20
    assert set(documented["Spectrogram files"]) == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_the_result_is_the_documented_one(name, compare):
    compare("Spectrogram files", name, *INPUTS[name])
