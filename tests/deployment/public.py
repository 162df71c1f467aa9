"""docs/nginx.conf in front of the program: what it passes on, what it refuses, and what hostile clients can do.

Arguments: nginx, the program, and seconds for each attack. Everything happens on loopback."""

import http.client
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import hostile

nginx, program, seconds = sys.argv[1], os.path.abspath(sys.argv[2]), float(sys.argv[3])
# The most memory that the program may need, in MB. It is less than half the limit in docker-compose.yml.
MOST_MEMORY = 64
PAGE = ["/", "/page/page.js", "/telemetry/status", "/telemetry/traces", "/telemetry/deliveries"]
work = tempfile.mkdtemp(prefix="cruddur-public-")
os.chmod(work, 0o1777)
running = []


def start(command, **options):
    process = subprocess.Popen(command, **options)
    running.append(process)
    return process


def stop(process):
    process.terminate()
    process.wait(10)
    running.remove(process)


def until(condition, what):
    give_up = time.monotonic() + 10
    while not (result := condition()):
        assert time.monotonic() < give_up, what
        time.sleep(0.02)
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_program(settings=""):
    """Returns the process and its port."""
    with open(f"{work}/telemetry.toml", "w") as file:
        file.write("[console]\nenabled = false\n" + settings)
    with open(f"{work}/stderr", "w") as log:
        process = start([program, "--listen", "127.0.0.1:0"], cwd=work, env={}, stdout=log, stderr=log)
    port = until(lambda: re.search(r"listening on http://127\.0\.0\.1:(\d+)", open(f"{work}/stderr").read()), "no program")
    return process, int(port[1])


def start_nginx(upstream, edit=lambda text: text):
    """Returns the process and its port. Only addresses and paths differ from docs/nginx.conf."""
    port = free_port()
    text = edit(open("docs/nginx.conf").read())
    for old, new in [("backend-flask:4567", f"127.0.0.1:{upstream}"), ("listen 8080", f"listen 127.0.0.1:{port}")]:
        assert text.count(f"{old};") == 1, old
        text = text.replace(old, new)
    with open(f"{work}/nginx.conf", "w") as file:
        file.write(text.replace("/tmp/nginx", f"{work}/nginx"))
    with open(f"{work}/nginx.log", "a") as log:
        # As in the compose file: as a user who may write nothing else.
        user = {"user": 65532, "group": 65532, "extra_groups": []} if os.getuid() == 0 else {}
        command = [nginx, "-e", "stderr", "-c", f"{work}/nginx.conf", "-g", "daemon off;"]
        process = start(command, stderr=log, **user)
    until(lambda: answers(port), "nginx does not answer")
    return process, port


def answers(port):
    try:
        return request(port, "/health").status == 200
    except OSError:
        return False


def request(port, path, method="GET", body=None, source="127.0.0.1", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3, source_address=(source, 0))
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": "localhost", "Connection": "close", **headers})
        response = connection.getresponse()
        response.content = response.read()
        return response
    finally:
        connection.close()


def check_what_is_passed_on(port, direct):
    response = request(
        port, "/api/activities/home", source="127.0.0.3", X_Forwarded_For="203.0.113.7", Forwarded="for=203.0.113.8"
    )
    trace_id = response.headers["traceparent"].split("-")[1]
    trace = json.loads(request(direct, f"/telemetry/traces/{trace_id}").content)
    attributes = trace["requests"][0]["spans"][0]["attributes"]
    assert attributes["client.address"] == "127.0.0.3", attributes
    assert attributes["server.address"] == "localhost", attributes

    for path in [*PAGE, "//telemetry/traces", "/api/../telemetry/traces", "/api/%2e%2e/telemetry/traces", "/nothing"]:
        assert request(port, path).status == 403, path
    assert request(port, "/api/activities/nothing").status == 404
    text = json.dumps({"message": "m" * 280, "ttl": "1-day"})
    assert request(port, "/api/activities", "POST", text, Content_Type="application/json").status == 200
    assert request(port, "/api/activities", "POST", "x" * 17_000, Content_Type="application/json").status == 413
    assert request(port, "/api/activities/home", baggage="a=" + "b" * 8190).status == 200
    assert request(port, "/api/activities/home", x="y" * 17_000).status == 400

    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(20):
        connection.request("GET", "/health")
        connection.getresponse().read()
    until(lambda: connections_to(direct) == 0, "nginx keeps connections to the program")
    connection.close()


