//! What is stored, and what has become of it, as numbers and as a sentence.

use chrono::DateTime;
use serde::Serialize;

use super::Waiting;
use super::folder::Folder;
use crate::text::time;

/// Stored payloads and counts at one moment, in the unit of the backend.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SpoolView {
    /// Folder of the backend.
    pub directory: String,
    /// Number of stored payloads.
    pub batches: usize,
    /// Number of stored spans or lines.
    pub items: u64,
    /// Size of the stored payloads.
    pub bytes: u64,
    /// Limit of `bytes`.
    pub max_bytes: u64,
    /// Time of the oldest stored item.
    pub oldest: Option<String>,
    /// Stored items that were sent in the last ten seconds, divided by ten.
    pub sent_per_second: f64,
    /// Counts of this process.
    #[serde(flatten)]
    pub counts: SpoolCounts,
    /// The same as a sentence. Empty if nothing was ever stored.
    pub text: String,
}

/// What has become of stored items in this process. They may come from an earlier process, so the
/// backend's own counts do not include them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SpoolCounts {
    /// Items that the destination accepted.
    pub sent: u64,
    /// Items that the destination rejected.
    pub rejected: u64,
    /// Items that were removed, because they were too old or the spool was full.
    pub expired: u64,
    /// Items, as far as they are known, in files that were moved aside, and in a directory that was
    /// removed.
    pub lost: u64,
}

impl SpoolView {
    /// Adds up what is stored.
    pub(super) fn new<'a>(folder: &Folder, waiting: impl Iterator<Item = &'a Waiting>) -> Self {
        let mut view = Self { directory: folder.path().display().to_string(), ..Self::default() };
        let mut oldest = None;
        for one in waiting {
            view.batches += 1;
            view.items += one.items;
            view.bytes += one.bytes;
            oldest = Some(oldest.map_or(one.oldest, |oldest: u64| oldest.min(one.oldest)));
        }
        let oldest = oldest.and_then(|millis| DateTime::from_timestamp_millis(i64::try_from(millis).ok()?));
        Self { oldest: oldest.map(|time| time::millis(time).to_string()), ..view }
    }

    /// Describes the numbers in a sentence.
    pub(super) fn with_text(mut self, unit: &str) -> Self {
        let Self { directory, batches, items, sent_per_second, counts, .. } = &self;
        let SpoolCounts { sent, rejected, expired, lost } = counts;
        let mut sentences = Vec::new();
        if let Some(oldest) = &self.oldest {
            let batches = if *batches == 1 { "1 batch".to_owned() } else { format!("{batches} batches") };
            sentences.push(format!("{items} {unit} in {batches} wait in {directory}, the oldest since {oldest}"));
        }
        if *sent_per_second > 0.0 {
            sentences.push(format!("{sent_per_second} {unit} per second were sent from there"));
        }
        if *counts != SpoolCounts::default() {
            sentences.push(format!(
                "of the stored {unit}, {sent} were sent, {rejected} rejected, {expired} expired, {lost} lost"
            ));
        }
        self.text = sentences.join("; ");
        self
    }
}
