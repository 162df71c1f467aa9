//! Values of a section: from the environment, else from the file, else the default.

use std::io;
use std::path::Path;

use super::file::{Entry, TomlValue, read_bounded};
use super::section::{FromScalar, Key, Section, Shape, Shown};
use super::{Findings, Origin, Setting, Sources, described_address, described_secret};
use crate::text::{Message, url};

/// Values of a section and other inputs of a backend. Equal values build equal backends.
///
/// There is no `Debug`, because values can be secrets. Each value has a text that may be displayed.
#[derive(Clone, Default)]
pub struct Values(Vec<ResolvedValue>);

/// One value, with its key and its origin.
#[derive(Clone)]
pub struct ResolvedValue {
    /// Table and key: `[honeycomb] endpoint`.
    pub key: String,
    /// Text of the value, without secrets and passwords.
    pub shown: String,
    /// Source of the value.
    pub origin: Origin,
    scalar: Scalar,
}

impl ResolvedValue {
    /// Returns false if the setting is unset and has no default.
    pub fn is_set(&self) -> bool {
        self.scalar != Scalar::Unset
    }
}

/// A value of a setting, or another input of a backend.
#[derive(Clone, PartialEq)]
pub enum Scalar {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// One of several names.
    Choice(&'static str),
    /// Text.
    Text(String),
    /// A list of names.
    Names(Vec<String>),
    /// Content of a file that a setting names.
    Content(Vec<u8>),
    /// No value and no default.
    Unset,
}

impl Values {
    /// Reads the section. If a variable is invalid, adds a finding and uses the next source.
    ///
    /// # Errors
    ///
    /// The table has an unknown key, or a value of the wrong type.
    pub(crate) fn read(section: &Section, sources: &Sources, findings: &mut Findings) -> Result<Self, Message> {
        let table = Table { name: section.name, entries: sources.entries_of(section.name)?, sources };
        if !section.name.is_empty() {
            let known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            sources.refuse_unknown(section.name, &known)?;
        }
        section.keys.iter().map(|key| table.read(key, findings)).collect::<Result<_, _>>().map(Self)
    }

    /// Adds another input that a backend depends on.
    pub fn add(&mut self, key: impl Into<String>, scalar: Scalar, shown: impl Into<String>, origin: Origin) {
        self.0.push(ResolvedValue { key: key.into(), shown: shown.into(), origin, scalar });
    }

    /// Replaces a value that another source has decided.
    pub(super) fn set(&mut self, key: &str, scalar: Scalar, shown: &str, origin: &Origin) {
        if let Some(value) = self.0.iter_mut().find(|value| value.key == key) {
            (value.scalar, value.shown, value.origin) = (scalar, shown.to_owned(), origin.clone());
        }
    }

    /// Reads a file that a setting names, and adds its content to the values.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read_file(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.read_file_at(Path::new(path), path)
    }

    /// Reads the file at `path`, like [`Self::read_file`]. `given` is the path as it was written.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn read_file_at(&mut self, path: &Path, given: &str) -> io::Result<Vec<u8>> {
        let read = read_bounded(path);
        let key = format!("content of {given}");
        match &read {
            Ok(bytes) => {
                let shown = format!("{} bytes", bytes.len());
                self.add(key, Scalar::Content(bytes.clone()), shown, Origin::Default);
            }
            Err(error) => self.add(key, Scalar::Content(Vec::new()), error.to_string(), Origin::Default),
        }
        read
    }

    /// Adds the values of another section.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns all values, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = &ResolvedValue> {
        self.0.iter()
    }

    /// Returns the keys whose values differ from `before`, including removed keys.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let is_same = |one: &ResolvedValue, other: &ResolvedValue| one.key == other.key && one.scalar == other.scalar;
        let new = self.iter().filter(|now| !before.iter().any(|before| is_same(now, before)));
        let gone = before.iter().filter(|before| self.iter().all(|now| now.key != before.key));
        let mut keys: Vec<String> = new.chain(gone).map(|value| value.key.clone()).collect();
        keys.dedup();
        keys
    }

    /// Returns the typed value of a key that the section declares.
    pub(crate) fn get<T: FromScalar>(&self, key: &'static str) -> Setting<T> {
        let has_key = |value: &&ResolvedValue| {
            value.key.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with(' '))
        };
        let value = self.0.iter().find(has_key).expect("the macro `section` reads the keys that it declares");
        let typed =
            T::from_scalar(value.scalar.clone()).expect("the kind of a key makes values of the type of its field");
        Setting { value: typed, origin: value.origin.clone() }
    }
}

/// One table of the file.
struct Table<'s> {
    name: &'static str,
    entries: &'s [Entry],
    sources: &'s Sources,
}

