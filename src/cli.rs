//! The command line. `table.rs` lists the commands and options.

mod completions;
mod help;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

pub use completions::{Shell, completions};
pub use help::{help, man_page};
use table::{COMMANDS, SHELLS};

use crate::terminal::ColorChoice;

/// A command line.
#[derive(Debug, Eq, PartialEq)]
pub struct Arguments {
    /// The command with its options.
    pub command: Command,
    /// `--color WHEN`
    pub color: ColorChoice,
}

/// A command with its options.
#[derive(Debug, Eq, PartialEq)]
pub enum Command {
    /// Run the server.
    Serve {
        /// `--config FILE`
        config: Option<PathBuf>,
        /// `--listen ADDR`
        listen: Option<String>,
        /// `--notifications-url URL`
        notifications_url: Option<String>,
    },
    /// Test every backend that is on.
    Check {
        /// `--config FILE`
        config: Option<PathBuf>,
        /// `--json`
        json: bool,
    },
    /// Write telemetry.toml.
    Init {
        /// `--config FILE`
        config: Option<PathBuf>,
    },
    /// Check the health of the running server.
    Health {
        /// `--listen ADDR`
        listen: Option<String>,
    },
    /// Print a sample request on its way from spans to bytes.
    Explain {
        /// `request`, `spans`, or a backend. `None` means everything.
        topic: Option<String>,
        /// Part of the topic, or a field of its JSON.
        section: Option<String>,
    },
    /// Print the completions for a shell.
    Completions(Shell),
    /// Print the manual page.
    Man,
    /// Print help.
    Help,
    /// Print the version.
    Version,
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
///
/// An argument is invalid. The text names it and refers to `--help`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut command, mut given, mut arguments) = (None, Vec::new(), Vec::new());
    let (mut config, mut listen, mut notifications_url) = (None, None, None);
    let (mut json, mut color) = (false, ColorChoice::default());
    while let Some(argument) = parser.next().map_err(with_hint)? {
        match argument {
            Short('h') | Long("help") => return Ok(Arguments { command: Command::Help, color }),
            Short('V') | Long("version") => return Ok(Arguments { command: Command::Version, color }),
            Long("config") => {
                given.push("--config");
                config = Some(PathBuf::from(parser.value().map_err(with_hint)?));
            }
            Long("listen") => {
                given.push("--listen");
                listen = Some(address("--listen", &mut parser)?);
            }
            Long("notifications-url") => {
                given.push("--notifications-url");
                notifications_url = Some(address("--notifications-url", &mut parser)?);
            }
            Long("json") => {
                given.push("--json");
                json = true;
            }
            Long("color") => {
                let value = parser.value().map_err(with_hint)?;
                let choice = ColorChoice::NAMES.iter().find(|(name, _)| value == *name);
                let unknown = || with_hint(format!("unknown value {value:?} of --color: use auto, always or never"));
                color = choice.ok_or_else(unknown)?.1;
            }
            Value(word) if command.is_none() => match COMMANDS.iter().find(|known| word == known.name) {
                Some(known) => command = Some(known),
                None => return Err(with_hint(Value(word).unexpected())),
            },
            Value(word) if command.is_some_and(|command| arguments.len() < command.arguments.len()) => {
                arguments.push(word.to_string_lossy().into_owned());
            }
            other => return Err(with_hint(other.unexpected())),
        }
    }
    let command = command.unwrap_or(&COMMANDS[0]);
    if let Some(option) = given.iter().find(|option| !command.options.contains(option)) {
        return Err(with_hint(format!("{option} cannot be used with {}", command.name)));
    }
    let mut arguments = arguments.into_iter();
    let command = match command.name {
        "check" => Command::Check { config, json },
        "init" => Command::Init { config },
        "health" => Command::Health { listen },
        "explain" => Command::Explain { topic: arguments.next(), section: arguments.next() },
        "completions" => Command::Completions(shell(arguments.next())?),
        "man" => Command::Man,
        _ => Command::Serve { config, listen, notifications_url },
    };
    Ok(Arguments { command, color })
}

fn shell(name: Option<String>) -> Result<Shell, String> {
    let name = name.unwrap_or_default();
    let wrong = || with_hint(format!("completions {name:?} is not a shell; next: use one of {}", SHELLS.join(", ")));
    Shell::named(&name).ok_or_else(wrong)
}

fn address(option: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(with_hint)?;
    value.into_string().map_err(|value| with_hint(format!("{option} {value:?} is not UTF-8")))
}

