//! Which content type a file name stands for.
//!
//! By the ending alone, in any case of letters; the content is never looked at. Types whose
//! meaning depends on a character set say UTF-8. JSON is UTF-8 by definition and XML names
//! its own encoding, so that those two say nothing.

/// The type of what no ending explains.
pub const DEFAULT: &str = "application/octet-stream";

/// The content type for a file name or path.
pub fn of(name: &str) -> &'static str {
    known(name).unwrap_or(DEFAULT)
}

/// The content type for a file name or path, or `None` where its ending says nothing.
pub fn known(name: &str) -> Option<&'static str> {
    let file = name.rsplit('/').next()?;
    let (stem, ending) = file.rsplit_once('.')?;
    if stem.is_empty() || ending.len() > LONGEST {
        return None;
    }
    by_ending(&ending.to_ascii_lowercase())
}

/// Whether content of this type can gain from being compressed: most pictures, films, fonts
/// and archives are compressed already.
pub fn packs(kind: &str) -> bool {
    let (family, rest) = kind.split_once('/').unwrap_or((kind, ""));
    match family {
        "image" => matches!(rest, "svg+xml" | "bmp" | "x-icon" | "tiff"),
        "audio" => matches!(rest, "wav" | "midi"),
        "video" => false,
        "font" => !rest.starts_with("woff"),
        _ => !matches!(
            rest,
            "zip"
                | "gzip"
                | "zstd"
                | "x-bzip2"
                | "x-xz"
                | "x-7z-compressed"
                | "vnd.rar"
                | "java-archive"
                | "epub+zip"
        ),
    }
}

/// `webmanifest` is the longest ending below.
const LONGEST: usize = 11;

fn by_ending(ending: &str) -> Option<&'static str> {
    Some(match ending {
        // Pages and what they are made of.
        "html" | "htm" => "text/html; charset=utf-8",
        "xhtml" => "application/xhtml+xml",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "jsonld" => "application/ld+json",
        "geojson" => "application/geo+json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "xml" | "xsl" | "xsd" => "application/xml",
        "rss" => "application/rss+xml",
        "atom" => "application/atom+xml",
        // Texts.
        "txt" | "text" | "log" | "ini" | "conf" => "text/plain; charset=utf-8",
        "md" | "markdown" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "tsv" => "text/tab-separated-values; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        "vcf" => "text/vcard; charset=utf-8",
        "vtt" => "text/vtt; charset=utf-8",
        "yaml" | "yml" => "application/yaml",
        "toml" => "application/toml",
        // Images.
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "apng" => "image/apng",
        "jpg" | "jpeg" | "jfif" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "jxl" => "image/jxl",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        "ico" | "cur" => "image/x-icon",
        // Fonts.
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "ttc" | "otc" => "font/collection",
        "eot" => "application/vnd.ms-fontobject",
        // Sound and film.
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        "oga" | "ogg" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "weba" => "audio/webm",
        "mid" | "midi" => "audio/midi",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "ogv" => "video/ogg",
        "mov" => "video/quicktime",
        "mpg" | "mpeg" => "video/mpeg",
        "avi" => "video/x-msvideo",
        "mkv" => "video/matroska",
        "ts" => "video/mp2t",
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        // Documents and archives.
        "pdf" => "application/pdf",
        "rtf" => "application/rtf",
        "epub" => "application/epub+zip",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "ppt" => "application/vnd.ms-powerpoint",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "odt" => "application/vnd.oasis.opendocument.text",
        "ods" => "application/vnd.oasis.opendocument.spreadsheet",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "bz2" => "application/x-bzip2",
        "xz" => "application/x-xz",
        "zst" => "application/zstd",
        "7z" => "application/x-7z-compressed",
        "tar" => "application/x-tar",
        "rar" => "application/vnd.rar",
        "jar" => "application/java-archive",
        "glb" => "model/gltf-binary",
        "gltf" => "model/gltf+json",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shops_files_have_their_types() {
        let cases = [
            ("index.html", "text/html; charset=utf-8"),
            ("css/app.3f9a1c.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("logo.svg", "image/svg+xml"),
            ("photo.AVIF", "image/avif"),
            ("f.woff2", "font/woff2"),
            ("m.wasm", "application/wasm"),
            ("robots.txt", "text/plain; charset=utf-8"),
        ];
        for (name, expected) in cases {
            assert_eq!(of(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_compressed_already_is_not_packed_again() {
        for name in ["a.css", "a.svg", "a.wasm", "a.ttf", "LICENSE", "a.json"] {
            assert!(packs(of(name)), "{name}");
        }
        for name in [
            "a.png", "a.woff2", "a.mp4", "a.mp3", "a.zip", "a.tgz", "a.avif",
        ] {
            assert!(!packs(of(name)), "{name}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_bytes() {
        for name in [
            "",
            "LICENSE",
            "a.",
            ".html",
            "dir.html/file",
            "a.html.br",
            "x.doe",
            "a.\u{e4}",
        ] {
            assert_eq!(known(name), None, "{name}");
            assert_eq!(of(name), DEFAULT, "{name}");
        }
    }

    #[test]
    fn every_type_is_a_valid_header_value() {
        for name in ["a.html", "a.docx", "a.zip", "a.mkv"] {
            assert!(http::HeaderValue::from_str(of(name)).is_ok(), "{name}");
        }
    }
}
