//! The panic hook. It keeps every panic for its trace and logs it as one line. Panics inside
//! tiny_http are counted instead; they are recognised by the file that they come from.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::trace::exception::{Exception, keep_panic};

/// Installs the hook that keeps every panic for its trace, and logs it with the ids of its span.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let exception = Exception::from_panic(info);
        // A connection thread of tiny_http panics if its client hangs up at the wrong moment. No
        // other request is affected. Only tiny_http starts threads by `std::thread::spawn`, which
        // panics if there is none left.
        let is_spawn = exception.place.contains(SPAWN) && exception.message.contains("failed to spawn thread");
        if exception.place.contains("/tiny_http-") || is_spawn {
            // These belong to the thread that accepts: no descriptor or no thread was left.
            if exception.place.contains("refined_tcp_stream") {
                NO_DESCRIPTOR.store(true, Ordering::Release);
            } else if ["task_pool", SPAWN].iter().any(|file| exception.place.contains(file)) {
                NO_THREAD.store(true, Ordering::Release);
            }
            CONNECTION_PANICS.fetch_add(1, Ordering::Relaxed);
            return log::debug!(target: "panic", "in a thread of tiny_http: {}", exception.message);
        }
        log::error!(target: "panic", "{} at {}", exception.message, exception.place);
        keep_panic(exception);
    }));
}

/// Number of panics in connection threads so far. Each may have left other connections without a
/// thread.
pub(super) fn connection_panics() -> u64 {
    CONNECTION_PANICS.load(Ordering::Relaxed)
}

/// True if the thread that accepts connections has panicked, and the loop has not noticed yet.
pub(super) fn accept_panicked() -> bool {
    NO_DESCRIPTOR.load(Ordering::Acquire) || NO_THREAD.load(Ordering::Acquire)
}

/// The reason why the thread that accepts connections has panicked, once for each time.
pub(super) fn take_accept_panic() -> Option<io::Error> {
    if NO_THREAD.swap(false, Ordering::AcqRel) {
        return Some(io::Error::other("too many threads"));
    }
    #[cfg(target_os = "linux")]
    let error = io::Error::from(rustix::io::Errno::MFILE);
    #[cfg(not(target_os = "linux"))]
    let error = io::Error::other("too many open files");
    NO_DESCRIPTOR.swap(false, Ordering::AcqRel).then_some(error)
}

/// Folder of `std::thread::spawn`.
const SPAWN: &str = "/std/src/thread/";

static NO_DESCRIPTOR: AtomicBool = AtomicBool::new(false);
static NO_THREAD: AtomicBool = AtomicBool::new(false);
static CONNECTION_PANICS: AtomicU64 = AtomicU64::new(0);
