#!/usr/bin/env bash
# The main job on simulated data, CPU only: recordings -> shards -> two ranks training -> predictions -> score.
# Writes everything into ./demo (made anew each time) and says at the end what it made and where.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
demo=demo
rm -rf "$demo"
mkdir "$demo"

say() { printf '\n== %s\n' "$*"; }

say "1/7 simulate: 320 EEGs of about 130 patients, with known label distributions"
hms-dist simulate --out $demo/data --num_recordings 320 --seed 1 --workers 2

say "2/7 render: traces, their mirror image and two spectrograms of each label row, into WebDataset shards"
hms-dist render --data $demo/data --out $demo/shards --config configs/render/default.yaml --workers 2
hms-dist verify --shards $demo/shards

say "3/7 show: one sample as a model sees it"
key=$(python -c "import pandas as pd; print(pd.read_parquet('$demo/shards/index.parquet')['key'][0])")
hms-dist show --shards $demo/shards --key "$key" --canvas configs/canvas/sixteenth_place.yaml --axes true \
    --out $demo/canvas.png

say "4/7 train: EfficientNet-Lite0 on a small canvas, two ranks (about 3 minutes)"
accelerate launch --config_file configs/accelerate/cpu2.yaml --main_process_port 0 \
    train.py --config configs/train/demo.yaml --shards $demo/shards --out $demo/run

say "5/7 predict: every row of the shard set"
hms-dist predict --run $demo/run --shards $demo/shards --out $demo/predictions.parquet

say "6/7 score: the held-out patients, beside the constant predictor and the simulator's oracle"
hms-dist score --predictions $demo/run/predictions.parquet --labels $demo/shards \
    --truth $demo/data/truth.parquet > $demo/score.json

say "7/7 report: curves, calibration, best and worst rows, one HTML file"
hms-dist report --runs $demo/run --shards $demo/shards --truth $demo/data/truth.parquet --out $demo/report.html
python scripts/demo_summary.py $demo
