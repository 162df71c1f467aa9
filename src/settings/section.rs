//! Declaration of settings. The macro `section!` declares each setting once, with its name, type,
//! default, documentation, and the environment variables that override it.
//!
//! ```text
//! section! {
//!     /// AWS X-Ray.                                        comment of the table in telemetry.toml
//!     struct XRay("xray") {
//!         /// Time between two fetches, in milliseconds.    comment of the key
//!         rules_interval: u64 = whole(300_000, 100..=86_400_000),
//!         /// "host:port" of the daemon.
//!         daemon_address: String =
//!             text("127.0.0.1:2000", Shown::Plain).from(&["AWS_XRAY_DAEMON_ADDRESS"]),
//!     }
//! }
//! ```
//!
//! The declaration yields the struct with a [`Setting`](super::Setting) for each key, the default,
//! the text of telemetry.toml, the rows of docs/settings.md, the listing of `cruddur check`, and the
//! suggestion for an unknown key.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use super::values::Scalar;
use crate::text::wrap;

/// A table of telemetry.toml, or the keys above the first table.
pub struct Section {
    /// Name of the table. Empty for the keys above the first table.
    pub name: &'static str,
    /// Lines of the comment above the table.
    pub doc: &'static [&'static str],
    /// Keys, in the order of the file.
    pub keys: &'static [Key],
}

/// One setting.
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// Environment variables that override the file. The first one that is set is used.
    pub variables: &'static [&'static str],
    /// Lines of the comment. Empty if the key needs none, or shares that of the key before it.
    pub doc: &'static [&'static str],
    /// Type and default.
    pub shape: Shape,
}

/// Type of a setting, with its default.
#[derive(Clone, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number, and its allowed range.
    Whole(u64, RangeInclusive<u64>),
    /// A default, and the allowed names.
    Choice(&'static str, &'static [&'static str]),
    /// Text with a default.
    Text(&'static str, Shown),
    /// Text that may be unset, with an example value.
    Optional(&'static str, Shown),
    /// A list of names, empty by default. In a variable, commas separate them.
    Names,
}

/// Form in which a text may be displayed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// The text itself. If it looks like a URL, user and password are removed.
    Plain,
    /// A URL without user, password and query.
    Redacted,
    /// The length of the text, and its last characters if it is long.
    Described,
}

/// Shape and variables of a setting of type `T`.
pub struct Kind<T> {
    /// Type and default.
    pub shape: Shape,
    /// Environment variables that override the file.
    pub variables: &'static [&'static str],
    value: PhantomData<T>,
}

impl<T: 'static> Kind<T> {
    const fn new(shape: Shape) -> Self {
        Self { shape, variables: &[], value: PhantomData }
    }

    /// Adds environment variables that override the file.
    pub const fn from(mut self, variables: &'static [&'static str]) -> Self {
        self.variables = variables;
        self
    }
}

/// Declares `true` or `false`.
pub const fn flag(default: bool) -> Kind<bool> {
    Kind::new(Shape::Flag(default))
}

/// Declares a whole number within `range`.
pub const fn whole(default: u64, range: RangeInclusive<u64>) -> Kind<u64> {
    Kind::new(Shape::Whole(default, range))
}

/// Declares one of `names`, in upper or lower case.
pub const fn choice(default: &'static str, names: &'static [&'static str]) -> Kind<&'static str> {
    Kind::new(Shape::Choice(default, names))
}

/// Declares text with a default.
pub const fn text(default: &'static str, shown: Shown) -> Kind<String> {
    Kind::new(Shape::Text(default, shown))
}

/// Declares text that may be unset.
pub const fn optional(example: &'static str, shown: Shown) -> Kind<Option<String>> {
    Kind::new(Shape::Optional(example, shown))
}

/// Declares a list of names, which is empty by default.
pub const fn names() -> Kind<Vec<String>> {
    Kind::new(Shape::Names)
}

/// Types that a field in the struct of a section can have.
pub trait FromScalar: Sized {
    /// Returns the value, or `None` if the scalar has another type.
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
    Vec<String>: Scalar::Names(value) => value;
}

/// Maximum width of a comment in telemetry.toml.
const WIDTH: usize = 100;

impl Section {
    /// Returns the section as text for telemetry.toml: keys with comments and defaults.
    pub fn toml(&self) -> String {
        let mut text = comment(self.doc.iter().map(|line| line.trim()));
        if self.name.is_empty() {
            // An empty line separates keys that belong to no table.
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
            Shape::Names => ("", "[]".to_owned()),
        };
        format!("{comment}{mark}{} = {value}\n", self.name)
    }
}

fn comment<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| format!("# {line}\n")).collect()
}

/// Declares a section: the struct, the keys, and the function that reads them.
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
            $($(#[doc = $key_doc])* $visibility $key: $crate::settings::Setting<$type>,)*
        }

        impl $name {
            /// Declaration of the table.
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

            /// Reads the section. Returns it typed, and as values that can be listed and compared.
            ///
            /// # Errors
            ///
            /// The table has an unknown key, or a value of the wrong type.
            $visibility fn read(
                sources: &$crate::settings::Sources,
                findings: &mut $crate::settings::Findings,
            ) -> Result<(Self, $crate::settings::Values), $crate::text::Message> {
                const SECTION: &$crate::settings::Section = &$name::SECTION;
                let values = $crate::settings::Values::read(SECTION, sources, findings)?;
                let typed = Self { $($key: values.get(stringify!($key))),* };
                Ok((typed, values))
            }
        }
    };
}
pub(crate) use section;
