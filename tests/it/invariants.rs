//! Promises of the architecture that the compiler does not check. The source is read as text, and
//! each violation is reported with file and line.
//!
//! Only shipped code is read. Comments are left out, and so are items under `#[cfg(test)]` and the
//! files that they include.

use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

/// The crates that the project is built from. Every other crate needs a reason.
const THE_EIGHT: [&str; 8] = ["tiny_http", "ureq", "serde", "serde_json", "toml", "chrono", "log", "env_logger"];

const LONGEST_FILE: usize = 600;

#[test]
fn imports_point_down_the_list_of_layers_in_the_architecture() {
    let layers = layers();
    let mut offenders = Vec::new();
    for source in shipped().iter().filter(|source| source.path != "src/lib.rs") {
        let own = source.module();
        let rank = layer_of(&layers, own).unwrap_or_else(|| panic!("ARCHITECTURE.md does not list {own}"));
        for (at, module) in source.imported_modules() {
            let below = layer_of(&layers, &module).is_some_and(|other| other > rank);
            if module != own && !below {
                offenders.push(source.offence(at, format!("{own} imports {module}, which is not below it")));
            }
        }
    }
    none("a module imports only modules below its own line in ARCHITECTURE.md", &offenders);
}

/// The test above depends on its reader of imports, so the reader has a test too.
#[test]
fn the_reader_of_imports_sees_every_form_of_one() {
    let source = Source::new(
        "src/run/check/probe.rs".to_owned(),
        r#"
            use crate::text::{Message, url};
            use crate::{delivery::{Plan, State}, logging};
            use super::report::Verdict;
            fn f() { crate::wire::http::g(); super::super::super::page::h(); let _ = "crate::quoted"; $crate::sync::lock() }
            #[cfg(test)] mod tests { use crate::golden; }
        "#,
    );
    let mut modules: Vec<String> = source.imported_modules().into_iter().map(|(_, module)| module).collect();
    modules.sort();
    assert_eq!(modules, ["delivery", "logging", "page", "sync", "text", "wire"]);
}

#[test]
fn what_encodes_does_no_io_and_looks_at_no_clock() {
    /// Transports and settings, and the files that read them. Everything else in a backend is pure.
    const IMPURE: [&str; 8] =
        ["mod.rs", "settings.rs", "findings.rs", "clock.rs", "rules.rs", "sampler.rs", "response.rs", "explain.rs"];
    let mut offenders = Vec::new();
    for source in shipped().iter().filter(|source| source.path.starts_with("src/backends/")) {
        let name = source.path.rsplit('/').next().unwrap_or_default();
        if source.code.contains("impl Transport for") || IMPURE.contains(&name) {
            continue;
        }
        for name in ["wire", "SystemTime", "Instant", "Utc", "fs", "env"] {
            let is_call = |at: &usize| !source.bare[at + name.len()..].starts_with('!');
            offenders.extend(source.words(name).filter(is_call).map(|at| source.offence(at, name)));
        }
    }
    none("encoders are pure", &offenders);
}

#[test]
fn only_wire_and_http_open_sockets_and_only_wire_and_the_commands_print() {
    const SOCKETS: [&str; 8] =
        ["TcpListener", "TcpStream", "UdpSocket", "UnixDatagram", "UnixListener", "UnixStream", "socket2", "tiny_http"];
    let mut offenders = Vec::new();
    for source in shipped() {
        if !source.is_in(&["src/wire/", "src/http/"]) {
            for name in SOCKETS {
                offenders.extend(source.words(name).map(|at| source.offence(at, name)));
            }
            // `ureq::http` contains the types of a URL and of headers. Everything else in `ureq`
            // makes calls.
            let makes_calls = |at: &usize| !source.bare[at + "ureq".len()..].starts_with("::http::");
            offenders.extend(source.words("ureq").filter(makes_calls).map(|at| source.offence(at, "ureq")));
        }
        if !source.is_in(&["src/wire/", "src/main.rs", "src/run/"]) {
            for name in ["print", "println"] {
                let is_macro = |at: &usize| source.bare[at + name.len()..].starts_with('!');
                offenders.extend(source.words(name).filter(is_macro).map(|at| source.offence(at, name)));
            }
            let is_std = |at: &usize| source.bare[..*at].ends_with("io::") || source.bare[*at..].starts_with("stdout(");
            offenders.extend(source.words("stdout").filter(is_std).map(|at| source.offence(at, "stdout")));
        }
    }
    none("telemetry leaves through src/wire/ and requests come in through src/http/, nowhere else", &offenders);
}

