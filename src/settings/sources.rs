//! Where a value can come from: the environment, a line of the file, a default. First one wins, and each value
//! remembers which it was.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

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
    file: Option<File>,
    notices: RefCell<Vec<String>>,
    known: RefCell<Vec<&'static str>>,
}

/// One table of the file, and the environment above it.
pub struct Table<'s> {
    sources: &'s Sources,
    name: &'static str,
    entries: &'s [Entry],
    asked: RefCell<Vec<&'static str>>,
}

struct File {
    path: PathBuf,
    text: String,
    root: Vec<Entry>,
}

/// `key = value` and where each stands in the text.
struct Entry {
    key: String,
    key_at: usize,
    value: Node,
    value_at: usize,
}

enum Node {
    Text(String),
    Whole(Option<i64>),
    Float(f64),
    Flag(bool),
    Table(Vec<Entry>),
    /// A list or a date: no setting is one.
    Other(&'static str),
}

/// The file that is read when nobody names another, if it is there.
pub const DEFAULT_FILE: &str = "telemetry.toml";

impl Sources {
    /// Reads the file at `path`; without one, `CRUDDUR_CONFIG` or `telemetry.toml` if it exists. A file that was named
    /// must exist.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not TOML.
    pub fn read(path: Option<&Path>, env: Env) -> Result<Self, SettingsError> {
        let named = path.or_else(|| env.get("CRUDDUR_CONFIG").map(Path::new));
        let path = match named {
            Some(path) => Some(path.to_owned()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let file = path.map(File::read).transpose()?;
        Ok(Self { env, file, notices: RefCell::default(), known: RefCell::default() })
    }

    /// A file that was never written to disk, for tests.
    ///
    /// # Errors
    ///
    /// The text is not TOML.
    pub fn from_text(text: &str, env: Env) -> Result<Self, SettingsError> {
        let file = Some(File::parse(PathBuf::from(DEFAULT_FILE), text.to_owned())?);
        Ok(Self { env, file, notices: RefCell::default(), known: RefCell::default() })
    }

    /// The file in use, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// The keys above the first table.
    #[must_use]
    pub fn top(&self) -> Table<'_> {
        Table { sources: self, name: "", entries: self.root(), asked: RefCell::default() }
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
        Ok(Table { sources: self, name, entries, asked: RefCell::default() })
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
                self.notice(format!("{name}={text} is not {wanted}; it is passed over"));
            }
            value.map(|value| Setting { value, origin: Origin::Environment(name) })
        })
    }

    /// Notes something that is not wrong enough to stop for. It is said once, at start.
    pub fn notice(&self, text: String) {
        self.notices.borrow_mut().push(text);
    }

    /// The notices so far.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.notices.borrow().clone()
    }

    fn root(&self) -> &[Entry] {
        self.file.as_ref().map_or(&[], |file| &file.root)
    }

    fn refuse_unknown(&self, table: &str, entries: &[Entry], known: &[&'static str]) -> Result<(), SettingsError> {
        let Some(unknown) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) else { return Ok(()) };
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(candidate, &unknown.key), candidate))
            .min()
            .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(2));
        let next = match nearest {
            Some((_, candidate)) => format!("did you mean \"{candidate}\"?"),
            None => format!("known are {}", known.join(", ")),
        };
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        Err(self.error(unknown.key_at, &format!("unknown key \"{}\"{place}; {next}", unknown.key)))
    }

    /// `telemetry.toml:12:3: problem`.
    fn error(&self, offset: usize, problem: &str) -> SettingsError {
        match &self.file {
            Some(file) => file.error(offset, problem),
            None => SettingsError(problem.to_owned()),
        }
    }
}

