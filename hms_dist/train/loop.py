"""The training run: open, fit epoch by epoch, evaluate, save, say what happened."""

import math
from contextlib import closing
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hms_dist.errors import JobError, UserError
from hms_dist.files import write_json
from hms_dist.metrics import class_kl, kaggle_kl
from hms_dist.model.build import build
from hms_dist.model.group_norms import GroupNorms
from hms_dist.predictions import prediction_table, write_predictions
from hms_dist.run import LOG, environment, start_log
from hms_dist.stream.loader import load
from hms_dist.stream.selections import class_counts
from hms_dist.stream.stand_ins import StandIns
from hms_dist.train.checkpoint import save_checkpoint, save_weights
from hms_dist.train.data import RunData, epoch_rows, open_run_data, panel_recipes, requests_of
from hms_dist.train.evaluate import predict_rows
from hms_dist.train.folder import BEST, CHECKPOINTS, FINAL, begin_folder, check_folder, find_checkpoint
from hms_dist.train.meter import Meter
from hms_dist.train.optim import build_optimizer
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
from hms_dist.train.world import World, launched_rank, launched_ranks, open_world


def run(config: TrainConfig) -> None:
    """Train as configured, from the start or from the last checkpoint; every rank calls this.

    Raises UserError for what is the user's to mend: before the process group starts, wherever possible.
    """
    is_main = launched_rank() == 0
    check_folder(config)
    config.batching.check_world(launched_ranks())
    data = open_run_data(config)
    if is_main:
        begin_folder(config)
    start_log(launched_rank(), config.out / LOG_NAME if is_main else None)
    with reported(config.out, launched_rank()):
        world = open_world(config.precision, config.timeout_s)
    try:
        with reported(config.out, world.rank):  # before the group is left, which makes the other ranks fail
            Trainer(config, with_statistics(config, data, world), world).fit()
    finally:
        data.shards.reader.close()
        world.accelerator.end_training()


class Trainer:
    """One run in one process of its world."""

    def __init__(self, config: TrainConfig, data: RunData, world: World) -> None:
        """Build model and optimiser and, if the run folder holds a checkpoint, continue from it."""
        if world.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        self.config, self.data, self.world = config, data, world
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
            norms=GroupNorms(model), targets=torch.from_numpy(data.labels.targets),
        )  # fmt: skip
        self.steps_of = data.steps_of
        self.stand_ins = StandIns(config.max_replaced) if config.on_error == "replace" else None
        self.metrics = MetricsLog(config.out, self._steps_done()) if world.is_main else None

    def fit(self) -> None:
        """Train the epochs that are left and write the product."""
        self._say_start()
        for epoch in range(self.cursor["epoch"], self.config.epochs):
            self._train_epoch(epoch)
            self._evaluate(epoch)
            self.cursor = {"epoch": epoch + 1, "step": 0}
            self._save()
        if self.world.is_main:
            save_weights(self.config.out / FINAL, self.raw_model, {"epoch": self.config.epochs, **self._facts()})
            write_status(self.config.out, "finished", exit_code=0, best=self.best, steps=self._steps_done())
            LOG.info("finished: %s", self.config.out)
        self.world.wait()

    def _train_epoch(self, epoch: int) -> None:
        config, world = self.config, self.world
        steps = range(self.cursor["step"], self.steps_of[epoch])
        requests = requests_of(config, self.data, epoch, steps, config.batching.groups_of(world.rank, world.num_ranks))
        pin = world.device.type == "cuda"
        batches = load(
            self.data.shards.reader, requests, threads=config.reader_threads, pin=pin, stand_ins=self.stand_ins
        )
        bar = tqdm(
            steps, desc=f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=None if world.is_main else True
        )
        with closing(batches):
            meter = Meter(batches)
            for number in bar:
                overall = sum(self.steps_of[:epoch]) + number
                step = Step(epoch=epoch, number=number, overall=overall, num_steps=sum(self.steps_of))
                loss = self.stepper.take(meter, step)
                if (number + 1) % config.log_every == 0 or number == steps[-1]:
                    self._log_step(step, float(loss), meter)
                self.cursor = {"epoch": epoch, "step": number + 1}
                if config.checkpoint_every and (overall + 1) % config.checkpoint_every == 0 and number < steps[-1]:
                    self._save()

    def _log_step(self, step: Step, loss: float, meter: Meter) -> None:
        if not math.isfinite(loss):
            raise JobError(f"the loss is {loss} at step {step.overall + 1}; lower optim.lr, or set optim.max_grad_norm")
        replaced = self._num_replaced()
        if self.metrics is None:
            return
        images_per_s, data_wait_share = meter.read()
        rate = self.stepper.optimizer.param_groups[0]["lr"]
        self.metrics.write(
            epoch=step.epoch, step=step.overall + 1, loss=loss, lr=rate,
            images_per_s=round(images_per_s * self.world.num_ranks, 3), data_wait_share=round(data_wait_share, 4),
            **replaced,
        )  # fmt: skip
        write_status(self.config.out, "running", epoch=step.epoch, step=step.overall + 1, best=self.best, **replaced)

    def _num_replaced(self) -> dict[str, int]:
        """Damaged rows replaced so far on all ranks since the start or the resume; nothing if the run replaces none."""
        if self.stand_ins is None:
            return {}
        total = torch.tensor(float(self.stand_ins.num_replaced), device=self.world.device)
        self.world.sum_(total)
        return {"num_replaced": int(total)}

    def _evaluate(self, epoch: int) -> None:
        """Score the validation fold; keep weights and predictions if they are the best yet."""
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
            "labels": self.data.labels.digest,
            "fold": self.config.fold,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "num_ranks": self.world.num_ranks,
        }

    def _save(self) -> None:
        if self.world.is_main:
            state = {"cursor": self.cursor, "best": self.best, **self._facts()}
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
        if checkpoint.state["shards"] != facts["shards"]:
            raise UserError(
                f"{self.config.shards}: not the shard set that {self.config.out} was trained on; check --shards"
            )
        if checkpoint.state["labels"] != facts["labels"]:
            raise UserError(
                f"{self.config.out}: the tables of filters.predictions or overlay.file changed since it began; restore "
                "them, or choose another --out"
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
        world.wait()  # or a rank that fails at once would be overwritten
        for report in self.data.labels.reports:
            report.log()
        for name, rows in (("training part", self.data.train_rows), ("first epoch", epoch_rows(config, self.data, 0))):
            counts = class_counts(self.data.index, rows)
            LOG.info("%s: %s rows", name, ", ".join(f"{number} {label}" for label, number in counts.items()))
        LOG.info(
            "%d rank(s) on %s: %d training and %d validation rows, B = %d = %d groups of %d, %d steps, %s%s",
            world.num_ranks, world.device, len(self.data.train_rows), len(self.data.validation_rows),
            config.global_batch, config.batching.num_groups, config.group_size, sum(self.steps_of), config.precision,
            f", resumed at epoch {self.cursor['epoch']} step {self.cursor['step']}" if self._steps_done() else "",
        )  # fmt: skip
