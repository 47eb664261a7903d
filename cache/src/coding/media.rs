//! Which media types are worth compressing: those that are text or lie uncompressed. What is packed
//! already (images, video, audio, WOFF, archives, PDF) only costs time, and so is not named here; nor
//! is `application/octet-stream`, which says nothing.

/// Types beside `text/*`, `*+json` and `*+xml`; sorted.
const PAYING: [&str; 38] = [
    "application/ecmascript",
    "application/geo+json-seq",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/json-seq",
    "application/json5",
    "application/jsonl",
    "application/n-quads",
    "application/n-triples",
    "application/postscript",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/trig",
    "application/vnd.apple.mpegurl",
    "application/vnd.mapbox-vector-tile",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-font-otf",
    "application/x-font-ttf",
    "application/x-javascript",
    "application/x-mpegurl",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-yaml",
    "application/xml",
    "application/xml-dtd",
    "application/xml-external-parsed-entity",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/sfnt",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "image/x-ms-bmp",
];

/// The longest type that is looked at.
const LONGEST: usize = 128;

/// Whether a value of Content-Type names such a type. Case and parameters do not matter (RFC 9110
/// section 8.3.1).
pub(super) fn pays(content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let name = crate::fields::trim(&content_type[..end]);
    let mut buffer = [0; LONGEST];
    let Some(lower) = buffer.get_mut(..name.len()) else {
        return false;
    };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let Ok(name) = std::str::from_utf8(lower) else {
        return false;
    };
    // Events are to arrive one by one; a stream of them that was stored whole is a mistake.
    if name == "text/event-stream" {
        return false;
    }
    let structured = ["+json", "+xml", "+yaml"];
    name.starts_with("text/")
        || (name.contains('/') && structured.iter().any(|suffix| name.ends_with(suffix)))
        || PAYING.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(PAYING.is_sorted());
    }

    #[test]
    fn text_pays_whatever_its_case_and_parameters() {
        for name in [
            "text/html",
            "Text/CSS ; charset=utf-8",
            "text/javascript;charset=utf-8",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/wasm",
            "application/manifest+json",
            "application/ld+json; profile=\"x\"",
            "application/rss+xml",
            "image/svg+xml",
            "image/x-icon",
            "font/ttf",
            "font/otf",
        ] {
            assert!(pays(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_is_packed_or_unknown_or_a_stream_does_not() {
        let long = format!("text/{}", "x".repeat(LONGEST));
        for name in [
            "",
            "text",
            "+json",
            "image/png",
            "image/jpeg",
            "image/webp",
            "image/avif",
            "video/mp4",
            "audio/mpeg",
            "font/woff",
            "font/woff2",
            "application/zip",
            "application/gzip",
            "application/pdf",
            "application/octet-stream",
            "application/epub+zip",
            "multipart/byteranges",
            "text/event-stream",
            "TEXT/Event-Stream; charset=utf-8",
            "application/json, text/html",
            &long,
        ] {
            assert!(!pays(name.as_bytes()), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_a_type_is_total(value: Vec<u8>) {
            pays(&value);
        }
    }
}
