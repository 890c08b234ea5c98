#!/bin/sh
# Critique and revision (Bai et al. 2022, "Constitutional AI", section 3): a model answers prompts, criticizes its answers by
# a rule, and revises them. The last file has the columns prompt, principle, answer, critique and revision; constitution.toml
# trains on it.
#
#   recipes/constitution/revise.sh MODEL [DIRECTORY]
#
# Each command continues where it stopped when it is repeated, so the script can be run again after an interruption.
set -eu

model=${1:?usage: revise.sh MODEL [DIRECTORY]}
out=${2:-runs/constitution/data}
here=$(dirname "$0")
temper=${TEMPER:-temper}
mkdir -p "$out"

# step PROMPTS TEMPLATE COLUMN: adds a column to the rows of PROMPTS.
step() {
    [ -f "$out/$3.jsonl" ] || "$temper" generate "$model" --chat --prompts "$1" --template-file "$2" --as "$3" \
        --temperature 0.7 --top-p 0.95 --max-new-tokens "${TOKENS:-160}" --out "$out/$3.jsonl"
}

step "$here/../../datasets/constitution/prompts.jsonl" "$here/answer.txt" answer
step "$out/answer.jsonl" "$here/critique.txt" critique
step "$out/critique.jsonl" "$here/revision.txt" revision
echo "$out/revision.jsonl"
