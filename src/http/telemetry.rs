//! Handlers of the page and of its JSON, see [`crate::page`]. Their requests are not traced.

use super::response::{Failure, Response};
use super::routes::RequestContext;
use crate::page;
use crate::page::access::{Content, Visitor};

/// `GET /telemetry/status`
pub(super) fn status(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call, Content::Data)?;
    Ok(json(call.page.status(call.pipeline, (call.process)())?))
}

/// `GET /telemetry/traces`; `?since=N` returns only the requests after number N.
pub(super) fn traces(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call, Content::Data)?;
    let since = match call.query_value("since").map(|text| text.parse()) {
        None => 0,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            return Err(Failure::rejected(400, "since must be the number of a request, for instance ?since=7"));
        }
    };
    Ok(json(call.page.traces(since)?))
}

/// `GET /telemetry/traces/{id}`
pub(super) fn trace(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call, Content::Data)?;
    let missing = "no such trace among the last 200; look at GET /telemetry/traces";
    found(call.page.trace(call.pipeline, call.parameter)?, missing)
}

/// `GET /telemetry/deliveries`
pub(super) fn deliveries(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call, Content::Data)?;
    Ok(json(page::deliveries(call.pipeline)?))
}

/// `GET /telemetry/deliveries/{id}`, where an id is `honeycomb-12`.
pub(super) fn delivery(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call, Content::Data)?;
    let missing = "no such delivery among the last 50 of a backend; look at GET /telemetry/deliveries";
    found(page::delivery(call.pipeline, call.parameter)?, missing)
}

/// `GET /`
pub(super) fn page(call: &RequestContext<'_>) -> Result<Response, Failure> {
    asset(call, "page.html")
}

/// `GET /page/{file}`
pub(super) fn file(call: &RequestContext<'_>) -> Result<Response, Failure> {
    asset(call, call.parameter)
}

/// The page loads only its own files, runs no inline script, and is shown in no frame. No cache
/// keeps it: its files belong to the running program.
const ASSET_HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// Data about clients is kept in no cache, and other pages cannot load it as a script.
const JSON_HEADERS: &[(&str, &str)] = &[("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];

fn admit(call: &RequestContext<'_>, content: Content) -> Result<(), Failure> {
    let head = call.head;
    let visitor = Visitor {
        is_local: head.is_local(),
        host: head.host,
        forwarded_host: head.forwarded_host,
        origin: head.origin,
        is_cross_site: head.is_cross_site,
    };
    call.page.access().check(&visitor, content).map_err(|denied| {
        let (status, message) = denied.explain();
        Failure::rejected(status, message)
    })
}

fn asset(call: &RequestContext<'_>, name: &str) -> Result<Response, Failure> {
    admit(call, Content::Files)?;
    let Some(asset) = page::files::find(name) else {
        return Err(Failure::rejected(404, "the page has no such file; open / instead"));
    };
    let body = asset.bytes.to_vec();
    Ok(Response { content_type: asset.content_type, headers: ASSET_HEADERS, body, ..Response::default() })
}

fn found(body: Option<Vec<u8>>, missing: &str) -> Result<Response, Failure> {
    body.map(json).ok_or_else(|| Failure::rejected(404, missing))
}

fn json(mut body: Vec<u8>) -> Response {
    body.push(b'\n');
    Response { headers: JSON_HEADERS, body, ..Response::default() }
}
