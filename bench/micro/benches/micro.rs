//! Microbenchmarks of the parts that run for each request: recording, encoding, signing, reading heads.
//!
//!     cargo bench --manifest-path bench/micro/Cargo.toml --target-dir target/bench
//!
//! Each benchmark counts items, so `item/s` can be compared between them: spans, traces, documents,
//! lines, signatures, heads.
//!
//! Recording is measured in groups, and each group is sent away between two measurements. `enqueued`
//! ends with the push into the queue, as the request loop does. `enqueued_and_dropped` also frees the
//! group on the same thread, which in the program is the work of other threads. fastrace frees its
//! spans on a thread of its own.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cruddur::backends;
use cruddur::delivery::{Encoding, Queue};
use cruddur::http::head::Head;
use cruddur::logging::LogLine;
use cruddur::settings::{BatchLimits, Env, Findings, Settings, Sources};
use cruddur::trace::context::TraceHeaders;
use cruddur::trace::id::IdSource;
use cruddur::trace::span::{Limits, Timestamp};
use cruddur::trace::{FinishedTrace, Incoming, RequestTrace, Scope, Tracer};
use cruddur::wire::sigv4::{Secrets, Signer, SigningInput};
use divan::Bencher;
use divan::counter::ItemsCount;

const SCOPE: Scope = Scope::named("home.activities");
const SERVER_SPAN: &str = "GET /api/activities/home";
const CHILD_SPAN: &str = "home-activities-mock-data";
const HOME: &str = "/api/activities/home";
const NOW: &str = "2026-11-22T11:54:48.424619+00:00";
/// Traces of a group. fastrace's queue holds more.
const TRACES: usize = 128;
/// Child spans of a trace in `child_span`.
const CHILDREN: usize = 8;

fn main() {
    fastrace::set_reporter(Discard, fastrace::collector::Config::default());
    divan::main();
}

/// One child span with three attributes, in a trace of eight.
#[divan::bench_group(sample_count = 200, sample_size = 1)]
mod child_span {
    use super::*;

    #[divan::bench]
    fn enqueued(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, TRACES * CHILDREN, false, trace_of_eight);
    }

    #[divan::bench]
    fn enqueued_and_dropped(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, TRACES * CHILDREN, true, trace_of_eight);
    }

    #[divan::bench]
    fn fastrace(bencher: Bencher<'_, '_>) {
        bench_fastrace(bencher, TRACES * CHILDREN, CHILDREN + 1, || {
            let root = fastrace::Span::root("root", fastrace::prelude::SpanContext::random());
            let _parent = root.set_local_parent();
            for _ in 0..CHILDREN {
                let _child = fastrace_child();
            }
        });
    }

    fn trace_of_eight(recorder: &Recorder) -> FinishedTrace {
        let trace = recorder.begin();
        for _ in 0..CHILDREN {
            add_child(&trace);
        }
        trace.finish().expect("the tracer records")
    }
}

/// The whole trace of a request: a SERVER span with seven attributes, and a child with three.
#[divan::bench_group(sample_count = 200, sample_size = 1)]
mod trace_of_two_spans {
    use super::*;

    #[divan::bench]
    fn enqueued(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, TRACES, false, Recorder::trace);
    }

    #[divan::bench]
    fn enqueued_and_dropped(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, TRACES, true, Recorder::trace);
    }

    #[divan::bench]
    fn fastrace(bencher: Bencher<'_, '_>) {
        bench_fastrace(bencher, TRACES, 2, || {
            let context = fastrace::prelude::SpanContext::random();
            let root = fastrace::Span::root(SERVER_SPAN, context).with_properties(|| {
                [
                    ("http.request.method", "GET"),
                    ("url.path", HOME),
                    ("url.scheme", "http"),
                    ("http.route", HOME),
                    ("server.address", "localhost"),
                    ("client.address", "127.0.0.1"),
                    ("http.response.status_code", "200"),
                ]
            });
            let _parent = root.set_local_parent();
            let _child = fastrace_child();
        });
    }
}

