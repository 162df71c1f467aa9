//! Formats `tree` and `full` of the console on a terminal. In `tree` a span is one line that fits the
//! width: mark, name, a bar in its place and proportion, duration, status, and the attributes of the
//! application. An exception has a line of its own. `full` has all attributes, each on a line.
//!
//! ```text
//! ✕ GET /api/fail     ██████████  0.71 ms 500
//! ✕ └ fail-on-purpose   █████     0.31 ms error
//!       panic: this route fails on purpose, at src/http/routes.rs:210:5
//!   trace 6b079355d955e3d45b942408e9ef53d5
//! ```

use std::fmt::Write as _;

use anstyle::Style;

use super::tree::{Escaped, Node, ShownValue, put, walk};
use crate::terminal::{Palette, columns, fitting};
use crate::trace::span::{Attribute, Event, Metadata, SpanData, Status};
use crate::trace::{FinishedTrace, Value};

/// Form of the tree.
#[derive(Clone, Copy)]
pub(super) struct Screen {
    /// Columns of the terminal.
    pub(super) width: usize,
    pub(super) palette: Palette,
    /// True if all attributes are printed.
    pub(super) is_full: bool,
}

/// A span, with the text in front of its name and of the lines below it.
struct Row<'a> {
    span: &'a SpanData,
    before_name: String,
    before_details: String,
    name: String,
}

/// Columns of a trace.
struct Layout {
    name: usize,
    bar: usize,
    status: usize,
    from: u64,
    to: u64,
}

const MARK: usize = 2;
const DURATION: usize = 8;
const STATUS: usize = 5;
/// Narrower terminals show no bars.
const MIN_WIDTH_WITH_BARS: usize = 40;
/// Levels of the tree that are drawn. Deeper spans have `…` in front.
const MAX_LEVELS: usize = 8;

/// Writes the lines of a trace.
pub(super) fn write(out: &mut Vec<u8>, trace: &FinishedTrace, screen: Screen) {
    let mut rows = Vec::with_capacity(trace.spans.len());
    walk(trace, &mut |node| rows.push(Row::new(&trace.spans[node.index], &node)));
    let layout = Layout::new(&rows, screen.width);
    for row in &rows {
        row.write(out, &layout, screen);
        let mut lines = Vec::new();
        if screen.is_full {
            lines.extend(row.span.attributes.iter().map(|it| (screen.palette.dim, attribute(it))));
            lines.extend(row.span.metadata.iter().map(|it| (screen.palette.dim, metadata(it))));
        }
        for event in &row.span.events {
            lines.push((screen.palette.error, exception(event, screen.is_full)));
        }
        for (style, text) in lines {
            put(out, format_args!("{}", row.before_details));
            let left =
                if screen.is_full { usize::MAX } else { screen.width.saturating_sub(columns(&row.before_details)) };
            write_cut(out, &[(style, text)], left);
            out.push(b'\n');
        }
    }
    let mut id = format!("{:MARK$}trace {}", "", trace.trace_id);
    if let Some(parent) = trace.spans.first().and_then(|root| root.parent) {
        let _ = write!(id, ", called by span {parent}");
    }
    write_cut(out, &[(screen.palette.dim, id)], screen.width);
    out.push(b'\n');
}

impl<'a> Row<'a> {
    fn new(span: &'a SpanData, node: &Node<'_>) -> Self {
        let skipped = node.path.len().saturating_sub(MAX_LEVELS);
        let mut before = if skipped > 0 { "… ".to_owned() } else { String::new() };
        let shown = &node.path[skipped..];
        let (mut before_name, mut before_details) = (String::new(), String::new());
        if let [above @ .., has_sibling] = shown {
            above.iter().for_each(|continues| before.push_str(if *continues { "│ " } else { "  " }));
            before_name = format!("{before}{}", if *has_sibling { "├ " } else { "└ " });
            before_details = format!("{before}{}", if *has_sibling { "│ " } else { "  " });
        }
        let below = if node.has_children { "│ " } else { "  " };
        let before_details = format!("{:MARK$}{before_details}{below}", "");
        Self { span, before_name, before_details, name: Escaped(&span.name).to_string() }
    }

    fn write(&self, out: &mut Vec<u8>, layout: &Layout, screen: Screen) {
        let Palette { ok, warning, error, dim, name } = screen.palette;
        let status = self.status();
        let (mark, style) = match self.code() {
            _ if self.span.failed() => ("✕ ", error),
            Some(400..) => ("! ", warning),
            Some(_) => ("✓ ", ok),
            None => ("  ", ok),
        };
        let mark_style = if status.is_empty() { Style::new() } else { style };
        let mut line = vec![(mark_style, mark.to_owned()), (dim, self.before_name.clone())];
        let room = layout.name.saturating_sub(columns(&self.before_name));
        let (mut shown, mut width) = fitting(&self.name, room);
        let is_cut = shown.len() < self.name.len();
        if is_cut {
            (shown, width) = fitting(&self.name, room.saturating_sub(1));
            width += 1;
        }
        let mark = if is_cut { "…" } else { "" };
        line.push((name, format!("{shown}{mark}")));
        line.push((style, format!("{:1$} {2}", "", room.saturating_sub(width), layout.bar_of(self.span))));
        line.push((Style::new(), format!(" {:>DURATION$}", duration(self.span.duration()))));
        let details = if screen.is_full { Vec::new() } else { self.details(&screen.palette) };
        match (details.is_empty(), status.is_empty()) {
            (true, true) => {}
            (true, false) => line.push((mark_style, format!(" {status}"))),
            (false, _) => line.push((mark_style, format!(" {status:<0$}", layout.status))),
        }
        line.extend(details);
        write_cut(out, &line, screen.width);
        out.push(b'\n');
    }

