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

use std::borrow::Cow;
use std::fmt::Write as _;

use super::line::Line;
use super::tree::{Escaped, Node, ShownValue, walk};
use crate::terminal::{Sequences, columns, fitting};
use crate::text::is_plain;
use crate::trace::span::{Event, SpanData, Status};
use crate::trace::{FinishedTrace, Value};

/// Form of the tree.
pub(super) struct Screen<'a> {
    /// Columns of the terminal.
    pub(super) width: usize,
    pub(super) sequences: &'a Sequences,
    /// True if all attributes are printed.
    pub(super) is_full: bool,
}

/// A span, with the text in front of its name and of the lines below it.
struct Row<'a> {
    span: &'a SpanData,
    before_name: String,
    before_details: String,
    name: Cow<'a, str>,
    /// Columns of the text in front of the name, and of the name.
    columns: [usize; 2],
    code: Option<i64>,
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
static NO_STYLE: [String; 2] = [String::new(), String::new()];

/// Writes the lines of a trace.
pub(super) fn write(out: &mut Vec<u8>, trace: &FinishedTrace, screen: &Screen<'_>) {
    let Screen { width, sequences: Sequences { error, dim, .. }, is_full } = screen;
    let mut rows = Vec::with_capacity(trace.spans.len());
    walk(trace, &mut |node| rows.push(Row::new(&trace.spans[node.index], &node)));
    let layout = Layout::new(&rows, *width);
    let mut scratch = String::with_capacity(128);
    // In full, nothing is cut.
    let width_below = if *is_full { usize::MAX } else { *width };
    for row in &rows {
        row.write(out, &layout, screen, &mut scratch);
        let mut below = |style: &[String; 2], text: &str| {
            let mut line = Line::new(out, width_below);
            line.put(&NO_STYLE, &row.before_details);
            line.put(style, text);
            line.end();
        };
        if *is_full {
            for attribute in &row.span.attributes {
                below(dim, &format!("{} = {}", attribute.key, ShownValue(&attribute.value)));
            }
            for metadata in &row.span.rare().metadata {
                let text = format!("{}.{} = {}", metadata.namespace, metadata.key, ShownValue(&metadata.value));
                below(dim, &text);
            }
        }
        row.span.rare().events.iter().for_each(|event| below(error, &exception(event, *is_full)));
    }
    scratch.clear();
    let _ = write!(scratch, "{:MARK$}trace {}", "", trace.trace_id);
    if let Some(parent) = trace.spans.first().and_then(|root| root.parent) {
        let _ = write!(scratch, ", called by span {parent}");
    }
    let mut line = Line::new(out, *width);
    line.put(dim, &scratch);
    line.end();
}

impl<'a> Row<'a> {
    fn new(span: &'a SpanData, node: &Node<'_>) -> Self {
        let skipped = node.path.len().saturating_sub(MAX_LEVELS);
        let mut before = String::with_capacity(4 * node.path.len());
        if skipped > 0 {
            before.push_str("… ");
        }
        let (mut before_name, mut before_details) = (String::new(), "  ".to_owned());
        if let [above @ .., has_sibling] = &node.path[skipped..] {
            above.iter().for_each(|continues| before.push_str(if *continues { "│ " } else { "  " }));
            before_details = format!("  {before}{}", if *has_sibling { "│ " } else { "  " });
            before_name = before;
            before_name.push_str(if *has_sibling { "├ " } else { "└ " });
        }
        before_details.push_str(if node.has_children { "│ " } else { "  " });
        let name = match &span.name {
            name if is_plain(name) => Cow::Borrowed(name.as_ref()),
            name => Cow::Owned(Escaped(name).to_string()),
        };
        let columns = [columns(&before_name), columns(&name)];
        let code = match attribute(span, "http.response.status_code") {
            Some(Value::Int(code)) => Some(*code),
            _ => None,
        };
        Self { span, before_name, before_details, name, columns, code }
    }

