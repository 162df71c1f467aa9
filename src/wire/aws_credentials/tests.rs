//! Tests of the whole chain, with files in a temporary folder.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A text that each secret in these tests contains.
pub(super) const SECRET: &str = "TOPSECRET";

/// A file that is deleted at the end of the test.
pub(super) struct TempFile(String);

impl TempFile {
    pub(super) fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cruddur-aws-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name).to_str().unwrap().to_owned();
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &str {
        &self.0
    }

    pub(super) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The time 2026-01-15T12:34:56Z.
pub(super) fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_768_480_496)
}

/// Creates a chain with these variables. They must switch the metadata service off.
fn chain<const N: usize>(pairs: [(&str, &str); N]) -> CredentialChain {
    assert!(pairs.iter().any(|(name, _)| *name == "AWS_EC2_METADATA_DISABLED"), "it would ask the network");
    CredentialChain::new(&Env::from(pairs))
}

const OFF: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

/// Returns the error of the chain, after checking that it is one line without secrets.
pub(super) fn error_of(chain: &mut CredentialChain) -> String {
    let error = chain.resolve(noon()).unwrap_err();
    assert!(!format!("{error:?} {chain:?}").contains(SECRET), "{error}");
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    assert!(error.contains("; "), "no next step: {error}");
    error
}

/// Returns the error of a chain whose credentials file has this text.
fn error_of_file(text: &str) -> String {
    let file = TempFile::new(text);
    let error = error_of(&mut chain([("AWS_SHARED_CREDENTIALS_FILE", file.path()), OFF]));
    error.replace(file.path(), "F")
}

#[test]
fn the_environment_comes_first_and_is_trimmed() {
    let file = TempFile::new("this is not even a credentials file");
    let mut chain = chain([
        ("AWS_ACCESS_KEY_ID", " AKIAIOSFODNN7EXAMPLE\n"),
        ("AWS_SECRET_ACCESS_KEY", "TOPSECRET/1"),
        ("AWS_SESSION_TOKEN", "TOPSECRET+2=="),
        ("AWS_SHARED_CREDENTIALS_FILE", file.path()),
        OFF,
    ]);
    let wanted = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: "TOPSECRET/1".to_owned(),
        session_token: Some("TOPSECRET+2==".to_owned()),
        expires: None,
        origin: "environment".to_owned(),
    };
    assert_eq!(chain.resolve(noon()), Ok(&wanted));
}

#[test]
fn no_debug_text_has_a_secret_in_it() {
    let mut chain = chain([
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "TOPSECRET1"),
        ("AWS_SESSION_TOKEN", "TOPSECRET2"),
        OFF,
    ]);
    let credentials = format!("{:?}", chain.resolve(noon()).unwrap());
    let wanted = r#"Credentials { access_key_id: "...MPLE", expires: None, origin: "environment", .. }"#;
    assert_eq!(credentials, wanted.replace("\"...MPLE\"", "...MPLE"));
    let chain = format!("{chain:#?}");
    assert!(!chain.contains(SECRET) && !chain.contains("AKIA"), "{chain}");
    let short = Credentials::new("AKIA1234", "s", None, None, String::new());
    assert!(format!("{short:?}").contains("access_key_id: ..., "), "{short:?}");
}

#[test]
fn half_an_environment_ends_the_search() {
    let file = TempFile::new("[default]\naws_access_key_id = a\naws_secret_access_key = b");
    let error = |name, value| error_of(&mut chain([(name, value), ("AWS_SHARED_CREDENTIALS_FILE", file.path()), OFF]));
    assert_eq!(
        error("AWS_ACCESS_KEY_ID", "AKIA"),
        "incomplete AWS credentials: environment has AWS_ACCESS_KEY_ID, but no AWS_SECRET_ACCESS_KEY; \
         next: set it, or unset the others"
    );
    assert_eq!(
        error("AWS_SECRET_ACCESS_KEY", SECRET),
        "incomplete AWS credentials: environment has AWS_SECRET_ACCESS_KEY, but no AWS_ACCESS_KEY_ID; \
         next: set it, or unset the others"
    );
    assert_eq!(
        error("AWS_SESSION_TOKEN", SECRET),
        "incomplete AWS credentials: environment has AWS_SESSION_TOKEN, but no AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY; next: set it, or unset the others"
    );
}

