//! Microbenchmarks of the parts that run for each request: recording, encoding, signing, reading heads.
//!
//!     cargo bench --manifest-path bench/micro/Cargo.toml --target-dir target/bench
//!
//! Each benchmark counts items, so `item/s` can be compared between them: spans, traces, documents,
//! lines, signatures, heads.
//!
//! Recording is measured in two ways, for the program and for fastrace:
//!
//! - `ours` and `fastrace` are the work of the calling thread alone. It ends when the trace is in the
//!   queue.
//! - `ours_to_the_end` and `fastrace_to_the_end` include what other threads do later. Our traces are
//!   complete when they are queued, so only freeing them is left. fastrace first assembles its spans
//!   on another thread, then passes them to a reporter, which discards them here.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cruddur::backends;
use cruddur::delivery::{Encoding, PushResult, Queue};
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
/// Traces of a measured group. Few, so that most groups are measured without an interruption.
const FEW: usize = 32;
/// Traces of a group with the work of other threads. Many, because fastrace starts a thread for each
/// group. Its queue still has room for more.
const MANY: usize = 1024;
/// Child spans of a trace in `child_span`.
const CHILDREN: usize = 8;

fn main() {
    fastrace::set_reporter(Discard, fastrace::collector::Config::default());
    divan::main();
}

/// One child span with three attributes, in a trace of eight.
#[divan::bench_group(sample_count = 500, sample_size = 1)]
mod child_span {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, FEW, CHILDREN, trace_of_eight);
    }

    #[divan::bench]
    fn ours_to_the_end(bencher: Bencher<'_, '_>) {
        Recorder::new().bench_to_the_end(bencher, MANY, CHILDREN, trace_of_eight);
    }

    #[divan::bench]
    fn fastrace(bencher: Bencher<'_, '_>) {
        bench_fastrace(bencher, FEW, CHILDREN, fastrace_of_eight);
    }

    #[divan::bench]
    fn fastrace_to_the_end(bencher: Bencher<'_, '_>) {
        bench_fastrace_to_the_end(bencher, MANY, CHILDREN, fastrace_of_eight);
    }

    fn fastrace_of_eight() -> usize {
        let root = fastrace::Span::root("root", fastrace::prelude::SpanContext::random());
        let _parent = root.set_local_parent();
        for _ in 0..CHILDREN {
            let _child = fastrace_child();
        }
        CHILDREN + 1
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
#[divan::bench_group(sample_count = 500, sample_size = 1)]
mod trace_of_two_spans {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        Recorder::new().bench(bencher, FEW, 1, Recorder::trace);
    }

    #[divan::bench]
    fn ours_to_the_end(bencher: Bencher<'_, '_>) {
        Recorder::new().bench_to_the_end(bencher, MANY, 1, Recorder::trace);
    }

    #[divan::bench]
    fn fastrace(bencher: Bencher<'_, '_>) {
        bench_fastrace(bencher, FEW, 1, fastrace_of_two);
    }

    #[divan::bench]
    fn fastrace_to_the_end(bencher: Bencher<'_, '_>) {
        bench_fastrace_to_the_end(bencher, MANY, 1, fastrace_of_two);
    }

    fn fastrace_of_two() -> usize {
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
        2
    }
}

/// A full batch as the bytes of each backend.
#[divan::bench_group(sample_count = 500, sample_size = 1)]
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
#[divan::bench(sample_count = 500, sample_size = 10)]
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
#[divan::bench(args = [59, 581], sample_count = 500, sample_size = 100)]
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

    /// Measures the recording of `traces` traces, each with so many items, and the push into a queue.
    fn bench(&self, bencher: Bencher<'_, '_>, traces: usize, items: usize, record: fn(&Self) -> FinishedTrace) {
        let queue = TraceQueue::new();
        bencher
            .counter(ItemsCount::new(traces * items))
            .with_inputs(|| queue.empty())
            .bench_local_values(|()| queue.fill(traces, || record(self)));
    }

    /// The same, and the traces are freed.
    fn bench_to_the_end(
        &self,
        bencher: Bencher<'_, '_>,
        traces: usize,
        items: usize,
        record: fn(&Self) -> FinishedTrace,
    ) {
        let queue = TraceQueue::new();
        bencher.counter(ItemsCount::new(traces * items)).bench_local(|| {
            queue.fill(traces, || record(self));
            queue.empty();
        });
    }
}

/// The queue of a backend.
struct TraceQueue(Queue<Arc<FinishedTrace>>);

impl TraceQueue {
    // Without a delay, `take` does not wait for more traces.
    const LIMITS: BatchLimits = BatchLimits { delay: Duration::ZERO, queue: 1 << 20, batch: 1 << 20 };

    fn new() -> Self {
        let queue = Queue::new(Self::LIMITS);
        queue.attach_worker(Self::LIMITS);
        Self(queue)
    }

    fn fill(&self, traces: usize, record: impl Fn() -> FinishedTrace) {
        for _ in 0..traces {
            let trace = Arc::new(record());
            let (count, size) = (trace.spans.len(), trace.size());
            assert_eq!(self.0.push(trace, count, size), PushResult::Queued);
        }
    }

    fn empty(&self) {
        if self.0.count() > 0 {
            let worker = self.0.attach_worker(Self::LIMITS);
            drop(self.0.take(worker));
        }
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

/// Measures the recording of `traces` traces, each with so many items. `record` returns the number of
/// spans.
fn bench_fastrace(bencher: Bencher<'_, '_>, traces: usize, items: usize, record: fn() -> usize) {
    let spans = Cell::new(0);
    let flush = || {
        fastrace::flush();
        assert_all_reported(&spans);
    };
    bencher
        .counter(ItemsCount::new(traces * items))
        .with_inputs(flush)
        .bench_local_values(|()| spans.set((0..traces).map(|_| record()).sum()));
    flush();
}

/// The same, and fastrace's other thread reports the spans.
fn bench_fastrace_to_the_end(bencher: Bencher<'_, '_>, traces: usize, items: usize, record: fn() -> usize) {
    let spans = Cell::new(0);
    bencher.counter(ItemsCount::new(traces * items)).bench_local(|| {
        spans.set((0..traces).map(|_| record()).sum());
        fastrace::flush();
        assert_all_reported(&spans);
    });
}

/// fastrace drops spans if its queue is full, and that would be cheaper.
fn assert_all_reported(spans: &Cell<usize>) {
    assert_eq!(REPORTED.swap(0, Ordering::Relaxed), spans.take(), "fastrace has dropped spans");
}