    fn write(&self, out: &mut Vec<u8>, layout: &Layout, screen: &Screen<'_>, scratch: &mut String) {
        let Sequences { ok, warning, error, dim, name } = screen.sequences;
        let (mark, style) = match self.code {
            _ if self.span.failed() => ("✕ ", error),
            Some(400..) => ("! ", warning),
            Some(_) => ("✓ ", ok),
            None => ("  ", ok),
        };
        let mut line = Line::new(out, screen.width);
        line.put(if self.status_columns() == 0 { &NO_STYLE } else { style }, mark);
        line.put(dim, &self.before_name);

        let room = layout.name.saturating_sub(self.columns[0]);
        scratch.clear();
        if self.columns[1] <= room {
            line.put(name, &self.name);
            scratch.extend(std::iter::repeat_n(' ', room - self.columns[1]));
        } else {
            let (shown, width) = fitting(&self.name, room.saturating_sub(1));
            let _ = write!(scratch, "{shown}…");
            line.put(name, scratch);
            scratch.clear();
            scratch.extend(std::iter::repeat_n(' ', room.saturating_sub(width + 1)));
        }

        scratch.push(' ');
        line.put(&NO_STYLE, scratch);
        scratch.clear();
        layout.draw_bar(self.span, scratch);
        line.put(style, scratch);

        scratch.clear();
        write_duration(scratch, self.span.duration());
        for _ in scratch.len()..DURATION + 1 {
            line.put(&NO_STYLE, " ");
        }
        line.put(&NO_STYLE, scratch);

        scratch.clear();
        match self.code {
            Some(code) => drop(write!(scratch, " {code}")),
            None if self.span.failed() => scratch.push_str(" error"),
            None => {}
        }
        line.put(style, scratch);
        if !screen.is_full {
            let missing = layout.status.saturating_sub(self.status_columns());
            self.write_details(&mut line, missing, screen.sequences, scratch);
        }
        line.end();
    }

    /// Columns of the status code or of `error`, with the blank before it.
    fn status_columns(&self) -> usize {
        match self.code {
            Some(100..=999) => 4,
            Some(code) => 1 + code.to_string().len(),
            None if self.span.failed() => 1 + STATUS,
            None => 0,
        }
    }

