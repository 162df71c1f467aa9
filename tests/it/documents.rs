//! The documents are true: every trap has its tests, every setting has its row, and the files for
//! containers do what the traps promise.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const SETTINGS: &str = "docs/settings.md";
const SETTINGS_BEGIN: &str = "<!-- the settings, written by UPDATE_GOLDEN=1 cargo test --test it documents -->\n";
const SETTINGS_END: &str = "<!-- the end of the settings -->\n";
/// The list of the variables whose values are checked for quotes, placeholders and the like.
const CHECKED_VARIABLES: &str = "src/settings/value_faults.rs";
/// Misspelt on purpose, in lesson 8.
const MISSPELT: &str = "HONEYCOMB_API_KY";

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
    assert_eq!(found, (1..=43).collect::<BTreeSet<u32>>());
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    let document = read(SETTINGS);
    let (before, rest) = document.split_once(SETTINGS_BEGIN).expect("the mark where the table begins");
    let (table, after) = rest.split_once(SETTINGS_END).expect("the mark where it ends");
    let of_the_code = settings_table(&cruddur::run::default_file());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = [before, SETTINGS_BEGIN, &of_the_code, SETTINGS_END, after].concat();
        // Replaced in one step, because other tests read the file at the same time.
        fs::write(path("docs/settings.md.new"), text).expect("a file beside the document can be written");
        fs::rename(path("docs/settings.md.new"), path(SETTINGS)).expect("the document can be written");
        return;
    }
    assert_eq!(table, of_the_code, "UPDATE_GOLDEN=1 writes it anew");
}

/// Checked in both directions: the document names every variable that the program reads, and
/// neither it nor any other document for users names another one.
#[test]
fn the_settings_document_names_exactly_the_variables_that_the_program_reads() {
    let is_shipped = |path: &String| path.ends_with(".rs") && !path.ends_with("tests.rs") && path != CHECKED_VARIABLES;
    let shipped = files_in("src").into_iter().filter(is_shipped);
    let quoted: BTreeSet<String> = shipped.flat_map(|path| quoted_variables(&read(path))).collect();
    let checked = quoted_variables(&read(CHECKED_VARIABLES));
    let unknown: Vec<_> = checked.difference(&quoted).collect();
    assert!(unknown.is_empty(), "{CHECKED_VARIABLES} lists them, the code does not read them: {unknown:?}");
    // The values of these variables have no effect.
    let unchecked: Vec<_> = quoted.difference(&checked).filter(|name| !name.ends_with("_EXPORTER")).collect();
    let unchecked: Vec<_> = unchecked.into_iter().filter(|name| !name.contains("_SEMCONV_")).collect();
    assert!(unchecked.is_empty(), "the code reads them, {CHECKED_VARIABLES} does not list them: {unchecked:?}");
    let documented = variables(&read(SETTINGS));
    let missing: Vec<_> = quoted.difference(&documented).collect();
    assert!(missing.is_empty(), "the code reads them, {SETTINGS} does not name them: {missing:?}");
    for document in readme_and_docs() {
        let named = variables(&read(&document));
        let unknown: Vec<_> = named.difference(&quoted).filter(|name| *name != MISSPELT).collect();
        assert!(unknown.is_empty(), "{document} names them, the code does not: {unknown:?}");
    }
}

#[test]
fn the_http_document_lists_exactly_the_routes_of_the_program() {
    let source = read("src/http/routes.rs");
    let (table, _) = source.split_once("\n];\n").expect("the end of the table of routes");
    let mut routes = BTreeSet::new();
    for route in table.split("\n    route!(").skip(1) {
        let (method, rest) = route.split_once('"').expect("a path in quotes");
        let (path, _) = rest.split_once('"').expect("a path in quotes");
        routes.insert(format!("{method}{path}"));
    }
    assert!(routes.len() >= 15, "{routes:#?}");
    let document = read("docs/http.md");
    let listed = document.split('`').filter(|code| code.starts_with("GET /") || code.starts_with("POST /"));
    let listed = listed.map(|code| code.split('?').next().unwrap_or_default().to_owned());
    assert_eq!(listed.collect::<BTreeSet<String>>(), routes);
}

