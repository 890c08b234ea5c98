#!/usr/bin/env bash
# Tiny models of several families from scratch through every stage: pretraining on all weights, then fine-tuning, a reward
# model, DPO, KTO and PPO with adapters; exported, and the export generates the same text.
# usage: families.sh TEMPER [FAMILY...]
set -euo pipefail
temper=$(realpath "$1")
shift
here=$(dirname "$(realpath "$0")")
families=("$@")
[ ${#families[@]} -gt 0 ] || families=(qwen3 gemma3_text qwen3_moe)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# The keys of [model] beside those of families.toml.
keys() {
  case $1 in
    qwen3) ;;
    gemma2) echo 'query_pre_attn_scalar = 16.0, sliding_window = 24' ;;
    gemma3_text) echo 'query_pre_attn_scalar = 16.0, sliding_window = 24, sliding_window_pattern = 2' ;;
    mistral) echo 'sliding_window = 24' ;;
    smollm3) echo 'no_rope_layer_interval = 2' ;;
    granite) echo 'embedding_multiplier = 4.0, attention_multiplier = 0.2, residual_multiplier = 0.5, logits_scaling = 2.0' ;;
    mixtral) echo 'num_local_experts = 4, num_experts_per_tok = 2' ;;
    qwen2_moe) echo 'num_experts = 4, num_experts_per_tok = 2, moe_intermediate_size = 32, shared_expert_intermediate_size = 32' ;;
    qwen3_moe) echo 'num_experts = 8, num_experts_per_tok = 2, moe_intermediate_size = 32, norm_topk_prob = true' ;;
    *) ;;
  esac
}
sizes='hidden_size = 48, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, intermediate_size = 96'
for family in "${families[@]}"; do
  own=$(keys "$family")
  width=', head_dim = 16'
  case $family in phi3 | olmo2 | granite | smollm3 | qwen2 | qwen2_moe) width='' ;; esac
  model="{ family = \"$family\", $sizes$width${own:+, $own} }"
  "$temper" run "$here/families.toml" --name "$family" --log plain --threads 2 --set "model=$model" >/dev/null 2>"$family.log" \
    || { cat "$family.log"; exit 1; }
  "$temper" export "runs/$family/ppo" --to "$family" >/dev/null
  from_run=$("$temper" generate "runs/$family/ppo" --prompt "I" --greedy --max-new-tokens 8 2>/dev/null)
  from_export=$("$temper" generate "$family" --prompt "I" --greedy --max-new-tokens 8 2>/dev/null)
  [ "$from_run" = "$from_export" ] || { echo "$family: the export generates other text"; exit 1; }
  case $family in
    mixtral | *_moe) grep -q '"experts/max_load"' "runs/$family/ppo/metrics.jsonl" || { echo "$family: no load of experts in ppo"; exit 1; } ;;
  esac
  echo "$family: every stage, exported"
done