    /// Writes what a reader wants to know at once, besides the status, behind so many blanks.
    fn write_details(&self, line: &mut Line<'_>, mut blanks: usize, sequences: &Sequences, scratch: &mut String) {
        let mut add = |style: &[String; 2], key: &str, value: &dyn std::fmt::Display| {
            scratch.clear();
            scratch.extend(std::iter::repeat_n(' ', 1 + std::mem::take(&mut blanks)));
            line.put(&NO_STYLE, scratch);
            line.put(&sequences.dim, key);
            if !key.is_empty() {
                line.put(&sequences.dim, "=");
            }
            scratch.clear();
            let _ = write!(scratch, "{value}");
            line.put(style, scratch);
        };
        // Without a route, the name of the span does not say what was requested.
        let requested = || attribute(self.span, "url.full").or_else(|| attribute(self.span, "url.path"));
        if attribute(self.span, "http.route").is_none()
            && let Some(url) = requested()
        {
            add(&NO_STYLE, "", &ShownValue(url));
        }
        if let Status::Error(message) = &self.span.rare().status
            && !message.is_empty()
            && self.span.rare().events.is_empty()
        {
            add(&sequences.error, "error", &Escaped(message));
        }
        for attribute in self.span.attributes.iter().filter(|it| it.key.starts_with("app.")) {
            add(&NO_STYLE, &attribute.key, &ShownValue(&attribute.value));
        }
    }
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

impl Layout {
    fn new(rows: &[Row<'_>], width: usize) -> Self {
        let widest = rows.iter().map(|row| row.columns.iter().sum()).max().unwrap_or(0);
        let (most, bar) = match width {
            MIN_WIDTH_WITH_BARS.. => (width * 2 / 5 + 2, width / 8),
            _ => (width.saturating_sub(MARK + 2 + DURATION + 1 + STATUS), 0),
        };
        Self {
            name: widest.min(most),
            bar,
            status: rows.iter().map(Row::status_columns).max().unwrap_or(0),
            from: rows.iter().map(|row| row.span.start).min().unwrap_or(0),
            to: rows.iter().map(|row| row.span.end).max().unwrap_or(0),
        }
    }

    /// Draws a span as a bar, in steps of half a column. It is never shorter than that.
    fn draw_bar(&self, span: &SpanData, out: &mut String) {
        let steps = 2 * self.bar as u64;
        let total = self.to.saturating_sub(self.from).max(1);
        // A trace of more than a year would overflow. Its bars are then at the end.
        let step = |nanos: u64| nanos.saturating_mul(steps) / total;
        let from = step(span.start - self.from).min(steps.saturating_sub(1));
        let to = (span.end - self.from).saturating_mul(steps).div_ceil(total).min(steps).max(from + 1);
        let is_in = |step: u64| (from..to).contains(&step);
        let cell = |column: u64| match (is_in(2 * column), is_in(2 * column + 1)) {
            (true, true) => '█',
            (true, false) => '▌',
            (false, true) => '▐',
            (false, false) => ' ',
        };
        out.extend((0..self.bar as u64).map(cell));
    }
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

/// Writes the duration as the page does: `0.21 ms`, `12.3 ms`, `1.25 s`.
fn write_duration(out: &mut String, nanos: u64) {
    // Rounded to a hundredth of a unit. Whole numbers are written faster than floating-point numbers.
    let (hundredths, unit) = match nanos {
        1_000_000_000.. => ((nanos + 5_000_000) / 10_000_000, "s"),
        _ => ((nanos + 5_000) / 10_000, "ms"),
    };
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let _ = match (unit, whole) {
        ("ms", 100..) => write!(out, "{whole} ms"),
        ("ms", 10..) => write!(out, "{whole}.{} ms", rest / 10),
        _ => write!(out, "{whole}.{rest:02} {unit}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Palette;
    use crate::trace::id::SpanId;
    use crate::trace::sample;
    use crate::trace::span::{Attribute, SpanKind};

    fn printed(trace: &FinishedTrace, width: usize) -> String {
        let mut out = Vec::new();
        write(&mut out, trace, &Screen { width, sequences: &Sequences::new(&Palette::PLAIN), is_full: false });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_bar_has_the_place_and_the_proportion_of_its_span() {
        // The request takes 4.25 ms, and the span in it begins after 1 ms and takes 2 ms.
        let expected = "\
✓ GET /api/activities/home   ███████████████  4.25 ms 200
✕ └ home-activites-mock-data    ▐███████      2.00 ms error app.now=2023-02-20T00:00:00+00:00 app.result_length=3 app.r…
      Error: boom
  trace 5b8efff798038103d269b633813fc60c, called by span 00f067aa0ba902b7
";
        assert_eq!(printed(&sample::trace(), 120), expected);
    }

    #[test]
    fn lines_connect_each_span_with_its_parent() {
        let mut trace = sample::request();
        let child = |id: u64, parent: SpanId| SpanData {
            parent: Some(parent),
            kind: SpanKind::Internal,
            name: format!("span {id}").into(),
            attributes: Vec::new(),
            ..SpanData { id: SpanId::from_hex(&format!("{id:016x}")).unwrap(), ..trace.spans[1].clone() }
        };
        let [root, home] = [trace.spans[0].id, trace.spans[1].id];
        let mut below = vec![child(1, home), child(2, home), child(3, root)];
        trace.spans.append(&mut below);
        let names: Vec<String> = printed(&trace, 80).lines().map(|line| line.chars().take(20).collect()).collect();
        let expected = [
            "✓ GET /api/activitie",
            "  ├ home-activities-",
            "  │ ├ span 1        ",
            "  │ └ span 2        ",
            "  └ span 3          ",
            "  trace 63f2db281e87",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        for (nanos, expected) in [
            (0, "0.00 ms"),
            (214_999, "0.21 ms"),
            (9_999_999, "10.0 ms"),
            (12_345_678, "12.3 ms"),
            (125_600_000, "125 ms"),
            (1_250_000_000, "1.25 s"),
            (3_600_000_000_000, "3600.00 s"),
        ] {
            let mut text = String::new();
            write_duration(&mut text, nanos);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn any_width_and_any_depth_can_be_printed() {
        let mut trace = sample::request();
        for depth in 0..70_u64 {
            let parent = Some(trace.spans.last().unwrap().id);
            let id = SpanId::from_hex(&format!("{:016x}", depth + 1)).unwrap();
            let name = "🦀 日本語".repeat(depth as usize % 9).into();
            let attributes = vec![Attribute::new("app.text", "🦀\u{200d}🦀 \u{1b}[2J".repeat(9))];
            trace.spans.push(SpanData { id, parent, name, attributes, ..trace.spans[1].clone() });
        }
        for width in 1..130 {
            let text = printed(&trace, width);
            assert!(text.lines().all(|line| columns(line) <= width), "{width}:\n{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
}
