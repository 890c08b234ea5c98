#!/usr/bin/env bash
# Plans every committed recipe with the real binary. Recipes that read development data are skipped where it is absent.
set -euo pipefail
temper=$(realpath "$1")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
planned=0 skipped=0
for recipe in recipes/*.toml; do
  if grep -q '"data:' "$recipe" && [ -z "${TEMPER_DATA:-}" ]; then
    echo "skipped: $recipe needs the development data (TEMPER_DATA)"
    skipped=$((skipped + 1))
    continue
  fi
  # A recipe that starts from a run of another recipe says so in its first lines; that run is made small first.
  if prepare=$(sed -n 's/^# ci: first //p' "$recipe") && [ -n "$prepare" ]; then
    (cd "$work" && eval "$(printf '%s' "$prepare" | sed "s|temper|$temper|g; s|recipes/|$OLDPWD/recipes/|g")")
  fi
  echo "-- $recipe"
  (cd "$work" && "$temper" plan "$OLDPWD/$recipe" --no-probe --limit 2000)
  planned=$((planned + 1))
done
echo "planned $planned recipes, skipped $skipped"
[ "$planned" -gt 0 ]
