//! Where a value can come from: the environment, a line of the file, a default. First one wins, and each value
//! remembers which it was.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};

use super::file::{Entry, File, Node, content};
use super::finding::{Finding, Severity};
use super::table::Table;
use super::watch::Content;

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The environment variable of this name.
    Environment(&'static str),
    /// `telemetry.toml:12`.
    File(String),
}

/// A mistake in the file, or a file that cannot be read: what, where, what next, in one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError(pub String);

/// The environment as it was at start. An empty variable is an unset one.
#[derive(Clone, Debug, Default)]
pub struct Env(HashMap<String, String>);

/// Everything that settings are read from.
pub struct Sources {
    /// The environment.
    pub env: Env,
    pub(super) file: Option<File>,
    findings: RefCell<Vec<Finding>>,
    readings: RefCell<Vec<Reading>>,
    pub(super) known: RefCell<Vec<&'static str>>,
}

/// A value that somebody asked for.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its table and its name: `[honeycomb] endpoint`.
    pub key: String,
    /// The value as it may be shown: no secret, no password.
    pub shown: String,
    /// Where it came from.
    pub origin: Origin,
    /// Of the value itself. Whoever was made from equal values need not be made again.
    pub digest: u64,
}

impl Reading {
    /// The keys whose values differ.
    #[must_use]
    pub fn changed(before: &[Self], now: &[Self]) -> Vec<String> {
        let is_among =
            |one: &Self, others: &[Self]| others.iter().any(|other| other.key == one.key && other.digest == one.digest);
        let new = now.iter().filter(|one| !is_among(one, before));
        let gone = before.iter().filter(|one| now.iter().all(|other| other.key != one.key));
        let mut keys: Vec<String> = new.chain(gone).map(|one| one.key.clone()).collect();
        keys.dedup();
        keys
    }
}

/// The file that is read when nobody names another, if it is there.
pub const DEFAULT_FILE: &str = "telemetry.toml";

