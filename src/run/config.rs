//! Everything that the settings file and the environment say, read and found good.

use std::path::{Path, PathBuf};

use super::notifications::notifications;
use crate::backends::{self, BACKENDS};
use crate::client::Client;
use crate::delivery::Plan;
use crate::settings::{Env, FileContent, Finding, Findings, Settings, Sources, Values, known_tables, settings_path};
use crate::text::Message;
use crate::trace::id::IdSource;

/// What this process was started with. It stays the same, whatever becomes of the file.
#[derive(Default)]
pub(super) struct CliArgs {
    /// `--config`
    pub(super) config: Option<PathBuf>,
    /// `--listen`
    pub(super) listen: Option<String>,
    /// `--notifications-url`
    pub(super) notifications_url: Option<String>,
    /// The environment.
    pub(super) env: Env,
    /// The id of this process.
    pub(super) instance: String,
}

/// Settings that can be put to use.
pub(super) struct Configuration {
    /// What all share.
    pub(super) settings: Settings,
    /// The instance that has the notifications, if it is another one. The file has no say in it.
    pub(super) notifications: Option<Client>,
    /// The backends.
    pub(super) plans: Vec<Plan>,
    /// What is remarkable about what belongs to no backend.
    pub(super) findings: Vec<Finding>,
    /// The values that belong to no backend.
    pub(super) values: Values,
    /// The file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// What was in it.
    pub(super) content: FileContent,
}

impl CliArgs {
    /// Where the settings are, or will be.
    pub(super) fn path(&self) -> PathBuf {
        settings_path(self.config.as_deref(), &self.env).0
    }
}

impl Configuration {
    /// Reads the file and the environment.
    pub(super) fn read(args: &CliArgs) -> Result<Self, Message> {
        Self::from_sources(&Sources::read(args.config.as_deref(), args.env.clone())?, args)
    }

    /// The same, with this as the content of the file.
    pub(super) fn from_content(args: &CliArgs, content: Vec<u8>) -> Result<Self, Message> {
        Self::from_sources(&Sources::from_content(&args.path(), content, args.env.clone())?, args)
    }

    fn from_sources(sources: &Sources, args: &CliArgs) -> Result<Self, Message> {
        let mut findings = Findings::default();
        let (settings, values) = Settings::read(sources, args.listen.as_deref(), &args.instance, &mut findings)?;
        let url = args.notifications_url.as_deref();
        let notifications = notifications(sources, url, &IdSource::new(), &mut findings)?;
        let plans = backends::plans(sources, &settings)?;
        let tables = BACKENDS.iter().map(|plugin| plugin.section.name);
        sources.refuse_unknown_tables(&known_tables().into_iter().chain(tables).collect::<Vec<_>>())?;
        let (file, content) = (sources.path().map(Path::to_owned), sources.content());
        Ok(Self { settings, notifications, plans, findings: findings.into_vec(), values, file, content })
    }
}
