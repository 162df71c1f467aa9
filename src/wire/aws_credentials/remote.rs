//! Temporary credentials from a server on the same machine: the container agent, or the EC2
//! metadata service.
//!
//! ```text
//! container agent
//!
//! GET /v2/credentials/<uuid>      (ECS, Fargate)
//! GET /v1/credentials             (EKS)
//! authorization: <token>          (EKS)
//!   <- {"AccessKeyId":...}
//!
//! EC2 metadata service, version 2
//!
//! PUT /latest/api/token
//! x-aws-ec2-metadata-token-ttl-seconds: 21600
//!   <- a session token
//! GET /latest/meta-data/iam/security-credentials/
//! x-aws-ec2-metadata-token: <session token>
//!   <- my-role
//! GET /latest/meta-data/iam/security-credentials/my-role
//! x-aws-ec2-metadata-token: <session token>
//!   <- {"Code":"Success","AccessKeyId":...}
//! ```
//!
//! Version 1 had no PUT. An attacker who could make a server fetch a URL got the keys of the
//! machine. Most of these attacks cannot send a PUT with an extra header. In addition, the response
//! to the PUT travels one network hop only, so a container on EC2 needs a hop limit of 2.
//!
//! Both servers respond in milliseconds or not at all. The container agent gets 3 attempts of 2 s,
//! 1 s apart; each step of the metadata service gets 1 s. The requests never go through a proxy. An
//! error message never repeats an invalid response, because the response may contain a part of a
//! secret.
//!
//! Specification:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

use super::files::read_text;
use super::{Credentials, Lookup, checked_keys};
use crate::settings::Env;
use crate::text::encoding::without_mark;
use crate::text::url::{Url, redacted};
use crate::text::{Message, reason_phrase};
use crate::wire::http::{Call, CallError, HttpClient, Reply};

/// The address and the time limits of the two servers. Tests use other values.
pub(super) struct Remote {
    /// The base URL for a relative URI.
    pub(super) container: String,
    /// The time limit for one attempt to ask the container agent.
    pub(super) container_timeout: Duration,
    /// The wait between two attempts.
    pub(super) retry_wait: Duration,
    /// The time limit for one step of the metadata service.
    pub(super) metadata_timeout: Duration,
}

const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const METADATA: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const METADATA_DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
const MAX_ATTEMPTS: u32 = 3;
/// The agents of ECS and EKS. Plain HTTP is allowed to these addresses and to this machine, because
/// the network never routes them.
const AGENT_ADDRESSES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// The response of both servers.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsResponse {
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
            retry_wait: Duration::from_secs(1),
            metadata_timeout: Duration::from_secs(1),
        }
    }
}

impl Remote {
    /// Asks the container agent, if a variable gives its address.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is set but the agent returns no valid credentials.
    pub(super) fn container(&self, env: &Env, now: SystemTime) -> Result<Lookup, Message> {
        let Some((variable, url)) = self.container_url(env)? else {
            return Ok(Lookup::NotFound(format!("neither {RELATIVE} nor {FULL} is set")));
        };
        let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
        headers.extend(authorization(env)?.map(|token| ("authorization".to_owned(), token)));
        let client = HttpClient::without_proxy();
        let origin = format!("container endpoint {} ({variable})", url.redacted().escape_debug());
        let mut attempt = 1;
        loop {
            let timeout = Some(self.container_timeout);
            let answer = client.get(&Call { url: &url, headers: &headers, body: &[], timeout });
            // A 4xx will not change within seconds. After any other failure the agent may still be
            // starting, so the request is sent again.
            let is_final = matches!(&answer, Ok(reply) if (400..500).contains(&reply.status) && reply.status != 429);
            let outcome = success(answer).and_then(|reply| credentials(&reply, &origin, now));
            match outcome {
                Ok(found) => return Ok(Lookup::Found(found)),
                Err(problem) if is_final || attempt == MAX_ATTEMPTS => {
                    let next = "check the role of the task, and the agent that serves its credentials";
                    return Err(Message::new(format!("{problem}: {origin}")).next(next));
                }
                Err(_) => thread::sleep(self.retry_wait),
            }
            attempt += 1;
        }
    }

