#!/usr/bin/env python3
"""Checks real deliveries to X-Ray's OTLP endpoint with botocore, the core of AWS's own SDK for Python.

    python xray_otlp_botocore.py CRUDDUR

Runs CRUDDUR for three regions in three partitions, with and without gzip, and with and without a
session token. botocore's endpoint data name the host. A proxy on loopback accepts the tunnel to that
host, and answers there with a certificate that only this test trusts, so every request has the
headers that AWS would receive. botocore's signer signs each received request again: its authorization
header must be the received one, byte for byte. The signature must not fit any other body. Each body
must decode strictly with the classes of opentelemetry-proto, as in otlp_json_format.py.
"""

import datetime
import gzip
import hashlib
import http.server
import importlib.metadata
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session
import trustme

from otlp_json_format import check as decode
from xray_moto import Process

REGIONS = ["us-east-1", "cn-north-1", "eusc-de-east-1"]
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE/token+with=every==character"
# Requests of drive.py.
REQUESTS = 50


class Proxy(http.server.BaseHTTPRequestHandler):
    """Accepts the tunnel to one host, and is that host inside the tunnel."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        self.server.tunnels.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers.items(), body))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def start_proxy(authority, host):
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.tunnels, proxy.received = [], []
    proxy.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(proxy.tls)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    return proxy


def endpoint_of(region):
    """The address of X-Ray in the region, from botocore's own data."""
    client = botocore.session.Session().create_client(
        "xray", region_name=region, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET
    )
    return client.meta.endpoint_url


def sign(url, headers, body, token, region):
    """Returns the authorization header that botocore makes for this request at the time of its
    x-amz-date, and botocore's canonical request."""
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(KEY_ID, SECRET, token), "xray", region)
    request = botocore.awsrequest.AWSRequest(method="POST", url=url, data=body)
    for name, value in headers:
        if name.lower() not in ("authorization", "content-length", "user-agent", "accept", "accept-encoding"):
            request.headers[name] = value
    request.context["timestamp"] = dict(request.headers)["x-amz-date"]
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return request.headers["Authorization"], canonical


def verify(url, path, headers, body, compression, token, region):
    """Checks one delivery, and returns its body without compression."""
    names = [name.lower() for name, _ in headers]
    values = {name.lower(): value for name, value in headers}
    assert len(names) == len(values), f"a header was sent twice: {names}"
    assert path == "/v1/traces" and values["host"] == urllib.parse.urlsplit(url).netloc, (path, values["host"])
    assert values["content-type"] == "application/json", values
    assert values.get("content-encoding") == ("gzip" if compression == "gzip" else None), values
    assert values.get("x-amz-security-token") == token
    signed = datetime.datetime.strptime(values["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    assert abs((datetime.datetime.now(datetime.timezone.utc) - signed).total_seconds()) < 300, values["x-amz-date"]
    expected, canonical = sign(url, headers, body, token, region)
    assert values["authorization"] == expected, f"sent     {values['authorization']}\nbotocore {expected}\n{canonical}"
    assert canonical.endswith(hashlib.sha256(body).hexdigest()), canonical
    assert sign(url, headers, body + b" ", token, region)[0] != expected, "the signature fits another body"
    return gzip.decompress(body) if compression == "gzip" else body


def run(cruddur, work, proxy, region, compression, token):
    """Sends the requests of drive.py, stops the program, and returns the number of spans that it
    counted as delivered."""
    settings = work / "telemetry.toml"
    settings.write_text(
        f'[console]\nenabled = false\n[xray_otlp]\nenabled = true\nschedule_delay = 100\ncompression = "{compression}"\n',
        encoding="utf-8",
    )
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_CA_BUNDLE": str(work / "authority.pem"),
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        **({"AWS_SESSION_TOKEN": token} if token else {}),
    }
    server = Process(cruddur, "--config", str(settings), "--listen", "127.0.0.1:0", env=env)
    try:
        address = server.address(r"listening on (http://\S+)\s")
        drive = pathlib.Path(__file__).with_name("drive.py")
        subprocess.run([sys.executable, str(drive), address], check=True)
    finally:
        status = server.stop()
    said = server.said
    assert status == 0, f"the server ended with status {status}:\n{said}"
    assert SECRET not in said and TOKEN not in said, "the server has shown a secret"
    line = next(line for line in said.splitlines() if "xray_otlp: " in line and " delivered, " in line)
    assert " 0 refused, 0 dropped, 0 sampled out" in line, line
    return int(line.split("xray_otlp: ")[1].split()[0])


def check(cruddur, work, authority, region, compression, token):
    """Returns the numbers of deliveries and of spans."""
    endpoint = endpoint_of(region)
    host = urllib.parse.urlsplit(endpoint).hostname
    proxy = start_proxy(authority, host)
    try:
        delivered = run(cruddur, work, proxy, region, compression, token)
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert set(proxy.tunnels) == {f"{host}:443"}, proxy.tunnels
    spans = 0
    for path, headers, body in proxy.received:
        plain = verify(f"{endpoint}/v1/traces", path, headers, body, compression, token, region)
        (work / "body.json").write_bytes(plain)
        found, wrong = decode(work / "body.json")
        assert not wrong, wrong
        spans += found
    assert spans == delivered >= REQUESTS, f"{delivered} spans delivered, {spans} decoded"
    return len(proxy.received), spans


def main(cruddur):
    version = importlib.metadata.version
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        authority.cert_pem.write_to_path(str(work / "authority.pem"))
        for region in REGIONS:
            deliveries = spans = 0
            for compression in ["none", "gzip"]:
                for token in [None, TOKEN]:
                    sent = check(cruddur, work, authority, region, compression, token)
                    deliveries, spans = deliveries + sent[0], spans + sent[1]
            print(
                f"peer check: X-Ray OTLP: {region}: {deliveries} deliveries to {endpoint_of(region)}, plain and gzip, with and"
                f" without a token, signed as by botocore {version('botocore')}; {spans} spans decoded strictly"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1].strip())
    main(sys.argv[1])