/// A full batch as the bytes of each backend.
#[divan::bench_group(sample_count = 200, sample_size = 1)]
mod encode {
    use super::*;

    /// Items are spans: a batch of 256 traces of two spans.
    #[divan::bench]
    fn otlp_span(bencher: Bencher<'_, '_>) {
        encode_traces(bencher, "honeycomb", 512);
    }

    /// Items are documents: a segment with one subsegment.
    #[divan::bench]
    fn xray_document(bencher: Bencher<'_, '_>) {
        encode_traces(bencher, "xray", 256);
    }

    /// Items are log lines: a batch of 1,000 access lines.
    #[divan::bench]
    fn cloudwatch_line(bencher: Bencher<'_, '_>) {
        let recorder = Recorder::new();
        let lines: Vec<Arc<LogLine>> = (0..1000).map(|_| Arc::new(access_line(&recorder))).collect();
        let Encoding::Lines(encoder) = encoding("cloudwatch") else { panic!("CloudWatch receives lines") };
        bencher.counter(ItemsCount::new(lines.len())).bench_local(|| encoder.encode(black_box(&lines), 0));
    }

    fn encode_traces(bencher: Bencher<'_, '_>, backend: &str, items: usize) {
        let recorder = Recorder::new();
        let traces: Vec<Arc<FinishedTrace>> = (0..256).map(|_| Arc::new(recorder.trace())).collect();
        let Encoding::Traces(encoder) = encoding(backend) else { panic!("{backend} receives traces") };
        bencher.counter(ItemsCount::new(items)).bench_local(|| encoder.encode(black_box(&traces), 0));
    }

    fn encoding(backend: &str) -> Encoding {
        let environment = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let sources = Sources::from_text("", Env::from(environment)).expect("an empty file is valid");
        let settings = settings(&sources);
        let plans = backends::plans(&sources, &settings).expect("the default settings are valid");
        plans.into_iter().find(|plan| plan.name == backend).expect("a backend of this name").encoding
    }

    fn access_line(recorder: &Recorder) -> LogLine {
        let _trace = recorder.begin();
        let line = format_args!("[2026-Nov-22 11:54] 127.0.0.1 GET http {HOME} 200 OK");
        LogLine::from_record(&log::Record::builder().level(log::Level::Info).target("access").args(line).build())
    }
}

/// Signature Version 4 of a PutLogEvents call with a body of 1 KB. The key of the day is known.
#[divan::bench(sample_count = 200, sample_size = 100)]
fn sigv4_1_kb(bencher: Bencher<'_, '_>) {
    let headers = [
        ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
        ("x-amz-target".to_owned(), "Logs_20140328.PutLogEvents".to_owned()),
    ];
    let input = SigningInput {
        method: "POST",
        host: "logs.us-east-1.amazonaws.com",
        path: "/",
        normalize_path: true,
        query: &[],
        headers: &headers,
        body: &[b'x'; 1024],
    };
    let secrets = Secrets {
        access_key_id: "AKIAIOSFODNN7EXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        session_token: None,
    };
    let mut signer = Signer::new("us-east-1", "logs");
    let now = SystemTime::now();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| signer.sign(black_box(&input), &secrets, now));
}

/// Reading and checking a head: the smallest possible, and that of a browser. tiny_http has split it
/// into headers.
#[divan::bench(args = [59, 581], sample_count = 200, sample_size = 1000)]
fn head(bencher: Bencher<'_, '_>, bytes: usize) {
    const BROWSER: [(&str, &str); 13] = [
        ("Connection", "keep-alive"),
        ("sec-ch-ua", "\"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\""),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", "\"Linux\""),
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        ),
        ("Accept", "application/json, text/plain, */*"),
        ("Origin", "http://localhost:3000"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Dest", "empty"),
        ("Referer", "http://localhost:3000/"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-US,en;q=0.9"),
    ];
    let mut request = tiny_http::TestRequest::new().with_path(HOME);
    let headers = [("Host", "127.0.0.1:4567")].into_iter().chain(BROWSER).take(if bytes == 59 { 1 } else { 14 });
    for (name, value) in headers {
        request = request.with_header(tiny_http::Header::from_bytes(name, value).expect("a valid header"));
    }
    let request: tiny_http::Request = request.into();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(Head::read(black_box(&request)).host));
}

