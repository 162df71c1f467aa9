//! Renewal: the process replaces itself by a fresh one when tiny_http holds more descriptors than it
//! will ever free (`http/process.rs`).
//!
//! The new program has the same process id, arguments and environment. It inherits the listening
//! socket, so that connections which arrive meanwhile wait in its backlog. The socket is passed by
//! systemd's convention for socket activation, by `LISTEN_FDS` and `LISTEN_PID`
//! (<https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html>). It keeps its
//! number, which is not always 3: `LISTEN_FDS_FIRST_FD`, an extension of the crate listenfd, names
//! it.
//!
//! `execve` is called directly, because std's `exec` unblocks all signals: one that arrived before
//! the new program is ready would end it.
//!
//! Everything in memory is lost, as at any restart: what people wrote in Cruddur, and the requests
//! on the page. Queued telemetry is sent first.

#[cfg(target_os = "linux")]
use std::{convert::Infallible, ffi::CString, ffi::OsString, io, path::PathBuf};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Exit;
use crate::http::listener::Listener;
use crate::http::process::{Cause, Process, Renewals};
use crate::http::server::End;
use crate::text::Message;

/// Environment variable with the process id, the number of renewals so far, the owner of the
/// listening socket (`own` or `shared`) and the cause of the last one.
const RENEWALS: &str = "LISTEN_RENEWALS";

/// The renewals so far. Only the process that has renewed itself sets the variable for its own id.
pub(super) fn renewals() -> Renewals {
    let parse = |text: String| {
        let mut parts = text.splitn(4, ' ');
        let is_own = parts.next()?.parse() == Ok(std::process::id());
        let count = parts.next()?.parse().ok()?;
        let is_socket_shared = parts.next()? == "shared";
        is_own.then_some(Renewals { count, last: parts.next().map(str::to_owned), is_socket_shared })
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
    match exec(listener, cause) {
        Err(error) => failed(&error),
    }
}

#[cfg(target_os = "linux")]
fn exec(listener: Listener, cause: Cause) -> io::Result<Infallible> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::unistd::execve;

    let count = listener.process().renewals().count.saturating_add(1);
    let id = std::process::id();
    let owner = if listener.is_shared() { "shared" } else { "own" };
    let socket = listener.into_socket();
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let ours = [
        ("LISTEN_FDS", "1".to_owned()),
        ("LISTEN_PID", id.to_string()),
        ("LISTEN_FDS_FIRST_FD", socket.as_raw_fd().to_string()),
        (RENEWALS, format!("{id} {count} {owner} {cause}")),
    ];
    let is_ours = |name: &OsString| name == "LISTEN_FDNAMES" || ours.iter().any(|(other, _)| name == other);
    let others = std::env::vars_os().filter(|(name, _)| !is_ours(name));
    let all = others.chain(ours.iter().map(|(name, value)| (name.into(), value.into())));
    let c_string = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
    let environment = all.map(|(mut variable, value)| {
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    let environment = environment.collect::<io::Result<Vec<_>>>()?;
    let arguments = std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>()?;
    // By its path, so that the process keeps its name. The file may have been replaced or removed.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let path = path.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    Ok(execve(&c_string(path.into())?, &arguments, &environment)?)
}

/// The process is never renewed here: [`plan`] returns no cause.
#[cfg(not(target_os = "linux"))]
pub(super) fn renew(_: Listener, _: Cause) -> Exit {
    failed(&"not on this system")
}

fn failed(error: &dyn std::fmt::Display) -> Exit {
    Exit::failed(Message::new(format!("the process cannot renew itself: {error}")).next("start again"))
}
