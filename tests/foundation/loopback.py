"""A service on this machine that speaks the OpenAI protocol and misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")


def chat(text, finish="stop", **more):
    """Return the body of an answer."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}], "usage": usage}


class Fault:
    """A status and headers instead of an answer; ``hang`` seconds pass before, ``raw`` is sent as it is."""

    def __init__(self, status=200, body=None, *, headers=None, hang=0.0, raw=None):
        self.status, self.headers, self.hang = status, headers or {}, hang
        self.raw = raw if raw is not None else json.dumps(body if body is not None else {"error": {"message": "no"}})


class Loopback:
    """Answer requests from a script, in order, the last line again and again; keep what was asked.

    A line is a text, the body of an answer (dict), a Fault, or a function of the request's body that returns one.
    """

    def __init__(self, *script, models=("tiny",), key=None):
        self.script, self.models, self.key = list(script), models, key
        self.requests, self.headers, self.paths = [], [], []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send(200, json.dumps({"data": [{"id": name} for name in outer.models]}), {})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                    outer.requests.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer.paths.append(self.path)
                    line = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                with suppress(ConnectionError):
                    self.answer(body, line)
                with outer.lock:
                    outer.busy -= 1

            def answer(self, body, line):
                sent = self.headers.get("Authorization", "")
                if outer.key is not None and sent != f"Bearer {outer.key}":
                    told = sent.removeprefix("Bearer ")
                    line = Fault(401, {"error": {"message": f"Incorrect API key provided: {told}"}})
                elif self.path not in ROUTES:
                    line = Fault(404, raw="<html>not here</html>")
                elif body.get("model") not in outer.models:
                    line = Fault(404, {"error": {"message": f"model {body.get('model')} not found"}})
                while callable(line):
                    line = line(body)
                if isinstance(line, str):
                    line = chat(line)
                if isinstance(line, dict):
                    line = Fault(200, line)
                time.sleep(line.hang)
                self.send(line.status, line.raw, line.headers)

            def send(self, status, text, headers):
                raw = text.encode()
                self.send_response(status)
                kind = "text/html" if text.startswith("<") else "application/json"
                for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
