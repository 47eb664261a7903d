//! Keys of directories.

use super::{Form, HEADER_VALUE, IMAGES, Kind, Shape, default, optional, required};

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

const PATH_PATTERN: Form = Form {
    noun: "a shell pattern of paths below root",
    example: "assets/*",
    pattern: "^[^/].*$",
};

static RELEASES: Shape = Shape {
    title: "releases",
    id: "releases",
    doc: "Where older releases of a directory are, and how many of them still answer.",
    keys: &[
        required(
            "keep",
            Kind::Integer { min: 1, max: 100 },
            "How many releases beside the current one, the youngest first by the time of their directory.",
        ),
        optional(
            "folder",
            Kind::Text(&DIRECTORY),
            "the directory that holds what root, a symbolic link, leads to",
            "Directory with one directory for each release; hidden ones are not looked at.",
        ),
    ],
    foreign: &[
        ("count", "write keep = 3"),
        ("dir", "write folder = \"releases\""),
        ("path", "write folder = \"releases\""),
    ],
    example: "",
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
        default(
            "listing",
            Kind::Bool,
            "false",
            "Whether a directory without an index is shown, as a page or as JSON; else it is not found.",
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
        default(
            "cache_control",
            Kind::Text(&HEADER_VALUE),
            "\"public, max-age=60\"",
            "Cache-Control that is sent with files whose content may change under their name.",
        ),
        default(
            "immutable",
            Kind::Choice(&[
                (
                    "fingerprinted",
                    "files with a hash of their content in their name, as bundlers write it (`app-3f9a1c2b.js`), and those of immutable_paths",
                ),
                ("off", "none"),
            ]),
            "\"fingerprinted\"",
            "Which files never change under their name; they get immutable_cache_control.",
        ),
        default(
            "immutable_paths",
            Kind::List {
                of: &Kind::Text(&PATH_PATTERN),
                empty: true,
            },
            "[]",
            "More files that never change under their name, by shell patterns below root; `*` goes past slashes.",
        ),
        default(
            "immutable_cache_control",
            Kind::Text(&HEADER_VALUE),
            "\"public, max-age=31536000, immutable\"",
            "Cache-Control that is sent with files that never change under their name.",
        ),
        optional(
            "releases",
            Kind::Table(&RELEASES),
            "a file that root lacks is not found",
            "Files that root lacks are looked for in older releases: a page that was opened before a deploy goes on with the files that it was made of.",
        ),
        optional(
            "images",
            Kind::Table(&IMAGES),
            "pictures are served as they are",
            "Smaller forms of pictures, by what the client takes and the width it asks for.",
        ),
        default(
            "dictionaries",
            Kind::Bool,
            "false",
            "Files with a hash in their name are dictionaries for their other releases, and of what `tidegate compress --previous` wrote, browsers that have a former release get the difference (RFC 9842).",
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
        ("autoindex", "write listing = true"),
        ("browse", "write listing = true"),
        (
            "image_filter",
            "write images = { widths = [320, 640], cache = \"/var/cache/tidegate/images\" }",
        ),
        (
            "expires",
            "files with a hash in their name never expire; for others write cache_control = \"max-age=3600\"",
        ),
        ("max_age", "write cache_control = \"max-age=3600\""),
        ("strip_prefix", "it belongs in the [[route]]"),
        ("path_prefix", "it belongs in the match of a [[route]]"),
    ],
    example: r#"[static.assets]
root = "public"
cache_control = "public, max-age=3600"
"#,
};
