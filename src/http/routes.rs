//! The table of routes, and the handlers that call the application.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::head::Head;
use super::json_fields::text_fields;
use super::response::{Failure, Response};
use super::telemetry;
use crate::activities::{
    App, ME, create_activity, create_message, create_reply, home_activities, message_groups, messages,
    notifications_activities, search_activities, show_activity, user_activities,
};
use crate::delivery::Pipeline;
use crate::page::{Page, ProcessView};
use crate::text::json::WriteJson;
use crate::trace::{RequestTrace, Scope};

macro_rules! route {
    (GET $pattern:literal, $handler:expr) => {
        route!("GET", $pattern, $handler)
    };
    (POST $pattern:literal, $handler:expr) => {
        route!("POST", $pattern, $handler)
    };
    ($method:literal, $pattern:literal, $handler:expr) => {
        Route {
            method: $method,
            pattern: $pattern,
            name: concat!($method, " ", $pattern),
            traced: true,
            handler: $handler,
        }
    };
}

/// All routes; the first pattern that matches counts. `/api/activities/{uuid}` therefore comes
/// after the fixed names.
pub const ROUTES: &[Route] = &[
    route!(GET "/api/activities/home", |call| json(&home_activities::run(call.trace, call.app))),
    route!(GET "/api/activities/notifications", notifications),
    route!(GET "/api/activities/search", search),
    route!(GET "/api/activities/@{handle}", |call| {
        json(&user_activities::run(call.trace, call.app, call.parameter))
    }),
    route!(GET "/api/activities/{uuid}", show),
    route!(POST "/api/activities", create),
    route!(POST "/api/activities/{uuid}/reply", reply),
    route!(GET "/api/message_groups", |call| json(&message_groups::run(call.trace, call.app))),
    route!(GET "/api/messages/@{handle}", |call| json(&messages::run(call.trace, call.app, call.parameter))),
    route!(POST "/api/messages", message),
    route!(GET "/api/fail", fail),
    route!(GET "/health", |_| Ok(Response { body: HEALTHY.to_vec(), ..Response::default() })).untraced(),
    route!(GET "/telemetry/status", telemetry::status).untraced(),
    route!(GET "/telemetry/traces", telemetry::traces).untraced(),
    route!(GET "/telemetry/traces/{id}", telemetry::trace).untraced(),
    route!(GET "/telemetry/deliveries", telemetry::deliveries).untraced(),
    route!(GET "/telemetry/deliveries/{id}", telemetry::delivery).untraced(),
    route!(GET "/", telemetry::page).untraced(),
    route!(GET "/page/{file}", telemetry::file).untraced(),
];

/// A route: method, path and handler.
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path, with at most one `{name}`.
    pub pattern: &'static str,
    /// Method and path: the name of the SERVER span.
    pub name: &'static str,
    /// False for health checks and for the page's own requests, whose traces would only be noise.
    pub traced: bool,
    /// Function that answers the requests.
    pub handler: Handler,
}

/// The argument of a handler.
pub struct RequestContext<'a> {
    /// Trace of the request, in which handlers open spans.
    pub trace: &'a RequestTrace<'a>,
    /// Application.
    pub app: &'a App,
    /// Source of the JSON under `/telemetry`.
    pub page: &'a Page,
    /// Backends.
    pub pipeline: &'a Pipeline,
    /// Reads the state of the process.
    pub process: &'a dyn Fn() -> ProcessView,
    /// Head of the request.
    pub head: &'a Head<'a>,
    /// Decoded value of the pattern's `{name}`; empty if the pattern has none. It may contain a
    /// slash, which is `%2F` in the path.
    pub parameter: &'a str,
    /// Body of the request.
    pub body: &'a [u8],
}

