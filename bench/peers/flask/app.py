"""The home route of the course's backend in Flask, instrumented as in week 2: OpenTelemetry to
Honeycomb, AWS's X-Ray SDK, and watchtower to CloudWatch Logs.

TELEMETRY is `off` or `all`. X-Ray samples every request, as the other servers do here. The
variables of the three libraries say where the receivers are.
"""

import datetime
import logging
import os
import time

from flask import Flask, request
from flask_cors import CORS

IS_TRACED = os.environ["TELEMETRY"] == "all"

LOGGER = logging.getLogger(__name__)
LOGGER.setLevel(logging.DEBUG)
LOGGER.addHandler(logging.StreamHandler())

app = Flask(__name__)

if IS_TRACED:
    import boto3
    import watchtower
    from aws_xray_sdk.core import xray_recorder
    from aws_xray_sdk.ext.flask.middleware import XRayMiddleware
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("home.activities")

    xray_recorder.configure(service="backend-flask", sampling=False)
    XRayMiddleware(app, xray_recorder)

    LOGGER.addHandler(watchtower.CloudWatchLogHandler(log_group_name="cruddur", boto3_client=boto3.client("logs")))

    FlaskInstrumentor().instrument_app(app)
    RequestsInstrumentor().instrument()

CORS(
    app,
    resources={r"/api/*": {"origins": ["http://localhost:3000", "http://localhost:4567"]}},
    expose_headers="location,link",
    allow_headers="content-type,if-modified-since",
    methods="OPTIONS,GET,HEAD,POST",
)


@app.after_request
def after_request(response):
    timestamp = time.strftime("[%Y-%b-%d %H:%M]")
    LOGGER.error("%s %s %s %s %s %s", timestamp, request.remote_addr, request.method, request.scheme,
                 request.full_path, response.status)
    return response


@app.route("/api/activities/home", methods=["GET"])
def data_home():
    return (traced_home() if IS_TRACED else home(now())), 200


def now():
    return datetime.datetime.now(datetime.timezone.utc).astimezone()


def traced_home():
    with tracer.start_as_current_span("home-activities-mock-data"):
        span = trace.get_current_span()
        time_of_request = now()
        span.set_attribute("app.now", time_of_request.isoformat())
        subsegment = xray_recorder.begin_subsegment("mock-data")
        try:
            results = home(time_of_request)
            subsegment.put_metadata("key", {"now": time_of_request.isoformat(), "results-size": len(results)}, "namespace")
        finally:
            xray_recorder.end_subsegment()
        span.set_attribute("app.result_length", len(results))
        return results


def home(at):
    days = lambda number: datetime.timedelta(days=number)
    hours = lambda number: datetime.timedelta(hours=number)
    first = activity("68f126b0-1ceb-4a33-88be-d90fa7109eee", "Andrew Brown", "andrewbrown", "Cloud is fun!",
                     at - days(2), at + days(5))
    reply = activity("26e12864-1c26-5c3a-9658-97a10f8fea67", "Worf", "worf", "Honour needs no cloud.",
                     at - days(2), at + days(5))
    reply["reply_to_activity_uuid"] = first["uuid"]
    first.update(likes_count=5, replies_count=1, replies=[reply])
    return [
        first,
        activity("66e12864-8c26-4c3a-9658-95a10f8fea67", "Worf", "worf", "I am out of prune juice.",
                 at - days(7), at + days(9)),
        activity("248959df-3079-4947-b847-9e0892d1bab5", "Garek", "garek",
                 "My dear doctor, I am just a simple tailor.", at - hours(1), at + hours(12)),
    ]


def activity(uuid, display_name, handle, message, created_at, expires_at):
    return {
        "uuid": uuid,
        "display_name": display_name,
        "handle": handle,
        "message": message,
        "created_at": created_at.isoformat(),
        "expires_at": expires_at.isoformat(),
        "likes_count": 0,
        "replies_count": 0,
        "reposts_count": 0,
        "replies": [],
    }
