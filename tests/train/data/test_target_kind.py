"""Options that do not suit the targets of a data set are refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from hms_dist.canvas.augment import AugmentConfig
from hms_dist.canvas.augment.mix import MixUp
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset
from hms_dist.shards.index import Index, read_index
from hms_dist.train.data.target_kind import check_known, check_options

LAB = Dataset(name="lab", classes=("a", "b"), target="yes_no")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss__name": "kl"}, "loss.name: the targets of data set lab are yes_no, found kl; one of: bce_known"),
        ({"loss__name": "bce"}, "loss.name: the targets of data set lab are yes_no, found bce; one of: bce_known"),
        ({"loss__vote_power": 1}, "loss.vote_power: counts or compares votes"),
        ({"loss__vote_steps": "[[1, 0.25]]"}, "loss.vote_steps: counts or compares votes"),
        ({"loss__smooth_below": 8}, "loss.smooth_below: counts or compares votes"),
        ({"selection__rule": "class_balanced"}, "selection.rule: counts or compares votes"),
        ({"selection__rule": "class_rebalanced"}, "selection.rule: counts or compares votes"),
        ({"selection__rule": "vote_weighted"}, "selection.rule: counts or compares votes"),
        ({"selection__min_votes": 8}, "selection.min_votes: counts or compares votes"),
        ({"selection__max_votes": 8}, "selection.max_votes: counts or compares votes"),
        ({"selection__min_votes_schedule": "[[0, 2]]"}, "selection.min_votes_schedule: counts or compares votes"),
        ({"filters__label_peakedness": 9}, "filters.label_peakedness: counts or compares votes"),
        (
            {"filters__model_loss": 1, "filters__predictions": "[a.parquet]"},
            "filters.model_loss: counts or compares votes",
        ),
        ({"overlay__file": "a.parquet", "overlay__max_votes": 7}, "overlay.max_votes: counts or compares votes"),
    ],
)
def test_what_counts_votes_is_refused_where_classes_are_yes_or_no(small, options, message) -> None:
    config = small(**{"loss__name": "bce_known", **options})
    with pytest.raises(UserError) as refusal:
        check_options(config, LAB)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    if "loss__name" not in options:
        check_options(small(**options), HMS)


def test_rows_that_know_different_classes_may_be_mixed(small) -> None:
    check_options(replace(small(loss__name="bce_known"), augment=AugmentConfig(steps=(MixUp(),))), LAB)


def test_what_suits_yes_or_no_passes(small) -> None:
    options = {"selection__rule": "one_random_row_per_eeg", "selection__min_votes": 0, "overlay__file": "a.parquet"}
    check_options(small(loss__name="bce_known", **options), LAB)


def test_the_loss_of_yes_or_no_is_refused_for_shares(small) -> None:
    with pytest.raises(UserError, match="targets of data set hms are shares, found bce_known; one of: kl, bce, ce"):
        check_options(small(loss__name="bce_known"), HMS)


def test_a_fold_in_which_nothing_is_known_is_refused(small, shard_set) -> None:
    frame = read_index(shard_set / "index.parquet").frame
    rows = np.flatnonzero(frame["fold_of_3"] == 0)
    votes = np.ones((len(frame), 2))
    votes[rows] = np.nan
    index = Index(frame.assign(a_vote=votes[:, 0], b_vote=votes[:, 1]), "index", LAB)
    with pytest.raises(UserError, match="index: no class is known in any row of validation fold 0 of 3"):
        check_known(small(), index, rows)
    check_known(small(), index, np.arange(len(frame)))
