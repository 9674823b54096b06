"""Faults that hashes cannot show: sets with matching hashes and wrong content."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from hms_dist.rendering.find_faults import find_faults
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.schema import INDEX_NAME, PanelSpec, json_member
from hms_dist.shards.tar_check import content_faults, value_fault

POWER = PanelSpec(shape=(2, 3), dtype="float16", codec="npy", axes=("a", "b"), unit="ln(power)")
RATIO = dataclasses.replace(POWER, unit="1")
BYTES = dataclasses.replace(POWER, dtype="uint8", value_range=(-80.0, 0.0))


def member(name, change):
    """Corrupts one member's bytes in every sample."""

    def corrupt(sample):
        full_name, content = sample.members[name]
        return dataclasses.replace(sample, members={**sample.members, name: (full_name, change(content))})

    return corrupt


def fact(name, change):
    return member("json", lambda content: json_member(change(json.loads(content), name)))


def value(name, number):
    """Puts a float16 in the last place of a raw panel."""
    return member(name, lambda content: content[:-2] + struct.pack("<e", number))


def texts(folder):
    return [str(fault) for fault in find_faults(folder)]


@pytest.mark.parametrize(
    ("corrupt", "text"),
    [
        (member("power", lambda content: content[:-1]), ".power.npy cannot be decoded (not a .npy of float16 (2, 6))"),
        (member("bytes", lambda content: content.replace(b"|u1", b"|i1")), ".bytes.npy cannot be decoded (not a .npy"),
        (member("lines", lambda content: content[:-3]), ".lines.npy.zst cannot be decoded (not a zstd frame"),
        (value("power", np.inf), ".power.npy holds +inf, which no panel may"),
        (member("json", lambda content: b"{" + content), ".json cannot be decoded ("),
        (member("json", lambda content: content + b" "), ".json is not written as this program writes it"),
        (member("json", lambda content: b"[]"), ".json is not written as this program writes it"),
        (fact("lpd_vote", lambda facts, name: facts | {name: 99}), ".json has lpd_vote 99, the index "),
        (fact("gpd_vote", lambda facts, name: facts | {name: None}), ".json has gpd_vote None, the index "),
        (fact("key", lambda facts, name: facts | {name: "1-1"}), ".json has key 1-1, the index "),
        (
            fact("eeg_label_offset_seconds", lambda facts, name: {k: v for k, v in facts.items() if k != name}),
            ".json has eeg_label_offset_seconds None, the index ",
        ),
    ],
)
def test_corrupted_members_are_found_in_every_sample(make_tiny, corrupt, text):
    faults = texts(make_tiny(corrupt).folder)
    assert len(faults) == 11
    assert all(text in fault for fault in faults)


@pytest.mark.parametrize("number", [np.nan, -np.inf, 7.5])
def test_gaps_and_zero_power_are_no_faults(make_tiny, number):
    assert texts(make_tiny(value("power", number)).folder) == []


def test_more_facts_in_json_than_in_the_index_are_no_fault(make_tiny):
    assert texts(make_tiny(fact("quality", lambda facts, name: facts | {name: [1, 2]})).folder) == []


def test_ranges():
    good = np.array([[np.nan, -np.inf, 0], [1, 65504, -65504]], np.float16)
    assert value_fault(POWER, good) is None
    assert value_fault(RATIO, np.nan_to_num(good)) is None
    for number in (np.nan, -np.inf):
        assert value_fault(RATIO, np.array([number], np.float16)) == "holds NaN or -inf, which a panel in 1 may not"
    for spec in (POWER, RATIO):
        assert value_fault(spec, np.array([np.inf], np.float16)) == "holds +inf, which no panel may"
    assert value_fault(BYTES, np.arange(256).astype(np.uint8)) is None


class TestLayout:
    """A tar beside index rows that do not describe it."""

    @pytest.fixture
    def shard(self, tiny):
        content = bytearray((tiny.folder / "shard-000000.tar").read_bytes())
        rows = read_index(tiny.folder / INDEX_NAME).frame.iloc[:4]
        panels = read_manifest(tiny.folder).panels
        return lambda content=content, rows=rows: list(content_faults(memoryview(bytes(content)), rows, panels)), (
            content,
            rows,
        )

    def test_it_is_whole(self, shard):
        check, _ = shard
        assert check() == []

    @pytest.mark.parametrize("column", ["lines.offset", "json.size", "power.size"])
    def test_another_place(self, shard, column):
        check, (_, rows) = shard
        moved = rows.copy()
        moved.loc[1, column] += 1
        assert len(check(rows=moved)) >= 1
        assert f"{rows['key'].iloc[1]}.{column.partition('.')[0]}" in check(rows=moved)[0]
        assert "is not at bytes" in check(rows=moved)[0]

    def test_another_checksum(self, shard):
        check, (_, rows) = shard
        wrong = rows.copy()
        wrong.loc[2, "ratio.crc32"] ^= 1
        key = rows["key"].iloc[2]
        assert check(rows=wrong) == [f"{key}.ratio.npy.zst has another CRC-32 than in the index"]

    def test_another_order_of_samples(self, shard):
        check, (_, rows) = shard
        assert "is not at bytes" in check(rows=rows.iloc[::-1])[0]

    def test_a_sample_more_in_the_tar(self, shard):
        check, (_, rows) = shard
        assert check(rows=rows.iloc[:-1])[-1].startswith("unexpected data after byte")

    def test_a_sample_fewer_in_the_tar(self, shard):
        check, (content, rows) = shard
        cut = content[: int(rows["json.offset"].iloc[-1]) - 512]
        assert "is not at bytes" in check(content=cut)[0]

    def test_every_byte_outside_the_members_counts(self, rng, shard):
        """Headers, padding and the empty end: nothing in a tar is free to change."""
        check, (content, rows) = shard
        inside = np.zeros(len(content), bool)
        for name in ("json", "lines", "bytes", "power", "ratio"):
            for offset, size in rows[[f"{name}.offset", f"{name}.size"]].to_numpy(int):
                inside[offset : offset + size] = True
        padding = np.flatnonzero(~inside)
        for place in rng.choice(padding, 60, replace=False):
            flipped = content.copy()
            flipped[place] ^= 16
            assert len(check(content=flipped)) == 1, place

    def test_a_shorter_end_is_found(self, shard):
        check, (content, _) = shard
        assert check(content=content[:-512])[0].startswith("unexpected data after byte")
