//! Folder of one backend in the spool directory: the only code that reads and writes its files.
//!
//! ```text
//! spool_dir/honeycomb/1768480496123-9f2c41aa-000017.batch    a payload; the name is its place in line
//!                     tmp-9f2c41aa-...                       a payload that is being written
//!                     running-9f2c41aa                       locked by a process while it runs
//! spool_dir/bad/honeycomb-...                                a file that cannot be sent
//! ```
//!
//! Several processes may share a folder. A process sends or removes a payload only while it has the
//! lock (`flock`) of that file. The system releases the locks of a process that was killed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;

use super::file::{self, Fault, Header};

/// One backend's folder.
pub(super) struct Folder {
    path: PathBuf,
    bad: PathBuf,
    backend: &'static str,
    /// Identifies this process in the names of files.
    id: String,
}

/// A file in the folder that no process is writing.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// A payload's file that this process has locked.
pub(super) struct Locked(File);

/// Result of an attempt to lock a file.
pub(super) enum Lock {
    Ours(Locked),
    /// Another process has locked it.
    Theirs,
    /// Another process, or a person, has removed it.
    Gone,
}

const SUFFIX: &str = ".batch";
const TEMPORARY: &str = "tmp-";
const MARKER: &str = "running-";
const BAD: &str = "bad";
/// Largest file that is read.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Longest beginning of a file in which its header must end.
const MAX_HEADER: u64 = 1024 * 1024;
const MAX_MARKER: u64 = 200;

