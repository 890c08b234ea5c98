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
  # A published model that a recipe starts from may not be among the development data.
  missing=$({ grep -o '"data:models/[^"*]*"' "$recipe" || true; } | tr -d '"' | while read -r path; do
    [ -e "${TEMPER_DATA:-}/${path#data:}" ] || echo "$path"
  done)
  if [ -n "$missing" ]; then
    echo "skipped: $recipe needs $missing"
    skipped=$((skipped + 1))
    continue
  fi
  # sft.toml starts from what pretrain.toml made; two steps of it are enough to plan with.
  if [ "$recipe" = recipes/sft.toml ]; then
    (cd "$work" && "$temper" run "$OLDPWD/recipes/pretrain.toml" --set pretrain.max_steps=2 --set pretrain.schedule.warmup_steps=0 --log plain >/dev/null)
  fi
  # distill.toml, dpo.toml, kto.toml, lora.toml, ppo.toml and reward.toml start from the quickstart's models; the first of them makes those.
  if [ "$recipe" = recipes/distill.toml ]; then
    short=(--set pretrain.max_steps=2 --set pretrain.schedule.warmup_steps=0 --set sft.max_steps=2 --set sft.schedule.warmup_steps=0 --set reward.max_steps=2 --set reward.schedule.warmup_steps=0)
    for stage in pretrain sft reward; do
      (cd "$work" && "$temper" run "$OLDPWD/recipes/quickstart.toml" --stage "$stage" "${short[@]}" --log plain >/dev/null)
    done
  fi
  echo "-- $recipe"
  (cd "$work" && "$temper" plan "$OLDPWD/$recipe" --no-probe)
  planned=$((planned + 1))
done
echo "planned $planned recipes, skipped $skipped"
[ "$planned" -gt 0 ]
