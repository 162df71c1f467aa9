//! Notices when a file has another content, by looking at it several times a second.
//!
//! Looking is the only way that sees them all: a save in place, a rename over the file, a symbolic link somewhere in its
//! path that leads elsewhere by now (so Kubernetes changes a mounted file), a save within the resolution of the clock.
//! Some programs empty a file before they write it, so a content counts when it was seen twice.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::file::content;

/// A file that is watched.
pub struct Watch {
    path: PathBuf,
    /// What was told last.
    known: FileContent,
    /// What was seen last, if that is something else.
    seen: Option<FileContent>,
}

/// What is in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileContent {
    /// This.
    Bytes(Vec<u8>),
    /// Nothing, or blanks only: somebody is about to write it, or has lost it.
    Nothing,
    /// There is no such file.
    Absent,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// Why somebody should look at the settings again.
#[derive(Debug, Eq, PartialEq)]
pub enum FileEvent {
    /// The content has changed, to this.
    Changed(FileContent),
    /// Somebody asked for it; this is the content, as before.
    Asked(FileContent),
}

/// Two looks, and the new settings, fit into a second.
const LOOK: Duration = Duration::from_millis(200);

impl Watch {
    /// Watches the file at `path`, in which this was.
    #[must_use]
    pub fn new(path: PathBuf, known: FileContent) -> Self {
        Self { path, known, seen: None }
    }

    /// Waits for the next occasion; each message of `requests` is one. `None` when nobody can send a message any more.
    pub fn next(&mut self, requests: &Receiver<()>) -> Option<FileEvent> {
        loop {
            match requests.recv_timeout(LOOK) {
                Ok(()) => return Some(self.asked(FileContent::from_read(content(&self.path)))),
                Err(RecvTimeoutError::Timeout) => {
                    let content = FileContent::from_read(content(&self.path));
                    if self.has_changed(content) {
                        return Some(FileEvent::Changed(self.known.clone()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Who asks means this content, seen twice or not.
    fn asked(&mut self, content: FileContent) -> FileEvent {
        self.seen = None;
        if content == self.known {
            return FileEvent::Asked(content);
        }
        self.known = content.clone();
        FileEvent::Changed(content)
    }

    /// Whether this content is new, and not for the first time.
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
    /// What reading a file gave.
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
        assert_eq!(watch.asked(bytes("a")), FileEvent::Asked(bytes("a")));
        assert_eq!(watch.asked(FileContent::Absent), FileEvent::Changed(FileContent::Absent));
        assert_eq!(watch.asked(FileContent::Absent), FileEvent::Asked(FileContent::Absent));
    }

    #[test]
    fn blanks_are_nothing() {
        assert_eq!(bytes(" \r\n\t"), FileContent::Nothing);
        assert_eq!(FileContent::from_read(Err(ErrorKind::NotFound.into())), FileContent::Absent);
        assert!(matches!(FileContent::from_read(Err(ErrorKind::PermissionDenied.into())), FileContent::Unreadable(_)));
    }
}
