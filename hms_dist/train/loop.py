"""The training run: open, fit epoch by epoch, evaluate, keep, say what happened."""

from contextlib import closing
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hms_dist.config.load import to_dict
from hms_dist.core.environment import environment
from hms_dist.core.errors import Stopped
from hms_dist.core.files import write_json
from hms_dist.core.logging import LOG, start_log
from hms_dist.results.metric_kinds import metric_of
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import load
from hms_dist.stream.read.replacements import Replacements
from hms_dist.stream.rows.selections import class_counts
from hms_dist.train.checkpointing import RunState
from hms_dist.train.data.run_canvas import with_statistics
from hms_dist.train.data.run_data import RunData, epoch_rows, open_run_data, requests_of
from hms_dist.train.folder.owner import Ownership, owned
from hms_dist.train.folder.record import (
    ENVIRONMENT_NAME,
    LOG_NAME,
    MetricsLog,
    reported,
    write_forced_end,
    write_status,
)
from hms_dist.train.folder.run_folder import begin_folder, clear_folder
from hms_dist.train.folder.stop import StopRequest, stop_with_launcher
from hms_dist.train.folder.trackers import check_trackers, start_trackers
from hms_dist.train.learn.evaluate import batch_values, predict_rows
from hms_dist.train.learn.learner import Learner
from hms_dist.train.learn.meter import Durations, Meter
from hms_dist.train.learn.step import OptimizerStep
from hms_dist.train.optimise.plateau import check_monitor, observed
from hms_dist.train.ranks.placement import log_placement
from hms_dist.train.ranks.step_result import NonFiniteLossGuard, StepResult
from hms_dist.train.ranks.variables import check_variables
from hms_dist.train.ranks.world import World, launched_rank, launched_ranks, open_world
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stages import check_folders, check_networks, open_stages


def run(config: TrainConfig) -> None:
    """Train as configured, from the start or from the last checkpoint; every rank calls this.

    Raises UserError for what is the user's to mend: before the process group starts, wherever possible.
    """
    stop = StopRequest(config.out)
    stop_with_launcher(stop)
    is_main = launched_rank() == 0
    config.batching.check_world(launched_ranks())
    check_variables(config.precision)
    check_trackers(config.trackers)
    check_folders(config)
    check_networks(config)
    stages = open_stages(config)
    data = [open_run_data(stage) for stage in stages]
    with owned(config.out, is_main=is_main) as ownership, stop:
        if is_main:
            clear_folder(config)
            stop.last_words = partial(write_forced_end, config.out, ownership)
        start_log(launched_rank(), config.out / LOG_NAME if is_main else None)
        with reported(config.out, launched_rank()), ownership.guard():
            world = open_world(config.precision, config.timeout_s, trackers=config.trackers, out=config.out)
        try:
            # Reported before the group is left, which makes the other ranks fail.
            with world.shutdown(), reported(config.out, world.rank), ownership.guard():
                if is_main:
                    start_trackers(world.accelerator, config.trackers, config.out, to_dict(config))
                first_scale = world.scaler_state()
                for stage, its_data in zip(stages, data, strict=True):
                    world.reset_scaler(first_scale)  # a stage does not depend on the one before
                    _run_stage(config, stage, its_data, world, ownership, stop)
        finally:
            for its_data in data:
                its_data.close()


def _run_stage(
    config: TrainConfig, stage: TrainConfig, data: RunData, world: World, ownership: Ownership, stop: StopRequest
) -> None:
    if world.is_main:
        stage.out.mkdir(parents=True, exist_ok=True)
        for folder in {config.out, stage.out}:
            write_json(folder / ENVIRONMENT_NAME, environment())  # a job script takes it for the run's beginning
        if stage.out != config.out:
            write_status(config.out, "running", stage=stage.out.name)
    name = ""
    if config.stages:
        name = stage.out.name if stage.out != config.out else config.stages[-1].name
        LOG.info("stage %s", name)
    Trainer(stage, with_statistics(stage, data, world), world, ownership, stop, name).fit()


