//! Sources of a setting, in order of priority: the environment, the file, the default. Each setting
//! keeps its origin.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{Entry, TomlFile, TomlValue};
use super::finding::Findings;
use super::section::Section;
use super::value_faults::{self, Meaning, PROXY_VARIABLES, VARIABLES};
use super::watch::FileContent;
use crate::text::{Message, one_line};

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Source of the value.
    pub origin: Origin,
}

/// Source of a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The default.
    Default,
    /// The environment variable of this name, or the command line option.
    Environment(&'static str),
    /// The line of the file: `telemetry.toml:12`.
    File(String),
}

/// Environment variables at start-up, without the faults that `value_faults` finds. An empty
/// variable counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Env {
    values: HashMap<String, String>,
    /// Variables whose value is a placeholder. They count as unset.
    unfilled: Vec<&'static str>,
    /// Faults of the values, in the order of the list of variables.
    faults: Vec<Message>,
}

/// Environment and settings file.
pub struct Sources {
    /// The environment.
    pub env: Env,
    file: Option<TomlFile>,
    /// All tables of the file, to name the one that a misplaced key belongs to.
    sections: Vec<&'static Section>,
}

/// Settings file that is read if it exists and no other file is named.
pub const DEFAULT_FILE: &str = "telemetry.toml";

/// Returns the path of the settings file: `--config`, else `CRUDDUR_CONFIG`, else `telemetry.toml`.
/// The flag is true if the user named the file. Then it must exist.
pub fn settings_path(config: Option<&Path>, env: &Env) -> (PathBuf, bool) {
    match config.or_else(|| env.get("CRUDDUR_CONFIG").map(Path::new)) {
        Some(path) => (path.to_owned(), true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    }
}

impl Sources {
    /// Reads the settings file, see [`settings_path`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not valid TOML.
    pub fn read(path: Option<&Path>, env: Env) -> Result<Self, Message> {
        let (path, named) = settings_path(path, &env);
        // If `try_exists` fails, try to read the file, so that the error gives the reason.
        if !named && path.try_exists().is_ok_and(|exists| !exists) {
            return Ok(Self { env, file: None, sections: Vec::new() });
        }
        Ok(Self { env, file: Some(TomlFile::read(path)?), sections: Vec::new() })
    }

    /// Parses `content`, which was read from `path`.
    ///
    /// # Errors
    ///
    /// The content is not valid TOML.
    pub fn from_content(path: &Path, content: Vec<u8>, env: Env) -> Result<Self, Message> {
        let file = Some(TomlFile::from_content(path.to_owned(), content)?);
        Ok(Self { env, file, sections: Vec::new() })
    }

    /// Parses `text` as the settings file, for tests and for `cruddur explain`.
    ///
    /// # Errors
    ///
    /// The text is not valid TOML.
    pub fn from_text(text: &str, env: Env) -> Result<Self, Message> {
        Self::from_content(Path::new(DEFAULT_FILE), text.as_bytes().to_vec(), env)
    }

    /// Sets the tables of the file, so that the message about a misplaced key can name its table.
    pub fn with_sections(self, sections: Vec<&'static Section>) -> Self {
        Self { sections, ..self }
    }

    /// Returns a path from the file. A relative one is relative to the directory of the file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let directory = self.path().and_then(Path::parent).unwrap_or_else(|| Path::new(""));
        directory.join(path)
    }

    /// Returns the path of the file in use, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Returns the content of the file.
    pub fn content(&self) -> FileContent {
        self.file
            .as_ref()
            .map_or(FileContent::Absent, |file| FileContent::from_read(Ok(file.text.clone().into_bytes())))
    }

    /// Returns the value of the first of these variables that is set and valid. Adds a finding for
    /// each invalid one. `wanted` describes valid values.
    pub fn variable<T>(
        &self,
        names: &[&'static str],
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
        findings: &mut Findings,
    ) -> Option<Setting<T>> {
        names.iter().find_map(|name| {
            let text = self.env.get(name)?.trim();
            let value = parse(text);
            if value.is_none() {
                findings.warn(format!("{name}={text} is not {wanted}; it is ignored"));
            }
            value.map(|value| Setting { value, origin: Origin::Environment(name) })
        })
    }

    /// Refuses top-level keys and tables that the program does not know.
    ///
    /// # Errors
    ///
    /// The file has an unknown key. The message suggests the nearest known key.
    pub fn refuse_unknown_tables(&self, known: &[&str]) -> Result<(), Message> {
        self.refuse_unknown("", known)
    }

    /// Returns the entries of the table `name`, or of the top level if `name` is empty. Returns no
    /// entries if the table is missing.
    pub(super) fn entries_of(&self, name: &str) -> Result<&[Entry], Message> {
        let root = self.file.as_ref().map_or(&[][..], |file| &file.root);
        if name.is_empty() {
            return Ok(root);
        }
        match root.iter().find(|entry| entry.key == name) {
            None => Ok(&[]),
            Some(Entry { value: TomlValue::Table(entries), .. }) => Ok(entries),
            Some(entry) => Err(self.error(entry.key_at, &format!("[{name}] must be a table"))),
        }
    }

    pub(super) fn refuse_unknown(&self, table: &str, known: &[&str]) -> Result<(), Message> {
        let entries = self.entries_of(table)?;
        let Some(unknown) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) else { return Ok(()) };
        let lower_case = unknown.key.to_ascii_lowercase();
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(candidate, &lower_case), candidate))
            .min()
            .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3));
        let owners = self.owners(&lower_case);
        let next = match nearest {
            Some((0, candidate)) => format!("write it in lower case: \"{candidate}\""),
            _ if !owners.is_empty() => format!("it belongs {owners}"),
            Some((_, candidate)) => format!("did you mean \"{candidate}\"?"),
            None => format!("known are {}", known.join(", ")),
        };
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        // A text that does not look like a key may be a secret in the wrong place.
        let is_name = |c: char| c.is_ascii_lowercase() || "_-. ".contains(c);
        let is_known = matches!(nearest, Some((0, _))) || !owners.is_empty();
        let may_be_shown = is_known || (unknown.key.len() <= 40 && unknown.key.chars().all(is_name));
        let key = if may_be_shown { format!(" \"{}\"", unknown.key) } else { String::new() };
        Err(self.error(unknown.key_at, &format!("unknown key{key}{place}; {next}")))
    }

    /// Returns the places that a key belongs to, as text: `under [honeycomb]`. Empty for an unknown
    /// key.
    fn owners(&self, key: &str) -> String {
        let has_key = |section: &&&Section| section.keys.iter().any(|known| known.name == key);
        let names: Vec<_> = self.sections.iter().filter(has_key).map(|section| format!("[{}]", section.name)).collect();
        match &names[..] {
            [] => String::new(),
            [one] if one == "[]" => "above the first table".to_owned(),
            [one] => format!("under {one}"),
            several => format!("under one of {}", several.join(", ")),
        }
    }

    /// Returns a text of the file without the faults that `value_faults` finds, and adds a
    /// finding about them. `None` if it counts as unset. `name` is the full name of the key.
    pub(super) fn check_entry(&self, entry: &Entry, name: &str, text: &str, findings: &mut Findings) -> Option<String> {
        let checked = value_faults::check(text, Meaning::of(name));
        let place = self.origin_of(entry);
        checked.message(&format!("{place}: {}", one_line(name))).into_iter().for_each(|fault| findings.warn(fault));
        checked.value.map(Cow::into_owned)
    }

    /// Returns the line of an entry as an origin.
    pub(super) fn origin_of(&self, entry: &Entry) -> Origin {
        self.file.as_ref().map_or(Origin::Default, |file| Origin::File(file.line_of(entry.value_at)))
    }

    /// Returns the message `telemetry.toml:12:3: problem`.
    pub(super) fn error(&self, offset: usize, problem: &str) -> Message {
        self.file.as_ref().map_or_else(|| Message::new(problem), |file| file.error(offset, problem))
    }
}

