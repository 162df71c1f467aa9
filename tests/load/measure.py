#!/usr/bin/env python3
"""Measures the release binary on loopback: rate, bursts of connections, the cost of a broken
collector, and edits of telemetry.toml under load.

    cargo build --release && python3 tests/load/measure.py [rate|burst|spans|faults|switch ...]

Every figure is printed with its expected value. The exit status is 0 if all are as expected.
Compare latencies only within one run, because the machine has its moods.
"""
import http.server
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve()
BINARY = HERE.parents[2] / "target/release/cruddur"
GET_HOME = b"GET /api/activities/home HTTP/1.1\r\nHost: localhost\r\n\r\n"
failures = []


def check(ok, text):
    print(("ok    " if ok else "MISS  ") + text, flush=True)
    if not ok:
        failures.append(text)


class Program:
    """The server on a free port, with the console off."""

    def __init__(self, toml="", **env):
        self.directory = tempfile.TemporaryDirectory()
        self.config = Path(self.directory.name) / "telemetry.toml"
        self.config.write_text("[console]\nenabled = false\n" + toml)
        self.log = open(Path(self.directory.name) / "stderr", "w+")
        arguments = [BINARY, "--config", self.config, "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(arguments, env={"RUST_LOG": "info,access=off", **env}, stderr=self.log)
        deadline = time.time() + 10
        while "listening on http://" not in self.stderr():
            if time.time() > deadline:
                raise SystemExit("it does not listen: " + self.stderr())
            time.sleep(0.005)
        self.port = int(self.stderr().split("listening on http://127.0.0.1:")[1].split()[0])

    def stderr(self):
        return Path(self.log.name).read_text()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def status(self):
        with self.connect() as connection:
            connection.sendall(b"GET /telemetry/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while more := connection.recv(65536):
                answer += more
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def save(self, toml):
        """Saves as most editors do: another file is renamed over it."""
        new = self.config.with_suffix(".new")
        new.write_text(toml)
        new.rename(self.config)

    def rss_kb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def stop(self):
        began = time.time()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=20)
        took = time.time() - began
        return status, took, self.stderr()


def exchange(connection):
    """Sends one request. Returns true if the response is a complete 200."""
    connection.sendall(GET_HOME)
    answer = connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head.startswith(b"HTTP/1.1 200 ")


def latencies(program, count):
    times = []
    with program.connect() as connection:
        for _ in range(count):
            began = time.perf_counter()
            assert exchange(connection)
            times.append(time.perf_counter() - began)
    return sorted(times)


class Collector:
    """Responds to OTLP with `status` after `wait` seconds, and counts spans."""

    def __init__(self, status=200, wait=0.0):
        self.spans = 0
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # The server writes head and body separately, which would cost 40 ms each time.
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(wait)
                # Parsing the JSON would be slower than the program under test. No span here has
                # links.
                collector.spans += body.count(b'"spanId":')
                answer = b'{"message":"unknown API key"}' if status == 401 else b"{}"
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """The program has ended, and its connection with it."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def honeycomb(url, delay=200):
    return dict(
        toml="[honeycomb]\nenabled = true\n",
        HONEYCOMB_API_KEY="k",
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_BSP_SCHEDULE_DELAY=str(delay),
    )


def rate():
    program = Program()
    latencies(program, 1000)
    began = time.perf_counter()
    times = latencies(program, 20_000)
    per_second = 20_000 / (time.perf_counter() - began)
    check(per_second > 5000, f"rate: {per_second:.0f} answers a second on one connection (more than 5,000)")
    check(times[-1] < 0.040, f"rate: the slowest took {times[-1] * 1e3:.1f} ms (no stall of 40 ms)")
    program.stop()


def burst():
    slowest = unanswered = 0
    for _ in range(20):
        program = Program()
        began = time.time()
        connections = [program.connect() for _ in range(64)]
        for connection in connections:
            connection.sendall(GET_HOME)
        waiting = list(connections)
        while waiting and time.time() - began < 5:
            for connection in select.select(waiting, [], [], 0.1)[0]:
                connection.recv(65536)
                waiting.remove(connection)
                slowest = max(slowest, time.time() - began)
        unanswered += len(waiting)
        for connection in connections:
            connection.close()
        program.stop()
    check(unanswered == 0, f"burst: {unanswered} of 20 x 64 new connections unanswered (none)")
    check(slowest < 1, f"burst: the last answer came after {slowest * 1e3:.0f} ms (under a second)")


def spans():
    collector = Collector()
    program = Program(**honeycomb(collector.url, delay=5000))
    latencies(program, 1000)
    status, took, stderr = program.stop()
    check(collector.spans == 2000, f"spans: {collector.spans} of 2,000 arrived, stopped right after the last answer")
    check(status == 0 and took < 6, f"spans: exit {status} after {took:.2f} s; {stderr.strip().splitlines()[-1]}")
    collector.stop()


def faults():
    refusing, hanging, fine = Collector(status=401), Collector(wait=60), Collector()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    cases = {"fine": fine.url, "dead": dead, "hanging": hanging.url, "401": refusing.url}
    programs = {name: Program(**honeycomb(url)) for name, url in cases.items()}
    p99 = {name: [] for name in cases}
    memory = {}
    for program in programs.values():
        latencies(program, 2000)
    for name, program in programs.items():
        memory[name] = program.rss_kb()
    for _ in range(7):
        for name, program in programs.items():
            times = latencies(program, 2000)
            p99[name].append(times[int(len(times) * 0.99)])
    for name, program in programs.items():
        middle = sorted(p99[name])[3] * 1e6
        grown = program.rss_kb() - memory[name]
        status, took, stderr = program.stop()
        lines = [line for line in stderr.splitlines() if " WARN  honeycomb: " in line]
        ratio = middle / (sorted(p99["fine"])[3] * 1e6)
        check(ratio < 1.5, f"faults: {name:8} p99 {middle:.0f} us, {ratio:.2f} of a fine collector's")
        check(grown < 2048, f"faults: {name:8} memory grew by {grown} kB over 14,000 requests (under 2 MB)")
        check(status == 0 and took < 6, f"faults: {name:8} exit {status} after {took:.2f} s (under 6)")
        if name != "fine":
            # The problem, the full queue, and the items left at the end are logged once each, for
            # any number of batches.
            check(1 <= len(lines) <= 3, f"faults: {name:8} {len(lines)} lines, the first: {lines[0][25:] if lines else ''}")
    for collector in (refusing, hanging, fine):
        collector.stop()


def ask(port):
    """Runs four clients that send requests without a pause until standard input ends. Prints the
    numbers of good and bad responses."""
    over, answered, failed = threading.Event(), [0] * 4, [0] * 4

    def client(number):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not over.is_set():
                try:
                    ok = exchange(connection)
                except OSError:
                    ok = False
                answered[number] += ok
                failed[number] += not ok

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in clients:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in clients:
        thread.join()
    print(sum(answered), sum(failed))


def switch():
    """Makes 20 edits in 20 seconds while four clients send requests without a pause. The collector
    stays on."""
    collector = Collector()
    daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    daemon.bind(("127.0.0.1", 0))
    honeycomb_on = "[console]\nenabled = false\n[honeycomb]\nenabled = true\nmax_queue_size = 100000\n"
    xray_on = f"[xray]\nenabled = true\ndaemon_address = \"127.0.0.1:{daemon.getsockname()[1]}\"\n"
    state = lambda name, wanted: lambda status: status["backends"][name]["state"] == wanted
    edits = []
    for number in range(5):
        edits += [
            ("X-Ray on", honeycomb_on + xray_on, state("xray", "on")),
            ("another delay", honeycomb_on + "schedule_delay = 150\n" + xray_on,
             lambda status: "150 ms" in status["backends"]["honeycomb"]["reason"]),
            ("a new name", f'service_name = "edit-{number}"\n' + honeycomb_on + xray_on,
             lambda status, number=number: status["service_name"] == f"edit-{number}"),
            ("X-Ray off", honeycomb_on, state("xray", "off")),
        ]
    env = honeycomb(collector.url)
    del env["toml"], env["OTEL_BSP_SCHEDULE_DELAY"]
    program = Program("[honeycomb]\nenabled = true\nmax_queue_size = 100000\n", **env)
    # The clients run in another process, or they and the collector would wait for each other.
    clients = subprocess.Popen([sys.executable, HERE, "ask", str(program.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    took = []
    for number, (name, toml, is_in_force) in enumerate(edits):
        began = time.time()
        program.save(toml)
        while not is_in_force(program.status()):
            if time.time() - began > 5:
                check(False, f"switch: edit {number}, {name}, was not in force after 5 s")
                break
            time.sleep(0.01)
        took.append(time.time() - began)
        # During half of the time between edits, the file is invalid.
        if number % 4 == 1:
            program.save(toml.replace("enabled", "enabeld", 1))
        time.sleep(max(0, began + 1 - time.time()))
    answered, failed = map(int, clients.communicate()[0].split())
    status, _, stderr = program.stop()
    switches = sum(" settings: reloaded " in line for line in stderr.splitlines())
    refused = sum("stay in force" in line for line in stderr.splitlines())
    check(failed == 0, f"switch: {failed} of {answered} requests failed during {len(edits)} edits (none)")
    check(max(took) < 1, f"switch: in force after {sorted(took)[len(took) // 2]:.2f} s, the slowest {max(took):.2f} s (under a second)")
    spans = 2 * answered
    check(collector.spans == spans, f"switch: {collector.spans} of {spans} spans reached the collector that was always on (all)")
    check(status == 0, f"switch: {switches} files taken, {refused} refused; exit {status}; {[l for l in stderr.splitlines() if l.startswith('honeycomb: ')]}")
    collector.stop()
    daemon.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        sys.exit(ask(int(sys.argv[2])))
    os.chdir(tempfile.gettempdir())
    for name in sys.argv[1:] or ["rate", "burst", "spans", "faults", "switch"]:
        {"rate": rate, "burst": burst, "spans": spans, "faults": faults, "switch": switch}[name]()
    sys.exit(f"{len(failures)} missed" if failures else 0)
