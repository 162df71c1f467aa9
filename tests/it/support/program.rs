//! The real binary, started as a user starts it. Its environment contains only PATH and the
//! variables that the test sets.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;

use super::client::{Answer, get};
use super::output::Output;
use super::temp_dir::TempDir;
use super::terminal::Terminal;
use super::{SOON, wait_until};

/// Maximum time to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

const LISTENING: &str = "listening on http://";
const READ_AGAIN: &str = " settings: reloaded ";

/// A running server on a port of its own. Dropping it kills the process and waits for it.
pub(crate) struct Program {
    child: Child,
    addr: SocketAddr,
    stdout: Output,
    stderr: Output,
    dir: TempDir,
}

/// The settings of a program to start.
#[derive(Default)]
pub(crate) struct Setup {
    args: Vec<String>,
    env: Vec<(String, String)>,
    toml: Option<String>,
    root: Option<Root>,
    current_dir: Option<PathBuf>,
    descriptors: Option<u32>,
    mount: Option<String>,
    socket: Option<OwnedFd>,
    /// True if descriptor 3 is open already, so that the program's own socket gets another number.
    is_descriptor_3_taken: bool,
    terminal: Option<Terminal>,
    /// True if standard error goes to the terminal too.
    has_stderr_on_terminal: bool,
}

/// A directory that becomes the root directory of a program.
struct Root {
    /// The command that makes a directory the root for the command after it.
    chroot: Vec<&'static str>,
    /// Paths and texts of the files in it, besides the program and its settings.
    files: Vec<(&'static str, String)>,
}

/// The end of a program.
pub(crate) struct Exit {
    /// Exit status.
    pub(crate) status: ExitStatus,
    /// Time that it took to end, from the signal, or from the start if there was no signal.
    pub(crate) took: Duration,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Setup {
    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a command line argument.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Writes this telemetry.toml and passes it with `--config`. Without it the built-in defaults
    /// apply.
    pub(crate) fn toml(mut self, text: &str) -> Self {
        self.toml = Some(text.to_owned());
        self
    }

    /// Runs the program in this directory instead of its own one.
    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.current_dir = Some(dir.to_owned());
        self
    }

    /// Runs the program with its standard output on a terminal, and standard error elsewhere.
    pub(crate) fn stdout_on(mut self, terminal: &Terminal) -> Self {
        self.terminal = Some(terminal.clone());
        self
    }

    /// Runs the program with both outputs on a terminal.
    pub(crate) fn on(self, terminal: &Terminal) -> Self {
        Self { has_stderr_on_terminal: true, ..self.stdout_on(terminal) }
    }

    /// Lets it open no more descriptors than this.
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Mounts a file system of its own, which the program alone sees, at this directory: 16 KiB in
    /// memory, with these options.
    ///
    /// # Errors
    ///
    /// The user who runs the tests is not allowed to do that.
    pub(crate) fn mount(mut self, directory: &Path, options: &str) -> Result<Self, String> {
        let mount = format!("mount -t tmpfs -o size=16k{options} tmpfs {}", directory.display());
        let mut probe = Command::new("unshare");
        probe.args(["--map-root-user", "--mount", "sh", "-c", &mount]).stderr(Stdio::null());
        if !probe.status().is_ok_and(|status| status.success()) {
            return Err("neither root nor a user namespace can be had for a mount".to_owned());
        }
        self.mount = Some(mount);
        Ok(self)
    }

    /// Starts it with another file as descriptor 3. Only together with `descriptors`.
    pub(crate) fn descriptor_3_taken(mut self) -> Self {
        self.is_descriptor_3_taken = true;
        self
    }

