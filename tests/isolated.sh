#!/usr/bin/env bash
# Builds the wheel of each named package and runs the package's tests in a fresh environment that holds that wheel, what
# it requires, pytest and hypothesis. arap_diff gets two: without numba, and with it (extra `fast`), each also timed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --constraint constraints.txt build

wheel() {
    "$work/build/bin/python" -m build --outdir "$work/$1" "packages/$1" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
    echo "$work/$1"/*.whl
}

check() { # package, what its environment is called, then what to install into it
    local package=$1 name=$2 venv=$work/venv
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt pytest hypothesis "${@:3}"
    echo "== $package, $name: $("$venv/bin/python" -m pip list --format=freeze | cut -d= -f1 | paste -sd' ')"
    "$venv/bin/python" -m pytest -q -p no:cacheprovider "tests/$package"
    if [ "$package" = arap_diff ]; then
        "$venv/bin/python" benchmarks/arap_tier.py
    fi
}

for package in "$@"; do
    built=$(wheel "$package")
    case $package in
        arap_diff)
            check arap_diff "without numba" "$built"
            check arap_diff "with numba" "${built}[fast]"
            ;;
        segmodel)
            arap=$(wheel arap_diff)
            check segmodel wheel "${arap}[fast]" "$built"
            ;;
        dataset_builder) check dataset_builder wheel "${built}[photos]" ;;
        *) check "$package" wheel "$built" ;;
    esac
done
