"""Checks the project's promises about its containers. The arguments are the resolved compose file,
the same with PUBLIC_ADDRESS set to 0.0.0.0, .gitpod.yml, Dockerfile, devcontainer.json, and the workflows."""

import json
import re
import sys

import yaml

compose = json.load(open(sys.argv[1]))
public = json.load(open(sys.argv[2]))
gitpod = yaml.safe_load(open(sys.argv[3]))
dockerfile = open(sys.argv[4]).read().splitlines()
# JSON with comments. No text in it contains two slashes.
workspace = json.loads(re.sub("//.*", "", open(sys.argv[5]).read()))
workflows = {path: open(path).read() for path in sys.argv[6:]}
services = compose["services"]

assert set(services) == {"backend-flask", "notifications", "xray-daemon", "collector", "jaeger", "nginx"}, services.keys()
for name, service in services.items():
    for port in service.get("ports", []):
        assert port["host_ip"] == "127.0.0.1", f"{name}: port {port['published']} is open to the network"
    assert int(service["mem_limit"]) > 0, f"{name}: no memory limit"
    assert service["restart"] == "unless-stopped", f"{name}: not restarted"
    assert ("profiles" in service) == (name in ("collector", "jaeger", "nginx")), f"{name}: in the wrong profile"
    image = service["image"]
    assert image == "cruddur" or ":" in image and not image.endswith(":latest"), f"{name}: {image} may change any day"


# Nothing but nginx opens, however it is asked for.
for name, service in public["services"].items():
    addresses = {port["host_ip"] for port in service.get("ports", [])}
    assert addresses <= ({"0.0.0.0"} if name == "nginx" else {"127.0.0.1"}), f"{name}: {addresses}"


def published(name):
    return {(port["published"], port["protocol"]) for port in services[name]["ports"]}


assert published("backend-flask") == {("4567", "tcp")}
assert published("xray-daemon") == {("2000", "udp"), ("2000", "tcp")}, "segments and rules"
assert published("nginx") == {("8080", "tcp")}
nginx = services["nginx"]
assert nginx["profiles"] == ["public"] and nginx["read_only"] and nginx["cap_drop"] == ["ALL"] and nginx["user"] != "0"
[mount] = nginx["configs"]
assert mount["target"] in nginx["entrypoint"] and compose["configs"][mount["source"]]["file"].endswith("/docs/nginx.conf")
assert services["xray-daemon"]["command"] == ["-o"], "anything else is one argument, and ignored"
assert services["xray-daemon"]["environment"]["AWS_REGION"] == services["backend-flask"]["environment"]["AWS_DEFAULT_REGION"]

assert [name for name in services if "build" in services[name]] == ["notifications"], "who builds one image twice at once fails"
assert services["backend-flask"]["pull_policy"] == "never", "nobody else has this image"

environment = services["backend-flask"]["environment"]
course = "FRONTEND_URL BACKEND_URL OTEL_SERVICE_NAME OTEL_EXPORTER_OTLP_ENDPOINT AWS_XRAY_URL AWS_XRAY_DAEMON_ADDRESS \
AWS_DEFAULT_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY HONEYCOMB_API_KEY NOTIFICATIONS_URL"
assert set(course.split()) <= set(environment), set(course.split()) - set(environment)
assert environment["OTEL_SERVICE_NAME"] == "backend-flask", "the sampling rule and the course's queries say so"
assert environment["AWS_XRAY_DAEMON_ADDRESS"] == "xray-daemon:2000"
assert environment["NOTIFICATIONS_URL"] == "http://notifications:4567"

for name in ("backend-flask", "notifications"):
    service = services[name]
    mount, spool = service["volumes"]
    assert spool["type"] == "volume" and service["environment"]["CRUDDUR_SPOOL_DIR"] == f"{spool['target']}/{name}"
    assert mount["read_only"] and mount["target"] == service["working_dir"], "telemetry.toml is looked for where it is mounted"
    # Most editors save by replacing the file, and only a mount of the directory shows the new one.
    assert not mount["source"].endswith(".toml")
    assert service["read_only"] and service["cap_drop"] == ["ALL"], name

ports = {port["port"]: port for port in gitpod["ports"]}
assert set(ports) == {3000, 4567, 2000}, "the course's ports"
assert ports[2000]["visibility"] == "private", "the daemon takes segments from anybody"
assert "npm" not in json.dumps(gitpod)

stages = [line for line in dockerfile if line.startswith("FROM ")]
assert len(stages) == 2 and stages[1] == "FROM scratch", stages
last = dockerfile[dockerfile.index("FROM scratch"):]
for line in ("COPY --from=build --chown=65532:65532 /spool /spool", "USER 65532:65532", "ENV CRUDDUR_LISTEN=0.0.0.0:4567", 'ENTRYPOINT ["/cruddur"]'):
    assert line in last, line
assert any(line.startswith("HEALTHCHECK ") and line.endswith('CMD ["/cruddur", "health"]') for line in last)

[toolchain] = set(re.findall(r"rust:(\d+\.\d+)-", dockerfile[[line.startswith("FROM ") for line in dockerfile].index(True)]))
assert workspace["image"].startswith(f"rust:{toolchain}-"), "the toolchain of the Dockerfile"
assert set(workspace["forwardPorts"]) == {4567, 4568, 2000}
assert workspace["containerEnv"]["CRUDDUR_PAGE_ALLOW_REMOTE"] == "true", "the proxy of the workspace is another machine"
for path, text in workflows.items():
    parsed = yaml.safe_load(text)
    assert parsed["permissions"] == {"contents": "read"}, f"{path}: jobs ask for more, each for itself"
    for job in parsed["jobs"].values():
        assert "timeout-minutes" in job, path
    for action in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{path}: {action} is not pinned"
    named = set(re.findall(r"rust:(\d+\.\d+)-|RUSTUP_TOOLCHAIN: \"(.*)\"", text))
    assert {name for pair in named for name in pair if name} == {toolchain}, f"{path}: {named}"
