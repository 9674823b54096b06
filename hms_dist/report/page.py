"""`hms-dist report`: runs and prediction tables on one page, a single HTML file that needs no network."""

from dataclasses import dataclass
from pathlib import Path

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.core.logging import LOG
from hms_dist.datasets import HMS, Dataset
from hms_dist.grid.oof import check_held_out, shards_of
from hms_dist.report.page_about import about_values
from hms_dist.report.page_charts import Level
from hms_dist.report.page_clips import Windows, clips_values, read_windows
from hms_dist.report.page_gallery import gallery_values
from hms_dist.report.page_patients import patient_values
from hms_dist.report.page_quality import qualities, quality_values
from hms_dist.report.page_runs import RunFacts, read_runs, short_names
from hms_dist.report.page_scores import Labels, ScoredTable, by_rows, read_scored, truth_of
from hms_dist.report.page_template import rendered
from hms_dist.report.page_training import training_values
from hms_dist.report.page_verdicts import levels_of, verdict_values
from hms_dist.report.sheet import check_matplotlib
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.predictions import check_place
from hms_dist.shards.index import open_set
from hms_dist.train.folder.record import PREDICTIONS_NAME

MAX_LEVELS = 3
"""Most groups of rows with lines of their own in the chart of the validation metric."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write a page about runs and predictions: verdicts, scores with intervals, by class, votes and patient; curves,
    calibration, ensembles, best and worst rows."""

    runs: tuple[Path, ...] = ()
    """Run folders; earlier stages of a run are included."""
    predictions: tuple[Path, ...] = ()
    """Further prediction tables (.parquet), for example of an ensemble; those of the runs' validation folds are
    included automatically."""
    shards: str | None = None
    """Folder of the shard set, or its URL, for comparisons of predictions with votes. None: omitted."""
    truth: Path | None = None
    """truth.parquet of simulated data, for the oracle's KL and the fraction of the gap closed. None: omitted."""
    out: Path
    """Page to write, a name ending in .html."""
    windows: tuple[Path, ...] = ()
    """Tables of predictions (.parquet) of windows of audio, drawn over time with the annotations of `shards`: of clips
    (hms-dist predict --recording), or of a test set."""
    data: Path | None = None
    """With windows: folder of the recordings, for spectrograms. None: omitted."""
    clips: int = 4
    """With windows: number of recordings of each table, annotated ones first."""
    gallery: int = 2
    """Number of best rows to draw of each class, and of worst rows; 0: none, and matplotlib is not needed."""
    attribution: bool = True
    """Show beside each canvas of the gallery which pixels its prediction depends on (gradient x input); takes a second
    per row with a small network, more and several gigabytes with a large canvas."""

    def __post_init__(self) -> None:
        if not self.runs and not self.predictions and not self.windows:
            raise ValueError("runs: nothing to report; give --runs, --predictions or --windows")
        if self.out.suffix != ".html":
            raise ValueError(f"out: expected a name ending in .html, found {self.out.name}")
        if self.predictions and self.shards is None:
            raise ValueError("predictions: comparing them with votes needs the shard set; give --shards")
        if self.truth is not None and self.shards is None:
            raise ValueError("truth: comparing it with votes needs the shard set; give --shards")
        for name in ("predictions", "windows"):
            for path in getattr(self, name):
                if path.suffix != ".parquet":
                    raise ValueError(f"{name}: expected names ending in .parquet, found {path.name}")
        if self.data is not None and not self.windows:
            raise ValueError("data: is for spectrograms of clips; give --windows, or leave it out")
        if self.clips < 1:
            raise ValueError(f"clips: expected at least 1, found {self.clips}")
        for name in ("runs", "predictions", "windows"):
            paths = [path.resolve() for path in getattr(self, name)]
            if len(set(paths)) < len(paths):
                raise ValueError(f"{name}: one of them is given twice; name each once")
        if self.gallery < 0:
            raise ValueError(f"gallery: expected 0 or more, found {self.gallery}")


def run(command: Report) -> None:
    """Run the command `report`. Raises UserError for folders that are not runs and tables that do not fit the shard
    set."""
    check_place(command.out)
    if command.gallery and command.shards is not None:
        check_matplotlib("gallery: its pictures", "give --gallery 0")
    if command.data is not None:
        check_matplotlib("data: spectrograms", "leave --data out")
    content = report_page(command)
    with atomic(command.out) as file:
        file.write(content.encode(errors="backslashreplace"))
    LOG.info("report written: %s", command.out)


