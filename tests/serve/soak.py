"""Many clients for minutes, well-behaved ones and others: every answer is the one that a single client gets.

    python tests/serve/soak.py --temper target/ci/temper --minutes 10 --clients 64 base=runs/tiny/pretrain a=runs/tiny/sft

The arguments after the options are those of `temper serve`. First one client asks every request of a fixed list. Then all
clients ask them in random order, whole and streamed, while others disconnect in the middle of a stream, send half a request
and wait, send bodies that are too large, not JSON, of another type or full of wrong fields, or read nothing. The resident
memory is written down each five seconds. The script fails if an answer differs, an error is not the expected one, the memory
is larger in the second half, a socket listens beyond this machine, or the server does not end at SIGTERM. Only the standard
library; traffic goes to 127.0.0.1 alone.
"""

import argparse
import collections
import http.client
import json
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

JSON = {"Content-Type": "application/json"}


def requests(models):
    """The fixed list: (path, body) of each request, whose answers depend on nothing else."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    found = []
    for number, model in enumerate(models):
        for seed in range(6):
            body = {"model": model, "prompt": "The quick brown " * (1 + seed % 3), "seed": seed, "max_tokens": 8 + 5 * seed}
            body |= [{"temperature": 0}, {"top_p": 0.9}, {"n": 2}, {"stop": ["e", "x"]}, {"frequency_penalty": 1}, {"min_p": 0.1}][seed]
            found.append(("/v1/completions", body))
        logprobs = {"model": model, "prompt": "lazy dog", "seed": number, "max_tokens": 6, "logprobs": 2}
        found.append(("/v1/completions", logprobs))
        found.append(("/v1/embeddings", {"model": model, "input": ["The lazy dog", "jumps"]}))
        rule = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        chat = {"model": model, "messages": [{"role": "user", "content": "Hi?"}], "seed": number, "max_tokens": 12}
        found += [("/v1/chat/completions", chat), ("/v1/chat/completions", {**chat, "response_format": rule})]
    return found


def essence(path, answer):
    """What of an answer depends on the request alone."""
    if path == "/v1/embeddings":
        return answer["data"]
    return [{**choice, "logprobs": None} for choice in answer["choices"]]


class Soak:
    def __init__(self, address, clients):
        self.address, self.clients = address, clients
        self.end = threading.Event()
        self.counts = collections.Counter()
        self.problems = []
        self.lock = threading.Lock()

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def problem(self, text):
        with self.lock:
            self.problems.append(text[:500])

    def post(self, path, body, headers=JSON, method="POST"):
        """Status and body; 0 if the connection ended."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, timeout=300)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (ConnectionError, http.client.HTTPException, socket.timeout) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def ask(self, path, body):
        while True:
            status, answer = self.post(path, body)
            if status != 429:
                return status, answer
            self.count("asked to come back")
            time.sleep(random.uniform(0.05, 0.3))

    def streamed(self, path, body):
        """The choices of a streamed answer, joined."""
        status, answer = self.ask(path, {**body, "stream": True})
        if status != 200:
            return None
        events = [event[6:] for event in answer.decode().split("\n\n") if event.startswith("data: ")]
        if events[-1:] != ["[DONE]"]:
            return None
        texts, reasons = collections.defaultdict(str), {}
        for event in map(json.loads, events[:-1]):
            for choice in event["choices"]:
                texts[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
                reasons[choice["index"]] = choice["finish_reason"] or reasons.get(choice["index"])
        return [(texts[idx], reasons[idx]) for idx in sorted(reasons)]

    def client(self, expected, seed):
        draw = random.Random(seed)
        while not self.end.is_set():
            (path, body), want = draw.choice(expected)
            if path != "/v1/embeddings" and "logprobs" not in body and draw.random() < 0.5:
                text = lambda choice: choice.get("text", choice.get("message", {}).get("content"))
                if self.streamed(path, body) != [(text(choice), choice["finish_reason"]) for choice in want]:
                    self.problem(f"streamed answer differs: {body}")
                self.count("streamed answers")
                continue
            status, answer = self.ask(path, body)
            if status != 200 or essence(path, json.loads(answer)) != want:
                self.problem(f"{status}: answer differs: {body}: {answer[:200]} {want}")
            self.count("answers")

    def raw(self, data, wait):
        """Sends bytes, keeps the connection for some seconds and leaves."""
        host, port = self.address.split(":")
        try:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(data)
                self.end.wait(wait)
        except OSError:
            pass

    def nuisance(self, models, seed):
        draw = random.Random(seed)
        long = {"model": models[0], "prompt": "The", "max_tokens": 1000, "stream": True, "n": 2}
        whole = json.dumps(long).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {self.address}\r\nContent-Type: application/json\r\nContent-Length: "
        full = head.encode() + str(len(whole)).encode() + b"\r\n\r\n" + whole
        wrong = [
            (b"{", 400), (b"[]", 400), (b'{"model": 1}', 400), (b"\xff\xfe", 400), (b"", 400),
            (json.dumps({"model": "none", "prompt": "x"}).encode(), 404),
            (json.dumps({"model": models[0], "prompt": "x", "mood": 1}).encode(), 400),
            (json.dumps({"model": models[0], "prompt": "word " * 100_000}).encode(), 400),
            (b"[" * 100_000, 400), (b"x" * (5 << 20), 413),
        ]
        while not self.end.is_set():
            kind = draw.randrange(6)
            if kind == 0:
                self.raw(full, draw.uniform(0, 0.5))
                self.count("disconnects in a stream")
            elif kind == 1:
                self.raw(full[: draw.randrange(len(full))], draw.uniform(0, 20))
                self.count("halves of requests")
            elif kind == 2:
                for byte in full[:40]:
                    if self.end.wait(0.2):
                        break
                    self.raw(bytes([byte]), 0)
                self.count("requests byte by byte")
            elif kind == 3:
                self.raw(full, 35)
                self.count("readers that read nothing")
            elif kind == 4:
                body, status = draw.choice(wrong)
                got, answer = self.post("/v1/completions", body)
                # A connection that is closed before all of a large body was sent may lose the answer.
                if got not in (status, 429) and not (got == 0 and status == 413):
                    self.problem(f"{got} instead of {status}: {answer[:200]}")
                self.count("wrong bodies")
            else:
                headers, status = draw.choice([
                    ({"Content-Type": "text/plain"}, 415), ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
                    ({**JSON, "Host": "example.com"}, 403),
                ])
                got, answer = self.post("/v1/completions", whole, headers)
                if got not in (status, 429):
                    self.problem(f"{got} instead of {status}: {answer[:200]}")
                self.count("wrong types and hosts")


def rss_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def listeners(pid):
    """Addresses at which the process listens, as /proc has them."""
    inodes = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()))
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes and (fields[3] == "0A" or table.startswith("udp")):
                found.append(fields[1])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temper", default="temper")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--nuisances", type=int, default=8)
    parser.add_argument("models", nargs="+", help="NAME=MODEL")
    args = parser.parse_args()
    names = [model.split("=")[0] for model in args.models]
    command = [args.temper, "serve", *args.models, "--port", "0", "--max-clients", str(args.clients)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        address = line.split("http://")[1].split()[0]
        soak = Soak(address, args.clients)
        expected = []
        for path, body in requests(names):
            status, answer = soak.ask(path, body)
            if status == 400 and b"no chat template" in answer:
                continue
            if status != 200:
                sys.exit(f"{status}: {body}: {answer}")
            expected.append(((path, body), essence(path, json.loads(answer))))
        # Freed memory stays in the process: each thread that reads requests keeps that of the largest text.
        longest = {"model": names[0], "prompt": "word " * 100_000}
        first = [threading.Thread(target=soak.post, args=("/v1/completions", longest)) for _ in range(12)]
        for thread in first:
            thread.start()
        for thread in first:
            thread.join()
        threads = [threading.Thread(target=soak.client, args=(expected, seed)) for seed in range(args.clients)]
        threads += [threading.Thread(target=soak.nuisance, args=(names, -seed)) for seed in range(1, args.nuisances + 1)]
        for thread in threads:
            thread.start()
        memory, end, listening = [], time.monotonic() + 60 * args.minutes, set()
        while time.monotonic() < end and server.poll() is None:
            time.sleep(min(5, max(0.1, end - time.monotonic())))
            memory.append(rss_mib(server.pid))
            listening.update(listeners(server.pid))
        soak.end.set()
        for thread in threads:
            thread.join()
        # The list again, after everything.
        for (path, body), want in expected:
            status, answer = soak.ask(path, body)
            if status != 200 or essence(path, json.loads(answer)) != want:
                soak.problem(f"after the soak: {status}: {body}")
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
        report(soak, memory, listening, code)
    finally:
        if server.poll() is None:
            server.kill()


def report(soak, memory, listening, code):
    middle = len(memory) // 2
    first, second = statistics.median(memory[: middle or 1]), statistics.median(memory[middle:])
    # 127.0.0.1 in the byte order of the table.
    beyond = [address for address in listening if not address.startswith("0100007F:")]
    summary = {
        **soak.counts,
        "memory_mib": [round(mib) for mib in memory[11::12]],
        "memory_of_halves_mib": [round(first), round(second)],
        "exit": code,
        "problems": soak.problems[:10],
        "n_problems": len(soak.problems),
        "listens_beyond": beyond,
    }
    print(json.dumps(summary, indent=1))
    if soak.problems or beyond or code != 0 or second > first * 1.1 + 10:
        sys.exit(1)


if __name__ == "__main__":
    main()
