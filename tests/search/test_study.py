"""The study: batches, lease, resume and output. Trials compute a formula."""

import json
import math
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import JobError, Stopped, UserError
from hms_dist.search.store import Store
from hms_dist.search.study import run
from hms_dist.search.trial import Pruned, TrialRuns, is_behind
from hms_dist.train.settings import TrainConfig

BEST_LR = 2e-3


def formula(config):
    return 1 + abs(math.log(config["optim"]["lr"] / BEST_LR)) + config["model"]["drop_rate"]


@pytest.fixture
def no_training(monkeypatch):
    """Trials of two epochs per fold with the KL of the formula; their arguments are recorded."""
    given = []

    def train(self, report):
        given.append(self)
        kl = formula(self.config)
        for step in range(2 * len(self.folds)):
            if not report(step, kl + 1 / (step + 1)):
                raise Pruned
        return kl

    monkeypatch.setattr(TrialRuns, "train", train)
    return given


def trials(command):
    return pd.read_csv(command.out / "trials.csv")


def test_batches_narrow_about_the_best_and_the_best_trial_is_a_train_config(make, no_training):
    command = make(num_trials=6, num_batches=3, num_startup=3)
    run(command)
    table = trials(command)
    assert table["batch"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    store = Store(command.out)
    for batch in (1, 2):
        before, now = (store.space_of(b, {}, 1.0)["lr"] for b in (batch - 1, batch))
        mine = table[table["batch"] == batch]
        assert math.log(now.high / now.low) == pytest.approx(math.log(before.high / before.low) / 2)
        assert mine["lr"].between(now.low, now.high).all()
    best = table.loc[table["val_kl"].idxmin()]
    words = ["--config", str(command.out / "best.yaml"), "--shards", "s", "--out", "o", "--fold", "1"]
    found = load(TrainConfig, words)
    assert (found.optim.lr, found.model.drop_rate) == (best["lr"], best["dropout"])
    assert found.optim.betas == (best["beta_1"], best["beta_2"])
    assert found.schedule.name == best["scheduler"]
    normalise = found.canvas.placements[0].normalise
    assert type(normalise).__name__ == best["normalisation"]
    assert (normalise.low_ln, normalise.high_ln) == (best["low_clip"], best["high_clip"])
    assert found.num_folds == 5  # of the recipe; the trials' own options are left out
    assert all(trial.config["num_folds"] == 3 for trial in no_training)


def test_trials_that_fall_behind_are_stopped_after_an_epoch(make, no_training):
    command = make(num_trials=12, num_startup=3)
    run(command)
    table = trials(command)
    pruned = table[table["state"] == "pruned"]
    assert 0 < len(pruned) < 9
    assert (pruned["epochs"] < 4).all()
    assert pruned["val_kl"].isna().all()
    assert (table[table["state"] == "complete"]["epochs"] == 4).all()
    assert (table["trial"][table["state"] == "pruned"] >= 3).all()


def test_behind_is_above_the_median_of_enough_others():
    assert is_behind(2.1, [1, 2, 3], 3)
    assert not is_behind(2.0, [1, 2, 3], 3)
    assert not is_behind(9.0, [1, 2], 3)


def test_a_killed_study_draws_the_same_trials(make, no_training, monkeypatch):
    whole, cut = make(num_trials=8), make(num_trials=8, out=f"{make().out}-cut")
    run(whole)
    real, before = TrialRuns.train, []

    def train(self, report):
        if len(before) == 4:
            raise KeyboardInterrupt
        before.append(self.folder.name)
        return real(self, report)

    monkeypatch.setattr(TrialRuns, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    monkeypatch.setattr(TrialRuns, "train", real)
    assert before == [f"0-{number:03d}" for number in range(4)]
    run(cut)
    pd.testing.assert_frame_equal(trials(cut), trials(whole))
    assert (cut.out / "best.yaml").read_bytes() == (whole.out / "best.yaml").read_bytes()


def test_being_asked_to_stop_leaves_the_trial_open(make, monkeypatch):
    def train(self, report):
        raise Stopped("as asked")

    monkeypatch.setattr(TrialRuns, "train", train)
    command = make(num_trials=2)
    with pytest.raises(Stopped):
        run(command)
    assert Store(command.out).num_running(0) == 1


def test_two_processes_share_one_study(search_words, repository, tmp_path):
    """Each trial runs once in any interleaving, and a third process finds nothing left to do.

    The first trial of either waits for the other's, so that one that begins late finds trials left.
    """
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from hms_dist.cli import main
        from hms_dist.search.trial import TrialRuns

        def train(self, report):
            with open(sys.argv[1], "a") as file:
                file.write(self.folder.name + "\\n")
            while not Path(sys.argv[2]).exists():
                time.sleep(0.05)
            report(0, self.config["optim"]["lr"])
            return self.config["optim"]["lr"]

        TrialRuns.train = train
        sys.exit(main(["search", *sys.argv[3:]]))
    """)
    words = [*search_words, "--num_trials", "5", "--num_batches", "2"]
    files = [str(tmp_path / f"job-{job}") for job in range(2)]
    begun = [
        subprocess.Popen([sys.executable, "-c", script, *order, *words], cwd=repository)
        for order in (files, files[::-1])
    ]
    assert [process.wait(240) for process in begun] == [0, 0]
    done = [(tmp_path / f"job-{job}").read_text().split() for job in range(2)]
    assert sorted(done[0] + done[1]) == sorted(f"{batch}-{number:03d}" for batch in (0, 1) for number in range(5))
    assert all(done)
    table = pd.read_csv(tmp_path / "study/trials.csv")
    assert (table["state"] == "complete").all()
    assert main(["search", *words]) == 0
    assert len(pd.read_csv(tmp_path / "study/trials.csv")) == 10


def test_a_lower_number_of_batches_keeps_those_that_ran(make, no_training):
    command = make(num_trials=2, num_batches=2)
    run(command)
    before = trials(command)
    run(make(num_trials=2, num_batches=1))
    pd.testing.assert_frame_equal(trials(command), before)


def test_a_journal_cut_short_loses_its_last_line_alone(make, no_training):
    command = make(num_trials=3)
    run(command)
    journal = command.out / "journal.log"
    before = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # a kill, or a full disk
    run(make(num_trials=5))
    assert journal.read_bytes().startswith(before)
    assert trials(command)["state"].isin(["complete", "pruned"]).sum() == 5


def test_a_failed_trial_counts_and_the_others_continue(make, no_training, monkeypatch):
    real = TrialRuns.train

    def train(self, report):
        if self.folder.name == "0-001":
            raise JobError("the loss is nan")
        return real(self, report)

    monkeypatch.setattr(TrialRuns, "train", train)
    run(make(num_trials=3))
    assert trials(make())["state"].tolist() == ["complete", "fail", "complete"]


def test_a_study_without_a_finished_trial_is_an_error(make, monkeypatch):
    def train(self, report):
        raise JobError("no")

    monkeypatch.setattr(TrialRuns, "train", train)
    with pytest.raises(JobError, match=r"no trial came to its end; see trials\.csv"):
        run(make(num_trials=2))


def test_a_study_with_other_options_is_rejected(make, no_training):
    run(make(num_trials=1))
    with pytest.raises(UserError, match="holds a study whose folds differ; choose another --out"):
        run(make(num_trials=1, folds="[0]"))
    with pytest.raises(UserError, match="holds a study whose config differ"):
        run(make(num_trials=1, options="{num_folds: 3, epochs: 1}"))
    run(make(num_trials=2))
    assert len(trials(make())) == 2
    assert json.loads((make().out / "search.json").read_text())["folds"] == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": "[0, 0]"}, "folds: expected one or more different folds"),
        ({"num_trials": 0}, "num_trials: expected at least 1, found 0"),
        ({"narrowing": 1.5}, "narrowing: expected a share"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"space": "{}"}, "space: a search needs"),
        ({"space": "{a: {sets: optim.rate, low: 0, high: 1}}"}, "no 'optim.rate'; correct the name"),
        ({"space": "{a: {sets: optim.lr, low: 0, high: 1}}"}, "lr: expected a number above 0"),
        ({"folds": "[7]"}, "fold: expected 0 to 2"),
    ],
)
def test_mistakes_are_reported_before_any_trial(make, no_training, options, message):
    with pytest.raises(UserError, match=message):
        run(make(**options))
    assert not no_training
