//! Content of `telemetry.toml` as a tree whose nodes know their position in the text.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::text::Message;
use crate::text::encoding::{self, NotUtf8, SAVE_AS_UTF8};

pub(super) struct TomlFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) root: Vec<Entry>,
}

/// `key = value`, with the byte offsets of both.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: usize,
    pub(super) value: TomlValue,
    pub(super) value_at: usize,
}

pub(super) enum TomlValue {
    Text(String),
    Whole(Option<i64>),
    Float(f64),
    Flag(bool),
    Table(Vec<Entry>),
    /// A list of texts. `None` if an item has another type.
    List(Option<Vec<String>>),
    /// A date, which no setting accepts.
    Other(&'static str),
}

/// Quotes that word processors and web pages write in place of `"` and `'`.
const TYPOGRAPHIC: [char; 9] = ['“', '”', '„', '‟', '‘', '’', '‚', '«', '»'];
/// Larger files are rejected, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Reads a file, at most one byte more than [`MAX_FILE`].
///
/// # Errors
///
/// The file cannot be read, or is a pipe: opening a pipe blocks until another process writes to it.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file, but a pipe"));
    }
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

impl TomlFile {
    pub(super) fn read(path: PathBuf) -> Result<Self, Message> {
        match read_bounded(&path) {
            Ok(content) => Self::from_content(path, content),
            Err(error) => Err(Message::new(format!("{error}: {}", path.display()))
                .next("name another file with --config, or write one with `cruddur init`")),
        }
    }

    pub(super) fn from_content(path: PathBuf, content: Vec<u8>) -> Result<Self, Message> {
        let too_long = content.len() > MAX_FILE;
        let problem = encoding::utf8(&content).err();
        let text =
            String::from_utf8(content).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let mut file = Self { path, text, root: Vec::new() };
        if too_long {
            return Err(file.error(0, "file too large (more than 1 MiB); is it the right one?"));
        }
        if let Some(problem) = problem {
            let at = if let NotUtf8::InvalidAt(at) = problem { at } else { 0 };
            return Err(file.error(at, &format!("{problem}; {SAVE_AS_UTF8}")));
        }
        match DeTable::parse(&file.text) {
            Ok(root) => {
                file.root = entries(root.get_ref());
                Ok(file)
            }
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                let problem = error.message().replace('\n', ", ");
                Err(file.error(offset, file.common_mistake(offset).unwrap_or_else(|| problem.trim())))
            }
        }
    }

    /// Returns a better message for a mistake that is common at this place.
    fn common_mistake(&self, offset: usize) -> Option<&'static str> {
        let rest = self.text.get(offset..)?.lines().next()?;
        let line_start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next()?;
        let value = line.split_once('=').map_or("", |(_, value)| value).trim_start();
        let is_in_value = self.text[line_start..offset].contains('=');
        let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next()?.to_ascii_lowercase();
        if rest.starts_with(TYPOGRAPHIC) || value.starts_with(TYPOGRAPHIC) || line.starts_with(TYPOGRAPHIC) {
            return Some("typographic quotes; write straight ones: \"");
        }
        if value.trim_end().ends_with(TYPOGRAPHIC) && value.starts_with(['"', '\'']) {
            return Some("the closing quote is a typographic one; write a straight one: \"");
        }
        match word.as_str() {
            _ if !is_in_value => None,
            "true" => Some("TOML knows only lower case here; write true"),
            "false" => Some("TOML knows only lower case here; write false"),
            "yes" | "on" => Some("TOML has no such word; write true"),
            "no" | "off" => Some("TOML has no such word; write false"),
            "none" | "null" | "nil" => Some("TOML has no empty value; remove the line, or put # in front of it"),
            _ => None,
        }
    }

    pub(super) fn error(&self, offset: usize, problem: &str) -> Message {
        let (line, column) = self.position(offset);
        Message::new(format!("{}:{line}:{column}: {problem}", self.path.display()))
    }

    /// `telemetry.toml:12`
    pub(super) fn line_of(&self, offset: usize) -> String {
        format!("{}:{}", self.path.display(), self.position(offset).0)
    }

    /// Returns line and column, both counted from 1. The column is in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        // A byte order mark at the beginning is not a part of the first line.
        let line = before[line_start..].trim_start_matches('\u{feff}');
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

impl TomlValue {
    /// Returns the type of the value, in words for an error message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Whole(Some(_)) => "a whole number",
            Self::Whole(None) => "a number that is too large",
            Self::Float(_) => "a decimal number",
            Self::Flag(_) => "true or false",
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
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
    // The parser sorts by name. Restore the order of the file.
    entries.sort_by_key(|entry| entry.key_at);
    entries
}

fn node(value: &DeValue<'_>) -> TomlValue {
    match value {
        DeValue::String(text) => TomlValue::Text(text.to_string()),
        DeValue::Integer(number) => TomlValue::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => TomlValue::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => TomlValue::Flag(*value),
        DeValue::Datetime(_) => TomlValue::Other("a date"),
        DeValue::Array(items) => {
            TomlValue::List(items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect())
        }
        DeValue::Table(table) => TomlValue::Table(entries(table)),
    }
}
