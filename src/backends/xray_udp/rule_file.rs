//! The file with the local sampling rules. Four formats exist, and all are read:
//!
//! ```text
//! {"SamplingRule":{"RuleName":"Cruddur",..}}            input of `aws xray create-sampling-rule`
//! {"SamplingRuleRecords":[{"SamplingRule":{..}},..]}    output of `aws xray get-sampling-rules`
//! [{"RuleName":"Cruddur",..},..]                        a list of rules, or of any of the above
//! {"version":2,"rules":[{"host":"*","http_method":"GET","url_path":"/api/*",
//!   "fixed_target":1,"rate":0.1}],"default":{"fixed_target":1,"rate":0.05}}     the X-Ray SDKs' own
//! ```
//!
//! Rules of the first three are tried by priority, then by name. Rules of an SDK's file are tried
//! in its order, and `default` comes last.

use serde_json::Value as Json;

use super::sampler::Rule;
use crate::text::encoding::{SAVE_AS_UTF8, utf8};
use crate::text::one_line;

/// Rules of a file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RuleFile {
    /// Rules in the order in which they are tried. Never empty.
    pub(super) rules: Vec<Rule>,
    /// Names of the rules that cannot be used, each with the reason.
    pub(super) skipped: Vec<(String, String)>,
}

/// Formats, for the message about another one.
const FORMATS: &str = "read are the input of `aws xray create-sampling-rule`, the output of `aws xray \
    get-sampling-rules`, a list of rules, and the rule file of the X-Ray SDKs (version 1 or 2)";
/// Largest number of rules that are read.
const MAX_RULES: usize = 1000;
/// Number of keys or rules that a message about an unusable file names.
const MAX_NAMED: usize = 5;

/// Reads the rules of a file.
///
/// # Errors
///
/// The file has no rule that can be used. The text says what was found and what is read.
pub(super) fn read(bytes: &[u8]) -> Result<RuleFile, String> {
    let text = utf8(bytes).map_err(|problem| format!("{problem}; {SAVE_AS_UTF8}"))?;
    let json: Json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}; {FORMATS}"))?;
    let mut file = RuleFile::default();
    if json.get("SamplingRuleUpdate").is_some() {
        return Err(format!("found a change of a rule (update-sampling-rule), which is not a whole rule; {FORMATS}"));
    }
    let is_known = match &json {
        Json::Object(fields) if fields.contains_key("version") => file.add_sdk_rules(&json)?,
        _ => file.add_rules(&json),
    };
    if !is_known || (file.rules.is_empty() && file.skipped.is_empty()) {
        return Err(format!("found {}; {FORMATS}", described(&json)));
    }
    if file.rules.is_empty() {
        let reasons: Vec<_> =
            file.skipped.iter().take(MAX_NAMED).map(|(name, why)| format!("{name} ({why})")).collect();
        return Err(format!("found no rule that can be used: {}", reasons.join(", ")));
    }
    file.rules.truncate(MAX_RULES);
    Ok(file)
}

impl RuleFile {
    /// Adds the rules in the formats of AWS's command line, by priority. Returns false if there are
    /// none.
    fn add_rules(&mut self, json: &Json) -> bool {
        let mut found = Vec::new();
        collect(json, &mut found);
        for (place, rule) in found.iter().enumerate().take(MAX_RULES) {
            let name = rule.get("RuleName").and_then(Json::as_str).unwrap_or_default();
            let name = if name.is_empty() { format!("number {}", place + 1) } else { one_line(name) };
            self.add(name, Rule::from_json(rule));
        }
        self.rules.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        !found.is_empty()
    }

    /// Adds the rules of an SDK's file, in its order.
    fn add_sdk_rules(&mut self, json: &Json) -> Result<bool, String> {
        let version = json.get("version").and_then(number);
        if version != Some(1.0) && version != Some(2.0) {
            let found = one_line(&json["version"].to_string());
            return Err(format!("found a rule file of the X-Ray SDKs with the version {found}; 1 and 2 are read"));
        }
        let host_key = if version == Some(1.0) { "service_name" } else { "host" };
        let rules = json.get("rules").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        for (place, rule) in rules.iter().enumerate().take(MAX_RULES) {
            let default_name = format!("rule {}", place + 1);
            let name = rule.get("description").and_then(Json::as_str).map(one_line);
            let name = name.filter(|name| (1..=32).contains(&name.chars().count())).unwrap_or(default_name);
            self.add(name.clone(), sdk_rule(rule, name, [host_key, "http_method", "url_path"]));
        }
        if let Some(default) = json.get("default") {
            let name = "default".to_owned();
            self.add(name.clone(), sdk_rule(default, name, [""; 3]));
        }
        Ok(true)
    }

