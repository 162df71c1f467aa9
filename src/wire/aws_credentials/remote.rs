//! Credentials that a neighbour lends for some hours: the container agent, or the EC2 metadata service.
//!
//! ```text
//! container                                               EC2 metadata, version 2
//!
//! GET /v2/credentials/<uuid>   (ECS, Fargate)             PUT /latest/api/token
//! GET /v1/credentials          (EKS)                      x-aws-ec2-metadata-token-ttl-seconds: 21600
//! authorization: <token>       (EKS)                        <- a session token
//!   <- {"AccessKeyId":...}                                GET /latest/meta-data/iam/security-credentials/
//!                                                         x-aws-ec2-metadata-token: <session token>
//!                                                           <- my-role
//!                                                         GET /latest/meta-data/iam/security-credentials/my-role
//!                                                           <- {"Code":"Success","AccessKeyId":...}
//! ```
//!
//! Version 1 had no PUT: whoever made a server fetch a URL had its keys. A PUT with a header of its own is beyond most
//! such tricks, and its answer travels one hop only, which is why a container on EC2 needs a hop limit of 2.
//!
//! Both are on the same machine and answer in milliseconds or not at all: 3 tries of 2 s, 1 s apart, and 1 s for each
//! step. No proxy may hear of them. Of an answer that is wrong, nothing is repeated: it may be half a secret.
//!
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

use super::files::read_text;
use super::{Credentials, Lookup, checked_keys};
use crate::settings::Env;
use crate::text::Message;
use crate::text::url::{Url, redacted};
use crate::wire::http::{Call, CallError, HttpClient, Reply};

/// Where they are and how long they may take. Tests have their own.
pub(super) struct Remote {
    /// Where relative URIs lead.
    pub(super) container: String,
    /// How long one try at the container endpoint may take.
    pub(super) container_timeout: Duration,
    /// Between two tries.
    pub(super) pause: Duration,
    /// How long one step of the metadata service may take.
    pub(super) metadata_timeout: Duration,
}

const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const METADATA: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const METADATA_DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const TRIES: u32 = 3;
/// Where plain HTTP may go, besides this machine: the agents of ECS and EKS. None of these is ever routed.
const AGENTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// What both of them answer.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Lent {
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            container: "http://169.254.170.2".to_owned(),
            container_timeout: Duration::from_secs(2),
            pause: Duration::from_secs(1),
            metadata_timeout: Duration::from_secs(1),
        }
    }
}

impl Remote {
    /// Asks the container agent, if a variable says that there is one.
    ///
    /// # Errors
    ///
    /// There is one, and no credentials come of it.
    pub(super) fn container(&self, env: &Env, now: SystemTime) -> Result<Lookup, Message> {
        let Some((variable, url)) = self.container_url(env)? else {
            return Ok(Lookup::Nothing(format!("neither {RELATIVE} nor {FULL} is set")));
        };
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        headers.extend(authorization(env)?.map(|token| ("authorization".to_owned(), token)));
        let client = HttpClient::without_proxy();
        let place = format!("container endpoint {} ({variable})", url.redacted().escape_debug());
        let mut tries = 1;
        loop {
            let timeout = Some(self.container_timeout);
            let answer = client.get(&Call { url: &url, headers: &headers, body: &[], timeout });
            // What it refuses now, it refuses in a second; anything else may be an agent that is just starting.
            let is_final = matches!(&answer, Ok(reply) if (400..500).contains(&reply.status) && reply.status != 429);
            let outcome = success(answer).and_then(|reply| credentials(&reply, &place, now));
            match outcome {
                Ok(found) => return Ok(Lookup::Found(found)),
                Err(problem) if is_final || tries == TRIES => {
                    let next = "look at the task's role and at its agent";
                    return Err(Message::new(format!("{place}: {problem}; {next}")));
                }
                Err(_) => thread::sleep(self.pause),
            }
            tries += 1;
        }
    }