#[test]
fn trace_and_activities_name_no_backend_and_no_json_dialect() {
    let mut words =
        ["otlp", "honeycomb", "cloudwatch", "xray_udp", "serde_json", "backends::"].map(str::to_owned).to_vec();
    words.extend(backend_modules());
    words.extend(cruddur::backends::BACKENDS.iter().map(|plugin| plugin.name.to_owned()));
    // "xray" is allowed because X-Ray also has its own spelling of ids and of the caller's context.
    words.retain(|word| word != "xray");
    words.sort();
    words.dedup();
    let mut offenders = Vec::new();
    for source in shipped().iter().filter(|source| source.is_in(&["src/trace/", "src/activities/"])) {
        let lower_case = source.code.to_ascii_lowercase();
        for word in &words {
            offenders.extend(lower_case.match_indices(word.as_str()).map(|(at, _)| source.offence(at, word)));
        }
    }
    for source in shipped().iter().filter(|source| source.is_in(&["src/trace/"])) {
        offenders.extend(source.words("Deserialize").map(|at| source.offence(at, "Deserialize")));
    }
    none("src/trace/ and src/activities/ know neither who is told nor in which JSON", &offenders);
}

#[test]
fn only_the_list_of_backends_names_one() {
    let modules = backend_modules();
    let mut offenders = Vec::new();
    for source in shipped().iter().filter(|source| !source.is_in(&["src/backends/"])) {
        for module in &modules {
            offenders.extend(source.words(module).map(|at| source.offence(at, module)));
        }
    }
    none("outside src/backends/ no backend has a name", &offenders);
}

#[test]
fn nothing_is_unsafe_and_nothing_is_unwrapped_without_saying_why_it_cannot_fail() {
    let mut offenders = Vec::new();
    for source in shipped() {
        for name in ["unsafe", "unwrap", "unwrap_err"] {
            offenders.extend(source.words(name).map(|at| source.offence(at, name)));
        }
        for name in ["expect", "expect_err"] {
            // `#[expect(lint)]` is not a call.
            let is_call = |at: &usize| source.bare[..*at].ends_with(['.', ':']);
            let gives_no_reason = |at: &usize| !gives_a_reason(&source.code[at + name.len()..]);
            let offends = source.words(name).filter(is_call).filter(gives_no_reason);
            offenders.extend(offends.map(|at| source.offence(at, format!("{name} without a reason"))));
        }
    }
    none("no `unsafe`, no `unwrap`, and every `expect` says in words why it cannot fail", &offenders);
    let is_the_lint = |setting: &Setting| setting.path == ["lints", "rust", "unsafe_code"];
    assert!(
        manifest().iter().any(|setting| is_the_lint(setting) && setting.text == "forbid"),
        "Cargo.toml: [lints.rust] does not say unsafe_code = \"forbid\""
    );
}

#[test]
fn every_dependency_beyond_the_eight_gives_its_reason() {
    let text = read("Cargo.toml");
    let lines: Vec<&str> = text.lines().collect();
    let (mut offenders, mut of_the_eight) = (Vec::new(), 0);
    for Setting { path, line, .. } in manifest() {
        // `dependencies`, `dev-dependencies` and `build-dependencies`, also those of one target.
        let [.., table, name] = path.as_slice() else { continue };
        if !table.ends_with("dependencies") {
            continue;
        }
        if THE_EIGHT.contains(&name.as_str()) {
            of_the_eight += 1;
            continue;
        }
        let mut comments = lines[..line - 1].iter().rev().take_while(|line| line.starts_with('#'));
        let is_reason =
            |comment: &str| comment.strip_prefix(&format!("# {name}:")).is_some_and(|text| !text.trim().is_empty());
        if !comments.any(|comment| is_reason(comment)) {
            offenders.push(format!("Cargo.toml:{line}: no line `# {name}: reason` above it"));
        }
    }
    assert!(of_the_eight >= THE_EIGHT.len(), "Cargo.toml: only {of_the_eight} of the eight were found");
    none("every dependency beyond the eight has its reason in Cargo.toml", &offenders);
}

