//! `cruddur health`: health check of the local server, for a container image without curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Exit;
use crate::settings::{Env, listen_address};
use crate::text::{Message, Url, reason_phrase};
use crate::wire::http::{Call, CallError, HttpClient};

/// Time limit. Docker's own limit for a health check is 30 s, but a server that needs 2 s is not
/// healthy.
const TIMEOUT: Duration = Duration::from_secs(2);

const OTHER_PROGRAM: &str = "check which program listens there";

/// Sends `GET /health` to the server at `listen`, else at `CRUDDUR_LISTEN`, else at the default
/// address. Returns the URL.
///
/// # Errors
///
/// The call fails, or another program responds (status 1). The address is invalid (status 2).
pub fn health(listen: Option<&str>) -> Result<String, Exit> {
    let listen = listen_address(listen, &Env::from_process()).value;
    let Some(url) = target_address(&listen).and_then(|address| Url::parse(&format!("http://{address}/health"))) else {
        let what = Message::new(format!("invalid address for a health check: {listen}"));
        return Err(Exit::wrong(what.next("write host:port, for instance --listen 127.0.0.1:4567")));
    };
    let reply = HttpClient::without_proxy()
        .get(&Call { url: &url, headers: &[], body: &[], timeout: Some(TIMEOUT) })
        .map_err(|error| Exit::failed(call_failed(&url, &error)))?;
    if reply.status == 200 && reply.body.trim_ascii() == br#"{"status":"ok"}"# {
        return Ok(url.redacted());
    }
    let what =
        Message::new(format!("HTTP {} {} from {url}, but not from cruddur", reply.status, reason_phrase(reply.status)));
    Err(Exit::failed(what.next(OTHER_PROGRAM)))
}

/// Returns the address at which a server that listens at `listen` can be called, or `None` if the
/// port is missing or 0. Replaces an unspecified address (0.0.0.0 or ::) with loopback.
fn target_address(listen: &str) -> Option<String> {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => None,
        Ok(address) if address.ip().is_unspecified() => {
            let loopback: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            Some(SocketAddr::new(loopback, address.port()).to_string())
        }
        Ok(address) => Some(address.to_string()),
        Err(_) => {
            let (host, port) = listen.rsplit_once(':')?;
            let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
            (is_name && port.parse::<u16>().is_ok_and(|port| port != 0)).then(|| listen.to_owned())
        }
    }
}

fn call_failed(url: &Url, error: &CallError) -> Message {
    let next = match error {
        CallError::ConnectionRefused => "start cruddur, or give its address with --listen",
        CallError::Timeout(_) | CallError::Closed => "check the log of cruddur",
        CallError::UnknownHost => "correct --listen or CRUDDUR_LISTEN",
        CallError::Tls(_) | CallError::NotHttp(_) | CallError::Other(_) => OTHER_PROGRAM,
    };
    Message::new(error.at(url)).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_asked_through_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:4567", "127.0.0.1:4567"),
            ("[::]:4567", "[::1]:4567"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("localhost:4567", "localhost:4567"),
        ] {
            assert_eq!(target_address(listen).as_deref(), Some(asked), "{listen}");
        }
    }

    #[test]
    fn what_names_no_port_cannot_be_asked() {
        for listen in
            ["", "4567", ":4567", "localhost", "127.0.0.1:0", "localhost:0", "localhost:65536", "a b:1", "me@x:1"]
        {
            assert_eq!(target_address(listen), None, "{listen}");
        }
    }
}
