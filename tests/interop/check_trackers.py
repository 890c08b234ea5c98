"""Reads the files that a run wrote for trackers with the readers of their own packages.

    python3 tests/interop/check_trackers.py runs/NAME STAGE

Needs the packages tensorboard and mlflow-skinny, and wandb below 0.19 for its reader in Python. Each one that is missing is
skipped. Every value of metrics.jsonl has to be found once, at its step.
"""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

RENAMED = {"lr": "learning_rate", "tokens": "num_tokens"}


def expected(stage):
    """(name, step) -> value of every number in metrics.jsonl, by the names in trackers."""
    values = {}
    for line in (stage / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        is_update = "lr" in row
        of_pairs = "eval_rewards/chosen" in row
        for key, value in row.items():
            if key == "step" or value is None:
                continue
            if is_update:
                name = "train/" + RENAMED.get(key, key)
            elif of_pairs and key in ("accuracy", "margin"):
                name = "eval/rewards/" + {"accuracy": "accuracies", "margin": "margins"}[key]
            else:
                name = "eval/" + key.removeprefix("eval_")
            values[name, row["step"]] = value
    return values


def compare(what, found, wanted, single=False):
    """`found` is a list of (name, step, value)."""
    found = [(name, step, value) for name, step, value in found if name != "train/epoch"]
    counts = Counter((name, step) for name, step, _ in found)
    twice = [place for place, n in counts.items() if n > 1]
    assert not twice, f"{what}: more than once: {twice[:5]}"
    missing = set(wanted) - set(counts)
    more = set(counts) - set(wanted)
    assert not missing and not more, f"{what}: missing {sorted(missing)[:5]}, unexpected {sorted(more)[:5]}"
    for name, step, value in found:
        tolerance = 1e-6 if single else 1e-12
        assert math.isclose(value, wanted[name, step], rel_tol=tolerance, abs_tol=1e-30), (what, name, step, value)
    print(f"{what}: {len(found)} values, each once")


def tensorboard(stage, wanted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(stage), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    found = [(tag, e.step, e.value) for tag in tags["scalars"] for e in events.Scalars(tag)]
    compare("TensorBoard", found, wanted, single=True)
    texts = {tag: events.Tensors(tag) for tag in tags["tensors"]}
    samples = [json.loads(line) for line in (stage / "samples.jsonl").read_text().splitlines()]
    places = Counter((e.step) for tag, list_ in texts.items() if tag.startswith("samples/") for e in list_)
    assert places == Counter(row["step"] for row in samples), (places, len(samples))
    shown = [e.tensor_proto.string_val[0].decode() for tag in texts if tag.startswith("samples/") for e in texts[tag]]
    for row in samples:
        assert any(all(line in text for line in row["text"].splitlines()) for text in shown), row
    assert "seed" in texts["recipe"][0].tensor_proto.string_val[0].decode()
    from tensorboard.plugins.hparams import metadata

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    print(f"TensorBoard: {len(samples)} samples, {len(hparams)} hyperparameters, such as", dict(list(hparams.items())[:1]))


def wandb(run, stage, wanted):
    from wandb.proto import wandb_internal_pb2 as pb
    from wandb.sdk.internal.datastore import DataStore

    identity = json.loads((stage / "trackers.json").read_text())["id"][:12]
    [path] = (run / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    found, kinds, samples = [], Counter(), 0
    while True:
        data = store.scan_data()
        if data is None:
            break
        record = pb.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        kinds[kind] += 1
        if kind == "run":
            assert record.run.run_id == identity and record.run.project == "temper"
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            print("Weights & Biases:", record.run.display_name, "config keys", sorted(config))
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            assert row["_step"] == record.history.step.num
            table = row.pop("samples", None)
            if table:
                samples += table["nrows"]
                file = path.parent / "files" / table["path"]
                assert len(json.loads(file.read_text())["data"]) == table["nrows"]
            found += [(name, row["_step"], value) for name, value in row.items() if not name.startswith("_")]
    compare("Weights & Biases", found, wanted)
    n_samples = len((stage / "samples.jsonl").read_text().splitlines())
    assert samples == n_samples, (samples, n_samples)
    assert kinds["header"] == kinds["run"] == 1 and kinds["exit"] <= 1, kinds
    print("Weights & Biases: records", dict(kinds))


def mlflow(run, stage, wanted):
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.store.tracking.file_store import FileStore

    identity = json.loads((stage / "trackers.json").read_text())["id"]
    store = FileStore(str(run / "mlruns"))
    [found_run] = [r for r in store.search_runs(["0"], "", 1) if r.info.run_id == identity]
    found = []
    for name in found_run.data.metrics:
        found += [(name, m.step, m.value) for m in store.get_metric_history(identity, name)]
    compare("MLflow", found, wanted)
    assert found_run.data.params["seed"] and found_run.info.artifact_uri.startswith("file:///")
    print("MLflow:", found_run.info.run_name, found_run.info.status, len(found_run.data.params), "parameters")


def main():
    run, name = Path(sys.argv[1]), sys.argv[2]
    stage = run / name
    wanted = expected(stage)
    for read in (lambda: tensorboard(stage, wanted), lambda: wandb(run, stage, wanted), lambda: mlflow(run, stage, wanted)):
        try:
            read()
        except ModuleNotFoundError as error:
            print("skipped:", error)


main()
