"""The stream of a run: a cursor restores it to the bit, at any world size, in a folder or at a URL; damage replaced."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import yaml

from hms_dist.canvas.augment import Augmenter
from hms_dist.core.errors import UserError
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import load
from hms_dist.train.data.run_data import epoch_rows, open_run_data, requests_of
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.loop import run
from hms_dist.train.task import WholePicture


def groups_read(config, data, steps, groups):
    """Rows, flips, panels, augmented pictures and mixed labels of each group that a rank reads."""
    requests = requests_of(config, data, 1, epoch_rows(config, data, 1), steps, groups)
    canvas, labels = data.shards.canvas, torch.from_numpy(data.labels.targets)
    augment = Augmenter(config.augment, canvas)
    for batch in load(data.shards.reader, requests, threads=config.reader_threads):
        images = canvas(batch.panels, torch.from_numpy(batch.flips))
        pictures, mixed = augment(images, labels[batch.rows], batch.rows, seed=config.seed, epoch=1)
        panels = {name: tensor.clone() for name, tensor in batch.panels.items()}
        yield batch.rows, batch.flips, {**panels, "pictures": pictures, "mixed": mixed}


def test_after_a_cursor_the_groups_are_those_of_an_uninterrupted_run_at_any_world_size(small, repository, rng):
    """Augmented pictures included, of a chain with noise and of mixes within the group."""
    chain = yaml.safe_load((repository / "configs/augment/sixteenth_place.yaml").read_text())["steps"]
    mix = {"class_path": "MixUp", "init_args": {"probability": 0.7}}
    config = small(global_batch=8, augment__steps=json.dumps([*chain, mix]), fold="none")
    data = open_run_data(config)
    num_steps = data.steps_of[1]
    whole = list(groups_read(config, data, range(num_steps), range(4)))
    cursor = int(rng.integers(1, num_steps))
    for num_ranks in (1, 2, 4):
        ranks = [
            groups_read(config, data, range(cursor, num_steps), config.batching.groups_of(rank, num_ranks))
            for rank in range(num_ranks)
        ]
        for place, (rows, flips, tensors) in enumerate(whole[cursor * 4 :]):
            found_rows, found_flips, found = next(ranks[place % 4 * num_ranks // 4])
            np.testing.assert_array_equal(found_rows, rows)
            np.testing.assert_array_equal(found_flips, flips)
            assert list(found) == list(tensors)
            assert [name for name in tensors if not found[name].equal(tensors[name])] == []


def test_the_groups_of_an_epoch_are_its_plan(small):
    config = small(global_batch=8)
    data = open_run_data(config)
    plan = epoch_rows(config, data, 0)
    requests = requests_of(config, data, 0, plan, range(data.steps_of[0]), range(4))
    np.testing.assert_array_equal(np.concatenate([request.rows for request in requests]), plan)


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


def test_a_run_reads_its_shards_from_a_url(small, shard_set, tmp_path):
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
        config = small(epochs=1, shards=f"http://127.0.0.1:{server.server_port}", storage__cache__folder=tmp_path / "c")
        run(config)
        local = small("local", epochs=1)
        run(local)
        for folder in (config.out, local.out):
            predict(
                Predict(
                    run=config.out, shards=(config if folder is config.out else local).shards, out=folder / "p.parquet"
                )
            )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    losses = [[line.get("loss") for line in read_metrics(folder)] for folder in (config.out, local.out)]
    assert losses[0] == losses[1]
    assert (config.out / "p.parquet").read_bytes() == (local.out / "p.parquet").read_bytes()
    assert json.loads((config.out / "status.json").read_text())["state"] == "finished"
