#!/usr/bin/env bash
# A short pipeline by the real binary: run, killed with -9 and resumed, stopped by a signal and resumed, with one thread
# and with two, split into micro-batches; then what it made is generated from, measured, exported and verified.
set -euo pipefail
temper=$(realpath "$1")
cd "$(dirname "$0")/../.."
root=$PWD
"$root/tests/crash/kill_resume.sh" "$temper" "$root/tests/ci/small.toml" 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
weights() { (cd "runs/$1" && sha256sum {pretrain,sft,distill,reward,dpo,kto,ppo,grpo}/model/*.safetensors); }
same() { diff <(weights "$1") <(weights "$2") && echo "$1 = $2"; }
run() { local name=$1; shift; "$temper" run "$root/tests/ci/small.toml" --name "$name" --log plain "$@" >/dev/null 2>"$name.log" || { cat "$name.log"; return 1; }; }

run two --threads 2
run again --threads 2
same two again
run one --threads 1
same two one

# SIGTERM: the step is finished, a checkpoint saved, exit code 75; the resumed run ends as if nothing had happened.
code=0
"$temper" run "$root/tests/ci/small.toml" --name term --log plain --threads 2 --set pretrain.max_steps=60 2>term.log >/dev/null &
pid=$!
while ! grep -q 'pretrain .*10/60' term.log 2>/dev/null; do sleep 0.05; done
kill -TERM "$pid"
wait "$pid" || code=$?
[ "$code" -eq 75 ] || { echo "SIGTERM: exit code $code"; cat term.log; exit 1; }
"$temper" resume term --log plain >/dev/null 2>>term.log
same two term

# Two replicas, killed with -9, and one that goes on: every loss is what one replica alone had. The same number of replicas
# gives the same bytes.
"$temper" run "$root/tests/ci/small.toml" --name mixed --log plain --stage pretrain --set replicas=2 2>mixed.log >/dev/null &
pid=$!
while ! grep -q 'pretrain .*20/60' mixed.log 2>/dev/null; do sleep 0.02; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
"$temper" resume mixed --log plain --set replicas=1 >/dev/null 2>>mixed.log || { cat mixed.log; exit 1; }
python3 - <<'PY'
import json
rows = lambda run: [r for r in map(json.loads, open(f"runs/{run}/pretrain/metrics.jsonl")) if "loss" in r]
one, mixed = rows("two"), rows("mixed")
assert [r["step"] for r in one] == [r["step"] for r in mixed], (one, mixed)
gap = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one, mixed))
assert gap < 1e-5, gap
print(f"two replicas, then one: losses within {gap:.0e} of one replica's")
PY
run replicas --set replicas=2
run replicas-again --set replicas=2 --threads 1
same replicas replicas-again

# Micro-batches change the order of sums and nothing else: the first loss agrees to seven digits.
loss() { python3 -c "import json; print(next(r['loss'] for r in map(json.loads, open('runs/$1/pretrain/metrics.jsonl')) if 'loss' in r))"; }
run micro1 --stage pretrain --set pretrain.micro_batch=1
run micro4 --stage pretrain --set pretrain.micro_batch=4
python3 - "$(loss two)" "$(loss micro1)" "$(loss micro4)" <<'PY'
import sys
a, b, c = map(float, sys.argv[1:])
assert abs(a - b) < 1e-6 * a and abs(a - c) < 1e-6 * a, (a, b, c)
print("micro-batches 8 x 1, 2 x 4, 1 x 8: loss", a, b, c)
PY

"$temper" generate runs/two/sft --chat --prompt "Write a comment." --n 2 --max-new-tokens 24
"$temper" eval runs/two/pretrain --file "$root/datasets/kind/comments-heldout.jsonl.gz" --text text
"$temper" export runs/two/sft --to out
"$temper" generate out --prompt "I" --greedy --max-new-tokens 8
"$temper" score runs/two/reward --pairs "$root/datasets/kind/hand_pairs.jsonl" | tail -n 1
"$temper" score runs/two/reward --texts "$root/datasets/kind/instructions-heldout.jsonl.gz" --limit 2
"$temper" export runs/two/reward --to out-reward
"$temper" generate runs/two/dpo --chat --prompt "Write a comment." --n 2 --max-new-tokens 24
"$temper" generate runs/two/ppo --chat --prompt "Write a comment." --n 2 --max-new-tokens 24
"$temper" generate runs/two/grpo --chat --prompt "Write a comment." --n 2 --max-new-tokens 24
"$temper" runs
"$temper" data inspect "$root/tests/ci/small.toml" --stage sft --n 1 | tail -n 6
"$temper" data inspect "$root/tests/ci/small.toml" --stage reward --n 1 | tail -n 6
"$temper" data inspect "$root/tests/ci/small.toml" --stage dpo --n 1 | tail -n 6
"$temper" data inspect "$root/tests/ci/small.toml" --stage kto --n 1 | tail -n 6
"$temper" data inspect "$root/tests/ci/small.toml" --stage ppo --name two --n 1 | tail -n 6
"$temper" data inspect "$root/tests/ci/small.toml" --stage grpo --name two --n 1 | tail -n 6

# The same with adapters: killed and resumed, then exported both ways and talked to.
"$root/tests/crash/kill_resume.sh" "$temper" "$root/tests/ci/lora.toml" 2
"$temper" run "$root/tests/ci/lora.toml" --name lora --log plain >/dev/null 2>lora.log || { cat lora.log; exit 1; }
"$temper" export runs/lora/ppo --to out-adapter --adapter
"$temper" export runs/lora/ppo --to out-merged
echo "Write a comment." | "$temper" chat runs/lora/ppo --max-new-tokens 16
"$temper" generate out-adapter --base runs/lora/ppo/base --chat --prompt "Write a comment." --greedy --max-new-tokens 8
"$temper" generate out-merged --chat --prompt "Write a comment." --greedy --max-new-tokens 8

# Every kind of optimizer, killed and resumed.
"$root/tests/ci/optimizers.sh" "$temper"

"$temper" verify "$root/tests/golden" >verify.jsonl || { cat verify.jsonl; exit 1; }
echo "verified $(wc -l <verify.jsonl) sets of reference vectors"
