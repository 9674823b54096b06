"""Parts of a prediction: every row in one of them, whole groups, and nothing that is cut short or of another shape."""

import numpy as np
import pytest

from hms_dist.predict.partial_results import MAX_PARTS, Parts


@pytest.mark.parametrize("group_size", [1, 3, 8])
def test_every_row_is_in_one_part_of_whole_groups(tmp_path, group_size, rng):
    for num_rows in rng.integers(1, 10_000, 20).tolist():
        parts = Parts(tmp_path / "k", num_rows=num_rows, size=group_size, num_outputs=6)
        rows = [parts.rows_of(number) for number in parts.numbers]
        assert np.array_equal(np.concatenate(rows), np.arange(num_rows))
        assert all(len(part) % group_size == 0 and len(part) for part in rows[:-1])
        assert 1 <= len(parts.numbers) <= MAX_PARTS


def test_only_whole_parts_count_as_finished(tmp_path, rng):
    parts = Parts(tmp_path / "k", num_rows=10, size=2, num_outputs=6)
    outputs = rng.random((10, 6))
    for number in (0, 2, 3):
        parts.write(number, outputs[parts.rows_of(number)])
    path = next((tmp_path / "k").glob("*2.npy"))
    path.write_bytes(path.read_bytes()[:-1])
    np.save(next((tmp_path / "k").glob("*3.npy")), outputs[:3])
    finished = parts.finished()
    assert list(finished) == [0]
    assert np.array_equal(finished[0], outputs[:2])


def test_a_flipped_bit_anywhere_in_a_part_makes_it_unfinished(tmp_path, rng):
    parts = Parts(tmp_path / "k", num_rows=4, size=2, num_outputs=6)
    parts.write(0, rng.random((2, 6)))
    path = next((tmp_path / "k").glob("*.npy"))
    content = path.read_bytes()
    for place in rng.integers(len(content), size=20):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        assert parts.finished() == {}, place


def test_a_part_without_a_digest_is_computed_again(tmp_path, rng):
    """As earlier versions kept them."""
    parts = Parts(tmp_path / "k", num_rows=4, size=2, num_outputs=6)
    np.save(tmp_path / "k/part-000000.npy", rng.random((2, 6)))
    assert parts.finished() == {}
