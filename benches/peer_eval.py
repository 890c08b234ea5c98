"""Rows a second of `temper eval` and of lm-evaluation-harness on the same model, task and machine.

    python benches/peer_eval.py --temper target/dist/temper --model MODEL --harness-model DIR --data-dir eval-data --rows 300

MODEL is what `temper eval` opens, DIR the same weights as a Hugging Face directory; both compute in f32 on the CPU. The two run
alternately, after one round that does not count. Times are those of the whole process without its start: the time of a run on
`--few` rows is subtracted. Needs lm_eval[hf] 0.4.13 in this Python. Prints one JSON line per round and a summary.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HARNESS = """
import json, sys
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
path, data, rows, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
task = dict(task="arc_easy_local", dataset_path="json", dataset_kwargs=dict(data_files=dict(test=data)), test_split="test",
            output_type="multiple_choice", doc_to_text="Question: {{question}}\\nAnswer:",
            doc_to_target="{{choices.label.index(answerKey)}}", doc_to_choice="{{choices.text}}",
            metric_list=[dict(metric="acc"), dict(metric="acc_norm")])
model = HFLM(pretrained=path, dtype="float32", device="cpu", batch_size=batch)
found = lm_eval.simple_evaluate(model=model, tasks=[task], limit=rows, bootstrap_iters=0,
                                task_manager=TaskManager(include_defaults=False))
print(json.dumps(found["results"]["arc_easy_local"]["acc,none"]))
"""


def seconds(command):
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return time.monotonic() - start, done.stdout


def temper(args, rows):
    command = [args.temper, "eval", args.model, "--task", "arc_easy", "--data-dir", args.data_dir, "--limit", str(rows), "--json"]
    spent, out = seconds(command)
    return spent, json.loads(out.splitlines()[-1])["results"]["acc,none"]


def harness(args, rows, script):
    data = str(pathlib.Path(args.data_dir) / "arc_easy.jsonl")
    spent, out = seconds([sys.executable, script, args.harness_model, data, str(rows), str(args.batch)])
    return spent, json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temper", default="temper")
    parser.add_argument("--model", required=True)
    parser.add_argument("--harness-model", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = str(pathlib.Path(folder) / "harness.py")
        pathlib.Path(script).write_text(HARNESS)
        ratios = []
        for number in range(args.rounds + 1):
            speeds, accuracies = {}, {}
            for name, run in [("temper", lambda n: temper(args, n)), ("harness", lambda n: harness(args, n, script))]:
                few, _ = run(args.few)
                many, accuracies[name] = run(args.rows)
                speeds[name] = (args.rows - args.few) / (many - few)
            if accuracies["temper"] != accuracies["harness"]:
                sys.exit(f"different accuracies: {accuracies}")
            if number == 0:
                continue
            ratios.append(speeds["temper"] / speeds["harness"])
            print(json.dumps(dict(round=number, rows_per_s=speeds, ratio=ratios[-1], acc=accuracies["temper"])), flush=True)
    print(json.dumps(dict(ratio=statistics.median(ratios), min=min(ratios), max=max(ratios))))


if __name__ == "__main__":
    main()
