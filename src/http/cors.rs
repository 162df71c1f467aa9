//! Which pages may call the API. GET and POST, successes and errors obey the same rule: an error without these headers
//! looks like a CORS failure in the browser, and hides what really went wrong.

/// The rule of `/api/...`.
pub struct Cors {
    /// Origins that may call; the first is the front end.
    origins: Vec<String>,
}

/// What the course's front end sends, and what browsers that trace send on top.
const ALLOW_HEADERS: &str = "baggage,content-type,if-modified-since,traceparent,tracestate,x-amzn-trace-id";
const ALLOW_METHODS: &str = "OPTIONS,GET,HEAD,POST";
const EXPOSE_HEADERS: &str = "location,link,traceparent,tracestate,x-amzn-trace-id";

impl Cors {
    /// These origins may call.
    #[must_use]
    pub fn new(origins: Vec<String>) -> Self {
        Self { origins }
    }

    /// Puts the headers of an answer to `origin`. A foreign origin gets none, and its browser keeps the answer from it;
    /// a request without an origin is answered as the front end's would be, as in the original.
    pub fn headers(&self, path: &str, origin: Option<&str>, preflight: bool, put: &mut dyn FnMut(&str, &str)) {
        if !path.starts_with("/api/") {
            return;
        }
        put("Vary", "Origin");
        let allowed = match origin {
            None => self.origins.first(),
            Some(origin) => self.origins.iter().find(|allowed| allowed.eq_ignore_ascii_case(origin)),
        };
        let Some(allowed) = allowed else { return };
        put("Access-Control-Allow-Origin", allowed);
        if preflight {
            put("Access-Control-Allow-Headers", ALLOW_HEADERS);
            put("Access-Control-Allow-Methods", ALLOW_METHODS);
        } else {
            put("Access-Control-Expose-Headers", EXPOSE_HEADERS);
        }
    }
}
