//! The report as text: each backend as soon as its result is known. On a terminal, the lines below
//! the report show the backends that have not answered yet.
//!
//! ```text
//! honeycomb  waiting for an answer, 3 of 10 s
//! ```

use std::time::{Duration, Instant};

use super::checks::{Checks, Progress, Running};
use super::report::Verdict;
use crate::run::{Exit, print as write};
use crate::terminal::{Terminal, fitting};
use crate::wire::stdout;

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// Time until a terminal whose cursor may not be moved shows what is waited for.
const QUIET: Duration = Duration::from_secs(1);

/// Prints the report while the checks run.
///
/// # Errors
///
/// The reader has closed the output.
pub(super) fn print(checks: &mut Checks) -> Result<(), Exit> {
    let terminal = stdout::terminal();
    let mut report = checks.report().heading(&terminal);
    for backend in checks.report().backends.iter().filter(|backend| backend.verdict != Verdict::Unknown) {
        report.push_str(&backend.print(&terminal));
    }
    write(&report)?;
    let mut lines = WaitingLines { terminal, began: Instant::now(), shown: Vec::new() };
    let tick = terminal.width.map(|_| TICK);
    while let Some(progress) = checks.next(tick) {
        if let Progress::Done(index) = progress {
            let done = checks.report().backends[index].print(&terminal);
            lines.show(&done, Vec::new())?;
        }
        lines.update(checks.running())?;
    }
    let unknown = checks.report().backends.iter().filter(|backend| backend.verdict == Verdict::Unknown);
    let rest: String = unknown.map(|backend| backend.print(&terminal)).collect();
    let conclusion = checks.report().conclusion(&terminal);
    lines.show(&format!("{rest}{conclusion}"), Vec::new())
}

/// The lines below the report.
struct WaitingLines {
    terminal: Terminal,
    began: Instant,
    /// Lines on the screen. The cursor is below the last one.
    shown: Vec<String>,
}

impl WaitingLines {
    /// Shows the backends that have not answered yet.
    fn update(&mut self, running: &[Running]) -> Result<(), Exit> {
        let Some(width) = self.terminal.width else { return Ok(()) };
        if self.terminal.moves_cursor {
            if self.began.elapsed() < TICK {
                return Ok(());
            }
            let lines: Vec<String> = running.iter().map(|it| self.line(it, width)).collect();
            return if lines == self.shown { Ok(()) } else { self.show("", lines) };
        }
        if self.shown.is_empty() && self.began.elapsed() >= QUIET {
            self.shown = running.iter().map(|it| self.line(it, width)).collect();
            return write(&format!("\n{}\n", self.shown.join("\n")));
        }
        Ok(())
    }

    fn line(&self, Running { name, since, limit, .. }: &Running, width: usize) -> String {
        let limit = limit.as_secs().max(1);
        let text = match self.terminal.moves_cursor {
            true => format!("waiting for an answer, {} of {limit} s", since.elapsed().as_secs().min(limit)),
            false => format!("waiting for an answer, at most {limit} s"),
        };
        let line = format!("{name:<10} {text}");
        let (line, _) = fitting(&line, width);
        let (name, rest) = line.split_at(name.len().min(line.len()));
        let (bold, dim) = (self.terminal.palette.name, self.terminal.palette.dim);
        format!("{bold}{name}{bold:#}{dim}{rest}{dim:#}")
    }

    /// Replaces the lines on the screen by a text that stays and by other lines.
    fn show(&mut self, text: &str, lines: Vec<String>) -> Result<(), Exit> {
        let mut out = String::new();
        if self.terminal.moves_cursor && !self.shown.is_empty() {
            // To the first column, up to the blank line above the lines, and clear the rest.
            out.push_str(&format!("\r\u{1b}[{}A\u{1b}[J", self.shown.len() + 1));
        }
        out.push_str(text);
        if !lines.is_empty() {
            out.push_str(&format!("\n{}\n", lines.join("\n")));
        }
        if self.terminal.moves_cursor {
            self.shown = lines;
        }
        write(&out)
    }
}