def connections_to(port):
    """Established connections that lead to the port."""
    lines = open("/proc/net/tcp").read().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


def check_that_the_page_needs_allow_remote():
    """With the page passed on, the program itself still refuses it."""
    everything = lambda text: re.sub(r"(location / \{)[^}]*\}\\n';", r"\1 proxy_pass http://cruddur;", text, count=1)
    for settings, host, status in [
        ("", "localhost", 403),
        ("[page]\nallow_remote = true\n", "localhost", 200),
        ("[page]\nallow_remote = true\n", "cruddur.example", 403),
        ("[page]\nallow_remote = true\nhosts = ['cruddur.example']\n", "cruddur.example", 200),
    ]:
        process, direct = start_program(settings)
        proxy, port = start_nginx(direct, everything)
        for path in PAGE:
            assert request(port, path, Host=host).status == status, (settings, path, host)
        stop(proxy)
        stop(process)


def refused_at_once(port, sources):
    """Number of slow uploads that are refused, of one from each of these addresses."""
    connections = []
    for source in sources:
        connections.append(socket.create_connection(("127.0.0.1", port), 3, source_address=(source, 0)))
        connections[-1].sendall(b"POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    # The others wait for their bodies.
    select.select(connections, [], [], 3)
    time.sleep(0.2)
    readable, _, _ = select.select(connections, [], [], 0)
    refused = sum(connection.recv(100).startswith(b"HTTP/1.1 429 ") for connection in readable)
    for connection in connections:
        connection.close()
    return refused


def check_limits_on_connections(direct):
    """For one client, and for all together."""
    proxy, port = start_nginx(direct)
    assert refused_at_once(port, 40 * ["127.0.0.4"]) == 8
    stop(proxy)
    proxy, port = start_nginx(direct, lambda text: text.replace("limit_conn connections 512", "limit_conn connections 5"))
    assert refused_at_once(port, [f"127.0.0.{number}" for number in range(10, 20)]) == 5
    stop(proxy)


def memory_of(process):
    """Resident memory in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{process.pid}/status").read())[1]) // 1024


def check_attack(name, process, port):
    """A client of another address makes 50 requests a second, each on a new connection, beside the attack."""
    command = [sys.executable, hostile.__file__, f"127.0.0.1:{port}", name, str(seconds)]
    attacker = start(command, stderr=subprocess.DEVNULL)
    times, failures, memory = [], [], 0
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        try:
            response = request(port, "/api/activities/home")
            if response.status != 200:
                failures.append(response.status)
        except OSError as error:
            failures.append(repr(error))
        times.append(time.monotonic() - begun)
        memory = max(memory, memory_of(process))
        time.sleep(max(0, 0.02 - times[-1]))
    try:
        attacker.wait(15)
        running.remove(attacker)
    except subprocess.TimeoutExpired:
        attacker.kill()
    times.sort()
    median, late = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
    print(f"  {name:24} {len(failures)} of {len(times)} failed, p50 {median:.1f} ms, p99 {late:.1f} ms, {memory} MB", flush=True)
    assert process.poll() is None, f"{name}: the program has ended"
    assert len(failures) <= len(times) // 100, f"{name}: {failures}"
    assert memory <= MOST_MEMORY, f"{name}: {memory} MB"


try:
    check_that_the_page_needs_allow_remote()
    # As in the compose file.
    backend, backend_port = start_program("[page]\nallow_remote = true\n")
    check_limits_on_connections(backend_port)
    _, public_port = start_nginx(backend_port)
    check_what_is_passed_on(public_port, backend_port)
    print("deployment: nginx passes on the API and not the page, with the address of the client")
    for attack in hostile.ATTACKS:
        check_attack(attack.__name__, backend, public_port)
    print(f"deployment: {len(hostile.ATTACKS)} attacks through nginx hurt no other client")
except BaseException:
    for log in filter(os.path.exists, [f"{work}/stderr", f"{work}/nginx.log"]):
        sys.stderr.writelines(open(log).readlines()[-20:])
    raise
finally:
    for process in reversed(running):
        process.terminate()
        process.wait(10)
    shutil.rmtree(work)
