//! Whatever telemetry.toml contains, the program never panics. It returns either usable settings or
//! an error with its position. The mutations are the same in every run, and `CRUDDUR_FUZZ_CASES`
//! sets their number. `tests/fuzz` checks the same property with a fuzzer that watches code
//! coverage.

#[path = "../fuzz/property.rs"]
mod property;

use cruddur::run::default_file;

/// No part of it may appear in any output.
const SECRET: &str = "hcaik_01SECRETsecret0123456789";

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Text that people and editors put into such files.
const PIECES: [&str; 40] = [
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "#",
    "=",
    "==",
    "\"",
    "\"\"\"",
    "'",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    ".",
    ",",
    "-",
    "\\",
    "\\u0000",
    "\\",
    "\u{feff}",
    "\u{0}",
    "\u{1b}[2J",
    "é",
    "\u{202e}",
    "true",
    "false",
    "0x",
    "1e999",
    "inf",
    "nan",
    "99999999999999999999",
    "1979-05-27T07:32:00Z",
    "[honeycomb]\n",
    "enabled = true\n",
    "a.b.c.d = 1\n",
];

fn mutate(text: &mut Vec<u8>, numbers: &mut Numbers) {
    let at = numbers.below(text.len() + 1);
    match numbers.below(8) {
        0 => text.truncate(at),
        1 => drop(text.splice(at..at, PIECES[numbers.below(PIECES.len())].bytes())),
        2 if !text.is_empty() => {
            let at = numbers.below(text.len());
            text[at] = numbers.next() as u8;
        }
        3 => {
            let end = (at + numbers.below(30)).min(text.len());
            drop(text.drain(at..end));
        }
        // Removes a line, duplicates it, or moves it.
        4..=6 => {
            let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (from, to) = (numbers.below(lines.len()), numbers.below(lines.len()));
            match numbers.below(3) {
                0 => drop(lines.remove(from)),
                1 => lines.insert(to, lines[from].clone()),
                _ => lines.swap(from, to),
            }
            *text = lines.join(&b'\n');
        }
        // Replaces a value.
        _ => {
            let Some(place) = text.iter().skip(at).position(|byte| *byte == b'=') else { return };
            let start = at + place + 1;
            let end = text[start..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| start + length);
            drop(text.splice(start..end, PIECES[numbers.below(PIECES.len())].bytes()));
        }
    }
}

/// Returns true if the content is valid.
#[track_caller]
fn holds(content: &[u8]) -> bool {
    let (good, said) = property::holds(content);
    for text in said {
        assert!(!text.contains("SECRETsecret"), "a secret in {text:?} over:\n{}", String::from_utf8_lossy(content));
    }
    good
}

#[test]
fn any_mutation_of_the_default_file_is_good_or_an_error_with_a_place() {
    let cases = std::env::var("CRUDDUR_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4_000_u64);
    let all_on = default_file().replace("enabled = false", "enabled = true");
    let with_key = all_on.replace("# api_key = \"...\"", &format!("api_key = \"{SECRET}\""));
    assert!(with_key.contains(SECRET) && holds(with_key.as_bytes()));
    let uncommented: String = with_key
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned() + "\n")
        .collect();
    let (mut good, mut bad) = (0, 0);
    for case in 0..cases {
        let mut numbers = Numbers(case);
        let mut text = if case % 2 == 0 { with_key.clone() } else { uncommented.clone() }.into_bytes();
        for _ in 0..=numbers.below(6) {
            mutate(&mut text, &mut numbers);
        }
        if holds(&text) { good += 1 } else { bad += 1 }
    }
    println!("{cases} files: {good} good, {bad} refused with a place");
    assert!(good > cases / 20 && bad > cases / 20, "{good} good, {bad} bad: the mutations are too wild or too tame");
}

#[test]
fn what_is_deep_long_or_no_text_is_refused_with_a_place() {
    let deep_list = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_table = format!("a = {}1{}", "{b=".repeat(100_000), "}".repeat(100_000));
    let deep_key = format!("{}a = 1", "a.".repeat(50_000));
    let deep_header = format!("[{}a]\n", "a.".repeat(50_000));
    let long = "# x\n".repeat(400_000);
    for text in [deep_list, deep_table, deep_key, deep_header, long] {
        assert!(!holds(text.as_bytes()));
    }
    for bytes in [&b"\xff\xfe"[..], b"a = \"\x80\"", b"\0", b"service_name = \"caf\xe9\""] {
        assert!(!holds(bytes));
    }
    // The byte order mark that Windows' Notepad puts at the beginning of a file.
    assert!(holds("\u{feff}service_name = \"x\"\r\n".as_bytes()));
}

#[test]
fn a_secret_in_the_wrong_place_of_a_line_is_not_repeated() {
    for line in
        [format!("{SECRET} = 1"), format!("\"{SECRET}\" = \"x\""), format!("api_key {SECRET}"), format!("[{SECRET}]")]
    {
        assert!(!holds(format!("[honeycomb]\n{line}\n").as_bytes()), "{line}");
        assert!(!holds(format!("{line}\n").as_bytes()), "{line}");
    }
}
