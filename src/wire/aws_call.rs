//! Signed calls to a service of AWS. Two backends make them: CloudWatch Logs and X-Ray's OTLP
//! endpoint. This module finds region, address and credentials, signs, sends, records the call
//! without secrets, and corrects the clock.
//!
//! ```text
//! POST /v1/traces HTTP/1.1
//! host: xray.eu-central-1.amazonaws.com                 from the region, or AWS_ENDPOINT_URL_XRAY
//! content-type: application/json                        the headers of the caller
//! x-amz-date: 20260115T123456Z                          the service's time, as far as it is known
//! authorization: AWS4-HMAC-SHA256 Credential=AKIA.../20260115/eu-central-1/xray/aws4_request,
//!   SignedHeaders=content-type;host;x-amz-date, Signature=...          (one line)
//! ```
//!
//! A refused call may succeed at the second attempt: with the service's time, if the clock was
//! wrong, or with new credentials. [`Remedies`] remembers what has been tried.

mod clock;
mod error;
mod explain;

use std::time::{Duration, Instant, SystemTime};

use self::clock::Clock;
use super::aws_credentials::{CredentialChain, Service, endpoint, region, region_warnings};
use super::http::{Call, CallError, Certificates, HttpClient, Reply};
use super::recorded::{RecordedCall, Signing};
use super::redact::Redactor;
use super::sigv4::{Secrets, Signed, Signer, SigningInput, X_AMZ_SECURITY_TOKEN};
use crate::settings::{Findings, Origin, Scalar, Sources, Values};
use crate::text::{Message, Url};

pub use error::{AwsError, ErrorClass};
pub(crate) use explain::SignedExample;

/// Client for one service in one region.
pub struct AwsClient {
    /// Name of the backend, for the log.
    name: &'static str,
    service: Service,
    url: Url,
    client: HttpClient,
    signer: Signer,
    credentials: CredentialChain,
    clock: Clock,
}

/// Call before it is signed.
pub struct AwsCall<'a> {
    /// Headers that are signed, without those of the signature.
    pub headers: Vec<(String, String)>,
    /// The body in the bytes that are sent.
    pub body: &'a [u8],
    /// True if the body is a payload. Any other body is recorded with the call.
    pub is_payload: bool,
    /// Time by which the call must have ended.
    pub deadline: Instant,
}

/// Response to a call.
pub struct Answered {
    /// The response.
    pub reply: Reply,
    /// Redacts the secrets of the call. Some services repeat refused credentials in their message.
    pub redactor: Redactor,
    /// True if the `Date` of the response showed that the call was signed with a wrong time.
    pub clock_moved: bool,
}

/// Reason why a call got no response.
pub enum Failed {
    /// There are no valid credentials, so no call was made.
    Credentials(Message),
    /// The call failed.
    Call(CallError),
}

/// Remedies that were tried for one payload. Each is tried once. If it does not help the first time,
/// a second time is useless.
#[derive(Default)]
pub struct Remedies {
    clock_set: bool,
    refreshed: bool,
}

/// Time limit for a payload, with all calls that it needs. A megabyte takes long on some uplinks.
pub const TIMEOUT: Duration = Duration::from_secs(60);

impl AwsClient {
    /// Creates a client from AWS's variables and files. Returns it with a text that says where its
    /// settings come from. `path` is the path of all calls: `/`, or `/v1/traces`.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no valid region, or if the address or `AWS_CA_BUNDLE` is invalid.
    pub fn new(
        name: &'static str,
        service: Service,
        path: &str,
        sources: &Sources,
        values: &mut Values,
        findings: &mut Findings,
    ) -> Result<(Self, String), Message> {
        let (region, region_origin) = region(&sources.env)?;
        let (base, url_origin) = endpoint(&sources.env, service, &region)?;
        let url = if path == "/" { Some(base.clone()) } else { base.join(path) }.unwrap_or(base);
        let certificates = Certificates { authorities: authorities(sources, values)?, ours: None };
        let client = HttpClient::new(&url, &certificates)
            .map_err(|error| Message::new(error).next("check the file in AWS_CA_BUNDLE"))?;
        region_warnings(&sources.env, &region, &region_origin).into_iter().for_each(|warning| findings.warn(warning));
        // AWS's shared files may change while telemetry.toml stays the same. With these two values in
        // the plan, such a change restarts the backend.
        values.add("region", Scalar::Text(region.clone()), &region, Origin::Default);
        values.add("address", Scalar::Text(url.as_str().to_owned()), url.redacted(), Origin::Default);
        let (signer, credentials) = (Signer::new(&region, service.name), CredentialChain::new(&sources.env));
        let reason = format!("region {region} from {region_origin}; address from {url_origin}");
        Ok((Self { name, service, url, client, signer, credentials, clock: Clock::default() }, reason))
    }

