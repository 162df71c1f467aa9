//! A pseudo-terminal, in which a program runs, and the screen that a user would see.

use std::fs::{File, OpenOptions};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use vt100::{Color, Parser};

use super::output::Output;

/// Rows of the screen. Nothing scrolls out of it.
const ROWS: NonZero<u16> = NonZero::new(400).expect("not zero");

/// A pseudo-terminal for one program. Clones share it.
#[derive(Clone)]
pub(crate) struct Terminal {
    /// The terminal's side. The descriptor is kept open, and its size can be changed.
    own: Arc<File>,
    path: Arc<str>,
    output: Output,
}

/// The characters of a screen, row by row, without blanks at the ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Screen {
    pub(crate) rows: Vec<Vec<Cell>>,
    /// True if a line of the program did not fit into the width.
    pub(crate) has_wrapped_line: bool,
}

/// One column, or two for a wide character.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) look: Look,
    pub(crate) columns: usize,
}

/// Colour and weight of a character.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Look {
    /// One of the eight colours of a terminal.
    pub(crate) colour: Option<u8>,
    pub(crate) is_bold: bool,
    pub(crate) is_dim: bool,
}

impl Terminal {
    /// Opens a terminal of this width.
    pub(crate) fn of_width(columns: u16) -> Self {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        fcntl_setfd(&own, FdFlags::CLOEXEC).expect("our own descriptor");
        grantpt(&own).and_then(|()| unlockpt(&own)).expect("our own terminal");
        let path = ptsname(&own, Vec::new()).expect("it has a name");
        let own = Arc::new(File::from(own));
        let output = Output::of(own.try_clone().expect("a descriptor"));
        let terminal = Self { own, path: path.to_str().expect("a plain name").into(), output };
        terminal.resize(columns);
        terminal
    }

    /// Changes the width, as a user does with the window.
    pub(crate) fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: ROWS.get(), ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&*self.own, size).expect("our own terminal");
    }

    /// The side of the program.
    pub(crate) fn program_side(&self) -> Stdio {
        let mut options = OpenOptions::new();
        // It does not become the terminal of the tests themselves.
        options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed());
        options.open(&*self.path).expect("the terminal").into()
    }

    /// What the program has written.
    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    /// What a user sees now.
    pub(crate) fn screen(&self) -> Screen {
        let columns = tcgetwinsize(&*self.own).expect("our own terminal").ws_col;
        Screen::after(&self.output.bytes(), columns)
    }
}

impl Screen {
    /// The screen after this output.
    pub(crate) fn after(output: &[u8], columns: u16) -> Self {
        let columns_or_one = NonZero::new(columns).unwrap_or(NonZero::<u16>::MIN);
        let mut parser = Parser::new(ROWS, columns_or_one, 0);
        parser.process(output);
        let screen = parser.screen();
        let mut rows: Vec<Vec<Cell>> = (0..ROWS.get()).map(|row| cells(screen, row, columns)).collect();
        while rows.last().is_some_and(Vec::is_empty) {
            rows.pop();
        }
        Self { rows, has_wrapped_line: (0..ROWS.get()).any(|row| screen.row_wrapped(row)) }
    }

    /// The text of the rows.
    pub(crate) fn text(&self) -> String {
        let row = |row: &Vec<Cell>| row.iter().map(|cell| cell.text.as_str()).collect::<String>() + "\n";
        self.rows.iter().map(row).collect()
    }

    /// Text and colours, as a terminal reads them.
    pub(crate) fn ansi(&self) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let mut look = Look::default();
            for cell in row {
                if cell.look != look {
                    look = cell.look;
                    out.push_str(&look.ansi());
                }
                out.push_str(&cell.text);
            }
            if look != Look::default() {
                out.push_str("\u{1b}[0m");
            }
            out.push('\n');
        }
        out
    }
}

impl Look {
    fn ansi(self) -> String {
        let mut codes = "\u{1b}[0".to_owned();
        if self.is_bold {
            codes.push_str(";1");
        }
        if self.is_dim {
            codes.push_str(";2");
        }
        if let Some(colour) = self.colour {
            codes.push_str(&format!(";3{colour}"));
        }
        codes + "m"
    }
}

fn cells(screen: &vt100::Screen, row: u16, columns: u16) -> Vec<Cell> {
    let mut cells: Vec<Cell> = (0..columns)
        .filter_map(|column| screen.cell(row, column))
        .filter(|cell| !cell.is_wide_continuation())
        .map(|cell| {
            let colour = if let Color::Idx(colour) = cell.fgcolor() { Some(colour) } else { None };
            let text = if cell.has_contents() { cell.contents() } else { " " };
            // A blank looks the same in all colours.
            let look =
                if text == " " { Look::default() } else { Look { colour, is_bold: cell.bold(), is_dim: cell.dim() } };
            Cell { text: text.to_owned(), look, columns: if cell.is_wide() { 2 } else { 1 } }
        })
        .collect();
    while cells.last().is_some_and(|cell| cell.text == " ") {
        cells.pop();
    }
    cells
}
