"""Progress of a run in memory and in its folder: checkpoints, the best weights and predictions, the final weights."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.config.load import stored
from hms_dist.core.errors import UserError, first_line
from hms_dist.core.logging import LOG
from hms_dist.results.held_out import Estimate, held_out_figures
from hms_dist.results.lineage import Source
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.train.data.leakage import SEEN_KEY, continued, initial_changed, run_record, stored_record
from hms_dist.train.data.run_data import RunData, check_recipes, panel_recipes
from hms_dist.train.folder.checkpoint import Checkpoint, save_checkpoint, save_weights
from hms_dist.train.folder.model_card import read_card, run_card
from hms_dist.train.folder.owner import Ownership
from hms_dist.train.folder.record import PREDICTIONS_NAME
from hms_dist.train.folder.run_folder import BEST, CHECKPOINTS, FINAL, find_checkpoint
from hms_dist.train.learn.learner import Learner
from hms_dist.train.optimise.plateau import Plateau
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig

UNIT = "rows"
"""Unit of a run's arithmetic and random draws. Checkpoints without it are by groups, and cannot be resumed."""


class RunState:
    """Progress of a run, in memory and on disk. Only the main rank writes, and only while it owns the folder."""

    def __init__(
        self, config: TrainConfig, data: RunData, world: World, learner: Learner, ownership: Ownership
    ) -> None:
        """Set the cursor to the start of the run; `resume` restores a checkpoint."""
        self._config, self._data, self._world, self._learner = config, data, world, learner
        self._ownership = ownership
        self.epoch, self.step = 0, 0
        """Cursor: number of finished epochs, and of finished steps in the current one."""
        self._metric = metric_of(data.shards.dataset)
        self._monitor = self._metric.monitor
        self.best: dict[str, Any] = {self._monitor: None, "epoch": None}
        self._last_value: float | None = None
        """Metric of the last evaluation; None before the first, and after a resume from an earlier version."""
        self.plateau = Plateau()
        self._lineage = run_record(config, data.index, data.train_rows, data.shards.manifest.fingerprint)

    @property
    def steps_done(self) -> int:
        """Number of steps of the run so far."""
        return sum(self._data.steps_of[: self.epoch]) + self.step

    def check_owner(self) -> None:
        """Raise Superseded if the run folder has another owner now."""
        self._ownership.check()

    def save(self) -> None:
        """Write a checkpoint; every rank calls it."""
        self.check_owner()
        if self._world.is_main:
            learner = self._learner
            state = {
                "cursor": {"epoch": self.epoch, "step": self.step},
                "best": self.best,
                "last_value": self._last_value,
                "plateau": asdict(self.plateau),
                "config": stored(self._config),
                **asdict(learner.tally),
                **self._facts(),
            }
            save_checkpoint(
                self._config.out / CHECKPOINTS, self.steps_done, model=learner.raw_model,
                optimizer=learner.optimizer, state=state, ema=learner.ema,
                scaler=self._world.accelerator.scaler, num_kept=self._config.keep_checkpoints,
            )  # fmt: skip
        self._world.wait()

    def resume(self) -> int | None:
        """Restore the newest complete checkpoint, if there is one.

        Returns the largest number of rows of its passes; None without a checkpoint, or for another number of ranks.
        Raises UserError if the data of the run changed.
        """
        checkpoint = find_checkpoint(self._config)
        if checkpoint is None:
            return None
        try:
            self._restore(checkpoint)
            state = checkpoint.state
            return int(state["pass_rows"]) if state["num_ranks"] == self._world.num_ranks else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{checkpoint.folder}: not a valid state of this run ({first_line(error)}); restore it from a copy, or "
                "remove this checkpoint"
            ) from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        state, facts = checkpoint.state, self._facts()
        if state["shards"] != facts["shards"] and not self._config.other_shards:
            raise UserError(
                f"{self._config.shards}: not the shard set that {self._config.out} was trained on; check --shards, or "
                "continue with --other_shards"
            )
        check_recipes(self._config.shards, self._data.shards, state["panels"])
        if state["labels"] != facts["labels"] and not self._config.other_shards:
            raise UserError(
                f"{self._config.out}: the tables of filters.predictions or overlay.file changed since the run began; "
                "restore them, or choose another --out"
            )
        weights = self._config.model.weights
        if initial_changed(weights, state) and not self._config.other_shards:
            raise UserError(
                f"{self._config.out}: its initial weights {weights} changed since the run began; restore them, choose "
                "another --out, or continue with --other_shards"
            )
        if state.get("unit") != UNIT and state["cursor"]["epoch"] < self._config.epochs:
            raise UserError(
                f"{self._config.out}: begun by an earlier version, which trained by groups; this version trains by "
                "rows, with other random draws; finish it with that version, or start again in another --out"
            )
        for name in ("torch", "threads", "num_ranks", "arithmetic", "compile_mode"):
            if name in state and state[name] != facts[name]:
                LOG.warning(
                    "resuming with %s %s, was %s: the result may differ by rounding", name, facts[name], state[name]
                )
        learner = self._learner
        checkpoint.restore(learner.raw_model, learner.optimizer, self._world.accelerator.scaler, learner.ema)
        self.epoch, self.step, self.best = state["cursor"]["epoch"], state["cursor"]["step"], dict(state["best"])
        if not all(type(number) is int and number >= 0 for number in (self.epoch, self.step, state["num_skipped"])):
            raise ValueError(f"cursor {state['cursor']}")
        float(self.best[self._monitor] or 0)
        value = state.get("last_value")
        self._last_value = None if value is None else float(value)
        self.plateau = Plateau(**state["plateau"])
        learner.tally.num_skipped = state["num_skipped"]
        self._lineage = continued(self._lineage, state)

    def save_if_best(self, epoch: int, value: float, found: NDArray[np.float64]) -> None:
        """Save the weights and their predictions `found` [validation rows, classes] if no epoch had a lower `value` of
        the metric. Main rank only."""
        self._last_value = value
        if self.best[self._monitor] is not None and value >= self.best[self._monitor]:
            return
        config, learner, rows = self._config, self._learner, self._data.validation_rows
        self.best = {self._monitor: value, "epoch": epoch}
        truth, patients = self._data.index.targets[rows], self._data.index.ids("patient_id")[rows]
        figures = held_out_figures(self._metric, self._data.index.dataset.classes, truth, found, patients)
        card = self._card(BEST, epoch + 1, figures)
        save_weights(config.out / BEST, learner.raw_model, {**self.best, **self._facts()}, learner.ema, card)
        dataset = self._data.shards.dataset
        table = prediction_table(self._data.index.frame.iloc[rows], np.full(len(rows), config.fold), found, dataset)
        seen = stored_record(config.out / BEST)
        write_predictions(config.out / PREDICTIONS_NAME, table, [Source(model=seen, fold=seen.fold)], dataset)

    def save_final(self) -> None:
        """Save the weights at the end of the run. Main rank only."""
        learner = self._learner
        facts = {"epoch": self.epoch, **self._facts()}
        card = self._card(FINAL, self.epoch, self._last_figures())
        save_weights(self._config.out / FINAL, learner.raw_model, facts, learner.ema, card)

    def _card(self, weights: str, epoch: int, held_out: dict[str, Any] | None) -> dict[str, Any]:
        """The model card of the present weights."""
        data = self._data
        return run_card(
            self._config, data.index, data.labels.rows, self._lineage, weights=weights, epoch=epoch, held_out=held_out
        )

    def _last_figures(self) -> dict[str, Any] | None:
        """Held-out figures of the last epoch: all if it is the best one, else the metric alone."""
        if not len(self._data.validation_rows) or self._last_value is None:
            return None
        card = read_card(self._config.out / BEST) if self.best["epoch"] == self.epoch - 1 else None
        if card is not None:
            return dict(card["held_out"])
        name = self._metric.name
        return {
            "metric": name, name: Estimate(self._last_value).to_json(),
            "note": f"{BEST}/ holds the weights of epoch {self.best['epoch'] + 1}, with figures and intervals.",
        }  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        """Facts that a resume compares, and that later users of the weights need."""
        return {
            "shards": self._data.shards.manifest.fingerprint,
            "panels": panel_recipes(self._data.shards),
            "labels": self._data.labels.digest,
            SEEN_KEY: self._lineage.to_json(),
            "fold": self._config.fold,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "num_ranks": self._world.num_ranks,
            "arithmetic": self._world.arithmetic,
            "unit": UNIT,
            "pass_rows": self._learner.pass_rows,
            "compile_mode": self._learner.compile_mode,
        }