#[test]
fn keys_with_quotes_around_them_are_not_sent_anywhere() {
    for secret in ["\"TOPSECRET", "TOP\"SECRET", "TOPSECRET\r\nx-evil: 1", "TOPSECRET é"] {
        let error = error_of(&mut chain([("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", secret), OFF]));
        assert!(error.starts_with("environment: AWS_SECRET_ACCESS_KEY contains a space, a quote"), "{error}");
    }
    // The quotes that docker keeps are not a part of the value.
    let mut chain = chain([("AWS_ACCESS_KEY_ID", "'AKIA'"), ("AWS_SECRET_ACCESS_KEY", "\"TOPSECRET\""), OFF]);
    assert_eq!(chain.resolve(noon()).unwrap().secret_access_key, "TOPSECRET");
    let error = error_of_file("[default]\naws_access_key_id = AKIA\naws_secret_access_key = \"TOPSECRET\"");
    assert!(error.contains("aws_secret_access_key contains a space, a quote"), "{error}");
}

#[test]
fn a_key_that_was_never_filled_in_is_not_signed_with() {
    for placeholder in ["${AWS_ACCESS_KEY_ID}", "$AWS_ACCESS_KEY_ID", "<access-key-id>", "changeme"] {
        let mut chain = chain([("AWS_ACCESS_KEY_ID", placeholder), ("AWS_SECRET_ACCESS_KEY", placeholder), OFF]);
        let error = error_of(&mut chain);
        assert!(error.starts_with("no AWS credentials (environment: AWS_ACCESS_KEY_ID is not set; "), "{error}");
        let file = format!("[default]\naws_access_key_id = {placeholder}\naws_secret_access_key = TOPSECRET");
        let expected = "profile default in F: aws_access_key_id is a placeholder that was not filled in; next: write the \
                        key in its place";
        assert_eq!(error_of_file(&file), expected);
    }
}

#[test]
fn a_file_of_powershell_is_named_and_a_byte_order_mark_is_skipped() {
    let utf16: String = "[default]\n".chars().flat_map(|c| [c, '\0']).collect();
    let error = error_of_file(&utf16);
    assert_eq!(
        error,
        "UTF-16 instead of UTF-8 (PowerShell's > writes it): F (AWS_SHARED_CREDENTIALS_FILE); next: save the file as \
         UTF-8"
    );
    let file = TempFile::new("\u{feff}[default]\naws_access_key_id = AKIA\naws_secret_access_key = TOPSECRET");
    let mut chain = chain([("AWS_SHARED_CREDENTIALS_FILE", file.path()), OFF]);
    assert_eq!(chain.resolve(noon()).unwrap().access_key_id, "AKIA");
}

#[test]
fn a_profile_is_put_together_from_both_files() {
    let credentials = TempFile::new(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = one\n\
         [dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = two\naws_session_token = three",
    );
    let config = TempFile::new("[profile dev]\nregion = eu-west-1\nsso_start_url = https://x\n[profile other]");
    let (credentials, config) = (credentials.path(), config.path());
    let files = [("AWS_SHARED_CREDENTIALS_FILE", credentials), ("AWS_CONFIG_FILE", config)];
    let mut default = chain([files[0], files[1], OFF]);
    let found = default.resolve(noon()).unwrap();
    assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), ("AKIADEFAULT", None));
    assert_eq!(found.origin, format!("profile default in {credentials} and {config}"));
    // Static keys take precedence over sso_start_url: a tool has written them there.
    let mut dev = chain([files[0], files[1], OFF, ("AWS_PROFILE", "dev")]);
    let found = dev.resolve(noon()).unwrap();
    assert_eq!((found.access_key_id.as_str(), found.session_token.as_deref()), ("AKIADEV", Some("three")));
    let error = error_of(&mut chain([files[0], files[1], OFF, ("AWS_PROFILE", "gone")]));
    assert!(error.starts_with(&format!("no such profile: AWS_PROFILE=gone (not in {credentials} and {config}); ")));
    let error = error_of(&mut chain([files[0], files[1], OFF, ("AWS_PROFILE", "other")]));
    assert!(error.contains("shared files: no aws_access_key_id in profile other of "), "{error}");
}

