//! X-Ray's patterns: `*` matches any characters, `?` exactly one, any other character itself in any
//! case.

/// Returns true if all of `text` matches `pattern`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Pattern after the last star, and the text after the characters that the star matches so far:
    // the place to try again from.
    let mut star: Option<(&str, &str)> = None;
    loop {
        let (mut wanted, mut found) = (pattern.chars(), text.chars());
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some('*'), _) if wanted.as_str().is_empty() => return true,
            (Some('*'), _) => {
                pattern = wanted.as_str();
                star = Some((pattern, text));
            }
            (Some(wanted_char), Some(char)) if wanted_char == '?' || is_same(wanted_char, char) => {
                (pattern, text) = (wanted.as_str(), found.as_str());
            }
            (Some(_), None) => return false,
            (_, Some(_)) => {
                let Some((after_star, rest)) = star else { return false };
                let mut rest = rest.chars();
                rest.next();
                (pattern, text) = (after_star, rest.as_str());
                star = Some((pattern, text));
            }
        }
    }
}

fn is_same(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
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
