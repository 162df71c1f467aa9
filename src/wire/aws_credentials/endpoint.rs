//! The region, and the addresses of CloudWatch Logs and of X-Ray in it.
//!
//! ```text
//! AWS_REGION=eu-central-1          ->  https://logs.eu-central-1.amazonaws.com
//! AWS_REGION=cn-north-1            ->  https://xray.cn-north-1.amazonaws.com.cn
//! AWS_ENDPOINT_URL=http://moto:5000    a test server in place of all AWS services;
//!                                      the region is still part of each signature
//! ```
//!
//! AWS groups its regions into partitions. Partitions are fully separate and do not even share
//! accounts. The name of a region shows its partition.
//!
//! Specification: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>,
//! <https://docs.aws.amazon.com/general/latest/gr/cwl_region.html>.

use super::files::SharedProfile;
use crate::settings::Env;
use crate::text::Message;
use crate::text::url::{Url, redacted};

/// A service of AWS.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The beginning of its host name, and its name in the scope of a signature.
    pub name: &'static str,
    /// The variable that sets its address.
    pub variable: &'static str,
}

/// CloudWatch Logs.
pub const CLOUDWATCH_LOGS: Service = Service { name: "logs", variable: "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS" };
/// X-Ray.
pub const XRAY: Service = Service { name: "xray", variable: "AWS_ENDPOINT_URL_XRAY" };

/// The partitions: the prefix of their region names, and the suffix of their host names. The first
/// prefix that fits is used.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
    // All public regions, and us-gov-*.
    ("", "amazonaws.com"),
];

/// Returns the region, and the place where it was found. The order is `AWS_REGION`, then
/// `AWS_DEFAULT_REGION`, then the profile. `AWS_DEFAULT_REGION` is older, and Python's SDK reads
/// only this variable.
///
/// # Errors
///
/// Returns an error if no region is set, or if its name is invalid.
pub fn region(env: &Env) -> Result<(String, String), Message> {
    let variable = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|name| env.get(name).map(|value| (value.trim().to_owned(), name.to_owned())));
    let (value, origin) = match variable {
        Some(found) => found,
        None => {
            let shared = SharedProfile::read(env)?;
            shared.required()?;
            let Some(region) = shared.get("region") else {
                let name = shared.name.escape_debug();
                let what = format!(
                    "no AWS region: AWS_REGION and AWS_DEFAULT_REGION are not set, and no profile {name} has one"
                );
                return Err(Message::new(what).next("set AWS_REGION, for instance to us-east-1"));
            };
            (region.to_owned(), profile_origin(&shared))
        }
    };
    // The region becomes a part of the host name and of each signature.
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if value.len() > 63 || value.starts_with('-') || value.ends_with('-') || !value.bytes().all(fits) {
        let value = value.escape_debug();
        return Err(Message::new(format!("invalid AWS region: {value} ({origin})")).next("write it like us-east-1"));
    }
    Ok((value, origin))
}

/// Returns the address of a service without a path, and the place where it was found. The order is
/// the variable of the service, then `AWS_ENDPOINT_URL`, then `endpoint_url` of the profile, then the
/// public address of the region. `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true` selects the public
/// address.
///
/// # Errors
///
/// Returns an error if the address is not a URL, or if it has a path. The path is the service's own.
pub fn endpoint(env: &Env, service: Service, region: &str) -> Result<(Url, String), Message> {
    let Some((url, origin)) = configured_url(env, service)? else {
        let fits = |(prefix, _): &&(&str, &str)| region.starts_with(prefix);
        let suffix = PARTITIONS.iter().find(fits).map_or("amazonaws.com", |(_, suffix)| suffix);
        let url = format!("https://{}.{region}.{suffix}", service.name);
        let no_host = || Message::new(format!("invalid host name for the region {region}"));
        return Ok((Url::parse(&url).ok_or_else(no_host)?, format!("region {region}")));
    };
    let text = url.trim().trim_end_matches('/');
    match Url::parse(text) {
        Some(url) if url.path() == "/" && !text.contains(['?', '#', '@']) => Ok((url, origin)),
        _ => {
            let shown = redacted(text).escape_debug().to_string();
            let next = "write only scheme, host and port, like http://localhost:5000";
            Err(Message::new(format!("invalid endpoint URL: {shown} ({origin})")).next(next))
        }
    }
}

fn configured_url(env: &Env, service: Service) -> Result<Option<(String, String)>, Message> {
    let is_true = |value: &str| value.trim().eq_ignore_ascii_case("true");
    if env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(is_true) {
        return Ok(None);
    }
    for name in [service.variable, "AWS_ENDPOINT_URL"] {
        if let Some(url) = env.get(name) {
            return Ok(Some((url.to_owned(), name.to_owned())));
        }
    }
    let shared = SharedProfile::read(env)?;
    if shared.get("ignore_configured_endpoint_urls").is_some_and(is_true) {
        return Ok(None);
    }
    Ok(shared.get("endpoint_url").map(|url| (url.to_owned(), profile_origin(&shared))))
}

fn profile_origin(shared: &SharedProfile) -> String {
    format!("profile {} in {}", shared.name.escape_debug(), shared.files)
}

#[cfg(test)]
mod tests {
    use super::super::tests::TempFile;
    use super::*;

