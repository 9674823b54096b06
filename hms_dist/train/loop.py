"""The training run: open, fit epoch by epoch, evaluate, save, say what happened."""

from dataclasses import asdict
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hms_dist.config import to_dict
from hms_dist.errors import Stopped, UserError
from hms_dist.files import write_json
from hms_dist.labels import CLASSES
from hms_dist.metrics import kaggle_kl
from hms_dist.predictions import prediction_table, write_predictions
from hms_dist.run import LOG, environment, start_log
from hms_dist.stream.loader import load
from hms_dist.stream.plan import Rows, plan_epoch
from hms_dist.train.checkpoint import save_checkpoint, save_weights
from hms_dist.train.data import RunData, open_run_data, panel_recipes
from hms_dist.train.evaluate import KL_MONITORS, kl_monitors, predict_rows
from hms_dist.train.folder import BEST, CHECKPOINTS, FINAL, begin_folder, check_folder, find_checkpoint
from hms_dist.train.learner import Learner
from hms_dist.train.meter import Meter
from hms_dist.train.outcome import Judge, Outcome
from hms_dist.train.owner import Ownership, owned
from hms_dist.train.plateau import Plateau, check_monitor, observed
from hms_dist.train.record import (
    ENVIRONMENT_NAME,
    LOG_NAME,
    PREDICTIONS_NAME,
    MetricsLog,
    reported,
    write_status,
)
from hms_dist.train.run_canvas import with_statistics
from hms_dist.train.settings import TrainConfig
from hms_dist.train.step import Step
from hms_dist.train.stop import StopRequest, die_with_launcher
from hms_dist.train.trackers import check_trackers, start_trackers
from hms_dist.train.world import World, launched_rank, launched_ranks, open_world


def run(config: TrainConfig) -> None:
    """Train as configured, from the start or from the last checkpoint; every rank calls this.

    Raises UserError for what is the user's to mend: before the process group starts, wherever possible.
    """
    die_with_launcher()
    is_main = launched_rank() == 0
    check_folder(config)
    config.batching.check_world(launched_ranks())
    check_trackers(config.trackers)
    data = open_run_data(config)
    with owned(config.out, is_main=is_main) as ownership, StopRequest(config.out) as stop:
        if is_main:
            begin_folder(config)
        start_log(launched_rank(), config.out / LOG_NAME if is_main else None)
        with reported(config.out, launched_rank()):
            world = open_world(config.precision, config.timeout_s, trackers=config.trackers, out=config.out)
        try:
            with reported(config.out, world.rank):  # before the group is left, which makes the other ranks fail
                Trainer(config, with_statistics(config, data, world), world, ownership, stop).fit()
        finally:
            data.shards.reader.close()
            world.accelerator.end_training()


