"""Scales of the traces: against quantiles of everything at once, on recordings made up or real."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.traces import Traces
from hms_dist.recordings.reader import read_eeg
from hms_dist.rendering.render import RenderConfig
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.montage import TRACE_MONTAGES, TRACE_SCALES_UV, differences
from hms_dist.signals.quantiles import RATIO
from hms_dist.signals.statistics import Statistics, run

DATA = Path(__file__).parents[2].parent / "shared/data"


def write_recordings(folder: Path, eegs: list[np.ndarray]) -> None:
    """Each EEG with two label rows of one vote; its spectrogram, which is not read, is left out."""
    (folder / "train_eegs").mkdir(parents=True)
    for eeg_id, eeg in enumerate(eegs):
        pd.DataFrame(eeg.astype(np.float32), columns=list(CHANNELS)).to_parquet(folder / f"train_eegs/{eeg_id}.parquet")
    ids = np.repeat(np.arange(len(eegs)), 2)
    votes = {f"{name}_vote": 1 for name in ("seizure", "lpd", "gpd", "lrda", "grda", "other")}
    offsets = {"eeg_label_offset_seconds": 0.0, "spectrogram_label_offset_seconds": 0.0}
    table = {"eeg_id": ids, "eeg_sub_id": np.arange(len(ids)) % 2, "spectrogram_id": ids, "patient_id": ids}
    pd.DataFrame({**table, **offsets, **votes}).to_csv(folder / "train.csv", index=False)


def random_eegs(rng: np.random.Generator) -> list[np.ndarray]:
    eegs = [rng.normal(0, scale, (num, 20)) for scale, num in ((20, 3000), (300, 1000), (60, 5000))]
    eegs[1][200:900, 3] = np.nan
    eegs[2][:, 0] = np.nan
    return eegs


def scales(path: Path) -> np.ndarray:
    return np.array(yaml.safe_load(path.read_text())["init_args"]["scales_uv"])


@pytest.mark.parametrize("montage", TRACE_MONTAGES)
def test_equals_the_quantiles_of_everything_recorded(rng: np.random.Generator, tmp_path: Path, montage: str) -> None:
    eegs = random_eegs(rng)
    write_recordings(tmp_path, eegs)
    filters = FilterChain(band_stops_hz=((49.0, 51.0), (59.0, 61.0)), zero_phase=False)
    run(Statistics(data=tmp_path, out=tmp_path / "s.yaml", montage=montage, filters=filters))
    pairs = TRACE_MONTAGES[montage]
    signals = [differences(eeg.astype(np.float32), pairs) for eeg in eegs]
    for row, scale in enumerate(scales(tmp_path / "s.yaml")):
        drawn = [apply(filters, one)[row][np.isfinite(one[row])] for one in signals]
        expected = np.abs(np.quantile(np.concatenate(drawn), [0.05, 0.95], method="inverted_cdf")).mean()
        assert scale == pytest.approx(expected, rel=RATIO - 1)


def test_the_order_of_files_does_not_matter(rng: np.random.Generator, tmp_path: Path) -> None:
    eegs = random_eegs(rng)
    texts = []
    for name, order in (("forward", eegs), ("backward", eegs[::-1])):
        write_recordings(tmp_path / name, order)
        run(Statistics(data=tmp_path / name, out=tmp_path / f"{name}.yaml"))
        texts.append((tmp_path / f"{name}.yaml").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("montage", TRACE_MONTAGES)
def test_a_render_configuration_takes_the_file(rng: np.random.Generator, tmp_path: Path, montage: str) -> None:
    write_recordings(tmp_path, random_eegs(rng))
    out = tmp_path / "my_traces.yaml"
    words = ["statistics", "--data", str(tmp_path), "--out", str(out), "--montage", montage, "--gaps", "interpolate"]
    assert main([*words, "--filters.order", "4"]) == 0
    (tmp_path / "render.yaml").write_text("panels: {traces: my_traces.yaml}")
    found = load(RenderConfig, ["--config", str(tmp_path / "render.yaml")]).panels["traces"]
    assert found == Traces(
        montage=montage, gaps="interpolate", filters=FilterChain(order=4), scales_uv=tuple(scales(out))
    )


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")
def test_real_scales_are_as_the_published_ones(tmp_path: Path) -> None:
    """In proportion: these 24 recordings were chosen for being clean, and reach 0.2 to 0.6 of the published."""
    run(Statistics(data=DATA / "iiic", out=tmp_path / "s.yaml"))
    found = scales(tmp_path / "s.yaml")
    eegs = [read_eeg(path) for path in (DATA / "iiic/train_eegs").iterdir()]
    drawn = np.concatenate([apply(FilterChain(), differences(e, TRACE_MONTAGES["bipolar"])) for e in eegs], axis=1)
    np.testing.assert_allclose(found, np.abs(np.quantile(drawn, [0.05, 0.95], axis=1)).mean(axis=0), rtol=1e-3)
    ratio = found / TRACE_SCALES_UV
    assert 0.2 < ratio.min() < ratio.max() < 0.6
    np.testing.assert_array_equal(np.argsort(found)[-2:], [19, 18])  # C3 alone and EKG are the largest in both


class TestErrors:
    """Errors shown to the user."""

    def test_a_trace_that_nobody_recorded(self, rng: np.random.Generator, tmp_path: Path) -> None:
        eegs = random_eegs(rng)
        for eeg in eegs:
            eeg[:, CHANNELS.index("EKG")] = np.nan
        write_recordings(tmp_path, eegs)
        with pytest.raises(UserError, match="trace EKG: expected recorded EEG, found no sample in all recordings"):
            run(Statistics(data=tmp_path, out=tmp_path / "s.yaml"))
        assert not (tmp_path / "s.yaml").exists()

    def test_a_silent_trace(self, rng: np.random.Generator, tmp_path: Path) -> None:
        eegs = random_eegs(rng)
        for eeg in eegs:
            eeg[:, CHANNELS.index("Fz")] = eeg[:, CHANNELS.index("Cz")] = 0
        write_recordings(tmp_path, eegs)
        with pytest.raises(UserError, match="trace Fz-Cz: expected recorded EEG, found nothing but zeros"):
            run(Statistics(data=tmp_path, out=tmp_path / "s.yaml"))

    def test_a_missing_recording_names_the_row(self, rng: np.random.Generator, tmp_path: Path) -> None:
        write_recordings(tmp_path, random_eegs(rng))
        (tmp_path / "train_eegs/1.parquet").unlink()
        with pytest.raises(UserError, match=r"train.csv: row 4: .*1.parquet: no such file"):
            run(Statistics(data=tmp_path, out=tmp_path / "s.yaml"))

    def test_a_missing_folder_is_found_first(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nowhere: no such folder; make it, or choose another --out"):
            run(Statistics(data=tmp_path, out=tmp_path / "nowhere/s.yaml"))

    def test_wrong_options(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["statistics", "--data", str(tmp_path), "--out"]
        assert main([*words, str(tmp_path / "s.txt")]) == 2
        assert "out: expected a name ending in .yaml, found s.txt" in capsys.readouterr().err
        assert main([*words, str(tmp_path / "s.yaml"), "--montage", "laplacian"]) == 2
        assert "bipolar, common_average, referential" in capsys.readouterr().err