/// The program's tracer.
struct Recorder(Tracer);

impl Recorder {
    fn new() -> Self {
        let sources = Sources::from_text("", Env::default()).expect("an empty file is valid");
        let settings = settings(&sources);
        Self(Tracer {
            ids: IdSource::new(),
            recording: true,
            propagators: settings.propagators,
            sampler: settings.sampler,
            backend_samplers: Vec::new(),
            limits: Limits::default(),
        })
    }

    fn begin(&self) -> RequestTrace<'_> {
        let headers = TraceHeaders::default();
        let host = Some("localhost:4567");
        let incoming = Incoming { at: Timestamp::now(), headers: &headers, host, method: "GET", path: HOME };
        self.0.begin(&incoming, SCOPE, SERVER_SPAN.into())
    }

    fn trace(&self) -> FinishedTrace {
        let trace = self.begin();
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", HOME),
            ("url.scheme", "http"),
            ("http.route", HOME),
            ("server.address", "localhost"),
            ("client.address", "127.0.0.1"),
        ] {
            trace.set_attribute(key, value);
        }
        trace.set_attribute("http.response.status_code", 200_u16);
        add_child(&trace);
        trace.finish().expect("the tracer records")
    }

    /// Measures a group of traces, recorded and pushed into the queue of a backend.
    fn bench(&self, bencher: Bencher<'_, '_>, items: usize, drops: bool, record: fn(&Self) -> FinishedTrace) {
        // Without a delay, `take` never waits.
        let limits = BatchLimits { delay: Duration::ZERO, queue: 1 << 20, batch: 1 << 20 };
        let queue = Queue::new(limits);
        let generation = queue.attach_worker(limits);
        let fill = || {
            for _ in 0..TRACES {
                let trace = Arc::new(record(self));
                let (count, size) = (trace.spans.len(), trace.size());
                queue.push(trace, count, size);
            }
        };
        let empty = || drop(queue.take(generation));
        bencher
            .counter(ItemsCount::new(items))
            .with_inputs(|| {
                if queue.count() > 0 {
                    empty()
                }
            })
            .bench_local_values(|()| {
                fill();
                if drops {
                    empty();
                }
            });
    }
}

fn add_child(trace: &RequestTrace<'_>) {
    let mut child = trace.span(SCOPE, CHILD_SPAN);
    child.set_attribute("app.now", NOW);
    child.set_attribute("app.result_length", 3_usize);
    child.set_attribute("http.route", HOME);
}

fn settings(sources: &Sources) -> Settings {
    Settings::read(sources, None, "instance", &mut Findings::default()).expect("the default settings are valid").0
}

/// Receives fastrace's spans and counts them.
struct Discard;

static REPORTED: AtomicUsize = AtomicUsize::new(0);

impl fastrace::collector::Reporter for Discard {
    fn report(&mut self, spans: Vec<fastrace::collector::SpanRecord>) {
        REPORTED.fetch_add(spans.len(), Ordering::Relaxed);
    }
}

fn fastrace_child() -> fastrace::local::LocalSpan {
    fastrace::local::LocalSpan::enter_with_local_parent(CHILD_SPAN)
        .with_properties(|| [("app.now", NOW), ("app.result_length", "3"), ("http.route", HOME)])
}

/// Measures a group of traces, of so many spans each. fastrace's queue is empty before each group.
/// Checks that the whole group before was reported, because dropping spans would be cheaper.
fn bench_fastrace(bencher: Bencher<'_, '_>, items: usize, spans: usize, record: fn()) {
    let flush = || {
        fastrace::flush();
        let reported = REPORTED.swap(0, Ordering::Relaxed);
        assert!(reported == 0 || reported == TRACES * spans, "fastrace reported {reported} spans of a group");
    };
    bencher.counter(ItemsCount::new(items)).with_inputs(flush).bench_local_values(|()| {
        for _ in 0..TRACES {
            record();
        }
    });
    flush();
}
