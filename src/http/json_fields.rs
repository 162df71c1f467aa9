//! The text fields of a JSON body.

use std::fmt::Display;

use serde_json::Value as Json;

use super::head::Head;
use super::response::Failure;
use super::routes::RequestContext;
use crate::text::encoding::{self, NotUtf8};

/// Reads a JSON object that has a text for each of these names.
///
/// # Errors
///
/// The body is something else (400), or has an encoding that is not supported (415).
pub(super) fn text_fields<const N: usize>(call: &RequestContext<'_>, names: [&str; N]) -> Result<[String; N], Failure> {
    let bad = |what: &str| {
        let names_shown = names.map(|name| format!("\"{name}\"")).join(" and ");
        Failure::rejected(400, format!("{what}; send a JSON object with {names_shown}, as application/json"))
    };
    check_headers(call.head, bad)?;
    if call.body.is_empty() {
        return Err(bad("the body is empty"));
    }
    let invalid = |what: &dyn Display| Failure::rejected(400, format!("invalid JSON in the body: {what}"));
    let json: Json = match encoding::utf8(call.body) {
        Err(problem @ NotUtf8::Utf16) => return Err(invalid(&format_args!("{problem}; send it as UTF-8"))),
        _ => serde_json::from_slice(encoding::without_mark(call.body)).map_err(|error| invalid(&error))?,
    };
    let Json::Object(mut object) = json else {
        return Err(bad(&format!("the body is {}", json_type(&json))));
    };
    let mut texts = names.map(|_| String::new());
    for (name, text) in names.into_iter().zip(&mut texts) {
        *text = match object.remove(name) {
            Some(Json::String(text)) => text,
            Some(other) => {
                let message = format!("\"{name}\" must be text, not {}", json_type(&other));
                return Err(Failure::rejected(400, message));
            }
            None => return Err(bad(&format!("the key \"{name}\" is missing"))),
        };
    }
    Ok(texts)
}

/// Checks that the headers of a body say JSON, in UTF-8 and not compressed.
fn check_headers(head: &Head<'_>, bad: impl Fn(&str) -> Failure) -> Result<(), Failure> {
    if let Some(encoding) = head.content_encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        let message = format!("Content-Encoding: {encoding} is not supported; send the body uncompressed");
        return Err(Failure::rejected(415, message));
    }
    let content_type = head.content_type.unwrap_or_default().to_ascii_lowercase();
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
    match media_type.trim() {
        "application/json" => {}
        json if json.starts_with("application/") && json.ends_with("+json") => {}
        "" => return Err(bad("the request has no Content-Type")),
        other => return Err(bad(&format!("the request has Content-Type: {other}"))),
    }
    if let Some((_, charset)) = parameters.split_once("charset=") {
        let charset = charset.split(';').next().unwrap_or_default().trim().trim_matches('"');
        if charset != "utf-8" && charset != "utf8" {
            return Err(Failure::rejected(415, format!("charset={charset} is not supported; send UTF-8")));
        }
    }
    Ok(())
}

fn json_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}
