"""Draw the panels of one window of a recording as PNG files: `python examples/draw_recording.py DATA EEG_ID OUT`."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import hms_dist


def main(data: str, eeg_id: int, out: str) -> None:
    """Write OUT/<panel>.png for the first 50 seconds of an EEG in Kaggle's layout."""
    recording = hms_dist.read_recording(data, eeg_id=eeg_id)
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, panel in hms_dist.draw(recording, "default", start_s=0.0).items():
        values = np.nan_to_num(panel.astype(np.float64), neginf=0.0)
        picture = values.reshape(-1, values.shape[-1])  # regions below each other
        low, high = np.quantile(picture, [0.0, 1.0])
        gray = (picture - low) * (255 / max(high - low, 1e-9))
        Image.fromarray(gray.astype(np.uint8)).save(Path(out) / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("eeg_id", type=int)
    parser.add_argument("out")
    try:
        main(**vars(parser.parse_args()))
    except hms_dist.UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
