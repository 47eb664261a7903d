//! Keys of directories.

use super::{Form, HEADER_VALUE, Kind, Shape, default, optional, required};

const FILE_NAME: Form = Form {
    noun: "a file name",
    example: "index.html",
    pattern: "^[^/]+$",
};
const DIRECTORY: Form = Form {
    noun: "a directory",
    example: "public",
    pattern: ".",
};
const FILE: Form = Form {
    noun: "a file below root",
    example: "index.html",
    pattern: "^[^/].*$",
};

pub(crate) static STATIC: Shape = Shape {
    title: "[static.NAME]",
    id: "static",
    doc: "A directory whose files are served. Routes name it.",
    keys: &[
        required(
            "root",
            Kind::Text(&DIRECTORY),
            "The directory. Nothing outside of it is ever served.",
        ),
        default(
            "index",
            Kind::List {
                of: &Kind::Text(&FILE_NAME),
                empty: true,
            },
            "[\"index.html\"]",
            "File names tried, in order, for a directory; `[]` tries none.",
        ),
        optional(
            "fallback",
            Kind::Text(&FILE),
            "404",
            "File, relative to root, that is served with status 200 where nothing else is found: for single-page applications.",
        ),
        default(
            "precompressed",
            Kind::List {
                of: &Kind::Choice(&[
                    ("br", "`.br`, Brotli"),
                    ("zstd", "`.zst`, Zstandard"),
                    ("gz", "`.gz`, gzip"),
                ]),
                empty: true,
            },
            "[\"br\", \"zstd\", \"gz\"]",
            "Compressed copies that are looked for beside a file, the preferred first; `[]` looks for none.",
        ),
        optional(
            "cache_control",
            Kind::Text(&HEADER_VALUE),
            "none is sent",
            "Cache-Control that is sent with files.",
        ),
        default(
            "memory",
            Kind::Size {
                min: 0,
                max: 1 << 50,
            },
            "\"64MiB\"",
            "Content of files kept in memory; \"0B\" keeps none.",
        ),
        optional(
            "max_memory_file",
            Kind::Size {
                min: 0,
                max: 1 << 50,
            },
            "\"256KiB\", or all of memory where that is less",
            "Files up to this size are kept in memory.",
        ),
    ],
    foreign: &[
        ("path", "write root = \"public\""),
        ("dir", "write root = \"public\""),
        ("directory", "write root = \"public\""),
        (
            "alias",
            "write root = \"public\", and strip_prefix in the route",
        ),
        ("try_files", "write fallback = \"index.html\""),
        ("spa", "write fallback = \"index.html\""),
        ("gzip", "write precompressed = [\"gz\"]"),
        ("autoindex", "directories are not listed"),
        ("browse", "directories are not listed"),
        ("expires", "write cache_control = \"max-age=3600\""),
        ("max_age", "write cache_control = \"max-age=3600\""),
        ("strip_prefix", "it belongs in the [[route]]"),
        ("path_prefix", "it belongs in the match of a [[route]]"),
    ],
    example: r#"[static.assets]
root = "public"
cache_control = "public, max-age=3600"
"#,
};