#[test]
fn every_version_is_pinned_where_it_is_built() {
    let lock = read("Cargo.lock");
    for name in THE_EIGHT {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"")), "Cargo.lock has no {name}");
    }
    let ignored = read(".gitignore").lines().any(|line| ["Cargo.lock", "/Cargo.lock", "*.lock"].contains(&line.trim()));
    assert!(!ignored, "Cargo.lock belongs to the repository");
    assert!(
        read("Dockerfile").contains("cargo build --release --locked"),
        "the image is built with the locked versions"
    );
}

#[test]
fn a_panic_unwinds_in_every_profile() {
    let mut manifest = manifest();
    manifest.retain(|setting| setting.path[0] == "profile" && setting.path.ends_with(&["panic".to_owned()]));
    let offenders: Vec<String> = manifest
        .iter()
        .filter(|setting| setting.text != "unwind")
        .map(|Setting { path, line, text }| format!("Cargo.toml:{line}: {} = {text:?}", path.join(".")))
        .collect();
    none("a panic in one request, or in a thread of tiny_http, does not end the process", &offenders);
    let is_release = |setting: &Setting| setting.path[1] == "release" && setting.text == "unwind";
    assert!(manifest.iter().any(is_release), "Cargo.toml: [profile.release] has no panic = \"unwind\"");
}

#[test]
fn the_shipped_telemetry_toml_is_what_init_writes() {
    let (shipped, written) = (read("telemetry.toml"), cruddur::run::default_file());
    let same = shipped.lines().zip(written.lines()).take_while(|(shipped, written)| shipped == written).count();
    assert!(
        shipped == written,
        "telemetry.toml:{}: {:?}, but `cruddur init` writes {:?}",
        same + 1,
        shipped.lines().nth(same).unwrap_or("(the end)"),
        written.lines().nth(same).unwrap_or("(the end)")
    );
}

#[test]
fn no_source_file_has_more_than_600_lines() {
    let mut offenders = Vec::new();
    let is_source = |path: &String| [".rs", ".html", ".css", ".js"].iter().any(|end| path.ends_with(end));
    for path in files_in("src").into_iter().filter(is_source) {
        let lines = read(&path).lines().count();
        if lines > LONGEST_FILE {
            offenders.push(format!("{path}:{}: it ends at line {lines}", LONGEST_FILE + 1));
        }
    }
    none(&format!("no file in src/ has more than {LONGEST_FILE} lines"), &offenders);
}

