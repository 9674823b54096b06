"""The sequential stream over files, pipes and a web server: equal shares, no sample twice, no damage let through."""

import pickle
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from hms_dist.core.errors import UserError
from hms_dist.core.remote import Patience
from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import read_manifest
from hms_dist.stream.tars.sequential import SequentialConfig, SequentialStream

PANELS = ("traces", "kaggle_spectrogram")
AT_ONCE = Patience(num_retries=0)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *words):
        del words


@pytest.fixture
def server(shard_set):
    """URL of a web server that knows nothing of ranges, over `shard_set`."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shard_set)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(scope="module")
def many_tars(recordings, tmp_path_factory):
    """A set of many small tars."""
    from hms_dist.rendering.render import Render
    from hms_dist.rendering.render import run as render

    folder = tmp_path_factory.mktemp("many") / "set"
    render(Render(data=recordings, out=folder, samples_per_shard=3))
    return folder


def stream(folder, url=None, rank=0, ranks=1, rows=None, **options):
    config = SequentialConfig(**{"batch_size": 2, "workers": 0, "patience": AT_ONCE, **options})
    return SequentialStream(
        url or str(folder), read_manifest(folder), PANELS, config, rank=rank, num_ranks=ranks, rows=rows
    )


def rows_of(batches):
    return [int(row) for batch in batches for row in batch.rows]


@pytest.mark.parametrize("kind", ["folder", "pipe", "http"])
@pytest.mark.parametrize("workers", [0, 1])
def test_samples_are_those_of_the_index(shard_set, server, kind, workers):
    url = {"folder": str(shard_set), "pipe": f"pipe:cat {shard_set}/{{name}}", "http": server}[kind]
    manifest, index = open_set(shard_set)
    found = list(stream(shard_set, url, workers=workers).batches(0))
    rows = rows_of(found)
    assert len(rows) == len(set(rows)) == len(index) // 2 * 2
    for batch in found:
        assert batch.keys == tuple(index.frame["key"].iloc[batch.rows])
        np.testing.assert_array_equal(batch.votes, index.votes[batch.rows])
        for name in PANELS:
            spec, places = manifest.panels[name], index.member(name)
            for place, row in enumerate(batch.rows):
                content = (shard_set / f"shard-{index.ids('shard')[row]:06d}.tar").read_bytes()
                member = content[places.offset[row] : places.offset[row] + places.size[row]]
                expected = torch.from_numpy(spec.decode(member).copy())
                torch.testing.assert_close(batch.panels[name][place], expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_share_an_exact_epoch(many_tars, ranks, workers):
    total = read_manifest(many_tars).num_samples
    shares = [stream(many_tars, rank=rank, ranks=ranks, workers=workers) for rank in range(ranks)]
    assert len({share.num_batches for share in shares}) == 1
    rows = []
    for share in shares:
        mine = rows_of(share.batches(1))
        assert len(mine) == share.num_batches * 2
        rows += mine
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(range(total))
    streams = ranks * max(workers, 1)
    assert len(rows) >= total - streams * (3 + 2 + 3)  # an uneven share of tars, a part of a batch, the short tar


def test_epochs_differ_in_order_and_in_what_is_left_out(many_tars):
    one = stream(many_tars, ranks=4, workers=0)
    epochs = [rows_of(one.batches(epoch)) for epoch in range(3)]
    assert epochs[0] == rows_of(stream(many_tars, ranks=4, workers=0).batches(0))
    assert len({frozenset(epoch) for epoch in epochs}) == 3
    assert rows_of(stream(many_tars, ranks=4, seed=1).batches(0)) != epochs[0]


def test_the_buffer_mixes_tars(many_tars):
    def neighbours(rows):
        return np.mean(np.abs(np.diff(rows)) == 1)

    plain = rows_of(stream(many_tars, shuffle_samples=1).batches(0))
    mixed = rows_of(stream(many_tars, shuffle_samples=64).batches(0))
    assert neighbours(plain) > 0.5
    assert neighbours(mixed) < 0.2


def test_resampled_epochs_feed_any_world(shard_set):
    share = stream(shard_set, rank=5, ranks=6, workers=2, epochs="resampled")
    first = rows_of(share.batches(0))
    assert len(first) == 2 * share.num_batches == read_manifest(shard_set).num_samples // 12 * 2
    assert first == rows_of(share.batches(0))
    assert first != rows_of(share.batches(1))


def test_chosen_rows_alone_are_read(many_tars, rng):
    total = read_manifest(many_tars).num_samples
    wanted = np.sort(rng.permutation(total)[: total // 3])
    found = rows_of(stream(many_tars, rows=wanted).batches(0))
    assert set(found) <= set(wanted)
    assert len(found) == len(wanted) // 2 * 2


def test_a_world_that_would_starve_is_refused(shard_set):
    number = len(list(shard_set.glob("*.tar")))
    with pytest.raises(UserError, match=rf"{number} tars for 64 ranks x 2 workers = 128 streams: one would get 0 tars"):
        stream(shard_set, ranks=64, workers=2)


def test_a_panel_that_the_set_lacks(shard_set):
    with pytest.raises(UserError, match=r"no panel 'scalp'; the set has eeg_spectrogram, "):
        SequentialStream("x", read_manifest(shard_set), ["scalp"], SequentialConfig())


def test_options_out_of_range():
    for name, value in (("batch_size", 0), ("workers", -1), ("shuffle_samples", 0), ("seed", -1)):
        with pytest.raises((ValueError, UserError), match=f"{name}: expected"):
            SequentialConfig(**{name: value})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("corrupt", "line"),
    [
        (lambda content: content[:-2048], "expected .* bytes, found"),
        (lambda content: content[:5000] + bytes([content[5000] ^ 8]) + content[5001:], "not the bytes"),
        (None, "cannot be read"),
    ],
)
def test_a_corrupted_tar_stops_with_its_name_before_any_of_its_samples(shard_set, tmp_path, corrupt, line, workers):
    folder = shutil.copytree(shard_set, tmp_path / "set")
    path = folder / "shard-000001.tar"
    content = path.read_bytes()
    path.unlink()
    if corrupt:
        path.write_bytes(corrupt(content))
    rows = []
    batches = (rows.extend(batch.rows) for batch in stream(folder, workers=workers, shuffle_samples=1).batches(0))
    with pytest.raises(UserError) as caught:
        list(batches)
    assert re.match(rf"{path}: {line}", str(caught.value))
    assert "\n" not in str(caught.value)
    corrupted = next(tar for tar in stream(folder)._deal.tars if tar.url == str(path))
    assert not {row for row in rows if corrupted.first_row <= row < corrupted.first_row + corrupted.num_samples}


def test_a_failing_command_and_an_unknown_scheme_are_named(shard_set, server):
    for url in (f"pipe:cat {shard_set}/{{name}} && exit 3", f"{server}/nowhere", "s3://bucket/set"):
        with pytest.raises(UserError, match=r"shard-\d+\.tar.*: cannot be read"):
            next(stream(shard_set, url).batches(0))


def test_a_failed_transfer_is_repeated_without_samples_twice(shard_set, tmp_path):
    url = f"pipe:test -e {tmp_path}/{{name}} && cat {shard_set}/{{name}} || (touch {tmp_path}/{{name}}; exit 7)"
    rows = rows_of(stream(shard_set, url, patience=Patience(num_retries=1)).batches(0))
    assert len(rows) == len(set(rows)) == read_manifest(shard_set).num_samples // 2 * 2


def test_stopping_in_an_epoch_leaves_no_process(shard_set):
    import multiprocessing

    batches = stream(shard_set, workers=1).batches(0)
    next(batches)
    batches.close()
    assert not multiprocessing.active_children()


def test_workers_may_be_spawned(shard_set):
    pipeline = pickle.loads(pickle.dumps(stream(shard_set).pipeline(0)))
    assert rows_of(pipeline) == rows_of(stream(shard_set).batches(0))


def test_the_readme_reads_our_tars_without_us(shard_set, repository):
    code = readme_code(repository, "Read the shards without us")
    assert "hms_dist" not in code
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    last = sorted(shard_set.glob("*.tar"))[-1].stem[-6:]
    exec(re.sub(r"shards/hms/shard-\{000000\.\.\d+\}", f"{shard_set}/shard-{{000000..{last}}}", code), found := {})
    assert found["votes"].keys() >= {"eeg_id", "seizure_vote", "other_vote", "quality"}
    assert (found["log_power"].shape, found["log_power"].dtype) == ((4, 100, 300), np.float16)
    assert (found["traces"].shape, found["traces"].dtype) == ((640, 200), np.uint8)


def test_the_readme_reads_them_front_to_back(shard_set, repository):
    code = readme_code(repository, "Read them front to back")
    code = code.replace("aws s3 cp s3://bucket/hms/{name} -", f"cat {shard_set}/{{name}}").replace(
        "shards/hms", str(shard_set)
    )
    exec(code, found := {"rank": 0, "num_ranks": 1, "epoch": 0})
    assert found["batch"].panels["traces"].shape == (8, 640, 200)


def readme_code(repository, title):
    text = (repository / "README.md").read_text()
    return re.search(r"```python\n(.+?)```", text[text.index(f"## {title}\n") :], re.DOTALL)[1]
