//! Detection of changes to a file, by reading it several times a second.
//!
//! Only polling detects all of these changes: a save in place, a rename over the file, a save
//! within the resolution of the clock, and a changed symbolic link in the path (Kubernetes updates
//! mounted files this way). Some programs empty a file before they write it. A new content is
//! therefore accepted only when two polls in a row have read it.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::file::read_bounded;

/// Watcher of one file.
pub struct Watch {
    path: PathBuf,
    /// Content of the last event.
    known: FileContent,
    /// Content of the last poll, if it differs from `known`.
    seen: Option<FileContent>,
}

/// Result of reading the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileContent {
    /// The bytes of the file.
    Bytes(Vec<u8>),
    /// The file is empty or contains only white space. A program may be about to write it.
    Nothing,
    /// The file does not exist.
    Absent,
    /// The file cannot be read, for this reason.
    Unreadable(String),
}

/// Reason to read the settings again.
#[derive(Debug, Eq, PartialEq)]
pub enum FileEvent {
    /// The content has changed to this.
    Changed(FileContent),
    /// A signal requested a reload, but the content is unchanged.
    Requested(FileContent),
}

/// Time between two polls. Two polls and a reload take less than a second.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

impl Watch {
    /// Creates a watcher of the file at `path`, whose last known content is `known`.
    pub fn new(path: PathBuf, known: FileContent) -> Self {
        Self { path, known, seen: None }
    }

    /// Waits for the next event: a change of the content, or a message from `requests`. Returns
    /// `None` when the sender of `requests` has been dropped.
    pub fn next(&mut self, requests: &Receiver<()>) -> Option<FileEvent> {
        loop {
            match requests.recv_timeout(POLL_INTERVAL) {
                Ok(()) => return Some(self.requested(FileContent::from_read(read_bounded(&self.path)))),
                Err(RecvTimeoutError::Timeout) => {
                    let content = FileContent::from_read(read_bounded(&self.path));
                    if self.has_changed(content) {
                        return Some(FileEvent::Changed(self.known.clone()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Handles an explicit request: accepts the content at once, without a second poll.
    fn requested(&mut self, content: FileContent) -> FileEvent {
        self.seen = None;
        if content == self.known {
            return FileEvent::Requested(content);
        }
        self.known = content.clone();
        FileEvent::Changed(content)
    }

    /// Returns true if this content is new and two polls in a row have read it.
    fn has_changed(&mut self, content: FileContent) -> bool {
        if content == self.known {
            self.seen = None;
            return false;
        }
        if self.seen.as_ref() == Some(&content) {
            self.known = content;
            self.seen = None;
            return true;
        }
        self.seen = Some(content);
        false
    }
}

impl FileContent {
    /// Classifies the result of reading the file.
    pub fn from_read(read: io::Result<Vec<u8>>) -> Self {
        match read {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Self::Nothing,
            Ok(bytes) => Self::Bytes(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> FileContent {
        FileContent::from_read(Ok(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_content_counts_when_it_was_seen_twice() {
        let mut watch = Watch::new(PathBuf::new(), bytes("a"));
        for (content, changed) in [
            (bytes("a"), false),
            (bytes("b"), false),
            (bytes("b"), true),
            (bytes("b"), false),
            // Another program is writing the file.
            (bytes(""), false),
            (bytes("hal"), false),
            (bytes("half"), false),
            (bytes("half"), true),
            // A change that is undone before the second poll is ignored.
            (bytes("c"), false),
            (bytes("half"), false),
            (bytes("c"), false),
            (bytes("c"), true),
            (FileContent::Absent, false),
            (FileContent::Absent, true),
        ] {
            assert_eq!(watch.has_changed(content.clone()), changed, "{content:?}");
        }
    }

    #[test]
    fn who_asks_is_told_at_once_whether_it_is_new() {
        let mut watch = Watch::new(PathBuf::new(), bytes("a"));
        assert_eq!(watch.requested(bytes("a")), FileEvent::Requested(bytes("a")));
        assert_eq!(watch.requested(FileContent::Absent), FileEvent::Changed(FileContent::Absent));
        assert_eq!(watch.requested(FileContent::Absent), FileEvent::Requested(FileContent::Absent));
    }

    #[test]
    fn blanks_are_nothing() {
        assert_eq!(bytes(" \r\n\t"), FileContent::Nothing);
        assert_eq!(FileContent::from_read(Err(ErrorKind::NotFound.into())), FileContent::Absent);
        assert!(matches!(FileContent::from_read(Err(ErrorKind::PermissionDenied.into())), FileContent::Unreadable(_)));
    }
}
