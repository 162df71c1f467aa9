//! Client for another instance that has the notifications: `--notifications-url`, or
//! `NOTIFICATIONS_URL`.

use std::time::Duration;

use crate::client::{Client, Endpoint};
use crate::settings::{Findings, Sources};
use crate::text::{Message, Url};
use crate::trace::id::IdSource;

const URL: &str = "NOTIFICATIONS_URL";
const TIMEOUT: &str = "NOTIFICATIONS_TIMEOUT";
const DEFAULT_TIMEOUT: u64 = 1000;
const MAX_TIMEOUT: u64 = 60_000;
/// Shortest timeout, in milliseconds. A DNS lookup that gets no response blocks a thread until the
/// system gives up, usually for ten seconds. A shorter timeout could start too many such threads.
const MIN_TIMEOUT: u64 = 50;
/// Path that is appended to the address of an instance.
const ROUTE: &str = "/api/activities/notifications";

/// Returns the client of the instance that has the notifications, or `None` if this instance has
/// them. `argument` is the value of `--notifications-url`.
///
/// # Errors
///
/// `argument` is not a valid URL. An invalid variable is only reported as a finding.
pub(super) fn notifications(
    sources: &Sources,
    argument: Option<&str>,
    ids: &IdSource,
    findings: &mut Findings,
) -> Result<Option<Client>, Message> {
    let whole = |text: &str| text.parse().ok().filter(|millis| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(millis));
    let wanted = format!("a number of milliseconds from {MIN_TIMEOUT} to {MAX_TIMEOUT}");
    let millis =
        sources.variable(&[TIMEOUT], whole, &wanted, findings).map_or(DEFAULT_TIMEOUT, |setting| setting.value);
    let client = |url: &str, origin: &str| {
        let timeout = Duration::from_millis(millis);
        let endpoint = Endpoint { url: with_route(url), origin: origin.to_owned(), timeout, timeout_origin: TIMEOUT };
        Client::new(endpoint, ids)
    };
    if let Some(url) = argument {
        return client(url.trim(), "--notifications-url").map(Some);
    }
    let from_variable = sources.env.get(URL).map(|url| client(url.trim(), URL)).transpose();
    Ok(from_variable.unwrap_or_else(|problem| {
        findings.warn(problem.and("the variable is ignored"));
        None
    }))
}

/// Appends [`ROUTE`] to a URL without a path. Returns any other text unchanged.
fn with_route(text: &str) -> String {
    let join = |url: Url| if url.path() == "/" { url.join(ROUTE) } else { None };
    Url::parse(text).and_then(join).map_or_else(|| text.to_owned(), |url| url.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Env;

    fn read(argument: Option<&str>, env: Env) -> (Result<Option<String>, String>, Vec<String>) {
        let sources = Sources::from_text("", env).unwrap();
        let mut findings = Findings::default();
        let client = notifications(&sources, argument, &IdSource::new(), &mut findings);
        let shown = client.map(|client| client.map(|client| client.to_string()));
        let findings = findings.into_vec().into_iter().map(|finding| finding.message.to_string());
        (shown.map_err(|error| error.to_string()), findings.collect())
    }

    #[test]
    fn the_address_of_an_instance_leads_to_its_notifications() {
        for (url, leads_to) in [
            ("http://127.0.0.1:4568", "http://127.0.0.1:4568/api/activities/notifications"),
            ("http://127.0.0.1:4568/", "http://127.0.0.1:4568/api/activities/notifications"),
            ("https://me:secret@b.test/else?sig=secret", "https://b.test/else?sig=REDACTED"),
        ] {
            let (shown, notices) = read(Some(url), Env::default());
            assert_eq!(
                shown,
                Ok(Some(format!("{leads_to} (--notifications-url), within 1000 ms (NOTIFICATIONS_TIMEOUT)")))
            );
            assert!(notices.is_empty(), "{notices:?}");
        }
    }

    #[test]
    fn the_argument_wins_over_the_variable_and_nothing_means_here() {
        let env = Env::from([(URL, "http://b.test"), (TIMEOUT, "50")]);
        let (shown, _) = read(Some("http://a.test"), env.clone());
        assert!(shown.unwrap().unwrap().starts_with("http://a.test/"));
        let (shown, _) = read(None, env);
        assert!(shown.unwrap().unwrap().ends_with("(NOTIFICATIONS_URL), within 50 ms (NOTIFICATIONS_TIMEOUT)"));
        assert_eq!(read(None, Env::default()), (Ok(None), vec![]));
    }

    #[test]
    fn what_is_no_url_is_refused_as_an_argument_and_noticed_as_a_variable() {
        for url in
            ["nonsense", "ftp://a", "http://", "http://:1", "127.0.0.1:4568", "http://a:0", "http://a:x", "http://a:"]
        {
            let (shown, _) = read(Some(url), Env::default());
            let next = "next: write it like http://host:port";
            let expected = format!("invalid URL: {:?} (--notifications-url); {next}", with_route(url));
            assert_eq!(shown, Err(expected));
            let (shown, notices) = read(None, Env::from([(URL, url)]));
            assert_eq!(shown, Ok(None));
            let expected =
                format!("invalid URL: {:?} (NOTIFICATIONS_URL); the variable is ignored; {next}", with_route(url));
            assert_eq!(notices, [expected]);
        }
        let (_, notices) = read(None, Env::from([(TIMEOUT, "0")]));
        assert_eq!(
            notices,
            ["NOTIFICATIONS_TIMEOUT=0 is not a number of milliseconds from 50 to 60000; it is ignored"]
        );
    }
}
