//! The signals that stop the program or reload its settings.
//!
//! They are blocked in every thread, and one thread fetches them. So none is lost when the process
//! renews itself: a blocked signal outlasts an `exec`, and waits until the next life of the process
//! fetches it. With handlers, a signal right after the `exec` would meet none and end the process.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// The signals that end the program or reload its settings, kept from the moment of [`Self::catch`]
/// on.
pub struct CaughtSignals {
    /// True once a stop signal has arrived.
    stop: Arc<AtomicBool>,
}

/// The thread that fetches the signals.
pub(super) struct SignalThread {
    thread: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

impl CaughtSignals {
    /// Keeps the signals from now on. Until a listener is opened they wait. It must be called
    /// before other threads are started: only those that this thread starts later leave the signals
    /// alone.
    ///
    /// # Errors
    ///
    /// The system does not allow it.
    pub fn catch() -> io::Result<Self> {
        all().thread_block()?;
        Ok(Self { stop: Arc::default() })
    }

    /// A flag that is true once a stop signal has arrived.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Starts the thread. The first SIGTERM or SIGINT calls `stop`, the second one ends the
    /// process. Every SIGHUP is sent to `hangups`, so that the settings are read again. If it was
    /// sent because the terminal has been closed, it calls `stop` too: the server would otherwise
    /// hold the port unnoticed.
    pub(super) fn watch(self, hangups: Sender<()>, stop: impl Fn() + Send + 'static) -> io::Result<SignalThread> {
        let is_over = Arc::<AtomicBool>::default();
        let for_thread = Arc::clone(&is_over);
        let has_terminal = || io::stdin().is_terminal() || io::stderr().is_terminal();
        let had_terminal = has_terminal();
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while let Ok(signal) = all().wait() {
                if for_thread.load(Ordering::Acquire) && signal == Signal::SIGHUP {
                    return;
                }
                if signal == Signal::SIGHUP && (!had_terminal || has_terminal()) {
                    let _ = hangups.send(());
                } else if self.stop.swap(true, Ordering::AcqRel) {
                    std::process::exit(128 + signal as i32);
                } else {
                    stop();
                }
            }
        })?;
        Ok(SignalThread { thread, is_over })
    }
}

impl SignalThread {
    /// Ends the thread. Signals that arrive later wait for the next life of the process.
    pub(super) fn end(self) {
        self.is_over.store(true, Ordering::Release);
        if kill(Pid::this(), Signal::SIGHUP).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn all() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}