    /// Asks the metadata service, as on an EC2 instance. Without a response to the first step, this
    /// machine is not an EC2 instance and has no credentials.
    ///
    /// # Errors
    ///
    /// Returns an error if the service responds to the first step but returns no valid credentials.
    pub(super) fn metadata(&self, env: &Env, now: SystemTime) -> Result<Lookup, Message> {
        if env.get(METADATA_DISABLED).is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
            return Ok(Lookup::NotFound(format!("{METADATA_DISABLED} is true")));
        }
        let base = env.get(METADATA).unwrap_or("http://169.254.169.254").trim().trim_end_matches('/');
        let shown = redacted(base).escape_debug().to_string();
        let no_url = || {
            let next = "write it like http://169.254.169.254, or unset it";
            Message::new(format!("invalid URL: {shown} ({METADATA})")).next(next)
        };
        let base = Url::parse(base).ok_or_else(no_url)?;
        let at = |path: &str| base.join(path).ok_or_else(no_url);
        let origin = format!("EC2 metadata at {shown}");
        let failed =
            |problem: String| Message::new(format!("{problem}: {origin}")).next("check the role of the instance");
        let client = HttpClient::without_proxy();

        let url = at("/latest/api/token")?;
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds".to_owned(), "21600".to_owned())];
        let timeout = Some(self.metadata_timeout);
        let token = match success(client.put(&Call { url: &url, headers: &headers, body: &[], timeout })) {
            Ok(reply) => single_word(&reply).ok_or_else(|| failed("invalid session token".to_owned()))?,
            // Connection refused, the service is off, or another server responds.
            Err(problem) => {
                let hint = "on EC2, a container needs a hop limit of 2";
                return Ok(Lookup::NotFound(format!("{problem}: {shown} ({hint})")));
            }
        };

        let headers = [("x-aws-ec2-metadata-token".to_owned(), token)];
        let get = |url: &Url| success(client.get(&Call { url, headers: &headers, body: &[], timeout }));
        let roles = "/latest/meta-data/iam/security-credentials/";
        let reply = match client.get(&Call { url: &at(roles)?, headers: &headers, body: &[], timeout }) {
            Ok(reply) if reply.status == 404 => return Ok(Lookup::NotFound("the instance has no role".to_owned())),
            answer => success(answer).map_err(failed)?,
        };
        if reply.body.trim_ascii().is_empty() {
            return Ok(Lookup::NotFound("the instance has no role".to_owned()));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        let role = single_word(&reply).filter(|role| role.chars().all(is_name) && role.len() <= 64);
        let role = role.ok_or_else(|| failed("invalid role name".to_owned()))?;
        let origin = format!("{origin}, role {role}");
        let reply = get(&at(&format!("{roles}{role}"))?).map_err(failed)?;
        credentials(&reply, &origin, now).map(Lookup::Found).map_err(failed)
    }

    /// Returns the URL of the container agent, and the variable that sets it.
    fn container_url(&self, env: &Env) -> Result<Option<(&'static str, Url)>, Message> {
        let no_url = |variable: &str, text: &str| {
            let next = "use https, or an address of this machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]";
            let shown = redacted(text).escape_debug().to_string();
            Message::new(format!("address not allowed for credentials: {shown} ({variable})")).next(next)
        };
        if let Some(path) = env.get(RELATIVE).map(str::trim) {
            if !path.starts_with('/') {
                let next = format!("set {FULL} for a complete URL");
                return Err(Message::new(format!("{RELATIVE} must begin with /")).next(next));
            }
            let url = Url::parse(&format!("{}{path}", self.container)).ok_or_else(|| no_url(RELATIVE, path))?;
            return Ok(Some((RELATIVE, url)));
        }
        let Some(text) = env.get(FULL).map(str::trim) else { return Ok(None) };
        let is_local = |url: &Url| {
            let host = url.host();
            host == "localhost"
                || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || AGENT_ADDRESSES.contains(&ip))
        };
        let url = Url::parse(text).filter(|url| url.is_https() || is_local(url));
        Ok(Some((FULL, url.ok_or_else(|| no_url(FULL, text))?)))
    }
}

