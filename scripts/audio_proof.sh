#!/usr/bin/env bash
# Audio proof: sliding windows learn from RFCX's kind of annotations. Simulated clips (6 species, 8 s at 16 kHz in rain and
# insects) are rendered and trained on with the same number of steps: with true and false positives, known species alone;
# with the same, unknown species of true positives taken as absent (unknown_weight); and with true positives alone, all
# other species taken as absent. Prints LWLRAP on clips that no model has seen, against chance, the best constant order,
# and the truth itself. All seeds train at the same time. One seed of the small network takes about 15 minutes on one core.
#   scripts/audio_proof.sh FOLDER [number of clips] [workers] [epochs] [seeds] [timm model]
set -euo pipefail
if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: scripts/audio_proof.sh FOLDER [number of clips] [workers] [epochs] [seeds] [timm model]" >&2
    [[ ${1:-} == --help ]] && exit
    exit 2
fi
out=$1 num_clips=${2:-480} workers=${3:-$(nproc)} epochs=${4:-7} seeds=${5:-0} model=${6:-test_resnet}
here=$(cd "$(dirname "$0")/.." && pwd)
[[ -d $here/.venv ]] && PATH="$here/.venv/bin:$PATH"
hms_dist() { OMP_NUM_THREADS=1 python -m hms_dist "$@"; }

mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here"
cat > "$out/birds.yaml" << 'YAML'
name: birds
classes: [s0, s1, s2, s3, s4, s5]
target: yes_no
signal: audio
rate_hz: 16000
window_s: 3
annotated_s: 0.75
submission: {key: recording_id, column: "s{number}", pool: max}
YAML
cat > "$out/render.yaml" << 'YAML'
panels:
  waveform: {class_path: Waveform, init_args: {rate_hz: 16000, window_s: 3, margin_s: 0.1}}
YAML
cat > "$out/train.yaml" << YAML
canvas:
  height: 48
  width: 188
  placements:
    - {panel: pcen, normalise: {class_path: Affine, init_args: {scale: 0.5}}, arrangement: stacked, resize: exact,
       top: 0, left: 0, height: 48, width: 188}
  drawn:
    pcen:
      class_path: DrawnPcen
      init_args: {drawn_from: waveform, rate_hz: 16000, window_s: 3, window_samples: 1024, fft_samples: 1024,
                  hop_samples: 256, num_mels: 48}
augment:
  signal_steps:
    - {class_path: SignalShift, init_args: {probability: 1.0, max_s: 0.1}}
model: {name: $model, weights: none, drop_rate: 0.2}
optim: {lr: 2.0e-3}
schedule: {name: warmup_cosine}
plateau: {drop_factor: null, stop_patience: null}
fold: none
precision: float32
reader_threads: 1
YAML
if [[ ! -e $out/data/train_tp.csv ]]; then
    hms_dist simulate --dataset "$out/birds.yaml" --out "$out/data" --num_recordings "$num_clips" --seed 1 \
        --audio.clip_s 8 --audio.num_test 120 --workers "$workers"
fi
mkdir -p "$out/data_tp"
for name in dataset.yaml train_tp.csv train test; do ln -sfn "$out/data/$name" "$out/data_tp/$name"; done
render() { hms_dist render --config "$out/render.yaml" --workers "$workers" "$@"; }
render --data "$out/data" --out "$out/shards"
render --data "$out/data_tp" --out "$out/shards_tp"
render --data "$out/data" --split test --out "$out/test_shards"

# No validation fold and the same number of steps: true positives are fewer, so they get more epochs.
tp_epochs=$(python - "$out" "$epochs" << 'PY'
import sys
from hms_dist.shards.index import open_set

out, epochs = sys.argv[1], int(sys.argv[2])
both, alone = (len(open_set(f"{out}/{name}")[1]) // 32 for name in ("shards", "shards_tp"))
print(epochs * both // max(alone, 1))
PY
)
train_seed() {
    local seed=$1
    local recipe=(--config rfcx_resnet34 --config "$out/train.yaml" --seed "$seed")
    local both=(--epochs "$epochs" --shards "$out/shards")
    hms_dist train "${recipe[@]}" "${both[@]}" --out "$out/run-both-$seed"
    hms_dist train "${recipe[@]}" "${both[@]}" --model.sliding_window.unknown_weight 1.0 --out "$out/run-joined-$seed"
    hms_dist train "${recipe[@]}" --config rfcx_tp_only --epochs "$tp_epochs" \
        --plateau.drop_factor null --plateau.stop_patience null --shards "$out/shards_tp" --out "$out/run-tp-$seed"
    for name in both joined tp; do
        hms_dist predict --run "$out/run-$name-$seed" --shards "$out/test_shards" --out "$out/test-$name-$seed.parquet"
        hms_dist ensemble --predictions "$out/test-$name-$seed.parquet" --out "$out/submission-$name-$seed.csv"
    done
}
jobs=()
for seed in $seeds; do
    train_seed "$seed" &
    jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
python - "$out" $seeds << 'PY'
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hms_dist.results.yes_no import class_auroc, lwlrap, macro

out, seeds = Path(sys.argv[1]), sys.argv[2:]
truth = pd.read_csv(out / "data/test_truth.csv").set_index("recording_id")
target = truth.to_numpy(float)
rng = np.random.default_rng(0)
chance = np.mean([lwlrap(target, rng.random(target.shape)) for _ in range(50)])
print(f"{len(target)} clips, {target.sum(axis=1).mean():.2f} species per clip")
print(f"chance {chance:.3f}, best constant order {lwlrap(target, np.tile(target.mean(axis=0), (len(target), 1))):.3f}")
titles = {
    "both": "true and false positives",
    "joined": "the same, unknown as absent",
    "tp": "true positives alone",
}
for name, title in titles.items():
    found = [pd.read_csv(out / f"submission-{name}-{seed}.csv").set_index("recording_id") for seed in seeds]
    tables = [one.loc[truth.index, truth.columns].to_numpy() for one in found]
    scores = " ".join(f"{lwlrap(target, table):.3f}" for table in tables)
    ranks = " ".join(f"{macro(class_auroc(target, table)):.3f}" for table in tables)
    print(f"{title}: LWLRAP {scores}, mean AUROC of the species {ranks}")
print(f"the truth itself: LWLRAP {lwlrap(target, target):.3f}")
PY
