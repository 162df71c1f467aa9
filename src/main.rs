//! Entry point: parses the arguments and runs a command of [`cruddur::run`].

#[cfg(unix)]
use std::{io::Write, process::ExitCode};

#[cfg(unix)]
use cruddur::cli::{Command, completions, help, man_page, parse};
#[cfg(unix)]
use cruddur::run::{Exit, Format, check, explain, health, init, painted, print, serve};
#[cfg(unix)]
use cruddur::terminal::{Terminal, set_color_choice};
#[cfg(unix)]
use cruddur::wire::stdout;

#[cfg(not(unix))]
compile_error!("cruddur needs Linux or macOS; on Windows, build it in WSL or run its container: see docs/install.md");

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> ExitCode {
    let arguments = parse(std::env::args_os().skip(1)).map_err(Exit::wrong);
    let command = arguments.map(|arguments| {
        set_color_choice(arguments.color);
        arguments.command
    });
    let result = command.and_then(|command| match command {
        Command::Serve { config, listen, notifications_url } => {
            serve(config.as_deref(), listen.as_deref(), notifications_url.as_deref())
        }
        Command::Check { config, json } => check(config.as_deref(), if json { Format::Json } else { Format::Text }),
        Command::Init { config } => init(config),
        Command::Health { listen } => health(listen.as_deref()).and_then(|url| print(&format!("{url} is healthy\n"))),
        Command::Explain { topic, section } => {
            let text = explain(topic.as_deref(), section.as_deref());
            text.and_then(|text| print(&painted(&text, &stdout::terminal().palette)))
        }
        Command::Completions(shell) => print(&completions(shell)),
        Command::Man => print(&man_page()),
        Command::Help => print(&help(&stdout::terminal().palette)),
        Command::Version => print(concat!("cruddur ", env!("CARGO_PKG_VERSION"), "\n")),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit { message, status }) => {
            let mut stderr = std::io::stderr();
            let terminal = Terminal::of(&stderr);
            let error = terminal.palette.error;
            let mut text = format!("{error}cruddur:{error:#} ");
            terminal.hang(&mut text, "cruddur: ".len(), &message.to_string());
            let _ = stderr.write_all(text.as_bytes());
            ExitCode::from(status)
        }
    }
}