    /// Starts it with this socket as descriptor 3, as systemd does.
    #[cfg(target_os = "linux")]
    pub(crate) fn socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// Runs the program in a root directory with only itself, its settings and these files. There
    /// is no loader, no library, no `/etc` and no `/proc`.
    ///
    /// # Errors
    ///
    /// The user who runs the tests is not allowed to do that.
    pub(crate) fn in_empty_root(mut self, files: &[(&'static str, &str)]) -> Result<Self, String> {
        let commands = [&["chroot"][..], &["unshare", "--map-root-user", "chroot"]];
        let works = |command: &&&[&str]| {
            let mut probe = Command::new(command[0]);
            probe.args(&command[1..]).args(["/", "/bin/sh", "-c", ":"]).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        };
        let chroot = commands.iter().find(works).ok_or("neither root nor a user namespace can be had for chroot")?;
        let files = files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        self.root = Some(Root { chroot: chroot.to_vec(), files });
        Ok(self)
    }

    /// Starts the server on a free port and waits until it reports its address.
    pub(crate) fn start(mut self) -> Program {
        if !self.env.iter().any(|(name, _)| name == "CRUDDUR_LISTEN") {
            self.args.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
        }
        let (mut child, dir, stdout, stderr) = self.spawn();
        let listening = stderr.wait_for(PATIENCE, |text| listening_line(text).is_some());
        let text = stderr.text();
        let Some(addr) = listening.then(|| listening_line(&text)).flatten().and_then(|addr| addr.parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no line with `{LISTENING}ADDRESS`; stderr was:\n{text}");
        };
        Program { child, addr, stdout, stderr, dir }
    }

    /// Starts a command that is not the server. It has no address.
    pub(crate) fn start_command(self) -> Program {
        let (child, dir, stdout, stderr) = self.spawn();
        Program { child, addr: SocketAddr::from(([0, 0, 0, 0], 0)), stdout, stderr, dir }
    }

    /// Runs the program, which ends by itself.
    pub(crate) fn run(self) -> Exit {
        let listens = self.env.iter().any(|(name, _)| name == "CRUDDUR_LISTEN");
        let setup = if listens { self } else { self.env("CRUDDUR_LISTEN", "127.0.0.1:0") };
        let (mut child, _dir, stdout, stderr) = setup.spawn();
        wait_for_end(&mut child, &stdout, &stderr)
    }

    fn spawn(self) -> (Child, TempDir, Output, Output) {
        let dir = TempDir::new();
        let program = env!("CARGO_BIN_EXE_cruddur");
        let mut command = match &self.root {
            // The shell becomes the program, so that it has the id and the limits that the shell has set.
            None if self.descriptors.is_some() || self.socket.is_some() => {
                let limit = self.descriptors.map(|limit| format!("ulimit -n {limit};")).unwrap_or_default();
                let inherited = if self.socket.is_some() { "export LISTEN_FDS=1 LISTEN_PID=$$;" } else { "" };
                let taken = if self.is_descriptor_3_taken { "exec 3</dev/null;" } else { "" };
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("{limit} {inherited} {taken} exec \"$0\" \"$@\""), program]);
                shell
            }
            None if self.mount.is_some() => {
                let mount = self.mount.as_deref().unwrap_or_default();
                let mut unshare = Command::new("unshare");
                let script = format!("{mount} && exec \"$0\" \"$@\"");
                unshare.args(["--map-root-user", "--mount", "sh", "-c", &script, program]);
                unshare
            }
            None => Command::new(program),
            Some(root) => root.command(program, &dir),
        };
        command.args(&self.args).env_clear();
        command.current_dir(self.current_dir.as_deref().unwrap_or_else(|| dir.path()));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(text) = &self.toml {
            let path = dir.write("telemetry.toml", text);
            command.arg("--config").arg(if self.root.is_some() { Path::new("/telemetry.toml") } else { &path });
        }
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.socket {
            let mapping = FdMapping { parent_fd: socket, child_fd: 3 };
            command.fd_mappings(vec![mapping]).expect("one mapping collides with no other");
        }
        command.envs(self.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(terminal) = &self.terminal {
            command.stdout(terminal.program_side());
            if self.has_stderr_on_terminal {
                command.stderr(terminal.program_side());
            }
        }
        let mut child = command.spawn().expect("the program starts");
        // The command has descriptors of the terminal, which would stay open.
        drop(command);
        let of_terminal = || self.terminal.as_ref().expect("an output is not piped").output();
        let stdout = child.stdout.take().map_or_else(of_terminal, Output::of);
        let stderr = child.stderr.take().map_or_else(of_terminal, Output::of);
        (child, dir, stdout, stderr)
    }
}

impl Root {
    /// Fills the directory, and returns a command that runs the program in it.
    fn command(&self, program: &str, dir: &TempDir) -> Command {
        // Another process copies the file. If this process wrote it, a program that another test
        // starts meanwhile would inherit the open file, which then could not be executed.
        let copied = Command::new("cp").arg(program).arg(dir.path().join("cruddur")).status();
        assert!(copied.is_ok_and(|status| status.success()), "room for the program");
        for (path, text) in &self.files {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a file in the root")).expect("a directory in the root");
            fs::write(path, text).expect("a file in the root");
        }
        let mut command = Command::new(self.chroot[0]);
        command.args(&self.chroot[1..]).arg(dir.path()).arg("/cruddur");
        command
    }
}

impl Program {
    /// Begins every test: add the settings it needs, then call `start`.
    pub(crate) fn setup() -> Setup {
        Setup::default()
    }

    /// Starts a server with all defaults.
    pub(crate) fn start() -> Self {
        Self::setup().start()
    }

    /// Runs a command line that ends by itself. It never opens the default port, unless `env` names
    /// it.
    pub(crate) fn run_to_end(args: &[&str], env: &[(&str, &str)], toml: Option<&str>) -> Exit {
        let setup = Setup {
            args: args.iter().map(ToString::to_string).collect(),
            env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            toml: toml.map(ToOwned::to_owned),
            ..Setup::default()
        };
        setup.run()
    }

    /// Directory of the program, which contains telemetry.toml.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Saves telemetry.toml as most editors do: another file is renamed over it.
    pub(crate) fn save(&self, toml: &str) {
        let new = self.dir.write("telemetry.toml.new", toml);
        fs::rename(new, self.dir().join("telemetry.toml")).expect("its own directory");
    }