class Trainer:
    """One run in one process of its world."""

    def __init__(
        self, config: TrainConfig, data: RunData, world: World, ownership: Ownership, stop: StopRequest, name: str = ""
    ) -> None:
        """Build model and optimiser and, if the run folder holds a checkpoint, continue from it.

        `name`: of the stage, if the run has stages.
        """
        if world.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        self.config, self.data, self.world, self.stop = config, data, world, stop
        self.durations = Durations()
        self.judge = NonFiniteLossGuard(world, lambda row: str(data.index.frame["key"].iloc[row]))
        self.learner = Learner(config, data, world)
        self.metric = metric_of(data.shards.dataset)
        raw = [f"{self.metric.monitor}_raw"] if config.ema.evaluate_raw else []
        check_monitor(config.plateau, [*self.metric.monitor_names, *raw, *self.learner.task.monitor_names])
        self.keeper = RunState(config, data, world, self.learner, ownership)
        self.learner.choose_passes(self.keeper.resume())
        self.learner.begin()
        if world.is_main:
            begin_folder(config)  # not before nothing can be refused any more
        self.replacements = Replacements(config.max_replaced) if config.on_error == "replace" else None
        self.metrics: MetricsLog | None = None
        if world.is_main:
            prefix = f"{name}/" if name else ""
            keeper, evaluated = self.keeper, self.keeper.step == 0
            self.metrics = MetricsLog(config.out, keeper.steps_done, world.accelerator, prefix, evaluated=evaluated)

    def fit(self) -> None:
        """Train the epochs that are left and write the product. Raises Stopped, saved, if asked to stop."""
        self._say_start()
        try:
            self._fit()
        except Stopped:  # on all ranks at the same point
            self._save()
            raise

    def _fit(self) -> None:
        keeper = self.keeper
        while keeper.epoch < self.config.epochs and not keeper.plateau.stopped:
            if keeper.step < self.data.steps_of[keeper.epoch]:  # else it was stopped before its evaluation was done
                self._train_epoch(keeper.epoch)
            self._evaluate(keeper.epoch)
            keeper.epoch, keeper.step = keeper.epoch + 1, 0
            self._save()
        keeper.check_owner()
        if self.world.is_main:
            keeper.keep_final()
            write_status(
                self.config.out, "finished", exit_code=0, best=keeper.best, steps=keeper.steps_done,
                stopped_early=keeper.plateau.stopped, **self.durations.taken(),
            )  # fmt: skip
            LOG.info("finished: %s", self.config.out)
        self.world.wait()

    def _train_epoch(self, epoch: int) -> None:
        config, world, steps_of = self.config, self.world, self.data.steps_of
        self.durations.begin("epoch")
        rows, size = epoch_rows(config, self.data, epoch), config.global_batch
        steps = range(self.keeper.step, steps_of[epoch])
        requests = requests_of(config, self.data, self.learner.task, epoch, rows, steps, self.learner.passes)
        batches = load(
            self.data.shards.reader, requests, threads=config.reader_threads, pin=world.device.type == "cuda",
            replacements=self.replacements,
        )  # fmt: skip
        bar = tqdm(
            steps, desc=f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=None if world.is_main else True
        )
        with closing(batches):
            meter = Meter(batches)
            for number in bar:
                step = OptimizerStep(
                    epoch=epoch, number=number, overall=self.keeper.steps_done, epoch_ends=tuple(accumulate(steps_of)),
                    rows=rows[number * size : (number + 1) * size], lr_factor=self.keeper.plateau.factor,
                )  # fmt: skip
                self._step(step, meter, last=number == steps[-1])
        self.judge.settle()
        self.learner.end_epoch()

    def _step(self, step: OptimizerStep, meter: Meter, *, last: bool) -> None:
        """Take a step; log and save when it is time. `last`: of its epoch."""
        config, done = self.config, step.overall + 1
        outcome = self.learner.stepper.take(meter, step, stop=self.stop.asked())
        self.keeper.step = step.number + 1
        self.judge.add(outcome)
        if (step.number + 1) % config.log_every == 0 or last:
            self._log_step(step, outcome, meter, last=last)
        if last:
            return
        due = config.checkpoint_every and done % config.checkpoint_every == 0
        if due or self.judge.stop_asked:
            self.judge.settle()
        self._stop_if(self.judge.stop_asked)
        if due:
            self._save()

    def _save(self) -> None:
        """Write a checkpoint; every rank calls it. Its duration goes into the next line of metrics.jsonl."""
        self.durations.begin("checkpoint")
        self.keeper.save()
        if self.world.is_main:
            LOG.info("step %d: checkpoint in %.2f s", self.keeper.steps_done, self.durations.end("checkpoint"))

    def _stop_if_any_asked(self) -> None:
        """Between steps: ask all ranks. The judge's word is from the last steps, and the same on all."""
        self._stop_if(self.world.any_rank(self.judge.stop_asked or self.stop.asked()))

    def _stop_if(self, asked: bool) -> None:
        """Raises Stopped, which `fit` saves."""
        if not asked:
            return
        raise Stopped(f"stopped after step {self.keeper.steps_done} as asked; rerun the same command to continue")

    def _log_step(self, step: OptimizerStep, outcome: StepResult, meter: Meter, *, last: bool) -> None:
        self.judge.settle()
        replaced = self._num_replaced()
        if self.metrics is None:
            return
        self.keeper.check_owner()
        images_per_s, data_wait_share = meter.read()
        if last:
            LOG.info("epoch %d: trained in %.1f s", step.epoch + 1, self.durations.end("epoch"))
        self.metrics.write(
            epoch=step.epoch, step=step.overall + 1, loss=outcome.loss, **self.learner.figures(),
            images_per_s=round(images_per_s * self.world.num_ranks, 3), data_wait_share=round(data_wait_share, 4),
            **replaced, **self.durations.taken(),
        )  # fmt: skip
        write_status(
            self.config.out, "running", epoch=step.epoch, step=step.overall + 1, best=self.keeper.best, **replaced
        )

    def _num_replaced(self) -> dict[str, int]:
        """Damaged rows replaced so far on all ranks since the start or the resume; nothing if the run replaces none."""
        if self.replacements is None:
            return {}
        total = torch.tensor(float(self.replacements.num_replaced), device=self.world.device)
        self.world.sum_(total)
        return {"num_replaced": int(total)}

    def _evaluate(self, epoch: int) -> None:
        """Score the validation fold; keep weights and predictions if they are the best yet."""
        self.keeper.check_owner()
        self._stop_if_any_asked()
        config, rows = self.config, self.data.validation_rows
        if not len(rows):
            return
        self.durations.begin("evaluation")
        with self.learner.averaged():
            answers = self._predict(rows)
        metric, num_classes = self.metric, self.data.shards.dataset.num_classes
        truth, found = self.data.index.targets[rows], answers[:, :num_classes]
        monitors = {**metric.monitors(truth, found), **self.learner.task.monitors(truth, answers)}
        if config.ema.evaluate_raw:
            monitors[f"{metric.monitor}_raw"] = metric.value(truth, self._predict(rows)[:, :num_classes])
        monitors = self.world.broadcast(monitors)
        self.keeper.plateau = observed(config.plateau, self.keeper.plateau, monitors)
        if self.metrics is None:
            return
        seconds, batches = self.durations.end("evaluation"), batch_values(metric, truth, found, config.group_size)
        for number in range(config.log_every, len(batches) + 1, config.log_every):
            LOG.info("validation batch %d of %d: %s %.4f", number, len(batches), metric.title, batches[number - 1])
        self.metrics.write(
            epoch=epoch, step=sum(self.data.steps_of[: epoch + 1]), **monitors,
            **{f"val_batch_{metric.name}": batches}, **metric.evaluation(truth, found), **self.durations.taken(),
        )  # fmt: skip
        value = monitors[metric.monitor]
        LOG.info(
            "epoch %d: validation %s %.4f on %d rows in %.1f s", epoch + 1, metric.title, value, len(rows), seconds
        )
        self.keeper.keep_if_best(epoch, value, found)

    def _predict(self, rows: Rows) -> NDArray[np.float64]:
        """Answers for rows without augmentation, by the weights that the model has now; on every rank."""
        config = self.config
        return predict_rows(
            self.learner.stepper.model, self.data.plain, rows, self.world,
            task=self.learner.task, group_size=config.group_size, threads=config.reader_threads,
            before_round=self._stop_if_any_asked,
        )  # fmt: skip

    def _say_start(self) -> None:
        config, world, data, keeper = self.config, self.world, self.data, self.keeper
        if world.is_main:
            write_status(config.out, "running", best=keeper.best)
        world.wait()  # or a rank that fails at once would be overwritten
        log_placement(world)
        for report in data.labels.reports:
            report.log()
        for name, rows in (("training part", data.labels.rows), ("first epoch", epoch_rows(config, data, 0))):
            counts = class_counts(data.index, rows)
            LOG.info("%s: %s rows", name, ", ".join(f"{number} {label}" for label, number in counts.items()))
        LOG.info(
            "%d rank(s) on %s: %d training and %d validation rows, B = %d = %d groups of %d, passes of %s rows a rank, "
            "%d steps, %s, compiled: %s%s",
            world.num_ranks, world.device, len(data.labels.rows), len(data.validation_rows),
            config.global_batch, config.batching.num_groups, config.group_size,
            " + ".join(str(len(one)) for one in self.learner.passes), sum(data.steps_of), world.arithmetic,
            self.learner.compile_mode or "no",
            f", resumed at epoch {keeper.epoch} step {keeper.step}" if keeper.steps_done else "",
        )  # fmt: skip
