#!/usr/bin/env bash
# What a stranger does: two fresh clones of the last commit, in each the README's two commands, from the README's own text.
# tests/packaging/fresh_clones.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
origin=$PWD
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for clone in first second; do
    git clone --quiet "file://$origin" "$work/$clone"
    cd "$work/$clone"
    commands=$(sed -n '/^## Two commands$/,/^## /p' README.md | sed -n '/^```$/,/^```$/p' | sed 's/ *#.*//; /^```$/d; /^$/d')
    [ "$(wc -l <<<"$commands")" = 2 ] || { echo "the README names other than two commands: $commands"; exit 1; }
    while read -r command; do
        started=$(date +%s)
        echo "== $clone clone: $command"
        PYTHON=$python bash -c "$command" </dev/null
        echo "== $clone clone: $command: $(($(date +%s) - started)) s"
    done <<<"$commands"
    [ -s runs/demo/report.html ]
    [ -z "$(git status --porcelain)" ] || { git status --short; echo "the two commands left files that git does not ignore"; exit 1; }
done