    /// Saves telemetry.toml and waits until it is applied.
    #[track_caller]
    pub(crate) fn switch(&self, toml: &str) {
        let before = self.stderr().matches(READ_AGAIN).count();
        self.save(toml);
        assert!(
            self.stderr.wait_for(SOON, |text| text.matches(READ_AGAIN).count() > before),
            "not read again:\n{}",
            self.stderr()
        );
    }

    /// Address on which the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stdout contains `needle`.
    pub(crate) fn wait_for_stdout(&self, needle: &str) {
        assert!(
            self.stdout.wait_for(SOON, |text| text.contains(needle)),
            "no {needle:?} in stdout:\n{}",
            self.stdout()
        );
    }

    /// Waits until stderr contains `needle`.
    pub(crate) fn wait_for_stderr(&self, needle: &str) {
        assert!(
            self.stderr.wait_for(SOON, |text| text.contains(needle)),
            "no {needle:?} in stderr:\n{}",
            self.stderr()
        );
    }

    /// Sends one GET on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.addr, path)
    }

    /// The part of `/telemetry/status` about a backend.
    pub(crate) fn backend(&self, name: &str) -> Value {
        self.get("/telemetry/status").json()["backends"][name].take()
    }

    /// Waits until `condition` holds for a backend in `/telemetry/status`, and returns that part.
    pub(crate) fn wait_for_backend(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut backend = Value::Null;
        let held = wait_until(SOON, || {
            backend = self.backend(name);
            condition(&backend)
        });
        assert!(held, "{name} stayed at {backend:#}");
        backend
    }

    /// Number of times that the program has begun to listen: one more with each renewal.
    pub(crate) fn lives(&self) -> usize {
        self.stderr().matches("listening on").count()
    }

    /// Resident memory in kilobytes.
    pub(crate) fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line with VmRSS");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of kB")
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(self) -> Exit {
        self.stop_with("TERM")
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the end.
    pub(crate) fn interrupt(self) -> Exit {
        self.stop_with("INT")
    }

    /// Waits until the program has ended by itself.
    pub(crate) fn wait(mut self) -> Exit {
        wait_for_end(&mut self.child, &self.stdout, &self.stderr)
    }

    /// Sends any signal, by its name without `SIG`.
    pub(crate) fn signal(&self, signal: &str) {
        // The shell's built-in `kill`, because not every machine has /bin/kill and `unsafe` is not
        // allowed here.
        let script = format!("kill -{signal} {}", self.pid());
        let sent = Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "{script} failed: the program was gone already; stderr was:\n{}", self.stderr());
    }

    fn stop_with(mut self, signal: &str) -> Exit {
        self.signal(signal);
        wait_for_end(&mut self.child, &self.stdout, &self.stderr)
    }
}

impl Exit {
    /// The numbers in a backend's line at exit: delivered, refused, dropped, sampled out, and
    /// queued. Queued is 0 if the line does not name it. Example:
    /// `honeycomb: 6 delivered, 0 refused, 0 dropped, 0 sampled out, of 6 spans`.
    #[track_caller]
    pub(crate) fn counts(&self, backend: &str) -> [u64; 5] {
        let begins = format!("{backend}: ");
        let line = self.stderr.lines().rev().find(|line| line.contains(&begins) && line.contains(" delivered, "));
        let line = line.unwrap_or_else(|| panic!("no line of counts in:\n{}", self.stderr));
        let counts = &line[line.find(&begins).expect("it contains that") + begins.len()..];
        ["delivered", "refused", "dropped", "sampled out", "queued"].map(|end| {
            match counts.split(", ").find(|count| count.trim().ends_with(end)) {
                None if end == "queued" => 0,
                count => {
                    let number = count.and_then(|count| count.split_whitespace().next()?.parse().ok());
                    number.unwrap_or_else(|| panic!("no number {end} in {line}"))
                }
            }
        })
    }
}

/// The log lines with this target: `TIME LEVEL target: text`. The line of counts at exit is not a
/// log line.
pub(crate) fn log_lines<'a>(stderr: &'a str, target: &str) -> Vec<&'a str> {
    let target = format!("{target}:");
    stderr.lines().filter(|line| line.split_whitespace().nth(2) == Some(&target)).collect()
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stdout.finish();
        let text = self.stderr.finish();
        if std::thread::panicking() {
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- the last lines on stderr of the program under test");
            eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

fn listening_line(stderr: &str) -> Option<&str> {
    let (_, rest) = stderr.split_once(LISTENING)?;
    // Until the line is complete, the last digits of the port may be missing.
    let (line, _) = rest.split_once('\n')?;
    line.split_whitespace().next().map(|addr| addr.trim_end_matches('/'))
}

fn wait_for_end(child: &mut Child, stdout: &Output, stderr: &Output) -> Exit {
    let since = Instant::now();
    let mut status = None;
    wait_until(PATIENCE, || {
        status = child.try_wait().expect("our own child");
        status.is_some()
    });
    let took = since.elapsed();
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("still running after {PATIENCE:?}; stderr was:\n{}", stderr.text());
    };
    Exit { status, took, stdout: stdout.finish(), stderr: stderr.finish() }
}
