//! The table in docs/mapping.md, and the comparison of a cell with what was sent.
//!
//! ```text
//! `span.kind = 2`            the field is there and has this value
//! `segment.namespace`        the field is absent
//! not sent                   the row's first field with a value is nowhere in this column
//! `"1-{trace8}-{trace24}"`   a name is the same text in all cells of a request
//! `{start:s}`                a time in seconds, the same time as `{start:ns}`
//! `"... 200 OK"`             any text, then this
//! ```

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::Value;

pub(super) const COLUMNS: [&str; 3] = ["OTLP JSON", "X-Ray document", "CloudWatch event"];
/// Kind of a SERVER span.
pub(super) const SERVER: usize = 2;
/// Names of fields that have another meaning elsewhere. A fact with such a name is looked for by
/// its value.
const COMMON_NAMES: [&str; 6] = ["id", "message", "name", "status", "type", "version"];

/// The rows about one span of one request.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The request, as the table names it.
    pub(super) request: String,
    /// The kind of the span, as OTLP writes it.
    pub(super) kind: usize,
    /// Its place among the spans of that kind.
    pub(super) place: usize,
    pub(super) rows: Vec<Row>,
}

/// One fact.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The line of the file, from 1.
    line: usize,
    fact: String,
    pub(super) cells: [Cell; 3],
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) claims: Vec<Claim>,
    not_sent: bool,
}

/// Text between two backticks: what the table claims about one field.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) path: String,
    /// `None` if the field is absent.
    pub(super) value: Option<String>,
}

/// The JSON behind each root of a path.
pub(super) type Roots = BTreeMap<String, Value>;

/// What was sent about one span, in one column.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// The roots of a path. Each log line is a candidate of its own, and one must fit a cell.
    pub(super) candidates: Vec<Roots>,
    /// Everything that was sent about the request. A fact that is "not sent" must not be in it.
    pub(super) everything: Vec<Value>,
}

/// Values of the names in braces.
pub(super) type Names = BTreeMap<String, Text>;

/// A text, or a time and its precision in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text {
    Same(String),
    Time(i128, i128),
}

/// Parses the table. A line of an unknown form is an error.
pub(super) fn parse(text: &str) -> Result<Vec<Group>, String> {
    let mut groups: Vec<Group> = Vec::new();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let is_row = |(_, line): &(usize, &str)| line.starts_with('|');
    let mut table = lines.skip_while(|line| !is_row(line)).take_while(is_row);
    let header = format!("| fact | {} |", COLUMNS.join(" | "));
    if table.next().is_none_or(|(_, line)| line != header)
        || table.next().is_none_or(|(_, line)| line != "|---|---|---|---|")
    {
        return Err(format!("the table does not begin with {header}"));
    }
    for (number, line) in table {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [fact, cells @ ..] = &cells[..] else { return Err(format!("line {number}: no cells")) };
        let cells: [&str; 3] = cells.try_into().map_err(|_| format!("line {number}: not four cells"))?;
        if let Some(heading) = fact.strip_prefix("**").and_then(|fact| fact.strip_suffix("**")) {
            groups
                .push(heading_group(heading).ok_or_else(|| format!("line {number}: no request and span: {heading}"))?);
            continue;
        }
        let row = Row { line: number, fact: (*fact).to_owned(), cells: cells.map(Cell::parse) };
        let said = row.cells.iter().all(|cell| cell.not_sent || !cell.claims.is_empty());
        if !said || row.cells.iter().all(|cell| cell.claims.is_empty()) {
            return Err(format!("{}: each cell names a field or is \"not sent\", and one names a field", row.name()));
        }
        groups.last_mut().ok_or_else(|| format!("line {number}: a row before the first request"))?.rows.push(row);
    }
    Ok(groups)
}

/// Parses `THE REQUEST: second INTERNAL span`.
fn heading_group(heading: &str) -> Option<Group> {
    let (request, span) = heading.rsplit_once(": ")?;
    let words: Vec<&str> = span.strip_suffix(" span")?.split(' ').collect();
    let (place, kind) = match words[..] {
        ["first", kind] | [kind] => (0, kind),
        ["second", kind] => (1, kind),
        _ => return None,
    };
    let kind = ["INTERNAL", "SERVER", "CLIENT"].iter().position(|known| *known == kind)? + 1;
    Some(Group { request: request.to_owned(), kind, place, rows: Vec::new() })
}

impl Cell {
    fn parse(text: &str) -> Self {
        let claims = text.split('`').skip(1).step_by(2).map(|code| match code.split_once(" = ") {
            Some((path, value)) => Claim { path: path.to_owned(), value: Some(value.to_owned()) },
            None => Claim { path: code.to_owned(), value: None },
        });
        let prose: String = text.split('`').step_by(2).collect();
        Self { claims: claims.collect(), not_sent: prose.contains("not sent") }
    }
}

