//! Faults of values as shells, env files and web pages leave them: quotes that are a part of the
//! value, a placeholder that was never filled in, invisible characters. Every variable in
//! [`VARIABLES`] and every text of telemetry.toml is checked here.
//!
//! ```text
//! HONEYCOMB_API_KEY="abc"       docker run --env-file keeps the quotes    →  abc
//! AWS_REGION=us-east-1\r        a file with the line ends of Windows      →  us-east-1
//! AWS_PROFILE=${AWS_PROFILE}    never filled in                           →  counts as unset
//! ```
//!
//! The value of an address is never replaced by a default, because data would then go elsewhere.
//! The reader of an address refuses a placeholder itself, with [`is_placeholder`].

use std::borrow::Cow;

use crate::text::Message;

/// The variables that the program reads.
pub(super) const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
    "AWS_ENDPOINT_URL_XRAY",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "AWS_XRAY_SDK_ENABLED",
    "AWS_XRAY_TRACING_NAME",
    "AWS_XRAY_URL",
    "BACKEND_URL",
    "CRUDDUR_CONFIG",
    "CRUDDUR_LISTEN",
    "CRUDDUR_PAGE_ALLOW_REMOTE",
    "CRUDDUR_PAGE_HOSTS",
    "CRUDDUR_SPOOL_DIR",
    "FRONTEND_URL",
    "HONEYCOMB_API_KEY",
    "HONEYCOMB_DATASET",
    "NOTIFICATIONS_TIMEOUT",
    "NOTIFICATIONS_URL",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
    "OTEL_PROPAGATORS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "RUST_LOG",
];

/// The variables of a proxy, which the HTTP library reads. It ignores an invalid value without a
/// message.
pub(super) const PROXY_VARIABLES: &[&str] =
    &["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// Meaning of a value. It decides which texts are placeholders, and what happens to one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// An address or a pattern of hosts. Its reader refuses a placeholder.
    Address,
    /// A list of `name=value`.
    Pairs,
    /// The value of one such pair. Its reader skips the pair if the value is a placeholder.
    OfPair,
    /// A key, a token or a password. Words such as `your-key` are placeholders.
    Secret,
    /// Anything else.
    Text,
}

/// A value after the check.
#[derive(Debug, Eq, PartialEq)]
pub struct Checked<'t> {
    /// The value to use. `None` if it counts as unset.
    pub value: Option<Cow<'t, str>>,
    /// Faults of the value, as text for the middle of a sentence. Empty if it is right.
    pub faults: Vec<String>,
    /// Next step.
    pub next: &'static str,
}

impl Meaning {
    /// Returns the meaning of a variable or of a key of telemetry.toml, by its name.
    pub(super) fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.starts_with("[resource]") {
            return Self::Text;
        }
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if ends(&["_headers"]) {
            Self::Pairs
        } else if name.contains("endpoint_url")
            || ends(&["endpoint", "_url", "_uri", "_address", "_proxy", "host_pattern", "_listen"])
        {
            Self::Address
        } else if ends(&["_key", "_key_id", "_token"]) && !name.ends_with("_client_key") {
            Self::Secret
        } else {
            Self::Text
        }
    }
}

impl Checked<'_> {
    /// Returns the sentence about the faults of the value of `name`, if there are any.
    pub fn message(&self, name: &str) -> Option<Message> {
        let what = self.faults.join(" and ");
        (!what.is_empty()).then(|| Message::new(format!("{name}: {what}")).next(self.next))
    }
}

