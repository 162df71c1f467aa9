"""The archive of a release, unpacked in an empty root: it is complete, serves, delivers over HTTPS with its own
telemetry.toml, and its completions work in bash, zsh and fish.

The argument is the archive. Its sum is beside it. Everything happens on loopback. Needs the root user."""

import http.server
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request

archive = pathlib.Path(sys.argv[1])
tls = pathlib.Path(__file__).parent.parent / "data" / "tls"
FILES = [
    "LICENSE-APACHE", "LICENSE-MIT", "README.md", "completions/_cruddur", "completions/cruddur.bash",
    "completions/cruddur.fish", "cruddur", "cruddur.1", "telemetry.toml",
]
TIMEOUT = 20


def main():
    subprocess.run(["sha256sum", "--check", "--quiet", archive.name + ".sha256"], cwd=archive.parent, check=True)
    root = pathlib.Path(tempfile.mkdtemp(prefix="cruddur-archive-"))
    try:
        root.chmod(0o755)
        folder = unpack(root)
        is_served_and_delivered(root, folder)
        for shell in ("bash", "zsh", "fish"):
            completes(shell, folder)
    finally:
        shutil.rmtree(root)
    print(f"archive: {archive.name} is complete, serves, delivers over HTTPS, and completes in bash, zsh and fish")


def unpack(root):
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    folder = root / archive.name.removesuffix(".tar.gz")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == FILES, found
    page = (folder / "cruddur.1").read_text()
    for name in ("serve", "completions", "\\-\\-notifications\\-url"):
        assert name in page, name
    return folder


def is_served_and_delivered(root, folder):
    bodies = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()

    settings = (folder / "telemetry.toml").read_text()
    settings, changes = re.subn(r"(?m)^(\[honeycomb\]\nenabled = )false$", r"\1true", settings)
    assert changes == 1, "telemetry.toml has no [honeycomb] that is off"
    (folder / "telemetry.toml").write_text(settings)
    shutil.copy(tls / "ca.pem", root / "ca.pem")
    environment = {
        "CRUDDUR_LISTEN": "127.0.0.1:0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{receiver.server_port}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        "HONEYCOMB_API_KEY": "no-real-key",
    }
    command = ["chroot", "--userspec=65532:65532", root, f"/{folder.name}/cruddur", "--config", f"/{folder.name}/telemetry.toml"]
    environment["PATH"] = os.environ["PATH"]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        started = program.stderr.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", started).group(1))
        threading.Thread(target=program.stderr.read, daemon=True).start()
        for path, part in (("/", b"<html"), ("/health", b""), ("/api/activities/home", b"created_at")):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT) as response:
                assert response.status == 200 and part in response.read(), path
        until(lambda: "home-activities-mock-data" in json.dumps(bodies), "no trace came over HTTPS")
    finally:
        program.send_signal(signal.SIGTERM)
        assert program.wait(TIMEOUT) == 0, program.returncode
        receiver.shutdown()


def completes(shell, folder):
    """Types into a real shell, and presses the Tab key after each part."""
    completions = folder / "completions"
    home = folder / f"home-{shell}"
    home.mkdir()
    command, set_up = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], f"source {completions}/cruddur.bash"),
        "zsh": (["zsh", "-f", "-i"], f"fpath=({completions} $fpath); autoload -U compinit; compinit -u -D"),
        "fish": (["fish", "--no-config", "-i"], f"source {completions}/cruddur.fish"),
    }[shell]
    pid, terminal = pty.fork()
    if pid == 0:
        path = f"{folder}:{os.environ['PATH']}"
        os.execvpe(command[0], command, {"PATH": path, "HOME": str(home), "TERM": "dumb", "PS1": "", "LC_ALL": "C.UTF-8"})
    threading.Thread(target=drain, args=[terminal], daemon=True).start()
    result = home / "explained"
    try:
        # The line makes sense only when both words were completed.
        os.write(terminal, f"{set_up}; cd {home}\n".encode())
        os.write(terminal, b"touch ready\n")
        until((home / "ready").exists, f"{shell} did not start")
        os.write(terminal, b"cruddur expl\thon\tattributes >explained; touch done\n")
        until((home / "done").exists, f"{shell} did not run the line")
        assert "attributes" in result.read_text(), f"{shell}: cruddur expl<Tab>hon<Tab> was not completed"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def drain(terminal):
    """Reads what the shell shows, so that it never waits."""
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass


def until(condition, problem):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)


main()
