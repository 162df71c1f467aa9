//! Every route, one line each, tried from top to bottom.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::body::fields;
use super::response::{Failure, Response};
use super::telemetry;
use crate::activities::{
    App, ME, create_activity, create_message, create_reply, home_activities, message_groups, messages,
    notifications_activities, search_activities, show_activity, user_activities,
};
use crate::delivery::Pipeline;
use crate::page::Page;
use crate::trace::{RequestTrace, Scope};

/// All routes. `/api/activities/{uuid}` takes what the fixed names above it leave.
pub const ROUTES: &[Route] = &[
    get!("/api/activities/home", |call| Response::json(&home_activities::run(call.trace, call.app))),
    get!("/api/activities/notifications", notifications),
    get!("/api/activities/search", search),
    get!("/api/activities/@{handle}", |call| Response::json(&user_activities::run(
        call.trace,
        call.app,
        &call.parameter
    ))),
    get!("/api/activities/{uuid}", show),
    post!("/api/activities", create),
    post!("/api/activities/{uuid}/reply", reply),
    get!("/api/message_groups", |call| Response::json(&message_groups::run(call.trace, call.app))),
    get!("/api/messages/@{handle}", |call| Response::json(&messages::run(call.trace, call.app, &call.parameter))),
    post!("/api/messages", message),
    get!("/api/fail", fail),
    untraced!("/health", |_| Response::json(&serde_json::json!({ "status": "ok" }))),
    untraced!("/telemetry/status", telemetry::status),
    untraced!("/telemetry/traces", telemetry::traces),
    untraced!("/telemetry/traces/{id}", telemetry::trace),
    untraced!("/telemetry/deliveries", telemetry::deliveries),
    untraced!("/telemetry/deliveries/{id}", telemetry::delivery),
    untraced!("/", telemetry::page),
    untraced!("/page/{file}", telemetry::file),
];

/// A route.
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path, with at most one `{name}`.
    pub pattern: &'static str,
    /// The name of its span: method and pattern.
    pub name: &'static str,
    /// Whether its requests are traced. Health checks and the page's own requests would only be noise.
    pub traced: bool,
    handler: Handler,
}

/// What a handler gets.
pub struct RequestContext<'a> {
    /// The spans of this request.
    pub trace: &'a RequestTrace<'a>,
    /// The application.
    pub app: &'a App,
    /// What the program knows about itself.
    pub page: &'a Page,
    /// The backends.
    pub pipeline: &'a Pipeline,
    /// What stood in the place of `{name}`, decoded.
    pub parameter: Cow<'a, str>,
    /// What follows the question mark, as it came.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// `Content-Type` of the body.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding` of the body.
    pub content_encoding: Option<&'a str>,
    /// The `Via` headers: who passed the request on to us.
    pub via: &'a [&'a str],
    /// Whether it comes from this machine, and asks for this machine.
    pub is_local: bool,
}

type Handler = fn(&RequestContext<'_>) -> Result<Response, Failure>;

/// What a path leads to.
pub enum RouteMatch<'p> {
    /// A route, and what stood in the place of its `{name}`.
    Route(&'static Route, Cow<'p, str>),
    /// A preflight or a question for the methods of this route.
    Options(&'static Route),
    /// The path exists, the method does not.
    WrongMethod(&'static Route),
    /// Nothing.
    Nothing,
}

/// Finds the route of a path.
#[must_use]
pub fn find<'p>(method: &str, path: &'p str) -> RouteMatch<'p> {
    for route in ROUTES {
        let Some(parameter) = matches(route.pattern, path) else { continue };
        return match method {
            "OPTIONS" => RouteMatch::Options(route),
            "HEAD" if route.method == "GET" => RouteMatch::Route(route, decode(parameter)),
            _ if method == route.method => RouteMatch::Route(route, decode(parameter)),
            _ => RouteMatch::WrongMethod(route),
        };
    }
    RouteMatch::Nothing
}

impl Route {
    /// The methods of its path, for `Allow`.
    #[must_use]
    pub fn allow(&self) -> &'static str {
        if self.method == "GET" { "GET, HEAD, OPTIONS" } else { "OPTIONS, POST" }
    }

    /// Answers a call.
    ///
    /// # Errors
    ///
    /// Whatever keeps the handler from it.
    pub fn answer(&self, call: &RequestContext<'_>) -> Result<Response, Failure> {
        (self.handler)(call)
    }
}

