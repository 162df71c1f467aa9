//! `cruddur completions` and `cruddur man`.

use std::process::Command;

use crate::support::Program;

#[test]
fn bash_completes_commands_options_topics_and_shells() {
    let script = printed(&["completions", "bash"]);
    for (line, expected) in [
        ("cruddur he", "health"),
        ("cruddur --config x.toml he", "health"),
        ("cruddur check --", "--config --json --color --help --version"),
        ("cruddur health --l", "--listen"),
        ("cruddur explain x", "xray xray_otlp"),
        ("cruddur explain xray x", ""),
        ("cruddur completions ", "bash zsh fish --color --help --version"),
        ("cruddur --listen ", ""),
    ] {
        let test = format!(
            "{script}\nread -ra COMP_WORDS <<<'{line}.'; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            COMP_WORDS[COMP_CWORD]=${{COMP_WORDS[COMP_CWORD]%.}}; _cruddur; echo \"${{COMPREPLY[*]}}\""
        );
        let output = match Command::new("bash").args(["--norc", "-c", &test]).output() {
            Ok(output) => output,
            Err(error) => return println!("skipped: no bash: {error}"),
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{line:?}: {stderr}");
    }
}

#[test]
fn every_topic_that_the_completions_offer_is_explained() {
    let script = printed(&["completions", "fish"]);
    let (_, rest) = script.split_once("not __fish_seen_subcommand_from ").expect("the values of explain come first");
    let topics: Vec<&str> = rest.split('\'').next().unwrap_or_default().split(' ').collect();
    assert!(topics.contains(&"spans") && topics.len() >= 5, "{topics:?}");
    for topic in topics {
        assert!(!printed(&["explain", topic]).is_empty(), "{topic}");
    }
}

#[test]
fn the_manual_page_has_every_command_and_option_of_the_help() {
    let page = printed(&["man"]).replace("\\-", "-");
    for line in printed(&["--help"]).lines().filter(|line| line.starts_with("  ")) {
        for word in line.split_whitespace() {
            assert!(page.contains(word), "no {word} in {page}");
        }
    }
    assert!(page.lines().all(|line| !line.starts_with('\'')), "a line that roff takes for a macro: {page}");
}

fn printed(args: &[&str]) -> String {
    let exit = Program::run_to_end(args, &[], None);
    assert_eq!(exit.status.code(), Some(0), "{args:?}: {}", exit.stderr);
    exit.stdout
}
