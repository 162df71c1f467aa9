//! A loopback X-Ray daemon. It receives datagrams by UDP, and answers questions about sampling by
//! TCP on the same port.
//!
//! It keeps every byte that it receives, and responds by a script. Dropping it closes both sockets,
//! and the port is free for another daemon.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::connections::Connections;
use super::http::{Reply, Request, header, serve};
use super::watched::Watched;

/// Time at which the rules of [`XRayDaemon::set_rules`] were changed, in seconds since 1970.
pub(crate) const RULES_MODIFIED: f64 = 1_530_558_121.0;

/// A received datagram.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// Header and document.
    pub(crate) text: String,
    /// Time at which it was received.
    pub(crate) arrived: Instant,
}

/// A question received by TCP.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// `GetSamplingRules` or `SamplingTargets`.
    pub(crate) operation: String,
    /// `Content-Type` of the question.
    pub(crate) content_type: String,
    /// Body of the question.
    pub(crate) body: Value,
}

/// The daemon. Dropping it closes both sockets and ends every thread.
pub(crate) struct XRayDaemon {
    addr: SocketAddr,
    shared: Arc<Watched<State>>,
    receiver: Option<JoinHandle<()>>,
    /// `None` while the daemon does not listen on TCP. Held only to be dropped.
    _connections: Option<Connections>,
}

struct State {
    datagrams: Vec<(Vec<u8>, Instant)>,
    questions: Vec<Question>,
    /// The pages of the rules. `NextToken` of a page is the index of the next page.
    rules: Vec<Reply>,
    targets: Reply,
    stopped: bool,
}

impl Datagram {
    /// The text before the newline.
    pub(crate) fn header(&self) -> &str {
        self.parts().0
    }

    /// The document, as text.
    pub(crate) fn document_text(&self) -> &str {
        self.parts().1
    }

    /// The document.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(self.document_text()).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text))
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_once('\n').unwrap_or_else(|| panic!("no header: {}", self.text))
    }
}

impl Question {
    fn read(request: &Request) -> Option<Self> {
        let operation = request.path.strip_prefix('/').filter(|_| request.method == "POST")?.to_owned();
        let content_type = header(&request.headers, "content-type").unwrap_or_default().to_owned();
        Some(Self { operation, content_type, body: serde_json::from_slice(&request.raw_body).ok()? })
    }
}

impl XRayDaemon {
    /// Starts on a free loopback port, without rules. It responds with 500 to every question about
    /// sampling, as a daemon without credentials does.
    pub(crate) fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another loopback address.
    pub(crate) fn start_at(ip: IpAddr) -> Self {
        Self::scan(|port| Self::bind(SocketAddr::new(ip, port), true))
    }

