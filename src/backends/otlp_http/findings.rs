//! Checks of the settings of an OTLP endpoint: mistakes that are visible before anything is sent.
//! They are reported at start-up and by `cruddur check`.

use std::fs;
use std::path::Path;

use super::settings::{DATASET, TEAM, TracesUrl};
use crate::settings::{Findings, Origin, Setting, Sources, described_secret};
use crate::text::{Message, Url};

/// Warns about an address that will probably not work as intended.
pub(super) fn of_address(to: &TracesUrl, findings: &mut Findings) {
    let TracesUrl { url, origin, key, is_complete } = to;
    let given = origin.says(key, &url.redacted());
    let mut warn = |problem: &str| findings.warn(format!("{given}: {problem}"));
    if url.explicit_port() == Some(4317) {
        warn("port 4317 is usually for gRPC; use port 4318 for OTLP over HTTP");
    }
    if *is_complete && url.path() == "/" {
        warn("/v1/traces is not appended to this address; append it, or use OTEL_EXPORTER_OTLP_ENDPOINT");
    } else if is_honeycomb(url) && url.path() != "/v1/traces" {
        warn("Honeycomb accepts traces at /v1/traces only; write https://api.honeycomb.io");
    }
    if is_honeycomb(url) && !url.is_https() {
        warn("no TLS, so the API key is sent in clear text; write https://");
    }
}

/// Warns about a key and a dataset that do not fit together. A Classic key needs a dataset. With
/// any other key a dataset has no effect.
pub(super) fn of_key(headers: &[(String, String)], origin: &str, service: &str, findings: &mut Findings) {
    let value = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    let Some(key) = value(TEAM) else { return };
    match (is_classic(key), value(DATASET)) {
        (true, None) => {
            let key = described_secret(key);
            let what = format!("{origin}: the key {key} is a Classic key, which needs a dataset");
            findings.warn(Message::new(what).next("set HONEYCOMB_DATASET, or dataset in [honeycomb]"));
        }
        (false, Some(dataset)) => findings.note(format!(
            "the dataset {dataset:?} has no effect: only Classic keys use it; with this key the dataset is the service name, {service:?}"
        )),
        _ => {}
    }
}

/// Warns about a key in the settings file if other users can read the file, or if git tracks it.
/// The key is at risk even if it is not used.
pub(super) fn of_key_in_file(key: &Setting<Option<String>>, sources: &Sources, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt;
    let (Some(secret), Origin::File(place), Some(path)) = (&key.value, &key.origin, sources.path()) else { return };
    let described = described_secret(secret);
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0) {
        let what = format!("{place}: api_key, {described}, can be read by other users");
        findings.warn(Message::new(what).next("chmod 600 the file, or use HONEYCOMB_API_KEY instead"));
    }
    if is_tracked_by_git(path) {
        let what = format!("{place}: api_key, {described}, is in a file that git tracks; a push would publish it");
        findings.warn(
            Message::new(what)
                .next("remove it, use HONEYCOMB_API_KEY instead, and create a new key if it was ever committed"),
        );
    }
}

/// Returns the reason why no key is sent, and the next step.
pub(super) fn missing_key(sources: &Sources, key: &Setting<Option<String>>) -> Message {
    const NAME: &str = "HONEYCOMB_API_KEY";
    let hint = match &key.value {
        Some(_) => format!("{} is set, but its value cannot be a key", key.origin),
        None if sources.env.is_unfilled(NAME) => format!("{NAME} is set, but its value cannot be a key"),
        None if sources.env.is_set(NAME) => format!("{NAME} is set, but empty"),
        None => match sources.env.names().filter(|name| is_misspelling_of(name, NAME)).min() {
            Some(slip) => format!("{NAME} is not set in this process, but {slip} is: a typo?"),
            None => format!("{NAME} is not set in this process"),
        },
    };
    Message::new(format!("no API key: {hint}"))
        .next(format!("export {NAME}=... and start again (without a key nothing is sent)"))
}

pub(super) fn is_honeycomb(url: &Url) -> bool {
    let host = url.host();
    host == "honeycomb.io" || host.ends_with(".honeycomb.io")
}

/// Returns true for the two forms of a Classic key: 32 lower-case hex digits, or 64 characters that
/// begin with `hc`, a lower-case letter, `ic_`.
fn is_classic(key: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let new_form =
        |key: &[u8]| key.len() == 64 && key.starts_with(b"hc") && key[2].is_ascii_lowercase() && &key[3..6] == b"ic_";
    (key.len() == 32 && key.bytes().all(is_hex)) || new_form(key.as_bytes())
}

fn is_misspelling_of(name: &str, wanted: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let near = strsim::damerau_levenshtein(&upper, wanted) <= 3;
    near || (upper.starts_with("HONEYCOMB") && upper.contains("KEY"))
}

/// Returns true if the index of the surrounding git repository contains the file.
///
/// The index stores each path as text. The two bytes before it contain the length of the path in
/// their lower twelve bits, and a zero byte follows. Version 4 of the index, which is rare, is not
/// supported.
///
/// Specification: <https://git-scm.com/docs/index-format>.
fn is_tracked_by_git(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let Some((root, git)) = path.ancestors().skip(1).map(|dir| (dir, dir.join(".git"))).find(|(_, git)| git.exists())
    else {
        return false;
    };
    // In a worktree `.git` is a file: `gitdir: /where/it/is`.
    let git = match fs::read_to_string(&git) {
        Ok(text) => root.join(text.trim().strip_prefix("gitdir:").unwrap_or_default().trim()),
        Err(_) => git,
    };
    let Ok(index) = fs::read(git.join("index")) else { return false };
    let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else { return false };
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX).min(0x0fff);
    let entry = [name.as_bytes(), b"\0"].concat();
    index
        .windows(entry.len() + 2)
        .any(|bytes| bytes[2..] == entry && u16::from_be_bytes([bytes[0], bytes[1]]) & 0x0fff == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_classic_key_is_known_by_its_form() {
        let hcaic = format!("hcaic_{}", "a".repeat(58));
        for (key, classic) in [
            ("0123456789abcdef0123456789abcdef", true),
            (hcaic.as_str(), true),
            ("0123456789ABCDEF0123456789abcdef", false),
            ("hcaik_0123456789abcdef0123456789abcdef0123456789abcdef0123456789", false),
            ("a1b2c3d4e5f6g7h8i9j0kl", false),
            ("é", false),
        ] {
            assert_eq!(is_classic(key), classic, "{key}");
        }
    }

    #[test]
    fn a_misspelled_variable_is_recognised() {
        for slip in ["HONEYCOM_API_KEY", "HONEYCOMB_APIKEY", "honeycomb_api_key", "HONEYCOMB_KEY", "HONYCOMB_API_KEYS"]
        {
            assert!(is_misspelling_of(slip, "HONEYCOMB_API_KEY"), "{slip}");
        }
        for other in ["HONEYCOMB_DATASET", "PATH", "OTHER_API_KEY_FILE"] {
            assert!(!is_misspelling_of(other, "HONEYCOMB_API_KEY"), "{other}");
        }
    }
}
