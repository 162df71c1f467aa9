//! Sections of `cruddur explain`.

use super::pretty::AnnotatedJson;

/// Part of an explanation, which can be printed by its name.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// Sentence above it.
    pub(crate) title: String,
    pub(crate) body: Body,
}

/// Content of a section.
pub(crate) enum Body {
    Text(String),
    Json(AnnotatedJson),
}

impl Section {
    pub(crate) fn text(name: &'static str, title: impl Into<String>, text: String) -> Self {
        Self { name, title: title.into(), body: Body::Text(text) }
    }

    pub(crate) fn json(name: &'static str, title: impl Into<String>, json: AnnotatedJson) -> Self {
        Self { name, title: title.into(), body: Body::Json(json) }
    }

    /// Prints the section without its title.
    pub(crate) fn print(&self) -> String {
        match &self.body {
            Body::Text(text) => text.clone(),
            Body::Json(json) => json.print(),
        }
    }

    /// Prints one field of the section, if the section is JSON and has the field.
    pub(crate) fn print_field(&self, name: &str) -> Option<String> {
        match &self.body {
            Body::Text(_) => None,
            Body::Json(json) => json.print_field(name),
        }
    }
}

/// Prints each line with its remark in a second column.
pub(crate) fn two_columns<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(line, remark): (&str, &str)| match remark {
        "" => format!("{line}\n"),
        remark => format!("{line:<REMARK_COLUMN$}  {remark}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// Width of the first column.
pub(crate) const REMARK_COLUMN: usize = 66;
