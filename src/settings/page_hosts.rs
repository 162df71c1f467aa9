//! Host names that may show the page.

use std::net::IpAddr;

use super::{Findings, Setting};
use crate::text::{Message, one_line, url};

/// Returns the host names in lower case: those of the setting, and those of the origins, which come
/// from `FRONTEND_URL` and `BACKEND_URL`. Adds a finding for each text that is not a host name.
pub(super) fn page_hosts(setting: &Setting<Vec<String>>, origins: &[String], findings: &mut Findings) -> Vec<String> {
    let of_origin = |origin: &String| {
        let (_, authority) = origin.split_once("://")?;
        url::split_port(authority).map(|(name, _)| name.to_ascii_lowercase())
    };
    let mut hosts: Vec<String> = origins.iter().filter_map(of_origin).collect();
    for host in &setting.value {
        if url::is_host_name(host) || host.parse::<IpAddr>().is_ok() {
            hosts.push(host.to_ascii_lowercase());
        } else {
            let what = setting.origin.says("[page] hosts", &url::redacted(&one_line(host)));
            findings.warn(
                Message::new(format!("{what} is not a host name; it is ignored"))
                    .next("write the name alone, without scheme, port and *"),
            );
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    #[test]
    fn the_hosts_of_both_urls_count_and_what_is_no_host_name_is_reported() {
        let entries =
            ["Backend", "my_app.test", "::1", "http://me:secret@backend:4567", "backend:4567", "*", "", "a\nb"];
        let setting = Setting { value: entries.map(str::to_owned).to_vec(), origin: Origin::File("f:3".to_owned()) };
        let origins = ["https://4567-x.Gitpod.test", "http://[::1]:3000", "capacitor://localhost"].map(str::to_owned);
        let mut findings = Findings::default();
        let hosts = page_hosts(&setting, &origins, &mut findings);
        assert_eq!(hosts, ["4567-x.gitpod.test", "::1", "localhost", "backend", "my_app.test", "::1"]);
        let findings: Vec<String> = findings.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(findings.len(), 5, "{findings:#?}");
        assert_eq!(
            findings[0],
            "warning: f:3: [page] hosts = \"http://backend:4567\" is not a host name; it is ignored; next: write the \
             name alone, without scheme, port and *"
        );
        assert!(findings.iter().all(|finding| !finding.contains(['\n'])), "{findings:#?}");
    }
}
