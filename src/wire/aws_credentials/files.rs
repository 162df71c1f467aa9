//! The two shared files: where they are, and the profile in use.
//!
//! ```text
//! ~/.aws/credentials      [default]                    the keys; `aws configure` writes both files
//!                         aws_access_key_id = AKIAIOSFODNN7EXAMPLE
//!                         aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
//! ~/.aws/config           [default]                    everything else
//!                         region = eu-central-1
//! ```
//!
//! `AWS_PROFILE` names another profile than `default`; `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name other
//! files. Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/file-location.html>.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::profile::{self, Kind, Profiles, Properties};
use super::{Credentials, Lookup, checked_keys};
use crate::settings::Env;
use crate::text::Message;

/// Where one of the files is expected.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Location {
    /// The file.
    pub(super) path: String,
    /// The variable that named it, unless it is in its usual place.
    pub(super) named_by: Option<&'static str>,
}

/// The profile in use, out of both files.
pub(super) struct SharedProfile {
    /// Its name.
    pub(super) name: String,
    /// Its properties; `None` if neither file has such a profile.
    properties: Option<Properties>,
    /// Where to look for what it says: both files, as far as they are there.
    pub(super) places: String,
    /// What was not there.
    absent: Vec<String>,
    /// `AWS_PROFILE` asks for it.
    asked_for: bool,
}

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What to do about a profile that only the AWS command line tool can use.
const EXPORT: &str = "let the AWS command line tool make keys of it: \
    eval \"$(aws configure export-credentials --format env)\"";

/// The credentials of the profile in use.
///
/// # Errors
///
/// A file cannot be read, or has a mistake; the profile has half a key, or needs what this program does not do.
pub(super) fn answer(env: &Env) -> Result<Lookup, Message> {
    let shared = SharedProfile::read(env)?;
    let (name, places) = (shared.name.escape_debug(), &shared.places);
    let Some(properties) = shared.required()? else { return Ok(Lookup::Nothing(shared.nothing())) };
    let unsupported = |what: &str, key: &str| {
        Message::new(format!("profile {name} in {places} has {key}: {what} is not supported; {EXPORT}"))
    };
    // The keys beside a role_arn only open the door to the role: without it they are somebody else.
    if properties.contains_key("role_arn") {
        return Err(unsupported("assuming a role", "role_arn"));
    }
    let get = |key: &str| shared.get(key);
    let keys = [get("aws_access_key_id"), get("aws_secret_access_key"), get("aws_session_token")];
    let names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    let place = format!("profile {name} in {places}");
    if let Some((id, secret, token)) = checked_keys(keys, names, &place, "add it, or write both with `aws configure`")?
    {
        return Ok(Lookup::Found(Credentials::new(id, secret, token, None, place)));
    }
    // Static keys that stand beside these were put there to be used instead.
    for key in properties.keys() {
        match key.as_str() {
            key if key.starts_with("sso_") => return Err(unsupported("single sign-on (SSO)", key)),
            "source_profile" => return Err(unsupported("assuming a role", key)),
            "credential_process" => return Err(unsupported("starting another program for keys", key)),
            "web_identity_token_file" => return Err(unsupported("web identity", key)),
            _ => {}
        }
    }
    Ok(Lookup::Nothing(shared.nothing()))
}

/// Where a file is; `None` if that depends on a home directory, and there is none. Like the program, it knows no Windows.
pub(super) fn location(env: &Env, kind: Kind) -> Option<Location> {
    let (variable, file) = match kind {
        Kind::Config => ("AWS_CONFIG_FILE", "config"),
        Kind::Credentials => ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    };
    let Some(path) = env.get(variable) else {
        return Some(Location { path: format!("{}/.aws/{file}", env.get("HOME")?), named_by: None });
    };
    // A shell expands the tilde; docker-compose and systemd do not.
    let path = match (path.strip_prefix("~/"), env.get("HOME")) {
        (Some(rest), Some(home)) => format!("{home}/{rest}"),
        _ => path.to_owned(),
    };
    Some(Location { path, named_by: Some(variable) })
}

/// The name of the profile in use.
pub(super) fn profile_name(env: &Env) -> &str {
    env.get("AWS_PROFILE").map_or("default", str::trim)
}