    /// Asks the metadata service, as if this were an EC2 instance.
    ///
    /// # Errors
    ///
    /// It is one, and no credentials come of it.
    pub(super) fn metadata(&self, env: &Env, now: SystemTime) -> Result<Lookup, Message> {
        if env.get(METADATA_DISABLED).is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
            return Ok(Lookup::Nothing(format!("{METADATA_DISABLED} is true")));
        }
        let base = env.get(METADATA).unwrap_or("http://169.254.169.254").trim().trim_end_matches('/');
        let shown = redacted(base).escape_debug().to_string();
        let no_url = || {
            let next = "write it as in http://169.254.169.254, or unset it";
            Message::new(format!("{METADATA}: {shown} is no URL; {next}"))
        };
        let base = Url::parse(base).ok_or_else(no_url)?;
        let at = |path: &str| base.join(path).ok_or_else(no_url);
        let place = format!("EC2 metadata at {shown}");
        let failed = |problem: String| Message::new(format!("{place}: {problem}; look at the instance's role"));
        let client = HttpClient::without_proxy();

        let url = at("/latest/api/token")?;
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds".to_owned(), "21600".to_owned())];
        let timeout = Some(self.metadata_timeout);
        let token = match success(client.put(&Call { url: &url, headers: &headers, body: &[], timeout })) {
            Ok(reply) => line(&reply).ok_or_else(|| failed("its session token is none".to_owned()))?,
            // Nobody there, a service that is off, or some other server: then this is no such instance.
            Err(problem) => {
                let hint = "on EC2, a container needs a hop limit of 2";
                return Ok(Lookup::Nothing(format!("{shown}: {problem} ({hint})")));
            }
        };

        let headers = [("x-aws-ec2-metadata-token".to_owned(), token)];
        let get = |url: &Url| success(client.get(&Call { url, headers: &headers, body: &[], timeout }));
        let roles = "/latest/meta-data/iam/security-credentials/";
        let reply = match client.get(&Call { url: &at(roles)?, headers: &headers, body: &[], timeout }) {
            Ok(reply) if reply.status == 404 => return Ok(Lookup::Nothing("the instance has no role".to_owned())),
            answer => success(answer).map_err(failed)?,
        };
        if reply.body.trim_ascii().is_empty() {
            return Ok(Lookup::Nothing("the instance has no role".to_owned()));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        let role = line(&reply).filter(|role| role.chars().all(is_name) && role.len() <= 64);
        let role = role.ok_or_else(|| failed("the name of its role is none".to_owned()))?;
        let place = format!("{place}, role {role}");
        let reply = get(&at(&format!("{roles}{role}"))?).map_err(failed)?;
        credentials(&reply, &place, now).map(Lookup::Found).map_err(failed)
    }

    /// Where the agent is, and which variable said so.
    fn container_url(&self, env: &Env) -> Result<Option<(&'static str, Url)>, Message> {
        let no_url = |variable: &str, text: &str| {
            let next = "use https, this machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]";
            let shown = redacted(text).escape_debug().to_string();
            Message::new(format!("{variable}: {shown} is no place to ask for keys; {next}"))
        };
        if let Some(path) = env.get(RELATIVE).map(str::trim) {
            if !path.starts_with('/') {
                return Err(Message::new(format!("{RELATIVE} does not begin with /; for a whole URL set {FULL}")));
            }
            let url = Url::parse(&format!("{}{path}", self.container)).ok_or_else(|| no_url(RELATIVE, path))?;
            return Ok(Some((RELATIVE, url)));
        }
        let Some(text) = env.get(FULL).map(str::trim) else { return Ok(None) };
        let is_near = |url: &Url| {
            let host = url.host();
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || AGENTS.contains(&ip))
        };
        let url = Url::parse(text).filter(|url| url.is_https() || is_near(url));
        Ok(Some((FULL, url.ok_or_else(|| no_url(FULL, text))?)))
    }
}

