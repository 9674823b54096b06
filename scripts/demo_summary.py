"""Print the last lines of `make demo`: the model's scores, and the paths of all results."""

import argparse
import json
from pathlib import Path

import pandas as pd


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("demo", type=Path, help="folder with score.json, run and shards")
    return words


def main() -> None:
    demo: Path = parser().parse_args().demo
    score = json.loads((demo / "score.json").read_text())
    held_out = pd.read_parquet(demo / "run/predictions.parquet")["key"]
    index = pd.read_parquet(demo / "shards/index.parquet").set_index("key")
    patients = index.loc[held_out, "patient_id"].nunique()
    print(f"\n{len(held_out)} rows of {patients} patients that the model never saw; KL, lower is better:\n")
    print(f"{'rows':<18}{'number':>8}{'constant':>10}{'model':>8}{'oracle':>8}{'gap closed':>12}")
    for name, part in score["strata"].items():
        numbers = f"{part['num_rows']:>8}{part['constant_kl']:>10.3f}{part['kl']:>8.3f}{part['oracle_kl']:>8.3f}"
        print(f"{name.replace('_', ' '):<18}{numbers}{part['gap_closed']:>12.0%}")
    made = {
        "picture of a canvas": "canvas.png",
        "predictions": "predictions.parquet",
        "scores": "score.json",
        "report, to open in a browser": "report.html",
        "run (weights, metrics, log)": "run",
        "shard set": "shards",
    }
    print()
    for what, name in made.items():
        print(f"{what:<30}{demo / name}")


if __name__ == "__main__":
    main()
