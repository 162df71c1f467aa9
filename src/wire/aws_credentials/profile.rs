//! The grammar of `~/.aws/config` and `~/.aws/credentials`.
//!
//! The grammar is similar to INI, but stricter. There are five kinds of line, and the first
//! character shows the kind:
//!
//! ```text
//! # or ; first              a comment
//! [profile dev]             a section; [dev] in `credentials`; [default] in both files
//! region = eu-central-1     a property; " #" and " ;" begin a comment, "a#b" does not
//! s3 =                      an empty property; its sub-properties follow
//!   max_queue_size = 10     a space or tab first: continues the line above, even a comment in it
//! ```
//!
//! A section or property with an invalid *name* is ignored. Any other line that does not fit the
//! grammar is an error, because credentials that are read only in part are worse than none. An
//! error gives the number of the line but not its text, which may be a secret.
//!
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>. The test
//! cases of AWS's own SDKs are in `tests/data/aws-config/profile-parser-tests.json`.

use std::collections::BTreeMap;

/// The properties of one profile. The keys are in lower case.
pub(super) type Properties = BTreeMap<String, String>;

/// All profiles, by name.
pub(super) type Profiles = BTreeMap<String, Properties>;

/// One of the two files that AWS tools share.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SharedFile {
    /// The file `~/.aws/config`.
    Config,
    /// The file `~/.aws/credentials`.
    Credentials,
}

/// A line that does not fit the grammar.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct SyntaxError {
    /// The number of the line, from 1.
    pub(super) line: usize,
    /// The description of the error.
    pub(super) what: &'static str,
}

/// The section that a `[...]` line begins.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum ProfileSection<'t> {
    /// A profile, written as this file requires.
    Profile(&'t str),
    /// The section `[default]` in `config`. If `[profile default]` exists too, it is used instead.
    PlainDefault,
    /// Any other section: `[sso-session x]`, `[services x]`, or an invalid name. Its lines are
    /// checked but not kept.
    Ignored,
}

/// The last property. Indented lines continue it.
struct OpenProperty {
    key: String,
    /// True if its own line has no value. The indented lines are then sub-properties.
    nested: bool,
}

/// Parses the text of one file.
///
/// # Errors
///
/// Returns an error for the first line that does not fit the grammar.
pub(super) fn parse(text: &str, file: SharedFile) -> Result<Profiles, SyntaxError> {
    // Editors on Windows write a byte order mark at the beginning.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections: BTreeMap<ProfileSection<'_>, Properties> = BTreeMap::new();
    let mut current = None;
    let mut open: Option<OpenProperty> = None;
    for (index, line) in text.lines().enumerate() {
        let error = |what| SyntaxError { line: index + 1, what };
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = strip_comment(header, "");
            let name = header.strip_suffix(']').ok_or_else(|| error("Profile definition must end with ']'"))?;
            let section = section(name.trim(), file);
            sections.entry(section).or_default();
            (current, open) = (Some(section), None);
            continue;
        }
        let Some(section) = current else { return Err(error("Expected a profile definition")) };
        let properties = sections.entry(section).or_default();
        if line.starts_with(char::is_whitespace) {
            let Some(open) = &open else { return Err(error("Expected a property definition, found continuation")) };
            let line = line.trim();
            if open.nested {
                let (key, _) =
                    line.split_once('=').ok_or_else(|| error("Expected an '=' sign defining a sub-property"))?;
                if key.trim().is_empty() {
                    return Err(error("Sub-property did not have a name"));
                }
            }
            let value = properties.entry(open.key.clone()).or_default();
            value.push('\n');
            value.push_str(line);
        } else {
            let line = strip_comment(line, " \t");
            let (key, value) = line.split_once('=').ok_or_else(|| error("Expected an '=' sign defining a property"))?;
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            if key.is_empty() {
                return Err(error("Property did not have a name"));
            }
            properties.insert(key.clone(), value.to_owned());
            open = Some(OpenProperty { key, nested: value.is_empty() });
        }
    }
    Ok(profiles(sections))
}

/// Merges the profiles of both files. If both have the same property, `credentials` takes
/// precedence.
pub(super) fn merge(config: Profiles, credentials: Profiles) -> Profiles {
    let mut merged = config;
    for (name, properties) in credentials {
        merged.entry(name).or_default().extend(properties);
    }
    merged
}

fn section(name: &str, file: SharedFile) -> ProfileSection<'_> {
    let after_prefix = name.strip_prefix("profile").filter(|rest| rest.starts_with(char::is_whitespace)).map(str::trim);
    match (file, after_prefix) {
        (SharedFile::Config, Some(name)) if is_valid_name(name) => ProfileSection::Profile(name),
        (SharedFile::Config, None) if name == "default" => ProfileSection::PlainDefault,
        (SharedFile::Credentials, None) if is_valid_name(name) => ProfileSection::Profile(name),
        _ => ProfileSection::Ignored,
    }
}

/// Drops the sections to ignore, and the properties with invalid names.
fn profiles(sections: BTreeMap<ProfileSection<'_>, Properties>) -> Profiles {
    let mut profiles = Profiles::new();
    // The map is sorted in the order of the enum's variants, so `PlainDefault` comes after all
    // profiles.
    for (section, mut properties) in sections {
        properties.retain(|key, _| is_valid_name(key));
        match section {
            ProfileSection::Profile(name) => drop(profiles.insert(name.to_owned(), properties)),
            ProfileSection::PlainDefault => drop(profiles.entry("default".to_owned()).or_insert(properties)),
            ProfileSection::Ignored => {}
        }
    }
    profiles
}

fn is_valid_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-/.%@_:+".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

/// Returns the line without its comment, which begins with `#` or `;`. If `after` is not empty, a
/// comment begins only after one of the characters in `after`.
fn strip_comment<'t>(line: &'t str, after: &str) -> &'t str {
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

    /// Parses both files of a test case.
    fn parse_case(input: &Value) -> Result<Profiles, SyntaxError> {
        let text = |key: &str| input[key].as_str().unwrap_or_default();
        let config = parse(text("configFile"), SharedFile::Config)?;
        Ok(merge(config, parse(text("credentialsFile"), SharedFile::Credentials)?))
    }

    /// Runs all cases. Three of them have `sso_sessions`: there only the profiles are compared,
    /// because the parser keeps no sessions.
    #[test]
    fn files_are_read_as_the_sdks_of_aws_read_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/aws-config/profile-parser-tests.json");
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases["tests"].as_array().unwrap();
        for case in cases {
            let (name, output) = (&case["name"], &case["output"]);
            match (parse_case(&case["input"]), output["errorContaining"].as_str()) {
                (Ok(profiles), None) => {
                    let wanted: Profiles = serde_json::from_value(output["config"]["profiles"].clone()).unwrap();
                    assert_eq!(profiles, wanted, "{name}");
                }
                (Err(error), Some(wanted)) => assert!(error.what.contains(wanted), "{name}: {error:?}"),
                (outcome, wanted) => panic!("{name}: {outcome:?}, not {wanted:?}"),
            }
        }
        assert_eq!(cases.len(), 65);
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_not_by_its_text() {
        let error = parse("# mine\n[dev]\n\naws_secret_access_key: TOPSECRET", SharedFile::Credentials).unwrap_err();
        assert_eq!(error, SyntaxError { line: 4, what: "Expected an '=' sign defining a property" });
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let profiles = parse("\u{feff}[default]\nregion = eu-west-1", SharedFile::Config).unwrap();
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
            let _ = parse(&text, SharedFile::Config);
            let _ = parse(&text, SharedFile::Credentials);
        }
    }
}