#[test]
fn half_a_profile_ends_the_search() {
    assert_eq!(
        error_of_file("[default]\naws_secret_access_key = TOPSECRET\naws_access_key_id ="),
        "incomplete AWS credentials: profile default in F has aws_secret_access_key, but no aws_access_key_id; \
         next: add it, or write both with `aws configure`"
    );
    assert_eq!(
        error_of_file("[default]\naws_secret_access_key: TOPSECRET"),
        "F:2: Expected an '=' sign defining a property; next: correct that line"
    );
}

#[test]
fn what_is_not_supported_is_named() {
    for (line, key, what) in [
        ("sso_session = x", "sso_session", "single sign-on (SSO)"),
        ("sso_start_url = x", "sso_start_url", "single sign-on (SSO)"),
        ("role_arn = x\naws_access_key_id = a\naws_secret_access_key = b", "role_arn", "assuming a role"),
        ("source_profile = x", "source_profile", "assuming a role"),
        ("credential_process = /bin/TOPSECRET", "credential_process", "running a program for credentials"),
        ("web_identity_token_file = x", "web_identity_token_file", "web identity"),
    ] {
        let error = error_of_file(&format!("[default]\n{line}"));
        let wanted =
            format!("{what} is not supported: profile default in F has {key}; next: export keys with the AWS command");
        assert!(error.starts_with(&wanted), "{error}");
    }
    let error = error_of(&mut chain([("AWS_WEB_IDENTITY_TOKEN_FILE", "/x"), OFF]));
    assert!(
        error.starts_with("web identity is not supported, but AWS_WEB_IDENTITY_TOKEN_FILE is set; next: "),
        "{error}"
    );
}

#[test]
fn with_nothing_anywhere_the_error_names_the_four_places() {
    let nowhere = ("HOME", "/nonexistent");
    let error = error_of(&mut chain([nowhere, ("AWS_CONFIG_FILE", "/nonexistent/c"), OFF]));
    assert_eq!(
        error,
        "no AWS credentials (environment: AWS_ACCESS_KEY_ID is not set; \
         shared files: no such file: /nonexistent/.aws/credentials, no such file: /nonexistent/c (AWS_CONFIG_FILE); \
         container: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set; \
         EC2 metadata: AWS_EC2_METADATA_DISABLED is true); \
         next: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"
    );
    let error = error_of(&mut chain([OFF]));
    assert!(error.contains("shared files: no home directory: HOME is not set; "), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = std::env::temp_dir();
    let error = error_of(&mut chain([("AWS_CONFIG_FILE", folder.to_str().unwrap()), OFF]));
    assert!(error.starts_with("Is a directory ") && error.contains(" (AWS_CONFIG_FILE); next: "), "{error}");
    let long = TempFile::new(&"#\n".repeat(1 << 20));
    let error = error_of(&mut chain([("AWS_CONFIG_FILE", long.path()), OFF]));
    assert!(error.starts_with("file too large (more than 1 MiB): "), "{error}");
}

#[test]
fn a_file_is_read_once_until_it_is_forgotten() {
    let file = TempFile::new("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = x");
    let mut chain = chain([("AWS_SHARED_CREDENTIALS_FILE", file.path()), OFF]);
    assert_eq!(chain.resolve(noon()).unwrap().access_key_id, "AKIAOLD");
    file.write("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = x");
    let years = Duration::from_secs(100_000_000);
    assert_eq!(chain.resolve(noon() + years).unwrap().access_key_id, "AKIAOLD");
    chain.forget();
    assert_eq!(chain.resolve(noon() + years).unwrap().access_key_id, "AKIANEW");
}

#[test]
fn secrets_of_files_stay_out_of_every_error() {
    // The end of a valid file, from each position. No error may repeat the text of the file.
    let text = "[default]\naws_access_key_id = AKIATOPSECRET\naws_secret_access_key = TOPSECRET\n x = TOPSECRET\n";
    let mut errors = 0;
    for start in 0..text.len() {
        let file = TempFile::new(&text[start..]);
        let mut chain = chain([("AWS_SHARED_CREDENTIALS_FILE", file.path()), OFF]);
        if chain.resolve(noon()).is_err() {
            error_of(&mut chain);
            errors += 1;
        }
    }
    assert!(errors > 50, "{errors}");
}
