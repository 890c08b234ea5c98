#!/usr/bin/env python3
"""Compares the losses of two runs of the same recipe: compare_losses.py RUN RUN [--tolerance 1e-4]

Stages that generate text may sample other tokens where two probabilities are almost equal, so PPO's losses need only be
finite numbers; those of the other stages must agree within the tolerance, relative to their size.
"""

import argparse
import json
import math
import pathlib
import sys


def losses(stage):
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: [v for k, v in row.items() if k == "loss" or k.startswith("loss/")] for row in rows if "step" in row}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=pathlib.Path, nargs=2)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    stages = sorted(p.parent.name for p in args.runs[0].glob("*/metrics.jsonl"))
    if not stages:
        sys.exit(f"{args.runs[0]}: no stages")
    wrong = []
    for name in stages:
        first, second = (losses(run / name) for run in args.runs)
        if not any(first.values()) or first.keys() != second.keys():
            wrong.append(f"{name}: other steps")
            continue
        pairs = [(a, b) for step in first for a, b in zip(first[step], second[step], strict=True)]
        gap = max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)
        finite = all(math.isfinite(x) for pair in pairs for x in pair)
        print(f"{name}: {len(first)} steps, largest difference of a loss {gap:.1e}")
        if not finite or (name != "ppo" and not gap <= args.tolerance):
            wrong.append(name)
    if wrong:
        sys.exit(f"losses differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