    fn code(&self) -> Option<i64> {
        match self.attribute("http.response.status_code") {
            Some(Value::Int(code)) => Some(*code),
            _ => None,
        }
    }

    /// The status code of HTTP, or `error`. Empty for a span that has neither.
    fn status(&self) -> String {
        match self.code() {
            Some(code) => code.to_string(),
            None if self.span.failed() => "error".to_owned(),
            None => String::new(),
        }
    }

    /// What a reader wants to know at once, besides the status.
    fn details(&self, palette: &Palette) -> Vec<(Style, String)> {
        let mut details = Vec::new();
        let mut add = |style: Style, key: &str, value: &dyn std::fmt::Display| {
            details.push((palette.dim, format!(" {key}")));
            details.push((style, value.to_string()));
        };
        // Without a route, the name of the span does not say what was requested.
        let requested = || self.attribute("url.full").or_else(|| self.attribute("url.path"));
        if self.attribute("http.route").is_none()
            && let Some(url) = requested()
        {
            add(Style::new(), "", &ShownValue(url));
        }
        if let Status::Error(message) = &self.span.status
            && !message.is_empty()
            && self.span.events.is_empty()
        {
            add(palette.error, "error=", &Escaped(message));
        }
        for Attribute { key, value } in self.span.attributes.iter().filter(|it| it.key.starts_with("app.")) {
            add(Style::new(), &format!("{key}="), &ShownValue(value));
        }
        details
    }

    fn attribute(&self, key: &str) -> Option<&Value> {
        self.span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }
}

impl Layout {
    fn new(rows: &[Row<'_>], width: usize) -> Self {
        let widest = rows.iter().map(|row| columns(&row.before_name) + columns(&row.name)).max().unwrap_or(0);
        let (most, bar) = match width {
            MIN_WIDTH_WITH_BARS.. => (width * 2 / 5 + 2, width / 8),
            _ => (width.saturating_sub(MARK + 2 + DURATION + 1 + STATUS), 0),
        };
        Self {
            name: widest.min(most),
            status: rows.iter().map(|row| row.status().len()).max().unwrap_or(0),
            bar,
            from: rows.iter().map(|row| row.span.start).min().unwrap_or(0),
            to: rows.iter().map(|row| row.span.end).max().unwrap_or(0),
        }
    }

    /// Draws a span as a bar, in steps of half a column. It is never shorter than that.
    fn bar_of(&self, span: &SpanData) -> String {
        let steps = 2 * self.bar as u64;
        let total = u128::from(self.to.saturating_sub(self.from).max(1));
        let step = |nanos: u128| u64::try_from(nanos / total).unwrap_or(steps).min(steps);
        let from = step(u128::from(span.start - self.from) * u128::from(steps)).min(steps.saturating_sub(1));
        let to = step(u128::from(span.end - self.from) * u128::from(steps) + total - 1).max(from + 1);
        let is_in = |step: u64| (from..to).contains(&step);
        let cell = |column: u64| match (is_in(2 * column), is_in(2 * column + 1)) {
            (true, true) => '█',
            (true, false) => '▌',
            (false, true) => '▐',
            (false, false) => ' ',
        };
        (0..self.bar as u64).map(cell).collect()
    }
}

fn attribute(Attribute { key, value }: &Attribute) -> String {
    format!("{key} = {}", ShownValue(value))
}

fn metadata(Metadata { namespace, key, value }: &Metadata) -> String {
    format!("{namespace}.{key} = {}", ShownValue(value))
}

/// The event as one line: `Error: boom, at src/store.rs:12`, in full with the path of the type.
fn exception(event: &Event, is_full: bool) -> String {
    let text = |name: &str| {
        let attribute = event.attributes.iter().find(|attribute| attribute.key == name)?;
        if let Value::String(text) = &attribute.value { Some(Escaped(text).to_string()) } else { None }
    };
    let Some(kind) = text("exception.type") else { return Escaped(&event.name).to_string() };
    let short = kind.rsplit("::").next().unwrap_or(&kind);
    let mut line = if is_full { kind } else { short.to_owned() };
    let _ = write!(line, ": {}", text("exception.message").unwrap_or_default());
    if let Some(place) = text("exception.stacktrace") {
        let _ = write!(line, ", {place}");
    }
    line
}

/// The duration as the page writes it: `0.21 ms`, `12.3 ms`, `1.25 s`.
fn duration(nanos: u64) -> String {
    let millis = nanos as f64 / 1_000_000.0;
    match nanos {
        1_000_000_000.. => format!("{:.2} s", millis / 1000.0),
        100_000_000.. => format!("{millis:.0} ms"),
        10_000_000.. => format!("{millis:.1} ms"),
        _ => format!("{millis:.2} ms"),
    }
}

/// Writes pieces of text in at most `width` columns. If they are longer, the last column is `…`.
fn write_cut(out: &mut Vec<u8>, pieces: &[(Style, String)], width: usize) {
    let total: usize = pieces.iter().map(|(_, text)| columns(text)).sum();
    let mut left = if total > width { width.saturating_sub(1) } else { width };
    for (style, text) in pieces {
        let (shown, taken) = fitting(text, left);
        if !shown.is_empty() {
            put(out, format_args!("{style}{shown}{style:#}"));
        }
        left -= taken;
        if shown.len() < text.len() {
            put(out, format_args!("…"));
            break;
        }
    }
}
