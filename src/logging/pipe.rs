//! Standard error, written by a thread of its own, so that no other thread waits for the reader.
//! Otherwise `cruddur 2>&1 | less` would stop the server as soon as the pipe is full.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// A writer to standard error. Its clones share one buffer.
#[derive(Clone)]
pub(super) struct Pipe {
    shared: Arc<PipeShared>,
}

#[derive(Default)]
struct PipeShared {
    state: Mutex<PipeBuffer>,
    wake: Condvar,
    /// Notified when the thread has written all lines.
    idle: Condvar,
}

#[derive(Default)]
struct PipeBuffer {
    queued: Vec<u8>,
    /// The number of lines that were dropped because the buffer was full.
    dropped: u64,
    /// True if the thread sleeps until it is woken. False if it also wakes by itself.
    asleep: bool,
    writing: bool,
}

/// The size of the buffer for lines that are not yet written, in bytes.
const MAX_QUEUED: usize = 256 * 1024;
/// The time between two checks of the buffer while lines keep coming. With these checks, a new line
/// need not wake the thread.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Pipe {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(PipeShared::default());
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || for_thread.work())?;
        Ok(Self { shared })
    }

    /// Waits until all lines are written, but not longer than `timeout`.
    pub(super) fn flush_within(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.shared.wake.notify_one();
        let mut state = lock(&self.shared.state);
        while (!state.queued.is_empty() || state.writing) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.shared.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Write for Pipe {
    /// Adds a whole line to the buffer, or drops and counts it if the buffer is full. Never fails,
    /// because there is no other place to report an error.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.shared.state);
        if state.queued.len() + line.len() > MAX_QUEUED {
            state.dropped += 1;
            return Ok(line.len());
        }
        state.queued.extend_from_slice(line);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PipeShared {
    fn work(&self) {
        let mut batch = Vec::new();
        let mut was_empty = true;
        loop {
            let mut state = lock(&self.state);
            if state.queued.is_empty() {
                self.idle.notify_all();
                if was_empty {
                    state.asleep = true;
                    drop(self.wake.wait(state));
                } else {
                    was_empty = true;
                    drop(self.wake.wait_timeout(state, POLL_INTERVAL));
                }
                continue;
            }
            was_empty = false;
            std::mem::swap(&mut state.queued, &mut batch);
            let mut lost = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);
            let unwritten = write_all(&batch);
            lost += batch[batch.len() - unwritten..].iter().filter(|byte| **byte == b'\n').count() as u64;
            if lost > 0 {
                write_all(format!("{lost} log lines dropped: standard error was not read in time\n").as_bytes());
            }
            batch.clear();
            lock(&self.state).writing = false;
        }
    }
}

/// Writes to standard error, which may be a non-blocking pipe. Returns the number of bytes that
/// could not be written.
fn write_all(mut bytes: &[u8]) -> usize {
    let mut stderr = io::stderr().lock();
    while !bytes.is_empty() {
        match stderr.write(bytes) {
            Ok(count) if count > 0 => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL_INTERVAL),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        // No thread empties this buffer.
        let mut pipe = Pipe { shared: Arc::new(PipeShared::default()) };
        let line = [b'x'; 1024];
        for _ in 0..300 {
            assert_eq!(pipe.write(&line).unwrap(), line.len());
        }
        let state = lock(&pipe.shared.state);
        assert_eq!((state.queued.len(), state.dropped), (256 * 1024, 44));
    }

    #[test]
    fn a_flush_gives_up_in_time() {
        let mut pipe = Pipe { shared: Arc::new(PipeShared::default()) };
        pipe.write_all(b"line\n").unwrap();
        let began = Instant::now();
        pipe.flush_within(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
