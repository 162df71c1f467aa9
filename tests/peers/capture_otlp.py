#!/usr/bin/env python3
"""A receiver that accepts every OTLP/HTTP body and keeps it.

    python capture_otlp.py DIRECTORY

Listens on a free loopback port and writes the port to DIRECTORY/port. Body N is written to
DIRECTORY/body-N.json, decompressed. The response to a request that OTLP/JSON does not allow is 400
or 415, and its body is not kept. SIGTERM ends the receiver.
"""

import gzip
import http.server
import itertools
import os
import signal
import sys

directory = sys.argv[1]
numbers = itertools.count(1)


class Capture(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding")
        if self.path != "/v1/traces" or self.headers.get("Content-Type") != "application/json":
            return self.answer(415, b'{"message":"only POST /v1/traces of application/json"}')
        if encoding not in (None, "gzip"):
            return self.answer(400, b'{"message":"unsupported Content-Encoding"}')
        if encoding == "gzip":
            body = gzip.decompress(body)
        with open(os.path.join(directory, f"body-{next(numbers)}.json"), "wb") as file:
            file.write(body)
        self.answer(200, b'{"partialSuccess":{}}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Capture)
# Written to another file and renamed, so that no reader sees half a number.
with open(os.path.join(directory, "port.new"), "w", encoding="ascii") as file:
    file.write(str(server.server_port))
os.rename(os.path.join(directory, "port.new"), os.path.join(directory, "port"))
server.serve_forever()
