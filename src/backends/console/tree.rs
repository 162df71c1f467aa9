//! Formats `tree` and `full` of the console where they do not go to a terminal: a trace is printed as
//! indented lines, one per span.

use std::io::Write;

use crate::terminal::Sequences;
use crate::trace::id::SpanId;
use crate::trace::span::{Attribute, Metadata, SpanData, Status};
use crate::trace::{FinishedTrace, Value};

/// Writes one line per span, with all that is known about it.
pub(super) fn write(out: &mut Vec<u8>, trace: &FinishedTrace, sequences: &Sequences) {
    walk(trace, &mut |node| {
        let span = &trace.spans[node.index];
        write_line(out, span, (node.index == 0).then_some(trace), node.path.len(), sequences);
    });
}

/// A span in its place in the tree.
pub(super) struct Node<'a> {
    /// Index of the span in the trace.
    pub(super) index: usize,
    /// For each level from the root's children down to the span: true if a sibling follows.
    pub(super) path: &'a [bool],
    pub(super) has_children: bool,
}

/// Visits each span once, in the order of the tree. A span whose parent is missing from the trace is
/// a root.
pub(super) fn walk(trace: &FinishedTrace, visit: &mut impl FnMut(Node<'_>)) {
    for (index, span) in trace.spans.iter().enumerate() {
        let parent_is_here = span.parent.is_some_and(|parent| trace.spans.iter().any(|span| span.id == parent));
        if index == 0 || !parent_is_here {
            walk_below(trace, index, &mut Vec::new(), visit);
        }
    }
}

fn walk_below(trace: &FinishedTrace, index: usize, path: &mut Vec<bool>, visit: &mut impl FnMut(Node<'_>)) {
    let mut children = children(trace, trace.spans[index].id, index).peekable();
    visit(Node { index, path, has_children: children.peek().is_some() });
    if path.len() == MAX_DEPTH {
        return;
    }
    while let Some(child) = children.next() {
        path.push(children.peek().is_some());
        walk_below(trace, child, path, visit);
        path.pop();
    }
}

const MAX_DEPTH: usize = 64;

/// Finds the children of a span. They begin after it, so they come after it in the trace.
fn children(trace: &FinishedTrace, parent: SpanId, index: usize) -> impl Iterator<Item = usize> {
    let behind = trace.spans.iter().enumerate().skip(index + 1);
    behind.filter(move |(_, span)| span.parent == Some(parent)).map(|(index, _)| index)
}

fn write_line(
    out: &mut Vec<u8>,
    span: &SpanData,
    root_of: Option<&FinishedTrace>,
    depth: usize,
    Sequences { name, error, .. }: &Sequences,
) {
    let millis = span.duration() as f64 / 1_000_000.0;
    let (mark, [begin, end]) = if span.failed() { ("! ", error) } else { ("", name) };
    let indent = 2 * depth;
    put(out, format_args!("{:indent$}{begin}{mark}{}{end}  {millis:.2} ms ", "", Escaped(&span.name)));
    if let Some(trace) = root_of {
        put(out, format_args!(" trace={}", trace.trace_id));
    }
    for Attribute { key, value } in &span.attributes {
        put(out, format_args!(" {key}={}", ShownValue(value)));
    }
    for Metadata { namespace, key, value } in &span.rare().metadata {
        put(out, format_args!(" {namespace}.{key}={}", ShownValue(value)));
    }
    for event in &span.rare().events {
        put(out, format_args!(" [{}", event.name));
        for Attribute { key, value } in &event.attributes {
            put(out, format_args!(" {key}={}", ShownValue(value)));
        }
        out.push(b']');
    }
    if let Status::Error(message) = &span.rare().status
        && !message.is_empty()
        && span.rare().events.is_empty()
    {
        put(out, format_args!(" error={}", Escaped(message)));
    }
    out.push(b'\n');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

/// Text, in quotes and escaped if it contains control characters. Text from a client must not move
/// the cursor of the terminal.
pub(super) struct Escaped<'a>(pub(super) &'a str);

/// Value of an attribute, quoted unless it is one plain word.
pub(super) struct ShownValue<'a>(pub(super) &'a Value);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.chars().any(char::is_control) { write!(f, "{:?}", self.0) } else { f.write_str(self.0) }
    }
}

impl std::fmt::Display for ShownValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Value::String(text)
                if text.is_empty() || text.contains([' ', '"', '\\']) || text.chars().any(char::is_control) =>
            {
                write!(f, "{text:?}")
            }
            Value::String(text) => f.write_str(text),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Double(number) => write!(f, "{number}"),
            Value::Map(entries) => {
                f.write_str("{")?;
                for (index, entry) in entries.iter().enumerate() {
                    write!(f, "{}{}={}", if index == 0 { "" } else { ", " }, entry.key, Self(&entry.value))?;
                }
                f.write_str("}")
            }
        }
    }
}
