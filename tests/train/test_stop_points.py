"""Points at which a run stops on request: after a step, before an evaluation or in it; saved once."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.core.errors import Stopped
from hms_dist.train import checkpointing, loop
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.folder.stop import STOP_NAME
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run

AVERAGED = {"ema__decay": 0.9, "ema__every": "epoch", "ema__evaluate_raw": True}


@pytest.fixture(autouse=True)
def looks_always(monkeypatch):
    monkeypatch.setattr("hms_dist.train.folder.stop.LOOK_EVERY_S", 0.0)


@pytest.fixture
def taken(monkeypatch):
    """Steps taken, and what to do in one of them: {number of the step from 1: function}."""
    steps, deeds, real = [], {}, Stepper.take

    def take(self, batches, step, **options):
        steps.append(step.overall + 1)
        deeds.pop(steps[-1], lambda: None)()
        return real(self, batches, step, **options)

    monkeypatch.setattr(Stepper, "take", take)
    return steps, deeds


@pytest.fixture
def saved(monkeypatch):
    """Steps of the checkpoints that were written, in order."""
    steps, real = [], checkpointing.save_checkpoint

    def save(folder, step, **parts):
        steps.append(step)
        return real(folder, step, **parts)

    monkeypatch.setattr(checkpointing, "save_checkpoint", save)
    return steps


@pytest.fixture
def in_round(monkeypatch):
    """Actions before a round of the evaluations: {number of the round from 1: function}."""
    deeds, rounds, real = {}, [], loop.predict_rows

    def predict(*words, before_round, **options):
        def before():
            rounds.append("round")
            deeds.pop(len(rounds), lambda: None)()
            before_round()

        return real(*words, before_round=before, **options)

    monkeypatch.setattr(loop, "predict_rows", predict)
    return deeds


def product(config):
    return {
        f"{folder}/{path.name}/{name}": tensor
        for folder in ("best", "final")
        for path in (config.out / folder).glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def lines(config):
    names = ("epoch", "step", "loss", "val_kl", "val_kl_raw")
    return [{name: line.get(name) for name in names} for line in read_metrics(config.out)]


def stopped_run(config):
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(Stopped):
        run(config)
    status = json.loads((config.out / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 1)


@pytest.mark.parametrize("every", [None, 1])
def test_it_stops_at_the_step_that_notices_and_saves_once(small, taken, saved, every):
    config = small(log_every=100, **({} if every is None else {"checkpoint_every": every}))
    steps, deeds = taken
    deeds[2] = (config.out / STOP_NAME).touch
    stopped_run(config)
    assert steps == [1, 2, 3], "the second one had looked before it was asked"
    assert saved == ([3] if every is None else [1, 2, 3])


@pytest.mark.parametrize(
    "when",
    [
        "last step",
        pytest.param("round 1", marks=pytest.mark.slow),
        "round 2",
        pytest.param("round of the raw weights", marks=pytest.mark.slow),
    ],
)
def test_asked_before_or_in_an_evaluation_it_resumes_with_that(small, taken, saved, in_round, when):
    whole, stopped = small("whole", **AVERAGED), small("stopped", **AVERAGED)
    run(whole)
    steps, deeds = taken
    once, num_steps = steps.copy(), len(steps) // 2
    ask = (stopped.out / STOP_NAME).touch
    steps.clear()
    saved.clear()
    num_rounds = sum(1 for _ in range(0, len(open_run_data(whole).validation_rows), whole.group_size))
    done = 4 * num_rounds  # rounds of the whole run: two evaluations per epoch
    rounds = {"round 1": 1, "round 2": 2, "round of the raw weights": num_rounds + 2}
    if when == "last step":
        deeds[num_steps] = ask
    else:
        in_round[done + rounds[when]] = ask
    stopped_run(stopped)
    assert saved == [num_steps]
    assert not any(line["val_kl"] for line in lines(stopped))
    with (stopped.out / "metrics.jsonl").open("a") as file:  # as a kill between this line and its checkpoint leaves it
        file.write(json.dumps({"epoch": 0, "step": num_steps, "val_kl": 9.0}) + "\n")
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(99)
    run(stopped)
    assert steps == once, "no step was taken twice"
    assert lines(stopped) == lines(whole)
    one, other = product(whole), product(stopped)
    assert set(one) == set(other)
    assert len(one) > 4
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.slow
def test_without_an_evaluation_it_stops_at_the_end_of_the_epoch(small, taken, saved):
    config = small(fold="none")
    run(config)
    steps, deeds = taken
    end = len(steps) // 2
    steps.clear()
    saved.clear()
    again = small("again", fold="none")
    deeds[end] = (again.out / STOP_NAME).touch
    stopped_run(again)
    assert steps[-1] == end
    assert saved == [end]
    AcceleratorState._reset_state(reset_partial_state=True)
    run(again)
    assert all(torch.equal(tensor, product(again)[name]) for name, tensor in product(config).items())
