//! The routes that show what [`crate::page`] knows. Nothing they are asked is traced.

use super::response::{Failure, Response};
use super::routes::RequestContext;
use crate::page;

/// `GET /telemetry/status`
pub(super) fn status(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call)?;
    Ok(json(call.page.status(call.pipeline)?))
}

/// `GET /telemetry/traces`, with `?since=N` only the requests after that number.
pub(super) fn traces(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call)?;
    let since = form_urlencoded::parse(call.query.as_bytes()).find(|(key, _)| key == "since");
    let since = match since.map(|(_, text)| text.parse()) {
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
    admit(call)?;
    let missing = "no such trace among the last 200; look at GET /telemetry/traces";
    found(call.page.trace(call.pipeline, &call.parameter)?, missing)
}

/// `GET /telemetry/deliveries`
pub(super) fn deliveries(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call)?;
    Ok(json(page::deliveries(call.pipeline)?))
}

/// `GET /telemetry/deliveries/{id}`, where an id is `honeycomb-12`.
pub(super) fn delivery(call: &RequestContext<'_>) -> Result<Response, Failure> {
    admit(call)?;
    let missing = "no such delivery among the last 50 of a backend; look at GET /telemetry/deliveries";
    found(page::delivery(call.pipeline, &call.parameter)?, missing)
}

/// `GET /`
pub(super) fn page(call: &RequestContext<'_>) -> Result<Response, Failure> {
    asset(call, "page.html")
}

/// `GET /page/{file}`
pub(super) fn file(call: &RequestContext<'_>) -> Result<Response, Failure> {
    asset(call, &call.parameter)
}

/// Nothing from elsewhere, nothing inline, in no other page's frame, and nothing that outlives the program in a cache.
const ASSET_HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// What is shown about clients and their requests is for no cache, and for no other page.
const JSON_HEADERS: &[(&str, &str)] = &[("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];

fn admit(call: &RequestContext<'_>) -> Result<(), Failure> {
    call.page.admit(call.is_local).map_err(|denied| {
        let (status, message) = denied.explain();
        Failure::rejected(status, message)
    })
}

fn asset(call: &RequestContext<'_>, name: &str) -> Result<Response, Failure> {
    admit(call)?;
    let Some(asset) = page::files::find(name) else {
        return Err(Failure::rejected(404, "the page has no such file; open / instead"));
    };
    let body = asset.bytes.to_vec();
    Ok(Response { status: 200, allow: None, content_type: asset.content_type, headers: ASSET_HEADERS, body })
}

fn found(body: Option<Vec<u8>>, missing: &str) -> Result<Response, Failure> {
    body.map(json).ok_or_else(|| Failure::rejected(404, missing))
}

fn json(mut body: Vec<u8>) -> Response {
    body.push(b'\n');
    Response { headers: JSON_HEADERS, body, ..Response::empty_json() }
}
