//! Golden files: expected output of an encoder, byte for byte, in `tests/golden`. Run the tests
//! with `UPDATE_GOLDEN=1` to rewrite them.

use std::fs;
use std::path::Path;

/// Compares `bytes` with the golden file `name`.
#[track_caller]
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden =
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&golden), "{name}; UPDATE_GOLDEN=1 accepts it");
}
