//! The SERVER span in the words of OpenTelemetry's stable HTTP conventions. The CLIENT span is [`client`](crate::client)'s.
//!
//! Specification: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span>.

use std::borrow::Cow;

use super::head::Head;
use super::routes::{Route, RouteMatch};
use crate::trace::RequestTrace;

/// `{method} {route}`; without a route only the method, never the path: there are as many paths as clients like.
#[must_use]
pub fn span_name(method: &str, known: bool, found: &RouteMatch<'_>) -> Cow<'static, str> {
    let method = if known { method } else { "HTTP" };
    match found {
        RouteMatch::Route(route, _) if method == route.method => Cow::Borrowed(route.name),
        RouteMatch::Route(route, _) | RouteMatch::Options(route) | RouteMatch::WrongMethod(route) => {
            Cow::Owned(format!("{method} {}", route.pattern))
        }
        RouteMatch::Nothing => Cow::Owned(method.to_owned()),
    }
}

/// What is known before the request is answered.
pub fn describe_request(trace: &RequestTrace<'_>, head: &Head<'_>, known: bool, route: Option<&Route>) {
    if known {
        trace.set_attribute("http.request.method", head.method.to_owned());
    } else {
        trace.set_attribute("http.request.method", "_OTHER");
        trace.set_attribute("http.request.method_original", head.method.to_owned());
    }
    trace.set_attribute("url.path", head.path.to_owned());
    if let Some(query) = head.safe_query() {
        trace.set_attribute("url.query", query.into_owned());
    }
    trace.set_attribute("url.scheme", head.scheme());
    if let Some(route) = route {
        trace.set_attribute("http.route", route.pattern);
    }
    if let Some((name, port)) = head.server() {
        trace.set_attribute("server.address", name.to_owned());
        trace.set_attribute("server.port", port);
    }
    if let Some(peer) = head.peer {
        let address = peer.ip().to_canonical().to_string();
        trace.set_attribute(
            "client.address",
            head.forwarded_for.map_or_else(|| address.clone(), |client| client.to_string()),
        );
        trace.set_attribute("network.peer.address", address);
        trace.set_attribute("network.peer.port", peer.port());
    }
    trace.set_attribute("network.protocol.version", head.version);
    if let Some(agent) = head.user_agent {
        trace.set_attribute("user_agent.original", agent.to_owned());
    }
}

/// What is known when the answer is. For a server a 4xx is no error: it did its work, and the client did not.
pub fn describe_answer(trace: &RequestTrace<'_>, status: u16, body_size: usize) {
    trace.set_attribute("http.response.status_code", status);
    trace.set_attribute("http.response.body.size", body_size);
    if status >= 500 {
        trace.set_attribute("error.type", status.to_string());
        trace.set_failed();
    }
}
