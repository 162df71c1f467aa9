//! The output of a program, readable while the program runs.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One output stream of a program, collected by a thread. Clones share the text.
#[derive(Clone)]
pub(crate) struct Output {
    shared: Arc<Shared>,
    reader: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    grown: Condvar,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    closed: bool,
}

impl Output {
    /// Starts to read `pipe`, until its other end is closed.
    pub(crate) fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut seen = lock(&writer.seen);
                seen.bytes.extend_from_slice(&buffer[..count]);
                seen.closed = count == 0;
                writer.grown.notify_all();
                if seen.closed {
                    return;
                }
            }
        });
        Self { shared, reader: Arc::new(Mutex::new(Some(reader))) }
    }

    /// The output so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.seen).bytes).into_owned()
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        lock(&self.shared.seen).bytes.clone()
    }

    /// Waits until the text satisfies `enough`. Returns false if the time is up or the stream has
    /// ended before that.
    pub(crate) fn wait_for(&self, timeout: Duration, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut seen = lock(&self.shared.seen);
        loop {
            if enough(&String::from_utf8_lossy(&seen.bytes)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.closed || left.is_zero() {
                return false;
            }
            seen = self.shared.grown.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the stream. Call it when the program has ended.
    pub(crate) fn finish(&self) -> String {
        let reader = lock(&self.reader).take();
        if let Some(reader) = reader {
            let _ = reader.join();
        }
        self.text()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
