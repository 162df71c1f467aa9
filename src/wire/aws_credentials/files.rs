//! The two files that all AWS tools share: their location, and the profile in use. Both files are
//! written by `aws configure`.
//!
//! ```text
//! ~/.aws/credentials      [default]                    the keys
//!                         aws_access_key_id = AKIAIOSFODNN7EXAMPLE
//!                         aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
//! ~/.aws/config           [default]                    all other settings
//!                         region = eu-central-1
//! ```
//!
//! `AWS_PROFILE` selects another profile than `default`. `AWS_SHARED_CREDENTIALS_FILE` and
//! `AWS_CONFIG_FILE` select other files.
//!
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/file-location.html>.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::profile::{self, Profiles, Properties, SharedFile};
use super::{Credentials, Lookup, checked_keys};
use crate::settings::Env;
use crate::text::Message;
use crate::text::encoding::{self, SAVE_AS_UTF8};

/// The expected location of one file.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Location {
    /// The path of the file.
    pub(super) path: String,
    /// The variable that sets the path. `None` for the default path.
    pub(super) variable: Option<&'static str>,
}

/// The profile in use, merged from both files.
pub(super) struct SharedProfile {
    /// The name of the profile.
    pub(super) name: String,
    /// The properties of the profile. `None` if neither file has the profile.
    properties: Option<Properties>,
    /// The paths of the files that exist, as text.
    pub(super) files: String,
    /// One text for each missing file.
    missing: Vec<String>,
    /// True if `AWS_PROFILE` names the profile.
    is_explicit: bool,
}

/// The size of the largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The next step for a profile that only the AWS command line tool can use.
const EXPORT: &str = "export keys with the AWS command line tool: \
    eval \"$(aws configure export-credentials --format env)\"";

/// Returns the credentials of the profile in use.
///
/// # Errors
///
/// Returns an error if a file cannot be read or has a syntax error. Returns an error too if the
/// profile has only a part of a key, or needs a feature that is not supported.
pub(super) fn credentials(env: &Env) -> Result<Lookup, Message> {
    let shared = SharedProfile::read(env)?;
    let (name, files) = (shared.name.escape_debug(), &shared.files);
    let Some(properties) = shared.required()? else { return Ok(Lookup::NotFound(shared.missing_reason())) };
    let unsupported = |what: &str, key: &str| {
        Message::new(format!("{what} is not supported: profile {name} in {files} has {key}")).next(EXPORT)
    };
    // Keys next to a role_arn are there only to assume the role. Without it they belong to another
    // identity.
    if properties.contains_key("role_arn") {
        return Err(unsupported("assuming a role", "role_arn"));
    }
    let get = |key: &str| shared.get(key);
    let keys = [get("aws_access_key_id"), get("aws_secret_access_key"), get("aws_session_token")];
    let names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    let source = format!("profile {name} in {files}");
    if let Some((id, secret, token)) = checked_keys(keys, names, &source, "add it, or write both with `aws configure`")?
    {
        return Ok(Lookup::Found(Credentials::new(id, secret, token, None, source)));
    }
    // This check comes after the one for static keys: if a profile has both, static keys are used.
    for key in properties.keys() {
        match key.as_str() {
            key if key.starts_with("sso_") => return Err(unsupported("single sign-on (SSO)", key)),
            "source_profile" => return Err(unsupported("assuming a role", key)),
            "credential_process" => return Err(unsupported("running a program for credentials", key)),
            "web_identity_token_file" => return Err(unsupported("web identity", key)),
            _ => {}
        }
    }
    Ok(Lookup::NotFound(shared.missing_reason()))
}

/// Returns the location of a file, or `None` if the path needs a home directory and `HOME` is not
/// set. Windows is not supported.
pub(super) fn location(env: &Env, file: SharedFile) -> Option<Location> {
    let (variable, file_name) = match file {
        SharedFile::Config => ("AWS_CONFIG_FILE", "config"),
        SharedFile::Credentials => ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    };
    let Some(path) = env.get(variable) else {
        return Some(Location { path: format!("{}/.aws/{file_name}", env.get("HOME")?), variable: None });
    };
    // A shell expands the tilde; docker-compose and systemd do not.
    let path = match (path.strip_prefix("~/"), env.get("HOME")) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => path.to_owned(),
    };
    Some(Location { path, variable: Some(variable) })
}

/// Returns the name of the profile in use.
pub(super) fn profile_name(env: &Env) -> &str {
    env.get("AWS_PROFILE").map_or("default", str::trim)
}

