//! The files of the page. They are part of the program and load nothing from another host.

/// A file of the page.
pub struct Asset {
    /// Name in the URL.
    pub name: &'static str,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Content of the file.
    pub bytes: &'static [u8],
}

/// The file with this name.
pub fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        Asset { name: $name, content_type: $content_type, bytes: include_bytes!(concat!("files/", $name)) }
    };
}

/// All files. A reader of the source starts at the first.
const ASSETS: &[Asset] = &[
    file!("page.html", "text/html; charset=utf-8"),
    file!("page.css", "text/css; charset=utf-8"),
    file!("page.svg", "image/svg+xml"),
    file!("page.js", "text/javascript; charset=utf-8"),
    file!("elements.js", "text/javascript; charset=utf-8"),
    file!("server.js", "text/javascript; charset=utf-8"),
    file!("cruddur.js", "text/javascript; charset=utf-8"),
    file!("pipeline.js", "text/javascript; charset=utf-8"),
    file!("requests.js", "text/javascript; charset=utf-8"),
    file!("waterfall.js", "text/javascript; charset=utf-8"),
    file!("dialects.js", "text/javascript; charset=utf-8"),
    file!("json.js", "text/javascript; charset=utf-8"),
    file!("deliveries.js", "text/javascript; charset=utf-8"),
    file!("keyboard.js", "text/javascript; charset=utf-8"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::BACKENDS;

    /// Names and order of the backends come with the status, so that a new backend needs no line here.
    #[test]
    fn no_script_names_a_backend() {
        for file in ASSETS.iter().filter(|file| file.name.ends_with(".js")) {
            let script = std::str::from_utf8(file.bytes).unwrap();
            for name in BACKENDS.iter().map(|plugin| plugin.name) {
                for spelling in [format!("\"{name}\""), format!("dialects.{name}"), format!("backends.{name}")] {
                    assert!(!script.contains(&spelling), "{}: {spelling}", file.name);
                }
            }
        }
    }

    #[test]
    fn all_of_the_page_is_smaller_than_80_kb() {
        let size: usize = ASSETS.iter().map(|file| file.bytes.len()).sum();
        assert!(size < 80_000, "{size} bytes");
    }
}
