//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

/// What the user wants.
#[derive(Debug, Eq, PartialEq)]
pub enum Command {
    /// Answer requests.
    Serve {
        /// `--config FILE`
        config: Option<PathBuf>,
        /// `--listen ADDR`
        listen: Option<String>,
        /// `--notifications-url URL`
        notifications_url: Option<String>,
    },
    /// Try out every backend that is on.
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
    /// Print help.
    Help,
    /// Print the version.
    Version,
}

/// `--help`
pub const HELP: &str = "\
The Cruddur backend, traced by hand: OTLP to Honeycomb, every byte on view.

Usage: cruddur [serve] [--config FILE] [--listen ADDR] [--notifications-url URL]
       cruddur check [--config FILE] [--json]
       cruddur init [--config FILE]

Commands:
  serve    Answer requests (what happens without a command)
  check    Send a trace and a log line to every backend that is on, and say what came back and what to do about it;
           exit status 0 only if all of it was accepted
  init     Write telemetry.toml with every setting and a comment on each; never over a file that exists

Options:
  --config FILE    Settings [env: CRUDDUR_CONFIG] [default: telemetry.toml, if it exists]
  --listen ADDR    Where to listen; port 0 takes a free one [env: CRUDDUR_LISTEN] [default: 127.0.0.1:4567]
  --notifications-url URL
                   Get notifications from another instance, as http://host:port [env: NOTIFICATIONS_URL]
  --json           With check: the report for machines
  -h, --help       Print this
  -V, --version    Print the version

Try: http://127.0.0.1:4567/ in a browser, or curl http://127.0.0.1:4567/api/activities/home
";

/// Reads the arguments that follow the program's name.
///
/// # Errors
///
/// One of them makes no sense; the text says which, and what would.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut command, mut config, mut listen, mut notifications_url) = (None, None, None, None);
    let mut json = false;
    while let Some(argument) = parser.next().map_err(with_hint)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("config") => config = Some(PathBuf::from(parser.value().map_err(with_hint)?)),
            Long("listen") => listen = Some(address("--listen", &mut parser)?),
            Long("notifications-url") => notifications_url = Some(address("--notifications-url", &mut parser)?),
            Long("json") => json = true,
            Value(name) if command.is_none() && COMMANDS.iter().any(|known| name == *known) => command = Some(name),
            other => return Err(with_hint(other.unexpected())),
        }
    }
    let command = command.unwrap_or_else(|| "serve".into());
    for (option, is_given, of) in [
        ("--listen", listen.is_some(), "serve"),
        ("--notifications-url", notifications_url.is_some(), "serve"),
        ("--json", json, "check"),
    ] {
        if is_given && command != of {
            return Err(with_hint(format!("{option} makes no sense with {}", command.display())));
        }
    }
    Ok(match command.to_str() {
        Some("check") => Command::Check { config, json },
        Some("init") => Command::Init { config },
        _ => Command::Serve { config, listen, notifications_url },
    })
}

fn address(option: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(with_hint)?;
    value.into_string().map_err(|value| with_hint(format!("{option} {value:?} is no address")))
}

const COMMANDS: [&str; 3] = ["serve", "check", "init"];

fn with_hint(problem: impl std::fmt::Display) -> String {
    format!("{problem}; see cruddur --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from))
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
            (&["serve", "--json"], "--json"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part) && error.ends_with("see cruddur --help"), "{error}");
        }
    }
}
