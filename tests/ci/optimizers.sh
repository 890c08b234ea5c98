#!/usr/bin/env bash
# Kills and resumes the pretraining of small.toml with every kind of optimizer; the weights must be those of a run that was
# never killed, byte for byte.
# usage: optimizers.sh TEMPER [TRIALS]
set -euo pipefail
here=$(dirname "$(realpath "$0")")
temper=$(realpath "$1") trials=${2:-1}
for optimizer in \
  '{ kind = "adamw", lr = 3e-3, groups = [{ match = "*norm*", lr = 1e-3 }] }' \
  '{ kind = "adamw8bit", lr = 3e-3 }' \
  '{ kind = "muon", lr = 3e-3, weight_decay = 0.1 }' \
  '{ kind = "adafactor", lr = 3e-3, weight_decay = 0.1 }' \
  '{ kind = "adafactor", lr = 3e-2, beta1 = 0.9, scale_parameter = true }'; do
  echo "$optimizer"
  "$here/../crash/kill_resume.sh" "$temper" "$here/small.toml" "$trials" --only pretrain --set "pretrain.optimizer=$optimizer"
done
