"""Values of the page against plain loops: verdicts, comparisons, patients, classes, facts, model cards."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import rel_entr

from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.datasets import Dataset
from hms_dist.report.page_about import about_values
from hms_dist.report.page_patients import patient_values, worst_patients
from hms_dist.report.page_quality import quality_values
from hms_dist.report.page_scores import Labels, ScoredTable
from hms_dist.report.page_template import rendered
from hms_dist.report.page_verdicts import compared, verdict_values
from hms_dist.results.bootstrap import bootstrap_interval
from hms_dist.results.metric_kinds import KlMetric, LogLossMetric
from hms_dist.shards.index import open_set

METRIC = KlMetric(CLASSES)


@pytest.fixture
def tables(rng):
    """`tables(quality, ...)`: tables of the same 60 rows of 20 patients; 1 is the truth, 0 noise, -1 its opposite."""
    truth = rng.dirichlet(np.full(6, 0.5), 60)
    noise = rng.dirichlet(np.ones(6), 60)

    def make(*qualities: float) -> list[ScoredTable]:
        found = []
        for quality in qualities:
            other = noise if quality >= 0 else (1 - truth) / 5
            table = abs(quality) * (truth if quality >= 0 else other) + (1 - abs(quality)) * noise
            found.append(
                ScoredTable(
                    name=f"q{quality:g}", metric=METRIC, held_out=True, rows=np.arange(60), truth=truth,
                    prediction=table, num_voters=rng.integers(1, 20, 60), patients=np.repeat(np.arange(20), 3) + 100,
                    oracle=truth, folds=np.zeros(60, np.int64),
                )
            )  # fmt: skip
        return found

    return make


def test_verdicts_and_red_ones(tables) -> None:
    good, bad = tables(0.9, -0.9)
    values = verdict_values([good, bad])
    first, second = values["verdicts"]
    differences = (rel_entr(good.truth, good.truth.mean(0)) - rel_entr(good.truth, good.prediction)).sum(1)
    low, high = bootstrap_interval(differences, good.patients)
    assert first.text == (
        f"q0.9: better than a constant predictor by {differences.mean():.4f} KL (95% interval {low:.4f} to {high:.4f}),"
        " on 60 rows of 20 patients."
    )
    assert not first.is_worse
    assert second.is_worse
    assert second.text.startswith("q-0.9: worse than a constant predictor by ")
    page = rendered("verdicts.html", metric=METRIC, has_oracle=True, **values)
    assert '<li class="worse">q-0.9: worse' in page
    assert "<li>q0.9: better" in page
    assert values["score_rows"][0][4:6] == [f"{METRIC.value(good.truth, good.constant):.4f}", "0.0000"]


def test_comparisons_are_paired_and_on_common_rows(tables) -> None:
    good, middle, bad = tables(0.9, 0.5, 0.0)
    part = replace(bad, name="part", rows=bad.rows[:30], truth=bad.truth[:30], prediction=bad.prediction[:30],
                   patients=bad.patients[:30], oracle=None, num_voters=bad.num_voters[:30])  # fmt: skip
    found = compared([middle, good, part])
    assert [(item.name, item.other, item.num_rows, item.num_patients) for item in found] == [
        ("q0.5", "q0.9", 60, 20), ("part", "q0.9", 30, 10)
    ]  # fmt: skip
    differences = (rel_entr(good.truth, good.prediction) - rel_entr(good.truth, middle.prediction)).sum(1)
    assert found[0].better_by.value == pytest.approx(differences.mean())
    assert found[0].better_by.interval == pytest.approx(bootstrap_interval(differences, good.patients))
    assert found[0].words == "worse"
    assert compared([good]) == []
    apart = replace(part, rows=part.rows + 1000)
    assert compared([good, apart]) == []


def test_the_worst_patients(tables) -> None:
    (item,) = tables(0.5)
    values = rel_entr(item.truth, item.prediction).sum(1)
    means = {patient: values[item.patients == patient].mean() for patient in np.unique(item.patients)}
    worst = sorted(means, key=lambda patient: -means[patient])[:10]
    lines = worst_patients(item)
    assert [line[0] for line in lines] == [str(patient) for patient in worst]
    assert [line[3] for line in lines] == [f"{means[patient]:.4f}" for patient in worst]
    mine = item.patients == worst[0]
    assert lines[0][4] == f"{rel_entr(item.truth, item.truth.mean(0)).sum(1)[mine].mean():.4f}"
    assert (lines[0][1], lines[0][5]) == ("3", "0.0000")
    counts = np.bincount(item.truth[mine].argmax(1), minlength=6)
    assert lines[0][2].split(", ")[0] == f"{CLASSES[counts.argmax()]} {counts.max()}"


def test_charts_have_the_lines_to_compare_with(tables) -> None:
    values = patient_values(tables(0.9, 0.5))
    ((_, votes),), ((_, patients),) = values["vote_charts"], values["patient_charts"]
    assert votes.count('<g class="reference') == 2
    assert ">constant</text>" in patients
    assert ">oracle</text>" in patients
    found = quality_values([], tables(0.9), Dataset())
    assert all('class="constant"' in chart and 'class="oracle"' in chart for _, chart in found["class_calibration"])
    assert [name for name, _ in found["class_calibration"]] == list(CLASSES)


def test_unknown_classes_of_yes_and_no(rng) -> None:
    truth = (rng.random((40, 3)) < 0.5).astype(float)
    truth[:20, 0], truth[:, 2], truth[3] = np.nan, np.nan, np.nan
    item = ScoredTable(
        name="lab", metric=LogLossMetric(("a", "b", "c")), held_out=True, rows=np.arange(40), truth=truth,
        prediction=rng.random((40, 3)), num_voters=np.isfinite(truth).sum(1), patients=np.arange(40) // 4,
        oracle=None, folds=np.zeros(40, np.int64),
    )  # fmt: skip
    values = {**verdict_values([item]), **patient_values([item])}
    dataset = Dataset(name="lab", classes=("a", "b", "c"), target="yes_no")
    figures = quality_values([], [item], dataset)
    assert np.isfinite(item.better_than_constant.value)
    assert values["vote_charts"] == []
    ((_, lines),) = figures["class_tables"]
    assert lines[2][2:] == ["\N{EM DASH}"] * 6
    assert [name for name, _ in figures["class_calibration"]] == ["a", "b"]
    page = rendered("patients.html", metric=item.metric, max_open=3, **values)
    assert "Worst patients of lab" in page


def test_facts_of_the_set(shard_set, tmp_path) -> None:
    manifest, index = open_set(shard_set)
    labels = Labels(
        location=str(shard_set), fingerprint=manifest.fingerprint, index=index, oracle=None, versions=manifest.versions
    )
    values = about_values([], labels, Dataset(), tmp_path / "r.html")
    facts = dict(values["facts"])
    assert facts["patients"] == str(index.frame["patient_id"].nunique())
    assert facts["shards (SHA-256)"] == manifest.fingerprint
    assert f"numpy {manifest.versions['numpy']}" in facts["rendered with"]
    of = index.targets.argmax(1)
    for number, (name, rows, patients, share) in enumerate(values["rows_of_class"]):
        assert (name, rows) == (CLASSES[number], str((of == number).sum()))
        assert patients == str(len(set(index.ids("patient_id")[of == number].tolist())))
        assert share == f"{index.targets[:, number].mean():.1%}"


@pytest.mark.parametrize("time_s", [None, 1e300, float("nan"), -1e20, 1_700_000_000.0])
def test_dates(time_s: float | None, tmp_path) -> None:
    from types import SimpleNamespace

    run = SimpleNamespace(name="run", time_s=time_s, state="finished", machine="", versions={}, folder=tmp_path)
    ((_, date, _, _),) = about_values([run], None, Dataset(), tmp_path / "r.html")["dates"]
    assert date == ("2023-11-14 22:13 UTC" if time_s == 1.7e9 else "\N{EM DASH}")


def test_model_cards_are_linked_and_checked(tmp_path) -> None:
    from types import SimpleNamespace

    from hms_dist.core.errors import UserError
    from hms_dist.core.files import sha256_of

    run = SimpleNamespace(
        name="my run", time_s=None, state="finished", machine="", versions={}, folder=tmp_path / "my run"
    )
    best = run.folder / "best"
    best.mkdir(parents=True)
    (best / "model_card.md").write_text("# Model card: <b>")
    (best / "hashes.json").write_text(json.dumps({"model_card.md": sha256_of(best / "model_card.md")}))
    (card,) = about_values([run], None, Dataset(), tmp_path / "pages/r.html")["cards"]
    assert card["link"] == "../my%20run/best/model_card.md"
    values = about_values([run], None, Dataset(), tmp_path / "pages/r.html")
    page = rendered("about.html", metric=METRIC, runs=[run], **values)
    assert "# Model card: &lt;b&gt;" in page
    assert 'href="../my%20run/best/model_card.md"' in page
    (best / "model_card.md").write_text("# Model card: changed")
    with pytest.raises(UserError, match=r"model_card.md: its SHA-256 is not the one in hashes.json"):
        about_values([run], None, Dataset(), tmp_path / "r.html")
