#!/usr/bin/env python3
"""A long outage of three destinations, with two restarts in the middle.

    tests/reliability/outage.py BINARY [SECONDS]     600 seconds by default

Honeycomb, X-Ray's OTLP endpoint and CloudWatch are away while a client sends 100 requests a second. They refuse
connections, hang up, answer 503, or do not answer. After each third of the time the program ends by SIGTERM and
starts again. Then the destinations are back. Every span and every line of an answered request must arrive exactly
once. Loopback only.
"""

import collections
import gzip
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import run
from soak import Destination, Honest

SETTINGS = """[console]
enabled = false
[honeycomb]
enabled = true
schedule_delay = 1000
[xray_otlp]
enabled = true
schedule_delay = 1000
compression = "gzip"
[cloudwatch]
enabled = true
schedule_delay = 1000
"""


class Receiver(Destination):
    """All three destinations. Counts what it has accepted."""

    away = True
    began = time.time()
    lock = threading.Lock()
    accepted = {"honeycomb": collections.Counter(), "xray_otlp": collections.Counter(), "cloudwatch": collections.Counter()}
    attempts = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Receiver.attempts += 1
        if Receiver.away:
            fault = int((time.time() - Receiver.began) / 20) % 3
            if fault == 0:
                return self.answer(503)
            if fault == 1:
                time.sleep(12)
            self.close_connection = True
            return None
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        content = json.loads(body)
        with self.lock:
            if "x-amz-target" in self.headers:
                for event in content["logEvents"]:
                    line = json.loads(event["message"])
                    if line["target"] == "access":
                        Receiver.accepted["cloudwatch"][line["trace_id"]] += 1
            else:
                backend = "xray_otlp" if "x-amz-date" in self.headers else "honeycomb"
                for resource in content["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        Receiver.accepted[backend].update(span["traceId"] for span in scope["spans"])
        return self.answer(200)


class Program:
    """The program with a spool directory that outlives it."""

    def __init__(self, binary, directory, address, number):
        (directory / "telemetry.toml").write_text(f'spool_dir = "spool"\n{SETTINGS}')
        self.log = directory / f"log-{number}"
        environment = {
            "PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "AWS_ENDPOINT_URL": f"http://{address}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
        }
        command = [binary, "--listen", "127.0.0.1:0"]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=out)
        self.port = int(run.port_of(self.log))

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/telemetry/status", timeout=5) as answer:
            return json.load(answer)

    def end(self):
        began = time.time()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        lines = re.findall(r"^\w+: \d+ (?:delivered|spans|lines).*$", self.log.read_text(), re.M)
        print(f"ended with {status} in {time.time() - began:.1f} s", *lines, sep="\n  ", flush=True)
        return status


def main(binary, seconds):
    binary = str(pathlib.Path(binary).resolve())
    directory = pathlib.Path(tempfile.mkdtemp(prefix="cruddur-outage-"))
    # The port is reserved. Nothing listens in the first part, so connections are refused.
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    requests, failed, statuses = [], 0, []
    server = None
    for part in range(3):
        program = Program(binary, directory, f"127.0.0.1:{port}", part)
        client = Honest(program.port, 0.01)
        client.start()
        time.sleep(seconds / 6)
        if server is None:
            reserved.close()
            Receiver.began = time.time()
            server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver)
            server.daemon_threads = True
            server.handle_error = lambda *_: None
            threading.Thread(target=server.serve_forever, daemon=True).start()
        time.sleep(seconds / 6)
        if part == 2:
            back = time.time()
            Receiver.away = False
            while time.time() < back + 300 and any(
                backend["spool"]["items"] for backend in program.status()["backends"].values() if backend["spool"]
            ):
                time.sleep(0.1)
            print(f"all that waited was sent {time.time() - back:.1f} s after the destinations were back", flush=True)
        client.ended.set()
        client.join(5)
        requests += client.answered
        failed += sum(client.failed.values())
        statuses.append(program.end())
    problems = [f"exit status {status}" for status in statuses if status]
    print(f"{len(requests)} requests answered, {failed} failed; {Receiver.attempts} calls")
    for backend, each in (("honeycomb", 2), ("xray_otlp", 2), ("cloudwatch", 1)):
        accepted = Receiver.accepted[backend]
        missing = sum(accepted[trace] < each for trace in requests)
        twice = sum(accepted[trace] > each for trace in requests)
        print(f"{backend}: {sum(accepted.values())} arrived; {missing} requests incomplete, {twice} more than once")
        problems += [backend] if missing or twice else []
    sys.exit(f"failed: {problems}" if problems or failed else 0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600.0)
