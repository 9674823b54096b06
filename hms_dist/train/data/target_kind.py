"""Options of a run that the targets of its data set allow."""

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.model.loss import LOSSES
from hms_dist.shards.index import Index, Rows
from hms_dist.train.settings import TrainConfig


def check_options(config: TrainConfig, dataset: Dataset) -> None:
    """Raise UserError for an option that does not suit the targets of the data set, naming the option.

    Independent yes/no classes have no votes to count.
    """
    name, kind = config.loss.name, LOSSES[config.loss.name].target
    if kind != dataset.target:
        fitting = [loss for loss, found in LOSSES.items() if found.target == dataset.target]
        raise UserError(
            f"loss.name: the targets of data set {dataset.name} are {dataset.target}, found {name}; one of: "
            f"{', '.join(fitting)}"
        )
    if dataset.target == "shares":
        return
    unsuitable = {
        "loss.vote_power": config.loss.vote_power != 0,
        "loss.vote_steps": bool(config.loss.vote_steps),
        "loss.smooth_below": config.loss.smooth_below is not None,
        "selection.rule": config.selection.rule in ("class_balanced", "class_rebalanced", "vote_weighted"),
        "selection.min_votes": config.selection.min_votes > 1,
        "selection.max_votes": config.selection.max_votes is not None,
        "selection.min_votes_schedule": bool(config.selection.min_votes_schedule),
        "filters.label_peakedness": config.filters.label_peakedness is not None,
        "filters.model_loss": config.filters.model_loss is not None,
        "overlay.max_votes": config.overlay is not None and config.overlay.max_votes is not None,
    }
    found = [option for option, is_set in unsuitable.items() if is_set]
    if found:
        raise UserError(
            f"{found[0]}: counts or compares votes, and the classes of data set {dataset.name} are independent (target "
            "yes_no); leave it out"
        )


def check_known(config: TrainConfig, index: Index, validation_rows: Rows) -> None:
    """Raise UserError if no class is known in any of the `validation_rows` [n]: they could not be scored."""
    if len(validation_rows) and not np.isfinite(index.targets[validation_rows]).any():
        raise UserError(
            f"{index.name}: no class is known in any row of validation fold {config.fold} of {config.num_folds}; "
            "choose another fold, or fewer folds"
        )
