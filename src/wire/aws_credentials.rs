//! The credential provider chain: finds the keys that sign requests to AWS. The places and their
//! order are those of all AWS SDKs.
//!
//! ```text
//! 1 environment    AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE           docker-compose, CI
//!                  AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
//!                  AWS_SESSION_TOKEN=...                            only with a temporary key
//! 2 shared files   ~/.aws/credentials, ~/.aws/config                a laptop  files.rs, profile.rs
//! 3 container      GET http://169.254.170.2/v2/credentials/<uuid>   Fargate, ECS, EKS  remote.rs
//! 4 EC2 metadata   PUT, GET, GET http://169.254.169.254/latest/...  virtual machine    remote.rs
//! ```
//!
//! The chain uses the first provider that has credentials. If a provider has only a part of them,
//! for instance an id without a secret, the search ends with an error, because a later provider
//! could have the keys of a different user. Providers 3 and 4 return temporary keys, valid for some
//! hours, in JSON:
//!
//! ```text
//! {"AccessKeyId":"ASIA...","SecretAccessKey":"...","Token":"...",
//!  "Expiration":"2026-01-15T18:34:56Z"}
//! ```
//!
//! The chain refreshes temporary keys before they expire. It starts early enough that a provider
//! may be unavailable for some minutes without harm:
//!
//! ```text
//!                -15 min               -10 min             expiration
//! -- no refresh ----|-- once per minute --|-- at each call ----|-- an error -->
//!                     after a failed attempt the old keys stay in use until they expire
//! ```
//!
//! Not supported: single sign-on, assuming a role, web identity, and starting another program. If
//! the settings ask for one of them, the error names it.
//!
//! Specification:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

mod endpoint;
mod files;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/aws_credentials.rs"]
pub(crate) mod fuzz;
mod profile;
mod regions;
mod remote;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::settings::{Env, is_placeholder_for_secret};
use crate::text::Message;

pub use endpoint::{CLOUDWATCH_LOGS, Service, XRAY, endpoint, region};
pub use regions::region_warnings;
use remote::Remote;

/// The keys that sign requests.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The public half of the key.
    pub access_key_id: String,
    /// The secret half of the key. It signs requests and is never sent.
    pub secret_access_key: String,
    /// The token to send with each request if the keys are temporary.
    pub session_token: Option<String>,
    /// The time when the keys expire. `None` means that they do not expire.
    pub expires: Option<SystemTime>,
    /// The provider and the place where the keys were found, as text.
    pub origin: String,
}

/// A chain of providers that finds credentials, caches them, and refreshes them before they expire.
pub struct CredentialChain {
    env: Env,
    remote: Remote,
    cached: Option<Credentials>,
    /// The time of the next refresh that is not mandatory.
    next_attempt: Option<SystemTime>,
}

/// The result of asking one provider.
enum Lookup {
    Found(Credentials),
    /// The provider has no credentials; the text gives the reason.
    NotFound(String),
}

/// A function that asks one provider.
type Provider<'a> = &'a dyn Fn() -> Result<Lookup, Message>;

/// The time before expiration when the chain starts to ask for new credentials.
const ADVISORY_REFRESH: Duration = Duration::from_secs(15 * 60);
/// The time before expiration when each call asks for new credentials.
const MANDATORY_REFRESH: Duration = Duration::from_secs(10 * 60);
/// The time between two attempts before the refresh becomes mandatory.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

