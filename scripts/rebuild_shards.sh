#!/usr/bin/env bash
# Render a shard set again after its recipe, table or recordings changed, and check every byte of the new one.
# The old set stays valid until the new one is complete; rerun the same command after a kill.
#   scripts/rebuild_shards.sh DATA SHARDS [options of hms-dist render, such as --config FILE --workers 8]
set -euo pipefail
if [[ $# -lt 2 || $1 == -* || $2 == -* ]]; then
    echo "usage: scripts/rebuild_shards.sh DATA SHARDS [options of hms-dist render]" >&2
    [[ ${1:-} == --help ]] && exit
    exit 2
fi
data=$1 shards=$2
shift 2
here=$(cd "$(dirname "$0")/.." && pwd)
[[ -d $here/.venv ]] && PATH="$here/.venv/bin:$PATH"
hms-dist render --data "$data" --out "$shards" --rebuild "$@"
hms-dist verify --shards "$shards"
