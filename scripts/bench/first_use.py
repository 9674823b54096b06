"""Print the seconds that the default panels' first sample takes in this process, imports not counted.

python scripts/bench/first_use.py. Started by render.py, with and without compiled code on the disk.
"""

import argparse
from time import perf_counter

import numpy as np

from hms_dist.core.signal_format import WINDOW_SAMPLES
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.panel import Window
from hms_dist.recordings.reader import Recording


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=__doc__.splitlines()[0])


def main() -> None:
    parser().parse_args()
    import numba  # noqa: F401  # 0.4 s that are not compiling
    import scipy.signal  # noqa: F401

    recording = Recording(
        eeg_id=0,
        eeg=np.random.default_rng(0).normal(0, 20, (WINDOW_SAMPLES, 20)).astype(np.float32),
        spectrogram_id=0,
        spectrogram=np.ones((300, 4, 100), np.float32),
        spectrogram_time_s=np.arange(300.0),
    )
    start = perf_counter()
    for panel in DEFAULT_PANELS.values():
        panel.draw(panel.prepare(recording), Window(recording=recording, start=0, spectrogram_offset_s=0.0))
    print(perf_counter() - start)


if __name__ == "__main__":
    main()