/// Where the settings are: what `--config` says, else `CRUDDUR_CONFIG`, else `telemetry.toml`. True if somebody named it,
/// so that it must exist.
#[must_use]
pub fn settings_path(config: Option<&Path>, env: &Env) -> (PathBuf, bool) {
    match config.or_else(|| env.get("CRUDDUR_CONFIG").map(Path::new)) {
        Some(path) => (path.to_owned(), true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    }
}

impl Sources {
    /// Reads the file at `path`; without one, `CRUDDUR_CONFIG` or `telemetry.toml` if it exists. A file that was named
    /// must exist.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not TOML.
    pub fn read(path: Option<&Path>, env: Env) -> Result<Self, SettingsError> {
        let (path, named) = settings_path(path, &env);
        // One of which it cannot be known whether it is there is no reason to go on without: reading it says why.
        if !named && path.try_exists().is_ok_and(|exists| !exists) {
            return Ok(Self::of(None, env));
        }
        Ok(Self::of(Some(File::read(path)?), env))
    }

    /// The file at `path`, when its content is known already.
    ///
    /// # Errors
    ///
    /// The content is not TOML.
    pub fn of_content(path: &Path, content: Vec<u8>, env: Env) -> Result<Self, SettingsError> {
        Ok(Self::of(Some(File::of_content(path.to_owned(), content)?), env))
    }

    /// A file that was never written to disk, for tests.
    ///
    /// # Errors
    ///
    /// The text is not TOML.
    pub fn from_text(text: &str, env: Env) -> Result<Self, SettingsError> {
        Self::of_content(Path::new(DEFAULT_FILE), text.as_bytes().to_vec(), env)
    }

    fn of(file: Option<File>, env: Env) -> Self {
        let (findings, readings, known) = Default::default();
        Self { env, file, findings, readings, known }
    }

    /// The file in use, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// What is in the file.
    #[must_use]
    pub fn content(&self) -> Content {
        self.file.as_ref().map_or(Content::Absent, |file| Content::of(Ok(file.text.clone().into_bytes())))
    }

    /// The keys above the first table.
    #[must_use]
    pub fn top(&self) -> Table<'_> {
        Table::new(self, "", self.root())
    }

    /// The table `[name]`; an absent one has no keys.
    ///
    /// # Errors
    ///
    /// `name` is there, but is no table.
    pub fn table(&self, name: &'static str) -> Result<Table<'_>, SettingsError> {
        self.known.borrow_mut().push(name);
        let entries = match self.root().iter().find(|entry| entry.key == name) {
            None => &[][..],
            Some(Entry { value: Node::Table(entries), .. }) => entries,
            Some(entry) => return Err(self.error(entry.key_at, &format!("[{name}] must be a table"))),
        };
        Ok(Table::new(self, name, entries))
    }

    /// Refuses top-level keys and tables that nobody asked for. To be called when everything was read.
    ///
    /// # Errors
    ///
    /// There is one: the message names the nearest key that exists.
    pub fn finish(&self) -> Result<(), SettingsError> {
        self.refuse_unknown("", self.root(), &self.known.borrow())
    }

    /// The value of the first of these variables that has one. A value that cannot be `wanted` is noticed, and the next
    /// source counts.
    pub fn variable<T>(
        &self,
        names: &[&'static str],
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Option<Setting<T>> {
        names.iter().find_map(|name| {
            let text = self.env.get(name)?.trim();
            let value = parse(text);
            if value.is_none() {
                self.warn(format!("{name}={text} is not {wanted}; it is passed over"));
            }
            value.map(|value| Setting { value, origin: Origin::Environment(name) })
        })
    }

    /// Something that is as it is, and worth knowing.
    pub fn note(&self, text: String) {
        self.findings.borrow_mut().push(Finding { severity: Severity::Note, text });
    }

    /// Something that is probably not what was meant, but not wrong enough to stop for.
    pub fn warn(&self, text: String) {
        self.findings.borrow_mut().push(Finding { severity: Severity::Warning, text });
    }

    /// The findings since this was last called.
    #[must_use]
    pub fn take_findings(&self) -> Vec<Finding> {
        self.findings.take()
    }

    /// The values that were asked for since this was last called.
    #[must_use]
    pub fn take_readings(&self) -> Vec<Reading> {
        self.readings.take()
    }

    /// The text of another file that a setting names. It counts as part of the value.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn content_of(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let content = content(Path::new(path));
        let key = format!("content of {path}");
        match &content {
            Ok(content) => self.record(key, content, format!("{} bytes", content.len()), Origin::Default),
            Err(error) => self.record(key, b"", error.to_string(), Origin::Default),
        }
        content
    }

    /// Remembers a value that was found by other ways than a [`Table`].
    pub fn record(&self, key: String, value: &[u8], shown: String, origin: Origin) {
        let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(value);
        self.readings.borrow_mut().push(Reading { key, shown, origin, digest });
    }

    pub(super) fn root(&self) -> &[Entry] {
        self.file.as_ref().map_or(&[], |file| &file.root)
    }

    pub(super) fn refuse_unknown(
        &self,
        table: &str,
        entries: &[Entry],
        known: &[&'static str],
    ) -> Result<(), SettingsError> {
        let Some(unknown) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) else { return Ok(()) };
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(candidate, &unknown.key), candidate))
            .min()
            .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3));
        let next = match nearest {
            Some((_, candidate)) => format!("did you mean \"{candidate}\"?"),
            None => format!("known are {}", known.join(", ")),
        };
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        // What looks like no key may be a secret in the wrong place.
        let is_name = |c: char| c.is_ascii_lowercase() || "_-. ".contains(c);
        let shown = unknown.key.len() <= 40 && unknown.key.chars().all(is_name);
        let key = if shown { format!(" \"{}\"", unknown.key) } else { String::new() };
        Err(self.error(unknown.key_at, &format!("unknown key{key}{place}; {next}")))
    }

    /// `telemetry.toml:12:3: problem`.
    pub(super) fn error(&self, offset: usize, problem: &str) -> SettingsError {
        match &self.file {
            Some(file) => file.error(offset, problem),
            None => SettingsError(problem.to_owned()),
        }
    }
}

impl Env {
    /// The names of the variables that are set, be it to nothing.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self(std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect())
    }

    /// The variable's value; `None` if it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// Whether the variable is set, be it to nothing.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Origin {
    /// Where `key` has this value, for the beginning of a sentence: `AWS_XRAY_URL=*x*`, `telemetry.toml:7: [xray] host_pattern = "*x*"`.
    #[must_use]
    pub fn says(&self, key: &str, value: &str) -> String {
        match self {
            Self::Environment(name) => format!("{name}={value}"),
            Self::Default => format!("{key} = {value:?}"),
            Self::File(place) => format!("{place}: {key} = {value:?}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => f.write_str(name),
            Self::File(place) => f.write_str(place),
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}
