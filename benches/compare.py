#!/usr/bin/env python3
"""Runs Temper and another stack alternately on the same workloads and prints ratios.

usage: compare.py [WORKLOAD…] --temper BINARY --peers PEERS.PY [--trl FOLDER] [--python PYTHON] [--rounds N] [--threads N]
                  [--steps N] [--no-compile] [--dtype bf16] [--beside N] [--json FILE]

Both sides print one JSON line with tokens_per_s (ppo7m, grpo7m: episodes_per_s), peak_rss_mb and first_step_s. For each
workload the other side runs eager and compiled (generation, ppo7m and grpo7m eager); the faster of the two, by its median, is
what a ratio is taken against. For ppo7m the other side is peer_ppo.py beside PEERS.PY, for grpo7m peer_grpo.py beside this
script. Both need a folder with TRL 1.12; without one, these workloads are left out. peer_ppo.py says nothing of its first
update. A ratio is taken within each
round, so that a machine that slows down slows both sides down. Efficiency is the workload's arithmetic over the time and
the rate of f32 products, measured in the same round.

With --beside N, N processes of priority 10 compute meanwhile, for both sides and for the rate of products.

Use an idle machine: the load average at the start and at the end is printed with the table.
"""
import argparse
import atexit
import json
import os
import statistics
import subprocess
import sys

TRAINING = ["pretrain7m", "reward7m", "long4096", "lora135m", "full135m"]
GENERATION = ["gen7m", "gen135m"]
PPO, GRPO = "ppo7m", "grpo7m"
# Workloads that count episodes.
UPDATES = [PPO, GRPO]
# Millions of multiplications and additions a token (of ppo7m, an episode), causal attention at half.
MFLOP = {"pretrain7m": 39, "long4096": 75, "reward7m": 32, "lora135m": 590, "full135m": 830, PPO: 31_000}


def run(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


def rate(line):
    """Tokens, or episodes, a second."""
    return line["episodes_per_s"] if "episodes_per_s" in line else line["tokens_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=TRAINING + GENERATION + UPDATES)
    parser.add_argument("--temper", default="target/release/temper")
    parser.add_argument("--peers", required=True)
    parser.add_argument("--trl", help="folder with TRL 1.12, for ppo7m and grpo7m")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dtype", default="f32", help="f32 or bf16, on both sides; ppo7m, grpo7m and generation of the other side stay f32")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--beside", type=int, default=0, help="processes of priority 10 that compute meanwhile")
    parser.add_argument("--json", help="also write every line that was measured")
    args = parser.parse_args()

    threads = ["--threads", str(args.threads)]
    environment = {"THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    dtype = ["--dtype", args.dtype]
    steps = ["--steps", str(args.steps)] if args.steps else []
    measured = []
    for _ in range(args.beside):
        busy = subprocess.Popen(["nice", "-n", "10", sys.executable, "-c", "while True: pass"])
        atexit.register(busy.kill)
    print(f"load average at the start: {os.getloadavg()[0]:.2f}; {args.threads} threads, {args.rounds} rounds")
    if not args.trl and any(workload in UPDATES for workload in args.workloads):
        print(f"{' and '.join(UPDATES)} are left out: no --trl")
        args.workloads = [workload for workload in args.workloads if workload not in UPDATES]
    of_trl = {
        PPO: os.path.join(os.path.dirname(args.peers), "peer_ppo.py"),
        GRPO: os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_grpo.py"),
    }
    print(f"{'workload':12} {'a second':>9} {'peer':>9} {'which':>8} {'ratio':>6} {'min':>6} {'max':>6} "
          f"{'efficiency':>10} {'memory':>7} {'first step':>16}")
    for workload in args.workloads:
        modes = [[]]
        if workload in TRAINING and not args.no_compile:
            modes.append(["--compile"])
        ours, theirs, rates = [], [[] for _ in modes], []
        for _ in range(args.rounds):
            if workload in MFLOP:
                rates.append(run([args.temper, "bench", "products", *threads], {})["gflop_per_s"])
            ours.append(run([args.temper, "bench", workload, *steps, *threads, *dtype], {}))
            for mode, lines in zip(modes, theirs):
                of_peer = [*steps, *dtype] if workload in TRAINING else []
                command = [args.peers, workload, *mode, *of_peer]
                if workload in UPDATES:
                    command = [of_trl[workload], args.trl]
                lines.append(run([args.python, *command], environment))
        measured.append({"workload": workload, "temper": ours, "peers": theirs, "gflop_per_s": rates})

        speed = lambda lines: statistics.median(rate(line) for line in lines)
        fastest = max(range(len(modes)), key=lambda mode: speed(theirs[mode]))
        peer = theirs[fastest]
        ratios = [rate(a) / rate(b) for a, b in zip(ours, peer)]
        efficiency = ""
        if rates:
            each = [rate(line) * MFLOP[workload] / 1e3 / products for line, products in zip(ours, rates)]
            efficiency = f"{statistics.median(each):.2f}"
        memory = statistics.median(a["peak_rss_mb"] / b["peak_rss_mb"] for a, b in zip(ours, peer))
        first = [statistics.median(line.get("first_step_s", float("nan")) for line in lines) for lines in (ours, peer)]
        digits = 2 if workload in UPDATES else 0
        print(f"{workload:12} {speed(ours):9.{digits}f} {speed(peer):9.{digits}f} {'compiled' if modes[fastest] else 'eager':>8} "
              f"{statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f} {efficiency:>10} {memory:7.2f} "
              f"{first[0]:6.1f} s / {first[1]:4.1f} s", flush=True)
    print(f"load average at the end: {os.getloadavg()[0]:.2f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(measured, file, indent=1)


if __name__ == "__main__":
    main()
