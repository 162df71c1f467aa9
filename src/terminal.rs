//! Terminals: their width, the colours of text for people, and text that fits into columns.
//!
//! A colour has one of five roles, and repeats what a mark or a word beside it says already.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use anstyle::{AnsiColor, Effects, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::wrap;

/// What a stream that people may read can show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terminal {
    /// Columns. `None` if the stream is not a terminal: its text is then not fitted to any width.
    pub width: Option<usize>,
    /// Styles of the text.
    pub palette: Palette,
    /// True if the cursor may be moved up, to replace lines. `NO_COLOR` forbids all control sequences.
    pub moves_cursor: bool,
}

/// The styles of text, by role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Palette {
    /// It worked.
    pub ok: Style,
    /// It needs attention, or it is an error of the caller.
    pub warning: Style,
    /// It failed.
    pub error: Style,
    /// Of little interest at first.
    pub dim: Style,
    /// The name of a thing, and the next step.
    pub name: Style,
}

/// The control sequences before and after a text, for each role. They are rendered once, because the
/// log and the tree of spans write them for every request. Without colours they are empty.
pub struct Sequences {
    /// Of [`Palette::ok`].
    pub ok: [String; 2],
    /// Of [`Palette::warning`].
    pub warning: [String; 2],
    /// Of [`Palette::error`].
    pub error: [String; 2],
    /// Of [`Palette::dim`].
    pub dim: [String; 2],
    /// Of [`Palette::name`].
    pub name: [String; 2],
}

/// Value of `--color`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ColorChoice {
    /// Colours on a terminal that can show them. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` count.
    #[default]
    Auto,
    /// Colours also in a pipe or a file.
    Always,
    /// No colours.
    Never,
}

/// The choice of the command line, for the whole process.
static CHOICE: AtomicU8 = AtomicU8::new(ColorChoice::Auto as u8);

/// Width of a terminal that does not report one.
const DEFAULT_WIDTH: usize = 80;
/// Smallest width of a column in which text is wrapped.
const MIN_COLUMN: usize = 20;
/// Most bytes of a text for each column.
const MAX_BYTES: usize = 16;

/// Sets the choice of the command line. Call it before the first [`Terminal::of`].
pub fn set_color_choice(choice: ColorChoice) {
    CHOICE.store(choice as u8, Ordering::Relaxed);
}

impl ColorChoice {
    /// The names of the choices, as `--color` has them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];

    fn allows(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if anstyle_query::no_color() => false,
            Self::Auto if anstyle_query::clicolor_force() => true,
            Self::Auto => {
                is_terminal && anstyle_query::clicolor().unwrap_or(true) && anstyle_query::term_supports_color()
            }
        }
    }
}

impl Terminal {
    /// A stream that is not a terminal.
    pub const NONE: Self = Self { width: None, palette: Palette::PLAIN, moves_cursor: false };

    /// Asks the system about a stream.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let chosen = CHOICE.load(Ordering::Relaxed);
        let choice = ColorChoice::NAMES.iter().find(|(_, choice)| *choice as u8 == chosen);
        let choice = choice.map_or_else(ColorChoice::default, |(_, choice)| *choice);
        let is_terminal = stream.is_terminal();
        let has_colours = choice.allows(is_terminal);
        Self {
            width: is_terminal.then(|| width_of(stream)),
            palette: if has_colours { Palette::COLOURED } else { Palette::PLAIN },
            moves_cursor: has_colours && is_terminal && anstyle_query::term_supports_ansi_color(),
        }
    }

    /// Writes `text`, which begins in `column`, and ends the line. On a terminal the text is wrapped
    /// and stays in its column, and a next step (`what; next: step`) begins a line of its own. If
    /// the column would be too narrow, the text begins in the next line.
    pub fn hang(&self, out: &mut String, column: usize, text: &str) {
        let name = self.palette.name;
        let (what, next) = text.split_once("; next: ").map_or((text, None), |(what, next)| (what, Some(next)));
        let Some(width) = self.width else {
            out.push_str(what);
            if let Some(next) = next {
                out.push_str(&format!("; {name}next: {next}{name:#}"));
            }
            return out.push('\n');
        };
        let width = width.saturating_sub(column).max(MIN_COLUMN);
        let gap = format!("\n{:column$}", "");
        out.push_str(&wrap(what, width).replace('\n', &gap));
        if let Some(next) = next {
            for line in wrap(&format!("next: {next}"), width).lines() {
                out.push_str(&format!("{gap}{name}{line}{name:#}"));
            }
        }
        out.push('\n');
    }
}