/// Checks a value. A right value is returned unchanged.
pub fn check(text: &str, meaning: Meaning) -> Checked<'_> {
    let (mut faults, mut next) = (Vec::new(), "");
    let mut fault = |what: String, step| {
        faults.push(what);
        if next.is_empty() {
            next = step;
        }
    };
    let mut value = Cow::Borrowed(text);
    if text.ends_with('\r') {
        value = text.trim_end().to_owned().into();
        fault("the carriage return at its end is ignored".to_owned(), "save the file with Unix line ends");
    }
    if let Some((visible, code)) = without_invisible(&value) {
        fault(format!("the invisible characters in it (U+{code:04X}) are ignored"), "type it instead of pasting it");
        value = visible.into();
    }
    match quotes(value.trim()) {
        Quotes::None => {}
        Quotes::Around(inner) => {
            value = inner.to_owned().into();
            fault(
                "the quotes around its value are ignored".to_owned(),
                "write the value without them (docker's env files keep quotes)",
            );
        }
        Quotes::OneEnd => fault(
            "its value begins with a quote that is not closed, and the quote is a part of it".to_owned(),
            "remove it",
        ),
    }
    let is_refused_by_its_reader = match meaning {
        Meaning::Address | Meaning::OfPair => true,
        Meaning::Pairs => !is_whole_placeholder(value.trim()),
        Meaning::Secret | Meaning::Text => false,
    };
    let is_unset = !is_refused_by_its_reader && is_unfilled(value.trim(), meaning);
    if is_unset {
        fault("its value is a placeholder that was not filled in, so it is ignored".to_owned(), "set it, or remove it");
    }
    Checked { value: (!is_unset).then_some(value), faults, next }
}

/// Returns true for a text that somebody should have replaced: `${NAME}`, `$NAME`, `$(NAME)`,
/// `%NAME%`, `{{name}}`, `<your-key>`, `changeme`. `${NAME}` may be a part of the text.
pub fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    let has_variable =
        text.split("${").skip(1).any(|rest| rest.trim_start_matches('{').trim_start().starts_with(is_name_start));
    has_variable || is_whole_placeholder(text) || is_word_for_later(text)
}

/// Returns true for a secret that is a placeholder: also `your-key`, `xxxx` and `...`.
pub fn is_placeholder_for_secret(text: &str) -> bool {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let is_filler = lower.len() >= 3 && lower.chars().all(|c| matches!(c, 'x' | '.' | '*' | '-' | '_' | '…'));
    let is_yours = lower.starts_with("your") && lower.chars().nth(4).is_none_or(|c| !c.is_alphanumeric());
    let is_instruction =
        ["insert", "paste", "enter", "replace"].iter().any(|verb| lower.starts_with(verb)) && lower.contains("key");
    let is_blank = is_filler || lower.contains("xxxxxx") || lower == "todo";
    is_placeholder(text) || (!text.is_empty() && (is_blank || is_yours || is_instruction))
}

/// Returns true if an address contains a text that should have been replaced: `${NAME}`, `$NAME`,
/// `%NAME%`, `{NAME}` or `<name>`.
pub fn is_unexpanded(text: &str) -> bool {
    let dollar = text.split('$').skip(1).any(|rest| rest.starts_with(is_name_start));
    // `%C3%A9` is an encoded character, and not a variable with the name C3.
    let is_encoded = |name: &str| name.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    let percent =
        text.split('%').skip(1).any(|name| is_name(name) && !is_encoded(name) && text.contains(&format!("%{name}%")));
    let angle = text.split_once('<').is_some_and(|(_, rest)| rest.contains('>'));
    dollar || percent || angle || text.contains('{') || is_placeholder(text)
}

fn is_unfilled(text: &str, meaning: Meaning) -> bool {
    if meaning == Meaning::Secret { is_placeholder_for_secret(text) } else { is_placeholder(text) }
}

/// Returns true if all of the text is one placeholder.
fn is_whole_placeholder(text: &str) -> bool {
    let between = |begin: &str, end: &str| {
        text.strip_prefix(begin)?.strip_suffix(end).map(str::trim).filter(|inside| !inside.is_empty())
    };
    text.strip_prefix('$').is_some_and(is_name)
        || between("${", "}").is_some()
        || between("$(", ")").is_some_and(is_name)
        || between("%", "%").is_some_and(is_name)
        || between("{{", "}}").is_some()
        || between("<", ">").is_some()
}

