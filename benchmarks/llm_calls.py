"""What does the layer around a language model cost a call? Questions to a service on this machine, and to none."""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import quiet
from benchmarks.rows import Rows

CALLS = 400
WARMING = 10  # calls before the clock runs: the first connect and load
ANSWER = '[{"label": "abnormal", "reason": "the fan stopped"}]'


class _Handler(BaseHTTPRequestHandler):
    """Gives every question the same answer, in the form of the OpenAI protocol."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": ANSWER}
        body = json.dumps({
            "id": "1", "object": "chat.completion", "created": 0, "model": "tiny",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def service() -> Iterator[str]:
    """Yield the address of a service that answers at once."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def paired(bare: Callable[[int], Any], through: Callable[[int], Any], calls: int) -> np.ndarray:
    """Return milliseconds (2 clocks, 2 ways, calls): of the wall and of the processor, bare and through the layer.

    A call of each goes by turns, so that what else the machine does hits both alike.
    """
    times = np.empty((2, 2, calls))
    for i in range(-WARMING, calls):
        for way, call in enumerate((bare, through)):
            begin = np.array([time.perf_counter(), time.process_time()])
            call(i)
            if i >= 0:
                times[:, way, i] = 1000.0 * (np.array([time.perf_counter(), time.process_time()]) - begin)
    return times


def main(options: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks llm_calls --")
    parser.add_argument("--calls", type=int, default=CALLS)
    args = parser.parse_args(options)
    quiet()
    import openai

    from genad.foundation.answers import ask
    from genad.foundation.cache import Cached
    from genad.foundation.llm import LanguageModel, open_model
    from genad.foundation.prompts import load_prompt
    from genad.foundation.scripted import Scripted

    rows = Rows(
        "llm_calls",
        "python -m benchmarks llm_calls" + (f" -- --calls {args.calls}" if args.calls != CALLS else ""),
        "What the layer around a language model costs a call",
        f"{args.calls} questions of one log line, with an answer in JSON by a schema; milliseconds, medians",
        [("The layer renders the prompt, counts, keeps to the budget, reads the answer by its schema and checks it; "
          "with a cache it also hashes the question and writes or finds the answer on disk."),
         ("The call itself: the client of the openai package to a service on this machine that answers at once, or a "
          "function that returns the answer. Both go by turns."),
         "Processor: what the process spent, that of the service included, which is the same on both ways."],
        ("call", "cache"),
    )  # fmt: skip
    prompt = load_prompt("example", "triage")

    def question(i: int) -> dict[str, Any]:
        return {"lines": [f"fan {i} stopped at {i * 17 % 91} degrees"], "count": 1}

    def compare(name: str, bare: Callable[[int], Any], model: LanguageModel) -> None:
        def through(some: LanguageModel) -> Callable[[int], Any]:
            def call(i: int) -> None:
                assert ask(some, prompt, question(i)).status == "ok"

            return call

        with tempfile.TemporaryDirectory() as folder:
            kept = Cached(model, Path(folder) / "answers.sqlite")
            # The third pass asks what the second has asked, so that every answer is found.
            for cache, asked in (("none", model), ("written", kept), ("found", kept)):
                (alone, whole), _ = middle = np.median(paired(bare, through(asked), args.calls), axis=2)
                # An answer that is found takes the place of the call.
                spent = middle[:, 1] - (0.0 if cache == "found" else middle[:, 0])
                rows.add({
                    "call": name, "cache": cache, "call itself": round(float(alone), 3),
                    "through the layer": round(float(whole), 3), "layer": round(float(spent[0]), 3),
                    "layer, processor": round(float(spent[1]), 3),
                })  # fmt: skip
            kept.close()

    script = Scripted(lambda messages: ANSWER)
    compare("function", lambda i: script.chat("?"), script)
    with service() as address:
        client = openai.OpenAI(base_url=address, api_key="none")
        messages = [prompt.render(**question(i)).messages for i in range(args.calls)]
        model = open_model(address, "tiny")
        compare(
            "service on this machine",
            lambda i: client.chat.completions.create(model="tiny", messages=messages[i], max_tokens=400),
            model,
        )
        model.close()
        client.close()