    #[test]
    fn the_region_is_the_first_one_found() {
        let file = TempFile::new("[default]\nregion = eu-west-3\n[profile bad]\nregion = Europe");
        let path = file.path();
        let both = Env::from([("AWS_REGION", " eu-west-1 "), ("AWS_DEFAULT_REGION", "eu-west-2")]);
        assert_eq!(region(&both).unwrap(), ("eu-west-1".to_owned(), "AWS_REGION".to_owned()));
        let older = Env::from([("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-west-2")]);
        assert_eq!(region(&older).unwrap(), ("eu-west-2".to_owned(), "AWS_DEFAULT_REGION".to_owned()));
        let of_file = region(&Env::from([("AWS_CONFIG_FILE", path)])).unwrap();
        assert_eq!(of_file, ("eu-west-3".to_owned(), format!("profile default in {path}")));
        let bad = region(&Env::from([("AWS_CONFIG_FILE", path), ("AWS_PROFILE", "bad")])).unwrap_err().to_string();
        let expected = format!("invalid AWS region: Europe (profile bad in {path}); next: write it like us-east-1");
        assert_eq!(bad, expected);
        let gone = region(&Env::from([("AWS_CONFIG_FILE", path), ("AWS_PROFILE", "gone")])).unwrap_err().to_string();
        assert!(gone.starts_with(&format!("no such profile: AWS_PROFILE=gone (not in {path}); next: ")), "{gone}");
        let none = region(&Env::default()).unwrap_err().to_string();
        assert!(none.starts_with("no AWS region: ") && none.contains("set AWS_REGION"), "{none}");
        for nonsense in ["us east", "evil.com/", "-", "a\nb", "US-EAST-1"] {
            let error = region(&Env::from([("AWS_REGION", nonsense)])).unwrap_err().to_string();
            let is_named = error.starts_with("invalid AWS region: ") && error.contains(" (AWS_REGION); next: ");
            assert!(is_named && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn each_partition_has_its_own_hosts() {
        for (region, host) in [
            ("us-east-1", "logs.us-east-1.amazonaws.com"),
            ("cn-north-1", "logs.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "logs.us-gov-west-1.amazonaws.com"),
            ("eusc-de-east-1", "logs.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", "logs.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "logs.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "logs.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "logs.us-isof-south-1.csp.hci.ic.gov"),
        ] {
            let (url, origin) = endpoint(&Env::default(), CLOUDWATCH_LOGS, region).unwrap();
            assert_eq!((url.as_str(), origin), (format!("https://{host}").as_str(), format!("region {region}")));
            let (url, _) = endpoint(&Env::default(), XRAY, region).unwrap();
            assert_eq!(url.as_str(), format!("https://{}", host.replace("logs.", "xray.")));
        }
    }

    #[test]
    fn an_endpoint_that_somebody_set_wins() {
        let file = TempFile::new(
            "[default]\nendpoint_url = http://file:3\n\
             [profile off]\nendpoint_url = http://file:3\nignore_configured_endpoint_urls = true",
        );
        let own = ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://own:1/");
        let all = ("AWS_ENDPOINT_URL", "http://all:2");
        let path = ("AWS_CONFIG_FILE", file.path());
        let found_for = |env: Env| endpoint(&env, CLOUDWATCH_LOGS, "us-east-1").unwrap();
        let found = |url: &str, origin: &str| (Url::parse(url).unwrap(), origin.to_owned());
        assert_eq!(found_for(Env::from([own, all, path])), found("http://own:1", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"));
        assert_eq!(found_for(Env::from([all, path])), found("http://all:2", "AWS_ENDPOINT_URL"));
        let of_file = format!("profile default in {}", file.path());
        assert_eq!(found_for(Env::from([path])), found("http://file:3", &of_file));
        let public = found("https://logs.us-east-1.amazonaws.com", "region us-east-1");
        assert_eq!(found_for(Env::from([path, ("AWS_PROFILE", "off")])), public);
        let off = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        assert_eq!(found_for(Env::from([own, all, path, off])), public);
        let of_xray = ("AWS_ENDPOINT_URL_XRAY", "http://xray:4");
        assert_eq!(found_for(Env::from([of_xray, all])), found("http://all:2", "AWS_ENDPOINT_URL"));
        let xray = endpoint(&Env::from([of_xray, own, all]), XRAY, "us-east-1").unwrap();
        assert_eq!(xray, found("http://xray:4", "AWS_ENDPOINT_URL_XRAY"));
        // This name is a common mistake: no SDK reads it.
        assert_eq!(found_for(Env::from([("AWS_ENDPOINT_URL_LOGS", "http://x")])), public);
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused_without_its_password() {
        for url in ["moto:5000", "ftp://x", "http://", "http://me:TOPSECRET@x", "http://x/y", "http://x?TOPSECRET"] {
            let env = Env::from([("AWS_ENDPOINT_URL", url)]);
            let error = endpoint(&env, CLOUDWATCH_LOGS, "us-east-1").unwrap_err().to_string();
            let is_named = error.starts_with("invalid endpoint URL: ") && error.contains(" (AWS_ENDPOINT_URL); next: ");
            assert!(is_named && !error.contains("TOPSECRET"), "{error}");
        }
    }
}
