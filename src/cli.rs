//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

use crate::terminal::{ColorChoice, Palette};

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
    /// Print help.
    Help,
    /// Print the version.
    Version,
}

/// Text of `--help`.
const HELP: &str = "\
The Cruddur backend, traced by hand: OTLP to Honeycomb, segments to X-Ray, log lines to CloudWatch.

Usage: cruddur [serve] [--config FILE] [--listen ADDR] [--notifications-url URL]
       cruddur check [--config FILE] [--json]
       cruddur init [--config FILE]
       cruddur health [--listen ADDR]
       cruddur explain [TOPIC [SECTION]]
       All commands accept --color auto|always|never

Commands:
  serve    Run the server (the default)
  check    Send a test trace and a test log line to every backend that is on; print the responses and the next steps;
           exit status 0 if all backends accepted them
  init     Write telemetry.toml with every setting and a comment on each; never overwrites a file
  health   Check the health of the server that listens on ADDR; exit status 0 if it is healthy
  explain  Show a sample request on its way from spans to bytes; TOPIC is request, spans, honeycomb, xray or
           cloudwatch, and SECTION a part of it or a field of its JSON, as in cruddur explain xray annotations

Options:
  --config FILE    Settings file [env: CRUDDUR_CONFIG] [default: telemetry.toml, if it exists]
  --listen ADDR    Address to listen on; port 0 chooses a free port [env: CRUDDUR_LISTEN] [default: 127.0.0.1:4567]
  --notifications-url URL
                   Get notifications from another instance at http://host:port [env: NOTIFICATIONS_URL]
  --json           With check: print the report as JSON
  --color WHEN     Colours: auto, always or never [env: NO_COLOR, CLICOLOR_FORCE] [default: auto, on a terminal]
  -h, --help       Print this help
  -V, --version    Print the version

Then open http://127.0.0.1:4567/, or run curl http://127.0.0.1:4567/api/activities/home
";

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
    HELP.lines().map(line).collect()
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
///
/// An argument is invalid. The text names it and refers to `--help`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut command, mut given) = (None::<OsString>, Vec::new());
    let (mut config, mut listen, mut notifications_url) = (None, None, None);
    let (mut topic, mut section) = (None, None);
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
            Value(name) if command.is_none() && COMMANDS.iter().any(|(known, _)| name == *known) => {
                command = Some(name);
            }
            Value(name) if section.is_none() && command.as_ref().is_some_and(|command| command == "explain") => {
                let to = if topic.is_none() { &mut topic } else { &mut section };
                *to = Some(name.to_string_lossy().into_owned());
            }
            other => return Err(with_hint(other.unexpected())),
        }
    }
    let command = command.unwrap_or_else(|| COMMANDS[0].0.into());
    let (command, options) = COMMANDS.iter().find(|(known, _)| command == *known).unwrap_or(&COMMANDS[0]);
    if let Some(option) = given.iter().find(|option| !options.contains(option)) {
        return Err(with_hint(format!("{option} cannot be used with {command}")));
    }
    let command = match *command {
        "check" => Command::Check { config, json },
        "init" => Command::Init { config },
        "health" => Command::Health { listen },
        "explain" => Command::Explain { topic, section },
        _ => Command::Serve { config, listen, notifications_url },
    };
    Ok(Arguments { command, color })
}

/// Commands and their options. The first command is the default.
const COMMANDS: [(&str, &[&str]); 5] = [
    ("serve", &["--config", "--listen", "--notifications-url"]),
    ("check", &["--config", "--json"]),
    ("init", &["--config"]),
    ("health", &["--listen"]),
    ("explain", &[]),
];

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

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from)).map(|arguments| arguments.command)
    }

    #[test]
    fn every_command_accepts_a_choice_of_colours() {
        for command in ["serve", "check", "init", "health", "explain"] {
            let arguments = parse([command, "--color", "never"].map(OsString::from)).unwrap();
            assert_eq!(arguments.color, ColorChoice::Never, "{command}");
        }
        assert_eq!(parse(["--color=always", "--help"].map(OsString::from)).unwrap().color, ColorChoice::Always);
        assert_eq!(parse([]).unwrap().color, ColorChoice::Auto);
    }

    #[test]
    fn colours_change_no_letter_of_the_help() {
        assert_eq!(help(&Palette::PLAIN), HELP);
        let coloured = help(&Palette::COLOURED);
        assert!(coloured.contains("\u{1b}[1mOptions:\u{1b}[0m\n"), "{coloured}");
        assert!(coloured.contains("  \u{1b}[1m--json\u{1b}[0m  "), "{coloured}");
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
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part) && error.ends_with("see cruddur --help"), "{error}");
        }
    }
}
