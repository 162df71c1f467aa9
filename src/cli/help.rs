//! `--help` and the manual page.

use super::table::{COMMANDS, OPTIONS};
use crate::terminal::Palette;

const WIDTH: usize = 120;
const TITLE: &str =
    "The Cruddur backend, traced by hand: OTLP to Honeycomb, segments to X-Ray, log lines to CloudWatch.";
const THEN: &str = "Then open http://127.0.0.1:4567/, or run curl http://127.0.0.1:4567/api/activities/home";

/// Returns the text of `--help`, with headings, commands and options in the style of names.
pub fn help(palette: &Palette) -> String {
    let name = palette.name;
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let end = match indent {
            0 if line.starts_with("Usage:") => "Usage:".len(),
            0 if line.ends_with(':') => line.len(),
            2 => 2 + line[2..].find("  ").unwrap_or(line.len() - 2),
            _ => return format!("{line}\n"),
        };
        format!("{}{name}{}{name:#}{}\n", &line[..indent], &line[indent..end], &line[end..])
    };
    plain_help().lines().map(line).collect()
}

fn plain_help() -> String {
    let mut text = format!("{TITLE}\n");
    for (index, command) in COMMANDS.iter().enumerate() {
        text += if index == 0 { "\nUsage: " } else { "       " };
        text += &format!("{}\n", command.usage());
    }
    text += "\nCommands:\n";
    let column = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or_default() + 4;
    for command in COMMANDS {
        push_entry(&mut text, command.name, command.summary, column);
    }
    text += "\nOptions:\n";
    for option in OPTIONS {
        push_entry(&mut text, &option.label(), option.summary, 19);
    }
    text + &format!("\n{THEN}\n")
}

/// Returns the manual page, in the macros of man(7).
pub fn man_page() -> String {
    let mut page = format!(".TH CRUDDUR 1 \"\" \"cruddur {}\"\n", env!("CARGO_PKG_VERSION"));
    page += &format!(
        ".SH NAME\ncruddur \\- {}\n.SH SYNOPSIS\n",
        roff(TITLE.trim_start_matches("The ").trim_end_matches('.'))
    );
    for (index, command) in COMMANDS.iter().enumerate() {
        page += if index == 0 { "" } else { ".br\n" };
        page += &format!("{}\n", roff(&command.usage()));
    }
    page += ".SH COMMANDS\n";
    for command in COMMANDS {
        page += &format!(".TP\n.B {}\n{}.\n", roff(command.name), roff(command.summary));
    }
    page += ".SH OPTIONS\n";
    for option in OPTIONS {
        page += &format!(".TP\n.B {}\n{}.\n", roff(&option.label()), roff(option.summary));
    }
    page + &format!(".SH EXAMPLE\nRun\n.B cruddur\n\\&. {}.\n", roff(THEN))
}

/// Adds a name, and its text from `column` on in lines of at most [`WIDTH`] characters.
fn push_entry(text: &mut String, name: &str, summary: &str, column: usize) {
    let mut line = format!("  {name}");
    if line.len() + 2 > column {
        text.push_str(&line);
        text.push('\n');
        line.clear();
    }
    for word in summary.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.clear();
        }
        let gap = if line.len() < column { column - line.len() } else { 1 };
        line.push_str(&" ".repeat(gap));
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// Escapes text for roff. `\-` is a minus, which can be copied into a shell; `-` is a hyphen.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
