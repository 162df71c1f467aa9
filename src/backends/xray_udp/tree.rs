//! A trace as datagrams: nests the documents of its spans, and divides or trims a document that is
//! too large.
//!
//! ```text
//! 64 kB, 32 levels or less   one datagram: the segment with all subsegments inside
//! more                       each child first as its own document, then the span without children
//! a span alone is larger     without metadata, then annotations, then with a short exception
//! ```

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use super::annotations::{Place, places as places_of_attributes};
use super::encode::{MAX_STRING, Part, Trim, document};
use crate::delivery::{Encoder, Payload, Problem};
use crate::text::first_chars;
use crate::text::json::Json;
use crate::trace::FinishedTrace;

/// Header of every datagram.
const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";
/// X-Ray's limit is "64 kB". This is below 64,000 and 65,536, and below the size of a UDP datagram.
const MAX_DOCUMENT: usize = 64_000;
/// X-Ray's limit of annotations in a trace.
const MAX_ANNOTATIONS: usize = 50;
/// Levels of nested subsegments. Deeper ones are sent on their own.
const MAX_DEPTH: usize = 32;

/// Encoder of finished traces as X-Ray documents.
#[derive(Clone)]
pub(super) struct Documents {
    /// Name of the segment if no sampler has chosen one.
    pub(super) service_name: String,
    /// Log group with the log lines of our requests, which X-Ray's console opens from a trace.
    pub(super) log_group: Option<String>,
}

impl Encoder<FinishedTrace> for Documents {
    /// Writes one datagram per trace, or several if it is too large for one.
    fn encode(&self, batch: &[Arc<FinishedTrace>], _: i64) -> Vec<Payload> {
        let mut payloads = Vec::with_capacity(batch.len());
        let mut nodes = Vec::new();
        let mut json = Json::with_capacity(EXPECTED_BYTES);
        for trace in batch {
            fill(&mut nodes, trace);
            let tree = SpanTree { documents: self, trace, nodes: &nodes };
            // The segment, and each span whose parent is missing from the trace, begin a document
            // of their own.
            for (index, node) in nodes.iter().enumerate() {
                if index == 0 || node.parent.is_none() {
                    tree.encode(index, &mut json, &mut payloads);
                }
            }
        }
        payloads
    }
}

/// Trace with the place of each span in its tree.
#[derive(Clone, Copy)]
struct SpanTree<'a> {
    documents: &'a Documents,
    trace: &'a FinishedTrace,
    nodes: &'a [SpanNode],
}

/// Place of a span in the tree. Spans are named by their index in the trace.
struct SpanNode {
    parent: Option<usize>,
    first_child: Option<usize>,
    /// Next child of the same parent.
    next_sibling: Option<usize>,
    /// Number of spans: this one and all below it.
    size: usize,
    /// Number of levels: this one and those below it.
    depth: usize,
    /// Number of attributes that may be annotations.
    max_annotations: usize,
}

/// Replaces the nodes by those of `trace`.
fn fill(nodes: &mut Vec<SpanNode>, trace: &FinishedTrace) {
    nodes.clear();
    let spans = &trace.spans;
    // A map costs more than a search, unless there are many spans.
    let is_small = spans.len() <= 32;
    let mut places = HashMap::with_capacity(if is_small { 0 } else { spans.len() });
    let has_many = spans.iter().map(|span| span.attributes.len()).sum::<usize>() > MAX_ANNOTATIONS;
    let mut left = MAX_ANNOTATIONS;
    for (index, span) in spans.iter().enumerate() {
        // Spans are in the order in which they began, so a parent comes before its children. A
        // parent that comes later counts as missing, so the tree cannot contain a cycle.
        let parent = span.parent.and_then(|parent| {
            if is_small { spans[..index].iter().position(|it| it.id == parent) } else { places.get(&parent).copied() }
        });
        if !is_small {
            places.insert(span.id, index);
        }
        nodes.push(SpanNode {
            parent,
            first_child: None,
            next_sibling: None,
            size: 1,
            depth: 1,
            max_annotations: left,
        });
        if has_many {
            left -= places_of_attributes(span, left).filter(|(_, place)| *place == Place::Annotation).count();
        }
    }
    for index in (1..nodes.len()).rev() {
        let SpanNode { parent, size, depth, .. } = nodes[index];
        if let Some(parent) = parent {
            nodes[index].next_sibling = nodes[parent].first_child.replace(index);
            let parent = &mut nodes[parent];
            parent.size += size;
            parent.depth = parent.depth.max(depth + 1);
        }
    }
}

