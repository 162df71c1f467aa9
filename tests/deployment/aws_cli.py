"""Runs every command of aws/README.md with AWS's own command line. The command line checks names,
arguments and files against AWS's models, and then calls a loopback server that accepts every
call."""

import http.server
import os
import re
import subprocess
import sys
import threading

aws, readme = sys.argv[1], open("aws/README.md", encoding="utf-8").read()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        # IAM uses XML, X-Ray and Logs use JSON. The content of the responses is not needed here.
        action = re.search(r"^Action=(\w+)&", asked)
        body = f"<A><{action[1]}Result/><ResponseMetadata/></A>".encode() if action else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
env = {
    "PATH": f"{os.path.dirname(os.path.abspath(aws))}:{os.environ['PATH']}",
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "no-real-secret",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
commands = [line for block in re.findall(r"^```sh\n(.*?)^```", readme, re.M | re.S) for line in block.splitlines()]
assert len(commands) > 10 and all(command.startswith("aws ") for command in commands), commands
for command in commands:
    result = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        sys.exit(f"{command}\n{result.stderr}")
print(f"deployment: {len(commands)} commands of aws/README.md are taken by AWS's own command line")
