//! Commands and options. The parser, `--help`, the completions and the manual page read this table.

/// A command.
pub(super) struct CommandSpec {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [ArgumentSpec],
    /// Long names of its options.
    pub(super) options: &'static [&'static str],
    /// A sentence for `--help`. The completions show its beginning, up to the first semicolon.
    pub(super) summary: &'static str,
}

/// An argument without a name.
pub(super) struct ArgumentSpec {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    /// Values for the completions. Empty if there are too many to list.
    pub(super) values: &'static [&'static str],
}

/// An option.
pub(super) struct OptionSpec {
    pub(super) long: &'static str,
    /// Empty if there is none.
    pub(super) short: &'static str,
    /// True if it belongs to every command.
    pub(super) is_common: bool,
    pub(super) value: OptionValue,
    pub(super) summary: &'static str,
}

/// The value of an option, with its name in `--help`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum OptionValue {
    None,
    File(&'static str),
    Text(&'static str),
}

impl CommandSpec {
    /// The options of this command, then those of every command.
    pub(super) fn all_options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        let own = self.options;
        OPTIONS.iter().filter(move |option| own.contains(&option.long) || option.is_common)
    }

    /// `cruddur check [--config FILE] [--json]`
    pub(super) fn usage(&self) -> String {
        let mut text =
            if self.name == COMMANDS[0].name { "cruddur [serve]".to_owned() } else { format!("cruddur {}", self.name) };
        for option in OPTIONS.iter().filter(|option| self.options.contains(&option.long)) {
            text += &format!(" [{}]", option.label());
        }
        for argument in self.arguments {
            text += &if argument.is_required { format!(" {}", argument.name) } else { format!(" [{}", argument.name) };
        }
        text + &"]".repeat(self.arguments.iter().filter(|argument| !argument.is_required).count())
    }
}

impl OptionSpec {
    /// `--config FILE`, or `-h, --help`
    pub(super) fn label(&self) -> String {
        let short = if self.short.is_empty() { String::new() } else { format!("{}, ", self.short) };
        match self.value {
            OptionValue::None => format!("{short}{}", self.long),
            OptionValue::File(name) | OptionValue::Text(name) => format!("{short}{} {name}", self.long),
        }
    }
}

/// The shells of `cruddur completions`.
pub(super) const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The first command is the default.
pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "serve",
        arguments: &[],
        options: &["--config", "--listen", "--notifications-url"],
        summary: "Run the server (the default)",
    },
    CommandSpec {
        name: "check",
        arguments: &[],
        options: &["--config", "--json"],
        summary: "Send a test trace and a test log line to every backend that is on; print the responses and the next \
                  steps; exit status 0 if all backends accepted them",
    },
    CommandSpec {
        name: "init",
        arguments: &[],
        options: &["--config"],
        summary: "Write telemetry.toml with every setting and a comment on each; never overwrites a file",
    },
    CommandSpec {
        name: "health",
        arguments: &[],
        options: &["--listen"],
        summary: "Check the health of the server that listens on ADDR; exit status 0 if it is healthy",
    },
    CommandSpec {
        name: "explain",
        arguments: &[
            ArgumentSpec {
                name: "TOPIC",
                is_required: false,
                values: &["request", "spans", "honeycomb", "xray", "xray_otlp", "cloudwatch"],
            },
            ArgumentSpec { name: "SECTION", is_required: false, values: &[] },
        ],
        options: &[],
        summary: "Show a sample request on its way from spans to bytes; TOPIC is request, spans, honeycomb, xray, \
                  xray_otlp or cloudwatch, and SECTION a part of it or a field of its JSON, as in cruddur explain xray annotations",
    },
    CommandSpec {
        name: "completions",
        arguments: &[ArgumentSpec { name: "SHELL", is_required: true, values: SHELLS }],
        options: &[],
        summary: "Print the completions for a shell; SHELL is bash, zsh or fish",
    },
    CommandSpec {
        name: "man",
        arguments: &[],
        options: &[],
        summary: "Print the manual page; cruddur man > cruddur.1 writes it",
    },
];

/// The options of all commands.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        long: "--config",
        short: "",
        is_common: false,
        value: OptionValue::File("FILE"),
        summary: "Settings file [env: CRUDDUR_CONFIG] [default: telemetry.toml, if it exists]",
    },
    OptionSpec {
        long: "--listen",
        short: "",
        is_common: false,
        value: OptionValue::Text("ADDR"),
        summary: "Address to listen on; port 0 chooses a free port [env: CRUDDUR_LISTEN] [default: 127.0.0.1:4567]",
    },
    OptionSpec {
        long: "--notifications-url",
        short: "",
        is_common: false,
        value: OptionValue::Text("URL"),
        summary: "Get notifications from another instance at http://host:port [env: NOTIFICATIONS_URL]",
    },
    OptionSpec {
        long: "--json",
        short: "",
        is_common: false,
        value: OptionValue::None,
        summary: "With check: print the report as JSON",
    },
    OptionSpec {
        long: "--color",
        short: "",
        is_common: true,
        value: OptionValue::Text("WHEN"),
        summary: "Colours: auto, always or never [env: NO_COLOR, CLICOLOR_FORCE] [default: auto, on a terminal]",
    },
    OptionSpec { long: "--help", short: "-h", is_common: true, value: OptionValue::None, summary: "Print this help" },
    OptionSpec {
        long: "--version",
        short: "-V",
        is_common: true,
        value: OptionValue::None,
        summary: "Print the version",
    },
];
