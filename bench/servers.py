"""The servers that bench/run compares. Starts them, loads them, measures them, and stops them."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "bench"
PEERS = TARGET / "release"
OURS = ROOT / "target" / "release" / "cruddur"
VENV = ROOT / "target" / "bench-venv"
FLASK = ROOT / "bench" / "peers" / "flask"
HOME = "/api/activities/home"
CONNECTIONS = 16
HEADS = (59, 581)
WARM_UP_SECONDS = 1
START_TIMEOUT = 60
# The last flush of all backends, with room for Python's.
STOP_TIMEOUT = 60
EXPECTED_DATA = {}
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A server of the comparison. `arguments` makes its command line from port and receiver. Each
    request to the home route is expected to make so many spans, log events and datagrams."""

    def __init__(self, arguments, spans=0, log_events=0, datagrams=0, **environment):
        self.arguments = arguments
        self.expected = {"spans": spans, "log_events": log_events, "datagrams": datagrams}
        self.environment = environment


def ours(*backends):
    def arguments(port, receiver, directory):
        text = "[console]\nenabled = false\n[page]\nenabled = true\n"
        for backend in ("honeycomb", "xray", "cloudwatch"):
            text += f"[{backend}]\nenabled = {str(backend in backends).lower()}\n"
        settings = pathlib.Path(directory, "telemetry.toml")
        settings.write_text(text)
        return [OURS, "--config", settings, "--listen", f"127.0.0.1:{port}"]

    return Server(arguments, spans=2 * ("honeycomb" in backends), log_events=int("cloudwatch" in backends),
                  datagrams=int("xray" in backends), RUST_LOG="info", HONEYCOMB_API_KEY="")


def axum(telemetry, protocol=""):
    def arguments(port, receiver, directory):
        return [PEERS / "axum_peer", str(port), telemetry, protocol, f"http://127.0.0.1:{receiver.tcp}/v1/traces"]

    return Server(arguments, spans=2 * (telemetry != "off"))


def flask(telemetry):
    def arguments(port, receiver, directory):
        return [VENV / "bin" / "gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "4",
                "--graceful-timeout", "30", "--chdir", FLASK, "--bind", f"127.0.0.1:{port}", "app:app"]

    is_on = int(telemetry == "all")
    return Server(arguments, spans=2 * is_on, log_events=is_on, datagrams=is_on, TELEMETRY=telemetry,
                  PYTHONDONTWRITEBYTECODE="1")


SERVERS = {
    "ours-off": ours(),
    "ours-otlp": ours("honeycomb"),
    "ours-xray": ours("xray"),
    "ours-cloudwatch": ours("cloudwatch"),
    "ours-all": ours("honeycomb", "xray", "cloudwatch"),
    "tiny_http": Server(lambda port, receiver, directory: [PEERS / "tiny_http_peer", str(port)]),
    "axum-off": axum("off"),
    "axum-sdk-proto": axum("sdk", "proto"),
    "axum-sdk-json": axum("sdk", "json"),
    "axum-tracing-proto": axum("tracing", "proto"),
    "axum-tracing-json": axum("tracing", "json"),
    "axum-fastrace-proto": axum("fastrace", "proto"),
    "flask-off": flask("off"),
    "flask-all": flask("all"),
}
DESCRIPTIONS = {
    "ours-off": "ours, all off",
    "ours-otlp": "ours, OTLP",
    "ours-xray": "ours, X-Ray",
    "ours-cloudwatch": "ours, CloudWatch",
    "ours-all": "ours, all three",
    "tiny_http": "tiny_http, `respond()`, no telemetry, no log line",
    "axum-off": "axum, no telemetry",
    "axum-sdk-proto": "axum + OpenTelemetry SDK, http/proto",
    "axum-sdk-json": "axum + OpenTelemetry SDK, http/json",
    "axum-tracing-proto": "axum + tracing-opentelemetry, http/proto",
    "axum-tracing-json": "axum + tracing-opentelemetry, http/json",
    "axum-fastrace-proto": "axum + fastrace, http/proto",
    "flask-off": "the Flask original, all off",
    "flask-all": "the Flask original, all three",
}


def build(names):
    """Builds what these servers need."""
    run = lambda *command: subprocess.run(command, cwd=ROOT, check=True)
    run("cargo", "build", "--release", "--quiet")
    run("cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", "bench/peers/Cargo.toml",
        "--target-dir", TARGET)
    if any(name.startswith("flask") for name in names):
        requirements = (FLASK / "requirements.txt").read_text()
        stamp = VENV / "requirements.txt"
        if not stamp.exists() or stamp.read_text() != requirements:
            run(sys.executable, "-m", "venv", "--clear", VENV)
            run(VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                "-r", FLASK / "requirements.txt")
            stamp.write_text(requirements)


