"""Every line of the third table of docs/errors.md: the mistake is made, and the line compared."""

import json
import os
import re
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from hms_dist.cli import main
from hms_dist.jobs.lease import Owner

ROW = re.compile(r"^\| ([^|]+?) \| `(.+)` \|$", re.MULTILINE)
TEXT = (Path(__file__).parents[2] / "docs/errors.md").read_text()
TABLE = dict(ROW.findall(TEXT[TEXT.index("## Chains of steps") :]))
FIRST = {"name": "a", "command": "verify --shards s", "makes": "{out}/a{n}", "each": "n"}
SECOND = {"name": "b", "command": "verify --shards s", "makes": "{out}/b", "after": ["a"]}


class Sandbox:
    """An empty folder, a chain of two steps that nothing is there for, and the commands."""

    def __init__(self, folder):
        self.folder = folder

    def chain(self, *words, first=(), second=(), steps=None, lists=None):
        steps = [{**FIRST, **dict(first)}, {**SECOND, **dict(second)}] if steps is None else steps
        given = ["--steps", json.dumps(steps), "--lists", json.dumps({"n": [0, 1]} if lists is None else lists)]
        return main(["pipeline", *given, "--data", str(self.folder), "--out", str(self.folder / "out"), *words])

    def alone(self, **changes):
        return self.chain(steps=[{"name": "a", "command": "verify", "makes": "m", **changes}])

    def grid(self, option):
        """A step that trains by a recipe with this option."""
        recipe = {"name": "r", "configs": ["configs/train/small.yaml"], "options": {option: 1}}
        text = json.dumps([recipe]).replace("{", "{{").replace("}", "}}")
        return f"grid --shards s --recipes '{text}'"

    def taken(self):
        """The second step, which is to wait for a lease to die that another job takes meanwhile."""
        for number in (0, 1):
            self.write(f"out/a{number}", "")
        owner = Owner("elsewhere", "another machine", 1, "17", "n")
        self.write("out/steps/b-0.claim", json.dumps(asdict(owner)))
        done = threading.Event()

        def beat():
            while not done.wait(0.2):
                os.utime(self.folder / "out/steps/b-0.claim")

        threading.Thread(target=beat).start()
        try:
            return self.chain("--step", "b")
        finally:
            done.set()

    def clock(self):
        """A cluster file with a time as YAML reads it to base 60."""
        self.write("cluster.yaml", "train: {time: 12:00:00}\n")
        return str(self.folder / "cluster.yaml")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def sbatch(*words):
    return main(["sbatch", *words])


MISTAKES = {
    "a step after one that is not there": lambda d: d.chain(second={"after": ["x"]}),
    "a step over a list that is not there": lambda d: d.alone(each="seed"),
    "two steps of one name": lambda d: d.chain(second={"name": "a"}),
    "a place that is not there": lambda d: d.chain(steps=[{"name": "a", "command": "{sead}", "makes": "m"}], lists={}),
    "a brace for itself": lambda d: d.alone(command="grid '{\"x\":'"),
    "a quotation mark without its other": lambda d: d.alone(command="grid 'x"),
    "a chain without steps": lambda d: d.chain(steps=[]),
    "a list with a value twice": lambda d: d.chain(lists={"n": [1, 1]}),
    "asking for a step that is not there": lambda d: d.chain("--step", "x"),
    "asking for a task beyond the list": lambda d: d.chain("--step", "a", "--task", "2"),
    "asking for a task of no step": lambda d: d.chain("--task", "1"),
    "a chain on recordings that are not there": lambda d: d.chain(first={"reads": ["{data}/train.csv"]}),
    "an unknown command in a step": lambda d: d.chain(second={"command": "verfy --shards s"}),
    "a wrong option in a step": lambda d: d.chain(second={"command": "verify --shard s"}),
    "a wrong option of a recipe in a step": lambda d: d.chain(second={"command": d.grid("optim.lrr")}),
    "a step before its turn": lambda d: d.chain("--step", "b"),
    "a step that another job is working on": lambda d: d.taken(),
    "a file where a chain is to write": lambda d: (d.write("out", ""), d.chain())[1],
    "asking for the status of a folder without runs": lambda d: main(["status", str(d.folder)]),
    "an array with a seed twice": lambda d: sbatch("seeds", "--seeds.seeds", "[1, 1]"),
    "an array over several nodes": lambda d: sbatch("render", "--render.nodes", "2"),
    "more ranks than cores": lambda d: sbatch("train", "--train.gpus", "8", "--train.cpus", "4"),
    "ranks that share a GPU": lambda d: sbatch("train", "--train.gpus", "2", "--train.ranks", "4"),
    "a time in words": lambda d: sbatch("train", "--train.time", "a day"),
    "a time without quotation marks": lambda d: sbatch("train", "--config", d.clock()),
    "a warning longer than the job": lambda d: sbatch("train", "--train.time", "4"),
    "an option of sbatch without its dashes": lambda d: sbatch("train", "--options", "qos=long"),
    "a variable with a space in its name": lambda d: sbatch("train", "--environment", '{"A B": "x"}'),
    "a variable of several lines": lambda d: sbatch("pipeline", "--environment", '{"A": "a\\nEND"}'),
    "an account of two words": lambda d: sbatch("train", "--account", "a b"),
    "a place filled up to a great width": lambda d: d.alone(makes="{out:>9999999}"),
    "a job script that is not there": lambda d: sbatch("trian"),
}


def test_the_table_and_the_tests_name_the_same_mistakes():
    assert set(TABLE) == set(MISTAKES)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_the_line_is_the_one_in_the_table(name, repository, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(repository)
    assert MISTAKES[name](Sandbox(tmp_path)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if re.match(r"hms-dist \w+: ", line)]
    assert len(lines) == 1
    expected = ".*".join(map(re.escape, TABLE[name].split("…")))
    assert re.fullmatch(rf"hms-dist \w+: {expected}", lines[0])
