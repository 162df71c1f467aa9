//! Name and attributes of the SERVER span, by OpenTelemetry's stable HTTP conventions. The CLIENT
//! span is made in [`client`](crate::client).
//!
//! Specification: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span>.

use std::borrow::Cow;

use super::head::Head;
use super::response::Response;
use super::routes::RouteMatch;
use crate::text::ip::IpText;
use crate::trace::RequestTrace;

/// Returns `{method} {route}`, or only the method where there is no route. An unknown method is
/// called `HTTP`. The path is never part of the name: clients could make up any number of names.
pub fn span_name(known_method: Option<&str>, target: &RouteMatch<'_>) -> Cow<'static, str> {
    match (known_method, target.route()) {
        (Some(method), Some(route)) if method == route.method => Cow::Borrowed(route.name),
        (method, Some(route)) => Cow::Owned(format!("{} {}", method.unwrap_or("HTTP"), route.pattern)),
        (Some(method), None) => Cow::Owned(method.to_owned()),
        (None, None) => Cow::Borrowed("HTTP"),
    }
}

/// Sets the attributes that are known before the request is handled. An unknown method is `_OTHER`:
/// clients must not be able to add values to this attribute.
pub fn describe_request(
    trace: &RequestTrace<'_>,
    head: &Head<'_>,
    known_method: Option<&str>,
    target: &RouteMatch<'_>,
) {
    match known_method {
        Some(method) => trace.set_attribute("http.request.method", method.to_owned()),
        None => {
            trace.set_attribute("http.request.method", "_OTHER");
            trace.set_attribute("http.request.method_original", head.method.to_owned());
        }
    }
    trace.set_attribute("url.path", head.path.to_owned());
    if let Some(query) = head.redacted_query() {
        trace.set_attribute("url.query", query.into_owned());
    }
    trace.set_attribute("url.scheme", head.scheme());
    if let Some(route) = target.route() {
        trace.set_attribute("http.route", route.pattern);
    }
    if let Some((name, port)) = head.server() {
        trace.set_attribute("server.address", name.to_owned());
        trace.set_attribute("server.port", port);
    }
    if let Some(peer) = head.peer {
        let address = peer.ip().to_canonical();
        trace.set_attribute("client.address", IpText::of(head.forwarded_for.unwrap_or(address)).to_owned());
        trace.set_attribute("network.peer.address", IpText::of(address).to_owned());
        trace.set_attribute("network.peer.port", peer.port());
    }
    trace.set_attribute("network.protocol.version", head.version);
    if let Some(agent) = head.user_agent {
        trace.set_attribute("user_agent.original", agent.to_owned());
    }
}

/// Sets the attributes that are known with the response. A 4xx is an error of the client, so it
/// does not mark the SERVER span as failed.
pub fn describe_response(trace: &RequestTrace<'_>, response: &Response) {
    let status = response.status;
    trace.set_attribute("http.response.status_code", status);
    trace.set_attribute("http.response.body.size", response.body.len());
    if status >= 500 {
        trace.set_attribute("error.type", status.to_string());
        trace.set_failed();
    }
}
