//! Shared AWS files and answers of credential servers, as a child of `wire::aws_credentials`.

use std::time::{Duration, SystemTime};

use super::checked_keys;
use super::profile::{Profiles, SharedFile, merge, parse};
use super::remote::{credentials, single_word};
use crate::fuzz::{assert_one_line, reply};

/// `~/.aws/config` and `~/.aws/credentials`: what is read is written as a file of the same profiles.
pub(crate) fn files(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut both = Vec::new();
    for file in [SharedFile::Config, SharedFile::Credentials] {
        match parse(&text, file) {
            Ok(profiles) => {
                assert_eq!(parse(&written(&profiles, file), file).as_ref(), Ok(&profiles));
                both.push(profiles);
            }
            Err(error) => {
                assert!((1..=text.lines().count()).contains(&error.line), "{error:?}");
                assert_one_line(error.what, 100);
            }
        }
    }
    if let [config, credentials] = &both[..] {
        let merged = merge(config.clone(), credentials.clone());
        assert!(credentials.iter().all(|(name, keys)| keys.iter().all(|(key, value)| merged[name][key] == *value)));
        for keys in merged.values() {
            let get = |key: &str| keys.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
            let keys = [get("aws_access_key_id"), get("aws_secret_access_key"), get("aws_session_token")];
            check_keys(keys, checked_keys(keys, ["id", "secret", "token"], "the file", "next"));
        }
    }
}

/// A file with these profiles.
fn written(profiles: &Profiles, file: SharedFile) -> String {
    let mut text = String::new();
    for (name, properties) in profiles {
        match file {
            SharedFile::Config => text.push_str(&format!("[profile {name}]\n")),
            SharedFile::Credentials => text.push_str(&format!("[{name}]\n")),
        }
        for (key, value) in properties {
            text.push_str(&format!("{key}={}\n", value.replace('\n', "\n ")));
        }
    }
    text
}

/// Keys can be sent in a header, and an error repeats none.
fn check_keys(keys: [Option<&str>; 3], checked: Result<Option<super::Keys<'_>>, crate::text::Message>) {
    match checked {
        Ok(Some((id, secret, token))) => {
            let all = [Some(id), Some(secret), token];
            assert!(all.into_iter().flatten().all(|key| key.bytes().all(|byte| byte.is_ascii_graphic())));
        }
        Ok(None) => assert_eq!(keys, [None; 3]),
        Err(message) => assert_one_line(&message.to_string(), 300),
    }
}

/// Answers of the container agent and of the metadata service.
pub(crate) fn answers(input: &[u8]) {
    let reply = reply(input);
    if let Some(word) = single_word(&reply) {
        assert!(!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    match credentials(&reply, "a server", now) {
        Ok(found) => {
            assert!(found.expires.is_some_and(|expires| expires > now));
            let keys = [&found.access_key_id, &found.secret_access_key];
            let all = keys.into_iter().chain(&found.session_token);
            assert!(all.into_iter().all(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())));
            assert!(!format!("{found:?}").contains(&found.secret_access_key) || found.secret_access_key.len() < 8);
        }
        Err(problem) => assert_one_line(&problem, 200),
    }
}
