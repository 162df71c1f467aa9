#!/usr/bin/env python3
"""Captures X-Ray documents from the program, puts them into the service's own API and reads them
back.

    python xray_moto.py CRUDDUR

Starts a server in place of AWS (moto), a UDP socket in place of the daemon, and CRUDDUR with a
sampling rule that samples everything. boto3 sends every document that arrives with
PutTraceSegments, which must accept it. BatchGetTraces must return the same documents, under the
same ids and traces.

moto checks five fields only. The test shows whether the documents survive the API, not whether AWS
accepts each value.
"""

import collections
import importlib.metadata
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

import boto3
import botocore.config

HEADER = b'{"format":"json","version":1}\n'
REQUESTS = 50
PATIENCE = 20
RULE = {
    "SamplingRule": {
        "RuleName": "Everything",
        "ResourceARN": "*",
        "Priority": 1,
        "FixedRate": 1.0,
        "ReservoirSize": 0,
        "ServiceName": "*",
        "ServiceType": "*",
        "Host": "*",
        "HTTPMethod": "*",
        "URLPath": "*",
        "Version": 1,
    }
}


class Process:
    """A child process and its standard error. It is stopped by its own process id."""

    def __init__(self, *arguments, env=None):
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
        self.said = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.said += line

    def address(self, pattern):
        """Waits for `pattern` in standard error, and returns the match of its group."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = re.search(pattern, self.said)
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        sys.exit(f"no {pattern!r} in:\n{self.said}")

    def stop(self):
        """Stops the process and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.reader.join(PATIENCE)
        return status


def capture(cruddur, work):
    """Returns the documents of the requests of drive.py, and the program's counts."""
    daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    daemon.bind(("127.0.0.1", 0))
    daemon.settimeout(PATIENCE)
    (work / "rule.json").write_text(json.dumps(RULE), encoding="utf-8")
    settings = work / "telemetry.toml"
    settings.write_text(
        f"[console]\nenabled = false\n[xray]\nenabled = true\nsampling_rule = {json.dumps(str(work / 'rule.json'))}\n",
        encoding="utf-8",
    )
    environment = {
        "PATH": os.environ["PATH"],
        # No program listens there on TCP, so the rule of the file is in force.
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:%d" % daemon.getsockname()[1],
    }
    server = Process(cruddur, "--config", str(settings), "--listen", "127.0.0.1:0", env=environment)
    try:
        address = server.address(r"listening on (http://\S+)\s")
        drive = pathlib.Path(__file__).with_name("drive.py")
        subprocess.run([sys.executable, drive, address], check=True, timeout=PATIENCE)
    finally:
        status = server.stop()
    if status != 0:
        sys.exit(f"the server ended with status {status}:\n{server.said}")
    documents = []
    for _ in range(REQUESTS):
        header, _, document = daemon.recv(65536).partition(b"\n")
        if header + b"\n" != HEADER:
            sys.exit(f"not the header of the daemon: {header!r}")
        documents.append(document.decode("utf-8"))
    daemon.settimeout(0)
    try:
        sys.exit(f"more datagrams than requests: {daemon.recv(65536)!r}")
    except BlockingIOError:
        pass
    counts = re.search(r"xray: (\d+) delivered, 0 refused, 0 dropped, 0 sampled out", server.said)
    if not counts:
        sys.exit(f"not all was sent:\n{server.said}")
    return documents, int(counts.group(1))


def read_back(endpoint, documents):
    """Puts the documents with PutTraceSegments. Returns those of BatchGetTraces, by trace and
    id."""
    client = boto3.client(
        "xray",
        endpoint_url=endpoint,
        region_name="eu-central-1",
        aws_access_key_id="no-real-id",
        aws_secret_access_key="no-real-key",
        config=botocore.config.Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    for start in range(0, len(documents), 10):
        answer = client.put_trace_segments(TraceSegmentDocuments=documents[start : start + 10])
        if answer["UnprocessedTraceSegments"]:
            sys.exit(f"not taken: {answer['UnprocessedTraceSegments']}")
    traces = sorted({json.loads(document)["trace_id"] for document in documents})
    found = collections.defaultdict(list)
    for start in range(0, len(traces), 5):
        answer = client.batch_get_traces(TraceIds=traces[start : start + 5])
        if answer["UnprocessedTraceIds"]:
            sys.exit(f"not found: {answer['UnprocessedTraceIds']}")
        for trace in answer["Traces"]:
            for segment in trace["Segments"]:
                found[trace["Id"], segment["Id"]].append(json.loads(segment["Document"]))
    return found, len(traces)


def subsegments(document):
    return sum(1 + subsegments(inner) for inner in document.get("subsegments", []))


def main(cruddur):
    with tempfile.TemporaryDirectory() as directory:
        documents, spans = capture(cruddur, pathlib.Path(directory))
    service = Process(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
    try:
        found, traces = read_back(service.address(r"Running on (http://127\.0\.0\.1:\d+)"), documents)
    finally:
        service.stop()
    sent = collections.defaultdict(list)
    for document in map(json.loads, documents):
        sent[document["trace_id"], document["id"]].append(document)
    # Compared as text, so that true and 1 differ, and 1 and 1.0 too.
    for key in sent.keys() | found.keys():
        there, back = (json.dumps(side.get(key), sort_keys=True) for side in (sent, found))
        if there != back:
            sys.exit(f"{key}:\nput       {there}\nread back {back}")
    inner = sum(subsegments(json.loads(document)) for document in documents)
    if len(documents) + inner != spans:
        sys.exit(f"{spans} spans counted, {len(documents)} segments with {inner} subsegments captured")
    version = importlib.metadata.version
    print(
        f"peer check: X-Ray: {len(documents)} documents of {REQUESTS} requests with {inner} subsegments in {traces} traces,"
        f" put into moto {version('moto')} and read back by boto3 {version('boto3')}, the same"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1].strip())
    main(sys.argv[1])
