#!/usr/bin/env python3
"""Decodes captured OTLP/JSON trace bodies strictly, and encodes them back.

    python otlp_json_format.py BODY.json...

The decoder is google.protobuf.json_format with the message classes of opentelemetry-proto, both
code of other projects. It refuses unknown fields and wrong types, but it is lax elsewhere: it also
accepts names for enums, snake_case keys, null, and numbers for 64-bit integers. The message is
therefore encoded back in the one form that OTLP allows, and must equal the input. Only ids differ
between OTLP/JSON (hex) and the JSON mapping of protobuf (base64), so they are checked and converted
first.

Prints one line per file. The exit status is 1 if any file differs.
"""

import base64
import json
import re
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ID_DIGITS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def only_once(pairs):
    """Makes an object. Fails if a key occurs twice: json.loads alone would silently keep the last
    one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key comes twice in {[key for key, _ in pairs]}")
    return found


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


def with_base64_ids(value):
    """The same value with every id converted from hex to base64."""
    if isinstance(value, list):
        return [with_base64_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    converted = {}
    for key, item in value.items():
        if key in ID_DIGITS:
            if not isinstance(item, str) or not re.fullmatch(f"[0-9a-f]{{{ID_DIGITS[key]}}}", item) or not item.strip("0"):
                raise ValueError(f"{key} is {item!r}, not {ID_DIGITS[key]} lower-case hex digits")
            converted[key] = base64.b64encode(bytes.fromhex(item)).decode()
        else:
            converted[key] = with_base64_ids(item)
    return converted


def differences(sent, decoded, path=""):
    """Returns every place where the two differ, one line each. True and 1 differ too."""
    if isinstance(sent, dict) and isinstance(decoded, dict):
        for key in sorted(sent.keys() | decoded.keys()):
            if key not in decoded:
                yield f"{path}.{key}: sent {sent[key]!r}, which means nothing"
            elif key not in sent:
                yield f"{path}.{key}: not sent, but means {decoded[key]!r}"
            else:
                yield from differences(sent[key], decoded[key], f"{path}.{key}")
    elif isinstance(sent, list) and isinstance(decoded, list) and len(sent) == len(decoded):
        for index, pair in enumerate(zip(sent, decoded)):
            yield from differences(*pair, f"{path}[{index}]")
    elif isinstance(sent, bool) != isinstance(decoded, bool) or sent != decoded:
        yield f"{path}: sent {sent!r}, read {decoded!r}"
    elif isinstance(sent, str) != isinstance(decoded, str):
        yield f"{path}: sent {sent!r}, read {decoded!r}"


def check(path):
    """Returns the number of spans in the file, and its problems."""
    with open(path, encoding="utf-8") as file:
        sent = with_base64_ids(json.load(file, object_pairs_hook=only_once, parse_constant=no_constant))
    message = json_format.ParseDict(sent, ExportTraceServiceRequest(), ignore_unknown_fields=False)
    decoded = json_format.MessageToDict(message, use_integers_for_enums=True)
    spans = sum(len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans)
    return spans, list(differences(sent, decoded))


def main(paths):
    if not paths:
        print(__doc__.split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        try:
            spans, wrong = check(path)
        except (ValueError, json_format.ParseError) as error:
            spans, wrong = 0, [" ".join(str(error).split())]
        failed |= bool(wrong)
        print(f"{path}: {'; '.join(wrong[:5]) if wrong else f'{spans} spans, the same after decoding and encoding'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
