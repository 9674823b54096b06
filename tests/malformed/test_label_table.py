"""Every line of docs/malformed_inputs.md on the label table: the input is made and rendered, and the result
compared."""

import gzip
import os
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from hms_dist.datasets import HMS
from hms_dist.shards.index import read_index

INPUTS = {}


def malformed(name, corrupt, check=None):
    """Register the function that makes an input of a good folder, and for rendered ones the check of the result."""
    INPUTS[name] = (corrupt, check)


def text(name, change, check=None):
    """Change the table as text (or into bytes)."""

    def corrupt(sandbox):
        changed = change(sandbox.csv.read_text())
        sandbox.csv.write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    malformed(name, corrupt, check)


def frame(name, change, check=None):
    """Change the table as a frame of text cells."""

    def corrupt(sandbox):
        changed = change(pd.read_csv(sandbox.csv, dtype=str))
        changed.to_csv(sandbox.csv, index=False)

    malformed(name, corrupt, check)


def cell(name, column, value):
    """Change a cell of the second row."""

    def change(table):
        table.loc[1, column] = value
        return table

    frame(name, change)


malformed("no table", lambda d: d.csv.unlink())
malformed("a folder in place of the table", lambda d: d.csv.unlink() or d.csv.mkdir())
malformed("a pipe in place of the table", lambda d: d.csv.unlink() or os.mkfifo(d.csv))
malformed("a compressed table", lambda d: d.csv.write_bytes(gzip.compress(d.csv.read_bytes())))
malformed("a table without permission", lambda d: d.csv.chmod(0))
malformed("a parquet file named train.csv", lambda d: d.frame.to_parquet(d.csv))
text("a zero-byte table", lambda t: "")
text("column names and no rows", lambda t: t.split("\n")[0])
text("rows and no column names", lambda t: t.partition("\n")[2])
text("UTF-16", lambda t: t.encode("utf-16"))
text("Latin-1 letters", lambda t: t.replace("Seizure", "Anfälle", 1).replace("label_id", "étiquette").encode("latin-1"))
text("a byte order mark", lambda t: t.encode("utf-8-sig"))
text("Windows line ends", lambda t: t.replace("\n", "\r\n"))
text("empty lines at the end", lambda t: t + "\n\n\n")
text("empty lines between rows", lambda t: t.replace("\n", "\n\n"))
text("no line end at the end", lambda t: t.rstrip("\n"))
text("every cell in quotes", lambda t: re.sub(r"[^,\n]+", r'"\g<0>"', t))
text("blanks around column names", lambda t: t.replace(",", " , ", t.split("\n")[0].count(",")))
text(
    "blanks around cells", lambda t: "\n".join([t.split("\n")[0], *(x.replace(",", " , ") for x in t.split("\n")[1:])])
)
text("semicolons instead of commas", lambda t: t.replace(",", ";"))
text("tabs instead of commas", lambda t: t.replace(",", "\t"))
text("a quote that never ends", lambda t: t.replace("\n", '\n"', 1))
text("a quote that never ends in the last column", lambda t: re.sub(r"(\d),(\d+)\n", r'\1,"\2\n', t, count=1))
text("blanks in the lines between rows", lambda t: t.replace("\n", "\n  \n"))
text("a row with a cell too many", lambda t: t.rstrip("\n") + ",1\n")
text("a last row cut short", lambda t: ",".join(t.rstrip("\n").split(",")[:-5]))
text("a column name twice", lambda t: t.replace("label_id", "lpd_vote", 1))
text("an extra column twice", lambda t: t.replace("spectrogram_sub_id", "label_id", 1))
text("column names in capitals", lambda t: t.split("\n")[0].upper() + "\n" + t.partition("\n")[2])
frame("columns in another order", lambda f: f[f.columns[::-1]])
frame("rows in another order", lambda f: f[::-1])
frame("extra columns", lambda f: f.assign(remark="seen twice, once in colour", fold=3))
frame("no patient_id", lambda f: f.drop(columns="patient_id"))
frame("one vote column missing", lambda f: f.drop(columns="lpd_vote"))
frame("no expert_consensus", lambda f: f.drop(columns="expert_consensus"))
frame("whole votes written 3.0", lambda f: f.assign(**{name: f[name] + ".0" for name in HMS.vote_columns}))
frame("ids written 123.0", lambda f: f.assign(eeg_id=f["eeg_id"] + ".0", patient_id=f["patient_id"] + ".0"))
frame("ids written 1.23e+2", lambda f: f.assign(eeg_id=[f"{Decimal(number):e}" for number in f["eeg_id"]]))
frame("ids with zeros in front", lambda f: f.assign(eeg_id="000" + f["eeg_id"]))
frame("an EEG of two patients", lambda f: f.assign(eeg_id=f["eeg_id"][0], eeg_sub_id=["0", "1"]))
frame("a key twice", lambda f: f.assign(eeg_id=f["eeg_id"][0], patient_id=f["patient_id"][0]))
cell("an unknown class", "expert_consensus", "Spike")
cell("a fraction of a vote", "lpd_vote", "0.5")
cell("a negative vote", "lpd_vote", "-1")
cell("a word for a vote", "lpd_vote", "two")
cell("an empty vote", "lpd_vote", "")
cell("a cell of several lines", "lpd_vote", "1\n2\n3")
cell("a zero byte in a cell", "lpd_vote", "\0")
cell("digits of another script", "lpd_vote", "\N{ARABIC-INDIC DIGIT THREE}")
cell("too many votes", "lpd_vote", "1e12")
cell("an id beyond 64 bits", "eeg_id", str(2**63))
cell("a NaN id", "eeg_id", "nan")
cell("an empty id", "patient_id", "")
cell("a negative id", "eeg_id", "-5")
cell("a hexadecimal id", "eeg_id", "0xff")
cell("a fraction of an id", "patient_id", "7.5")
cell("a negative offset", "eeg_label_offset_seconds", "-2.0")
cell("a NaN offset", "spectrogram_label_offset_seconds", "nan")
cell("an infinite offset", "eeg_label_offset_seconds", "inf")
cell("a decimal comma", "eeg_label_offset_seconds", "2,5")
cell("too large an offset", "eeg_label_offset_seconds", "1e300")
cell("an EEG offset beyond the end", "eeg_label_offset_seconds", "6.0")
cell("a spectrogram offset beyond the end", "spectrogram_label_offset_seconds", "600.0")


