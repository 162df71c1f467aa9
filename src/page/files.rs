//! The page itself: files inside the program. They load nothing from anywhere else, and browsers are told so.

use crate::http::answer::{Answer, Failure};
use crate::http::routes::Call;

/// `GET /`
///
/// # Errors
///
/// Not for this client.
pub fn page(call: &Call<'_>) -> Result<Answer, Failure> {
    serve(call, "page.html")
}

/// `GET /page/{file}`
///
/// # Errors
///
/// Not for this client, or no such file.
pub fn file(call: &Call<'_>) -> Result<Answer, Failure> {
    serve(call, &call.parameter)
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File { name: $name, content_type: $content_type, bytes: include_bytes!(concat!("files/", $name)) }
    };
}

/// All files, in the order in which they are read.
const FILES: &[File] = &[
    file!("page.html", "text/html; charset=utf-8"),
    file!("page.css", "text/css; charset=utf-8"),
    file!("page.svg", "image/svg+xml"),
    file!("page.js", "text/javascript; charset=utf-8"),
    file!("elements.js", "text/javascript; charset=utf-8"),
    file!("server.js", "text/javascript; charset=utf-8"),
    file!("cruddur.js", "text/javascript; charset=utf-8"),
    file!("pipeline.js", "text/javascript; charset=utf-8"),
    file!("requests.js", "text/javascript; charset=utf-8"),
    file!("waterfall.js", "text/javascript; charset=utf-8"),
    file!("dialects.js", "text/javascript; charset=utf-8"),
    file!("json.js", "text/javascript; charset=utf-8"),
    file!("deliveries.js", "text/javascript; charset=utf-8"),
    file!("keyboard.js", "text/javascript; charset=utf-8"),
];

struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// Nothing from elsewhere, nothing inline, in nobody's frame, and nothing that outlives the program in a cache.
const HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

fn serve(call: &Call<'_>, name: &str) -> Result<Answer, Failure> {
    call.page.admit(call)?;
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Err(Failure::refused(404, "the page has no such file; open / instead"));
    };
    let body = file.bytes.to_vec();
    Ok(Answer { status: 200, allow: None, content_type: file.content_type, headers: HEADERS, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_page_is_smaller_than_80_kb() {
        let size: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(size < 80_000, "{size} bytes");
    }
}
