#!/usr/bin/env bash
# Lets a system call of a resume fail, for each call that opens, reads, maps, lists or looks at a file: afterwards no
# checkpoint is set aside or lost, and a clean resume ends with the bytes of a run that nothing disturbed.
# usage: read_faults.sh TEMPER RECIPE [--percent P] [--seed N] [--stages "a b"] [--jobs J]
# Prints a line per failure and a table at the end; exit 0 only if there is no failure. Where strace is missing or may not
# trace, it says so and exits 0.
set -euo pipefail
temper=$(realpath "$1") recipe=$(realpath "$2")
shift 2
percent=100 seed=$RANDOM stages="pretrain sft reward dpo ppo" jobs=1
while [ $# -gt 0 ]; do
  case $1 in
    --percent) percent=$2 ;;
    --seed) seed=$2 ;;
    --stages) stages=$2 ;;
    --jobs) jobs=$2 ;;
    *) echo "unknown option: $1"; exit 2 ;;
  esac
  shift 2
done
if ! strace -f -qq -o /dev/null -e trace=none true 2>/dev/null; then
  echo "read faults: skipped, strace is not installed or may not trace here"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
calls=openat,open,read,pread64,mmap,stat,lstat,fstat,newfstatat,statx,getdents64,readlink
errors="EIO EACCES EMFILE"
echo "read faults: seed $seed, $percent % of the calls, stages: $stages"

# One run, and for each stage a copy of it that was interrupted before the stage's last checkpoint.
mkdir "$work/whole"
cd "$work/whole"
"$temper" run "$recipe" --name t --log plain >/dev/null 2>run.log || { tail -n 20 run.log; exit 1; }
hashes() { (cd "$1/runs/t" && find . -path '*/model/*.safetensors' | sort | xargs sha256sum) 2>/dev/null; }
# Every name, length and content, apart from the log of TensorBoard, of which each session writes its own.
tree() { (cd "$1/runs/t" && find . -type f ! -name 'events.*' ! -name LOCK ! -name launch.json | sort | xargs sha256sum) 2>/dev/null; }
hashes . >"$work/reference"
for stage in $stages; do
  cp -a "$work/whole" "$work/cut-$stage"
  cd "$work/cut-$stage/runs/t/$stage"
  rm -rf model finished.json
  rm -rf "checkpoints/$(ls checkpoints | tail -n 1)"
  tree "$work/cut-$stage" >"$work/tree-$stage"
  (cd checkpoints && ls) >"$work/checkpoints-$stage"
done

# The calls of each stage's resume: `NAME NUMBER`, where the call is about a file and is made after the program has started.
# strace counts the calls of a name for each thread by itself, so call NUMBER fails once in each thread that gets so far;
# numbers that the loader of shared libraries reaches on the main thread are left out.
points() {
  local stage=$1
  cp -a "$work/cut-$stage" "$work/traced"
  cd "$work/traced"
  strace -f -qq -y -e "trace=$calls" -o "$work/trace" "$temper" resume t --log plain >/dev/null 2>&1
  hashes . | diff -q - "$work/reference" >/dev/null || { echo "stage $stage: resuming differs" >&2; exit 1; }
  rm -rf "$work/traced"
  awk -v calls="$calls" '
    BEGIN { n = split(calls, list, ","); for (i = 1; i <= n; i++) known[list[i]] = 1 }
    NR == 1 { main = $1 }
    { name = $2; sub(/\(.*/, "", name); if (!(name in known)) next; number = ++count[$1, name] }
    !started && $1 == main { of_loader[name] = number }
    /launch\.json/ { started = 1 }
    number <= of_loader[name] { next }
    /"\/(sys|proc|etc|dev|usr|lib)|<\/(sys|proc|etc|dev|usr|lib)/ { next }
    started && !(name == "mmap" && /, -1, 0\)/) && !seen[name, number]++ { print name, number }
  ' "$work/trace" | sort -k1,1 -k2,2n
}

# One call that fails, in a copy; prints `ok KIND` or `FAILED …`.
one() {
  local stage=$1 name=$2 number=$3 error=$4 dir code=0
  dir=$(mktemp -d "$work/case-XXXXXX")
  cp -a "$work/cut-$stage/." "$dir"
  cd "$dir"
  timeout 120 strace -f -qq -o /dev/null -e "trace=$name" -e "inject=$name:error=$error:when=$number" \
    "$temper" resume t --log plain >out 2>err || code=$?
  local case="$stage: $name number $number: $error: exit $code"
  if find runs -name '*.rejected-*' | grep -q .; then
    echo "FAILED $case: a healthy checkpoint was set aside"
  elif [ "$code" -gt 2 ]; then
    echo "FAILED $case: $(tail -n 1 err)"
  elif [ "$code" -eq 0 ]; then
    if hashes . | diff -q - "$work/reference" >/dev/null; then echo "ok unharmed"; else echo "FAILED $case: other weights"; fi
  else
    # The stage's checkpoints of before are there, unless it has saved newer ones.
    if ! ls "runs/t/$stage/checkpoints" | grep -q '^step-[0-9]*$'; then
      echo "FAILED $case: no checkpoint is left"
    fi
    # Where nothing has changed, a clean resume is the one that was traced.
    if tree . | diff -q - "$work/tree-$stage" >/dev/null; then
      echo "ok refused"
    else
      code=0
      "$temper" resume t --log plain >out 2>err2 || code=$?
      if [ "$code" -ne 0 ]; then
        echo "FAILED $case, then exit $code: $(tail -n 2 err2 | tr '\n' ' ')"
      elif ! hashes . | diff -q - "$work/reference" >/dev/null; then
        echo "FAILED $case, then other weights"
      else
        echo "ok stopped"
      fi
    fi
  fi
  cd "$work"
  rm -rf "$dir"
}

export -f one hashes tree
export work temper
for stage in $stages; do
  points "$stage" >"$work/points-$stage"
  echo "$stage: $(wc -l <"$work/points-$stage") calls: $(cut -d' ' -f1 "$work/points-$stage" | sort | uniq -c | tr -s ' \n' ' ')"
  for error in $errors; do sed "s/^/$stage /; s/\$/ $error/" "$work/points-$stage"; done
done | tee "$work/list" | grep ' calls: '
grep -v ' calls: ' "$work/list" | awk -v seed="$seed" -v percent="$percent" \
  'BEGIN { srand(seed) } rand() * 100 < percent' >"$work/chosen"
echo "$(wc -l <"$work/chosen") faults"
xargs -P "$jobs" -L 1 bash -c 'one "$@"' _ <"$work/chosen" >"$work/results"
grep '^FAILED' "$work/results" || true
sed 's/^FAILED.*/FAILED/' "$work/results" | sort | uniq -c
! grep -q '^FAILED' "$work/results" && [ "$(wc -l <"$work/results")" -ge "$(wc -l <"$work/chosen")" ]