impl Table<'_> {
    /// `true` or `false`, from the file only: what is on is seen in one place.
    ///
    /// # Errors
    ///
    /// The value is something else.
    pub fn flag(&self, key: &'static str, default: bool) -> Result<Setting<bool>, SettingsError> {
        match self.entry(key) {
            None => Ok(Setting { value: default, origin: Origin::Default }),
            Some(entry) => match entry.value {
                Node::Flag(value) => Ok(Setting { value, origin: self.origin(entry) }),
                _ => Err(self.wrong_type(entry, "true or false")),
            },
        }
    }

    /// Text, from the first of the variables that is set, else from the file.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn text(&self, key: &'static str, env: &[&'static str]) -> Result<Option<Setting<String>>, SettingsError> {
        let in_file = match self.entry(key) {
            None => None,
            Some(entry) => match &entry.value {
                Node::Text(text) if text.is_empty() => None,
                Node::Text(text) => Some(Setting { value: text.clone(), origin: self.origin(entry) }),
                _ => return Err(self.wrong_type(entry, "text in quotes")),
            },
        };
        Ok(self.sources.variable(env, |text| Some(text.to_owned()), "text").or(in_file))
    }

    /// A whole number within `range`. A variable that is none is noticed and passed over.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn whole(
        &self,
        key: &'static str,
        env: &[&'static str],
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<Setting<u64>, SettingsError> {
        let (low, high) = (range.start(), range.end());
        let mut setting = Setting { value: default, origin: Origin::Default };
        if let Some(entry) = self.entry(key) {
            let Node::Whole(value) = entry.value else {
                return Err(self.wrong_type(entry, "a whole number"));
            };
            match value.and_then(|value| u64::try_from(value).ok()).filter(|value| range.contains(value)) {
                Some(value) => setting = Setting { value, origin: self.origin(entry) },
                None => {
                    return Err(self.error_at(entry, &format!("{} must be between {low} and {high}", self.full(key))));
                }
            }
        }
        let parse = |text: &str| text.parse().ok().filter(|value| range.contains(value));
        let wanted = format!("a whole number between {low} and {high}");
        Ok(self.sources.variable(env, parse, &wanted).unwrap_or(setting))
    }

    /// One of `names`, in any case. A variable that is none of them is noticed and passed over.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn choice(
        &self,
        key: &'static str,
        env: &[&'static str],
        names: &'static [&'static str],
        default: &'static str,
    ) -> Result<Setting<&'static str>, SettingsError> {
        let find = |text: &str| names.iter().copied().find(|name| name.eq_ignore_ascii_case(text.trim()));
        let mut setting = Setting { value: default, origin: Origin::Default };
        if let Some(entry) = self.entry(key) {
            let Node::Text(text) = &entry.value else {
                return Err(self.wrong_type(entry, "text in quotes"));
            };
            match find(text) {
                Some(value) => setting = Setting { value, origin: self.origin(entry) },
                None => {
                    let problem = format!("{} must be one of {}", self.full(key), names.join(", "));
                    return Err(self.error_at(entry, &problem));
                }
            }
        }
        let wanted = format!("one of {}", names.join(", "));
        Ok(self.sources.variable(env, find, &wanted).unwrap_or(setting))
    }

    /// All keys of a table that takes any, with text, numbers or booleans as values.
    ///
    /// # Errors
    ///
    /// A value is something else.
    pub fn pairs(&self) -> Result<Vec<(String, crate::trace::Value)>, SettingsError> {
        let pair = |entry: &Entry| match &entry.value {
            Node::Text(text) => Ok((entry.key.clone(), text.clone().into())),
            Node::Whole(Some(number)) => Ok((entry.key.clone(), (*number).into())),
            Node::Float(number) => Ok((entry.key.clone(), (*number).into())),
            Node::Flag(value) => Ok((entry.key.clone(), (*value).into())),
            Node::Table(_) => {
                let (table, key) = (self.name, &entry.key);
                let problem =
                    format!("[{table}] {key} has dots in it; put the whole key in quotes: \"{key}.name\" = \"value\"");
                Err(self.sources.error(entry.key_at, &problem))
            }
            _ => Err(self.wrong_type(entry, "text, a number, true or false")),
        };
        self.entries.iter().map(pair).collect()
    }

    /// Refuses keys that nobody asked for.
    ///
    /// # Errors
    ///
    /// There is one: the message names the nearest key that exists.
    pub fn finish(self) -> Result<(), SettingsError> {
        self.sources.refuse_unknown(self.name, self.entries, &self.asked.borrow())
    }

    fn entry(&self, key: &'static str) -> Option<&Entry> {
        let known = if self.name.is_empty() { &self.sources.known } else { &self.asked };
        known.borrow_mut().push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn origin(&self, entry: &Entry) -> Origin {
        match &self.sources.file {
            Some(file) => {
                let (line, _) = file.position(entry.value_at);
                Origin::File(format!("{}:{line}", file.path.display()))
            }
            None => Origin::Default,
        }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("[{}] {key}", self.name) }
    }

    fn wrong_type(&self, entry: &Entry, wanted: &str) -> SettingsError {
        let found = match entry.value {
            Node::Text(_) => "text",
            Node::Whole(Some(_)) => "a whole number",
            Node::Whole(None) => "a number that large",
            Node::Float(_) => "a number with a point",
            Node::Flag(_) => "true or false",
            Node::Table(_) => "a table",
            Node::Other(kind) => kind,
        };
        self.error_at(entry, &format!("{} must be {wanted}, not {found}", self.full(&entry.key)))
    }

    fn error_at(&self, entry: &Entry, problem: &str) -> SettingsError {
        self.sources.error(entry.value_at, problem)
    }
}

impl File {
    fn read(path: PathBuf) -> Result<Self, SettingsError> {
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, text),
            Err(error) => Err(SettingsError(format!(
                "{}: {error}; name another file with --config, or write one with `cruddur init`",
                path.display()
            ))),
        }
    }

    fn parse(path: PathBuf, text: String) -> Result<Self, SettingsError> {
        let mut file = Self { path, text, root: Vec::new() };
        match DeTable::parse(&file.text) {
            Ok(root) => {
                file.root = entries(root.get_ref());
                Ok(file)
            }
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                Err(file.error(offset, error.message().replace('\n', ", ").trim()))
            }
        }
    }

    fn error(&self, offset: usize, problem: &str) -> SettingsError {
        let (line, column) = self.position(offset);
        SettingsError(format!("{}:{line}:{column}: {problem}", self.path.display()))
    }

    /// Line and column, both from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: key.span().start,
            value: node(value.get_ref()),
            value_at: value.span().start,
        })
        .collect();
    // The parser sorts by name; the reader expects the order of the file.
    entries.sort_by_key(|entry| entry.key_at);
    entries
}

fn node(value: &DeValue<'_>) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => Node::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Node::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Node::Flag(*value),
        DeValue::Datetime(_) => Node::Other("a date"),
        DeValue::Array(_) => Node::Other("a list"),
        DeValue::Table(table) => Node::Table(entries(table)),
    }
}

impl Env {
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
