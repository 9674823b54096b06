#!/usr/bin/env bash
# The main job on simulated data, CPU only: recordings -> shards -> two ranks training -> predictions -> score -> report.
# Writes everything into ./demo (recreated each time) and prints a summary. To resume a stopped demo, run the line that
# calls hms-dist.
#   scripts/demo.sh
set -euo pipefail
if (($#)); then
    echo "usage: scripts/demo.sh" >&2
    [[ $1 == --help ]] && exit
    exit 2
fi
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
rm -rf demo

hms-dist pipeline --config demo --data demo/data --out demo
python scripts/demo_summary.py demo
