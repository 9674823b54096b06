"""One window of a recording: what import makes of it, without importing; and the command that draws it."""

import numpy as np
import pytest
from PIL import Image

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.window import MARGIN, read_window
from hms_dist.panels.kaggle_spectrogram import NUM_ROWS
from hms_dist.recordings.reader import read_spectrogram
from hms_dist.report.recording_window import parse_time
from hms_dist.report.sheet import LEFT, RIGHT, WIDTH


def test_it_equals_the_imported_window(eeg, files, tmp_path, read_eegs) -> None:
    path = files.write(tmp_path / "a.edf", eeg(90)(256), 256)
    words = ["--data", path, "--out", tmp_path / "out", "--labels", "none", "--pictures", 0]
    assert main(["import", *map(str, words)]) == 0
    (imported,) = read_eegs(tmp_path / "out", "test").values()  # begins 20 s before the recording
    _, spectrogram = read_spectrogram(tmp_path / "out/test_spectrograms/1.parquet")
    recording, start = read_window(path, 46.0, ReadingOptions())
    assert start == MARGIN
    window = recording.eeg[start : start + 10_000].T
    np.testing.assert_allclose(window, imported[:, (20 + 21) * 200 : (20 + 71) * 200], atol=1e-4)
    assert recording.spectrogram.shape == (NUM_ROWS, 4, 100)
    # Import's rows are at odd seconds, 300 s early; the first one here is centred on 46 - 300 + 1.
    np.testing.assert_allclose(recording.spectrogram, spectrogram[23 : 23 + NUM_ROWS], rtol=1e-3, atol=1e-3)


def test_only_its_part_of_the_file_is_read(eeg, files, tmp_path, monkeypatch) -> None:
    from hms_dist.imports.edf import EdfFile

    path, lengths = files.write(tmp_path / "a.edf", np.tile(eeg(60)(200), 30)), []
    read = EdfFile.read

    def counted(self, stretch, channels, first, last):
        lengths.append(last - first)
        return read(self, stretch, channels, first, last)

    monkeypatch.setattr(EdfFile, "read", counted)
    read_window(path, 900, ReadingOptions())
    assert sum(lengths) == (602 + 170) * 200


def test_a_time_outside_of_the_recording(eeg, files, tmp_path) -> None:
    path = files.write(tmp_path / "a.edf", eeg(20)(200))
    with pytest.raises(UserError, match=r"a.edf: at: expected 0 to 20 s, the length of the recording, found 21 s"):
        read_window(path, 21, ReadingOptions())


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("75.5", 75.5), ("01:15", 75), ("01:02:03", 3723), ("1:02:03.25", 3723.25)]
)
def test_times(text, seconds) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:", "1:2:3:4", "x", "1e3", "1h", "99999999999"])
def test_what_is_not_a_time(text) -> None:
    with pytest.raises(ValueError, match="at: expected seconds or HH:MM:SS"):
        parse_time(text)


def test_show(eeg, files, tmp_path, capsys) -> None:
    path, out = files.write(tmp_path / "a.edf", eeg(90)(200)), tmp_path / "window.png"
    assert main(["show", "--recording", str(path), "--at", "00:00:45", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        levels = np.asarray(picture)
    assert levels.shape[1] == LEFT + WIDTH + RIGHT
    assert 0.02 < (levels[70:600, LEFT + 5 : LEFT + WIDTH - 5, 0] < 100).mean() < 0.5  # traces
    for words, message in (
        (["--shards", "s"], "expected --shards or --recording, one of the two, found both"),
        (["--key", "1-1"], "recording: is drawn as panels at a time; leave out --canvas and --key"),
        (["--at", "noon"], "at: expected seconds or HH:MM:SS, found 'noon'"),
    ):
        assert main(["show", "--recording", str(path), "--out", str(out), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["show", "--out", str(out)]) == 2
    assert "expected --shards or --recording, one of the two, found neither" in capsys.readouterr().err
