//! What the documents say is so: every trap has its tests, every setting its row, and the files for containers keep what the
//! traps promise.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const SETTINGS_BEGIN: &str = "<!-- the settings, written by UPDATE_GOLDEN=1 cargo test --test it documents -->\n";
const SETTINGS_END: &str = "<!-- the end of the settings -->\n";

#[test]
fn every_trap_says_what_happens_here_and_which_tests_prove_it() {
    let text = read("docs/traps.md");
    let sources = [files_in("src"), files_in("tests")].concat();
    let sources: Vec<String> = sources.iter().filter(|path| path.ends_with(".rs")).map(read).collect();
    let mut found = BTreeSet::new();
    for trap in text.split("\n### T").skip(1) {
        let number = trap.split_whitespace().next().and_then(|number| number.parse::<u32>().ok());
        let number = number.unwrap_or_else(|| panic!("no number: {trap}"));
        assert!(found.insert(number), "T{number} is there twice");
        for part in ["\n**There:** ", "\n**Here:** ", "\n**Tests:** "] {
            assert_eq!(trap.matches(part).count(), 1, "T{number}: {part}");
        }
        let (_, tests) = trap.split_once("**Tests:** ").expect("there is one");
        let tests = tests.split("\n\n").next().unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "T{number} names no test");
        for name in names {
            let is_test = |source: &String| {
                source.match_indices(&format!("fn {name}()")).any(|(at, _)| {
                    let before = source[..at].trim_end().trim_end_matches("async").trim_end();
                    before.ends_with("#[test]")
                })
            };
            assert!(sources.iter().any(is_test), "T{number}: there is no test {name}");
        }
    }
    assert_eq!(found, (1..=35).collect::<BTreeSet<u32>>());
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    let readme = read("README.md");
    let (before, rest) = readme.split_once(SETTINGS_BEGIN).expect("the mark where the table begins");
    let (table, after) = rest.split_once(SETTINGS_END).expect("the mark where it ends");
    let of_the_code = settings_table(&cruddur::run::default_file());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = [before, SETTINGS_BEGIN, &of_the_code, SETTINGS_END, after].concat();
        // In one step: other tests read it meanwhile.
        fs::write(path("README.md.new"), text).expect("a file beside README.md can be written");
        fs::rename(path("README.md.new"), path("README.md")).expect("README.md can be written");
        return;
    }
    assert_eq!(table, of_the_code, "UPDATE_GOLDEN=1 writes it anew");
}

