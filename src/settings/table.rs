//! One table of `telemetry.toml`, and the environment above it.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::file::{Entry, Node};
use super::finding::{described_address, described_secret};
use super::{Origin, Setting, SettingsError, Sources};
use crate::wire::http;

/// One table of the file, and the environment above it.
pub struct Table<'s> {
    sources: &'s Sources,
    name: &'static str,
    entries: &'s [Entry],
    asked: RefCell<Vec<&'static str>>,
}

impl<'s> Table<'s> {
    pub(super) fn new(sources: &'s Sources, name: &'static str, entries: &'s [Entry]) -> Self {
        Self { sources, name, entries, asked: RefCell::default() }
    }

    pub(super) fn sources(&self) -> &'s Sources {
        self.sources
    }
}

impl Table<'_> {
    /// `true` or `false`, from the file only: what is on is seen in one place.
    ///
    /// # Errors
    ///
    /// The value is something else.
    pub fn flag(&self, key: &'static str, default: bool) -> Result<Setting<bool>, SettingsError> {
        let setting = match self.entry(key) {
            None => Setting { value: default, origin: Origin::Default },
            Some(entry) => match entry.value {
                Node::Flag(value) => Setting { value, origin: self.origin(entry) },
                _ => return Err(self.wrong_type(entry, "true or false")),
            },
        };
        Ok(self.recorded(key, setting))
    }

    /// Text, from the first of the variables that is set, else from the file.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn text(&self, key: &'static str, env: &[&'static str]) -> Result<Option<Setting<String>>, SettingsError> {
        self.text_shown(key, env, shown)
    }

    /// Like [`Self::text`], for an address.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn address(&self, key: &'static str, env: &[&'static str]) -> Result<Option<Setting<String>>, SettingsError> {
        self.text_shown(key, env, described_address)
    }

    /// Like [`Self::text`], but nobody may see the value.
    ///
    /// # Errors
    ///
    /// The file has something else under that key.
    pub fn secret(&self, key: &'static str, env: &[&'static str]) -> Result<Option<Setting<String>>, SettingsError> {
        self.text_shown(key, env, described_secret)
    }

    fn text_shown(
        &self,
        key: &'static str,
        env: &[&'static str],
        shown: impl Fn(&str) -> String,
    ) -> Result<Option<Setting<String>>, SettingsError> {
        let in_file = match self.entry(key) {
            None => None,
            Some(entry) => match &entry.value {
                Node::Text(text) if text.is_empty() => None,
                Node::Text(text) => Some(Setting { value: text.clone(), origin: self.origin(entry) }),
                _ => return Err(self.wrong_type(entry, "text in quotes")),
            },
        };
        let setting = self.sources.variable(env, |text| Some(text.to_owned()), "text").or(in_file);
        if let Some(Setting { value, origin }) = &setting {
            self.sources.record(self.full(key), value.as_bytes(), shown(value), origin.clone());
        }
        Ok(setting)
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
        Ok(self.recorded(key, self.sources.variable(env, parse, &wanted).unwrap_or(setting)))
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
        Ok(self.recorded(key, self.sources.variable(env, find, &wanted).unwrap_or(setting)))
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
        let pairs = self.entries.iter().map(|entry| {
            let (key, value) = pair(entry)?;
            self.sources.record(self.full(&key), format!("{value:?}").as_bytes(), String::new(), self.origin(entry));
            Ok((key, value))
        });
        pairs.collect()
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

    fn recorded<T: Display>(&self, key: &str, setting: Setting<T>) -> Setting<T> {
        let shown = setting.value.to_string();
        self.sources.record(self.full(key), shown.as_bytes(), shown.clone(), setting.origin.clone());
        setting
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

/// A value as it may be shown: what looks like an address may have a password in it.
fn shown(text: &str) -> String {
    if text.contains("://") || text.contains('@') { http::shown(text) } else { text.to_owned() }
}