impl CredentialChain {
    /// Creates a chain for the settings in these variables. It reads no file and asks no provider
    /// yet.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), remote: Remote::default(), cached: None, next_attempt: None }
    }

    /// Returns the credentials to sign with at `now`. Cached ones are returned at once. The
    /// function blocks while it asks a provider on the network, for at most eight seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if no provider has credentials, or if one has only a part of them. The next
    /// call searches again, so the caller should wait before it.
    pub fn resolve(&mut self, now: SystemTime) -> Result<&Credentials, Message> {
        if let Some(fresh) = self.cached.take_if(|cached| !needs_refresh(cached, self.next_attempt, now)) {
            return Ok(self.cached.insert(fresh));
        }
        self.next_attempt = Some(now + REFRESH_INTERVAL);
        match (self.look_up(now), self.cached.take()) {
            (Ok(found), _) => Ok(self.cached.insert(found)),
            // AWS accepts the old keys until they expire.
            (Err(_), Some(old)) if time_left(&old, now).is_none_or(|left| !left.is_zero()) => {
                Ok(self.cached.insert(old))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Discards the cached credentials. Call it when AWS rejects them as expired or unknown: the
    /// provider may have new ones.
    pub fn forget(&mut self) {
        self.cached = None;
    }

    fn look_up(&self, now: SystemTime) -> Result<Credentials, Message> {
        let env = &self.env;
        let mut reasons = Vec::new();
        let providers: [(&str, Provider<'_>); 5] = [
            ("environment", &|| from_environment(env)),
            ("shared files", &|| files::credentials(env)),
            // Not a provider: it only reports an error if web identity is configured.
            ("", &|| reject_web_identity(env)),
            ("container", &|| self.remote.container(env, now)),
            ("EC2 metadata", &|| self.remote.metadata(env, now)),
        ];
        for (name, provider) in providers {
            match provider()? {
                Lookup::Found(found) => return Ok(found),
                Lookup::NotFound(reason) if !name.is_empty() => reasons.push(format!("{name}: {reason}")),
                Lookup::NotFound(_) => {}
            }
        }
        let reasons = reasons.join("; ");
        let next = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`";
        Err(Message::new(format!("no AWS credentials ({reasons})")).next(next))
    }
}

fn needs_refresh(cached: &Credentials, next_attempt: Option<SystemTime>, now: SystemTime) -> bool {
    match time_left(cached, now) {
        None => false,
        Some(left) if left > ADVISORY_REFRESH => false,
        Some(left) if left > MANDATORY_REFRESH => next_attempt.is_none_or(|next| now >= next),
        Some(_) => true,
    }
}

/// Returns the time until the credentials expire, or `None` if they do not expire.
fn time_left(credentials: &Credentials, now: SystemTime) -> Option<Duration> {
    credentials.expires.map(|expires| expires.duration_since(now).unwrap_or_default())
}

fn from_environment(env: &Env) -> Result<Lookup, Message> {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let keys = names.map(|name| env.get(name).map(str::trim));
    let found = checked_keys(keys, names, "environment", "set it, or unset the others")?;
    Ok(match found {
        Some((id, secret, token)) => Lookup::Found(Credentials::new(id, secret, token, None, "environment".to_owned())),
        None => Lookup::NotFound("AWS_ACCESS_KEY_ID is not set".to_owned()),
    })
}

/// Reports an error if web identity is configured, which is how Kubernetes gives a pod its role. If
/// the search went on, it would find the keys of the machine that runs the pod.
fn reject_web_identity(env: &Env) -> Result<Lookup, Message> {
    match env.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        None => Ok(Lookup::NotFound(String::new())),
        Some(_) => Err(Message::new("web identity is not supported, but AWS_WEB_IDENTITY_TOKEN_FILE is set")
            .next("use EKS Pod Identity instead, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")),
    }
}

/// An id, a secret and a token.
type Keys<'a> = (&'a str, &'a str, Option<&'a str>);

/// Checks the id, the secret and the token of one source. Returns `None` if all three are missing.
/// The three `names`, the `source` and the next step (`next`) are for the error message.
///
/// # Errors
///
/// Returns an error if a part is missing or has a character that no key has.
fn checked_keys<'a>(
    keys: [Option<&'a str>; 3],
    names: [&str; 3],
    source: &str,
    next: &str,
) -> Result<Option<Keys<'a>>, Message> {
    let [id, secret, token] = keys;
    let (id, secret) = match (id, secret) {
        (Some(id), Some(secret)) => (id, secret),
        (None, None) if token.is_none() => return Ok(None),
        (id, secret) => {
            let list = |wanted: &[bool]| {
                let chosen = names.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(name, _)| *name);
                chosen.collect::<Vec<_>>().join(" and ")
            };
            let present = list(&[id.is_some(), secret.is_some(), token.is_some()]);
            let missing = list(&[id.is_none(), secret.is_none()]);
            let what = format!("incomplete AWS credentials: {source} has {present}, but no {missing}");
            return Err(Message::new(what).next(next));
        }
    };
    for (value, name) in [(Some(id), names[0]), (Some(secret), names[1]), (token, names[2])] {
        if value.is_some_and(is_placeholder_for_secret) {
            let what = format!("{source}: {name} is a placeholder that was not filled in");
            return Err(Message::new(what).next("write the key in its place"));
        }
        // The keys are sent in headers. Docker passes on the quotes that an env file has around a
        // value.
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\'';
        if value.is_some_and(|value| !value.bytes().all(fits)) {
            let problem = "contains a space, a quote or another character that a key cannot have";
            return Err(Message::new(format!("{source}: {name} {problem}")).next("copy it again, without quotes"));
        }
    }
    Ok(Some((id, secret, token)))
}

impl Credentials {
    fn new(id: &str, secret: &str, token: Option<&str>, expires: Option<SystemTime>, origin: String) -> Self {
        let (access_key_id, secret_access_key) = (id.to_owned(), secret.to_owned());
        Self { access_key_id, secret_access_key, session_token: token.map(str::to_owned), expires, origin }
    }
}

/// Shows only the last four characters of the id, by which a person recognises the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.access_key_id;
        let end = id.len().checked_sub(4).filter(|at| *at >= 8).and_then(|at| id.get(at..)).unwrap_or_default();
        f.debug_struct("Credentials")
            .field("access_key_id", &format_args!("...{end}"))
            .field("expires", &self.expires)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Omits the environment, because it contains secrets.
impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialChain").field("cached", &self.cached).finish_non_exhaustive()
    }
}