/// The tests above depend on this reader, so it has a test too.
#[test]
fn the_reader_of_these_tests_tells_code_from_words_and_tests() {
    let source = Source::new(
        "src/sample.rs".to_owned(),
        r##"
            //! one
            /* two /* two */ two */ fn f<'a>(x: &'a str) -> char { let _ = ("three \" three", r#"three " three"#); '"' }
            #[cfg(test)] use std::{four};
            #[cfg(test)]
            #[allow(dead_code)]
            pub(crate) mod five { fn g() { let _ = "}"; } } fn h() -> [u8; 2] { *b"3{" }
            #[cfg(test)] mod six;
            struct S { #[cfg(test)] seven: u8, eight: u8 }
        "##,
    );
    for gone in ["one", "two", "four", "five", "fn g", "cfg", "seven"] {
        assert!(!source.code.contains(gone), "{gone} in {}", source.code);
    }
    for kept in ["fn f<'a>", "fn h() -> [u8; 2]", "eight"] {
        assert!(source.bare.contains(kept), "no {kept} in {}", source.bare);
    }
    assert!(source.code.contains("three") && !source.bare.contains("three"), "{}", source.bare);
    assert_eq!(source.test_modules, ["src/sample/five", "src/sample/six"]);
    assert_eq!(source.offence(source.bare.find("eight").unwrap(), "x"), "src/sample.rs:9: x");
    assert!(gives_a_reason("(\n  \"it is a constant\")") && !gives_a_reason("(\"why\")") && !gives_a_reason("(why)"));
}

/// A source file of the crate.
struct Source {
    /// Path from the root of the package.
    path: String,
    /// Text of the file, with spaces in place of comments and of items that exist only in tests.
    code: String,
    /// The same as `code`, with spaces in place of quoted text too.
    bare: String,
    /// Paths, without `.rs`, of the files that exist only in tests.
    test_modules: Vec<String>,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let (mut code, mut bare) = (text.as_bytes().to_vec(), text.as_bytes().to_vec());
        for (range, kind) in words_in(text) {
            blank(&mut bare, range.clone());
            if kind == Words::Comment {
                blank(&mut code, range);
            }
        }
        let stem = path.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"].iter().find_map(|name| stem.strip_suffix(name)).unwrap_or(stem);
        let mut test_modules = Vec::new();
        while let Some(range) = test_item(&bare) {
            let item = String::from_utf8_lossy(&bare[range.clone()]).into_owned();
            let mut words = item.split(|c: char| !is_of_a_word(c)).skip_while(|word| *word != "mod");
            test_modules.extend(words.nth(1).map(|name| format!("{folder}/{name}")));
            blank(&mut code, range.clone());
            blank(&mut bare, range);
        }
        let text = |bytes| String::from_utf8(bytes).expect("whole characters were replaced");
        Self { path, code: text(code), bare: text(bare), test_modules }
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').next().unwrap_or(path)
    }

    /// The top-level modules that the code names, each with its position. They are found in `use`
    /// and in paths: after `crate::`, after `cruddur::` in the program itself, and after `super::`
    /// where it leads to the top.
    fn imported_modules(&self) -> Vec<(usize, String)> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let to_the_top = "super::".repeat(path.split('/').count());
        let roots = ["crate::", "cruddur::", &to_the_top];
        let mut found = Vec::new();
        for root in roots {
            for (at, _) in self.bare.match_indices(root) {
                if self.bare[..at].ends_with(|c| is_of_a_word(c) || c == ':') {
                    continue;
                }
                let rest = &self.bare[at + root.len()..];
                found.extend(first_words(rest).into_iter().map(|word| (at, word)));
            }
        }
        found
    }

    /// The positions at which `name` occurs in the code as a whole word.
    fn words<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let found = self.bare.match_indices(name).map(|(at, _)| at);
        found.filter(|at| {
            !self.bare[..*at].ends_with(is_of_a_word) && !self.bare[at + name.len()..].starts_with(is_of_a_word)
        })
    }

    fn offence(&self, at: usize, what: impl Display) -> String {
        format!("{}:{}: {what}", self.path, self.bare[..at].matches('\n').count() + 1)
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Words {
    Comment,
    Quoted,
}

/// Comments and quoted text, in order.
fn words_in(text: &str) -> Vec<(Range<usize>, Words)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let (rest, follows_a_word) = (&text[at..], text[..at].ends_with(is_of_a_word));
        let (length, kind) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Some(Words::Comment))
        } else if rest.starts_with("/*") {
            (block_comment(rest), Some(Words::Comment))
        } else if let Some(length) = raw_string(rest).filter(|_| !follows_a_word) {
            (length, Some(Words::Quoted))
        } else if next == '"' {
            (quoted(rest, '"'), Some(Words::Quoted))
        } else if next == '\'' && (rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'')) {
            (quoted(rest, '\''), Some(Words::Quoted))
        } else {
            (next.len_utf8(), None)
        };
        found.extend(kind.map(|kind| (at..at + length, kind)));
        at += length;
    }
    found
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a raw string: `r"..."`, `br#"..."#` and so on.
fn raw_string(rest: &str) -> Option<usize> {
    let after = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inner = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(inner.find(&end).map_or(rest.len(), |at| rest.len() - inner.len() + at + end.len()))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The first `#[cfg(test)]` and the item below it. When in doubt the range ends too early, so that
/// shipped code is never left out.
fn test_item(bare: &[u8]) -> Option<Range<usize>> {
    const ATTRIBUTE: &[u8] = b"#[cfg(test)]";
    let start = bare.windows(ATTRIBUTE.len()).position(|window| window == ATTRIBUTE)?;
    let (mut depth, mut in_body) = (0, false);
    for (at, byte) in bare.iter().enumerate().skip(start) {
        match byte {
            b'{' if depth == 0 => (depth, in_body) = (1, true),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => return Some(start..at),
            b')' | b']' | b'}' => depth -= 1,
            b';' | b',' if depth == 0 => return Some(start..at + 1),
            _ => {}
        }
        if in_body && depth == 0 {
            return Some(start..at + 1);
        }
    }
    Some(start..bare.len())
}

/// Replaces everything but the line ends by spaces.
fn blank(bytes: &mut [u8], range: Range<usize>) {
    bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// True if the arguments start with a text of more than one word.
fn gives_a_reason(arguments: &str) -> bool {
    let Some(text) = arguments.strip_prefix('(').map(str::trim_start).filter(|text| text.starts_with('"')) else {
        return false;
    };
    text[1..quoted(text, '"') - 1].trim().contains(' ')
}

/// Every source file except those that exist only in tests.
fn shipped() -> Vec<Source> {
    let rust = files_in("src").into_iter().filter(|path| path.ends_with(".rs"));
    let mut sources: Vec<Source> = rust.map(|path| Source::new(path.clone(), &read(&path))).collect();
    let for_tests: Vec<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    sources.retain(|source| {
        let is_or_is_in =
            |module: &String| source.path.strip_prefix(module).is_some_and(|rest| rest.starts_with(['.', '/']));
        !for_tests.iter().any(is_or_is_in)
    });
    assert!(sources.len() > 20, "only {} files in src/", sources.len());
    sources
}

/// The first word of a path, or the first words of all paths in a group `{a::{b, c}, d}`.
fn first_words(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| is_of_a_word(*c)).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut words, mut depth) = (vec![word(group)], 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The modules on each line of the list in ARCHITECTURE.md, from the top down.
fn layers() -> Vec<Vec<String>> {
    let text = read("ARCHITECTURE.md");
    let (_, rest) = text.split_once("\n## Layers\n").expect("the heading of the list");
    let block = rest.split("```").nth(1).expect("the list").trim_start_matches("text\n");
    let names = |line: &str| line.split("  ").next().unwrap_or_default().split(", ").map(str::to_owned).collect();
    let layers: Vec<Vec<String>> = block.lines().map(names).collect();
    assert!(layers.len() > 10, "only {} lines in the list of layers", layers.len());
    layers
}

fn layer_of(layers: &[Vec<String>], module: &str) -> Option<usize> {
    layers.iter().position(|line| line.iter().any(|name| name == module))
}

/// One module per file or folder in `src/backends/`.
fn backend_modules() -> Vec<String> {
    let files = files_in("src/backends");
    let inside = files.iter().filter_map(|path| path.strip_prefix("src/backends/"));
    let mut modules: Vec<String> = inside.filter_map(|path| path.split(['/', '.']).next()).map(str::to_owned).collect();
    modules.dedup();
    modules.retain(|module| module != "mod");
    assert!(!modules.is_empty(), "no file in src/backends/");
    modules
}

/// A key of Cargo.toml; a table is a key too.
struct Setting {
    path: Vec<String>,
    line: usize,
    /// Value of the key, if it is a text.
    text: String,
}

fn manifest() -> Vec<Setting> {
    let text = read("Cargo.toml");
    let table = DeTable::parse(&text).expect("Cargo was able to read it");
    let mut settings = Vec::new();
    collect_settings(table.get_ref(), &[], &text, &mut settings);
    settings
}

fn collect_settings(table: &DeTable<'_>, above: &[String], file: &str, found: &mut Vec<Setting>) {
    for (key, value) in table {
        let path = [above, &[key.get_ref().to_string()]].concat();
        let line = file[..key.span().start].matches('\n').count() + 1;
        let text = value.get_ref().as_str().unwrap_or_default().to_owned();
        if let DeValue::Table(inner) = value.get_ref() {
            collect_settings(inner, &path, file, found);
        }
        found.push(Setting { path, line, text });
    }
}

/// The files in a folder and its subfolders, in order.
fn files_in(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}")) {
        let entry = entry.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn none(promise: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{promise}; but:\n  {}", offenders.join("\n  "));
}
