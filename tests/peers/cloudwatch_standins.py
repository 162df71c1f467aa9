#!/usr/bin/env python3
"""Sends log lines to two stand-ins for CloudWatch Logs from other projects: moto and ministack.

    python cloudwatch_standins.py CRUDDUR

Each stand-in is started on loopback with its signature check on. It creates a user whose key may
use logs and nothing else. CRUDDUR gets that key and 200 requests, and boto3 reads the events back
with GetLogEvents. The events must be the access lines in the order of the requests, each with the
trace id of its response. CRUDDUR must have created the group, with its retention. With another
secret the same key must be refused, and CRUDDUR must report that and end with status 0.

Both are lax about most limits, and moto also about clocks. They show whether another project's
reading of the protocol and of Signature Version 4 agrees with ours.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import socket
import sys
import tempfile
import urllib.request

import boto3
import botocore.config

from xray_moto import PATIENCE, Process

REGION = "eu-central-1"
REQUESTS = 200
HOME = "/api/activities/home"
# The policy that aws/README.md gives the program, for any log group: moto checks actions against a
# policy, but not the names of groups.
PROGRAM = json.loads((pathlib.Path(__file__).parents[2] / "aws/json/policy-cloudwatch.json").read_text(encoding="utf-8"))
PROGRAM["Statement"] = [{**statement, "Resource": "*"} for statement in PROGRAM["Statement"]]
# The policy for reading back.
READER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]}
SETTINGS = '[console]\nenabled = false\n[cloudwatch]\nenabled = true\nschedule_delay = 100\nlog_stream = "peer"\n'


def environment(work, **more):
    """The environment of a process: no proxy, no credentials and no home by accident."""
    return {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work), **more}


def client(service, endpoint, key_id, secret):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=botocore.config.Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def new_key(endpoint, user, policy):
    """Creates a user with the permissions of the policy, and returns its key. Each stand-in accepts
    these credentials as its owner's."""
    iam = client("iam", endpoint, "test", "test")
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="logs", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def start_moto(work):
    service = Process(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0", env=environment(work))
    return service, service.address(r"Running on (http://127\.0\.0\.1:\d+)")


def check_signatures_of_moto(endpoint):
    """Switches the checks of moto on. They are off at first, so that users can be created."""
    # Any type except that of a form, because moto would parse a form.
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
        answer.read()


def start_ministack(work):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # By default ministack checks nothing, and listens on every interface, for more services than
    # this one.
    env = environment(work, BIND_HOST="127.0.0.1", GATEWAY_PORT=str(port), AUTH="true", IOT_MTLS_ENABLED="false")
    service = Process(sys.executable, "-m", "ministack", env=env)
    return service, service.address(rf"Running on (http://127\.0\.0\.1:{port})")


def run(cruddur, work, endpoint, key_id, secret, requests):
    """Runs the program. Returns the trace ids of the responses, and everything that the program
    logged."""
    settings = work / "telemetry.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    env = environment(
        work,
        AWS_ENDPOINT_URL=endpoint,
        AWS_REGION=REGION,
        AWS_ACCESS_KEY_ID=key_id,
        AWS_SECRET_ACCESS_KEY=secret,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    trace_ids = []
    server = Process(cruddur, "--config", str(settings), "--listen", "127.0.0.1:0", env=env)
    try:
        address = server.address(r"listening on (http://\S+)\s")
        for _ in range(requests):
            with opener.open(address + HOME, timeout=PATIENCE) as answer:
                trace_ids.append(answer.headers["traceparent"].split("-")[1])
    finally:
        status = server.stop()
    if status != 0:
        sys.exit(f"the server ended with status {status}:\n{server.said}")
    if secret in server.said:
        sys.exit("the server has shown its secret")
    return trace_ids, server.said


def counts(said):
    found = re.search(r"cloudwatch: (\d+) delivered, (\d+) refused, (\d+) dropped", said)
    return tuple(map(int, found.groups())) if found else sys.exit(f"no line of counts in:\n{said}")


def read_back(logs):
    """Returns the messages of the stream, first to last. The stream ends where the same token comes
    back."""
    messages, token = [], {}
    while True:
        answer = logs.get_log_events(
            logGroupName="cruddur", logStreamName="peer", startFromHead=True, limit=150, **token
        )
        messages += [json.loads(event["message"]) for event in answer["events"]]
        if token.get("nextToken") == answer["nextForwardToken"]:
            return messages
        token = {"nextToken": answer["nextForwardToken"]}


def check(name, cruddur, work, endpoint, key_id, secret, reader):
    logs = client("logs", endpoint, *reader)

    # The wrong secret comes first, while the group that the program must not create is still
    # missing.
    _, said = run(cruddur, work, endpoint, key_id, secret[::-1], 5)
    if counts(said)[0] != 0 or logs.describe_log_groups()["logGroups"]:
        sys.exit(f"{name} took a wrong signature:\n{said}")
    refusals = [line for line in re.findall(r"^.* cloudwatch: .*$", said, re.MULTILINE) if "were not sent before" not in line]
    if len(refusals) != 1 or not re.search(r"SignatureDoesNotMatch|InvalidSignatureException", refusals[0]):
        sys.exit(f"{name}: not one sentence about the signature:\n{said}")

    trace_ids, said = run(cruddur, work, endpoint, key_id, secret, REQUESTS)
    if counts(said) != (REQUESTS, 0, 0):
        sys.exit(f"{name}: not all arrived:\n{said}")
    groups = [(group["logGroupName"], group.get("retentionInDays")) for group in logs.describe_log_groups()["logGroups"]]
    if groups != [("cruddur", 7)]:
        sys.exit(f"{name}: these groups with these retentions: {groups}")
    lines = read_back(logs)
    if [line["trace_id"] for line in lines] != trace_ids:
        sys.exit(f"{name}: {len(lines)} lines read back are not the {REQUESTS} of the requests in their order")
    for line in lines:
        xray = f"1-{line['trace_id'][:8]}-{line['trace_id'][8:]}"
        if line["xray_trace_id"] != xray or not line["message"].endswith(f" GET http {HOME} 200 OK"):
            sys.exit(f"{name}: {line}")
    version = importlib.metadata.version
    print(
        f"peer check: CloudWatch: {len(lines)} lines of {REQUESTS} requests, signed, put into {name} {version(name)} and"
        f" read back in order by boto3 {version('boto3')}; a wrong secret is refused and said once"
    )


def main(cruddur):
    for name, start, check_signatures in [
        ("moto", start_moto, check_signatures_of_moto),
        ("ministack", start_ministack, lambda endpoint: None),
    ]:
        with tempfile.TemporaryDirectory() as directory:
            work = pathlib.Path(directory)
            service, endpoint = start(work)
            try:
                key_id, secret = new_key(endpoint, "cruddur", PROGRAM)
                reader = new_key(endpoint, "reader", READER)
                check_signatures(endpoint)
                check(name, cruddur, work, endpoint, key_id, secret, reader)
            finally:
                service.stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1].strip())
    main(sys.argv[1])