def report_page(command: Report) -> str:
    """Return the page as HTML; the same input gives the same page."""
    runs = read_runs(command.runs)
    labels = None if command.shards is None else _labels(command.shards, command.truth)
    own = [] if labels is None else _own_tables(runs, labels)
    given = [] if labels is None else _given_tables(command.predictions, runs, labels)
    windows = read_windows(command.windows, labels.index.dataset if labels else runs[0].dataset if runs else None)
    tables, found, dataset = [*own, *given], qualities(runs, given), _dataset(runs, labels, windows)
    return rendered(
        "page.html",
        classes=list(dataset.classes),
        summary=_summary(runs, tables, dataset),
        **verdict_values(tables),
        **about_values(runs, labels, dataset, command.out),
        **training_values(runs, metric_of(dataset), _levels(own)),
        **quality_values(found, tables, dataset),
        **patient_values(tables),
        **clips_values(windows, None if labels is None else labels.index, command.data, command.clips)
        if windows or dataset.signal == "audio"
        else {"clips": None},
        gallery=gallery_values(runs, own, labels, command.gallery, attribution=command.attribution)
        if command.gallery
        else None,
    )


def _levels(tables: list[ScoredTable]) -> list[Level]:
    """Lines in the chart of the validation metric: those of each group of runs with the same rows."""
    groups = by_rows(tables)
    return [
        Level(level.name if len(groups) == 1 else f"{level.name}, {group[0].name}", level.value)
        for group in groups[:MAX_LEVELS]
        for level in levels_of(group[0])
    ]


def _dataset(runs: list[RunFacts], labels: Labels | None, windows: list[Windows]) -> Dataset:
    """The data set of the page. Raises UserError for runs of another one."""
    of_windows = windows[0].dataset if windows else HMS
    dataset = labels.index.dataset if labels is not None else runs[0].dataset if runs else of_windows
    for run in runs:
        if (run.dataset.classes, run.dataset.target) != (dataset.classes, dataset.target):
            raise UserError(
                f"{run.folder}: was trained on data set {run.dataset.name}, the page is about {dataset.name}; report "
                "runs of one data set"
            )
    return dataset


def _labels(location: str, truth: Path | None) -> Labels:
    manifest, index = open_set(location)
    return Labels(
        location=location,
        fingerprint=manifest.fingerprint,
        index=index,
        oracle=None if truth is None else truth_of(truth, index),
        versions=manifest.versions,
    )


def _own_tables(runs: list[RunFacts], labels: Labels) -> list[ScoredTable]:
    """Validation predictions of the runs that have them. Raises UserError for a run of another shard set, and for a
    table whose rows are not those of its fold."""
    keys, own = labels.index.frame["key"], []
    for run in runs:
        if run.predictions is None:
            continue
        if shards_of(run.folder) not in (None, labels.fingerprint):
            raise UserError(f"{run.folder}: was trained on another shard set than {labels.location}; leave the run out")
        table = read_scored(run.predictions, run.name, labels)
        check_held_out(run.folder, keys[table.rows], keys[labels.index.folds(run.config.num_folds) == run.config.fold])
        own.append(table)
    return own


def _given_tables(paths: tuple[Path, ...], runs: list[RunFacts], labels: Labels) -> list[ScoredTable]:
    """The given tables, without those that belong to the given runs."""
    known = [run.predictions.resolve() for run in runs if run.predictions is not None]
    more = [path for path in paths if path.resolve() not in known]
    called = [path.parent if path.name == PREDICTIONS_NAME else path for path in more]  # of a run or a stack
    return [read_scored(path, name, labels) for path, name in zip(more, short_names(called), strict=True)]


def _summary(runs: list[RunFacts], tables: list[ScoredTable], dataset: Dataset) -> list[str]:
    """First paragraphs of the page: what is reported, and the best of the tables with most rows."""
    text = f"Runs: {len(runs)}. Tables of predictions beside votes: {len(tables)}."
    if tables:
        known = [item for item in tables if item.held_out] or tables
        most = max(len(item.rows) for item in known)
        best = min((item for item in known if len(item.rows) == most), key=lambda item: item.value)
        scores, name = best.scores["strata"]["all"], best.metric.name
        text += f" Lowest {best.metric.title}: {scores[name]:.4f} by {best.name} on {scores['num_rows']} rows"
        text += f", where a constant predictor has {scores[f'constant_{name}']:.4f}"
        if best.oracle is not None:
            text += f" and the oracle {scores[f'oracle_{name}']:.4f}"
        text += "."
    groups = ["In this report of audio, a patient is a recording."] if dataset.signal == "audio" else []
    return [text, *groups, *(f"Warning: {item.name}: {line}." for item in tables for line in item.score_warnings)]