/// Both ways: none is missing, and none is there that the program never reads.
#[test]
fn the_readme_names_exactly_the_variables_that_the_program_reads() {
    let readme = read("README.md");
    let in_readme = variables(&readme);
    let shipped = files_in("src").into_iter().filter(|path| path.ends_with(".rs") && !path.ends_with("tests.rs"));
    let quoted: BTreeSet<String> = shipped.flat_map(|path| quoted_variables(&read(path))).collect();
    let missing: Vec<_> = quoted.difference(&in_readme).collect();
    let unknown: Vec<_> = in_readme.difference(&quoted).collect();
    assert!(missing.is_empty(), "the code reads them, README.md does not name them: {missing:?}");
    assert!(unknown.is_empty(), "README.md names them, the code does not: {unknown:?}");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let documents = [files_in("docs"), files_in("aws"), vec!["README.md".into(), "ARCHITECTURE.md".into()]].concat();
    let mut dead = Vec::new();
    for document in documents.iter().filter(|path| path.ends_with(".md")) {
        let folder = Path::new(document).parent().expect("a file in a folder");
        for target in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned)) {
            let file = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !file.is_empty() && !path(folder.join(file)).exists() {
                dead.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_daemon_is_started_with_one_word_and_both_its_ports() {
    let compose = read("docker-compose.yml");
    let (_, daemon) = compose.split_once("\n  xray-daemon:\n").expect("the daemon");
    let daemon = daemon.split("\n\n").next().unwrap_or_default();
    assert!(daemon.contains("\n    command: [\"-o\"]\n"), "{daemon}");
    assert!(daemon.contains(":2000:2000/udp\"") && daemon.contains(":2000:2000/tcp\""), "{daemon}");
}

#[test]
fn no_port_of_the_compose_file_is_open_to_the_network() {
    let compose = read("docker-compose.yml");
    let ports: Vec<&str> = compose.lines().filter(|line| line.trim_start().starts_with("ports:")).collect();
    assert!(ports.len() >= 5, "{ports:?}");
    // Only nginx, which is in front, can be opened, and only by a variable.
    let (_, nginx) = compose.split_once("\n  nginx:\n").expect("the service of the public profile");
    let public = "${PUBLIC_ADDRESS:-127.0.0.1}:${PUBLIC_PORT:-8080}:8080";
    assert!(nginx.split("\n\n").next().unwrap_or_default().contains(public));
    for port in ports.iter().flat_map(|line| line.split('"').skip(1).step_by(2)) {
        assert!(port.starts_with("127.0.0.1:") || port == public, "{port}");
    }
    assert_eq!(compose.matches("PUBLIC_ADDRESS:-").count(), 1);
}

#[test]
fn the_daemons_port_is_private_in_gitpod() {
    let gitpod = read(".gitpod.yml");
    let (_, port) = gitpod.split_once("- port: 2000\n").expect("the daemon's port");
    let port = port.split("- port:").next().unwrap_or_default();
    assert!(port.contains("visibility: private") && !port.contains("public\n"), "{port}");
}

#[test]
fn git_ignores_the_file_with_the_keys() {
    assert!(read(".gitignore").lines().any(|line| line == ".env"));
    let example = read(".env.example");
    for line in example.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.split_once('=').expect("NAME=value");
        assert!(value.is_empty() || name.ends_with("_REGION"), "{line}");
    }
}

/// The keys of the settings file with their comments, which name the variables too, as a Markdown table.
fn settings_table(toml: &str) -> String {
    let mut text = String::from("| key | default | meaning, and the variable that wins over it |\n|---|---|---|\n");
    let (mut comment, mut keys) = (String::new(), Vec::new());
    let flush = |text: &mut String, comment: &mut String, keys: &mut Vec<(String, String)>| {
        if !keys.is_empty() {
            let join =
                |part: fn(&(String, String)) -> &String| keys.iter().map(part).cloned().collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "| {} | {} | {} |", join(|it| &it.0), join(|it| &it.1), comment.trim());
            keys.clear();
        }
        comment.clear();
    };
    let mut after_key = false;
    for line in toml.lines() {
        let setting = line.strip_prefix("# ").unwrap_or(line).split_once(" = ");
        let setting = setting.filter(|(key, _)| !key.contains(' ') || key.starts_with('"'));
        match (setting, line.strip_prefix("# ")) {
            (Some((key, value)), in_comment) => {
                let value = if in_comment.is_some() { format!("(`{value}`)") } else { format!("`{value}`") };
                keys.push((format!("`{key}`"), value));
                after_key = true;
            }
            (None, Some(words)) => {
                if after_key {
                    flush(&mut text, &mut comment, &mut keys);
                }
                after_key = false;
                let words = words.split(' ').map(|word| match word.trim_end_matches([',', '.', ';']) {
                    name if is_variable(name) => word.replace(name, &format!("`{name}`")),
                    _ => word.to_owned(),
                });
                let _ = write!(comment, "{} ", words.collect::<Vec<_>>().join(" ").replace('|', "\\|"));
            }
            (None, None) => {
                let words = comment.clone();
                flush(&mut text, &mut comment, &mut keys);
                if line.starts_with('[') {
                    let _ = writeln!(text, "| **`{line}`** | | {} |", words.trim());
                }
                after_key = false;
            }
        }
    }
    flush(&mut text, &mut comment, &mut keys);
    text
}

/// `AWS_REGION`, `OTEL_SDK_DISABLED` and the like.
fn is_variable(word: &str) -> bool {
    const BEGINNINGS: [&str; 8] =
        ["AWS_", "OTEL_", "HONEYCOMB_", "CRUDDUR_", "RUST_", "FRONTEND_", "BACKEND_", "NOTIFICATIONS_"];
    BEGINNINGS.iter().any(|beginning| word.len() > beginning.len() && word.starts_with(beginning))
        && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && !word.ends_with('_')
}

/// Every variable that a text names.
fn variables(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| is_variable(word)).map(str::to_owned).collect()
}

/// Every variable that stands alone between quotes: a name that is looked up, not one that is talked about.
fn quoted_variables(source: &str) -> BTreeSet<String> {
    let code = source.split("\nmod tests {").next().unwrap_or_default();
    code.split('"').filter(|word| is_variable(word)).map(str::to_owned).collect()
}

fn read(file: impl AsRef<Path>) -> String {
    let file = path(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn path(file: impl AsRef<Path>) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// All files under a folder, as paths from the top of the project.
fn files_in(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("a file").path();
            if entry.is_dir() {
                if !entry.ends_with("node_modules") {
                    open.push(entry);
                }
            } else {
                let inside = entry.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("it is in the project");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
