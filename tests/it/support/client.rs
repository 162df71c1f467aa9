//! A small HTTP/1.1 client that sends exactly the bytes it is given, good or bad.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Maximum time of one read or write.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One keep-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    /// Bytes that were received together with the previous response.
    unread: Vec<u8>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Text after the status code in the status line.
    pub(crate) reason: String,
    /// The headers in the order received, with names as received.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The interim responses (1xx) that came first.
    pub(crate) interim: Vec<u16>,
}

/// Sends one GET on a connection of its own.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Answer {
    Client::connect(addr).get(path)
}

impl Client {
    /// Opens a connection.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT).expect("the server accepts connections");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a socket option");
        Self { stream, addr, unread: Vec::new() }
    }

    /// Sends these bytes and nothing else.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("the server reads");
    }

    /// Sends these bytes to a server that may have closed the connection.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request without reading the response. Adds `Host` if it is not given, and
    /// `Content-Length` if there is a body.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let given = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !given("host") {
            let _ = write!(head, "Host: {}\r\n", self.addr);
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !given("content-length") && (!body.is_empty() || method == "POST") {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        self.send_raw(&[head.as_bytes(), body].concat());
    }

    /// Sends a request and reads its response.
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(method, path, headers, body);
        self.answer_to(method).unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
    }

    /// Sends a GET without further headers.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// Sends a POST with a JSON text, valid or invalid.
    pub(crate) fn post(&mut self, path: &str, json: impl AsRef<[u8]>) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], json.as_ref())
    }

    /// Reads the next response. Not for HEAD requests.
    pub(crate) fn read_answer(&mut self) -> Answer {
        self.try_read_answer().expect("an answer")
    }

    /// Reads the next response, from a server that may have closed the connection.
    pub(crate) fn try_read_answer(&mut self) -> io::Result<Answer> {
        self.answer_to("GET")
    }

    /// Waits for an interim response (1xx) without reading the bytes after it.
    pub(crate) fn read_interim(&mut self) -> io::Result<u16> {
        Ok(self.read_head()?.status)
    }

    fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let mut interim = Vec::new();
        let mut answer = loop {
            let answer = self.read_head()?;
            if !(100..200).contains(&answer.status) {
                break answer;
            }
            interim.push(answer.status);
        };
        answer.interim = interim;
        if method != "HEAD" && answer.status != 204 && answer.status != 304 {
            let length = answer.header("Content-Length").and_then(|length| length.parse().ok());
            let length = length.ok_or_else(|| bad(format!("an answer without a Content-Length: {answer:?}")))?;
            while self.unread.len() < length {
                self.read_more()?;
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Ok(answer)
    }

    /// Reads a response without its body.
    fn read_head(&mut self) -> io::Result<Answer> {
        let end = loop {
            match self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.read_more()?,
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).map_err(|_| bad("a head that is not text"))?;
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| bad(format!("not a status line: {status_line:?}")))?;
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("not a header: {line:?}")))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        });
        let reason = status_line.get("HTTP/1.1 200 ".len()..).unwrap_or_default().to_owned();
        let headers = headers.collect::<io::Result<_>>()?;
        Ok(Answer { status, reason, headers, body: Vec::new(), interim: Vec::new() })
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

impl Answer {
    /// The first header with this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The members of a header that is a list, in lower case and sorted, because their order does
    /// not matter.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let members = values.flat_map(|(_, value)| value.split(','));
        let mut members: Vec<_> = members.map(|member| member.trim().to_ascii_lowercase()).collect();
        members.sort();
        members
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The trace id in the `traceparent` of the response.
    pub(crate) fn trace_id(&self) -> &str {
        let traceparent = self.header("traceparent").unwrap_or_else(|| panic!("no traceparent: {self:?}"));
        traceparent.split('-').nth(1).expect("a trace id")
    }
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}
