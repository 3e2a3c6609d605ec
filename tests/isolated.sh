#!/usr/bin/env bash
# Runs each named package's tests in a fresh environment that holds that package (with its extras) and pytest alone.
set -euo pipefail
cd "$(dirname "$0")/.."
for package in "$@"; do
    venv=$(mktemp -d)
    "${PYTHON:-python3}" -m venv "$venv"
    install=("$venv/bin/python" -m pip install --quiet --constraint constraints.txt pytest hypothesis)
    case $package in
        arap_diff) "${install[@]}" "./packages/arap_diff[fast]" ;;
        segmodel) "${install[@]}" "./packages/arap_diff[fast]" ./packages/segmodel ;;
        dataset_builder) "${install[@]}" "./packages/dataset_builder[photos]" ;;
        *) "${install[@]}" "./packages/$package" ;;
    esac
    echo "== $package: $("$venv/bin/python" -m pip list --format=freeze | grep -ciE '^(arap|neo3df)') of ours installed"
    "$venv/bin/python" -m pytest -q -p no:cacheprovider "tests/$package"
    rm -rf "$venv"
done