def cores():
    """Returns the core of the servers, and that of load generator and receiver."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        sys.exit("bench/run needs two cores: one for the server, one for the load; next: run it on a larger machine")
    return usable[0], usable[1]


@contextlib.contextmanager
def process(command, core, timeout=STOP_TIMEOUT, **options):
    """Runs a program on one core. Ends it with SIGTERM, or after `timeout` with SIGKILL."""
    pin = lambda: os.sched_setaffinity(0, {core})
    program = subprocess.Popen([str(part) for part in command], preexec_fn=pin, **options)
    try:
        yield program
    finally:
        descendants = tree(program.pid)
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(timeout)
        except subprocess.TimeoutExpired:
            print(f"{command[0]} did not end within {timeout} s and is killed", file=sys.stderr)
            for pid in descendants:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program.wait()


class Receiver:
    """The receiver of bench/peers: it stands for Honeycomb, the X-Ray daemon and CloudWatch."""

    def __init__(self, program):
        ports = json.loads(program.stdout.readline())
        self.tcp, self.udp = ports["tcp"], ports["udp"]

    def environment(self):
        http_url = f"http://127.0.0.1:{self.tcp}"
        return {
            "OTEL_SERVICE_NAME": "backend-flask", "OTEL_EXPORTER_OTLP_ENDPOINT": http_url,
            "AWS_XRAY_DAEMON_ADDRESS": f"tcp:127.0.0.1:{self.tcp} udp:127.0.0.1:{self.udp}",
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": http_url, "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
        }

    def counts(self):
        """Returns what arrived since the last call, once nothing more arrives."""
        total = {}
        for _ in range(50):
            new = json.loads(get(self.tcp, "/stats"))
            total = {key: total.get(key, 0) + new[key] for key in new}
            if total and not any(new.values()):
                break
            time.sleep(0.1)
        return total

    def datagrams_dropped(self):
        """Datagrams that the kernel dropped because the receiver's socket was full, so far."""
        for line in pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{self.udp:04X}"):
                return int(fields[-1])
        return 0


@contextlib.contextmanager
def receiver(core):
    with process([PEERS / "receiver"], core, timeout=5, stdout=subprocess.PIPE, text=True) as program:
        yield Receiver(program)


def measure(name, receiver, server_core, load_core, seconds):
    """Runs one server once: a warm-up, then load with each size of head. Returns its figures."""
    server = SERVERS[name]
    receiver.counts()
    dropped_before = receiver.datagrams_dropped()
    result = {}
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        command = server.arguments(port, receiver, directory)
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        environment |= receiver.environment() | server.environment
        begin = time.monotonic()
        output = subprocess.DEVNULL
        with process(command, server_core, env=environment, cwd=directory, stdout=output, stderr=output) as program:
            wait_until_ready(port, program, server, name)
            result["start_ms"] = (time.monotonic() - begin) * 1000
            requests = 1 + load(port, load_core, WARM_UP_SECONDS, HEADS[0])["answered"]
            for head in HEADS:
                before = cpu_seconds(program.pid)
                loaded = load(port, load_core, seconds, head)
                used = cpu_seconds(program.pid) - before
                requests += loaded["answered"]
                result[str(head)] = loaded | {
                    "per_second": loaded["in_time"] / loaded["seconds"],
                    "cpu_us": used / max(loaded["answered"], 1) * 1e6,
                }
            result["peak_mb"] = peak_mb(program.pid)
    received = receiver.counts()
    result["requests"] = requests
    result["received"] = received
    result["lost"] = {kind: each * requests - received[kind] for kind, each in server.expected.items() if each}
    result["kernel_drops"] = receiver.datagrams_dropped() - dropped_before
    return result


def load(port, core, seconds, head):
    command = [str(PEERS / "load"), str(port), str(CONNECTIONS), str(seconds), str(head)]
    pin = lambda: os.sched_setaffinity(0, {core})
    output = subprocess.run(command, preexec_fn=pin, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 30)
    return json.loads(output.stdout)


def wait_until_ready(port, program, server, name):
    """Waits for the first response of the home route. With X-Ray, waits first for the sampling rules
    that sample every request."""
    has_rules = name.startswith("ours") and server.expected["datagrams"]
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if program.poll() is not None:
            sys.exit(f"{name} ended with status {program.returncode} at its start; next: run {program.args} by hand")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if not has_rules or "rules from X-Ray: all" in get(port, "/telemetry/status"):
                return check_body(name, get(port, HOME))
        time.sleep(0.005)
    sys.exit(f"{name} did not answer within {START_TIMEOUT} s; next: run {program.args} by hand")


def check_body(name, body):
    """All servers have to send the same JSON, whatever the order of keys and the times."""
    without_times = re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '""', body)
    data = json.loads(without_times)
    if EXPECTED_DATA.setdefault("home", data) != data:
        sys.exit(f"{name} sends other data than the servers before it: {body}")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status} for {path}")
        return body
    finally:
        connection.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(pid):
    """Returns a process and all its descendants."""
    found = [pid]
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += tree(int(child))
    return found


def cpu_seconds(pid):
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def peak_mb(pid):
    """Peak resident memory, added up over the processes of the server."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{one}/status").read_text())[1])
    return total / 1024
