"""Tars dealt out: every tar once an epoch, equal numbers of batches, and refusals that name the numbers."""

from itertools import islice

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.shards.manifest import read_manifest
from hms_dist.stream.tars.assignment import ShardAssignment, Tar, file_url, tars_of


def tars(sizes):
    return [
        Tar(url=f"tar-{n}", first_row=0, num_samples=size, num_wanted=size, num_bytes=0, sha256="")
        for n, size in enumerate(sizes)
    ]


def deal(sizes, ranks=1, workers=1, batch=4, resampled=False):
    return ShardAssignment(tars(sizes), batch_size=batch, num_ranks=ranks, num_workers=workers, resampled=resampled)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_tar_goes_to_one_stream_in_an_exact_epoch(num_ranks, num_workers, rng):
    dealt = deal(rng.integers(20, 40, 37), num_ranks, num_workers)
    urls = [tar.url for stream in range(dealt.num_streams) for tar in dealt.tars_for(stream, seed=1, epoch=3)]
    assert sorted(urls) == sorted(tar.url for tar in dealt.tars)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_epoch_can_give_the_promised_batches(num_ranks, num_workers, rng):
    dealt = deal(rng.integers(4, 40, 61), num_ranks, num_workers)
    for epoch in range(40):
        for rank in range(num_ranks):
            streams = range(rank, dealt.num_streams, num_ranks)
            assert sum(dealt.num_batches_of(stream) for stream in streams) >= dealt.num_batches
            for stream in streams:
                samples = sum(tar.num_wanted for tar in dealt.tars_for(stream, seed=0, epoch=epoch))
                assert samples // 4 >= dealt.num_batches_of(stream)


def test_little_is_left_out_of_equal_tars():
    dealt = deal([128] * 834 + [48], ranks=8, workers=2, batch=8)
    assert dealt.num_batches * 8 * 8 >= 0.97 * dealt.num_samples


def test_epochs_and_seeds_have_orders_of_their_own():
    dealt = deal([9] * 50)
    orders = [
        tuple(tar.url for tar in dealt.tars_for(0, seed=seed, epoch=epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(orders)) == 3
    assert orders[0] == tuple(tar.url for tar in dealt.tars_for(0, seed=0, epoch=0))


def test_resampled_tars_are_drawn_evenly_and_for_ever():
    dealt = deal([9] * 10, ranks=3, workers=2, resampled=True)
    drawn = [tar.url for stream in range(6) for tar in islice(dealt.tars_for(stream, seed=2, epoch=0), 1000)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 10
    assert abs(counts - 600).max() < 130
    assert dealt.num_batches == 90 // (4 * 3)
    assert all(dealt.num_batches_of(stream) * 2 >= dealt.num_batches for stream in range(6))


def test_only_tars_with_wanted_rows_are_left(shard_set, rng):
    manifest = read_manifest(shard_set)
    rows = rng.permutation(manifest.num_samples)[:5]
    found = tars_of("set", manifest, rows)
    assert sum(tar.num_wanted for tar in found) == 5
    for tar in found:
        inside = (rows >= tar.first_row) & (rows < tar.first_row + tar.num_samples)
        assert inside.sum() == tar.num_wanted > 0


def test_where_files_lie():
    assert file_url("http://host/set/", "a.tar") == "http://host/set/a.tar"
    assert file_url("pipe:cat /x/{name} -", "a.tar") == "pipe:cat /x/a.tar -"


def test_starving_streams_are_refused_with_the_numbers():
    with pytest.raises(
        UserError, match=r"3 tars for 2 ranks x 2 workers = 4 streams: one would get 0 tars with 0 samp"
    ):
        deal([9, 9, 9], 2, 2)
    with pytest.raises(
        UserError, match=r"2 tars for 2 ranks x 1 workers = 2 .* 1 tars with 3 samples, a batch needs 4"
    ):
        deal([9, 3], 2, 1)
    with pytest.raises(UserError, match=r"18 samples are less than one batch of 10 for each of 2 ranks"):
        deal([9, 9], 2, 1, batch=10, resampled=True)
    with pytest.raises(UserError, match="rows: no sample of the set is wanted"):
        deal([])
    assert deal([9], 2, 2, batch=2, resampled=True).num_batches == 2
