//! A trace as datagrams: nests the documents of its spans, and divides or trims a document that is
//! too large.
//!
//! ```text
//! 64 kB, 32 levels or less   one datagram: the segment with all subsegments inside
//! more                       each child first as its own document, then the span without children
//! a span alone is larger     without metadata, then annotations, then with a short exception
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::annotations::Indexed;
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
        for trace in batch {
            let tree = SpanTree::new(self, trace);
            // The segment, and each span whose parent is missing from the trace, begin a document
            // of their own.
            for index in 0..trace.spans.len() {
                if index == 0 || tree.nodes[index].parent.is_none() {
                    tree.encode(index, &mut payloads);
                }
            }
        }
        payloads
    }
}

/// Trace with the children of each span.
struct SpanTree<'a> {
    documents: &'a Documents,
    trace: &'a FinishedTrace,
    nodes: Vec<SpanNode<'a>>,
}

/// Place of a span in the tree.
struct SpanNode<'a> {
    parent: Option<usize>,
    children: Vec<usize>,
    /// Number of spans: this one and all below it.
    size: usize,
    /// Number of levels: this one and those below it.
    depth: usize,
    attributes: Indexed<'a>,
}

impl<'a> SpanTree<'a> {
    fn new(documents: &'a Documents, trace: &'a FinishedTrace) -> Self {
        let mut left = MAX_ANNOTATIONS;
        let mut places = HashMap::with_capacity(trace.spans.len());
        let mut nodes: Vec<SpanNode<'a>> = Vec::with_capacity(trace.spans.len());
        for (index, span) in trace.spans.iter().enumerate() {
            let attributes = Indexed::new(span, left);
            left -= attributes.annotations.len();
            // Spans are in the order in which they began, so a parent comes before its children. A
            // parent that comes later counts as missing, so the tree cannot contain a cycle.
            let parent = span.parent.and_then(|parent| places.get(&parent).copied());
            places.insert(span.id, index);
            nodes.push(SpanNode { parent, children: Vec::new(), size: 1, depth: 1, attributes });
        }
        for index in (1..nodes.len()).rev() {
            let SpanNode { parent, size, depth, .. } = nodes[index];
            if let Some(parent) = parent {
                let parent = &mut nodes[parent];
                parent.children.insert(0, index);
                parent.size += size;
                parent.depth = parent.depth.max(depth + 1);
            }
        }
        Self { documents, trace, nodes }
    }

    /// Encodes a span and all spans below it in one document. If that is too large or too deep, the
    /// children are encoded first, each in a document of its own.
    fn encode(&self, index: usize, payloads: &mut Vec<Payload>) {
        // A stack instead of recursion: a chain of spans may be 60,000 levels deep.
        let mut open = vec![(index, false)];
        while let Some((index, children_are_sent)) = open.pop() {
            if children_are_sent {
                payloads.push(self.without_children(index));
                continue;
            }
            if self.nodes[index].depth <= MAX_DEPTH {
                let whole = self.datagram(index, Trim::Nothing);
                if fits(&whole) {
                    payloads.push(self.payload(whole, self.nodes[index].size, None));
                    continue;
                }
            }
            open.push((index, true));
            open.extend(self.nodes[index].children.iter().rev().map(|&child| (child, false)));
        }
    }

    /// Encodes a span without its children, trimmed until it fits.
    fn without_children(&self, index: usize) -> Payload {
        let mut bytes = self.datagram(index, Trim::Subsegments);
        let mut left_out = Vec::new();
        for (trim, what) in
            [(Trim::Metadata, "metadata"), (Trim::Annotations, "annotations"), (Trim::Exceptions, "exceptions")]
        {
            if fits(&bytes) {
                break;
            }
            left_out.push(what);
            bytes = self.datagram(index, trim);
        }
        let trimmed = (!left_out.is_empty()).then(|| {
            let (name, what) = (first_chars(&self.trace.spans[index].name, MAX_STRING), left_out.join(" and "));
            let what =
                format!("a document of more than {MAX_DOCUMENT} bytes went without its {what}; it is that of {name:?}");
            Problem::new("trimmed", what)
        });
        self.payload(bytes, 1, trimmed)
    }

    fn payload(&self, bytes: Vec<u8>, items: usize, trimmed: Option<Problem>) -> Payload {
        Payload { bytes, items, traces: vec![self.trace.trace_id], trimmed }
    }

    fn datagram(&self, index: usize, trim: Trim) -> Vec<u8> {
        let mut json = Json::with_capacity(EXPECTED_BYTES);
        json.raw(HEADER);
        self.document(&mut json, index, true, trim);
        json.into_string().into_bytes()
    }

    fn document(&self, json: &mut Json, index: usize, is_outermost: bool, trim: Trim) {
        let SpanNode { children, attributes, .. } = &self.nodes[index];
        let Documents { service_name, log_group } = self.documents;
        let log_group = log_group.as_deref();
        let part = Part { service_name, log_group, trace: self.trace, index, attributes, is_outermost, trim };
        let subsegments = (trim == Trim::Nothing && !children.is_empty()).then_some(|json: &mut Json| {
            json.separated(children, |json, &child| self.document(json, child, false, trim));
        });
        document(json, part, subsegments);
    }
}

const EXPECTED_BYTES: usize = 1024;

fn fits(datagram: &[u8]) -> bool {
    datagram.len() <= HEADER.len() + MAX_DOCUMENT
}