fn with_hint(problem: impl std::fmt::Display) -> String {
    format!("{problem}; see cruddur --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Palette;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from)).map(|arguments| arguments.command)
    }

    #[test]
    fn every_command_accepts_a_choice_of_colours() {
        for command in ["serve", "check", "init", "health", "explain", "man"] {
            let arguments = parse([command, "--color", "never"].map(OsString::from)).unwrap();
            assert_eq!(arguments.color, ColorChoice::Never, "{command}");
        }
        assert_eq!(parse(["--color=always", "--help"].map(OsString::from)).unwrap().color, ColorChoice::Always);
        assert_eq!(parse([]).unwrap().color, ColorChoice::Auto);
    }

    #[test]
    fn colours_change_no_letter_of_the_help() {
        let coloured = help(&Palette::COLOURED);
        assert!(coloured.contains("\u{1b}[1mOptions:\u{1b}[0m\n"), "{coloured}");
        assert!(coloured.contains("  \u{1b}[1m--json\u{1b}[0m  "), "{coloured}");
        assert_eq!(coloured.replace("\u{1b}[1m", "").replace("\u{1b}[0m", ""), help(&Palette::PLAIN));
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        let serve = Command::Serve {
            config: Some("x.toml".into()),
            listen: Some("[::1]:0".to_owned()),
            notifications_url: None,
        };
        assert_eq!(parsed(&["--config", "x.toml", "--listen=[::1]:0"]).unwrap(), serve);
        assert_eq!(parsed(&["serve", "--config=x.toml", "--listen", "[::1]:0"]).unwrap(), serve);
        assert_eq!(parsed(&["init"]).unwrap(), Command::Init { config: None });
        assert_eq!(parsed(&["health", "--listen", "x:1"]).unwrap(), Command::Health { listen: Some("x:1".to_owned()) });
        assert_eq!(parsed(&["explain"]).unwrap(), Command::Explain { topic: None, section: None });
        let topic = Some("xray".to_owned());
        assert_eq!(parsed(&["explain", "xray"]).unwrap(), Command::Explain { topic: topic.clone(), section: None });
        let section = Some("http".to_owned());
        assert_eq!(parsed(&["explain", "xray", "http"]).unwrap(), Command::Explain { topic, section });
        let check = Command::Check { config: Some("x.toml".into()), json: true };
        assert_eq!(parsed(&["check", "--json", "--config", "x.toml"]).unwrap(), check);
        assert_eq!(parsed(&["completions", "zsh"]).unwrap(), Command::Completions(Shell::Zsh));
        assert_eq!(parsed(&["man"]).unwrap(), Command::Man);
        assert_eq!(parsed(&["init", "--help"]).unwrap(), Command::Help);
        assert_eq!(parsed(&["-V"]).unwrap(), Command::Version);
    }

    #[test]
    fn an_argument_that_makes_no_sense_is_named() {
        for (arguments, part) in [
            (&["--listne"][..], "--listne"),
            (&["--config"], "--config"),
            (&["dance"], "dance"),
            (&["serve", "init"], "init"),
            (&["init", "--listen", "x"], "--listen"),
            (&["init", "--notifications-url", "x"], "--notifications-url"),
            (&["health", "--config", "x"], "--config"),
            (&["explain", "--listen", "x"], "--listen"),
            (&["explain", "xray", "http", "honeycomb"], "honeycomb"),
            (&["serve", "--json"], "--json"),
            (&["check", "--color", "red"], "red"),
            (&["completions"], "bash, zsh, fish"),
            (&["completions", "tcsh"], "tcsh"),
            (&["man", "bash"], "bash"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part) && error.ends_with("see cruddur --help"), "{error}");
        }
    }

    #[test]
    fn every_command_and_option_of_the_table_is_parsed_and_in_the_help() {
        for command in COMMANDS {
            let mut line = vec![command.name];
            line.extend(command.arguments.iter().filter_map(|argument| argument.values.first()));
            for option in table::OPTIONS.iter().filter(|option| command.options.contains(&option.long)) {
                line.push(option.long);
                line.extend((option.value != table::OptionValue::None).then_some("x"));
            }
            assert!(parsed(&line).is_ok(), "{line:?}");
            assert!(help(&Palette::PLAIN).contains(&format!("\n  {} ", command.name)), "{}", command.name);
        }
        for shell in SHELLS {
            assert!(Shell::named(shell).is_some(), "{shell}");
        }
        let text = help(&Palette::PLAIN);
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }
}
