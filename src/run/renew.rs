//! Renewal: the process replaces itself by a fresh one when tiny_http holds more descriptors than it
//! will ever free (`http/process.rs`).
//!
//! The new program has the same process id, arguments and environment. It inherits the listening
//! socket, so that connections which arrive meanwhile wait in its backlog. The socket is passed by
//! systemd's convention for socket activation: descriptor 3, named by `LISTEN_FDS` and `LISTEN_PID`
//! (<https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html>).
//!
//! Everything in memory is lost, as at any restart: what people wrote in Cruddur, and the requests
//! on the page. Queued telemetry is sent first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Exit;
use crate::http::listener::Listener;
use crate::http::process::{Cause, Process, Renewals};
use crate::http::server::End;
use crate::text::Message;

/// Environment variable with the number of renewals so far, and the cause of the last one.
const RENEWALS: &str = "LISTEN_RENEWALS";

/// The renewals so far. Only the process that has renewed itself sets the variable for its own id.
pub(super) fn renewals() -> Renewals {
    let parse = |text: String| {
        let mut parts = text.splitn(3, ' ');
        let is_own = parts.next()?.parse() == Ok(std::process::id());
        let count = parts.next()?.parse().ok()?;
        is_own.then_some(Renewals { count, last: parts.next().map(str::to_owned) })
    };
    std::env::var(RENEWALS).ok().and_then(parse).unwrap_or_default()
}

/// The cause of the renewal that must follow, if there must be one.
pub(super) fn plan(end: &End, process: &Process) -> Option<Cause> {
    match end {
        _ if !cfg!(target_os = "linux") => None,
        End::Renew(cause) => Some(*cause),
        End::Failed(_) if process.may_renew() => Some(Cause::Accept),
        End::Failed(_) | End::Stopped => None,
    }
}

/// Logs that the process renews itself, why, and what is lost.
pub(super) fn announce(cause: Cause, end: &End, process: &Process) {
    let error = if let End::Failed(error) = end { format!(" ({error})") } else { String::new() };
    log::warn!(
        target: "renewal",
        "{cause}{error}: {}. The process renews itself (renewal {}); what was written in Cruddur is lost",
        process.usage(),
        process.renewals().count + 1
    );
}

/// Waits if the process is too young to be renewed, but not longer than until a stop signal.
pub(super) fn wait(process: &Process, stop: &AtomicBool) {
    while !process.time_to_renewal().is_zero() && !stop.load(Ordering::Acquire) {
        std::thread::sleep(process.time_to_renewal().min(Duration::from_millis(10)));
    }
}

/// Replaces the program. Returns only if that fails.
#[cfg(target_os = "linux")]
pub(super) fn renew(listener: Listener, cause: Cause) -> Exit {
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::Command;

    use command_fds::{CommandFdExt, FdMapping};

    let count = listener.process().renewals().count.saturating_add(1);
    let id = std::process::id();
    // By its path, so that the process keeps its name. The file may have been replaced or removed.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(path.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
    let mut args = std::env::args_os();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", id.to_string()).env_remove("LISTEN_FDNAMES");
    command.env_remove("LISTEN_FDS_FIRST_FD");
    command.env(RENEWALS, format!("{id} {count} {cause}"));
    let mapping = FdMapping { parent_fd: listener.into_socket(), child_fd: LISTEN_FDS_START };
    match command.fd_mappings(vec![mapping]) {
        Ok(command) => failed(&command.exec()),
        Err(error) => failed(&error),
    }
}

/// The process is never renewed here: [`plan`] returns no cause.
#[cfg(not(target_os = "linux"))]
pub(super) fn renew(_: Listener, _: Cause) -> Exit {
    failed(&"not on this system")
}

/// The first descriptor that a process inherits by systemd's convention.
#[cfg(target_os = "linux")]
const LISTEN_FDS_START: i32 = 3;

fn failed(error: &dyn std::fmt::Display) -> Exit {
    Exit::failed(Message::new(format!("the process cannot renew itself: {error}")).next("start again"))
}