    fn add(&mut self, name: String, rule: Result<Rule, String>) {
        match rule.and_then(|rule| rule.problem().map_or(Ok(rule), |problem| Err(problem.to_owned()))) {
            Ok(rule) => self.rules.push(rule),
            Err(why) => self.skipped.push((name, why)),
        }
    }
}

/// Collects the rules below a value: those of records, of lists, and the value itself.
fn collect<'j>(json: &'j Json, found: &mut Vec<&'j Json>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| collect_one(item, found)),
        Json::Object(fields) => {
            match ["SamplingRuleRecords", "SamplingRules"].iter().find_map(|key| fields.get(*key)?.as_array()) {
                Some(records) => records.iter().for_each(|record| collect_one(record, found)),
                None => collect_one(json, found),
            }
        }
        _ => {}
    }
}

/// Adds a rule, bare or in one of its wrappers.
fn collect_one<'j>(json: &'j Json, found: &mut Vec<&'j Json>) {
    let json = json.get("SamplingRuleRecord").unwrap_or(json);
    let rule = json.get("SamplingRule").unwrap_or(json);
    if rule.get("RuleName").is_some() || rule.get("FixedRate").is_some() {
        found.push(rule);
    }
}

/// Makes a rule of one in an SDK's file. `keys` are the keys of the patterns; a missing pattern of
/// an empty key matches everything.
fn sdk_rule(rule: &Json, name: String, keys: [&str; 3]) -> Result<Rule, String> {
    let count = |key: &str| rule.get(key).and_then(number).ok_or_else(|| format!("it has no number {key}"));
    let pattern = |key: &str| match rule.get(key).and_then(Json::as_str) {
        Some(pattern) => Ok(pattern.to_owned()),
        None if key.is_empty() => Ok("*".to_owned()),
        None => Err(format!("it has no {key}")),
    };
    let [host, http_method, url_path] = keys.map(pattern);
    let reservoir_size = count("fixed_target")?;
    if !(0.0..=f64::from(u32::MAX)).contains(&reservoir_size) {
        return Err("fixed_target must not be negative".to_owned());
    }
    Ok(Rule {
        name: name.into(),
        reservoir_size: reservoir_size as u32,
        fixed_rate: count("rate")?,
        host: host?,
        http_method: http_method?,
        url_path: url_path?,
        ..Rule::built_in()
    })
}

