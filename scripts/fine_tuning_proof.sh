#!/usr/bin/env bash
# Fine-tuning proof: a network trained on simulated HMS recordings is fine-tuned on 60 recordings of a simulated lab with
# four classes, and trained on them from random weights, with four seeds each. Prints the validation KL of each run.
# Continues after a kill.
#   scripts/fine_tuning_proof.sh FOLDER [number of HMS recordings] [workers] [options of all runs]
# A small network, which trains on one CPU core:
#   scripts/fine_tuning_proof.sh FOLDER 300 1 --model.name test_efficientnet --model.weights none --epochs 12
set -euo pipefail
if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: scripts/fine_tuning_proof.sh FOLDER [number of HMS recordings] [workers] [options of all runs]" >&2
    [[ ${1:-} == --help ]] && exit
    exit 2
fi
out=$1 num_eegs=${2:-300} workers=${3:-$(nproc)}
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
[[ -d .venv ]] && PATH="$here/.venv/bin:$PATH"
hms_dist() { OMP_NUM_THREADS=1 python -m hms_dist "$@"; }

mkdir -p "$out"
cat > "$out/lab.yaml" << 'YAML'
name: lab
classes: [seizure, periodic, rhythmic, background]
labels: {seizure: seizure, lpd: periodic, gpd: periodic, lrda: rhythmic, grda: rhythmic, other: background}
YAML
simulate() { [[ -e $2/train.csv ]] || hms_dist simulate "$@" --workers "$workers"; }
simulate --out "$out/hms" --num_recordings "$num_eegs" --seed 1
simulate --out "$out/lab" --num_recordings 60 --seed 2 --dataset "$out/lab.yaml"
for name in hms lab; do
    hms_dist render --data "$out/$name" --out "$out/shards-$name" --config default --workers "$workers"
done
hms_dist train --config demo --shards "$out/shards-hms" --out "$out/run-hms" "${@:4}"
for seed in 0 1 2 3; do
    lab=(--config demo --config fine_tune --shards "$out/shards-lab" --seed $seed)
    hms_dist train "${lab[@]}" "${@:4}" --init "$out/run-hms" --out "$out/fine-tuned-$seed"
    hms_dist train "${lab[@]}" "${@:4}" --optim.lr 1e-3 --out "$out/scratch-$seed"
done
python - "$out" << 'PY'
import json, statistics, sys
from pathlib import Path

out = Path(sys.argv[1])
for name in ("fine-tuned", "scratch"):
    best = [json.loads((out / f"{name}-{seed}/status.json").read_text())["best"]["val_kl"] for seed in range(4)]
    print(f"{name}: best validation KL {' '.join(f'{kl:.3f}' for kl in best)}, mean {statistics.mean(best):.3f}")
PY
