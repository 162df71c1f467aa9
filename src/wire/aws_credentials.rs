//! Who we are to AWS: the keys that sign its requests, found where all its SDKs look, in their order.
//!
//! ```text
//! 1 environment      AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE           docker-compose, CI
//!                    AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
//!                    AWS_SESSION_TOKEN=...                            only beside a key that is good for some hours
//! 2 shared files     ~/.aws/credentials, ~/.aws/config                a laptop             files.rs, profile.rs
//! 3 container        GET http://169.254.170.2/v2/credentials/<uuid>   Fargate, ECS, EKS    remote.rs
//! 4 EC2 metadata     PUT, GET, GET http://169.254.169.254/latest/...  a virtual machine    remote.rs
//! ```
//!
//! The first place that answers counts. One that answers by half, say with an id but no secret, ends the search with a
//! sentence: to go on would be to sign as somebody else. Places 3 and 4 lend keys for some hours, in JSON:
//!
//! ```text
//! {"AccessKeyId":"ASIA...","SecretAccessKey":"...","Token":"...","Expiration":"2026-01-15T18:34:56Z"}
//! ```
//!
//! They are asked again before that time, early enough that a place that is down for some minutes costs nothing:
//!
//! ```text
//!              -15 min          -10 min                expiration
//! ----- kept -----|-- once a minute --|-- at every call --|-- nothing to sign with -->
//!                   an attempt that fails leaves the old keys in use, as long as they are good
//! ```
//!
//! Not done, and named when met: single sign-on, assuming a role, web identity, starting another program.
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

mod endpoint;
mod files;
mod profile;
mod regions;
mod remote;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::settings::Env;
use crate::text::Message;

pub use endpoint::{logs_endpoint, region};
pub use regions::region_warnings;
use remote::Remote;

/// Keys to sign with.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The public half.
    pub access_key_id: String,
    /// The half that signs and never travels.
    pub secret_access_key: String,
    /// What has to travel along if the keys are only lent.
    pub session_token: Option<String>,
    /// When they end; `None`: not by themselves.
    pub expires: Option<SystemTime>,
    /// Where they were found, in words.
    pub origin: String,
}

/// Finds credentials, keeps them, and gets new ones in time.
pub struct CredentialChain {
    env: Env,
    remote: Remote,
    cached: Option<Credentials>,
    problem: Option<Message>,
    /// No attempt sooner than this, unless it is urgent.
    next_attempt: Option<SystemTime>,
}

/// What a place has to say, unless it is wrong.
enum Lookup {
    Found(Credentials),
    /// It is not in use here; the text says by which sign.
    Nothing(String),
}

/// Asks one place.
type Ask<'a> = &'a dyn Fn() -> Result<Lookup, Message>;

/// From here on new credentials are welcome.
const ADVISORY: Duration = Duration::from_secs(15 * 60);
/// From here on they are urgent.
const MANDATORY: Duration = Duration::from_secs(10 * 60);
/// Between attempts that are not urgent.
const PAUSE: Duration = Duration::from_secs(60);

