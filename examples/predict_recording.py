"""Predict a recording every 10 seconds: `python examples/predict_recording.py RUN night.edf`."""

import argparse

import hms_dist


def main(run: str, path: str) -> None:
    """Print the most likely class of each 50-second window, with its probability."""
    model = hms_dist.load_run(run)
    recording = hms_dist.read_recording(path)
    table = model.predict(recording, tta=["flip"], every_s=10.0)
    classes = list(model.classes)
    for time_s, row in zip(table["time_s"], table[classes].to_numpy(), strict=True):
        print(f"{time_s:7.1f} s  {classes[row.argmax()]:<8} {row.max():.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("path")
    try:
        main(**vars(parser.parse_args()))
    except hms_dist.UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