impl Row {
    /// File, line and fact.
    pub(super) fn name(&self) -> String {
        format!("docs/mapping.md:{}: {}", self.line, self.fact)
    }

    /// The first field with a value. Its name is the name of the fact.
    fn fact_claim(&self) -> Option<&Claim> {
        self.cells.iter().flat_map(|cell| &cell.claims).find(|claim| claim.value.is_some())
    }

    /// Compares the row with what was sent, and adds new names to `names`.
    pub(super) fn check(&self, columns: &[Sent; 3], names: &mut Names) -> Result<(), String> {
        for ((cell, sent), column) in self.cells.iter().zip(columns).zip(COLUMNS) {
            let problem = |problem: String| format!("{} ({column}): {problem}", self.name());
            if cell.not_sent {
                self.check_not_sent(sent, names).map_err(problem)?;
            }
            cell.check(sent, names).map_err(problem)?;
        }
        Ok(())
    }

    fn check_not_sent(&self, sent: &Sent, names: &Names) -> Result<(), String> {
        let Some(Claim { path, value: Some(value) }) = self.fact_claim() else { return Ok(()) };
        let steps = steps(path)?;
        let name = steps.iter().rev().find_map(|step| match step {
            // `stringValue` and the like say the type.
            Step::Name(name) if !name.ends_with("Value") => Some(*name),
            _ => None,
        });
        let name = name.ok_or_else(|| format!("{path} names no field"))?;
        let annotation = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let found = sent.everything.iter().find_map(|json| {
            find(json, &|key, leaf| match key {
                _ if !COMMON_NAMES.contains(&name) => key == Some(name) || key == Some(&annotation),
                _ => leaf.is_string() && matches(value, leaf, &mut names.clone()).is_ok(),
            })
        });
        found.map_or(Ok(()), |found| Err(format!("{path} should not be sent, but there is {found}")))
    }
}

impl Cell {
    /// Checks that one candidate fits all claims of the cell.
    fn check(&self, sent: &Sent, names: &mut Names) -> Result<(), String> {
        let mut first_problem = None;
        for roots in &sent.candidates {
            let mut with_this = names.clone();
            match self.claims.iter().try_for_each(|claim| claim.check(roots, &mut with_this)) {
                Ok(()) => {
                    *names = with_this;
                    return Ok(());
                }
                Err(problem) => _ = first_problem.get_or_insert(problem),
            }
        }
        Err(first_problem.unwrap_or_else(|| "nothing was sent".to_owned()))
    }
}

impl Claim {
    fn check(&self, roots: &Roots, names: &mut Names) -> Result<(), String> {
        let Self { path, value } = self;
        let found = resolve(roots, path)?;
        match (value, found) {
            (None, None) => Ok(()),
            (None, Some(found)) => Err(format!("{path} should be absent, but is {found}")),
            (Some(_), None) => Err(format!("there is no {path}")),
            (Some(value), Some(found)) => matches(value, found, names).map_err(|why| format!("{path}: {why}")),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// Parses `span.attributes["app.now"].stringValue`.
fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let wrong = || format!("{path} is no path");
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, after) = quoted.split_once("\"]").ok_or_else(wrong)?;
            (Step::Name(name), after)
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').ok_or_else(wrong)?;
            (Step::Index(index.parse().map_err(|_| wrong())?), after)
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let (name, after) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
            (Step::Name(name), after)
        };
        if matches!(step, Step::Name("")) {
            return Err(wrong());
        }
        steps.push(step);
        rest = after;
    }
    Ok(steps)
}

/// The field at a path. In a list of `{"key":...,"value":...}`, a name selects an entry by its key.
fn resolve<'a>(roots: &'a Roots, path: &str) -> Result<Option<&'a Value>, String> {
    let steps = steps(path)?;
    let Some((Step::Name(root), steps)) = steps.split_first() else { return Err(format!("{path} has no root")) };
    let mut found = roots.get(*root).ok_or_else(|| format!("{path}: there is no root {root}"))?;
    for step in steps {
        let next = match (step, found) {
            (Step::Name(name), Value::Array(list)) => {
                list.iter().find(|entry| entry["key"] == **name).and_then(|entry| entry.get("value"))
            }
            (Step::Name(name), _) => found.get(name),
            (Step::Index(index), _) => found.get(index),
        };
        let Some(next) = next else { return Ok(None) };
        found = next;
    }
    Ok(Some(found))
}

/// Adds the paths of all leaves of a document.
pub(super) fn leaves(path: &str, json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                leaves(&member(path, name), value, found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, entry) in list.iter().enumerate() {
                match (entry["key"].as_str(), entry.get("value")) {
                    (Some(key), Some(value)) => leaves(&format!("{path}[\"{key}\"]"), value, found),
                    _ => leaves(&format!("{path}[{index}]"), entry, found),
                }
            }
        }
        _ => found.push(path.to_owned()),
    }
}

