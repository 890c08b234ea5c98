"""Writes averaged.safetensors into tests/golden/training/full and lora: torch's exponential moving average of the weights.

Trains again on the batches of each directory, as its expected.json says, and averages after every step with
torch.optim.swa_utils.AveragedModel and get_ema_multi_avg_fn. Needs torch, transformers and peft.

    python make_averages.py tests/golden/training
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DECAY = 0.9
LEARNING_RATE = {"full": 3e-3, "lora": 1e-2}


def load(directory):
    """The model at the start, and the parameters that are trained."""
    base = "base" if directory.name == "lora" else "start"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory / base, attn_implementation="eager", dtype=torch.float32
    )
    if directory.name == "lora":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, directory / "adapter_start", is_trainable=True)
    model.train()
    return model, [p for p in model.parameters() if p.requires_grad]


def summed_loss(model, batches, step, micro):
    ids, mask, labels = (
        batches[f"step{step:02}.micro{micro}.{name}"]
        for name in ("input_ids", "attention_mask", "labels")
    )
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = labels[:, 1:]
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="sum"
    )
    return loss, (targets != -100).sum()


def average(directory):
    model, trained = load(directory)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE[directory.name], betas=(0.9, 0.95))
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 4, 20)
    batches = load_file(directory / "batches.safetensors")
    for row in json.loads((directory / "expected.json").read_text()):
        losses = [summed_loss(model, batches, row["step"] - 1, micro) for micro in (0, 1)]
        loss = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
        loss.backward()
        if abs(loss.item() - row["loss"]) > 2e-5:
            sys.exit(f"{directory}: step {row['step']} has another loss: {loss.item()}")
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        averaged.update_parameters(model)
    parameters = averaged.module.named_parameters()
    tensors = {
        name.replace(".default", ""): value.detach().contiguous()
        for name, value in parameters
        if value.requires_grad
    }
    save_file(tensors, directory / "averaged.safetensors", metadata={"ema": str(DECAY)})
    print(directory, len(tensors), "tensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in LEARNING_RATE:
        average(Path(sys.argv[1]) / name)