/// Function that answers the requests of a route.
pub type Handler = fn(&RequestContext<'_>) -> Result<Response, Failure>;

/// Result of looking up a method and a path.
pub enum RouteMatch<'p> {
    /// A route, and the decoded value of its `{name}`.
    Found(&'static Route, Cow<'p, str>),
    /// OPTIONS for the path of this route: a preflight, or a client that asks for the methods.
    Options(&'static Route),
    /// The path of this route, with another method.
    MethodNotAllowed(&'static Route),
    /// A path without a route.
    NotFound,
}

/// Looks up the route of a method and a path. The path is decoded once, segment by segment, so
/// `%40` is an `@` and `%2F` begins no new segment. A path without `%` is not copied.
pub fn find<'p>(method: &str, path: &'p str) -> RouteMatch<'p> {
    let decoded = path.contains('%').then(|| decode(path));
    for route in ROUTES {
        let parameter = match &decoded {
            None => match_pattern(route.pattern, path).map(Cow::Borrowed),
            Some(path) => match_pattern(route.pattern, path).map(|text| text.replace(SLASH, "/").into()),
        };
        let Some(parameter) = parameter else { continue };
        let is_head = method == "HEAD" && route.method == "GET";
        return match method {
            "OPTIONS" => RouteMatch::Options(route),
            _ if is_head || method == route.method => RouteMatch::Found(route, parameter),
            _ => RouteMatch::MethodNotAllowed(route),
        };
    }
    RouteMatch::NotFound
}

/// A decoded slash within a segment, while routes are compared. A path cannot contain this
/// character otherwise: the head is ASCII, and a decoded one is replaced.
const SLASH: char = '\u{10ffff}';

/// Decodes the segments of a path.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    for (place, segment) in path.split('/').enumerate() {
        if place > 0 {
            decoded.push('/');
        }
        let segment = percent_decode_str(segment).decode_utf8_lossy();
        decoded.extend(segment.chars().map(|c| match c {
            '/' => SLASH,
            SLASH => char::REPLACEMENT_CHARACTER,
            c => c,
        }));
    }
    decoded
}

impl Route {
    const fn untraced(self) -> Self {
        Self { traced: false, ..self }
    }

    /// The methods of the path, for `Allow`.
    pub fn allow(&self) -> &'static str {
        if self.method == "GET" { "GET, HEAD, OPTIONS" } else { "OPTIONS, POST" }
    }
}

impl RouteMatch<'_> {
    /// The route of the path, with whatever method.
    pub fn route(&self) -> Option<&'static Route> {
        match self {
            Self::Found(route, _) | Self::Options(route) | Self::MethodNotAllowed(route) => Some(route),
            Self::NotFound => None,
        }
    }

    /// True if the request is traced. Requests without a route are.
    pub fn is_traced(&self) -> bool {
        self.route().is_none_or(|route| route.traced)
    }
}