fn member(path: &str, name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { format!("{path}.{name}") } else { format!("{path}[\"{name}\"]") }
}

/// Finds the first field that is `wanted` by its name, its key in a list, or its value.
fn find(json: &Value, wanted: &impl Fn(Option<&str>, &Value) -> bool) -> Option<String> {
    match json {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let own = wanted(Some(name), value)
                || (name == "key" && value.as_str().is_some_and(|key| wanted(Some(key), &Value::Null)));
            if own { Some(format!("{name:?}: {value}")) } else { find(value, wanted) }
        }),
        Value::Array(list) => list.iter().find_map(|entry| find(entry, wanted)),
        leaf => wanted(None, leaf).then(|| leaf.to_string()),
    }
}

/// Compares a value of the table with a sent one: `"text with {names}"`, `{name}`, or JSON.
fn matches(expected: &str, sent: &Value, names: &mut Names) -> Result<(), String> {
    let differs = || format!("{sent} was sent, not {expected}");
    let is_name = expected.len() > 2 && expected.starts_with('{') && !expected.contains('"');
    let (pattern, text) = match (expected.strip_prefix('"').and_then(|text| text.strip_suffix('"')), sent) {
        (Some(pattern), Value::String(text)) => (pattern, text.clone()),
        (None, Value::Number(number)) if is_name => (expected, number.to_string()),
        (None, _) if !is_name => {
            let json: Value = serde_json::from_str(expected).map_err(|_| format!("{expected} is no value"))?;
            return if json == *sent { Ok(()) } else { Err(differs()) };
        }
        _ => return Err(differs()),
    };
    *names = fits(&parts(pattern)?, &text, names).ok_or_else(|| format!("{}; {names:?}", differs()))?;
    Ok(())
}

enum Part<'a> {
    Literal(&'a str),
    /// `...`
    Anything,
    /// `{name}` or `{name:unit}`
    Name(&'a str, Option<&'a str>),
}

fn parts(pattern: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("...") {
            parts.push(Part::Anything);
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or_else(|| format!("{pattern}: a brace is not closed"))?;
            let (name, unit) = name.split_once(':').map_or((name, None), |(name, unit)| (name, Some(unit)));
            parts.push(Part::Name(name, unit));
            rest = after;
        } else {
            let end = [rest.find("..."), rest.find('{')].into_iter().flatten().min().unwrap_or(rest.len());
            parts.push(Part::Literal(&rest[..end]));
            rest = &rest[end..];
        }
    }
    Ok(parts)
}

/// Returns the names if the text fits the pattern. Parts of variable length are tried at each
/// length.
fn fits(parts: &[Part<'_>], text: &str, names: &Names) -> Option<Names> {
    let Some((part, others)) = parts.split_first() else { return text.is_empty().then(|| names.clone()) };
    if let Part::Literal(literal) = part {
        return fits(others, text.strip_prefix(literal)?, names);
    }
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().find_map(|end| match part {
        Part::Name(name, unit) => fits(others, &text[end..], &with(names, name, *unit, &text[..end])?),
        _ => fits(others, &text[end..], names),
    })
}

/// Adds a name. Returns `None` if the name has another value already, or if this text is not a
/// possible value.
fn with(names: &Names, name: &str, unit: Option<&str>, text: &str) -> Option<Names> {
    let is_hex =
        |digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let is_possible = match (name, digits.parse().ok()) {
        (_, Some(digits)) => is_hex(digits),
        (name, None) if name.ends_with("_id") => is_hex(16),
        _ => !text.is_empty() && !text.contains(' '),
    };
    let new = match unit {
        None => Text::Same(text.to_owned()),
        Some(unit) => time(unit, text)?,
    };
    let is_same = match (names.get(name), &new) {
        (None, _) => true,
        (Some(Text::Time(known, precision)), Text::Time(time, other)) => (known - time).abs() <= *precision.max(other),
        (Some(known), new) => known == new,
    };
    (is_possible && is_same).then(|| {
        let mut names = names.clone();
        names.entry(name.to_owned()).or_insert(new);
        names
    })
}

/// Parses a time from 2001 to 2096. The precision is that of the unit.
fn time(unit: &str, text: &str) -> Option<Text> {
    let (nanos, precision) = match unit {
        "ns" => (text.parse().ok()?, 0),
        "ms" => (text.parse::<i128>().ok()? * 1_000_000, 1_000_000),
        "s" => {
            let (seconds, decimals) = text.split_once('.')?;
            let micros = format!("{decimals:0<6}");
            (seconds.parse::<i128>().ok()? * 1_000_000_000 + micros.parse::<i128>().ok()? * 1000, 1000)
        }
        "text" => (DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()?.into(), 1_000_000),
        _ => return None,
    };
    let this_century = 1_000_000_000_000_000_000..4_000_000_000_000_000_000;
    this_century.contains(&nanos).then_some(Text::Time(nanos, precision))
}
