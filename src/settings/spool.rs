//! Limits of the directory in which payloads wait for a destination that is away.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{Scalar, Values};
use super::{Origin, Setting, Sources};

/// Place and limits of the payloads that one backend stores on disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpoolLimits {
    /// Directory of all backends. Each has a folder of its own in it.
    pub directory: PathBuf,
    /// Size of the stored payloads of one backend. The oldest are removed first.
    pub max_bytes: u64,
    /// Age from which the destination accepts no item any more.
    pub max_age: Duration,
}

/// Settings of the spool, without the limit of a destination.
#[derive(Clone, Debug)]
pub(super) struct SpoolSettings {
    /// `None`: nothing is stored.
    directory: Setting<Option<String>>,
    /// The directory of the settings file, if the path is relative to it.
    base: PathBuf,
    max_mib: Setting<u64>,
}

impl SpoolSettings {
    pub(super) fn new(directory: Setting<Option<String>>, max_mib: Setting<u64>, sources: &Sources) -> Self {
        // A path in a variable is relative to the current directory.
        let is_in_file = matches!(directory.origin, Origin::File(_));
        let base = if is_in_file { sources.resolve("") } else { PathBuf::new() };
        Self { directory, base, max_mib }
    }

    /// Returns the limits for one backend, and adds the settings to its values. Returns `None` if no
    /// directory is set.
    pub(super) fn limits(&self, max_age: Duration, values: &mut Values) -> Option<SpoolLimits> {
        let (Setting { value, origin }, max_mib) = (&self.directory, &self.max_mib);
        let value = value.as_ref()?;
        values.add("spool_dir", Scalar::Text(value.clone()), value, origin.clone());
        values.add("spool_max_mib", Scalar::Whole(max_mib.value), max_mib.value.to_string(), max_mib.origin.clone());
        Some(SpoolLimits { directory: self.base.join(value), max_bytes: max_mib.value * 1024 * 1024, max_age })
    }
}
