//! CORS: the pages that may call the API. The same rule holds for GET and POST, success and error:
//! a browser would report an error response without these headers as a CORS failure, and hide its
//! real cause.

use percent_encoding::percent_decode_str;

use super::head::Head;

/// The CORS rule of `/api/...`.
pub struct Cors {
    /// Origins that may call; the first is the front end.
    origins: Vec<String>,
}

/// Headers of the course's front end, and of browsers that trace.
const ALLOW_HEADERS: &str = "baggage,content-type,if-modified-since,traceparent,tracestate,x-amzn-trace-id";
const ALLOW_METHODS: &str = "OPTIONS,GET,HEAD,POST";
const EXPOSE_HEADERS: &str = "location,link,traceparent,tracestate,x-amzn-trace-id";

impl Cors {
    /// A rule that allows these origins.
    pub fn new(origins: Vec<String>) -> Self {
        Self { origins }
    }

    /// Passes the CORS headers of the response to `put`. A foreign origin gets none, so its browser
    /// withholds the response. A request without `Origin` gets those of the front end, as in the
    /// original.
    pub fn headers(&self, head: &Head<'_>, put: &mut impl FnMut(&str, &str)) {
        if !is_api(head.path) {
            return;
        }
        put("Vary", "Origin");
        let allowed = match head.origin {
            None => self.origins.first(),
            Some(origin) => self.origins.iter().find(|allowed| allowed.eq_ignore_ascii_case(origin)),
        };
        let Some(allowed) = allowed else { return };
        put("Access-Control-Allow-Origin", allowed);
        if head.method == "OPTIONS" {
            put("Access-Control-Allow-Headers", ALLOW_HEADERS);
            put("Access-Control-Allow-Methods", ALLOW_METHODS);
        } else {
            put("Access-Control-Expose-Headers", EXPOSE_HEADERS);
        }
    }
}

/// Returns true if the first segment of the path is `api`, encoded or not.
fn is_api(path: &str) -> bool {
    path.starts_with("/api/")
        || path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(first, _)| first.contains('%') && percent_decode_str(first).eq(b"api".iter().copied()))
}
