//! Entry point: parses the arguments and runs a command of [`cruddur::run`].

#[cfg(unix)]
use std::{io::Write, process::ExitCode};

#[cfg(unix)]
use cruddur::cli::{Command, completions, help, man_page, parse};
#[cfg(unix)]
use cruddur::run::{Exit, Format, check, explain, health, init, print, serve};

#[cfg(not(unix))]
compile_error!("cruddur needs Linux or macOS; on Windows, build it in WSL or run its container: see docs/install.md");

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> ExitCode {
    let command = parse(std::env::args_os().skip(1)).map_err(Exit::wrong);
    let result = command.and_then(|command| match command {
        Command::Serve { config, listen, notifications_url } => {
            serve(config.as_deref(), listen.as_deref(), notifications_url.as_deref())
        }
        Command::Check { config, json } => check(config.as_deref(), if json { Format::Json } else { Format::Text }),
        Command::Init { config } => init(config),
        Command::Health { listen } => health(listen.as_deref()).and_then(|url| print(&format!("{url} is healthy\n"))),
        Command::Explain { topic, section } => {
            explain(topic.as_deref(), section.as_deref()).and_then(|text| print(&text))
        }
        Command::Completions(shell) => print(&completions(shell)),
        Command::Man => print(&man_page()),
        Command::Help => print(&help()),
        Command::Version => print(concat!("cruddur ", env!("CARGO_PKG_VERSION"), "\n")),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit { message, status }) => {
            let _ = writeln!(std::io::stderr(), "cruddur: {message}");
            ExitCode::from(status)
        }
    }
}
