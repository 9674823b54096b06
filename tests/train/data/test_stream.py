"""The stream of a run: a cursor restores it to the bit, at any world size, in a folder or at a URL; damage replaced."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product

import numpy as np
import pytest
import torch
import yaml

from hms_dist.canvas.augment import Augmenter, GroupedRows
from hms_dist.core.errors import UserError
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import load
from hms_dist.train.data.run_data import epoch_rows, open_run_data, requests_of
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.loop import run
from hms_dist.train.task import WholePicture, open_task

MIXES = [
    {"class_path": "MixUp", "init_args": {"probability": 0.7}},
    {"class_path": "CutMix", "init_args": {"probability": 0.5}},
]
"""Two in a row, so that a row may depend on another by way of a third."""


def rows_read(config, data, steps, passes):
    """For each own row that a rank reads: step, place, row, flip, panels, augmented picture and mixed label."""
    task, canvas = open_task(config, data.shards.canvas), data.shards.canvas
    requests = requests_of(config, data, task, 1, epoch_rows(config, data, 1), steps, passes)
    labels, augment = torch.from_numpy(data.labels.targets), Augmenter(config.augment, canvas)
    of_pass = product(steps, passes)
    for batch in load(data.shards.reader, requests, threads=config.reader_threads):
        step, one = next(of_pass)
        places = batch.request.places
        np.testing.assert_array_equal(places[: batch.request.num_own], one.places)
        rows = GroupedRows(batch.rows, places, config.group_size, batch.request.num_own)
        images = canvas(batch.panels, torch.from_numpy(batch.flips))
        pictures, mixed = augment(images, labels[batch.rows], rows, seed=config.seed, epoch=1)
        tensors = {**batch.panels, "pictures": pictures, "mixed": mixed}
        for i, place in enumerate(one.places.tolist()):
            own = {name: tensor[i].clone() for name, tensor in tensors.items()}
            yield (step, place), (batch.rows[i], batch.flips[i]), own


@pytest.mark.parametrize("blurs", [False, True])
@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_after_a_cursor_the_rows_are_those_of_an_uninterrupted_run_at_any_world_size(
    small, repository, rng, group_size, blurs
):
    """Augmented pictures included, of a chain with noise and of mixes within the group, in passes of any size.

    To the bit; blurs, convolutions of as many rows as a pass has, within a rounding unless the passes are the same.
    """
    chain = yaml.safe_load((repository / "configs/augment/sixteenth_place.yaml").read_text())["steps"]
    if not blurs:
        chain[1]["init_args"]["choices"] = chain[1]["init_args"]["choices"][:1]
    assert ("Blur" in str(chain)) == blurs
    config = small(global_batch=8, group_size=group_size, augment__steps=json.dumps([*chain, *MIXES]), fold="none")
    data, batching = open_run_data(config), config.batching
    num_steps = data.steps_of[1]
    whole = {
        at: (row, tensors) for at, row, tensors in rows_read(config, data, range(num_steps), batching.passes(0, 1))
    }
    cursor = int(rng.integers(1, num_steps))
    for num_ranks in (1, 2, 4, 8):
        for pass_rows in {batching.min_pass_rows(num_ranks), 8}:
            met = []
            for rank in range(num_ranks):
                passes = batching.passes(rank, num_ranks, pass_rows)
                for at, row, found in rows_read(config, data, range(cursor, num_steps), passes):
                    expected_row, expected = whole[at]
                    assert row == expected_row
                    assert list(found) == list(expected)
                    if blurs and (num_ranks, pass_rows) != (1, 8):
                        pictures = found.pop("pictures"), expected["pictures"]
                        torch.testing.assert_close(*pictures, rtol=0, atol=1e-6)
                    assert [name for name in found if not found[name].equal(expected[name])] == []
                    met.append(at)
            assert sorted(met) == list(product(range(cursor, num_steps), range(8)))


@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
@pytest.mark.parametrize("on_error", ["stop", "replace"])
@pytest.mark.parametrize("kind", ["small", "sliding"])
def test_the_rows_of_a_step_are_its_plan(request, kind, on_error, group_size):
    """Over all ranks each row once, in passes of any size; what else is read is of groups that span several ranks."""
    options = {"small": {"augment__steps": json.dumps(MIXES)} if group_size > 1 else {}, "sliding": {}}[kind]
    make = request.getfixturevalue(kind)
    config = make(global_batch=8, group_size=group_size, on_error=on_error, **options)
    data, batching = open_run_data(config), config.batching
    task, num_steps, plan = open_task(config, data.shards.canvas), data.steps_of[0], epoch_rows(config, data, 0)
    flips = {}
    for num_ranks in (1, 2, 4, 8):
        split = batching.split_groups(num_ranks)
        for pass_rows in range(batching.min_pass_rows(num_ranks), 9):
            met = []
            for rank in range(num_ranks):
                passes = batching.passes(rank, num_ranks, pass_rows)
                requests = list(requests_of(config, data, task, 0, plan, range(num_steps), passes))
                assert len(requests) == num_steps * len(passes)
                for number, one in enumerate(requests):
                    step, places = number // len(passes), one.places
                    np.testing.assert_array_equal(one.rows, plan[8 * step + places])
                    own, partners = places[: one.num_own], places[one.num_own :]
                    met.extend((8 * step + own).tolist())
                    assert one.num_own <= pass_rows
                    assert one.group_size == group_size
                    assert set(partners // group_size) <= set(own // group_size) & set(split)
                    assert len(set(places)) == len(places)
                    if on_error == "replace" and set(own // group_size) & set(split):
                        assert len(places) == group_size * len(set(own // group_size))
                    if one.flips is not None:
                        for place, flip in zip((8 * step + places).tolist(), one.flips.tolist(), strict=True):
                            assert flips.setdefault(place, flip) == flip
            assert sorted(met) == list(range(len(plan)))


def break_traces(shards, folder):
    """A copy of a set in which the traces of row 0 are damaged, both flips."""
    copy = shutil.copytree(shards, folder)
    fields = open_set(copy)[1].frame.iloc[0]
    path = copy / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    for panel in ("traces", "traces_flipped"):
        content[fields[f"{panel}.offset"] + 200] ^= 1
    path.write_bytes(content)
    return copy, fields["key"]


def test_damage_stops_a_run_or_is_replaced_and_counted(small, shard_set, tmp_path):
    broken, key = break_traces(shard_set, tmp_path / "broken")
    config = small(shards=broken, fold="none", global_batch=2, epochs=1)
    with pytest.raises(UserError, match=rf"of {key}, .* verify --repair --shards .*broken"):
        run(config)
    config = small(shards=broken, fold="none", global_batch=2, epochs=1, on_error="replace")
    run(config)  # resumes
    assert read_metrics(config.out)[-1]["num_replaced"] >= 1
    assert key in (config.out / "train.log").read_text()


def test_a_replacement_counts_as_the_row_that_it_replaces(small, shard_set, tmp_path, monkeypatch):
    """Where every row's loss is 1, so is their mean, however many experts voted on which."""
    broken, _ = break_traces(shard_set, tmp_path / "broken")
    real = WholePicture.loss_rows
    monkeypatch.setattr(WholePicture, "loss_rows", lambda *given: real(*given) * 0 + 1)
    options = {"fold": "none", "global_batch": 2, "epochs": 1, "log_every": 1, "loss__vote_power": 1}
    config = small(shards=broken, on_error="replace", **options)
    run(config)
    lines = read_metrics(config.out)
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx([1] * open_run_data(config).steps_of[0])
    assert lines[-1]["num_replaced"] >= 1


def test_a_run_reads_its_shards_from_a_url(small, finished, shard_set, tmp_path):
    class Handler(SimpleHTTPRequestHandler):
        """The standard library's, with ranges."""

        def do_GET(self):
            asked = self.headers.get("Range")
            path = shard_set / self.path.lstrip("/")
            content = path.read_bytes()
            first, last = map(int, asked.removeprefix("bytes=").split("-")) if asked else (0, len(content) - 1)
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content[first : last + 1])))
            self.end_headers()
            self.wfile.write(content[first : last + 1])

        def log_message(self, *args):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        config = small("remote", epochs=1, shards=url, storage__cache__folder=tmp_path / "c")
        run(config)
        for one in (config, finished):
            predict(Predict(run=config.out, shards=one.shards, out=one.out / "p.parquet"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    losses = [[line.get("loss") for line in read_metrics(folder)] for folder in (config.out, finished.out)]
    assert losses[0] == losses[1]
    assert (config.out / "p.parquet").read_bytes() == (finished.out / "p.parquet").read_bytes()
    assert json.loads((config.out / "status.json").read_text())["state"] == "finished"
