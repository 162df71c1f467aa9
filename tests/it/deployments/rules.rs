//! Kind 4: sampling rules in every format, and the place where their file is looked for.

use std::fs;

use super::{HOME, check};
use crate::support::told::{start, status_says};
use crate::support::{Program, SOON, TempDir, XRayDaemon, wait_until};

const TOML: &str = "[console]\nenabled = false\n[xray]\nenabled = true\nschedule_delay = 50\n";

fn rule(name: &str, priority: u32, more: &str) -> String {
    format!(
        r#"{{"RuleName":"{name}","ResourceARN":"*","Priority":{priority},"FixedRate":0.0,"ReservoirSize":0,"ServiceName":"*","ServiceType":"*","Host":"*","HTTPMethod":"*","URLPath":"*","Version":1{more}}}"#
    )
}

/// Content of the file, the beginning of the reason of a request, and the sentence, in which FILE
/// is the path of the file. No sentence means that nothing is said.
fn files() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    const READ: &str = "read are the input of `aws xray create-sampling-rule`, the output of `aws xray get-sampling-rules`, a list of \
                        rules, and the rule file of the X-Ray SDKs (version 1 or 2); the built-in rule is used; next: correct \
                        sampling_rule in [xray]; a relative path is relative to telemetry.toml";
    let unusable =
        |found: &str| -> &'static str { format!("not a sampling rule: FILE (TOML:6): {found}; {READ}").leak() };
    let (a, b) = (rule("A", 5, ""), rule("B", 1, r#","Attributes":{}"#));
    let posts = rule("Posts", 1, "").replace(r#""HTTPMethod":"*""#, r#""HTTPMethod":"POST""#);
    let conditional = rule("C", 1, r#","Attributes":{"stage":"test"}"#);
    let sdk = |version: &str, host: &str, path: &str| {
        format!(
            r#"{{"version":{version},"rules":[{{"description":"API","{host}":"*","http_method":"*","url_path":"{path}","fixed_target":0,"rate":0}}],"default":{{"fixed_target":0,"rate":0.0}}}}"#
        )
    };
    let api = "not sampled: rule API (local)";
    let (only_a, only_b) = ("not sampled: rule A (local)", "not sampled: rule B (local)");
    let built_in = "sampled: rule Cruddur (local)";
    let text = |text: String| text.into_bytes();
    vec![
        (text(format!(r#"{{"SamplingRule":{a}}}"#)), only_a, ""),
        (text(format!("\u{feff}{{\"SamplingRule\":{a}}}")), only_a, ""),
        (
            text(format!(
                r#"{{"SamplingRuleRecords":[{{"SamplingRule":{a},"CreatedAt":0.0}},{{"SamplingRule":{b}}}],"NextToken":null}}"#
            )),
            only_b,
            "",
        ),
        (text(format!("[{a},{b}]")), only_b, ""),
        (text(format!("[{posts},{a}]")), only_a, ""),
        (text(a.clone()), only_a, ""),
        (text(sdk("2", "host", "/api/*")), api, ""),
        (text(sdk("1", "service_name", "/api/*")), api, ""),
        (text(sdk("2", "host", "/other")), "not sampled: rule default (local)", ""),
        (
            text(format!("[{conditional},{a}]")),
            only_a,
            "TOML:6: the sampling rule C of rules.json is ignored: it has Attributes, which are not supported",
        ),
        (
            text(sdk("3", "host", "*")),
            built_in,
            "not a sampling rule: FILE (TOML:6): found a rule file of the X-Ray SDKs with the version 3; 1 and 2 are read; the \
             built-in rule is used",
        ),
        (
            text(r#"{"AccessKeyId":"secret","Expiration":1}"#.to_owned()),
            built_in,
            unusable("found an object with the keys AccessKeyId, Expiration"),
        ),
        (text("[]".to_owned()), built_in, unusable("found an empty list")),
        (text("RuleName: A".to_owned()), built_in, unusable("not JSON: expected value at line 1 column 1")),
        (
            "{}".bytes().flat_map(|byte| [byte, 0]).collect(),
            built_in,
            "not a sampling rule: FILE (TOML:6): UTF-16 instead of UTF-8 (PowerShell's > writes it); save the file as UTF-8; the \
             built-in rule is used",
        ),
    ]
}

#[test]
fn t39_rules_are_read_in_every_format_and_an_unusable_file_says_what_is_read() {
    let daemon = XRayDaemon::without_tcp();
    let address = daemon.addr().to_string();
    let env = [("AWS_XRAY_DAEMON_ADDRESS", address.as_str())];
    for (content, reason, sentence) in files() {
        let dir = TempDir::new();
        let toml = dir.write("telemetry.toml", &format!("{TOML}sampling_rule = \"rules.json\"\n"));
        let file = dir.path().join("rules.json");
        fs::write(&file, &content).expect("a file for the test");
        let shown = String::from_utf8_lossy(&content).into_owned();
        let toml = toml.to_str().expect("a path of text");
        let program = Program::setup().arg("--config").arg(toml).env(env[0].0, env[0].1).start();
        let answer = program.get(HOME);
        let traces = program.get("/telemetry/traces").json();
        let says = traces["traces"][0]["backends"]["xray"]["sampling"].as_str().unwrap_or_default().to_owned();
        assert!(says.starts_with(reason), "{shown}: {says} {answer:?}");
        let checked = Program::run_to_end(&["check", "--config", toml], &env, None).stdout;
        if sentence.is_empty() {
            assert_eq!(super::findings(&program.stderr()), [""; 0], "{shown}");
        } else {
            let sentence = sentence.replace("FILE", &file.display().to_string()).replace("TOML", toml);
            program.wait_for_stderr(&sentence);
            assert!(status_says(&program, &sentence), "{shown}");
            assert!(checked.contains(&sentence), "{shown}: {checked}");
        }
    }
}

#[test]
fn t39_a_relative_path_is_relative_to_the_file_and_a_missing_file_is_named_by_its_whole_path() {
    let (dir, elsewhere) = (TempDir::new(), TempDir::new());
    let daemon = XRayDaemon::without_tcp();
    let address = daemon.addr().to_string();
    fs::create_dir(dir.path().join("rules")).expect("a directory for the test");
    dir.write("rules/own.json", &format!("[{}]", rule("Own", 1, "")));
    elsewhere.write("own.json", &format!("[{}]", rule("Elsewhere", 1, "")));
    for (path, reason, missing) in [
        ("rules/own.json", "not sampled: rule Own (local)", None),
        ("./rules/../rules/own.json", "not sampled: rule Own (local)", None),
        ("own.json", "sampled: rule Cruddur (local)", Some(dir.path().join("own.json"))),
        // Without this file the built-in rule applies, which is the same.
        ("aws/json/xray.json", "sampled: rule Cruddur (local)", None),
    ] {
        let toml = dir.write("telemetry.toml", &format!("{TOML}sampling_rule = \"{path}\"\n"));
        let toml = toml.to_str().expect("a path of text");
        let program = Program::setup()
            .current_dir(elsewhere.path())
            .arg("--config")
            .arg(toml)
            .env("AWS_XRAY_DAEMON_ADDRESS", &address)
            .start();
        program.get(HOME);
        let traces = program.get("/telemetry/traces").json().to_string();
        assert!(traces.contains(reason), "{path}: {traces}");
        match missing {
            None => assert_eq!(super::findings(&program.stderr()), [""; 0], "{path}"),
            Some(whole) => {
                let whole = whole.display();
                let sentence = format!(
                    "No such file or directory (os error 2): {whole} ({toml}:6); the built-in rule is used; next: correct \
                     sampling_rule in [xray]; a relative path is relative to telemetry.toml"
                );
                program.wait_for_stderr(&sentence);
            }
        }
    }
}

#[test]
fn t39_the_rules_of_a_file_are_all_named_in_the_status() {
    let dir = TempDir::new();
    let path = dir.write("rules.json", &format!("[{},{}]", rule("A", 5, ""), rule("B", 1, "")));
    let toml = format!("[xray]\nenabled = true\nsampling_rule = \"{}\"\n", path.display());
    let program = start(&toml, &[]);
    let sentence = "else the local rules: B (0 per second, then 0 %) A (0 per second, then 0 %)";
    assert!(wait_until(SOON, || status_says(&program, sentence)));
    let service = format!("service_name = \"shop\"\n{toml}");
    fs::write(
        &path,
        format!("[{},{}]", rule("A", 5, ""), rule("B", 1, "")).replace(r#""ServiceName":"*""#, r#""ServiceName":"x""#),
    )
    .expect("a file for the test");
    let exit = Program::run_to_end(&["check"], &[], Some(&service));
    let sentence = "the 2 local sampling rules never apply: they are for other services, but this service is \"shop\"";
    assert!(exit.stdout.contains(sentence), "{}", exit.stdout);
    assert!(!check("", &[]).stdout.contains("never appl"));
}