impl SharedProfile {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or has a syntax error.
    pub(super) fn read(env: &Env) -> Result<Self, Message> {
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        let mut read = |file| -> Result<Profiles, Message> {
            let Some(location) = location(env, file) else {
                missing.push("no home directory: HOME is not set".to_owned());
                return Ok(Profiles::new());
            };
            let shown = location.path.escape_debug().to_string();
            match location.read() {
                Ok(Some(text)) => {
                    let parsed = profile::parse(&text, file).map_err(|error| {
                        Message::new(format!("{shown}:{}: {}", error.line, error.what)).next("correct that line")
                    })?;
                    files.push(shown);
                    Ok(parsed)
                }
                Ok(None) => {
                    missing.push(format!("no such file: {shown}{}", location.variable_note()));
                    Ok(Profiles::new())
                }
                Err(error) => {
                    let note = location.variable_note();
                    let is_text = error.kind() != ErrorKind::InvalidData;
                    let next = if is_text { "make it readable for this user" } else { SAVE_AS_UTF8 };
                    Err(Message::new(format!("{error}: {shown}{note}")).next(next))
                }
            }
        };
        let credentials = read(SharedFile::Credentials)?;
        let config = read(SharedFile::Config)?;
        missing.dedup();
        let name = profile_name(env).to_owned();
        let properties = profile::merge(config, credentials).remove(&name);
        let is_explicit = env.get("AWS_PROFILE").is_some();
        Ok(Self { name, properties, files: files.join(" and "), missing, is_explicit })
    }

    /// Returns the value of the property `key`. An empty value counts as missing.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.properties.as_ref()?.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Returns the properties of the profile, or `None` if the profile does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if `AWS_PROFILE` names a profile that does not exist.
    pub(super) fn required(&self) -> Result<Option<&Properties>, Message> {
        if self.properties.is_none() && self.is_explicit {
            let name = self.name.escape_debug();
            let note = if self.files.is_empty() { self.missing.join(", ") } else { format!("not in {}", self.files) };
            let next = format!("correct the name, or create the profile with `aws configure --profile {name}`");
            return Err(Message::new(format!("no such profile: AWS_PROFILE={name} ({note})")).next(next));
        }
        Ok(self.properties.as_ref())
    }

    /// Returns the reason why the files have no credentials.
    fn missing_reason(&self) -> String {
        if self.files.is_empty() {
            return self.missing.join(", ");
        }
        let what = if self.properties.is_some() { "no aws_access_key_id in profile" } else { "no profile" };
        let missing = self.missing.iter().map(|text| format!(", {text}")).collect::<String>();
        format!("{what} {} of {}{missing}", self.name.escape_debug(), self.files)
    }
}

impl Location {
    /// Reads the file. Returns `None` if it does not exist. A file at the default path also counts
    /// as missing if the user may not read it: a container that runs as the user `nobody` may still
    /// have the `HOME` of root.
    fn read(&self) -> io::Result<Option<String>> {
        match read_text(Path::new(&self.path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.variable.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn variable_note(&self) -> String {
        self.variable.map_or_else(String::new, |variable| format!(" ({variable})"))
    }
}

/// Reads a small text file.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is longer than [`MAX_FILE`], or is not UTF-8.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    let invalid = |what: String| io::Error::new(ErrorKind::InvalidData, what);
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "file too large (more than 1 MiB)"));
    }
    encoding::utf8(&bytes).map(str::to_owned).map_err(|problem| invalid(problem.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn files_are_where_the_sdks_of_aws_look_for_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/aws-config/file-location-tests.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let is_ours = |case: &&serde_json::Value| case["platform"] != "windows";
        let cases: Vec<_> = cases["tests"].as_array().unwrap().iter().filter(is_ours).collect();
        for case in &cases {
            let variables: HashMap<String, String> = serde_json::from_value(case["environment"].clone()).unwrap();
            let get = |name: &'static str| (name, variables.get(name).map_or("", String::as_str));
            // An empty variable counts as not set.
            let env = Env::from([
                get("HOME"),
                get("AWS_CONFIG_FILE"),
                get("AWS_SHARED_CREDENTIALS_FILE"),
                get("AWS_PROFILE"),
            ]);
            let is_read = |name: &String| env.is_set(name) || name.starts_with("HOME") || name == "USERPROFILE";
            assert!(variables.keys().all(is_read), "{case}");
            let path = |file| location(&env, file).unwrap().path;
            assert_eq!(path(SharedFile::Config), case["configLocation"], "{}", case["name"]);
            assert_eq!(path(SharedFile::Credentials), case["credentialsLocation"], "{}", case["name"]);
            if let Some(profile) = case["profile"].as_str() {
                assert_eq!(profile_name(&env), profile, "{}", case["name"]);
            }
        }
        assert_eq!(cases.len(), 4);
    }

    #[test]
    fn a_tilde_in_a_variable_is_the_home_directory() {
        let env = Env::from([("HOME", "/home/a"), ("AWS_CONFIG_FILE", "~/aws.ini")]);
        assert_eq!(location(&env, SharedFile::Config).unwrap().path, "/home/a/aws.ini");
        assert_eq!(location(&Env::default(), SharedFile::Config), None);
    }
}
