//! Redaction of secrets. A server's reply may repeat a secret in another spelling, so each secret
//! is stored in all spellings that a reply may contain:
//!
//! ```text
//! authorization: Basic am9lOnBhc3N3MHJk     →  "Basic am9lOnBhc3N3MHJk", "am9lOnBhc3N3MHJk",
//!                                              "joe:passw0rd", "passw0rd"
//! https://joe:passw0rd@host/?api-key=a%2Fb  →  the same, and "api-key=a%2Fb", "a%2Fb", "a/b",
//!                                              "a\/b"
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;

use crate::text::Url;

/// A list of secrets that are replaced in any text. The type has no `Debug`, so that it cannot be
/// logged.
#[derive(Default)]
pub struct Redactor(Vec<String>);

/// The length of the shortest word that is redacted. Shorter words are not keys, and would occur in
/// ordinary text.
const MIN_LENGTH: usize = 4;

impl Redactor {
    /// Creates a redactor for calls to `url`. The secrets are the URL's user, password and query,
    /// and the values of `headers`.
    pub fn new<'a>(url: &Url, headers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut redactor = Self::default();
        if let Some(authorization) = basic_authorization(url) {
            redactor.add_header(&authorization);
        }
        if let Some((_, password)) = user_and_password(url) {
            redactor.add(password);
        }
        if let Some(query) = url.query() {
            redactor.add(query);
            query.split('&').filter_map(|pair| pair.split_once('=')).for_each(|(_, value)| redactor.add(value));
        }
        headers.into_iter().for_each(|value| redactor.add_header(value));
        redactor
    }

    /// Adds one more secret.
    pub fn with_secret(mut self, secret: &str) -> Self {
        self.add(secret);
        self
    }

    /// Returns `text` with `***` in place of each secret.
    pub fn redact(&self, mut text: String) -> String {
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, "***");
            }
        }
        text
    }

    /// Returns true if there are no secrets to redact.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_header(&mut self, value: &str) {
        self.add(value);
        for word in value.split([' ', ',', ';', '=']) {
            self.add(word);
        }
        let credentials = value.strip_prefix("Basic ").and_then(|encoded| BASE64.decode(encoded.trim()).ok());
        if let Some(credentials) = credentials.and_then(|bytes| String::from_utf8(bytes).ok()) {
            self.add(&credentials);
            credentials.split(':').skip(1).for_each(|password| self.add(password));
        }
    }

    fn add(&mut self, word: &str) {
        let decoded = percent_decode_str(word).decode_utf8_lossy().into_owned();
        // JSON may write a slash as `\/`. PHP does so.
        let spellings = [word.to_owned(), word.replace('/', "\\/"), decoded.replace('/', "\\/"), decoded];
        for spelling in spellings {
            if spelling.len() >= MIN_LENGTH && !self.0.contains(&spelling) {
                self.0.push(spelling);
            }
        }
        // The longest secret is replaced first. If a part of it were replaced before, the rest
        // would match no secret any more and stay visible.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }
}

/// Returns the value of the `authorization` header for the user and the password in a URL. In the
/// URL they are percent-encoded, in the header they are not.
pub fn basic_authorization(url: &Url) -> Option<String> {
    let (user, password) = user_and_password(url)?;
    let decoded = [user, ":", password].map(|part| percent_decode_str(part).collect::<Vec<u8>>());
    Some(format!("Basic {}", BASE64.encode(decoded.concat())))
}

/// Returns the user and the password in a URL, percent-encoded.
fn user_and_password(url: &Url) -> Option<(&str, &str)> {
    let (credentials, _) = url.authority().rsplit_once('@')?;
    Some(credentials.split_once(':').unwrap_or((credentials, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_secret_is_found_in_every_spelling_in_which_servers_repeat_it() {
        let basic = basic_authorization(&url("http://joe:passw0rd@host/")).unwrap();
        assert_eq!(basic, "Basic am9lOnBhc3N3MHJk");
        for (address, header, answer) in [
            ("http://joe:passw0rd@host/", "x", "am9lOnBhc3N3MHJk is wrong, passw0rd is no password"),
            ("http://host/", &*basic, "joe:passw0rd, or passw0rd"),
            ("http://joe:se%3Acret%40x@host/", "", "joe:se:cret@x, se:cret@x or se%3Acret%40x"),
            ("http://host/?key=se%2Fcret&x=1", "", "key=se%2Fcret se%2Fcret se/cret se\\/cret"),
            ("http://host/", "Bearer abc/def/ghi==", "abc\\/def\\/ghi== and abc/def/ghi"),
        ] {
            let shown = Redactor::new(&url(address), [header]).redact(answer.to_owned());
            for secret in ["am9l", "passw0rd", "cret", "def"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }

    #[test]
    fn user_and_password_are_decoded_before_they_are_sent() {
        for (address, header) in [
            ("http://us%40er:p%3Aw@h/", "us@er:p:w"),
            ("http://user@h/", "user:"),
            ("http://a+b:c%20d@h/", "a+b:c d"),
            ("http://a:%zz@h/", "a:%zz"),
        ] {
            assert_eq!(basic_authorization(&url(address)), Some(format!("Basic {}", BASE64.encode(header))));
        }
        assert_eq!(basic_authorization(&url("http://h/a@b")), None);
    }

    #[test]
    fn a_secret_that_begins_with_another_one_leaves_no_rest() {
        assert_eq!(Redactor::new(&url("http://host"), ["abcd", "abcdefgh"]).redact("abcdefgh".to_owned()), "***");
        assert_eq!(Redactor::new(&url("http://host"), ["a"]).with_secret("tail").redact("a tail".to_owned()), "a ***");
    }
}
