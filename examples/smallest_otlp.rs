//! The smallest exporter of OTLP JSON that a Collector accepts: one POST with a trace of two spans.
//! It sends to 127.0.0.1:4318; `cargo run --example smallest_otlp -- HOST:PORT` sends elsewhere. It
//! escapes nothing: no text in it may contain a quotation mark, a backslash or a control character.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let receiver = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4318".to_owned());
    let problem = match send(&receiver, &body()) {
        Ok(status_line) if status_line.starts_with("HTTP/1.1 200") => return ExitCode::SUCCESS,
        Ok(status_line) if status_line.is_empty() => format!("{receiver} closed the connection without an answer"),
        Ok(status_line) => format!("{receiver} did not accept the trace: {status_line:?}"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => format!("connection refused by {receiver}"),
        Err(error) => format!("no answer from {receiver}: {error}"),
    };
    eprintln!("{problem}; next: start a Collector, or name the HOST:PORT of one");
    ExitCode::FAILURE
}

/// Returns the body, an ExportTraceServiceRequest. The resource is the sender, and the scope is the
/// part of it that made the spans. Ids are hex, 64-bit numbers are text. Kind 2 is SERVER, 1 is
/// INTERNAL. `parentSpanId` makes the second span a child. An empty status means no error.
fn body() -> String {
    let (trace_id, server, child) = (format!("{:016x}{:016x}", random(), random()), random(), random());
    let [start, child_start, child_end, end] = [0, 2, 5, 1].map(|millis| {
        std::thread::sleep(Duration::from_millis(millis)); // the work
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
    });
    format!(
        r#"{{"resourceSpans":[{{
  "resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"smallest"}}}}]}},
  "scopeSpans":[{{"scope":{{"name":"smallest_otlp"}},"spans":[
    {{"traceId":"{trace_id}","spanId":"{server:016x}","name":"GET /hello","kind":2,
      "startTimeUnixNano":"{start}","endTimeUnixNano":"{end}",
      "attributes":[{{"key":"http.response.status_code","value":{{"intValue":"200"}}}}],"status":{{}}}},
    {{"traceId":"{trace_id}","spanId":"{child:016x}","parentSpanId":"{server:016x}","name":"work","kind":1,
      "startTimeUnixNano":"{child_start}","endTimeUnixNano":"{child_end}","status":{{}}}}]}}]}}]}}"#
    )
}

/// Hashes nothing with a random key from the operating system. An id must not be zero.
fn random() -> u64 {
    RandomState::new().hash_one(()).max(1)
}

/// Sends one request, and prints it and the status line of the response. Returns the status line.
fn send(receiver: &str, body: &str) -> Result<String> {
    let mut stream = std::net::TcpStream::connect(receiver)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?; // the receiver may never answer
    let head = format!("POST /v1/traces HTTP/1.1\r\nHost: {receiver}\r\nContent-Type: application/json\r\n");
    let request = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes())?;
    let mut status_line = String::new();
    BufReader::new(stream).take(1000).read_line(&mut status_line)?;
    println!("{request}\n\n{}", status_line.trim_end());
    Ok(status_line.trim_end().to_owned())
}