fn notifications(call: &RequestContext<'_>) -> Result<Response, Failure> {
    match notifications_activities::run(call.trace, call.app, call.via) {
        Ok(activities) => Response::json(&activities),
        Err(failed) => Err(Failure::Elsewhere(failed)),
    }
}

fn search(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let term = form_urlencoded::parse(call.query.as_bytes()).find(|(key, _)| key == "term");
    let term = term.map_or(Cow::Borrowed(""), |(_, term)| term);
    Response::json(&search_activities::run(call.trace, call.app, &term)?)
}

fn show(call: &RequestContext<'_>) -> Result<Response, Failure> {
    match show_activity::run(call.trace, call.app, &call.parameter) {
        Some(activity) => Response::json(&[activity]),
        None => Err(Failure::rejected(404, "there is no activity with this uuid; it may have expired")),
    }
}

fn create(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [message, ttl] = fields(call, ["message", "ttl"])?;
    Response::json(&create_activity::run(call.trace, call.app, &message, ME, &ttl)?)
}

fn reply(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [message] = fields(call, ["message"])?;
    Response::json(&create_reply::run(call.trace, call.app, &message, ME, &call.parameter)?)
}

fn message(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [receiver, message] = fields(call, ["user_receiver_handle", "message"])?;
    Response::json(&create_message::run(call.trace, call.app, &message, ME, &receiver)?)
}

/// A failure to look at: what a panic or, with `?how=error`, an error looks like in a trace.
fn fail(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let _span = call.trace.span(Scope::named("fail"), "fail-on-purpose");
    if call.query == "how=error" {
        let _: u8 = "not a number".parse()?;
    }
    panic!("this route fails on purpose");
}

/// The text in the place of `{name}`, or nothing if there is none; `None` if the path is another one. A parameter is
/// never empty and holds no slash.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (_, after) = rest.split_once('}')?;
    let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
    (!parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
}

fn decode(parameter: &str) -> Cow<'_, str> {
    percent_decode_str(parameter).decode_utf8_lossy()
}

macro_rules! get {
    ($pattern:literal, $handler:expr) => {
        Route { method: "GET", pattern: $pattern, name: concat!("GET ", $pattern), traced: true, handler: $handler }
    };
}
macro_rules! post {
    ($pattern:literal, $handler:expr) => {
        Route { method: "POST", pattern: $pattern, name: concat!("POST ", $pattern), traced: true, handler: $handler }
    };
}
macro_rules! untraced {
    ($pattern:literal, $handler:expr) => {
        Route { method: "GET", pattern: $pattern, name: concat!("GET ", $pattern), traced: false, handler: $handler }
    };
}
use {get, post, untraced};

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, path: &str) -> String {
        match find(method, path) {
            RouteMatch::Route(route, parameter) => format!("{} [{parameter}]", route.name),
            RouteMatch::Options(route) => format!("options {}", route.allow()),
            RouteMatch::WrongMethod(route) => format!("wrong, {}", route.allow()),
            RouteMatch::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn fixed_names_come_before_the_uuid_and_the_at_sign_is_part_of_the_path() {
        for (method, path, expected) in [
            ("GET", "/api/activities/home", "GET /api/activities/home []"),
            ("HEAD", "/api/activities/home", "GET /api/activities/home []"),
            ("GET", "/api/activities/home2", "GET /api/activities/{uuid} [home2]"),
            ("GET", "/api/activities/@an%20drew", "GET /api/activities/@{handle} [an drew]"),
            ("GET", "/api/activities/%ff", "GET /api/activities/{uuid} [\u{fffd}]"),
            ("GET", "/api/activities/home/", "nothing"),
            ("GET", "/api/activities/a/b", "nothing"),
            ("POST", "/api/activities//reply", "nothing"),
            ("POST", "/api/activities/x/reply", "POST /api/activities/{uuid}/reply [x]"),
            ("GET", "/api/activities", "wrong, OPTIONS, POST"),
            ("POST", "/api/activities/home", "wrong, GET, HEAD, OPTIONS"),
            ("OPTIONS", "/api/messages", "options OPTIONS, POST"),
            ("BREW", "/health", "wrong, GET, HEAD, OPTIONS"),
            ("GET", "/", "GET / []"),
            ("GET", "/page/page.css", "GET /page/{file} [page.css]"),
            ("GET", "/page/", "nothing"),
        ] {
            assert_eq!(name(method, path), expected, "{method} {path}");
        }
    }
}