impl SpanTree<'_> {
    /// Children of a span, in the order in which they began.
    fn children(self, index: usize) -> impl Iterator<Item = usize> {
        iter::successors(self.nodes[index].first_child, move |&child| self.nodes[child].next_sibling)
    }

    /// Encodes a span and all spans below it in one document. If that is too large or too deep, the
    /// children are encoded first, each in a document of its own.
    fn encode(&self, index: usize, json: &mut Json, payloads: &mut Vec<Payload>) {
        // A stack instead of recursion: a chain of spans may be 60,000 levels deep.
        let (mut first, mut open) = (Some((index, false)), Vec::new());
        while let Some((index, children_are_sent)) = first.take().or_else(|| open.pop()) {
            if children_are_sent {
                payloads.push(self.without_children(index, json));
                continue;
            }
            if let Some(whole) = self.whole(index, json) {
                payloads.push(whole);
                continue;
            }
            open.push((index, true));
            // The stack is read from its end.
            let length = open.len();
            open.extend(self.children(index).map(|child| (child, false)));
            open[length..].reverse();
        }
    }

    /// Encodes a span with all spans below it, unless that is too large or too deep.
    fn whole(&self, index: usize, json: &mut Json) -> Option<Payload> {
        let node = &self.nodes[index];
        let bytes = (node.depth <= MAX_DEPTH).then(|| self.datagram(index, json, Trim::Nothing))?;
        fits(bytes).then(|| self.payload(bytes, node.size, None))
    }

    /// Encodes a span without its children, trimmed until it fits.
    fn without_children(&self, index: usize, json: &mut Json) -> Payload {
        self.datagram(index, json, Trim::Subsegments);
        let mut left_out = Vec::new();
        for (trim, what) in
            [(Trim::Metadata, "metadata"), (Trim::Annotations, "annotations"), (Trim::Exceptions, "exceptions")]
        {
            if fits(json.as_bytes()) {
                break;
            }
            left_out.push(what);
            self.datagram(index, json, trim);
        }
        let trimmed = (!left_out.is_empty()).then(|| {
            let (name, what) = (first_chars(&self.trace.spans[index].name, MAX_STRING), left_out.join(" and "));
            let what =
                format!("a document of more than {MAX_DOCUMENT} bytes went without its {what}; it is that of {name:?}");
            Problem::new("trimmed", what)
        });
        self.payload(json.as_bytes(), 1, trimmed)
    }

    fn payload(&self, datagram: &[u8], items: usize, trimmed: Option<Problem>) -> Payload {
        Payload { bytes: datagram.to_vec(), items, traces: vec![self.trace.trace_id], trimmed }
    }

    fn datagram<'a>(&self, index: usize, json: &'a mut Json, trim: Trim) -> &'a [u8] {
        json.clear();
        json.raw(HEADER);
        self.document(json, index, true, trim);
        json.as_bytes()
    }

    fn document(&self, json: &mut Json, index: usize, is_outermost: bool, trim: Trim) {
        let Documents { service_name, log_group } = self.documents;
        let log_group = log_group.as_deref();
        let max_annotations = self.nodes[index].max_annotations;
        let part = Part { service_name, log_group, trace: self.trace, index, max_annotations, is_outermost, trim };
        let has_children = trim == Trim::Nothing && self.nodes[index].first_child.is_some();
        let subsegments = has_children.then_some(|json: &mut Json| {
            json.separated(self.children(index), |json, child| self.document(json, child, false, trim));
        });
        document(json, part, subsegments);
    }
}

const EXPECTED_BYTES: usize = 4096;

fn fits(datagram: &[u8]) -> bool {
    datagram.len() <= HEADER.len() + MAX_DOCUMENT
}
