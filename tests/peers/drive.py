#!/usr/bin/env python3
"""Sends the 50 requests of the peer check: every route, with and without context, good and bad.

    python drive.py http://127.0.0.1:PORT
"""

import json
import sys
import urllib.error
import urllib.request

TRACE = "4efaaf4d1e8720b39541901950019ee5"
SPAN = "53995c3f42cd8ad8"
ROUND = [
    (200, "/api/activities/home", None, {}),
    (200, "/api/activities/home", None, {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61,rojo=1"}),
    (200, "/api/activities/notifications", None, {"X-Amzn-Trace-Id": f"Root=1-{TRACE[:8]}-{TRACE[8:]};Sampled=1"}),
    (200, "/api/activities/@andrewbrown", None, {"User-Agent": 'quotes " and \\ back\\slashes'}),
    (200, "/api/activities/search?term=a%20%22b%22&sig=secret", None, {}),
    (200, "/api/activities", {"message": "\U0001f600 \u0001 \"", "ttl": "1-day"}, {}),
    (422, "/api/messages", {"message": "", "user_receiver_handle": "bayko"}, {}),
    (404, "/api/nothing/here", None, {}),
    (500, "/api/fail", None, {}),
    (500, "/api/fail?how=error", None, {}),
]

for _ in range(5):
    for expected, path, body, headers in ROUND:
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(sys.argv[1] + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        if status != expected:
            sys.exit(f"{path}: {status} instead of {expected}")
