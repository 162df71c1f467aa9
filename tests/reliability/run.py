#!/usr/bin/env python3
"""Every attack of hostile.py against the program, with an honest client beside it. Writes the table in
docs/reliability.md.

    tests/reliability/run.py target/release/cruddur            all attacks, each for 4 seconds
    tests/reliability/run.py target/release/cruddur idle ...   only these; prints, and writes nothing

After two seconds of a second attack of each kind, SIGTERM must end the program within 6 seconds.

Loopback only. Each attack is bounded in number and time. Needs Linux and `prlimit`.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- the table, written by tests/reliability/run.py -->\n", "<!-- the end of the table -->\n"
SECONDS = 4
# At most 1,024 descriptors, and many attackers.
CROWDS = [("idle", 700), ("h2preface", 700), ("slowloris", 1200), ("pipeline_noread", 2), ("cl_slow", 400),
          ("paced_head", 60), ("body_flood", 8), ("rst_connect", 500), ("rst_req", 500), ("rst_mid", 500)]
ATTACKS = {
    "cl_huge": "announces a body of 10 GB", "cl_slow": "sends a large body slowly",
    "chunked_slow": "sends a chunked body slowly", "expect_slow": "waits for 100 Continue",
    "small_slow": "sends a small body slowly", "body_flood": "sends bodies on many connections",
    "pipeline": "pipelines without end", "pipeline_noread": "pipelines without end and does not read",
    "slowread": "reads responses slowly", "trickleread": "reads byte by byte",
    "idle": "connects and says nothing", "slowloris": "sends heads slowly",
    "header_line": "sends one endless header line", "header_count": "sends endless headers",
    "paced_head": "sends an endless head, 15 kB at a time", "url": "sends an endless URL", "chunk_ext": "sends an endless chunk extension",
    "h2preface": "sends `HTTP/2.0` request lines", "zoo": "sends malformed requests of many kinds",
    "get": "sends honest requests as fast as it can", "rst_connect": "connects and resets",
    "rst_req": "sends a request and resets", "rst_mid": "resets in the middle of a request",
    "churn": "opens and closes connections",
}
assert list(ATTACKS) == re.findall(r"^def a_(\w+)", (HERE / "hostile.py").read_text(), re.M)


def main():
    binary = os.path.abspath(sys.argv[1])
    wanted = sys.argv[2:]
    cases = [(attack, None) for attack in wanted or ATTACKS] + ([] if wanted else CROWDS)
    rows, is_fine = [], True
    for attack, crowd in cases:
        result = measure(binary, attack, crowd)
        honest = result["honest"]
        failed = honest.get("fail", 0) / max(honest.get("n", 0), 1)
        stopped = stop(binary, attack, crowd)
        is_fine &= stopped["status"] == 0 and stopped["seconds"] < 6
        is_fine &= result["lives"] and failed <= 0.01 and honest.get("p99", 1e9) < 50 and result["memory"] <= 32
        what = ATTACKS[attack] + (f"; {crowd} at 1,024 descriptors" if crowd else "")
        rows.append(f"| `{attack}` | {what} | {honest.get('fail')} of {honest.get('n')} | {honest.get('p99')} | "
                    f"{result['memory']} | {'yes' if result['lives'] else 'NO'} | {stopped['seconds']:.1f}, {stopped['status']} |\n")
        print(rows[-1], end="", flush=True)
    if not wanted:
        write(rows)
    sys.exit(0 if is_fine else "a promise of docs/reliability.md is broken; next: run this attack alone")


def measure(binary, attack, crowd):
    """Runs one attack for some seconds. Returns what the honest client saw and what the program used."""
    with tempfile.TemporaryDirectory() as directory:
        program, attacker, target = begin(binary, attack, crowd, directory)
        peak, ended = [0], threading.Event()
        threading.Thread(target=watch, args=(program.pid, peak, ended), daemon=True).start()
        client = [sys.executable, HERE / "honest.py", target, "--path", "/health", "--secs", str(SECONDS)]
        output = subprocess.run(client, capture_output=True, text=True).stdout
        end(attacker)
        ended.set()
        lives = program.poll() is None
        program.terminate()
        program.wait(20)
        return {"honest": json.loads(output or "{}"), "memory": peak[0] // 1024, "lives": lives}


def stop(binary, attack, crowd):
    """Stops the program during an attack. Returns how long that took, and the exit status."""
    with tempfile.TemporaryDirectory() as directory:
        program, attacker, _ = begin(binary, attack, crowd, directory)
        time.sleep(2)
        began = time.time()
        program.terminate()
        try:
            status = program.wait(20)
        except subprocess.TimeoutExpired:
            program.kill()
            status = f"killed, {program.wait()}"
        seconds = time.time() - began
        attacker.kill()
        attacker.wait()
        return {"seconds": seconds, "status": status}


def begin(binary, attack, crowd, directory):
    """Starts the program and the attack."""
    pathlib.Path(directory, "telemetry.toml").write_text("[console]\nenabled = false\n")
    log = pathlib.Path(directory, "log")
    command = [binary, "--listen", "127.0.0.1:0"]
    if crowd:
        command = ["prlimit", "--nofile=1024:1024"] + command
    with log.open("w") as out:
        program = subprocess.Popen(command, cwd=directory, stdout=out, stderr=out)
    target = f"127.0.0.1:{port_of(log)}"
    command = [sys.executable, HERE / "hostile.py", target, attack, "--path", "/api/activities/home"]
    command += ["--secs", str(SECONDS)] + (["--n", str(crowd)] if crowd else [])
    attacker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return program, attacker, target


def end(attacker):
    """Waits for an attack to end. It ends by itself, unless the machine is very slow."""
    try:
        attacker.wait(SECONDS + 20)
    except subprocess.TimeoutExpired:
        attacker.kill()
        attacker.wait()


def port_of(log):
    for _ in range(500):
        if match := re.search(r"listening on http://[^:\s]+:(\d+)", log.read_text()):
            return match[1]
        time.sleep(0.02)
    sys.exit("the program did not start: " + log.read_text())


def watch(pid, peak, ended):
    """Records the largest resident memory, in kB."""
    while not ended.wait(0.02):
        try:
            peak[0] = max(peak[0], int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]))
        except (OSError, TypeError):
            return


def write(rows):
    before, rest = DOCUMENT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    day, cores = datetime.date.today().isoformat(), os.cpu_count()
    head = f"Measured on {day}, {platform.machine()}, {cores} cores, {SECONDS} seconds an attack.\n\n"
    head += "| attack | the hostile client | honest requests that failed | p99 ms | peak MB | lives | SIGTERM: s, status |\n|---|---|---|---|---|---|---|\n"
    DOCUMENT.write_text(before + BEGIN + head + "".join(rows) + END + after)


if __name__ == "__main__":
    main()