fn is_word_for_later(text: &str) -> bool {
    let letters: String = text.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).collect();
    ["changeme", "changeit", "changethis", "replaceme", "fillmein"]
        .iter()
        .any(|word| letters.eq_ignore_ascii_case(word))
}

fn is_name(text: &str) -> bool {
    text.starts_with(is_name_start) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

enum Quotes<'t> {
    None,
    /// Quotes at both ends, and the text between them.
    Around(&'t str),
    /// A double quote at the beginning without its partner.
    OneEnd,
}

/// Looks for quotes around a text. A text that has the same quote inside is right: it may be a list
/// such as `"a","b"`.
fn quotes(text: &str) -> Quotes<'_> {
    const PAIRS: [(char, char); 8] =
        [('"', '"'), ('\'', '\''), ('“', '”'), ('”', '”'), ('„', '“'), ('‘', '’'), ('’', '’'), ('«', '»')];
    for (open, close) in PAIRS {
        let inner = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        if let Some(inner) = inner {
            return if inner.contains([open, close]) { Quotes::None } else { Quotes::Around(inner) };
        }
    }
    let has_one = |quote: char| text.matches(quote).count() == 1;
    let begins = text.starts_with(['"', '“', '”', '„']) && text.chars().next().is_some_and(has_one);
    if begins { Quotes::OneEnd } else { Quotes::None }
}

