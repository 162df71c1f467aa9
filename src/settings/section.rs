//! The declaration of settings: each one stands in the program exactly once, with its name, its kind, its default, the
//! environment variables that win over the file, and its documentation.
//!
//! ```text
//! section! {
//!     /// X-Ray.                                                   the comment above the table in telemetry.toml
//!     struct XRay("xray") {
//!         /// How often rules are fetched, in milliseconds.        the comment above the key
//!         rules_interval: u64 = whole(300_000, 100..=86_400_000),
//!         /// "host:port" of the daemon.
//!         daemon_address: String = text("127.0.0.1:2000", Shown::Plain).from(&["AWS_XRAY_DAEMON_ADDRESS"]),
//!     }
//! }
//! ```
//!
//! From it come the struct with a [`Setting`](super::Setting) for each key, the text of telemetry.toml, the rows of the README,
//! the listing of `cruddur check`, the hint for a key that does not exist, and the default.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use super::values::{Scalar, Values};
use super::{Findings, Sources};
use crate::text::{Message, wrap};

/// A table of telemetry.toml, or the keys above the first one.
pub struct Section {
    /// The name of the table; empty for the keys above the first one.
    pub name: &'static str,
    /// The lines of the comment above it.
    pub doc: &'static [&'static str],
    /// Its keys, in the order in which the file shows them.
    pub keys: &'static [Key],
}

/// One setting.
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// The environment variables that win over the file; the first one that is set counts.
    pub variables: &'static [&'static str],
    /// The lines of its comment; empty if the comment above the key before it is about this one too.
    pub doc: &'static [&'static str],
    /// What it can hold, and what it holds by default.
    pub shape: Shape,
}

/// What a setting can hold, and what it holds by default.
#[derive(Clone, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number, and the range that it must be in.
    Whole(u64, RangeInclusive<u64>),
    /// One of these names.
    Choice(&'static str, &'static [&'static str]),
    /// Text with a default.
    Text(&'static str, Shown),
    /// Text that may be unset, with an example of it.
    Optional(&'static str, Shown),
}

/// How a text may be shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// As it is, except for user and password in what looks like a URL.
    Plain,
    /// As a URL without user, password and query.
    Redacted,
    /// Only its length, and its end if it is long.
    Described,
}

/// The shape of a setting whose value is a `T`, and its variables.
pub struct Kind<T> {
    /// What it can hold.
    pub shape: Shape,
    /// The environment variables that win over the file.
    pub variables: &'static [&'static str],
    value: PhantomData<T>,
}

impl<T: 'static> Kind<T> {
    const fn new(shape: Shape) -> Self {
        Self { shape, variables: &[], value: PhantomData }
    }

    /// The same setting, read from these environment variables first.
    #[must_use]
    pub const fn from(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }
}

/// `true` or `false`.
#[must_use]
pub const fn flag(default: bool) -> Kind<bool> {
    Kind::new(Shape::Flag(default))
}

/// A whole number within `range`.
#[must_use]
pub const fn whole(default: u64, range: RangeInclusive<u64>) -> Kind<u64> {
    Kind::new(Shape::Whole(default, range))
}

/// One of `names`, in any case.
#[must_use]
pub const fn choice(default: &'static str, names: &'static [&'static str]) -> Kind<&'static str> {
    Kind::new(Shape::Choice(default, names))
}

/// Text with a default.
#[must_use]
pub const fn text(default: &'static str, shown: Shown) -> Kind<String> {
    Kind::new(Shape::Text(default, shown))
}

/// Text that may be unset.
#[must_use]
pub const fn optional(example: &'static str, shown: Shown) -> Kind<Option<String>> {
    Kind::new(Shape::Optional(example, shown))
}

/// What a field of a section's struct can be.
pub trait FromScalar: Sized {
    /// The value, if the scalar is of that type.
    fn from_scalar(scalar: Scalar) -> Option<Self>;
}

macro_rules! from_scalar {
    ($($type:ty: $($pattern:pat => $value:expr),+;)*) => {
        $(impl FromScalar for $type {
            fn from_scalar(scalar: Scalar) -> Option<Self> {
                match scalar {
                    $($pattern => Some($value),)+
                    _ => None,
                }
            }
        })*
    };
}
from_scalar! {
    bool: Scalar::Flag(value) => value;
    u64: Scalar::Whole(value) => value;
    &'static str: Scalar::Choice(value) => value;
    String: Scalar::Text(value) => value;
    Option<String>: Scalar::Text(value) => Some(value), Scalar::Unset => None;
}

/// The width of comments in telemetry.toml.
const WIDTH: usize = 100;

impl Section {
    /// Reads the section. A variable with a value that cannot be used is a finding, and the next source counts.
    ///
    /// # Errors
    ///
    /// The file has an unknown key in it, or a value of the wrong type.
    pub fn read(&'static self, sources: &Sources, findings: &mut Findings) -> Result<Values, Message> {
        Values::read(self, sources, findings)
    }

    /// The section as telemetry.toml shows it: a comment on every key, and its default.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = comment(self.doc.iter().map(|line| line.trim()));
        if self.name.is_empty() {
            // Each paragraph of its own: there is no table around these.
            text.extend(self.keys.iter().map(|key| format!("\n{}", key.toml())));
        } else {
            let _ = writeln!(text, "[{}]", self.name);
            text.extend(self.keys.iter().map(Key::toml));
        }
        text
    }
}

impl Key {
    fn toml(&self) -> String {
        let variables = self.variables.join(", ");
        let text = self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        let text = [text.as_str(), &variables].join(" ");
        let comment = comment(wrap(text.trim(), WIDTH - 2).lines());
        let (mark, value) = match &self.shape {
            Shape::Flag(default) => ("", default.to_string()),
            Shape::Whole(default, _) => ("", default.to_string()),
            Shape::Choice(default, _) | Shape::Text(default, _) => ("", format!("{default:?}")),
            Shape::Optional(example, _) => ("# ", format!("{example:?}")),
        };
        format!("{comment}{mark}{} = {value}\n", self.name)
    }
}

fn comment<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| format!("# {line}\n")).collect()
}

/// Declares a section: its struct, its keys, and how the one is read from the other.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis struct $name:ident($table:literal) {
            $($(#[doc = $key_doc:literal])* $key:ident: $type:ty = $kind:expr,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone)]
        $visibility struct $name {
            $($(#[doc = $key_doc])* #[doc = ""] $visibility $key: $crate::settings::Setting<$type>,)*
        }

        impl $name {
            /// The declaration.
            $visibility const SECTION: $crate::settings::Section = $crate::settings::Section {
                name: $table,
                doc: &[$($doc),*],
                keys: &[$({
                    const KIND: $crate::settings::section::Kind<$type> = $kind;
                    $crate::settings::section::Key {
                        name: stringify!($key),
                        variables: KIND.variables,
                        doc: &[$($key_doc),*],
                        shape: KIND.shape,
                    }
                }),*],
            };

            /// Reads the section: typed, and as values that can be listed and compared.
            ///
            /// # Errors
            ///
            /// The file has an unknown key in it, or a value of the wrong type.
            $visibility fn read(
                sources: &$crate::settings::Sources,
                findings: &mut $crate::settings::Findings,
            ) -> Result<(Self, $crate::settings::Values), $crate::text::Message> {
                const SECTION: &$crate::settings::Section = &$name::SECTION;
                let values = SECTION.read(sources, findings)?;
                let typed = Self { $($key: values.get(stringify!($key))),* };
                Ok((typed, values))
            }
        }
    };
}
pub(crate) use section;
