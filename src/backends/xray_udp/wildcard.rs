//! X-Ray's patterns: `*` matches any characters, `?` exactly one, any other character itself in any
//! case.

/// Returns true if all of `text` matches `pattern`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().flat_map(char::to_lowercase).collect();
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let (mut p, mut t) = (0, 0);
    // Last star, and the end of the text that it matches so far: the place to try again from.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_the_sdk() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/data/xray/sdk-vectors.json")).unwrap();
        let cases = vectors["wildcard"].as_array().unwrap();
        assert!(cases.len() >= 30);
        for case in cases {
            let (pattern, text) = (case["pattern"].as_str().unwrap(), case["text"].as_str().unwrap());
            assert_eq!(matches(pattern, text), case["match"].as_bool().unwrap(), "{case}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(50), &"a".repeat(5000).replace("aa", "ab")[..64]));
        assert!(!matches(&format!("{}b", "a*".repeat(30)), &"a".repeat(2000)));
    }
}
