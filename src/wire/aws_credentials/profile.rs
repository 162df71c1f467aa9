//! The grammar of `~/.aws/config` and `~/.aws/credentials`.
//!
//! It looks like INI and is stricter. A line is one of five things, told apart by its first character:
//!
//! ```text
//! # or ; first              a comment
//! [profile dev]             a section; only in `credentials` it is written [dev], and [default] never needs the word
//! region = eu-central-1     a property; " #" and " ;" begin a comment, "a#b" does not
//! s3 =                      an empty property, whose sub-properties follow
//!   max_queue_size = 10     a space or tab first: the line above goes on, comments included
//! ```
//!
//! A section or property whose *name* is none is passed over, whatever else does not fit is a mistake: half-read
//! credentials would be worse than none. A mistake is told by its line, never by its text, which may be a secret.
//!
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>; the cases of AWS's own SDKs are
//! in `tests/data/aws-config/profile-parser-tests.json`.

use std::collections::BTreeMap;

/// What one profile says; the keys in lower case.
pub(super) type Properties = BTreeMap<String, String>;

/// All profiles by name.
pub(super) type Profiles = BTreeMap<String, Properties>;

/// Which of the two files a text is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// `config`
    Config,
    /// `credentials`
    Credentials,
}

/// A line that does not fit the grammar.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Mistake {
    /// Which line, from 1.
    pub(super) line: usize,
    /// What is wrong with it.
    pub(super) what: &'static str,
}

/// What a `[...]` line opens.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Section<'t> {
    /// A profile as this kind of file spells it.
    Profile(&'t str),
    /// `[default]` in `config`, where `[profile default]` takes its place if both are there.
    PlainDefault,
    /// `[sso-session x]`, `[services x]`, a misspelled name. Its lines must fit the grammar, and are not kept.
    Ignored,
}

/// The property that an indented line goes on with.
struct Open {
    key: String,
    /// Nothing stood after its `=`: the indented lines are properties themselves.
    nested: bool,
}

/// Reads one file.
///
/// # Errors
///
/// The first line that does not fit.
pub(super) fn parse(text: &str, kind: Kind) -> Result<Profiles, Mistake> {
    // Windows editors put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections: BTreeMap<Section<'_>, Properties> = BTreeMap::new();
    let mut current = None;
    let mut open: Option<Open> = None;
    for (index, line) in text.lines().enumerate() {
        let mistake = |what| Mistake { line: index + 1, what };
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = without_comment(header, "");
            let name = header.strip_suffix(']').ok_or_else(|| mistake("Profile definition must end with ']'"))?;
            let section = section(name.trim(), kind);
            sections.entry(section).or_default();
            (current, open) = (Some(section), None);
            continue;
        }
        let Some(section) = current else { return Err(mistake("Expected a profile definition")) };
        let properties = sections.entry(section).or_default();
        if line.starts_with(char::is_whitespace) {
            let Some(open) = &open else { return Err(mistake("Expected a property definition, found continuation")) };
            let line = line.trim();
            if open.nested {
                let (key, _) =
                    line.split_once('=').ok_or_else(|| mistake("Expected an '=' sign defining a sub-property"))?;
                if key.trim().is_empty() {
                    return Err(mistake("Sub-property did not have a name"));
                }
            }
            let value = properties.entry(open.key.clone()).or_default();
            value.push('\n');
            value.push_str(line);
        } else {
            let line = without_comment(line, " \t");
            let (key, value) =
                line.split_once('=').ok_or_else(|| mistake("Expected an '=' sign defining a property"))?;
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            if key.is_empty() {
                return Err(mistake("Property did not have a name"));
            }
            properties.insert(key.clone(), value.to_owned());
            open = Some(Open { key, nested: value.is_empty() });
        }
    }
    Ok(named(sections))
}

/// One set of profiles out of both files: the credentials file wins, property by property.
pub(super) fn merge(config: Profiles, credentials: Profiles) -> Profiles {
    let mut merged = config;
    for (name, properties) in credentials {
        merged.entry(name).or_default().extend(properties);
    }
    merged
}

fn section(name: &str, kind: Kind) -> Section<'_> {
    let after_prefix = name.strip_prefix("profile").filter(|rest| rest.starts_with(char::is_whitespace)).map(str::trim);
    match (kind, after_prefix) {
        (Kind::Config, Some(name)) if is_name(name) => Section::Profile(name),
        (Kind::Config, None) if name == "default" => Section::PlainDefault,
        (Kind::Credentials, None) if is_name(name) => Section::Profile(name),
        _ => Section::Ignored,
    }
}

/// Keeps what has a name that is one.
fn named(sections: BTreeMap<Section<'_>, Properties>) -> Profiles {
    let mut profiles = Profiles::new();
    // In the order of `Section`: the plain default comes after all that could take its place.
    for (section, mut properties) in sections {
        properties.retain(|key, _| is_name(key));
        match section {
            Section::Profile(name) => drop(profiles.insert(name.to_owned(), properties)),
            Section::PlainDefault => drop(profiles.entry("default".to_owned()).or_insert(properties)),
            Section::Ignored => {}
        }
    }
    profiles
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-/.%@_:+".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

/// The line up to a `#` or `;`; if `after` is not empty, one of its characters must stand before that.
fn without_comment<'t>(line: &'t str, after: &str) -> &'t str {
    let begins = |(at, c): &(usize, char)| {
        matches!(c, '#' | ';') && (after.is_empty() || line[..*at].ends_with(|before| after.contains(before)))
    };
    let end = line.char_indices().find(begins).map_or(line.len(), |(at, _)| at);
    line[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Both files of a case, and what comes out of them.
    fn outcome(input: &Value) -> Result<Profiles, Mistake> {
        let text = |key: &str| input[key].as_str().unwrap_or_default();
        let config = parse(text("configFile"), Kind::Config)?;
        Ok(merge(config, parse(text("credentialsFile"), Kind::Credentials)?))
    }

    /// None is left out. Of the three cases with `sso_sessions` the profiles are compared: we keep no sessions.
    #[test]
    fn files_are_read_as_the_sdks_of_aws_read_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/aws-config/profile-parser-tests.json");
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases["tests"].as_array().unwrap();
        for case in cases {
            let (name, output) = (&case["name"], &case["output"]);
            match (outcome(&case["input"]), output["errorContaining"].as_str()) {
                (Ok(profiles), None) => {
                    let wanted: Profiles = serde_json::from_value(output["config"]["profiles"].clone()).unwrap();
                    assert_eq!(profiles, wanted, "{name}");
                }
                (Err(mistake), Some(wanted)) => assert!(mistake.what.contains(wanted), "{name}: {mistake:?}"),
                (outcome, wanted) => panic!("{name}: {outcome:?}, not {wanted:?}"),
            }
        }
        assert_eq!(cases.len(), 65);
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_not_by_its_text() {
        let mistake = parse("# mine\n[dev]\n\naws_secret_access_key: TOPSECRET", Kind::Credentials).unwrap_err();
        assert_eq!(mistake, Mistake { line: 4, what: "Expected an '=' sign defining a property" });
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let profiles = parse("\u{feff}[default]\nregion = eu-west-1", Kind::Config).unwrap();
        assert_eq!(profiles["default"]["region"], "eu-west-1");
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let pieces = ["[", "]", "=", " ", "\n", "#", ";", "é", "profile ", "default", "a", "\r", "\t", "\u{feff}"];
        let mut seed = 1_u32;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(pieces[(seed >> 16) as usize % pieces.len()]);
            }
            let _ = parse(&text, Kind::Config);
            let _ = parse(&text, Kind::Credentials);
        }
    }
}
