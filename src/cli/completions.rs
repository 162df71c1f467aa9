//! Completions for shells: every command, its options and its values, from the table of commands.

use super::table::{ArgumentSpec, COMMANDS, CommandSpec, OPTIONS, OptionSpec, OptionValue};

/// A shell that has completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shell {
    /// bash 3.2 or newer
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl Shell {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}

/// Returns the script that completes the arguments of cruddur in this shell.
pub fn completions(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The loop finds the command, and counts the arguments between it and the cursor.
fn bash() -> String {
    let names =
        |value: fn(&OptionSpec) -> bool| joined(OPTIONS.iter().filter(|option| value(option)).map(|it| it.long), "|");
    let of_file = names(|option| matches!(option.value, OptionValue::File(_)));
    let of_text = names(|option| matches!(option.value, OptionValue::Text(_)));
    let commands = joined(COMMANDS.iter().map(|command| command.name), "|");
    let mut cases = format!("        ':0') words='{} {}' ;;\n", commands.replace('|', " "), option_words(&COMMANDS[0]));
    for command in COMMANDS {
        for (at, argument) in command.arguments.iter().enumerate().filter(|(_, argument)| !argument.values.is_empty()) {
            let words = format!("{} {}", argument.values.join(" "), option_words(command));
            cases += &format!("        '{}:{at}') words='{words}' ;;\n", command.name);
        }
        cases += &format!("        '{}:'*) words='{}' ;;\n", command.name, option_words(command));
    }
    format!(
        "_cruddur() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command='' words='' count=0 i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {of_file}|{of_text}) i=$((i + 1)) ;;
        -*) ;;
        *) if [ -z \"$command\" ]; then command=${{COMP_WORDS[i]}}; else count=$((count + 1)); fi ;;
        esac
    done
    COMPREPLY=()
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
    {of_file})
        compopt -o default 2>/dev/null
        return
        ;;
    {of_text}) return ;;
    esac
    case \"$command:$count\" in
{cases}    esac
    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))
}}
complete -F _cruddur cruddur
"
    )
}

fn zsh() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let option = |option: &OptionSpec| {
        let text = beginning(option.summary);
        let value = match option.value {
            OptionValue::None => String::new(),
            OptionValue::File(name) => format!(":{name}:_files"),
            OptionValue::Text(name) => format!(":{name}: "),
        };
        let equals = if option.value == OptionValue::None { "" } else { "=" };
        let one = |name: &str| quoted(&format!("{name}{equals}[{text}]{value}"));
        joined([option.short, option.long].into_iter().filter(|name| !name.is_empty()).map(one), " ")
    };
    let argument = |argument: &ArgumentSpec| match argument.values {
        [] => quoted(&format!(":{}: ", argument.name)),
        values => quoted(&format!(":{}:({})", argument.name, values.join(" "))),
    };
    let specs = |command: &CommandSpec| {
        joined(command.all_options().map(option).chain(command.arguments.iter().map(argument)), " \\\n            ")
    };
    let list = COMMANDS.iter().map(|command| quoted(&format!("{}:{}", command.name, beginning(command.summary))));
    let cases = COMMANDS.iter().map(|command| format!("        {}) _arguments {} ;;\n", command.name, specs(command)));
    format!(
        "#compdef cruddur

_cruddur() {{
    local curcontext=$curcontext state line
    local -a commands
    commands=(
        {}
    )
    _arguments -C {} \\
            '1: :->command' '*:: :->rest'
    case $state in
    command) _describe command commands ;;
    rest)
        case $line[1] in
{}        esac
        ;;
    esac
}}

if [ \"$funcstack[1]\" = _cruddur ]; then
    _cruddur \"$@\"
else
    compdef _cruddur cruddur
fi
",
        joined(list, "\n        "),
        specs(&COMMANDS[0]),
        joined(cases, ""),
    )
}

fn fish() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut script = String::from("complete -c cruddur -f\n");
    for command in COMMANDS {
        let (name, text) = (command.name, quoted(beginning(command.summary)));
        script += &format!("complete -c cruddur -n __fish_use_subcommand -a {name} -d {text}\n");
        if let Some(ArgumentSpec { values, .. }) = command.arguments.first() {
            let values = values.join(" ");
            let condition = format!("__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {values}");
            script += &format!("complete -c cruddur -n {} -a {}\n", quoted(&condition), quoted(&values));
        }
    }
    for option in OPTIONS {
        let users =
            COMMANDS.iter().filter(|command| command.options.contains(&option.long)).map(|command| command.name);
        let is_default = COMMANDS[0].options.contains(&option.long);
        let condition = match (joined(users, " "), is_default) {
            (users, _) if users.is_empty() => String::new(),
            (users, true) => format!("__fish_use_subcommand; or __fish_seen_subcommand_from {users}"),
            (users, false) => format!("__fish_seen_subcommand_from {users}"),
        };
        let condition = if condition.is_empty() { String::new() } else { format!(" -n {}", quoted(&condition)) };
        let short = option.short.strip_prefix('-').map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = match option.value {
            OptionValue::None => "",
            OptionValue::File(_) => " -r -F",
            OptionValue::Text(_) => " -x",
        };
        let long = option.long.trim_start_matches('-');
        script += &format!(
            "complete -c cruddur{condition}{short} -l {long}{value} -d {}\n",
            quoted(beginning(option.summary))
        );
    }
    script
}

fn option_words(command: &CommandSpec) -> String {
    joined(command.all_options().map(|option| option.long), " ")
}

/// The beginning of a text, up to its first semicolon or bracket.
fn beginning(text: &'static str) -> &'static str {
    text.split([';', '[']).next().unwrap_or_default().trim_end()
}

fn joined(parts: impl Iterator<Item = impl AsRef<str>>, separator: &str) -> String {
    let mut text = String::new();
    for part in parts {
        text += if text.is_empty() { "" } else { separator };
        text += part.as_ref();
    }
    text
}