    /// Returns the address of all calls.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the service's clock minus our clock, in milliseconds, or 0 for a small difference.
    pub fn clock_offset(&self) -> i64 {
        self.clock.offset()
    }

    /// Makes one call, signed with the service's time as far as it is known. Adds it to `calls`.
    ///
    /// # Errors
    ///
    /// Returns the reason if no response came.
    pub fn call(&mut self, call: AwsCall<'_>, calls: &mut Vec<RecordedCall>) -> Result<Answered, Failed> {
        let now = self.clock.signing_time(SystemTime::now());
        let credentials = self.credentials.resolve(now).map_err(Failed::Credentials)?;
        let secrets = Secrets {
            access_key_id: &credentials.access_key_id,
            secret_access_key: &credentials.secret_access_key,
            session_token: credentials.session_token.as_deref(),
        };
        let AwsCall { headers, body, is_payload, deadline } = call;
        let (headers, signed) = sign(&self.url, headers, body, &mut self.signer, &secrets, now);
        let timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let sent = SystemTime::now();
        let call = Call { url: &self.url, headers: &headers, body, timeout };
        let reply = self.client.post(&call);
        let may_be_shown = |name: &str| name != X_AMZ_SECURITY_TOKEN;
        let redactor = Redactor::new(&self.url, secrets.session_token).with_secret(secrets.secret_access_key);
        let recorded = RecordedCall::post(&call, reply.as_ref(), may_be_shown, &redactor);
        let (canonical_request, string_to_sign) = (signed.canonical_request, signed.string_to_sign);
        calls.push(RecordedCall {
            body: (!is_payload).then(|| body.to_vec()),
            signing: Some(Signing { canonical_request, string_to_sign }),
            ..recorded
        });
        let reply = reply.map_err(Failed::Call)?;
        let clock_moved = self.clock.learn(reply.date, sent, SystemTime::now());
        if clock_moved {
            let what = format!(
                "clock skew: this machine's clock is {}; calls are signed with the service's time",
                self.clock.fault()
            );
            let message = Message::new(what).next("set the clock if it is wrong");
            log::warn!(target: self.name, "{message}");
        }
        Ok(Answered { reply, redactor, clock_moved })
    }

    /// Applies a remedy for an error that has not been tried for this payload. Returns true if the
    /// call should be made again at once.
    pub fn can_retry(&mut self, remedies: &mut Remedies, class: ErrorClass, clock_moved: bool) -> bool {
        match class {
            ErrorClass::Signature if clock_moved && !remedies.clock_set => {
                remedies.clock_set = true;
                true
            }
            ErrorClass::Expired | ErrorClass::UnknownKey | ErrorClass::Denied | ErrorClass::Signature
                if !remedies.refreshed =>
            {
                remedies.refreshed = true;
                self.credentials.forget();
                true
            }
            _ => false,
        }
    }

    /// Describes a call without a response: its kind, and a message about `unit`, which are retried.
    pub fn describe(&self, failed: Failed, unit: &str) -> (&'static str, Message) {
        let error = match failed {
            Failed::Credentials(message) => return ("credentials", message),
            Failed::Call(error) => error,
        };
        let next = match &error {
            CallError::ConnectionRefused => format!("check {} and AWS_ENDPOINT_URL", self.service.variable),
            CallError::UnknownHost => "check AWS_REGION, and DNS".to_owned(),
            CallError::Timeout(_) => "check that this network allows outgoing HTTPS".to_owned(),
            CallError::Closed => format!("nothing to do; the {unit} are retried"),
            CallError::Tls(_) => "check AWS_CA_BUNDLE, and http/https in the endpoint".to_owned(),
            CallError::NotHttp(_) | CallError::Other(_) => "check the endpoint".to_owned(),
        };
        (error.kind(), Message::new(error.at(&self.url)).next(next))
    }
}

/// Signs a POST. Returns all its headers, and the steps of the signature.
pub fn sign(
    url: &Url,
    mut headers: Vec<(String, String)>,
    body: &[u8],
    signer: &mut Signer,
    secrets: &Secrets<'_>,
    now: SystemTime,
) -> (Vec<(String, String)>, Signed) {
    let request = SigningInput {
        method: "POST",
        host: &url.host_header(),
        path: url.path(),
        normalize_path: true,
        query: &[],
        headers: &headers,
        body,
    };
    let signed = signer.sign(&request, secrets, now);
    headers.extend(signed.headers());
    headers.push(("user-agent".to_owned(), concat!("cruddur/", env!("CARGO_PKG_VERSION")).to_owned()));
    (headers, signed)
}

fn authorities(sources: &Sources, values: &mut Values) -> Result<Option<Vec<u8>>, Message> {
    let Some(path) = sources.env.get("AWS_CA_BUNDLE") else { return Ok(None) };
    values.read_file(path).map(Some).map_err(|error| Message::new(format!("{error}: {path} (AWS_CA_BUNDLE)")))
}