/// Returns a number that is written as a number or as text.
pub(super) fn number(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| json.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

/// Describes a value that is not a known format. Values are not repeated, because they may be
/// secrets.
fn described(json: &Json) -> String {
    match json {
        Json::Object(fields) if fields.is_empty() => "an empty object".to_owned(),
        Json::Object(fields) => {
            let keys: Vec<_> = fields.keys().take(MAX_NAMED).map(|key| one_line(key)).collect();
            let more = if fields.len() > MAX_NAMED { ", ..." } else { "" };
            format!("an object with the keys {}{more}", keys.join(", "))
        }
        Json::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Json::Array(_) => "a list without rules".to_owned(),
        Json::String(_) => "a text".to_owned(),
        Json::Number(_) => "a number".to_owned(),
        Json::Bool(_) | Json::Null => format!("only {json}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"{"RuleName":"A","Priority":5,"FixedRate":0.1,"ReservoirSize":1,"ServiceName":"*","Host":"*",
        "HTTPMethod":"*","URLPath":"*","Version":1,"ResourceARN":"*"}"#;

    fn rule(replacements: &[(&str, &str)]) -> String {
        replacements.iter().fold(RULE.to_owned(), |rule, (from, to)| {
            assert!(rule.contains(from), "{from}");
            rule.replace(from, to)
        })
    }

    /// Returns the names of the rules in their order, or the error.
    fn names(text: &str) -> String {
        let names = |file: RuleFile| {
            let names: Vec<_> = file.rules.iter().map(|rule| rule.name.to_string()).collect();
            let skipped: Vec<_> = file.skipped.iter().map(|(name, why)| format!("; not {name}: {why}")).collect();
            names.join(",") + &skipped.concat()
        };
        read(text.as_bytes()).map_or_else(|error| error, names)
    }

    #[test]
    fn every_format_of_rules_is_read_in_the_order_of_its_own() {
        let first = rule(&[("\"A\"", "\"B\""), (":5", ":1")]);
        let attributes = rule(&[("\"A\"", "\"C\""), ("\"Version\"", "\"Attributes\":{\"a\":\"b\"},\"Version\"")]);
        let v2 =
            r#"{"description":"API","host":"*","http_method":"GET","url_path":"/api/*","fixed_target":1,"rate":0.1}"#;
        let v1 = v2.replace("host", "service_name").replace("API", &"long".repeat(9));
        let default = r#""default":{"fixed_target":0,"rate":0.5}"#;
        for (text, expected) in [
            (format!("{{\"SamplingRule\":{RULE}}}"), "A"),
            (format!("\u{feff}{{\"SamplingRule\":{RULE},\"Tags\":[]}}"), "A"),
            (format!("{{\"SamplingRuleRecord\":{{\"SamplingRule\":{RULE},\"CreatedAt\":0.0}}}}"), "A"),
            (format!("{{\"SamplingRuleRecords\":[{{\"SamplingRule\":{RULE}}},{{\"SamplingRule\":{first}}}]}}"), "B,A"),
            (format!("{{\"SamplingRules\":[{RULE}]}}"), "A"),
            (format!("[{RULE},{first}]"), "B,A"),
            (format!("[{{\"SamplingRule\":{RULE}}}]"), "A"),
            (RULE.to_owned(), "A"),
            (rule(&[(":5", ":\"5\""), (":0.1", ":\"0.1\"")]), "A"),
            (format!("[{attributes},{RULE}]"), "A; not C: it has Attributes, which are not supported"),
            (format!("[{RULE},{{\"RuleName\":\"Half\"}}]"), "A; not Half: missing field `Priority`"),
            (format!("{{\"version\":2,\"rules\":[{v2}],{default}}}"), "API,default"),
            (format!("{{\"version\":1,\"rules\":[{v1},{v1}],{default}}}"), "rule 1,rule 2,default"),
            (format!("{{\"version\":\"2\",\"rules\":[{v2}]}}"), "API"),
            (format!("{{\"version\":2,{default}}}"), "default"),
            (format!("{{\"version\":2,\"rules\":[{v1}],{default}}}"), "default; not rule 1: it has no host"),
        ] {
            assert_eq!(names(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_of_an_sdk_has_its_numbers_and_patterns() {
        let text = r#"{"version":2,"rules":[{"host":"a.*","http_method":"GET","url_path":"/x","fixed_target":3,"rate":0.25}]}"#;
        let file = read(text.as_bytes()).unwrap();
        let Rule { host, http_method, url_path, reservoir_size, fixed_rate, service_name, .. } = &file.rules[0];
        assert_eq!((host.as_str(), http_method.as_str(), url_path.as_str()), ("a.*", "GET", "/x"));
        assert_eq!((*reservoir_size, *fixed_rate, service_name.as_str()), (3, 0.25, "*"));
    }

    #[test]
    fn an_unusable_file_says_what_was_found_and_what_is_read() {
        for (text, found) in [
            ("{}", "found an empty object"),
            (r#"{"a":1,"b":2}"#, "found an object with the keys a, b"),
            (r#"{"a":1,"b":2,"c":1,"d":1,"e":1,"f":"secret"}"#, "found an object with the keys a, b, c, d, e, ..."),
            ("[]", "found an empty list"),
            ("[1]", "found a list without rules"),
            ("7", "found a number"),
            ("null", "found only null"),
            (r#"{"SamplingRuleRecords":[]}"#, "found an object with the keys SamplingRuleRecords"),
            ("RuleName: Cruddur", "not JSON: expected value"),
            (r#"{"SamplingRuleUpdate":{"RuleName":"A"}}"#, "found a change of a rule (update-sampling-rule)"),
        ] {
            let error = names(text);
            assert!(error.starts_with(found) && error.ends_with(&format!("; {FORMATS}")), "{error}");
        }
        let too_much = rule(&[("0.1", "1.5")]);
        for (text, error) in [
            (r#"{"version":3,"rules":[]}"#, "found a rule file of the X-Ray SDKs with the version 3; 1 and 2 are read"),
            (&too_much, "found no rule that can be used: A (FixedRate must be from 0 to 1)"),
        ] {
            assert_eq!(names(text), error);
        }
        let utf16: Vec<u8> = "{}".bytes().flat_map(|byte| [byte, 0]).collect();
        let error = read(&utf16).unwrap_err();
        assert_eq!(error, "UTF-16 instead of UTF-8 (PowerShell's > writes it); save the file as UTF-8");
    }
}