impl Env {
    /// Returns the names of all variables, including empty ones.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::from_variables(std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect())
    }

    fn from_variables(mut values: HashMap<String, String>) -> Self {
        let (mut unfilled, mut faults) = (Vec::new(), Vec::new());
        for name in VARIABLES {
            let Some(text) = values.get(*name).filter(|text| !text.trim().is_empty()) else { continue };
            let checked = value_faults::check(text, Meaning::of(name));
            faults.extend(checked.message(name));
            if checked.value.is_none() {
                unfilled.push(*name);
            }
            let value = checked.value.map_or_else(String::new, Cow::into_owned);
            values.insert((*name).to_owned(), value);
        }
        faults.extend(PROXY_VARIABLES.iter().filter_map(|name| {
            let value = values.get(*name)?;
            let is_wrong = value.contains("${") || !value_faults::check(value, Meaning::of(name)).faults.is_empty();
            let what = format!("{name}: its value has quotes, a placeholder or invisible characters, so it is ignored");
            is_wrong.then(|| Message::new(what).next("write the address alone, like http://host:port"))
        }));
        Self { values, unfilled, faults }
    }

    /// Returns the faults of the values.
    pub(super) fn faults(&self) -> &[Message] {
        &self.faults
    }

    /// Returns true if the variable is set to a placeholder, such as `${NAME}`.
    pub fn is_unfilled(&self, name: &str) -> bool {
        self.unfilled.contains(&name)
    }

    /// Returns the value of the variable, or `None` if it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// Returns true if the variable is set, even if it is empty.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self::from_variables(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Origin {
    /// Returns source, key and value for the beginning of a message: `AWS_XRAY_URL=*x*`, or
    /// `telemetry.toml:7: [xray] host_pattern = "*x*"`.
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