/// The `authorization` header. The file is read each time: Kubernetes replaces the token in it every few hours.
fn authorization(env: &Env) -> Result<Option<String>, Message> {
    let (name, token) = match (env.get(TOKEN_FILE), env.get(TOKEN)) {
        (Some(path), _) => {
            let error = |error| {
                let shown = path.escape_debug();
                Message::new(format!("{TOKEN_FILE}: {shown} cannot be read: {error}; mount it, or unset the variable"))
            };
            (TOKEN_FILE, read_text(Path::new(path)).map_err(error)?)
        }
        (None, Some(token)) => (TOKEN, token.to_owned()),
        (None, None) => return Ok(None),
    };
    // A line end in it would begin another header.
    if token.is_empty() || !token.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        let next = "write it without one, as printf does";
        return Err(Message::new(format!("{name}: the token is empty or holds a line end; {next}")));
    }
    Ok(Some(token))
}

/// The reply, if it is a 200 of bearable length.
fn success(answer: Result<Reply, CallError>) -> Result<Reply, String> {
    // ureq's own words are not used where they could repeat a part of the answer or of the URL.
    let problem = match answer {
        Ok(reply) if reply.status == 200 && !reply.too_long => return Ok(reply),
        Ok(reply) if reply.status == 200 => "the answer is too long",
        Ok(reply) => return Err(format!("it answered {}", reply.status)),
        Err(CallError::ConnectionRefused) => "nobody listens there",
        Err(CallError::UnknownHost) => "the host has no address",
        Err(CallError::Timeout) => "no answer in time",
        Err(CallError::Closed) => "the connection ended before an answer came",
        Err(CallError::Tls(_)) => "TLS failed",
        Err(CallError::NotHttp(_)) => "the answer is not HTTP",
        Err(CallError::Other(_)) => "it cannot be reached",
    };
    Err(problem.to_owned())
}

/// A body that is one word, fit for a header or a path.
fn line(reply: &Reply) -> Option<String> {
    let word = str::from_utf8(&reply.body).ok()?.lines().next()?.trim();
    (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic())).then(|| word.to_owned())
}

fn credentials(reply: &Reply, place: &str, now: SystemTime) -> Result<Credentials, String> {
    let Ok(lent) = serde_json::from_slice::<Lent>(&reply.body) else {
        return Err("the answer is not the JSON that it should be".to_owned());
    };
    if let Some(code) = lent.code.filter(|code| code != "Success") {
        let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        return Err(format!("it says {}", if is_word { &code } else { "that something is wrong" }));
    }
    let given = |value: &'_ Option<String>| value.as_ref().is_some_and(|value| !value.trim().is_empty());
    let fields = [
        ("AccessKeyId", &lent.access_key_id),
        ("SecretAccessKey", &lent.secret_access_key),
        ("Token", &lent.token),
        ("Expiration", &lent.expiration),
    ];
    let missing: Vec<_> = fields.iter().filter(|(_, value)| !given(value)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(format!("the answer has no {}", missing.join(" and no ")));
    }
    let keys = [lent.access_key_id.as_deref(), lent.secret_access_key.as_deref(), lent.token.as_deref()];
    let found = checked_keys(keys, ["AccessKeyId", "SecretAccessKey", "Token"], "the answer", "ask again");
    let Ok(Some((id, secret, token))) = found else { return Err("the answer has keys that are none".to_owned()) };
    let expires = lent.expiration.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text.trim()).ok());
    let expires = SystemTime::from(expires.ok_or("the Expiration in the answer is no time")?);
    if expires <= now {
        let shown = |time: SystemTime| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true);
        let (then, here) = (shown(expires), shown(now));
        return Err(format!("its keys ended at {then}, and the clock of this machine says {here}"));
    }
    Ok(Credentials::new(id, secret, token, Some(expires), place.to_owned()))
}
