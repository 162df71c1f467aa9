//! Notices when the content of a file changes, by looking at it several times a second.
//!
//! Only looking notices all of these: a save in place, a rename over the file, a symbolic link somewhere in its
//! path that leads elsewhere by now (so Kubernetes changes a mounted file), a save within the resolution of the clock.
//! Some programs empty a file before they write it, so a content counts when it was seen twice.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::file::read_bounded;

/// A file that is watched.
pub struct Watch {
    path: PathBuf,
    /// The content of the last event.
    known: FileContent,
    /// The content of the last look, if that was another one.
    seen: Option<FileContent>,
}

/// What was found where the file should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileContent {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// The file is empty or holds only blanks: a program is about to write it, or has lost its content.
    Nothing,
    /// The file does not exist.
    Absent,
    /// The file cannot be read, for this reason.
    Unreadable(String),
}

/// Why the settings have to be read again.
#[derive(Debug, Eq, PartialEq)]
pub enum FileEvent {
    /// The content has changed, to this.
    Changed(FileContent),
    /// A signal asked for it; this is the content, as before.
    Requested(FileContent),
}

/// The time between two looks. Two of them, and reading the new settings, fit into a second.
const LOOK: Duration = Duration::from_millis(200);

impl Watch {
    /// Watches the file at `path`, whose content was `known`.
    #[must_use]
    pub fn new(path: PathBuf, known: FileContent) -> Self {
        Self { path, known, seen: None }
    }

    /// Waits for the next event; each message of `requests` is one. Returns `None` when the sender of `requests` is gone.
    pub fn next(&mut self, requests: &Receiver<()>) -> Option<FileEvent> {
        loop {
            match requests.recv_timeout(LOOK) {
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

    /// An explicit request accepts the content at once, without waiting for a second look.
    fn requested(&mut self, content: FileContent) -> FileEvent {
        self.seen = None;
        if content == self.known {
            return FileEvent::Requested(content);
        }
        self.known = content.clone();
        FileEvent::Changed(content)
    }

    /// True if this content is new and was seen twice.
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
    /// Interprets the result of reading the file.
    #[must_use]
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
            // A file that is being written.
            (bytes(""), false),
            (bytes("hal"), false),
            (bytes("half"), false),
            (bytes("half"), true),
            // There and back between two looks is no change.
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