class Trainer:
    """One run in one process of its world."""

    def __init__(
        self, config: TrainConfig, data: RunData, world: World, ownership: Ownership, stop: StopRequest
    ) -> None:
        """Build model and optimiser and, if the run folder holds a checkpoint, continue from it."""
        if world.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        self.config, self.data, self.world, self.ownership, self.stop = config, data, world, ownership, stop
        self.judge = Judge(world, lambda row: str(data.index.frame["key"].iloc[row]))
        self.learner = Learner(config, data, world)
        raw = ["val_kl_raw"] if config.ema.evaluate_raw else []
        check_monitor(config.plateau, [*KL_MONITORS, *raw, *self.learner.task.monitor_names])
        self.plateau = Plateau()
        self.cursor = {"epoch": 0, "step": 0}
        self.best: dict[str, Any] = {"val_kl": None, "epoch": None}
        self._resume()
        self.learner.begin_epoch(self.cursor["epoch"])
        self.steps_of = [len(self._plan(epoch)) // config.global_batch for epoch in range(config.epochs)]
        self.metrics = MetricsLog(config.out, self._steps_done(), world.accelerator) if world.is_main else None

    def fit(self) -> None:
        """Train the epochs that are left and write the product."""
        self._say_start()
        for epoch in range(self.cursor["epoch"], self.config.epochs):
            if self.plateau.stopped:
                break
            self._train_epoch(epoch)
            self.learner.end_epoch()
            self._evaluate(epoch)
            self.cursor = {"epoch": epoch + 1, "step": 0}
            self._save()
        self.ownership.check()
        if self.world.is_main:
            facts = {"epoch": self.cursor["epoch"], **self._facts()}
            save_weights(self.config.out / FINAL, self.learner.raw_model, facts, self.learner.ema)
            write_status(
                self.config.out, "finished", exit_code=0, best=self.best, steps=self._steps_done(),
                stopped_early=self.plateau.stopped,
            )  # fmt: skip
            LOG.info("finished: %s", self.config.out)
        self.world.wait()

    def _plan(self, epoch: int) -> Rows:
        config, data = self.config, self.data
        return plan_epoch(
            data.index, data.train_rows, config.selection,
            seed=config.seed, epoch=epoch, global_batch=config.global_batch,
        )  # fmt: skip

    def _train_epoch(self, epoch: int) -> None:
        config, world = self.config, self.world
        self.learner.begin_epoch(epoch)
        rows, first = self._plan(epoch), self.cursor["step"]
        mine, size = config.batching.groups_of(world.rank, world.num_ranks), config.global_batch
        steps = range(first, self.steps_of[epoch])
        groups = (config.batching.rows_of(rows, number, group) for number in steps for group in mine)
        batches = load(self.data.shards.reader, groups, threads=config.reader_threads, pin=world.device.type == "cuda")
        meter = Meter(batches)
        bar = tqdm(
            steps, desc=f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=None if world.is_main else True
        )
        for number in bar:
            overall = sum(self.steps_of[:epoch]) + number
            step = Step(
                epoch=epoch, number=number, overall=overall, epoch_ends=tuple(accumulate(self.steps_of)),
                weight_sum=self.learner.weight_of(rows[number * size : (number + 1) * size]),
                lr_factor=self.plateau.factor,
            )  # fmt: skip
            outcome = self.learner.stepper.take(meter, step, stop=self.stop.asked())
            self.cursor = {"epoch": epoch, "step": number + 1}
            self.judge.add(outcome)
            if (number + 1) % config.log_every == 0 or number == steps[-1]:
                self._log_step(step, outcome, meter)
            if config.checkpoint_every and (overall + 1) % config.checkpoint_every == 0 and number < steps[-1]:
                self._save()
            self._stop_if_asked()
        self.judge.settle()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Save and leave, on all ranks at the same step. Raises Stopped."""
        if not self.judge.stop_asked:
            return
        self._save()
        raise Stopped(f"stopped after step {self._steps_done()} as asked; rerun the same command to go on")

    def _log_step(self, step: Step, outcome: Outcome, meter: Meter) -> None:
        self.judge.settle()
        if self.metrics is None:
            return
        self.ownership.check()
        loss = outcome.loss
        images_per_s, data_wait_share = meter.read()
        self.metrics.write(
            epoch=step.epoch, step=step.overall + 1, loss=loss, **self.learner.figures(),
            images_per_s=round(images_per_s * self.world.num_ranks, 3), data_wait_share=round(data_wait_share, 4),
        )  # fmt: skip
        write_status(self.config.out, "running", epoch=step.epoch, step=step.overall + 1, best=self.best)

    def _evaluate(self, epoch: int) -> None:
        """Score the validation fold; keep weights and predictions if they are the best yet."""
        self.ownership.check()
        config, index, rows = self.config, self.data.index, self.data.validation_rows
        if not len(rows):
            return
        with self.learner.averaged():
            answers = self._predict(rows)
        truth, found = index.targets[rows], answers[:, : len(CLASSES)]
        monitors = {**kl_monitors(truth, found), **self.learner.task.monitors(truth, answers)}
        if config.ema.evaluate_raw:
            monitors["val_kl_raw"] = kaggle_kl(truth, self._predict(rows)[:, : len(CLASSES)])
        monitors = self.world.from_main(monitors)
        self.plateau = observed(config.plateau, self.plateau, monitors[config.plateau.monitor])
        if self.metrics is None:
            return
        self.metrics.write(epoch=epoch, step=sum(self.steps_of[: epoch + 1]), **monitors)
        val_kl = monitors["val_kl"]
        LOG.info("epoch %d: validation KL %.4f on %d rows", epoch + 1, val_kl, len(rows))
        if self.best["val_kl"] is None or val_kl < self.best["val_kl"]:
            self.best = {"val_kl": val_kl, "epoch": epoch}
            facts = {**self.best, **self._facts()}
            save_weights(config.out / BEST, self.learner.raw_model, facts, self.learner.ema)
            folds = np.full(len(rows), config.fold)
            table = prediction_table(index.frame.iloc[rows], folds, found)
            write_predictions(config.out / PREDICTIONS_NAME, table)

    def _predict(self, rows: Rows) -> NDArray[np.float64]:
        """Answers for rows without augmentation, by the weights that the model has now; on every rank."""
        config = self.config
        return predict_rows(
            self.learner.stepper.model, self.data.plain, rows, self.world,
            task=self.learner.task, group_size=config.group_size, threads=config.reader_threads,
        )  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        """What a resume compares, and what later users of the weights may ask."""
        return {
            "shards": self.data.shards.manifest.fingerprint,
            "panels": panel_recipes(self.data.shards),
            "fold": self.config.fold,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "num_ranks": self.world.num_ranks,
        }

    def _save(self) -> None:
        self.judge.settle()
        self.ownership.check()
        if self.world.is_main:
            learner = self.learner
            state = {"cursor": self.cursor, "best": self.best, "plateau": asdict(self.plateau), **asdict(learner.tally)}
            save_checkpoint(
                self.config.out / CHECKPOINTS, self._steps_done(), model=learner.raw_model,
                optimizer=learner.optimizer, state={**state, **self._facts(), "config": to_dict(self.config)}, ema=learner.ema,
                scaler=self.world.accelerator.scaler, num_kept=self.config.keep_checkpoints,
            )  # fmt: skip
        self.world.wait()

    def _resume(self) -> None:
        checkpoint = find_checkpoint(self.config)
        if checkpoint is None:
            return
        facts = self._facts()
        if checkpoint.state["shards"] != facts["shards"] and not self.config.other_shards:
            raise UserError(
                f"{self.config.shards}: not the shard set that {self.config.out} was trained on; check --shards, or "
                "go on with --other_shards"
            )
        for name in ("torch", "threads", "num_ranks"):
            if checkpoint.state[name] != facts[name]:
                LOG.warning("resuming with %s %s, was %s: not bit for bit", name, facts[name], checkpoint.state[name])
        learner = self.learner
        checkpoint.restore(learner.raw_model, learner.optimizer, self.world.accelerator.scaler, learner.ema)
        self.cursor, self.best = checkpoint.state["cursor"], checkpoint.state["best"]
        self.plateau = Plateau(**checkpoint.state["plateau"])
        learner.tally.num_skipped = checkpoint.state["num_skipped"]

    def _steps_done(self) -> int:
        return sum(self.steps_of[: self.cursor["epoch"]]) + int(self.cursor["step"])

    def _say_start(self) -> None:
        config, world = self.config, self.world
        if world.is_main:
            write_json(config.out / ENVIRONMENT_NAME, environment())
            write_status(config.out, "running", best=self.best)
            start_trackers(world.accelerator, config.trackers, config.out, to_dict(config))
        world.wait()  # or a rank that fails at once would be overwritten
        LOG.info(
            "%d rank(s) on %s: %d training and %d validation rows, B = %d = %d groups of %d, %d steps, %s%s",
            world.num_ranks, world.device, len(self.data.train_rows), len(self.data.validation_rows),
            config.global_batch, config.batching.num_groups, config.group_size, sum(self.steps_of), config.precision,
            f", resumed at epoch {self.cursor['epoch']} step {self.cursor['step']}" if self._steps_done() else "",
        )  # fmt: skip