impl Folder {
    /// Names the folder of a backend. Nothing is created yet.
    pub(super) fn new(directory: &Path, backend: &'static str, id: String) -> Self {
        Self { path: directory.join(backend), bad: directory.join(BAD), backend, id }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the folder does not exist, and false if that cannot be said.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.path.try_exists(), Ok(false))
    }

    /// Returns the name of a new payload. Names are in the order of `millis` and `number`.
    pub(super) fn name(&self, millis: u64, number: u32) -> String {
        format!("{millis:013}-{}-{number:06}{SUFFIX}", self.id)
    }

    /// Writes a payload. After a crash or a power failure the file is there as a whole, or not at all.
    ///
    /// # Errors
    ///
    /// The directory cannot be written to, or the disk is full.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = self.new_file(name)?;
        file.write_all(content)?;
        file.publish()?;
        // The payload is stored even if this fails. Only a power failure could still lose its name.
        drop(File::open(&self.path).and_then(|folder| folder.sync_all()));
        Ok(())
    }

    /// Checks that payloads can be stored. Creates nothing, because `cruddur check` may run as another
    /// user than the program.
    ///
    /// # Errors
    ///
    /// The folder, or the directory in which it would be created, cannot be written to.
    pub(super) fn check(&self) -> io::Result<()> {
        let existing = self.path.ancestors().find(|path| path.exists()).unwrap_or(&self.path);
        if !existing.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(access(existing, Access::WRITE_OK)?)
    }

    /// Lists the files, without those that a process is writing.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub(super) fn list(&self) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Another process may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_file() && !name.starts_with(TEMPORARY) && !name.starts_with(MARKER) {
                files.push(Listed { name, bytes: metadata.len() });
            }
        }
        Ok(files)
    }

    /// Reads the header of a payload.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn read_header(&self, name: &str) -> io::Result<Result<Header, Fault>> {
        let mut lines = BufReader::new(File::open(self.path.join(name))?.take(MAX_HEADER));
        let mut beginning = Vec::new();
        for _ in 0..2 {
            lines.read_until(b'\n', &mut beginning)?;
        }
        Ok(file::decode_header(&beginning))
    }

    /// Locks the file of a payload.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(super) fn lock(&self, name: &str) -> io::Result<Lock> {
        let file = match File::open(self.path.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lock::Gone),
            file => file?,
        };
        if !try_lock(&file)? {
            return Ok(Lock::Theirs);
        }
        // It may have been removed after it was opened.
        Ok(if file.metadata()?.nlink() > 0 { Lock::Ours(Locked(file)) } else { Lock::Gone })
    }

    /// Removes a payload.
    ///
    /// # Errors
    ///
    /// The folder cannot be written to.
    pub(super) fn remove(&self, name: &str, _: &Locked) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Moves a file that cannot be sent to the folder `bad`, and returns its new path. Files there
    /// may have `max_bytes` together; the oldest are removed first.
    ///
    /// # Errors
    ///
    /// The directory cannot be written to.
    pub(super) fn set_aside(&self, name: &str, _: &Locked, max_bytes: u64) -> io::Result<PathBuf> {
        create(&self.bad)?;
        let mut to = self.bad.join(format!("{}-{name}", self.backend));
        if to.exists() {
            to = self.bad.join(format!("{}-{}-{name}", self.backend, self.id));
        }
        fs::rename(self.path.join(name), &to)?;
        let entries = fs::read_dir(&self.bad)?.filter_map(Result::ok);
        let sized = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
        let mut kept: Vec<_> = sized.map(|(path, metadata)| (metadata.ctime(), metadata.len(), path)).collect();
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in kept.iter().filter(|(.., path)| *path != to) {
            if bytes <= max_bytes {
                break;
            }
            // Another process may do the same now.
            drop(fs::remove_file(path));
            bytes -= size;
        }
        Ok(to)
    }

    /// Marks this process as running until the returned file is dropped and [`Self::unmark`] is called.
    /// `text` describes the process. Also returns the texts of processes that ended without
    /// [`Self::unmark`], and removes what they were writing.
    ///
    /// # Errors
    ///
    /// The directory cannot be written to, or its file system has no locks.
    pub(super) fn mark(&self, text: &str) -> io::Result<(File, Vec<String>)> {
        create(&self.path)?;
        let killed = self.killed()?;
        // Locked under another name first. Otherwise a process that starts at the same time could
        // find the file without a lock.
        let mut marker = self.new_file(&self.marker())?;
        try_lock(&marker.file)?;
        marker.write_all(text.as_bytes())?;
        Ok((marker.publish()?, killed))
    }

    /// Records that this process has ended by itself.
    pub(super) fn unmark(&self) {
        // If this fails, the next start reports that this process was killed.
        drop(fs::remove_file(self.path.join(self.marker())));
    }

    fn marker(&self) -> String {
        format!("{MARKER}{}", self.id)
    }

    /// Returns the texts of the markers without a lock. Removes them, and all files that no running
    /// process is writing.
    fn killed(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.collect();
        let (mut killed, mut running) = (Vec::new(), vec![format!("{TEMPORARY}{}-", self.id)]);
        for name in names.iter().filter(|name| name.contains(MARKER)) {
            let path = self.path.join(name);
            // Another process may have removed it.
            let Ok(file) = File::open(&path) else { continue };
            if !try_lock(&file)? {
                running.extend(name.strip_prefix(MARKER).map(|id| format!("{TEMPORARY}{id}-")));
                continue;
            }
            if name.starts_with(MARKER) {
                let mut text = Vec::new();
                (&file).take(MAX_MARKER).read_to_end(&mut text)?;
                killed.push(String::from_utf8_lossy(&text).into_owned());
            }
            fs::remove_file(&path)?;
        }
        for name in names.iter().filter(|name| name.starts_with(TEMPORARY) && !name.contains(MARKER)) {
            if !running.iter().any(|prefix| name.starts_with(prefix)) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(killed)
    }

    /// Creates a file that gets this name when it is published.
    fn new_file(&self, name: &str) -> io::Result<NewFile> {
        let temporary = self.path.join(format!("{TEMPORARY}{}-{name}", self.id));
        let mut options = OpenOptions::new();
        // Telemetry may contain personal data, so other users cannot read it.
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(NewFile { file, temporary, name: self.path.join(name), is_published: false })
    }
}

/// A file that is being written. It is removed if it is not published.
struct NewFile {
    file: File,
    temporary: PathBuf,
    name: PathBuf,
    is_published: bool,
}

impl NewFile {
    fn write_all(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)
    }

    /// Writes it to the disk, and gives it its name.
    fn publish(mut self) -> io::Result<File> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.name)?;
        self.is_published = true;
        self.file.try_clone()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_published {
            drop(fs::remove_file(&self.temporary));
        }
    }
}

impl Locked {
    /// Reads the whole file.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        (&self.0).take(MAX_FILE).read_to_end(&mut content)?;
        Ok(content)
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Locks a file until it is closed. Returns false if another process has locked it.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
