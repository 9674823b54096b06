"""`hms-dist ensemble`: combine several models' predictions by a plain mean or fitted weights."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, write_json
from hms_dist.core.logging import LOG
from hms_dist.datasets import Dataset, Pooling
from hms_dist.predict.fit import METHOD_FITTED, cross_fitted, fit_pool
from hms_dist.predict.fitted import Fitted, cross_fit_sources
from hms_dist.predict.members import Labelled, joined_sources, read_labelled, read_members
from hms_dist.predict.pool import Pool, equal_pool
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.predictions import check_no_input, check_rows, prediction_table, write_predictions


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Pool predictions of the same rows.

    Equal weights; or weights and a bias per class fitted to votes (`--weights fit --labels SHARDS`), which requires
    out-of-fold tables, writes the weights as JSON next to `out` and prints the cross-validated KL; or the weights of
    such a file (`--weights FILE`), for new rows.
    """

    predictions: tuple[Path, ...]
    """Tables of the models, .parquet, of the same rows; for a submission, other submissions (.csv) too. For a fit: each
    row by models that had not seen its patient."""
    out: Path
    """Table to write: .parquet, or .csv with Kaggle's submission columns. After a fit it holds, for each fold, the
    predictions of a fit on the other folds."""
    method: Literal["mean", "geometric", "rank_mean"] | None = None
    """mean: of the probabilities; geometric: of their logarithms; rank_mean: of the ranks of rows for each model, for
    rank metrics such as AUC: its KL is about twice the mean's. None: mean; for a fit geometric, which has the
    lower cross-validated KL on public tables; with a weights file its method."""
    weights: str | None = None
    """fit, or a JSON file that a fit wrote. None: equal weights."""
    labels: str | None = None
    """Shard set with the votes to fit to: its folder, or its URL; or a table like train.csv (.csv) with eeg_id,
    patient_id, the votes (or shares) and, unless each EEG has one row, eeg_sub_id. None: nothing is fitted."""
    out_of_fold: Literal["recorded", "stated"] = "recorded"
    """For a fit. recorded: each table names the models that made it, which had not seen the patients of the fold that
    they predict. stated: you state that of tables that name none, such as other people's; the result records it."""

    pool_rows: Pooling | None = None
    """Of a submission: pooling of the rows of a recording, max, mean, noisy_or or none, which allows one row alone.
    None: that of the data set."""

    def __post_init__(self) -> None:
        if self.pool_rows is not None and self.out.suffix != ".csv":
            raise ValueError(f"pool_rows: a {self.out.suffix} table has every row; write a .csv, or leave it out")
        if not self.predictions:
            raise ValueError("predictions: name at least one table")
        if (self.weights == "fit") != (self.labels is not None):
            raise ValueError(
                "labels: are for fitting alone, which needs them; give --weights fit and --labels together"
            )
        if self.out_of_fold == "stated" and self.weights != "fit":
            raise ValueError("out_of_fold: is for fitting alone; give --weights fit, or leave it out")
        if self.weights == "fit" and self.method == "rank_mean":
            raise ValueError("method: rank_mean has no weights to fit; choose mean or geometric")
        if self.weights == "fit" and self.out.suffix != ".parquet":
            raise ValueError(f"out: expected a name ending in .parquet, found {self.out.name}")
        if self.weights != "fit" and self.out.suffix != ".csv" and any(p.suffix == ".csv" for p in self.predictions):
            raise ValueError(
                f"out: submissions make a submission; expected a name ending in .csv, found {self.out.name}"
            )


def run(command: Ensemble) -> None:
    """Run the command `ensemble`."""
    if command.weights == "fit" and command.labels is not None:
        print(
            json.dumps(
                fit(
                    command, read_labelled(command.predictions, command.labels, stated=command.out_of_fold == "stated")
                ),
                indent=1,
            )
        )
    else:
        apply(command)


def apply(command: Ensemble) -> None:
    """Pool with equal or stored weights and write the table. Raises UserError for tables that do not fit."""
    check_no_input(command.out, command.predictions)
    members = read_members(command.predictions, submissions=command.out.suffix == ".csv")
    dataset = members.dataset
    if command.pool_rows is not None:
        dataset = replace(dataset, submission=replace(dataset.submission, pool=command.pool_rows))
    check_rows(command.out, members.ids["eeg_id"].to_numpy("int64"), dataset)
    sources = () if command.out.suffix == ".csv" else joined_sources(members)
    if command.weights is None:
        pool = equal_pool(command.method or "mean", len(command.predictions), members.dataset)
    else:
        path = Path(command.weights)
        fitted = Fitted.read(path)
        fitted.check_members(path, members)
        pool = _stored_pool(path, fitted, command.method, members.dataset)
        sources = (*sources, fitted.source) if sources else ()
    if pool.method == "rank_mean" and members.dataset.target == "shares":
        LOG.warning("rank_mean is for metrics of ranks: its KL is about twice that of the mean; for KL take mean")
    table = prediction_table(members.ids, members.folds, pool(members.probabilities), members.dataset)
    write_predictions(command.out, table, sources, dataset)
    LOG.info("%d rows of %d models by %s: %s", len(table), len(command.predictions), pool.method, command.out)


def fit(command: Ensemble, labelled: Labelled) -> dict[str, Any]:
    """Fit, write the weights (JSON) and the cross-fitted table; return the scores that `run` prints.

    Raises UserError if there are fewer than two folds for cross-validation.
    """
    method = command.method or METHOD_FITTED
    check_no_input(command.out, command.predictions)
    if len(labelled.folds) < 2:
        raise UserError(
            f"--predictions: cross-validation needs 2 folds, found {len(labelled.folds)}; assemble all folds"
        )
    members, targets = labelled.members, labelled.targets
    check_rows(command.out, members.ids["eeg_id"].to_numpy("int64"), members.dataset)
    dataset, metric = members.dataset, metric_of(members.dataset)
    pool = fit_pool(method, members.probabilities, targets, dataset)
    honest = cross_fitted(method, labelled)
    scores = {
        "num_rows": len(targets),
        "models": [metric.value(targets, each) for each in members.probabilities],
        "equal_weights": metric.value(targets, equal_pool(method, len(members.paths), dataset)(members.probabilities)),
        "fitted_cross_validated": metric.value(targets, honest),
        "fitted_on_its_own_rows": metric.value(targets, pool(members.probabilities)),
    }
    content = {**pool.to_json(), metric.name: scores}
    path = command.out.with_suffix(".json")
    fitted = Fitted.of(labelled, content, run=str(path), weights=digest(pool.to_json()))
    write_json(path, fitted.to_json())
    sources = [*joined_sources(members), *cross_fit_sources(labelled, fitted.record)]
    table = prediction_table(members.ids, members.folds, honest, dataset)
    write_predictions(command.out, table, sources, dataset)
    LOG.info("weights %s: %s", " ".join(f"{weight:.4f}" for weight in pool.weights), path)
    return {**pool.to_json(), metric.name: scores}


def _stored_pool(path: Path, fitted: Fitted, method: str | None, dataset: Dataset) -> Pool:
    try:
        pool = Pool.from_json(fitted.content, dataset)
        if len(pool.weights) != len(fitted.members):
            raise ValueError(f"expected {len(fitted.members)} weights, found {len(pool.weights)}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no weights of an ensemble ({error}); fit them with --weights fit") from error
    if method not in (None, pool.method):
        raise UserError(f"--method: {path} was fitted for {pool.method}, found {method}; leave the option out")
    return pool
