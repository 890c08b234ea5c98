"""Tokens a second of `temper serve` and of llama.cpp's server with several clients, on the same model, precision and machine.

    temper export MODEL --gguf f32 --to model-f32.gguf
    python benches/serve_peer.py --temper target/dist/temper --model model-f32.gguf --clients 8

Both servers read the same GGUF file, and llama.cpp stores keys and values in f32, too. They are loaded at the same time and
asked alternately, so that both meet the same state of the machine. In a round each client sends its requests one after the
other, each of a prompt of its own and an answer of exactly `--tokens` tokens. After one round that does not count, each round
prints both speeds and their ratio; the summary has the best speed of each side, and the ratio's median. Greedy answers are
compared: differences at f32 come from ties, and many of them mean that the sides do not compute the same. Needs xllamacpp in
this Python, a package of llama.cpp's server. `--cpus 0,1` confines both servers to these processors.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import statistics
import subprocess
import sys
import time

LLAMA = """
import sys, time
import xllamacpp
path, clients, context, threads = sys.argv[1], *map(int, sys.argv[2:5])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_parallel = clients
params.n_ctx = clients * context
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.n_gpu_layers = 0
params.port = 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""

WORDS = "river stone window garden market silver morning letter engine forest captain bridge winter signal harbor lantern".split()


def prompt(client, request, n_words):
    return "Write a story about these words: " + " ".join(
        WORDS[(client * 7 + request * 5 + idx * (client + 3)) % len(WORDS)] for idx in range(n_words)
    )


class Side:
    """A running server."""

    def __init__(self, name, command, cpus, body):
        self.name, self.body, self.speeds = name, body, []
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
        line = next((line for line in self.process.stdout if "http://" in line), None)
        if line is None:
            sys.exit(f"{name} did not start")
        self.address = line.split("http://")[1].split()[0].strip("/")

    def complete(self, text):
        connection = http.client.HTTPConnection(self.address, timeout=1200)
        body = json.dumps({**self.body, "prompt": text})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status != 200:
            sys.exit(f"{self.name}: {answer}")
        return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]

    def round(self, args):
        """Answers of all clients, and the tokens a second."""

        def client(idx):
            return [self.complete(prompt(idx, request, args.words)) for request in range(args.requests)]

        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(args.clients) as pool:
            answers = [answer for answers in pool.map(client, range(args.clients)) for answer in answers]
        spent = time.monotonic() - start
        return [text for text, _ in answers], sum(n for _, n in answers) / spent

    def peak_mib(self):
        lines = open(f"/proc/{self.process.pid}/status", encoding="utf-8")
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temper", default="temper")
    parser.add_argument("--model", required=True, help="GGUF file in f32, or in bf16 with --dtype bf16")
    parser.add_argument("--dtype", default="f32", help="Temper's; llama.cpp computes in what the file has")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2, help="requests of each client in a round")
    parser.add_argument("--words", type=int, default=40, help="words of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", help="processors of both servers, as in 0,1")
    args = parser.parse_args()
    cpus = {int(cpu) for cpu in args.cpus.split(",")} if args.cpus else None
    context = 2 * args.words + 32 + args.tokens
    body = {"max_tokens": args.tokens, "temperature": args.temperature, "seed": 1, "model": "model"}
    # Each side has its own way to say that an answer does not end early.
    temper = Side(
        "temper",
        [args.temper, "serve", f"model={args.model}", "--dtype", args.dtype, "--port", "0", "--max-clients", str(args.clients)],
        cpus,
        {**body, "min_tokens": args.tokens},
    )
    llama = Side(
        "llama.cpp",
        [sys.executable, "-c", LLAMA, args.model, str(args.clients), str(context), str(args.threads)],
        cpus,
        {**body, "ignore_eos": True, "cache_prompt": False},
    )
    try:
        measure(args, temper, llama)
    finally:
        temper.stop()
        llama.stop()


def measure(args, temper, llama):
    texts = [side.round(args)[0] for side in (temper, llama)]
    same = sum(a == b for a, b in zip(*texts))
    print(json.dumps({"same_answers": same, "of": len(texts[0])}), flush=True)
    for number in range(args.rounds):
        # The order changes, so that neither side is always the one after the other's pause.
        for side in (temper, llama) if number % 2 == 0 else (llama, temper):
            side.speeds.append(side.round(args)[1])
        ours, theirs = temper.speeds[-1], llama.speeds[-1]
        print(json.dumps({"temper": round(ours, 1), "llama.cpp": round(theirs, 1), "ratio": round(ours / theirs, 3)}), flush=True)
    ratios = [ours / theirs for ours, theirs in zip(temper.speeds, llama.speeds)]
    summary = {
        "clients": args.clients,
        "best": {side.name: round(max(side.speeds), 1) for side in (temper, llama)},
        "ratio_of_best": round(max(temper.speeds) / max(llama.speeds), 3),
        "ratio_median": round(statistics.median(ratios), 3),
        "peak_mib": {side.name: side.peak_mib() for side in (temper, llama)},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