impl SharedProfile {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// One of them cannot be read, or has a mistake.
    pub(super) fn read(env: &Env) -> Result<Self, Message> {
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        let mut profiles = |kind| -> Result<Profiles, Message> {
            let Some(location) = location(env, kind) else {
                absent.push("no home directory: HOME is not set".to_owned());
                return Ok(Profiles::new());
            };
            let shown = location.path.escape_debug().to_string();
            match location.read() {
                Ok(Some(text)) => {
                    let parsed = profile::parse(&text, kind).map_err(|mistake| {
                        Message::new(format!("{shown}:{}: {}; correct that line", mistake.line, mistake.what))
                    })?;
                    there.push(shown);
                    Ok(parsed)
                }
                Ok(None) => {
                    absent.push(format!("no file {shown}{}", location.by()));
                    Ok(Profiles::new())
                }
                Err(error) => {
                    let by = location.by();
                    Err(Message::new(format!("{shown}{by} cannot be read: {error}; make it readable for this user")))
                }
            }
        };
        let credentials = profiles(Kind::Credentials)?;
        let config = profiles(Kind::Config)?;
        absent.dedup();
        let name = profile_name(env).to_owned();
        let properties = profile::merge(config, credentials).remove(&name);
        let asked_for = env.get("AWS_PROFILE").is_some();
        Ok(Self { name, properties, places: there.join(" and "), absent, asked_for })
    }

    /// What the profile says under `key`; empty is nothing.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.properties.as_ref()?.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The profile, which must be there if somebody asked for it by name.
    ///
    /// # Errors
    ///
    /// It is not.
    pub(super) fn required(&self) -> Result<Option<&Properties>, Message> {
        if self.properties.is_none() && self.asked_for {
            let name = self.name.escape_debug();
            let seen = if self.places.is_empty() { self.absent.join(", ") } else { format!("not in {}", self.places) };
            let next = format!("correct the name, or make it with `aws configure --profile {name}`");
            return Err(Message::new(format!("AWS_PROFILE={name}: no such profile ({seen}); {next}")));
        }
        Ok(self.properties.as_ref())
    }

    /// Why nothing came of them.
    fn nothing(&self) -> String {
        if self.places.is_empty() {
            return self.absent.join(", ");
        }
        let what = if self.properties.is_some() { "no aws_access_key_id in profile" } else { "no profile" };
        let absent = self.absent.iter().map(|absent| format!(", {absent}")).collect::<String>();
        format!("{what} {} of {}{absent}", self.name.escape_debug(), self.places)
    }
}

impl Location {
    /// The text; `None` if there is no such file. In its usual place, one that is not for us is one that is not there:
    /// a container that runs as `nobody` may still have root's `HOME`.
    fn read(&self) -> io::Result<Option<String>> {
        match read_text(Path::new(&self.path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.named_by.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn by(&self) -> String {
        self.named_by.map_or_else(String::new, |variable| format!(" ({variable})"))
    }
}

/// A small text file.
///
/// # Errors
///
/// It cannot be read, is longer than [`MAX_FILE`], or no UTF-8.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is longer than 1 MiB"));
    }
    Ok(text)
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
            // An empty variable is an unset one.
            let env = Env::from([
                get("HOME"),
                get("AWS_CONFIG_FILE"),
                get("AWS_SHARED_CREDENTIALS_FILE"),
                get("AWS_PROFILE"),
            ]);
            let is_read = |name: &String| env.is_set(name) || name.starts_with("HOME") || name == "USERPROFILE";
            assert!(variables.keys().all(is_read), "{case}");
            let path = |kind| location(&env, kind).unwrap().path;
            assert_eq!(path(Kind::Config), case["configLocation"], "{}", case["name"]);
            assert_eq!(path(Kind::Credentials), case["credentialsLocation"], "{}", case["name"]);
            if let Some(profile) = case["profile"].as_str() {
                assert_eq!(profile_name(&env), profile, "{}", case["name"]);
            }
        }
        assert_eq!(cases.len(), 9);
    }

    #[test]
    fn a_tilde_in_a_variable_is_the_home_directory() {
        let env = Env::from([("HOME", "/home/a"), ("AWS_CONFIG_FILE", "~/aws.ini")]);
        assert_eq!(location(&env, Kind::Config).unwrap().path, "/home/a/aws.ini");
        assert_eq!(location(&Env::default(), Kind::Config), None);
    }
}
