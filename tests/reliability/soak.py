#!/usr/bin/env python3
"""Long runs against the program, with receivers that count what arrives.

    tests/reliability/soak.py drip BINARY [SECONDS]    one HTTP/2.0 line and one abandoned body of 20 MB a second,
                                                       at 256 descriptors, beside an honest client
    tests/reliability/soak.py mixed BINARY [SECONDS]   honest load, every attack in turn, and receivers that fail

Both end with SIGTERM. They check that each span of an answered request arrived once, that the printed counts
add up, and that memory, threads and descriptors stay flat. Loopback only.
"""

import collections
import http.server
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import run

HERE = pathlib.Path(__file__).resolve().parent


class Destination(http.server.BaseHTTPRequestHandler):
    """Answers with an empty JSON object."""

    protocol_version = "HTTP/1.1"

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "2")
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Receiver(Destination):
    """OTLP and CloudWatch in one. `fault` is a function that returns a status, or None for a hang-up."""

    spans = collections.Counter()
    lock = threading.Lock()
    fault = staticmethod(lambda: 200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status = type(self).fault()
        if status is None:
            self.close_connection = True
            return
        if status == 200 and self.path == "/v1/traces":
            for resource in json.loads(body)["resourceSpans"]:
                with self.lock:
                    self.spans.update((span["traceId"], span["spanId"])
                                      for scope in resource["scopeSpans"] for span in scope["spans"])
        self.answer(status)


class Honest(threading.Thread):
    """Sends requests on fresh connections. Remembers the trace ids of those that were answered."""

    def __init__(self, port, pause):
        super().__init__(daemon=True)
        self.port, self.pause, self.ended = port, pause, threading.Event()
        self.answered, self.failed, self.times = [], collections.Counter(), []

    def run(self):
        while not self.ended.wait(self.pause):
            trace = f"{int(time.time()):08x}{random.getrandbits(96) | 1:024x}"
            began = time.time()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 3) as connection:
                    connection.settimeout(3)
                    connection.sendall(b"GET /api/activities/home HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                       b"traceparent: 00-" + trace.encode() + b"-00f067aa0ba902b7-01\r\n\r\n")
                    answer = b""
                    while part := connection.recv(65536):
                        answer += part
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise OSError(repr(answer[:30]))
                self.answered.append(trace)
            except OSError as error:
                self.failed[str(error)[:60] or type(error).__name__] += 1
            self.times.append(time.time() - began)


def drip(binary, seconds):
    program = Program(binary, descriptors=256, settings="[honeycomb]\nenabled = true\nschedule_delay = 1000\n")
    honest = Honest(program.port, 0.02)
    honest.start()
    kept = []
    end = time.time() + seconds
    while time.time() < end and program.lives():
        for request in (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
                        b"POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 20000000\r\n\r\n" + b"x" * 1000):
            try:
                connection = socket.create_connection(("127.0.0.1", program.port), 3)
                connection.sendall(request)
                kept.append(connection)
            except OSError:
                pass
        # The client gives up after a while; the program keeps what tiny_http does not free.
        while len(kept) > 20:
            kept.pop(0).close()
        time.sleep(1)
    finish(program, honest)


def mixed(binary, seconds):
    faults = [200, 200, 200, 503, 429, None, 400]
    Receiver.fault = staticmethod(lambda: faults[int(time.time() / 7) % len(faults)])
    settings = "[honeycomb]\nenabled = true\nschedule_delay = 500\ntimeout = 2000\n"
    settings += "[xray]\nenabled = true\n[cloudwatch]\nenabled = true\nschedule_delay = 500\n"
    program = Program(binary, descriptors=1024, settings=settings)
    honest = [Honest(program.port, 0.01) for _ in range(2)]
    for client in honest:
        client.start()
    end, samples = time.time() + seconds, []
    while time.time() < end and program.lives():
        attack = random.choice(list(run.ATTACKS))
        command = [sys.executable, HERE / "hostile.py", f"127.0.0.1:{program.port}", attack, "--secs", "4"]
        attacker = subprocess.Popen(command + ["--path", "/api/activities/home"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            attacker.wait(30)
        except subprocess.TimeoutExpired:
            attacker.kill()
            attacker.wait()
        time.sleep(2)
        samples.append(program.usage())
    third = max(len(samples) // 3, 1)
    for index, name in enumerate(("memory kB", "threads", "descriptors")):
        first, last = (sorted(sample[index] for sample in part)[len(part) // 2] for part in (samples[:third], samples[-third:]))
        print(f"{name}: median of the first third {first}, of the last third {last}, at most {max(s[index] for s in samples)}")
    finish(program, honest[0], honest[1:], exactly_once=False)


def finish(program, honest, others=(), exactly_once=True):
    clients = [honest, *others]
    for client in clients:
        client.ended.set()
        client.join(5)
    time.sleep(1)
    began = time.time()
    program.process.send_signal(signal.SIGTERM)
    status = program.process.wait(20)
    log = program.log.read_text()
    answered = sum(len(client.answered) for client in clients)
    failed = sum((client.failed for client in clients), collections.Counter())
    times = sorted(sum((client.times for client in clients), []))
    print(f"exit status {status} in {time.time() - began:.1f} s; renewals: {log.count('renews itself')}")
    print(f"honest client: {answered} answered, {sum(failed.values())} failed {dict(failed)}, "
          f"p99 {1000 * times[int(0.99 * len(times))]:.1f} ms")
    wrong = [line for line in re.findall(r"^\w+: \d+ delivered.*$", log, re.M) if not adds_up(line)]
    lines = re.findall(r"^\w+: \d+ delivered.*$", log, re.M)
    print(f"{len(lines)} lines of counts, {len(wrong)} of them do not add up {wrong}")
    print("\n".join(lines[-3:]))
    problems = wrong + ([f"exit status {status}"] if status else [])
    if sum(failed.values()) > 0.01 * (answered + sum(failed.values())):
        problems.append("more than 1 % of the honest requests failed")
    if exactly_once:
        by_trace = collections.Counter(trace for trace, _ in Receiver.spans.elements())
        lost = [trace for trace in honest.answered if by_trace[trace] != 2]
        twice = [span for span, number in Receiver.spans.items() if number > 1]
        print(f"spans: {len(Receiver.spans)} arrived; {len(lost)} answered requests without their two spans; {len(twice)} spans twice")
        problems += lost[:3] + twice[:3]
    sys.exit(f"failed: {problems}" if problems else 0)


def adds_up(line):
    delivered, refused, dropped, sampled_out, total = map(int, re.findall(r"\d+", line)[:5])
    return delivered + refused + dropped + sampled_out == total


class Program:
    def __init__(self, binary, descriptors, settings):
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        receiver.daemon_threads = True
        # The program hangs up when its time limit has passed.
        receiver.handle_error = lambda *_: None
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        threading.Thread(target=lambda: [self.udp.recv(65536) for _ in iter(int, 1)], daemon=True).start()
        address = f"127.0.0.1:{receiver.server_port}"
        directory = pathlib.Path(tempfile.mkdtemp(prefix="cruddur-soak-"))
        (directory / "telemetry.toml").write_text("[console]\nenabled = false\n" + settings)
        self.log = directory / "log"
        environment = {
            "PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": f"http://{address}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_XRAY_DAEMON_ADDRESS": f"tcp:{address} udp:127.0.0.1:{self.udp.getsockname()[1]}",
            # As in the image.
            "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072",
        }
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", binary, "--listen", "127.0.0.1:0"]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=out)
        self.port = int(run.port_of(self.log))

    def lives(self):
        return self.process.poll() is None

    def usage(self):
        """Returns resident memory in kB, threads and descriptors."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        find = lambda name: int(re.search(rf"{name}:\s+(\d+)", status)[1])
        return find("VmRSS"), find("Threads"), len(os.listdir(f"/proc/{self.process.pid}/fd"))


if __name__ == "__main__":
    kind, binary = sys.argv[1], os.path.abspath(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else {"drip": 600, "mixed": 1800}[kind]
    {"drip": drip, "mixed": mixed}[kind](binary, seconds)
