//! What the stand-ins for AWS's services share: keys, clock, the check of a signature with code of its
//! own, and misbehaviours.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime};
use ring::{digest, hmac};

use super::cloudwatch::CloudWatch;
use super::http::{Request, header};
use super::program::Exit;

/// Region of every service.
pub(crate) const REGION: &str = "us-east-1";
/// The token of a temporary key.
pub(crate) const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLETOKENthatNobodyElseMayEverSee==";
/// A second key, for tests in which the first one is no longer valid.
pub(crate) const NEW_KEY_ID: &str = "ASIAIOSFODNN7EXAMPLE2";
pub(crate) const NEW_SECRET: &str = "anotherSecretThatNobodyMaySee/bPxRfiCYEXAMPLE";
/// The maximum time that shutdown may take, flush included.
pub(crate) const END: Duration = Duration::from_secs(6);
const AMZ_DATE: &str = "%Y%m%dT%H%M%SZ";
const SECOND: u64 = 1000;

/// A misbehaviour of the service.
#[derive(Clone, Debug)]
pub(crate) enum Trick {
    /// Responds with an error in the form of the service: status, code, message.
    Error(u16, &'static str, String),
    /// Responds with this status and this body to any call.
    Answer(u16, &'static str),
    /// Does the work, and responds with 200 and this body.
    WorkAndAnswer(&'static str),
    /// Does the work, and closes the connection instead of responding.
    WorkAndReset,
    /// Reads the request and sends no response, until [`CloudWatch::hang_up`].
    Hang,
    /// Reads the request and closes the connection.
    Reset,
    /// Responds with bytes that are not HTTP, and closes the connection.
    Garbage,
}

/// Misbehaviours to come, each with the number of calls.
#[derive(Default)]
pub(crate) struct Tricks(Vec<(usize, Trick)>);

/// The keys of an account, and the clock of its services.
#[derive(Default)]
pub(crate) struct Account {
    keys: HashMap<String, Key>,
    /// Seconds by which the clock is ahead of ours.
    pub(crate) clock: i64,
}

struct Key {
    secret: String,
    token: Option<String>,
    expired: bool,
}

/// The reason why a call was refused: status, code, message.
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

impl Trick {
    /// An error with status 400, as nearly all errors have.
    pub(crate) fn error(code: &'static str, message: &str) -> Self {
        Self::Error(400, code, message.to_owned())
    }
}

impl Tricks {
    /// Plays this trick on the next `times` calls.
    pub(crate) fn add(&mut self, times: usize, trick: Trick) {
        self.0.push((times, trick));
    }

    /// Takes the trick for the next call.
    pub(crate) fn next(&mut self) -> Option<Trick> {
        let (times, trick) = self.0.first_mut()?;
        let trick = trick.clone();
        *times -= 1;
        if *times == 0 {
            self.0.remove(0);
        }
        Some(trick)
    }
}

/// Id of the key that a request was signed with.
pub(crate) fn key_id(headers: &[(String, String)]) -> &str {
    let authorization = header(headers, "authorization").unwrap_or_default();
    let credential = authorization.split_once("Credential=").map(|(_, rest)| rest);
    credential.and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

impl Account {
    /// Accepts this key from now on. A key with a token is valid only together with the token.
    pub(crate) fn add_key(&mut self, id: &str, secret: &str, token: Option<&str>) {
        let key = Key { secret: secret.to_owned(), token: token.map(str::to_owned), expired: false };
        self.keys.insert(id.to_owned(), key);
    }

    /// Treats this key as expired from now on.
    pub(crate) fn expire_key(&mut self, id: &str) {
        self.keys.get_mut(id).expect("a key that it knows").expired = true;
    }

    /// Milliseconds since 1970 by its own clock.
    pub(crate) fn now(&self) -> u64 {
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64;
        ours.checked_add_signed(self.clock * SECOND as i64).expect("a clock after 1970")
    }

    /// Verifies a Signature Version 4: computes it again from the received request and the secret.
    pub(crate) fn authenticate(&self, request: &Request, service: &str) -> Result<(), (&'static str, String)> {
        let headers = &request.headers;
        let missing = |what: &str| ("MissingAuthenticationTokenException", what.to_owned());
        let authorization = header(headers, "authorization").ok_or_else(|| missing("Missing Authentication Token"))?;
        let part = |name: &str| {
            let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split(", ");
            fields.filter_map(|field| field.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let parts = (part("Credential"), part("SignedHeaders"), part("Signature"));
        let (Some(credential), Some(signed), Some(signature)) = parts else {
            return Err(("IncompleteSignatureException", format!("a part is missing: {authorization}")));
        };
        let (id, scope) = credential.split_once('/').unwrap_or((credential, ""));
        let time = header(headers, "x-amz-date").unwrap_or_default();
        let date = time.get(..8).unwrap_or_default();
        if scope != format!("{date}/{REGION}/{service}/aws4_request") {
            return Err(wrong_signature(&format!(
                "Credential should be scoped to a valid region and service: {scope}"
            )));
        }
        let unknown = "The security token included in the request is invalid.";
        let key = self.keys.get(id).ok_or_else(|| ("UnrecognizedClientException", unknown.to_owned()))?;

        let names: Vec<_> = signed.split(';').collect();
        let is_signed = |name: &str| names.contains(&name);
        let must = headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("x-amz-"));
        if let Some(name) = must.chain(["host", "content-type"]).find(|name| !is_signed(name)) {
            return Err(wrong_signature(&format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
        // Headers that a proxy may change must not be signed.
        let never = ["connection", "user-agent", "expect", "transfer-encoding", "x-amzn-trace-id"];
        if !names.is_sorted() || never.iter().any(|name| is_signed(name)) {
            return Err(wrong_signature(&format!("these headers cannot be signed like this: {signed}")));
        }
        let mut canonical = format!("{}\n{}\n\n", request.method, request.path);
        for name in &names {
            let values = headers.iter().filter(|(other, _)| other == name);
            let values = values.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "));
            canonical.push_str(&format!("{name}:{}\n", values.collect::<Vec<_>>().join(",")));
        }
        canonical.push_str(&format!("\n{signed}\n{}", sha256(&request.raw_body)));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut signing_key = format!("AWS4{}", key.secret).into_bytes();
        for part in scope.split('/') {
            signing_key = hmac_sha256(&signing_key, part);
        }
        if hex(&hmac_sha256(&signing_key, &to_sign)) != signature {
            return Err(wrong_signature(&format!(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for \
                 this request should have been\n'{canonical}'"
            )));
        }
        self.check_clock(time)?;
        if header(headers, "x-amz-security-token") != key.token.as_deref() {
            return Err(("UnrecognizedClientException", unknown.to_owned()));
        }
        if key.expired {
            let message = "The security token included in the request is expired";
            return Err(("ExpiredTokenException", message.to_owned()));
        }
        Ok(())
    }

    /// A signature is valid for five minutes.
    fn check_clock(&self, time: &str) -> Result<(), (&'static str, String)> {
        let signed = NaiveDateTime::parse_from_str(time, AMZ_DATE);
        let signed = signed.map_err(|_| wrong_signature("X-Amz-Date is no date"))?.and_utc().timestamp();
        let now = (self.now() / SECOND) as i64;
        let text = |seconds| DateTime::from_timestamp(seconds, 0).map(|time| time.format(AMZ_DATE).to_string());
        let text = |seconds| text(seconds).expect("a time that can be written");
        let (now_text, earliest, latest) = (text(now), text(now - 300), text(now + 300));
        if signed < now - 300 {
            let message = format!("Signature expired: {time} is now earlier than {earliest} ({now_text} - 5 min.)");
            return Err(wrong_signature(&message));
        }
        if signed > now + 300 {
            let message =
                format!("Signature not yet current: {time} is still later than {latest} ({now_text} + 5 min.)");
            return Err(wrong_signature(&message));
        }
        Ok(())
    }
}

fn wrong_signature(message: &str) -> (&'static str, String) {
    ("InvalidSignatureException", message.to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_sha256(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that apply to every test, whatever failed in it.
#[track_caller]
pub(crate) fn assert_ended_well(exit: &Exit) {
    assert_eq!(exit.status.code(), Some(0), "{}", exit.stderr);
    assert!(exit.took < END, "it took {:?} to end", exit.took);
    assert_no_secret("stderr", &exit.stderr);
    assert_no_secret("stdout", &exit.stdout);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[track_caller]
pub(crate) fn assert_no_secret(place: &str, text: &str) {
    for (name, secret) in [("secret", CloudWatch::SECRET), ("token", TOKEN), ("other secret", NEW_SECRET)] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the {name} is shown in {place}");
    }
}
