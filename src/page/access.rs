//! Access to the page. Its data contains what other clients sent, so three checks come before it:
//!
//! 1. **Client.** Only this machine, unless `allow_remote` is true.
//! 2. **Host name.** A foreign web page can let its own name resolve to this machine (DNS
//!    rebinding). Its browser then treats that page and this one as the same origin. The `Host`
//!    header still contains the foreign name, because scripts cannot change that header.
//! 3. **Web page.** A foreign page can make requests under the right name. Its browser marks them,
//!    with `Sec-Fetch-Site` or `Origin`. The files of the page are exempt, so that a link to the page
//!    works: they contain no data, and no frame shows them.

use std::iter::once;
use std::net::IpAddr;

use crate::settings::Settings;
use crate::text::url::{is_host_name, split_port};

/// Rules for the clients of the page.
pub struct Access {
    /// True if the page is on.
    pub(super) enabled: bool,
    allow_remote: bool,
    /// Allowed host names, in lower case.
    hosts: Vec<String>,
    /// Origins of the front end and of this program.
    origins: Vec<String>,
}

/// A client of the page, as its request describes it.
#[derive(Clone, Copy, Default)]
pub struct Visitor<'a> {
    /// True if the client is on this machine, comes through no proxy, and asks for this machine.
    pub is_local: bool,
    /// `Host`.
    pub host: Option<&'a str>,
    /// Host that the client sent to the first proxy, if a proxy tells.
    pub forwarded_host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// True for a request that a page of another site makes.
    pub is_cross_site: bool,
}

/// Content that a client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// A file of the page, without data.
    Files,
    /// Data about requests, deliveries or settings.
    Data,
}

/// Reason why a client may not see the page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Denied {
    /// The page is off.
    Off,
    /// The client is on another machine, and the page is shown to this machine only.
    Remote,
    /// The host name of the request is not allowed. `None` if it is missing or invalid.
    HostName(Option<String>),
    /// A foreign web page makes the request.
    ForeignPage,
}

impl Access {
    /// The rules that the settings ask for.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            enabled: settings.page.value,
            allow_remote: settings.page_for_all.value,
            hosts: settings.page_hosts.clone(),
            origins: settings.origins.clone(),
        }
    }

    /// Checks that a client may see the content.
    ///
    /// # Errors
    ///
    /// The reason for a refusal.
    pub fn check(&self, visitor: &Visitor<'_>, content: Content) -> Result<(), Denied> {
        if !self.enabled {
            return Err(Denied::Off);
        }
        if !visitor.is_local && !self.allow_remote {
            return Err(Denied::Remote);
        }
        // An invalid or missing host has an empty name, which is not allowed.
        let mut names = once(visitor.host.unwrap_or_default())
            .chain(visitor.forwarded_host)
            .map(|host| split_port(host).map_or("", |(name, _)| name));
        if let Some(name) = names.find(|name| !self.allows_name(name)) {
            return Err(Denied::HostName(is_host_name(name).then(|| name.to_owned())));
        }
        let is_foreign = visitor.is_cross_site || visitor.origin.is_some_and(|origin| self.is_foreign(origin, visitor));
        if is_foreign && content == Content::Data {
            return Err(Denied::ForeignPage);
        }
        Ok(())
    }

    /// Returns true for a name that no foreign web page can have: DNS rebinding needs a name in
    /// DNS, so IP addresses are safe.
    fn allows_name(&self, name: &str) -> bool {
        let is_listed = || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || is_listed()
    }

    /// Returns true if the origin is neither this program's nor the front end's.
    fn is_foreign(&self, origin: &str, visitor: &Visitor<'_>) -> bool {
        let (_, authority) = origin.split_once("://").unwrap_or_default();
        let is_ours = visitor.host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
        !is_ours && !self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

impl Denied {
    /// The HTTP status, and a message with the next step.
    pub fn explain(&self) -> (u16, String) {
        match self {
            Self::Off => (404, "the page is off; set enabled = true under [page] in telemetry.toml".to_owned()),
            Self::Remote => (
                403,
                "forbidden: open the page on this machine, as localhost, over HTTP/1.1 and without a proxy; or set \
                 allow_remote = true under [page] in telemetry.toml, or CRUDDUR_PAGE_ALLOW_REMOTE=true"
                    .to_owned(),
            ),
            Self::HostName(name) => {
                let name =
                    name.as_ref().map_or_else(|| "this host name".to_owned(), |name| format!("the host name {name}"));
                let message = format!(
                    "forbidden: the page is not shown under {name}; add the name to hosts under [page] in telemetry.toml, or to \
                     CRUDDUR_PAGE_HOSTS, or open the page as localhost"
                );
                (403, message)
            }
            Self::ForeignPage => (
                403,
                "forbidden: another web page made this request; open / in the browser, or use a program such as curl"
                    .to_owned(),
            ),
        }
    }
}
