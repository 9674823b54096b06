"""The loader: complete batches in order with any number of threads; damage is reported or replaced."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import DamagedMemberError, ShardReader
from hms_dist.stream.read.replacements import Replacements

PANELS = ("traces", "kaggle_spectrogram", "eeg_spectrogram")


def open_reader(folder, panels=PANELS, **options):
    return ShardReader(folder, *open_set(folder), panels, swaps={"traces": "traces_flipped"}, **options)


def random_requests(rng, num_rows, sizes):
    return [Request(rng.integers(0, num_rows, size), rng.random(size) < 0.5) for size in sizes]


@pytest.fixture
def damaged(shard_set, tmp_path):
    """A copy of the set and a function that damages the traces of a row, one bit; it returns the row's key."""
    folder = shutil.copytree(shard_set, tmp_path / "damaged")
    _, index = open_set(folder)

    def damage(row: int) -> str:
        fields = index.frame.iloc[row]
        path = folder / f"shard-{fields['shard']:06d}.tar"
        content = bytearray(path.read_bytes())
        content[fields["traces.offset"] + fields["traces.size"] // 2] ^= 4
        path.write_bytes(content)
        return str(fields["key"])

    return folder, damage


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_batches_are_whole_and_in_order(shard_set, threads, rng):
    reader = open_reader(shard_set)
    requests = random_requests(rng, len(open_set(shard_set)[1]), rng.integers(1, 9, 20))
    batches = load(reader, iter(requests), threads=threads)
    for request, batch in zip(requests, batches, strict=True):
        np.testing.assert_array_equal(batch.rows, request.rows)
        np.testing.assert_array_equal(batch.flips, request.flips)
        expected = reader.read(request.rows, request.flips)
        assert list(batch.panels) == list(expected)
        for name, stored in expected.items():
            np.testing.assert_array_equal(batch.panels[name].numpy(), stored)


def test_no_requests_give_no_batches(shard_set):
    assert list(load(open_reader(shard_set), [], threads=2)) == []


def test_a_slow_consumer_holds_no_more_than_the_ring(shard_set):
    taken, places = [], set()

    def requests():
        for number in range(60):
            taken.append(number)
            yield Request(np.array([number % 7]))

    for number, batch in enumerate(load(open_reader(shard_set), requests(), threads=2, ahead=5)):
        places.add(batch.panels["traces"].data_ptr())
        assert len(taken) <= number + 1 + 5
    assert len(taken) == 60
    assert len(places) <= 5 + 2


def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(shard_set):
    reader = open_reader(shard_set)
    batches = load(reader, (Request(np.array([row])) for row in range(20)), threads=2)
    for row in range(5):
        panels = next(batches).panels
        before = {name: tensor.clone() for name, tensor in panels.items()}
        for _ in range(3):
            reader.read(np.arange(8))
        assert all((panels[name].numpy().tobytes() == tensor.numpy().tobytes()) for name, tensor in before.items()), row
    batches.close()


def test_an_error_is_raised_in_order(shard_set):
    num_rows = len(open_set(shard_set)[1])
    batches = load(open_reader(shard_set), map(Request, [np.array([0]), np.array([num_rows])]), threads=2)
    next(batches)
    with pytest.raises(IndexError):
        next(batches)


def test_damage_is_raised_in_order_with_shard_key_and_command(damaged):
    folder, damage = damaged
    key = damage(5)
    batches = load(open_reader(folder), [Request(np.array([row, row + 1])) for row in (0, 2, 4)], threads=2)
    assert [list(next(batches).rows) for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DamagedMemberError) as caught:
        next(batches)
    for part in ("shard-000000.tar", f"traces of {key}", "bytes", f"verify --repair --shards {folder} --data DIR"):
        assert part in str(caught.value)


def test_a_tar_cut_short_is_named(damaged):
    folder, _ = damaged
    path = sorted(folder.glob("*.tar"))[0]
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(DamagedMemberError, match=r"shard-000000.tar: .* the file ends after \d+ of \d+ bytes"):
        list(load(open_reader(folder), (Request(np.array([row])) for row in range(16)), threads=2))


def test_a_missing_tar_is_named(damaged):
    folder, _ = damaged
    reader = open_reader(folder)
    sorted(folder.glob("*.tar"))[0].unlink()
    with pytest.raises(UserError, match=r"shard-000000.tar: .* cannot be read .*No such file"):
        next(load(reader, [Request(np.array([0]))], threads=1))


class TestReplacements:
    """Replacing damaged rows."""

    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_the_next_row_of_the_group_replaces_it_with_its_labels(self, damaged, caplog, threads):
        folder, damage = damaged
        keys = [damage(row) for row in (3, 4, 7)]
        request = Request(np.array([2, 3, 4, 6, 7]), np.array([True, False, False, True, False]))
        replacements = Replacements(10)
        reader = open_reader(folder)
        (batch,) = load(reader, [request], threads=threads, replacements=replacements)
        expected = np.array([2, 6, 6, 6, 2])
        np.testing.assert_array_equal(batch.rows, expected)
        np.testing.assert_array_equal(batch.flips, [True] * 5)
        np.testing.assert_array_equal(request.rows, [2, 3, 4, 6, 7])
        for name, stored in reader.read(expected, batch.flips).items():
            np.testing.assert_array_equal(batch.panels[name].numpy(), stored)
        assert replacements.num_replaced == 3
        assert all(key in caplog.text for key in keys)

    def test_only_what_is_read_counts(self, damaged):
        folder, damage = damaged
        damage(3)
        replacements = Replacements(0)
        request = Request(np.array([3, 2]), np.array([True, True]))  # the flipped panel is whole
        (batch,) = load(open_reader(folder), [request], threads=1, replacements=replacements)
        np.testing.assert_array_equal(batch.rows, [3, 2])

    def test_the_limit_stops_the_stream(self, damaged):
        folder, damage = damaged
        damage(3)
        requests = [Request(np.array([2, 3]))] * 3
        batches = load(open_reader(folder), requests, threads=1, replacements=Replacements(2))
        next(batches), next(batches)
        with pytest.raises(UserError, match=r"traces of .*max_replaced: 2 rows were replaced already"):
            next(batches)

    def test_a_group_without_a_readable_row_stops_the_stream(self, damaged):
        folder, damage = damaged
        damage(3), damage(4)
        with pytest.raises(UserError, match="no other row of its group of 2 can replace it"):
            next(load(open_reader(folder), [Request(np.array([3, 4]))], threads=1, replacements=Replacements(9)))

    def test_groups_replace_within_themselves_by_place_and_partners_do_not_count(self, damaged):
        folder, damage = damaged
        for row in (3, 4, 7):
            damage(row)
        rows = np.array([3, 4, 8, 2, 5, 6, 7])
        places = np.array([5, 6, 9, 4, 7, 8, 10])  # groups of 4: places 4 to 7, and 8 to 11
        request = Request(rows, np.zeros(7, bool), places, 4, 3)
        replacements = Replacements(10)
        (batch,) = load(open_reader(folder), [request], threads=1, replacements=replacements)
        np.testing.assert_array_equal(batch.rows, [5, 5, 8, 2, 5, 6, 6])
        assert replacements.num_replaced == 2  # row 7 is another rank's

    def test_what_cannot_be_read_at_all_is_not_replaced(self, damaged):
        folder, _ = damaged
        reader = open_reader(folder)
        sorted(folder.glob("*.tar"))[0].unlink()
        with pytest.raises(UserError, match="cannot be read"):
            next(load(reader, [Request(np.array([0, 30]))], threads=1, replacements=Replacements(9)))


@pytest.mark.parametrize("ahead", [-1, 254])
def test_invalid_numbers_of_batches_ahead_are_rejected(shard_set, ahead):
    with pytest.raises(ValueError, match=f"ahead: expected 1 to 253, found {ahead}"):
        next(load(open_reader(shard_set), [], threads=1, ahead=ahead))


def test_the_next_stream_reuses_memory_except_of_a_batch_in_use(shard_set, rng):
    reader = open_reader(shard_set)
    batches = load(reader, map(Request, np.arange(12).reshape(4, 3)), threads=2)
    kept = next(batches)
    before = {name: tensor.clone() for name, tensor in kept.panels.items()}
    batches.close()
    places = []
    for _ in range(3):
        requests = random_requests(rng, 16, [1, 3, 2, 3, 1, 3])
        for request, batch in zip(requests, load(reader, iter(requests), threads=1), strict=True):
            places.append(batch.panels["traces"].data_ptr())
            for name, stored in reader.read(request.rows, request.flips).items():
                np.testing.assert_array_equal(batch.panels[name].numpy(), stored)
    assert all(kept.panels[name].equal(tensor) for name, tensor in before.items())
    assert kept.panels["traces"].data_ptr() not in places
    assert len(set(places)) < len(places)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_interrupt_reaches_the_caller_wherever_it_waits(shard_set, threads, rng):
    """A real SIGINT, to a process of its own."""
    text = f"""
import itertools, signal, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins without
from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader
reader = ShardReader({str(shard_set)!r}, *open_set({str(shard_set)!r}), {PANELS!r})
for number, _ in enumerate(load(reader, map(Request, itertools.repeat(np.arange(8))), threads={threads})):
    if number == 3:
        print("reading", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout.readline() == "reading\n"
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "JobError" not in errors


@pytest.mark.slow
def test_an_interrupt_of_a_compiled_function_is_no_other_error(shard_set, rng):
    """Numba reports one in about a hundred as a SystemError; 300 interrupts at drawn moments, by a timer."""
    text = f"""
import itertools, random, signal, numpy as np
from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader
signal.signal(signal.SIGALRM, signal.default_int_handler)
draws = random.Random({int(rng.integers(2**31))})
reader = ShardReader({str(shard_set)!r}, *open_set({str(shard_set)!r}), {PANELS!r})
for _ in range(300):
    try:
        for number, _ in enumerate(load(reader, map(Request, itertools.repeat(np.arange(8))), threads=0)):
            if number % 200 == 1:  # again, if one was lost in a destructor
                signal.setitimer(signal.ITIMER_REAL, draws.uniform(0.0005, 0.005))
    except KeyboardInterrupt:
        pass
print("all interrupted")
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout == "all interrupted\n", done.stderr


def test_streams_begun_at_once_share_no_memory(shard_set):
    slots = open_reader(shard_set).slots
    slots.give_back(slots.take(200, pin=False), pin=False)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: slots.take(30, pin=False), range(8)))
    every = [slot for some in taken for slot in some]
    assert len(set(map(id, every))) == len(every) == 240


def test_a_row_before_the_first_is_refused(shard_set):
    with pytest.raises(IndexError, match="row -1: expected 0 to"):
        next(load(open_reader(shard_set), [Request(np.array([2, -1]))], threads=1))


def test_panels_of_different_formats_cannot_be_swapped(shard_set):
    with pytest.raises(ValueError, match="swaps: 'traces' and 'kaggle_spectrogram' are stored in different formats"):
        ShardReader(shard_set, *open_set(shard_set), PANELS, swaps={"traces": "kaggle_spectrogram"})
