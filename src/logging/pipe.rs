//! Standard error behind a thread, so that nobody waits for whoever reads it: `cruddur 2>&1 | less` would otherwise stop
//! the server as soon as the pipe is full.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The writing end; clones write to the same place.
#[derive(Clone)]
pub(super) struct Pipe {
    shared: Arc<PipeShared>,
}

#[derive(Default)]
struct PipeShared {
    state: Mutex<PipeBuffer>,
    wake: Condvar,
    /// The thread has written everything.
    idle: Condvar,
}

#[derive(Default)]
struct PipeBuffer {
    waiting: Vec<u8>,
    /// Lines that found no room.
    lost: u64,
    /// The thread sleeps until it is woken, not only until its next look.
    asleep: bool,
    writing: bool,
}

/// What may wait to be written.
const MAX_WAITING: usize = 256 * 1024;
/// While lines keep coming, they are looked for this often, so that none of them has to wake the thread.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Pipe {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(PipeShared::default());
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || for_thread.work())?;
        Ok(Self { shared })
    }

    /// Waits until everything is written, but not longer than `timeout`.
    pub(super) fn flush_within(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.shared.wake.notify_one();
        let mut state = lock(&self.shared.state);
        while (!state.waiting.is_empty() || state.writing) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.shared.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Write for Pipe {
    /// Takes a whole line, or counts it as lost. It never fails: there is nobody to tell.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.shared.state);
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.lost += 1;
            return Ok(line.len());
        }
        state.waiting.extend_from_slice(line);
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
        let mut taken = Vec::new();
        let mut looked_in_vain = true;
        loop {
            let mut state = lock(&self.state);
            if state.waiting.is_empty() {
                self.idle.notify_all();
                if looked_in_vain {
                    state.asleep = true;
                    drop(self.wake.wait(state));
                } else {
                    looked_in_vain = true;
                    drop(self.wake.wait_timeout(state, LOOK_AGAIN));
                }
                continue;
            }
            looked_in_vain = false;
            std::mem::swap(&mut state.waiting, &mut taken);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            let unwritten = write_all(&taken);
            let unwritten = taken[taken.len() - unwritten..].iter().filter(|byte| **byte == b'\n').count() as u64;
            if lost + unwritten > 0 {
                let lost = lost + unwritten;
                write_all(format!("{lost} log lines are missing here: nobody read standard error\n").as_bytes());
            }
            taken.clear();
            lock(&self.state).writing = false;
        }
    }
}

/// Writes to standard error, which may be a pipe that does not wait; answers how many bytes could not be written.
fn write_all(mut bytes: &[u8]) -> usize {
    let mut stderr = io::stderr().lock();
    while !bytes.is_empty() {
        match stderr.write(bytes) {
            Ok(count) if count > 0 => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK_AGAIN),
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
        // No thread empties this one.
        let mut pipe = Pipe { shared: Arc::new(PipeShared::default()) };
        let line = [b'x'; 1024];
        for _ in 0..300 {
            assert_eq!(pipe.write(&line).unwrap(), line.len());
        }
        let state = lock(&pipe.shared.state);
        assert_eq!((state.waiting.len(), state.lost), (256 * 1024, 44));
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
