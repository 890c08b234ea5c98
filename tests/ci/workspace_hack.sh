#!/usr/bin/env bash
# Checks with cargo-hakari that crates/workspace-hack unifies all features; with --update, regenerates it.
# cargo-hakari assumes that every feature of the workspace may be on, and would turn on burn's GPU backends for everybody.
# It therefore runs on a copy of the workspace without the features for GPUs.
# crates/cli/tests/it/features.rs checks the effect without cargo-hakari, in every test run.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! cargo hakari --version >/dev/null 2>&1; then
  echo "skipped: cargo-hakari is not installed (cargo install cargo-hakari --locked)"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files --cached --others --exclude-standard -z .config Cargo.toml Cargo.lock crates tools vendor \
  | while IFS= read -r -d '' file; do
      # Files that were moved or deleted but not staged are still listed.
      if [ -e "$file" ]; then printf '%s\0' "$file"; fi
    done | tar --null --files-from=- -cf - | tar -xf - -C "$work"
sed -E -i '/^(cuda|gpu|wgpu) = /d; /optional = true/d' "$work"/crates/*/Cargo.toml
sed -i '/^\[patch\.crates-io\]/,/^$/d' "$work/Cargo.toml"
cd "$work"
if [ "${1:-}" = --update ]; then
  cargo hakari generate --quiet
  cargo hakari manage-deps --yes --quiet
  cd - >/dev/null
  cp "$work/crates/workspace-hack/Cargo.toml" crates/workspace-hack/Cargo.toml
  for manifest in crates/*/Cargo.toml crates/*/*/Cargo.toml; do
    if grep -q '^workspace-hack\.workspace' "$work/$manifest" && ! grep -q '^workspace-hack\.workspace' "$manifest"; then
      sed -i '0,/^\[dependencies\]$/s//[dependencies]\nworkspace-hack.workspace = true/' "$manifest"
      echo "added workspace-hack to $manifest"
    fi
  done
else
  # `cargo hakari verify` rejects crates that are excluded on purpose, so the generated manifest is compared instead.
  if ! cargo hakari manage-deps --dry-run || ! cargo hakari generate --diff; then
    echo "crates/workspace-hack is stale: run tests/ci/workspace_hack.sh --update"
    exit 1
  fi
  echo "workspace-hack is up to date"
fi