def silent(table):
    table.loc[1, list(HMS.vote_columns)] = "0"
    return table


frame("all votes zero", silent)
frame(
    "all vote columns missing",
    lambda f: f.drop(columns=list(HMS.vote_columns)),
    lambda d, clean: not read_index(d.folder / "set/index.parquet").labelled,
)


def rename_eeg(written):
    def corrupt(sandbox):
        number = 2**53 + 1
        sandbox.eeg.rename(sandbox.eeg.with_name(f"{number}.parquet"))
        sandbox.csv.write_text(sandbox.csv.read_text().replace(sandbox.eeg.stem, written.format(number)))

    return corrupt


def has_that_id(sandbox, clean):
    ids = read_index(sandbox.folder / "set/index.parquet").ids("eeg_id")
    return sorted(ids) == sorted([2**53 + 1, sandbox.frame["eeg_id"][0]])


malformed("an id above 2^53", rename_eeg("{}"), has_that_id)
malformed("an id above 2^53 written with .0", rename_eeg("{}.0"), has_that_id)


def same_pictures(sandbox, clean):
    return all(np.array_equal(found, clean.panels()[name], True) for name, found in sandbox.panels().items())


def between(table):
    table.loc[1, "eeg_label_offset_seconds"] = "3.0024"
    return table


frame("an offset between samples", between, same_pictures)


def test_the_document_and_the_tests_name_the_same_inputs(documented):
    assert len(INPUTS) >= 60
    assert set(documented["The label table"]) == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_the_result_is_the_documented_one(name, compare):
    compare("The label table", name, *INPUTS[name])
