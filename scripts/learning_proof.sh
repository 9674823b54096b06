#!/usr/bin/env bash
# Learning proof: 2,000 simulated EEGs, whose true label distributions are known; EfficientNet-Lite0 from the packaged
# ImageNet weights, and TinyViT from scratch, on one GPU. Prints the fraction of the gap between the constant predictor and
# the simulator's oracle that each closes on unseen patients.
#   scripts/learning_proof.sh FOLDER [number of EEGs] [workers]
set -euo pipefail
if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: scripts/learning_proof.sh FOLDER [number of EEGs] [workers]" >&2
    [[ ${1:-} == --help ]] && exit
    exit 2
fi
out=$1 num_eegs=${2:-2000} workers=${3:-$(nproc)}
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
[[ -d .venv ]] && PATH="$here/.venv/bin:$PATH"
hms_dist() { OMP_NUM_THREADS=1 python -m hms_dist "$@"; }

hms_dist simulate --out "$out/data" --num_recordings "$num_eegs" --seed 1 --workers "$workers"
hms_dist render --data "$out/data" --out "$out/shards" --config default --workers "$workers"
for recipe in proof_efficientnet proof_tiny_vit; do
    hms_dist train --config $recipe --shards "$out/shards" --out "$out/$recipe/run"
    hms_dist score --predictions "$out/$recipe/run/predictions.parquet" --labels "$out/shards" \
        --truth "$out/data/truth.parquet" > "$out/$recipe/score.json"
    echo "== $recipe"
    ln -sfn "$out/shards" "$out/$recipe/shards"
    python scripts/demo_summary.py "$out/$recipe"
done
