"""The call chain that CONTRIBUTING.md describes: seven calls from train.py to the network."""

import re
import traceback
from pathlib import Path

import hms_dist
from hms_dist.cli import main
from hms_dist.train.task import WholePicture


def test_seven_calls_lead_from_train_py_to_the_network(small_file, shard_set, tmp_path, repository, monkeypatch):
    real, chains = WholePicture.loss_rows, set()
    package = str(Path(hms_dist.__file__).parent)

    def loss_rows(self, model, *inputs):
        stack = traceback.extract_stack()[:-1]
        chains.add(tuple(frame.name for frame in stack if frame.filename.startswith(package)))
        return real(self, model, *inputs)

    monkeypatch.setattr(WholePicture, "loss_rows", loss_rows)
    options = {"config": small_file, "shards": shard_set, "out": tmp_path / "run", "epochs": 1}
    assert main(["train", *(f"--{name}={value}" for name, value in options.items())]) == 0
    text = (repository / "CONTRIBUTING.md").read_text()
    *calls, second_last, last = re.findall(r"^\| `(?:\w+\.)?(\w+)\(.*?\)` \|", text, re.MULTILINE)
    assert chains == {tuple(calls)}
    assert (second_last, last, len(calls) + 2) == ("loss_rows", "model", 7)
