#!/usr/bin/env bash
# Bundle this package and the weights of runs as a Kaggle data set, for a notebook without internet (docs/kaggle.md).
#   scripts/kaggle_bundle.sh RUN... --out DIR [--python 3.12] [--torch 2.11.0] [--image FILE]
# DIR/wheels: this package, and what it needs beyond Kaggle's image; DIR/runs: of each run, what prediction reads;
# DIR/SHA256SUMS: the digest of every file. pip resolves against --image (default scripts/kaggle_image.txt), whose
# packages count as installed; --torch replaces its torch and torchvision.
set -euo pipefail
usage() {
    echo "usage: scripts/kaggle_bundle.sh RUN... --out DIR [--python VERSION] [--torch VERSION] [--image FILE]" >&2
    exit "${1:-2}"
}
fail() {
    echo "kaggle_bundle.sh: $1" >&2
    exit 2
}
here=$(cd "$(dirname "$0")/.." && pwd)
image=$here/scripts/kaggle_image.txt torch='' python=3.12 out='' runs=()
while (($#)); do
    case $1 in
        --help) usage 0 ;;
        --out | --python | --torch | --image)
            (($# > 1)) || usage
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        -*) usage ;;
        *) runs+=("${1%/}") ;;
    esac
    shift
done
[[ -n $out && ${#runs[@]} -gt 0 ]] || usage
[[ ! -e $out ]] || fail "$out: exists already; choose another --out"
[[ -f $image ]] || fail "--image: $image: no such file"
[[ $python =~ ^3\.[0-9]+$ ]] || fail "--python: expected a version such as 3.12, found '$python'"
[[ -d $here/.venv ]] && PATH=$here/.venv/bin:$PATH
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PIP_DISABLE_PIP_VERSION_CHECK=1

work=$(mktemp -d)
bundle=$out.tmp
trap 'rm -rf "$work" "$bundle"' EXIT
rm -rf "$bundle"
mkdir -p "$bundle/wheels" "$bundle/runs"

# The runs, each with the weights that prediction takes by default, and every byte of them as their run wrote it.
python - "${runs[@]}" >"$work/weights" <<'PYTHON' || exit 2
import sys
from pathlib import Path

from hms_dist.core.errors import UserError
from hms_dist.train.folder.run_folder import stored_weights
from hms_dist.train.folder.whole_folder import damage

try:
    for run in map(Path, sys.argv[1:]):
        weights = stored_weights(run)
        if fault := damage(weights, ["meta.json"]):
            raise UserError(f"{fault}; restore it from a copy, or train again")
        print(weights.name)
except UserError as error:
    sys.exit(f"kaggle_bundle.sh: {error}")
PYTHON
mapfile -t weights <"$work/weights"
for number in "${!runs[@]}"; do
    run=${runs[number]}
    target=$bundle/runs/$(printf '%02d' "$number")-$(basename "$run")
    mkdir "$target"
    cp -r "$run/${weights[number]}" "$target/"
    for file in config.yaml canvas.yaml render.yaml dataset.yaml; do
        [[ ! -f $run/$file ]] || cp "$run/$file" "$target/"
    done
done

# This package, from a copy: building writes into the folder.
mkdir "$work/source"
cp -r "$here"/{hms_dist,configs,setup.py,setup.cfg,pyproject.toml,README.md,LICENSE} "$work/source/"
isolation=()
! python -c 'import setuptools' 2>/dev/null || isolation=(--no-build-isolation)
python -m pip wheel --quiet --no-deps "${isolation[@]}" --wheel-dir "$bundle/wheels" "$work/source"

# The image: an environment with the names and versions of its packages and nothing else.
python -m venv --without-pip "$work/image"
site=$(echo "$work"/image/lib/python*/site-packages)
packages() { # NAME VERSION lines of the image
    sed -nE 's/^([A-Za-z0-9._-]+)==([^ ;+]+).*/\1 \2/p' "$image" | grep -viE '^(hms[-_]dist|torch|torchvision) ' || true
    local version=${torch:-$(sed -nE 's/^torch==([^ ;+]+).*/\1/p' "$image")}
    [[ $version =~ ^2\.([0-9]+) ]] || fail "--torch: expected a version such as 2.11.0, found '$version'"
    echo "torch $version"
    echo "torchvision 0.$((BASH_REMATCH[1] + 15)).0" # torch 2.8 came with torchvision 0.23, 2.11 with 0.26
}
packages >"$work/packages"
while read -r name version; do
    folder=$site/${name//-/_}-$version.dist-info
    mkdir "$folder"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$name" "$version" >"$folder/METADATA"
done <"$work/packages"

# pip finds what is missing there; nothing is installed. Versions as in constraints.txt where the image has none.
sed -E 's/==.*//' "$here/constraints.txt" | tr '_.[:upper:]' '--[:lower:]' >"$work/names"
paste -d' ' "$work/names" "$here/constraints.txt" >"$work/constraints"
cut -d' ' -f1 "$work/packages" | tr '_.[:upper:]' '--[:lower:]' | sort -u >"$work/there"
awk 'NR == FNR {there[$1]; next} !($1 in there) {print $2}' "$work/there" "$work/constraints" >"$work/free"
target=(--only-binary=:all: --implementation cp --python-version "$python" --abi "cp${python/./}" --abi abi3 --abi none)
for platform in manylinux_2_{5..35}_x86_64 manylinux1_x86_64 manylinux2010_x86_64 manylinux2014_x86_64; do
    target+=(--platform "$platform")
done
python -m pip --python "$work/image/bin/python" install --quiet --dry-run --report "$work/report.json" \
    --constraint "$work/free" "${target[@]}" "$bundle"/wheels/hms_dist-*.whl 2>"$work/log" ||
    fail "pip finds no packages for Python $python with this image: $(grep -m1 ERROR "$work/log" || tail -n1 "$work/log")"
python - "$work/report.json" >"$work/missing" <<'PYTHON'
import json
import sys

for item in json.load(open(sys.argv[1]))["install"]:
    hashes = item["download_info"]["archive_info"]["hashes"]
    if item["metadata"]["name"].replace("_", "-") != "hms-dist":
        print(f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{hashes['sha256']}")
PYTHON
! too_old=$(grep -ioE '^(torch|torchvision)==[^ ]*' "$work/missing" | paste -sd' ') ||
    fail "--torch: the image's is too old, hms_dist would need $too_old; choose a newer image"
[[ ! -s $work/missing ]] ||
    python -m pip download --quiet --no-deps --require-hashes "${target[@]}" --dest "$bundle/wheels" \
        --requirement "$work/missing"

cp "$here/notebooks/kaggle_hms_offline.py" "$bundle/"
(cd "$bundle" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >"$work/sums")
mv "$work/sums" "$bundle/SHA256SUMS"
mv "$bundle" "$out"
echo "$out: $(find "$out/wheels" -name '*.whl' | wc -l) wheels for Python $python, ${#runs[@]} runs," \
    "$(du -sm --apparent-size "$out" | cut -f1) MB"
