//! The complete, valid configuration from the settings file, the environment and the command line.

use std::path::{Path, PathBuf};

use super::notifications::notifications;
use crate::backends::{self, BACKENDS};
use crate::client::Client;
use crate::delivery::Plan;
use crate::settings::{
    Env, FileContent, Finding, Findings, Settings, Sources, Values, known_tables, sections, settings_path,
};
use crate::text::Message;
use crate::trace::id::IdSource;

/// Arguments and environment of this process. They stay the same when the file changes.
#[derive(Default)]
pub(super) struct CliArgs {
    /// `--config`
    pub(super) config: Option<PathBuf>,
    /// `--listen`
    pub(super) listen: Option<String>,
    /// `--notifications-url`
    pub(super) notifications_url: Option<String>,
    /// Environment at start-up.
    pub(super) env: Env,
    /// Id of this process.
    pub(super) instance: String,
}

/// Valid configuration of the program.
pub(super) struct Configuration {
    /// Settings that do not belong to one backend.
    pub(super) settings: Settings,
    /// Client of the instance that has the notifications, if it is another one. Not in the file.
    pub(super) notifications: Option<Client>,
    /// Plans of the backends.
    pub(super) plans: Vec<Plan>,
    /// Findings that belong to no backend.
    pub(super) findings: Vec<Finding>,
    /// Values that belong to no backend.
    pub(super) values: Values,
    /// Path of the settings file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// Content of the file.
    pub(super) content: FileContent,
}

impl CliArgs {
    /// Returns the path of the settings file, which need not exist.
    pub(super) fn path(&self) -> PathBuf {
        settings_path(self.config.as_deref(), &self.env).0
    }
}

impl Configuration {
    /// Reads the file and the environment.
    pub(super) fn read(args: &CliArgs) -> Result<Self, Message> {
        Self::from_sources(Sources::read(args.config.as_deref(), args.env.clone())?, args)
    }

    /// Reads the environment, and uses `content` as the content of the file.
    pub(super) fn from_content(args: &CliArgs, content: Vec<u8>) -> Result<Self, Message> {
        Self::from_sources(Sources::from_content(&args.path(), content, args.env.clone())?, args)
    }

    fn from_sources(sources: Sources, args: &CliArgs) -> Result<Self, Message> {
        let sections = sections().into_iter().chain(BACKENDS.iter().map(|plugin| plugin.section));
        let sources = &sources.with_sections(sections.collect());
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