/// Returns the text without zero-width spaces, and without no-break spaces at its ends, and the
/// first of them. Returns `None` if there are none. No-break spaces within a text are right: French
/// has them before some marks.
fn without_invisible(text: &str) -> Option<(String, u32)> {
    let is_zero_width = |c: char| matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{200e}' | '\u{200f}');
    let is_no_break = |c: char| matches!(c, '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{3000}');
    let visible: String = text.chars().filter(|c| !is_zero_width(*c)).collect();
    let kept = visible.trim_matches(is_no_break);
    if kept.len() == text.len() {
        return None;
    }
    let first = text.chars().find(|c| is_zero_width(*c) || is_no_break(*c)).map_or(0, u32::from);
    Some((kept.to_owned(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name of a variable or key, its text, the value in use, and the beginning of the sentence.
    const TABLE: &[(&str, &str, Option<&str>, &str)] = &[
        ("HONEYCOMB_API_KEY", "\"abc\"", Some("abc"), "the quotes around"),
        ("HONEYCOMB_API_KEY", "'abc'", Some("abc"), "the quotes around"),
        ("HONEYCOMB_API_KEY", "“abc”", Some("abc"), "the quotes around"),
        ("HONEYCOMB_API_KEY", "„abc“", Some("abc"), "the quotes around"),
        ("HONEYCOMB_API_KEY", "\"\"", Some(""), "the quotes around"),
        ("HONEYCOMB_API_KEY", "\"abc", Some("\"abc"), "its value begins with a quote"),
        ("HONEYCOMB_API_KEY", "abc\r", Some("abc"), "the carriage return"),
        ("HONEYCOMB_API_KEY", "\"abc\"\r", Some("abc"), "the carriage return at its end is ignored and the quotes"),
        ("HONEYCOMB_API_KEY", "abc\u{200b}", Some("abc"), "the invisible characters in it (U+200B)"),
        ("HONEYCOMB_API_KEY", "\u{a0}abc", Some("abc"), "the invisible characters in it (U+00A0)"),
        ("HONEYCOMB_API_KEY", "ab\u{feff}c", Some("abc"), "the invisible characters in it (U+FEFF)"),
        ("HONEYCOMB_API_KEY", "${HONEYCOMB_API_KEY}", None, "its value is a placeholder"),
        (
            "HONEYCOMB_API_KEY",
            "\"${HONEYCOMB_API_KEY}\"",
            None,
            "the quotes around its value are ignored and its value is",
        ),
        ("HONEYCOMB_API_KEY", "$HONEYCOMB_API_KEY", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "%HONEYCOMB_API_KEY%", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "<your-key>", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "changeme", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "YOUR_API_KEY", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "xxxxxxxxxxxxxxxxxxxxxx", None, "its value is a placeholder"),
        ("HONEYCOMB_API_KEY", "insert-your-key-here", None, "its value is a placeholder"),
        ("[honeycomb] api_key", "...", None, "its value is a placeholder"),
        ("AWS_ACCESS_KEY_ID", "${{ secrets.AWS_ACCESS_KEY_ID }}", None, "its value is a placeholder"),
        ("AWS_SESSION_TOKEN", "$(AWS_SESSION_TOKEN)", None, "its value is a placeholder"),
        ("AWS_PROFILE", "{{ profile }}", None, "its value is a placeholder"),
        ("OTEL_SERVICE_NAME", "cruddur-${STAGE}", None, "its value is a placeholder"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=${TEAM}", None, "its value is a placeholder"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "${HEADERS}", None, "its value is a placeholder"),
        // The reader of these values has a sentence of its own about a placeholder.
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=${B}", Some("a=${B}"), ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://${HOST}", Some("http://${HOST}"), ""),
        ("AWS_XRAY_URL", "*${GITPOD}*", Some("*${GITPOD}*"), ""),
        ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "${LOGS_URL}", Some("${LOGS_URL}"), ""),
        ("AWS_ENDPOINT_URL_XRAY", "<url>", Some("<url>"), ""),
        // These are right.
        ("HONEYCOMB_API_KEY", "hcaik_01abc", Some("hcaik_01abc"), ""),
        ("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI$x=", Some("wJalr/XUtn+FEMI$x="), ""),
        ("OTEL_SERVICE_NAME", "todo", Some("todo"), ""),
        ("OTEL_SERVICE_NAME", "your-shop", Some("your-shop"), ""),
        ("OTEL_SERVICE_NAME", " padded ", Some(" padded "), ""),
        ("OTEL_SERVICE_NAME", "Andrew's", Some("Andrew's"), ""),
        ("CRUDDUR_PAGE_HOSTS", "\"a\",\"b\"", Some("\"a\",\"b\""), ""),
        ("OTEL_RESOURCE_ATTRIBUTES", "size=5\"", Some("size=5\""), ""),
        ("[resource] note", "Prêt\u{a0}!", Some("Prêt\u{a0}!"), ""),
        ("[resource] price", "$5", Some("$5"), ""),
        ("[resource] share", "5%", Some("5%"), ""),
        ("[cloudwatch] log_stream", "{hostname}", Some("{hostname}"), ""),
        ("FRONTEND_URL", "http://localhost:3000/%C3%A9", Some("http://localhost:3000/%C3%A9"), ""),
    ];

    #[test]
    fn every_fault_of_a_value_has_its_sentence_and_a_right_value_has_none() {
        for (name, text, value, sentence) in TABLE {
            let checked = check(text, Meaning::of(name));
            let said = checked.message(name).map(|message| message.to_string()).unwrap_or_default();
            assert_eq!(checked.value.as_deref(), *value, "{name}={text}");
            if sentence.is_empty() {
                assert_eq!(said, "", "{name}={text}");
            } else {
                assert!(
                    said.starts_with(&format!("{name}: {sentence}")) && said.contains("; next: "),
                    "{text}: {said}"
                );
            }
        }
    }

    #[test]
    fn an_address_that_was_not_filled_in_is_recognised() {
        for text in [
            "http://a%20b%HOST%",
            "http://${H}",
            "http://$H:1",
            "http://%HOST%:1",
            "http://<host>:1",
            "http://{H}",
            "changeme",
        ] {
            assert!(is_unexpanded(text), "{text}");
        }
        for text in ["http://h:1/%C3%A9?a=b", "http://u:%ABCDEF%40@h", "http://u:p$1@h", "https://api.honeycomb.io"] {
            assert!(!is_unexpanded(text), "{text}");
        }
    }
}