impl<'a> RequestContext<'a> {
    /// The first value of `key` in the query, decoded.
    pub fn query_value(&self, key: &str) -> Option<Cow<'a, str>> {
        let mut pairs = form_urlencoded::parse(self.head.query.unwrap_or_default().as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// 200 with the result of a service.
fn json(value: &impl WriteJson) -> Result<Response, Failure> {
    Ok(Response::json(value))
}

const HEALTHY: &[u8] = b"{\"status\":\"ok\"}\n";

fn notifications(call: &RequestContext<'_>) -> Result<Response, Failure> {
    match notifications_activities::run(call.trace, call.app, &call.head.via) {
        Ok(activities) => json(&activities),
        Err(failure) => Err(Failure::BadGateway(failure.message)),
    }
}

fn search(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let term = call.query_value("term").unwrap_or_default();
    json(&search_activities::run(call.trace, call.app, &term)?)
}

fn show(call: &RequestContext<'_>) -> Result<Response, Failure> {
    match show_activity::run(call.trace, call.app, call.parameter) {
        Some(activity) => json(&[activity]),
        None => Err(Failure::rejected(404, "activity not found; its uuid is wrong, or it has expired")),
    }
}

fn create(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [message, ttl] = text_fields(call, ["message", "ttl"])?;
    json(&create_activity::run(call.trace, call.app, &message, ME, &ttl)?)
}

fn reply(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [message] = text_fields(call, ["message"])?;
    json(&create_reply::run(call.trace, call.app, &message, ME, call.parameter)?)
}

fn message(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let [receiver, message] = text_fields(call, ["user_receiver_handle", "message"])?;
    json(&create_message::run(call.trace, call.app, &message, ME, &receiver)?)
}

/// Fails on purpose, to show a panic or, with `?how=error`, an error in a trace.
fn fail(call: &RequestContext<'_>) -> Result<Response, Failure> {
    let _span = call.trace.span(Scope::named("fail"), "fail-on-purpose");
    if call.head.query == Some("how=error") {
        let _: u8 = "not a number".parse()?;
    }
    panic!("this route fails on purpose");
}

/// Returns the text in the place of `{name}`, or an empty one if the pattern has no `{name}`;
/// `None` if the path does not match. A parameter is never empty and contains no slash that
/// separates segments.
fn match_pattern<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (_, after) = rest.split_once('}')?;
    let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
    (!parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, path: &str) -> String {
        match find(method, path) {
            RouteMatch::Found(route, parameter) => format!("{} {} [{parameter}]", route.method, route.pattern),
            RouteMatch::Options(route) => format!("options {}", route.allow()),
            RouteMatch::MethodNotAllowed(route) => format!("wrong, {}", route.allow()),
            RouteMatch::NotFound => "nothing".to_owned(),
        }
    }

    #[test]
    fn fixed_names_come_before_the_uuid_and_the_at_sign_is_part_of_the_path() {
        for (method, path, expected) in [
            ("GET", "/api/activities/home", "GET /api/activities/home []"),
            ("HEAD", "/api/activities/home", "GET /api/activities/home []"),
            ("GET", "/api/activities/home2", "GET /api/activities/{uuid} [home2]"),
            ("GET", "/api/activities/@an%20drew", "GET /api/activities/@{handle} [an drew]"),
            ("GET", "/api/activities/%40andrewbrown", "GET /api/activities/@{handle} [andrewbrown]"),
            ("GET", "/api/activities/%40andrew%2Fbrown", "GET /api/activities/@{handle} [andrew/brown]"),
            ("GET", "/api/activities/%40caf%C3%A9", "GET /api/activities/@{handle} [café]"),
            ("GET", "/api/activities/%2540andrewbrown", "GET /api/activities/{uuid} [%40andrewbrown]"),
            ("GET", "/api/activities/%40", "GET /api/activities/{uuid} [@]"),
            ("GET", "/api/activities/ho%6De", "GET /api/activities/home []"),
            ("GET", "/%61pi/activities/home", "GET /api/activities/home []"),
            ("GET", "/api%2Factivities%2Fhome", "nothing"),
            ("GET", "/api/activities%2Fhome", "nothing"),
            ("GET", "/api/activities/home%2F", "GET /api/activities/{uuid} [home/]"),
            ("GET", "/api/activities/%2e%2e", "GET /api/activities/{uuid} [..]"),
            ("GET", "/api/activities/100%", "GET /api/activities/{uuid} [100%]"),
            ("GET", "/api/activities/%zz", "GET /api/activities/{uuid} [%zz]"),
            ("GET", "/api/activities/%F4%8F%BF%BF", "GET /api/activities/{uuid} [\u{fffd}]"),
            ("GET", "/api/activities/%00", "GET /api/activities/{uuid} [\0]"),
            ("GET", "/api/messages/%40andrewbrown", "GET /api/messages/@{handle} [andrewbrown]"),
            ("POST", "/api/activities/%40x/reply", "POST /api/activities/{uuid}/reply [@x]"),
            ("GET", "/telemetry%2Fstatus", "nothing"),
            ("GET", "/%74elemetry/status", "GET /telemetry/status []"),
            ("GET", "/page/%70age.css", "GET /page/{file} [page.css]"),
            ("GET", "/%", "nothing"),
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
    #[test]
    fn a_path_without_a_percent_sign_is_not_copied() {
        for (path, is_copied) in [("/api/activities/@andrewbrown", false), ("/api/activities/%40andrewbrown", true)] {
            let RouteMatch::Found(_, parameter) = find("GET", path) else { panic!("{path}") };
            assert_eq!((&*parameter, matches!(parameter, Cow::Owned(_))), ("andrewbrown", is_copied), "{path}");
        }
    }
}
