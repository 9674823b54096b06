"""The training loop: stages, epochs, steps, evaluation; checkpoints, logs and stops where they are due."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hms_dist.core.errors import Stopped
from hms_dist.core.logging import LOG
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.yes_no import recording_lwlrap
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Batch, load
from hms_dist.stream.read.replacements import Replacements
from hms_dist.stream.rows.selections import class_counts
from hms_dist.train.checkpointing import RunState
from hms_dist.train.data.run_canvas import with_statistics
from hms_dist.train.data.run_data import RunData, epoch_rows, requests_of
from hms_dist.train.folder.owner import Ownership
from hms_dist.train.folder.record import MetricsLog, write_status
from hms_dist.train.folder.run_folder import begin_folder
from hms_dist.train.folder.stop import StopRequest
from hms_dist.train.learn.evaluate import batch_values, predict_rows, rows_at_once
from hms_dist.train.learn.learner import Learner
from hms_dist.train.learn.meter import Durations, Meter
from hms_dist.train.learn.step import OptimizerStep
from hms_dist.train.optimise.plateau import check_monitor, observed
from hms_dist.train.ranks.placement import log_placement
from hms_dist.train.ranks.step_result import NonFiniteLossGuard, StepResult
from hms_dist.train.ranks.world import World
from hms_dist.train.session import begin_stage, open_session
from hms_dist.train.settings import TrainConfig


def run(config: TrainConfig) -> None:
    """Train as configured, from the start or from the last checkpoint, stage by stage; every rank calls this.

    Raises UserError for user errors, before the process group starts wherever possible.
    """
    with open_session(config) as session:
        for stage, opened in session.stages:
            name = begin_stage(session, stage)
            data = with_statistics(stage, opened, session.world)
            Trainer(stage, data, session.world, session.ownership, session.stop, name).fit()


class Trainer:
    """Trains one stage on one rank."""

    def __init__(
        self, config: TrainConfig, data: RunData, world: World, ownership: Ownership, stop: StopRequest, name: str = ""
    ) -> None:
        """Build model and optimiser, and restore the last checkpoint of the run folder, if there is one.

        `name`: name of the stage; empty for a run without stages.
        """
        if world.device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        self.config, self.data, self.world, self.stop = config, data, world, stop
        self.durations = Durations()
        self.guard = NonFiniteLossGuard(world, lambda row: str(data.index.frame["key"].iloc[row]))
        self.learner = Learner(config, data, world)
        self.metric = metric_of(data.shards.dataset)
        raw = [f"{self.metric.monitor}_raw"] if config.ema.evaluate_raw else []
        check_monitor(config.plateau, [*self.metric.monitor_names, *raw, *self.learner.task.monitor_names])
        self.state = RunState(config, data, world, self.learner, ownership)
        self.learner.choose_passes(self.state.resume())
        self.learner.begin()
        if world.is_main:
            begin_folder(config)  # after everything that can be rejected was checked
        self.replacements = Replacements(config.max_replaced) if config.on_error == "replace" else None
        self.metrics: MetricsLog | None = None
        self._unwritten: tuple[StepResult, dict[str, Any]] | None = None
        """The step to be logged next, and the fields of its line besides the loss."""
        if world.is_main:
            prefix = f"{name}/" if name else ""
            state, evaluated = self.state, self.state.step == 0
            self.metrics = MetricsLog(config.out, state.steps_done, world.accelerator, prefix, evaluated=evaluated)

    def fit(self) -> None:
        """Train the remaining epochs and write the final weights. Raises Stopped, after a checkpoint, when asked to
        stop."""
        self._log_start()
        state = self.state
        with self._saved_when_stopped():
            while state.epoch < self.config.epochs and not state.plateau.stopped:
                if state.step < self.data.steps_of[state.epoch]:  # otherwise only its evaluation is missing
                    self._train_epoch(state.epoch)
                self._evaluate(state.epoch)
                state.epoch, state.step = state.epoch + 1, 0
                self._save()
            self._finish()

    def _train_epoch(self, epoch: int) -> None:
        """Take the remaining steps of an epoch."""
        self.durations.begin("epoch")
        steps = range(self.state.step, self.data.steps_of[epoch])
        rows = epoch_rows(self.config, self.data, epoch)
        with closing(self._load(epoch, rows, steps)) as batches:
            meter = Meter(batches)
            for number in self._progress_bar(epoch, steps):
                step = self._plan_step(epoch, number, rows)
                result = self.learner.stepper.take(meter, step, stop=self.stop.asked())
                self._end_step(step, result, meter, last=number == steps[-1])
        self.guard.settle()
        self.learner.end_epoch()

    def _load(self, epoch: int, rows: Rows, steps: range) -> Generator[Batch]:
        """Batches of this rank's passes, in the order of the steps."""
        config = self.config
        requests = requests_of(config, self.data, self.learner.task, epoch, rows, steps, self.learner.passes)
        return load(
            self.data.shards.reader, requests, threads=config.reader_threads,
            pin=self.world.device.type == "cuda", replacements=self.replacements,
        )  # fmt: skip

    def _progress_bar(self, epoch: int, steps: range) -> Iterable[int]:
        hidden = None if self.world.is_main else True  # None: shown on a terminal
        return tqdm(steps, desc=f"epoch {epoch + 1}/{self.config.epochs}", unit="step", disable=hidden)

    def _plan_step(self, epoch: int, number: int, rows: Rows) -> OptimizerStep:
        size = self.config.global_batch
        return OptimizerStep(
            epoch=epoch, number=number, overall=self.state.steps_done,
            epoch_ends=tuple(accumulate(self.data.steps_of)), rows=rows[number * size : (number + 1) * size],
            lr_factor=self.state.plateau.factor,
        )  # fmt: skip

    def _end_step(self, step: OptimizerStep, result: StepResult, meter: Meter, *, last: bool) -> None:
        """Move the cursor, then log, save and stop where due. `last`: the step is the last one of its epoch."""
        config, num_done = self.config, step.overall + 1
        self.state.step = step.number + 1
        self.guard.add(result)
        self._write_line()  # of a step that has ended; a GPU is at work on the next one
        if (step.number + 1) % config.log_every == 0 or last:
            self._log_step(step, result, meter, last=last)
        due = config.checkpoint_every and num_done % config.checkpoint_every == 0
        if last or due or self.guard.stop_asked or result.sums.is_ready:
            self.guard.settle()
            self._write_line()
        if last:
            return
        self._stop_if(self.guard.stop_asked)
        if due:
            self._save()

    def _finish(self) -> None:
        """Write the final weights and record the end of the run."""
        state = self.state
        state.check_owner()
        if self.world.is_main:
            state.save_final()
            write_status(
                self.config.out, "finished", exit_code=0, best=state.best, steps=state.steps_done,
                stopped_early=state.plateau.stopped, **self.durations.pop(),
            )  # fmt: skip
            LOG.info("finished: %s", self.config.out)
        self.world.wait()

    @contextmanager
    def _saved_when_stopped(self) -> Iterator[None]:
        """Write a checkpoint when Stopped is raised, which happens on all ranks at the same point."""
        try:
            yield
        except Stopped:
            self._save()
            raise

    def _save(self) -> None:
        """Write a checkpoint; every rank calls it. Its duration goes into the next line of metrics.jsonl."""
        self.durations.begin("checkpoint")
        self.state.save()
        if self.world.is_main:
            LOG.info("step %d: checkpoint in %.2f s", self.state.steps_done, self.durations.end("checkpoint"))

    def _stop_if_any_asked(self) -> None:
        """Stop between steps if any rank was asked to; every rank calls it."""
        self._stop_if(self.world.any_rank(self.guard.stop_asked or self.stop.asked()))

    def _stop_if(self, asked: bool) -> None:
        """Raise Stopped, for which `fit` writes a checkpoint."""
        if not asked:
            return
        raise Stopped(f"stopped after step {self.state.steps_done} as asked; rerun the same command to continue")

    def _log_step(self, step: OptimizerStep, result: StepResult, meter: Meter, *, last: bool) -> None:
        """Collect the metrics of a step to log; `_write_line` writes them when the loss is known."""
        if last:
            self.guard.settle()  # the epoch's duration includes its last step
        replaced = self._num_replaced()
        if self.metrics is None:
            return
        images_per_s, data_wait_share = meter.read()
        if last:
            LOG.info("epoch %d: trained in %.1f s", step.epoch + 1, self.durations.end("epoch"))
        self._unwritten = result, {
            "epoch": step.epoch, "step": step.overall + 1, **self.learner.step_metrics(),
            "images_per_s": round(images_per_s * self.world.num_ranks, 3), "data_wait_share": round(data_wait_share, 4),
            **replaced, **self.durations.pop(),
        }  # fmt: skip

    def _write_line(self) -> None:
        """Write the collected line of metrics.jsonl, if there is one, and status.json."""
        waiting, self._unwritten = self._unwritten, None
        if self.metrics is None or waiting is None:
            return
        result, line = waiting
        self.state.check_owner()
        self.metrics.write(**{"epoch": line["epoch"], "step": line["step"], "loss": result.loss, **line})
        kept = {name: line[name] for name in ("epoch", "step", "num_replaced") if name in line}
        write_status(self.config.out, "running", **kept, best=self.state.best)

    def _num_replaced(self) -> dict[str, int]:
        """Damaged rows replaced by all ranks since the start or the resume; empty if the run replaces none."""
        if self.replacements is None:
            return {}
        total = torch.tensor(float(self.replacements.num_replaced), device=self.world.device)
        self.world.sum_(total)
        return {"num_replaced": int(total)}

    def _evaluate(self, epoch: int) -> None:
        """Score the validation fold; save weights and predictions if they are the best so far. Every rank calls it."""
        self.state.check_owner()
        self._stop_if_any_asked()
        config, rows = self.config, self.data.validation_rows
        if not len(rows):
            return
        self.durations.begin("evaluation")
        with self.learner.averaged():
            outputs = self._predict(rows)
        metric, num_classes = self.metric, self.data.shards.dataset.num_classes
        truth, found = self.data.index.targets[rows], outputs[:, :num_classes]
        monitors = {**metric.monitors(truth, found), **self.learner.task.monitors(truth, outputs)}
        if "val_lwlrap" in monitors and self.data.shards.dataset.signal == "audio":
            ranked = recording_lwlrap(self.data.index.ids("eeg_id")[rows], truth, found)
            monitors |= {} if ranked is None else {"val_lwlrap": ranked}
        if config.ema.evaluate_raw:
            monitors[f"{metric.monitor}_raw"] = metric.value(truth, self._predict(rows)[:, :num_classes])
        monitors = self.world.broadcast(monitors)
        self.state.plateau = observed(config.plateau, self.state.plateau, monitors)
        if self.metrics is None:
            return
        seconds, batches = self.durations.end("evaluation"), batch_values(metric, truth, found, config.group_size)
        for number in range(config.log_every, len(batches) + 1, config.log_every):
            LOG.info("validation batch %d of %d: %s %.4f", number, len(batches), metric.title, batches[number - 1])
        self.metrics.write(
            epoch=epoch, step=sum(self.data.steps_of[: epoch + 1]), **monitors,
            **{f"val_batch_{metric.name}": batches}, **metric.evaluation(truth, found), **self.durations.pop(),
        )  # fmt: skip
        value = monitors[metric.monitor]
        LOG.info(
            "epoch %d: validation %s %.4f on %d rows in %.1f s", epoch + 1, metric.title, value, len(rows), seconds
        )
        self.state.save_if_best(epoch, value, found)

    def _predict(self, rows: Rows) -> NDArray[np.float64]:
        """Predict rows without augmentation by the current weights of the model; every rank gets all predictions."""
        config = self.config
        return predict_rows(
            self.learner.stepper.model, self.data.plain, rows, self.world,
            task=self.learner.task, size=rows_at_once(config.group_size, self.world.device),
            threads=config.reader_threads,
            before_round=self._stop_if_any_asked,
        )  # fmt: skip

    def _log_start(self) -> None:
        config, world, data, state = self.config, self.world, self.data, self.state
        if world.is_main:
            write_status(config.out, "running", best=state.best)
        world.wait()  # so that this does not overwrite the error of a rank that fails at once
        log_placement(world)
        for report in data.labels.reports:
            report.log()
        for name, rows in (("training part", data.labels.rows), ("first epoch", epoch_rows(config, data, 0))):
            counts = class_counts(data.index, rows)
            LOG.info("%s: %s rows", name, ", ".join(f"{number} {label}" for label, number in counts.items()))
        LOG.info(
            "%d rank(s) on %s: %d training and %d validation rows, B = %d = %d groups of %d, passes of %s rows per "
            "rank, %d steps, %s, compiled: %s%s",
            world.num_ranks, world.device, len(data.labels.rows), len(data.validation_rows),
            config.global_batch, config.batching.num_groups, config.group_size,
            " + ".join(str(len(one)) for one in self.learner.passes), sum(data.steps_of), world.arithmetic,
            self.learner.compile_mode or "no",
            f", resumed at epoch {state.epoch} step {state.step}" if state.steps_done else "",
        )  # fmt: skip