impl Palette {
    /// No styles.
    pub const PLAIN: Self = {
        let none = Style::new();
        Self { ok: none, warning: none, error: none, dim: none, name: none }
    };
    /// The styles of a terminal that shows colours.
    pub const COLOURED: Self = Self {
        ok: AnsiColor::Green.on_default(),
        warning: AnsiColor::Yellow.on_default(),
        error: AnsiColor::Red.on_default().effects(Effects::BOLD),
        dim: Style::new().effects(Effects::DIMMED),
        name: Style::new().effects(Effects::BOLD),
    };
}

impl Sequences {
    /// Renders the styles of a palette.
    pub fn new(palette: &Palette) -> Self {
        let render = |style: Style| [style.render().to_string(), style.render_reset().to_string()];
        Self {
            ok: render(palette.ok),
            warning: render(palette.warning),
            error: render(palette.error),
            dim: render(palette.dim),
            name: render(palette.name),
        }
    }
}

/// Asks the system for the columns of a terminal.
pub fn width_of(stream: &impl AsFd) -> usize {
    let columns = rustix::termios::tcgetwinsize(stream).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { DEFAULT_WIDTH } else { columns }
}

/// Returns the columns that a text takes. Terminals disagree about joined emoji: some show one, and
/// others all its parts. The larger width counts, so that a line never wraps.
pub fn columns(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(char_columns).sum::<usize>().max(text.width())
}

/// Returns the beginning of a text that fits into so many columns, and its width.
pub fn fitting(text: &str, most: usize) -> (&str, usize) {
    if text.is_ascii() {
        let end = text.len().min(most);
        return (&text[..end], end);
    }
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let longer = &text[..at + c.len_utf8()];
        // A character that joins the one before it may change the width of both. The number of
        // characters without a width is limited.
        if columns(longer) > most || at > MAX_BYTES * most {
            break;
        }
        end = longer.len();
    }
    (&text[..end], columns(&text[..end]))
}

fn char_columns(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_never_takes_more_columns_than_it_is_given() {
        for (text, most, expected) in [
            ("plain", 3, ("pla", 3)),
            ("plain", 9, ("plain", 5)),
            ("日本語", 5, ("日本", 4)),
            ("日本語", 6, ("日本語", 6)),
            ("🦀🦀", 3, ("🦀", 2)),
            ("e\u{301}e\u{301}", 1, ("e\u{301}", 1)),
            ("", 0, ("", 0)),
            ("x", 0, ("", 0)),
        ] {
            assert_eq!(fitting(text, most), expected, "{text} in {most}");
        }
        // A family of three: two columns on some terminals, six on others. A heart as emoji: one or two.
        assert_eq!((columns("👨\u{200d}👩\u{200d}👧"), columns("❤\u{fe0f}")), (6, 2));
    }

    #[test]
    fn text_stays_in_its_column_and_the_next_step_begins_a_line() {
        let terminal = Terminal { width: Some(40), ..Terminal::NONE };
        let text = "no API key: KEY is not set in this process; next: export KEY=..., and start again";
        let mut out = "  backend ".to_owned();
        terminal.hang(&mut out, 10, text);
        let expected = "  backend no API key: KEY is not set in\n          this process\n          \
                        next: export KEY=..., and\n          start again\n";
        assert_eq!(out, expected);
        let mut piped = String::new();
        Terminal::NONE.hang(&mut piped, 10, text);
        assert_eq!(piped, format!("{text}\n"));
    }

    #[test]
    fn the_command_line_is_stronger_than_a_pipe_or_a_terminal() {
        assert!(ColorChoice::Always.allows(false));
        assert!(!ColorChoice::Never.allows(true));
    }
}