/// Returns the value of the `authorization` header. The file is read for each request, because
/// Kubernetes replaces the token in it every few hours.
fn authorization(env: &Env) -> Result<Option<String>, Message> {
    let (name, token) = match (env.get(TOKEN_FILE), env.get(TOKEN)) {
        (Some(path), _) => {
            let error = |error| {
                let shown = path.escape_debug();
                Message::new(format!("{error}: {shown} ({TOKEN_FILE})")).next("mount the file, or unset the variable")
            };
            (TOKEN_FILE, read_text(Path::new(path)).map_err(error)?)
        }
        (None, Some(token)) => (TOKEN, token.to_owned()),
        (None, None) => return Ok(None),
    };
    // A line end in the token would begin another header.
    if token.is_empty() || !token.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        let next = "write the token without a newline, for instance with printf";
        return Err(Message::new(format!("invalid token in {name}: it is empty or contains a newline")).next(next));
    }
    Ok(Some(token))
}

/// Returns the reply if its status is 200 and its body is not too long. Otherwise returns the
/// problem as text.
fn success(answer: Result<Reply, CallError>) -> Result<Reply, String> {
    // The texts inside the errors are not used: they could repeat a part of the response or of the
    // URL.
    let problem = match answer {
        Ok(reply) if reply.status == 200 && !reply.too_long => return Ok(reply),
        Ok(reply) if reply.status == 200 => "response too long",
        Ok(reply) => return Err(format!("HTTP {} {}", reply.status, reason_phrase(reply.status))),
        Err(CallError::Tls(_)) => "TLS error",
        Err(CallError::NotHttp(_)) => "invalid HTTP response",
        Err(CallError::Other(_)) => "connection failed",
        Err(error) => return Err(error.to_string()),
    };
    Err(problem.to_owned())
}

/// Returns the first line of the body if it is one word that a header or a path may contain.
pub(super) fn single_word(reply: &Reply) -> Option<String> {
    let word = str::from_utf8(&reply.body).ok()?.lines().next()?.trim();
    (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic())).then(|| word.to_owned())
}

pub(super) fn credentials(reply: &Reply, origin: &str, now: SystemTime) -> Result<Credentials, String> {
    let Ok(response) = serde_json::from_slice::<CredentialsResponse>(without_mark(&reply.body)) else {
        return Err("invalid JSON in the response".to_owned());
    };
    if let Some(code) = response.code.filter(|code| code != "Success") {
        let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        return Err(format!("{} in the response", if is_word { &code } else { "unknown error" }));
    }
    let is_present = |value: &'_ Option<String>| value.as_ref().is_some_and(|value| !value.trim().is_empty());
    let fields = [
        ("AccessKeyId", &response.access_key_id),
        ("SecretAccessKey", &response.secret_access_key),
        ("Token", &response.token),
        ("Expiration", &response.expiration),
    ];
    let missing: Vec<_> = fields.iter().filter(|(_, value)| !is_present(value)).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(format!("no {} in the response", missing.join(" and no ")));
    }
    let keys = [response.access_key_id.as_deref(), response.secret_access_key.as_deref(), response.token.as_deref()];
    let found = checked_keys(keys, ["AccessKeyId", "SecretAccessKey", "Token"], "response", "");
    let Ok(Some((id, secret, token))) = found else { return Err("invalid keys in the response".to_owned()) };
    let expires = response.expiration.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text.trim()).ok());
    let expires = SystemTime::from(expires.ok_or("invalid Expiration in the response")?);
    if expires <= now {
        let shown = |time: SystemTime| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true);
        let (then, here) = (shown(expires), shown(now));
        return Err(format!("credentials expired at {then} (the clock of this machine says {here})"));
    }
    Ok(Credentials::new(id, secret, token, Some(expires), origin.to_owned()))
}