    /// The same without listening on the TCP port.
    pub(crate) fn without_tcp() -> Self {
        Self::scan(|port| Self::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), false))
    }

    /// Starts on the address of an earlier daemon.
    pub(crate) fn start_on(addr: SocketAddr) -> Self {
        Self::bind(addr, true).unwrap_or_else(|| panic!("{addr} is taken"))
    }

    /// A loopback address on which no program listens. Its port is one that no program gets by
    /// chance.
    pub(crate) fn free_addr() -> SocketAddr {
        Self::start().addr
    }

    /// Tries ports below those that the system assigns by itself, so that no other program takes
    /// one while its daemon is stopped. No port is used twice in this process.
    fn scan(bind: impl Fn(u16) -> Option<Self>) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = (std::process::id() % 97) as u16 * 120;
        let ports = (0..12_000).map(|_| 20_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
        let mut daemons = ports.filter_map(bind);
        daemons.next().expect("a port that is free for both UDP and TCP")
    }

    fn bind(addr: SocketAddr, answers: bool) -> Option<Self> {
        let listener = TcpListener::bind(addr).ok()?;
        let socket = UdpSocket::bind(addr).ok()?;
        let no_credentials = Reply::text(500, "text/plain", "NoCredentialProviders: no valid providers in chain");
        let state = State {
            datagrams: Vec::new(),
            questions: Vec::new(),
            rules: vec![no_credentials.clone()],
            targets: no_credentials,
            stopped: false,
        };
        let shared = Arc::new(Watched::new(state));
        let sink = Arc::clone(&shared);
        let receiver = Some(thread::spawn(move || receive(&socket, &sink)));
        let for_connections = Arc::clone(&shared);
        let connections = answers.then(|| {
            Connections::serve(listener, move |stream| {
                serve(stream, |request| for_connections.change(|state| state.reply_to(&request)));
            })
        });
        Some(Self { addr, shared, receiver, _connections: connections })
    }

    /// Address for UDP and TCP.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns these rules from now on, in one page.
    pub(crate) fn set_rules(&self, rules: &[Value]) {
        self.answer_rules_with([rules_reply(rules, None)]);
    }

    /// Returns these pages of rules from now on.
    pub(crate) fn set_rule_pages(&self, pages: &[&[Value]]) {
        let replies = pages.iter().enumerate().map(|(page, rules)| {
            let next = (page + 1 < pages.len()).then(|| (page + 1).to_string());
            rules_reply(rules, next)
        });
        self.answer_rules_with(replies);
    }

    /// Responds to the question for rules with any replies from now on.
    pub(crate) fn answer_rules_with(&self, pages: impl IntoIterator<Item = Reply>) {
        self.shared.lock().rules = pages.into_iter().collect();
    }

    /// Responds to reports with these targets from now on, and with the time of the last change of
    /// the rules.
    pub(crate) fn set_targets(&self, targets: &[Value], last_rule_modification: f64) {
        self.answer_targets_with(Reply::json(
            200,
            &json!({
                "SamplingTargetDocuments": targets,
                "LastRuleModification": last_rule_modification,
                "UnprocessedStatistics": [],
            }),
        ));
    }

    /// Responds to reports with any reply from now on.
    pub(crate) fn answer_targets_with(&self, reply: Reply) {
        self.shared.lock().targets = reply;
    }

    /// The datagrams so far.
    pub(crate) fn datagrams(&self) -> Vec<Datagram> {
        self.shared.lock().datagrams()
    }

    /// The documents so far.
    pub(crate) fn documents(&self) -> Vec<Value> {
        self.datagrams().iter().map(Datagram::document).collect()
    }

    /// Waits until `count` datagrams have been received, and returns all of them.
    #[track_caller]
    pub(crate) fn wait_for_datagrams(&self, count: usize, timeout: Duration) -> Vec<Datagram> {
        let here = |state: &State| state.datagrams.len() >= count;
        if let Some(state) = self.shared.wait(timeout, here) {
            return state.datagrams();
        }
        let datagrams = self.datagrams();
        panic!("{} datagrams, not {count}, within {timeout:?}: {datagrams:#?}", datagrams.len());
    }

    /// Waits for the document of this trace (32 hex digits), and returns it.
    #[track_caller]
    pub(crate) fn wait_for_trace(&self, trace_id: &str, timeout: Duration) -> Value {
        let root = format!("\"trace_id\":\"1-{}-{}\"", &trace_id[..8], &trace_id[8..]);
        let is_it = |bytes: &[u8]| bytes.windows(root.len()).any(|part| part == root.as_bytes());
        let here = |state: &State| state.datagrams.iter().any(|(bytes, _)| is_it(bytes));
        if let Some(state) = self.shared.wait(timeout, here) {
            let found = state.datagrams().into_iter().find(|datagram| datagram.text.contains(&root));
            return found.expect("it is here").document();
        }
        panic!("no document with {root} within {timeout:?}: {:#?}", self.datagrams());
    }

    /// The questions with this operation so far.
    pub(crate) fn questions(&self, operation: &str) -> Vec<Question> {
        self.shared.lock().questions(operation)
    }

    /// Waits until `count` questions with this operation have been received, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_questions(&self, operation: &str, count: usize, timeout: Duration) -> Vec<Question> {
        let here = |state: &State| state.questions(operation).len() >= count;
        if let Some(state) = self.shared.wait(timeout, here) {
            return state.questions(operation);
        }
        panic!("{} times {operation}, not {count}, within {timeout:?}", self.questions(operation).len());
    }

    /// Number of datagrams that the kernel dropped because this program read too slowly.
    pub(crate) fn lost_in_the_kernel(&self) -> u64 {
        let table = fs::read_to_string("/proc/net/udp").expect("a table of UDP sockets");
        let port = format!(":{:04X}", self.addr.port());
        let row = table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)));
        let drops = row.and_then(|row| row.split_whitespace().next_back()?.parse().ok());
        drops.unwrap_or_else(|| panic!("no row for {} in:\n{table}", self.addr))
    }
}

impl Drop for XRayDaemon {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        // Wakes the receiver, which then sees `stopped`.
        let any = SocketAddr::new(self.addr.ip(), 0);
        let _ = UdpSocket::bind(any).and_then(|socket| socket.send_to(b"", self.addr));
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

impl State {
    fn datagrams(&self) -> Vec<Datagram> {
        let datagrams = self.datagrams.iter().map(|(bytes, arrived)| {
            let text = String::from_utf8(bytes.clone()).expect("a datagram is text");
            Datagram { text, arrived: *arrived }
        });
        datagrams.collect()
    }

    fn questions(&self, operation: &str) -> Vec<Question> {
        self.questions.iter().filter(|question| question.operation == operation).cloned().collect()
    }

    /// Records a question and chooses its reply; `None` if the request is not a question.
    fn reply_to(&mut self, request: &Request) -> Option<Reply> {
        let question = Question::read(request)?;
        let reply = self.reply(&question);
        self.questions.push(question);
        Some(reply)
    }

    fn reply(&self, question: &Question) -> Reply {
        match question.operation.as_str() {
            "GetSamplingRules" => {
                let page = question.body["NextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0);
                self.rules.get::<usize>(page).cloned().unwrap_or_else(|| Reply::text(400, "text/plain", "no such page"))
            }
            "SamplingTargets" => self.targets.clone(),
            _ => Reply::text(404, "text/plain", ""),
        }
    }
}

fn rules_reply(rules: &[Value], next: Option<String>) -> Reply {
    let record = |rule| json!({ "SamplingRule": rule, "CreatedAt": 0.0, "ModifiedAt": RULES_MODIFIED });
    let records: Vec<_> = rules.iter().map(record).collect();
    Reply::json(200, &json!({ "SamplingRuleRecords": records, "NextToken": next }))
}

fn receive(socket: &UdpSocket, shared: &Watched<State>) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let stopped = shared.change(|state| {
            if length > 0 {
                state.datagrams.push((buffer[..length].to_vec(), Instant::now()));
            }
            state.stopped
        });
        if stopped {
            return;
        }
    }
}
