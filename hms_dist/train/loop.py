"""The training run: open, fit epoch by epoch, evaluate, save, say what happened."""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hms_dist.config import to_dict
from hms_dist.errors import Stopped, UserError
from hms_dist.files import write_json
from hms_dist.metrics import class_kl, kaggle_kl
from hms_dist.model.build import build
from hms_dist.model.group_norms import GroupNorms
from hms_dist.predictions import prediction_table, write_predictions
from hms_dist.run import LOG, environment, start_log
from hms_dist.stream.loader import load
from hms_dist.stream.plan import Rows, plan_epoch
from hms_dist.train.checkpoint import save_checkpoint, save_weights
from hms_dist.train.data import RunData, open_run_data, panel_recipes
from hms_dist.train.evaluate import predict_rows
from hms_dist.train.folder import BEST, CHECKPOINTS, FINAL, begin_folder, check_folder, find_checkpoint
from hms_dist.train.meter import Meter
from hms_dist.train.optim import build_optimizer
from hms_dist.train.outcome import Judge, Outcome
from hms_dist.train.owner import Ownership, owned
from hms_dist.train.place import say_places
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
from hms_dist.train.step import Step, Stepper
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
        with reported(config.out, launched_rank()), ownership.guard():
            world = open_world(config.precision, config.timeout_s, trackers=config.trackers, out=config.out)
        try:
            # Reported before the group is left, which makes the other ranks fail.
            with reported(config.out, world.rank), ownership.guard():
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
        self.raw_model = build(config.model, config.seed)
        if config.precision == "float64":
            self.raw_model.double()
        self.raw_model.to(world.device)
        optimizer = build_optimizer(config.optim, self.raw_model)
        self.cursor = {"epoch": 0, "step": 0}
        self.best: dict[str, Any] = {"val_kl": None, "epoch": None}
        self._resume(optimizer)
        model, prepared = world.accelerator.prepare(self.raw_model, optimizer)
        self.stepper = Stepper(
            config=config, world=world, canvas=data.shards.canvas, model=model, optimizer=prepared,
            norms=GroupNorms(model), targets=torch.from_numpy(data.index.targets),
        )  # fmt: skip
        self.steps_of = [len(self._plan(epoch)) // config.global_batch for epoch in range(config.epochs)]
        self.metrics = MetricsLog(config.out, self._steps_done(), world.accelerator) if world.is_main else None

    def fit(self) -> None:
        """Train the epochs that are left and write the product."""
        self._say_start()
        for epoch in range(self.cursor["epoch"], self.config.epochs):
            self._train_epoch(epoch)
            self._evaluate(epoch)
            self.cursor = {"epoch": epoch + 1, "step": 0}
            self._save()
        self.ownership.check()
        if self.world.is_main:
            save_weights(self.config.out / FINAL, self.raw_model, {"epoch": self.config.epochs, **self._facts()})
            write_status(self.config.out, "finished", exit_code=0, best=self.best, steps=self._steps_done())
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
        rows, first = self._plan(epoch), self.cursor["step"]
        mine = config.batching.groups_of(world.rank, world.num_ranks)
        steps = range(first, self.steps_of[epoch])
        groups = (config.batching.rows_of(rows, number, group) for number in steps for group in mine)
        batches = load(self.data.shards.reader, groups, threads=config.reader_threads, pin=world.device.type == "cuda")
        meter = Meter(batches)
        bar = tqdm(
            steps, desc=f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=None if world.is_main else True
        )
        for number in bar:
            overall = sum(self.steps_of[:epoch]) + number
            step = Step(epoch=epoch, number=number, overall=overall, num_steps=sum(self.steps_of))
            outcome = self.stepper.take(meter, step, stop=self.stop.asked())
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
        rate = self.stepper.optimizer.param_groups[0]["lr"]
        self.metrics.write(
            epoch=step.epoch, step=step.overall + 1, loss=loss, lr=rate,
            images_per_s=round(images_per_s * self.world.num_ranks, 3), data_wait_share=round(data_wait_share, 4),
        )  # fmt: skip
        write_status(self.config.out, "running", epoch=step.epoch, step=step.overall + 1, best=self.best)

    def _evaluate(self, epoch: int) -> None:
        """Score the validation fold; keep weights and predictions if they are the best yet."""
        self.ownership.check()
        config, index, rows = self.config, self.data.index, self.data.validation_rows
        if not len(rows):
            return
        found = predict_rows(
            self.stepper.model, self.data.plain, rows, self.world,
            group_size=config.group_size, threads=config.reader_threads,
        )  # fmt: skip
        if self.metrics is None:
            return
        truth = index.targets[rows]
        val_kl = kaggle_kl(truth, found)
        per_class = np.round(class_kl(truth, found), 6).tolist()
        self.metrics.write(epoch=epoch, step=sum(self.steps_of[: epoch + 1]), val_kl=val_kl, val_class_kl=per_class)
        LOG.info("epoch %d: validation KL %.4f on %d rows", epoch + 1, val_kl, len(rows))
        if self.best["val_kl"] is None or val_kl < self.best["val_kl"]:
            self.best = {"val_kl": val_kl, "epoch": epoch}
            save_weights(config.out / BEST, self.raw_model, {**self.best, **self._facts()})
            folds = np.full(len(rows), config.fold)
            table = prediction_table(index.frame.iloc[rows], folds, found)
            write_predictions(config.out / PREDICTIONS_NAME, table)

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
            state = {"cursor": self.cursor, "best": self.best, "config": to_dict(self.config), **self._facts()}
            save_checkpoint(
                self.config.out / CHECKPOINTS, self._steps_done(), model=self.raw_model,
                optimizer=self.stepper.optimizer.optimizer, state=state,
                scaler=self.world.accelerator.scaler, num_kept=self.config.keep_checkpoints,
            )  # fmt: skip
        self.world.wait()

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
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
        checkpoint.restore(self.raw_model, optimizer, self.world.accelerator.scaler)
        self.cursor, self.best = checkpoint.state["cursor"], checkpoint.state["best"]

    def _steps_done(self) -> int:
        return sum(self.steps_of[: self.cursor["epoch"]]) + int(self.cursor["step"])

    def _say_start(self) -> None:
        config, world = self.config, self.world
        if world.is_main:
            write_json(config.out / ENVIRONMENT_NAME, environment())
            write_status(config.out, "running", best=self.best)
            start_trackers(world.accelerator, config.trackers, config.out, to_dict(config))
        world.wait()  # or a rank that fails at once would be overwritten
        say_places(world)
        LOG.info(
            "%d rank(s) on %s: %d training and %d validation rows, B = %d = %d groups of %d, %d steps, %s%s",
            world.num_ranks, world.device, len(self.data.train_rows), len(self.data.validation_rows),
            config.global_batch, config.batching.num_groups, config.group_size, sum(self.steps_of), config.precision,
            f", resumed at epoch {self.cursor['epoch']} step {self.cursor['step']}" if self._steps_done() else "",
        )  # fmt: skip