impl Table<'_> {
    fn read(&self, key: &Key, findings: &mut Findings) -> Result<ResolvedValue, Message> {
        let in_file = match self.entries.iter().find(|entry| entry.key == key.name) {
            Some(entry) => {
                self.parse_entry(key, entry, findings)?.map(|scalar| (scalar, self.sources.origin_of(entry)))
            }
            None => None,
        };
        let (parse, wanted) = (|text: &str| parse_variable(&key.shape, text), wanted(&key.shape));
        let variable = self.sources.variable(key.variables, parse, &wanted, findings);
        let (scalar, origin) = match variable.map(|setting| (setting.value, setting.origin)).or(in_file) {
            Some(found) => found,
            None => (default(&key.shape), Origin::Default),
        };
        Ok(ResolvedValue { key: self.full_key(key.name), shown: shown(&key.shape, &scalar), origin, scalar })
    }

    /// Returns the value from the file. An empty text counts as unset and is `None`.
    fn parse_entry(&self, key: &Key, entry: &Entry, findings: &mut Findings) -> Result<Option<Scalar>, Message> {
        let error = |problem: String| Err(self.sources.error(entry.value_at, &problem));
        let name = self.full_key(key.name);
        let mut check = |text: &str| self.sources.check_entry(entry, &name, text, findings);
        match (&key.shape, &entry.value) {
            (Shape::Flag(_), TomlValue::Flag(value)) => Ok(Some(Scalar::Flag(*value))),
            (Shape::Whole(_, range), TomlValue::Whole(value)) => {
                let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| range.contains(value));
                match value {
                    Some(value) => Ok(Some(Scalar::Whole(value))),
                    None => error(format!("{name} must be between {} and {}", range.start(), range.end())),
                }
            }
            (Shape::Choice(_, names), TomlValue::Text(text)) => match find(names, &check(text).unwrap_or_default()) {
                Some(value) => Ok(Some(Scalar::Choice(value))),
                None => error(format!("{name} must be one of {}", names.join(", "))),
            },
            (Shape::Text(..) | Shape::Optional(..), TomlValue::Text(text)) => {
                Ok(check(text).filter(|text| !text.is_empty()).map(Scalar::Text))
            }
            (Shape::Names, TomlValue::List(Some(names))) => {
                Ok(Some(Scalar::Names(names.iter().filter_map(|name| check(name)).collect())))
            }
            (Shape::Names, TomlValue::List(None)) => error(format!("{name} must contain only texts in quotes")),
            (shape, found) => {
                let wanted = match shape {
                    Shape::Flag(_) => "true or false",
                    Shape::Whole(..) => "a whole number",
                    Shape::Names => "a list of texts, such as [\"one\", \"two\"]",
                    _ => "text in quotes",
                };
                let quoted = match found {
                    TomlValue::Text(text) if parse_variable(shape, text.trim()).is_some() => match shape {
                        Shape::Names => String::new(),
                        _ => format!("; write {} without quotes", text.trim().to_ascii_lowercase()),
                    },
                    _ => String::new(),
                };
                error(format!("{name} must be {wanted}, not {}{quoted}", found.kind()))
            }
        }
    }

    fn full_key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("[{}] {key}", self.name) }
    }
}

fn default(shape: &Shape) -> Scalar {
    match shape {
        Shape::Flag(default) => Scalar::Flag(*default),
        Shape::Whole(default, _) => Scalar::Whole(*default),
        Shape::Choice(default, _) => Scalar::Choice(default),
        Shape::Text(default, _) => Scalar::Text((*default).to_owned()),
        Shape::Optional(..) => Scalar::Unset,
        Shape::Names => Scalar::Names(Vec::new()),
    }
}

fn parse_variable(shape: &Shape, text: &str) -> Option<Scalar> {
    match shape {
        Shape::Flag(_) => text.to_ascii_lowercase().parse().ok().map(Scalar::Flag),
        Shape::Whole(_, range) => text.parse().ok().filter(|value| range.contains(value)).map(Scalar::Whole),
        Shape::Choice(_, names) => find(names, text).map(Scalar::Choice),
        Shape::Text(..) | Shape::Optional(..) => Some(Scalar::Text(text.to_owned())),
        Shape::Names => {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            Some(Scalar::Names(names.map(str::to_owned).collect()))
        }
    }
}

fn wanted(shape: &Shape) -> String {
    match shape {
        Shape::Flag(_) => "true or false".to_owned(),
        Shape::Whole(_, range) => format!("a whole number between {} and {}", range.start(), range.end()),
        Shape::Choice(_, names) => format!("one of {}", names.join(", ")),
        Shape::Text(..) | Shape::Optional(..) => "text".to_owned(),
        Shape::Names => "names, separated by commas".to_owned(),
    }
}

fn find(names: &[&'static str], text: &str) -> Option<&'static str> {
    names.iter().copied().find(|name| name.eq_ignore_ascii_case(text.trim()))
}

fn shown(shape: &Shape, scalar: &Scalar) -> String {
    match (scalar, shape) {
        (Scalar::Flag(value), _) => value.to_string(),
        (Scalar::Whole(value), _) => value.to_string(),
        (Scalar::Choice(value), _) => (*value).to_owned(),
        (Scalar::Text(text), Shape::Text(_, Shown::Described) | Shape::Optional(_, Shown::Described)) => {
            described_secret(text)
        }
        (Scalar::Text(text), Shape::Text(_, Shown::Redacted) | Shape::Optional(_, Shown::Redacted)) => {
            described_address(text)
        }
        // A text that looks like a URL may contain a password.
        (Scalar::Text(text), _) if text.contains("://") || text.contains('@') => url::redacted(text),
        (Scalar::Text(text), _) => text.clone(),
        (Scalar::Names(names), _) => names.iter().map(|name| url::redacted(name)).collect::<Vec<_>>().join(", "),
        (Scalar::Content(_) | Scalar::Unset, _) => String::new(),
    }
}
