"""Members: decoding inverts encoding, and malformed bytes are rejected."""

import dataclasses
import io
import json

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.labels.table import sample_key
from hms_dist.shards.schema import PanelSpec, crc32, member_name, mirrored, spec_from_json
from hms_dist.signals import montage

BITS = PanelSpec(shape=(6, 16), dtype="bit", codec="npy.zst", axes=("row", "time"), unit="lit")
BYTES = PanelSpec(
    shape=(2, 3, 5), dtype="uint8", codec="npy.zst", axes=("region", "frequency", "time"), unit="dB",
    regions=("LL", "RL"), value_range=(-80.0, 0.0), rows_hz=(1.0, 2.0, 3.0), columns_s=(0.5, 49.5),
)  # fmt: skip
HALVES = PanelSpec(shape=(4, 7), dtype="float16", codec="npy", axes=("a", "b"), unit="ln power")


def example(rng, spec):
    if spec.dtype == "bit":
        return rng.random(spec.shape) < 0.3
    if spec.dtype == "uint8":
        return rng.integers(0, 256, spec.shape).astype(np.uint8)
    values = rng.normal(size=spec.shape).astype(np.float16)
    values[0, 0], values[0, 1] = np.nan, -np.inf
    return values


@pytest.mark.parametrize("spec", [BITS, BYTES, HALVES], ids=lambda s: s.dtype)
def test_round_trip(rng, spec):
    panel = example(rng, spec)
    stored = spec.decode(spec.encode(panel))
    assert stored.shape == spec.stored_shape
    back = np.unpackbits(stored, axis=-1).astype(bool) if spec.dtype == "bit" else stored
    np.testing.assert_array_equal(back, panel)


def test_plain_members_are_npy_files(rng):
    panel = example(rng, HALVES)
    np.testing.assert_array_equal(np.load(io.BytesIO(HALVES.encode(panel))), panel)


@pytest.mark.parametrize("spec", [BITS, BYTES, HALVES], ids=lambda s: s.dtype)
def test_equal_panels_give_equal_bytes(rng, spec):
    panel = example(rng, spec)
    assert spec.encode(panel) == spec.encode(panel.copy(order="F"))
    assert crc32(spec.encode(panel)) == crc32(memoryview(spec.encode(panel)))


@pytest.mark.parametrize("spec", [BITS, BYTES, HALVES], ids=lambda s: s.dtype)
def test_cut_or_foreign_bytes_are_refused(rng, spec):
    member = spec.encode(example(rng, spec))
    for broken in (member[:-1], b"", b"not a member", member[:20] + member[21:]):
        with pytest.raises(ValueError, match="not a"):
            spec.decode(broken)


def test_wrong_shape_or_dtype_is_refused():
    with pytest.raises(ValueError, match="expected"):
        HALVES.encode(np.zeros((4, 8), np.float16))
    with pytest.raises(ValueError, match="expected"):
        HALVES.encode(np.zeros((4, 7), np.float32))


def test_the_manifest_keeps_a_specification_whole():
    for spec in (BITS, BYTES, HALVES):
        assert spec_from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    with pytest.raises(UserError, match="bad panel specification"):
        spec_from_json({"shape": [1], "colour": "red"})


def test_impossible_specifications_are_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        dataclasses.replace(BITS, shape=(6, 15))
    with pytest.raises(ValueError, match="value_range"):
        dataclasses.replace(BYTES, value_range=None)


def test_names_of_the_other_side():
    """The same exchange as the montage's, for every pair of electrodes."""
    for one in montage.CHANNELS:
        for other in montage.CHANNELS:
            assert mirrored([f"{one}-{other}"]) == ("-".join(montage.mirrored((one, other))),)
        assert mirrored([one]) == montage.mirrored((one,))
    assert mirrored(["LL", "LP", "RP", "Fp1-average"]) == ("RL", "RP", "LP", "Fp2-average")
    assert mirrored(()) == ()


def test_names():
    key = sample_key(100, 3)
    assert key == "100-3"
    assert member_name(key, "traces", BITS) == "100-3.traces.npy.zst"
    assert member_name(key, "json") == "100-3.json"