impl CredentialChain {
    /// A chain that looks where these variables say. Nothing is read yet.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), remote: Remote::default(), cached: None, problem: None, next_attempt: None }
    }

    /// The credentials to sign with at `now`. Mostly that takes no time. When a place on the network has to be asked it
    /// takes at most eight seconds: it may block, and never hangs.
    ///
    /// # Errors
    ///
    /// No place has any, or one has half of them. The search is made anew at the next call: wait before it.
    pub fn resolve(&mut self, now: SystemTime) -> Result<&Credentials, Message> {
        if let Some(kept) = self.cached.take_if(|cached| !is_due(cached, self.next_attempt, now)) {
            return Ok(self.cached.insert(kept));
        }
        self.next_attempt = Some(now + PAUSE);
        match self.look_up(now) {
            Ok(found) => {
                self.problem = None;
                Ok(self.cached.insert(found))
            }
            Err(error) => {
                self.problem = Some(error.clone());
                match self.cached.take() {
                    // AWS still takes them: better signed with old keys than not at all.
                    Some(old) if left(&old, now).is_none_or(|left| !left.is_zero()) => Ok(self.cached.insert(old)),
                    _ => Err(error),
                }
            }
        }
    }

    /// Forgets what is cached, for AWS says that it is too old or unknown: somebody may have put new keys in its place.
    pub fn forget(&mut self) {
        self.cached = None;
    }

    /// Why the last attempt failed, even if older credentials are still in use; `None` if it did not.
    #[must_use]
    pub fn problem(&self) -> Option<&Message> {
        self.problem.as_ref()
    }

    fn look_up(&self, now: SystemTime) -> Result<Credentials, Message> {
        let env = &self.env;
        let mut nothing = Vec::new();
        let places: [(&str, Ask<'_>); 5] = [
            ("environment", &|| of_environment(env)),
            ("shared files", &|| files::answer(env)),
            // No place of ours: it has a say only if it is in use.
            ("", &|| refuse_web_identity(env)),
            ("container", &|| self.remote.container(env, now)),
            ("EC2 metadata", &|| self.remote.metadata(env, now)),
        ];
        for (name, ask) in places {
            match ask()? {
                Lookup::Found(found) => return Ok(found),
                Lookup::Nothing(why) if !name.is_empty() => nothing.push(format!("{name}: {why}")),
                Lookup::Nothing(_) => {}
            }
        }
        let nothing = nothing.join("; ");
        let next = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`";
        Err(Message::new(format!("no AWS credentials ({nothing}); {next}")))
    }
}

fn is_due(cached: &Credentials, next_attempt: Option<SystemTime>, now: SystemTime) -> bool {
    match left(cached, now) {
        None => false,
        Some(left) if left > ADVISORY => false,
        Some(left) if left > MANDATORY => next_attempt.is_none_or(|next| now >= next),
        Some(_) => true,
    }
}

/// How long they are good for; `None`: for ever.
fn left(credentials: &Credentials, now: SystemTime) -> Option<Duration> {
    credentials.expires.map(|expires| expires.duration_since(now).unwrap_or_default())
}

fn of_environment(env: &Env) -> Result<Lookup, Message> {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let keys = names.map(|name| env.get(name).map(str::trim));
    let found = checked_keys(keys, names, "environment", "set it, or unset the others")?;
    Ok(match found {
        Some((id, secret, token)) => Lookup::Found(Credentials::new(id, secret, token, None, "environment".to_owned())),
        None => Lookup::Nothing("AWS_ACCESS_KEY_ID is not set".to_owned()),
    })
}

/// Kubernetes' way to lend a role. To look further would be to find the keys of the machine below instead.
fn refuse_web_identity(env: &Env) -> Result<Lookup, Message> {
    match env.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        None => Ok(Lookup::Nothing(String::new())),
        Some(_) => Err(Message::new(
            "AWS_WEB_IDENTITY_TOKEN_FILE is set: web identity is not supported; use EKS Pod Identity instead, \
             or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        )),
    }
}

type Keys<'a> = (&'a str, &'a str, Option<&'a str>);

/// The id, the secret and the token if all is well with them; `None` if there are none at all.
fn checked_keys<'a>(
    keys: [Option<&'a str>; 3],
    names: [&str; 3],
    place: &str,
    next: &str,
) -> Result<Option<Keys<'a>>, Message> {
    let [id, secret, token] = keys;
    let (id, secret) = match (id, secret) {
        (Some(id), Some(secret)) => (id, secret),
        (None, None) if token.is_none() => return Ok(None),
        (id, secret) => {
            let name = |wanted: &[bool]| {
                let chosen = names.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(name, _)| *name);
                chosen.collect::<Vec<_>>().join(" and ")
            };
            let there = name(&[id.is_some(), secret.is_some(), token.is_some()]);
            let missing = name(&[id.is_none(), secret.is_none()]);
            return Err(Message::new(format!("{place} has {there}, but no {missing}; {next}")));
        }
    };
    for (value, name) in [(Some(id), names[0]), (Some(secret), names[1]), (token, names[2])] {
        // They go into headers. Quotes come from env files, whose quotes docker passes on.
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\'';
        if value.is_some_and(|value| !value.bytes().all(fits)) {
            let problem = "holds a space, a quote or another character that no key has";
            return Err(Message::new(format!("{place}: {name} {problem}; copy it again, without quotes")));
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

/// The end of the id tells a person which key it is; nothing else is shown.
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

/// The environment has secrets of its own, so it is left out.
impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialChain")
            .field("cached", &self.cached)
            .field("problem", &self.problem)
            .finish_non_exhaustive()
    }
}