#[test]
fn no_sentence_of_the_readme_or_docs_has_more_than_30_words() {
    let mut long = Vec::new();
    for document in readme_and_docs() {
        for sentence in sentences(&read(&document)) {
            let words = words(&sentence);
            if words > 30 {
                long.push(format!("{document}, {words} words: {sentence}"));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_sentence_ends_where_a_reader_would_end_it() {
    for (text, expected) in [
        ("One two. Three?\nFour\nfive.", &["One two.", "Three?", "Four five."][..]),
        ("# Title\nText.", &["Title", "Text."]),
        ("Text:\n\n- one\n  two\n- three\n10. four", &["Text:", "one two", "three", "four"]),
        ("One (two.) **Three.** four", &["One (two.)", "**Three.**", "four"]),
        ("Version 1.88 of telemetry.toml.", &["Version 1.88 of telemetry.toml."]),
        ("Run `a b. c\nd` now", &["Run `` now"]),
        ("See [a\nb](c d.md) and ![e](f) at <http://g>.", &["See [a b] and ![e] at <http://g>."]),
        ("One.\n\n```sh\n# no. text\n\n- x\n```\nTwo.\n| a | b. c |\n> Three.", &["One.", "Two.", "Three."]),
        ("1. One.\n   ```sh\n   no\n   ```\n<!-- no -->\n", &["One."]),
    ] {
        assert_eq!(sentences(text), expected, "{text:?}");
    }
    assert_eq!(words("See `` and [a b], - not: 1.88 (c)."), 8);
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let at_the_top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned);
    let documents = [files_in("docs"), files_in("aws"), at_the_top.to_vec()].concat();
    let mut dead = Vec::new();
    for document in documents.iter().filter(|path| path.ends_with(".md")) {
        let folder = Path::new(document).parent().expect("a file in a folder");
        for target in read(document).split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned)) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { document.into() } else { folder.join(file) };
            if !path(&file).exists() || !(anchor.is_empty() || anchors(&read(&file)).any(|known| known == anchor)) {
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

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(markdown: &str) -> impl Iterator<Item = String> {
    markdown.lines().filter(|line| line.starts_with('#')).map(|heading| {
        let kept =
            heading.trim_matches(['#', ' ']).chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    })
}

/// README.md, the documents for contributors, and all Markdown files in docs.
fn readme_and_docs() -> Vec<String> {
    let docs = files_in("docs").into_iter().filter(|path| path.ends_with(".md"));
    [["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).to_vec(), docs.collect()].concat()
}

/// The sentences of a Markdown document, without code blocks, tables, comments and the targets of
/// links. Inline code is `` `` ``.
fn sentences(markdown: &str) -> Vec<String> {
    let (mut blocks, mut block, mut in_code) = (Vec::new(), String::new(), false);
    for line in markdown.lines().map(str::trim) {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        let text = line.strip_prefix('>').unwrap_or(line).trim_start();
        let item = text.strip_prefix("- ").or_else(|| {
            let (number, item) = text.split_once(". ")?;
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(item)
        });
        let is_heading = text.starts_with('#');
        let is_skipped = is_fence || in_code || text.starts_with('|') || text.starts_with("<!--");
        if is_skipped || text.is_empty() || is_heading || item.is_some() {
            blocks.push(std::mem::take(&mut block));
        }
        if !is_skipped {
            let text = item.unwrap_or(text).trim_start_matches(['#']).trim();
            block = format!("{block} {text}").trim().to_owned();
        }
        if is_heading {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks.push(block);
    blocks.iter().flat_map(|block| sentences_of_block(block)).collect()
}

/// The sentences of a paragraph or of an item of a list. A sentence ends at `.`, `!` or `?` before
/// a space; brackets, quotes and asterisks may come between.
fn sentences_of_block(block: &str) -> Vec<String> {
    let without_code: Vec<&str> = block.split('`').step_by(2).collect();
    let mut parts = without_code.join("``");
    while let Some((before, rest)) = parts.split_once("](") {
        let after = rest.split_once(')').map_or("", |(_, after)| after);
        parts = format!("{before}]{after}");
    }
    let (mut found, mut sentence) = (Vec::new(), String::new());
    for word in parts.split_whitespace() {
        sentence = format!("{sentence} {word}").trim().to_owned();
        if word.trim_end_matches([')', ']', '"', '*']).ends_with(['.', '!', '?']) {
            found.push(std::mem::take(&mut sentence));
        }
    }
    found.push(sentence);
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Number of words. Inline code is one word.
fn words(sentence: &str) -> usize {
    let is_word = |word: &&str| word.contains("``") || word.contains(char::is_alphanumeric);
    sentence.split_whitespace().filter(is_word).count()
}

/// The keys of the settings file with their comments, which name the variables too, as a Markdown
/// table.
fn settings_table(toml: &str) -> String {
    let mut text = String::from("| key | default | meaning, and the variable that overrides it |\n|---|---|---|\n");
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

/// True for `AWS_REGION`, `OTEL_SDK_DISABLED` and the like.
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

/// Every variable that is alone between quotes. Such a name is looked up; in longer texts it is
/// only mentioned.
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

/// All files in a folder and its subfolders, as paths from the top of the project.
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
