//! HTTP for the stand-ins of the services. They read complete requests, and reply by a script that
//! may misbehave.

use std::io::{BufRead, BufReader, Read, Write};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method of the request.
    pub(crate) method: String,
    /// Path as received.
    pub(crate) path: String,
    /// The headers as received, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as received.
    pub(crate) raw_body: Vec<u8>,
}

/// Reaction to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Responds with status, headers and body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Reads the request and never responds.
    Hang,
    /// Reads the request and closes the connection.
    Reset,
    /// Responds with bytes that are not HTTP, and closes the connection.
    Garbage,
}

/// Serves one connection until it ends. The connection also ends if `answer` returns `None`.
pub(crate) fn serve(stream: impl Read + Write, mut answer: impl FnMut(Request) -> Option<Reply>) {
    let mut reader = BufReader::new(stream);
    while let Some(reply) = Request::read(&mut reader).and_then(&mut answer) {
        match reply {
            Reply::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                if reader.get_mut().write_all(&[head.as_bytes(), &body].concat()).is_err() {
                    return;
                }
            }
            Reply::Hang => {
                // Ends when either side closes the connection.
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Reset => return,
            Reply::Garbage => {
                let _ = reader.get_mut().write_all(b"\x16\x03\x01 this is not HTTP\n\n");
                return;
            }
        }
    }
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = header(&headers, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut raw_body = vec![0; length];
        reader.read_exact(&mut raw_body).ok()?;
        Some(Self { method, path, headers, raw_body })
    }

    /// The body, decompressed if it was compressed with gzip; `None` if it has another encoding.
    pub(crate) fn unzipped(&self) -> Option<Vec<u8>> {
        match header(&self.headers, "content-encoding") {
            None => Some(self.raw_body.clone()),
            Some("gzip") => {
                let mut body = Vec::new();
                GzDecoder::new(&self.raw_body[..]).read_to_end(&mut body).ok().map(|_| body)
            }
            Some(_) => None,
        }
    }
}

impl Reply {
    /// A collector's response to an accepted batch: 200 with an empty object.
    pub(crate) fn ok() -> Self {
        Self::json(200, &json!({}))
    }

    /// A response with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    /// A response with any body.
    pub(crate) fn text(status: u16, content_type: &str, body: &str) -> Self {
        Self::Answer(status, vec![("Content-Type".to_owned(), content_type.to_owned())], body.as_bytes().to_vec())
    }

    /// The same response with one more header.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// The first header with this name (lower case).
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}
