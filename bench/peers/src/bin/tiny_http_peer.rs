//! The smallest server on tiny_http: one loop, `respond()`, no log line, no telemetry.
//!
//!     tiny_http_peer PORT
//!
//! It sets `TCP_NODELAY`, because without it tiny_http needs 44 ms for each response of this size.

use std::net::TcpListener;

use peers::HOME;
use tiny_http::{Header, Response, Server};

fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: tiny_http_peer PORT");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    // On Linux, accepted connections inherit the option.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true).expect("TCP has this option");
    let server = Server::from_listener(listener, None).expect("the listener is valid");
    let json = Header::from_bytes("Content-Type", "application/json").expect("a valid header");
    for request in server.incoming_requests() {
        let result = if request.url() == HOME {
            let body = serde_json::to_vec(&peers::home(chrono::Utc::now())).expect("the data have string keys");
            request.respond(Response::from_data(body).with_header(json.clone()))
        } else {
            request.respond(Response::empty(404))
        };
        if let Err(error) = result {
            eprintln!("the client has closed its connection: {error}");
        }
    }
}
