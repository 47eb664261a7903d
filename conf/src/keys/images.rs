//! `images = { ... }` of a directory.

use super::{Form, Kind, Shape, default, optional, required};

const CACHE: Form = Form {
    noun: "a directory",
    example: "/var/cache/tidegate/images",
    pattern: ".",
};

pub(crate) static IMAGES: Shape = Shape {
    title: "images",
    id: "images",
    doc: "Smaller forms of JPEG, PNG and WebP files, made when they are first asked for.",
    keys: &[
        default(
            "formats",
            Kind::List {
                of: &Kind::Choice(&[
                    ("avif", "AVIF: the smallest, and slow to make"),
                    ("webp", "WebP: quick to make, known to more clients"),
                ]),
                empty: true,
            },
            "[\"avif\", \"webp\"]",
            "Formats that clients get which name them in Accept, the preferred first; `[]`: none.",
        ),
        default(
            "widths",
            Kind::List {
                of: &Kind::Integer {
                    min: 1,
                    max: 16_383,
                },
                empty: true,
            },
            "[]",
            "Widths in pixels that may be asked for by `?w=`; other numbers take the next larger one, or the largest. A picture is never made wider than it is.",
        ),
        required(
            "cache",
            Kind::Text(&CACHE),
            "The directory that they are kept in, outside of root. It is made where there is none; each `[static.NAME]` has a directory of its name in it.",
        ),
        default(
            "size",
            Kind::Size {
                min: 1 << 20,
                max: 1 << 50,
            },
            "\"1GiB\"",
            "Bytes of disk at the most. What was not asked for longest goes first.",
        ),
        default(
            "quality",
            Kind::Integer { min: 1, max: 100 },
            "70",
            "Quality of AVIF, WebP and JPEG. Each format has a scale of its own.",
        ),
        optional(
            "workers",
            Kind::Integer { min: 1, max: 64 },
            "half of the processors, and one at least",
            "How many pictures are worked on at once.",
        ),
        default(
            "max_megapixels",
            Kind::Integer { min: 1, max: 200 },
            "40",
            "Larger pictures are served as they are. Twice as many pixels are held in memory at the most, of all pictures that are worked on; a pixel takes up to about 30 bytes.",
        ),
    ],
    foreign: &[
        ("format", "write formats = [\"avif\", \"webp\"]"),
        ("width", "write widths = [320, 640, 1280, 1920]"),
        ("sizes", "write widths = [320, 640, 1280, 1920]"),
        ("path", "write cache = \"/var/cache/tidegate/images\""),
        ("dir", "write cache = \"/var/cache/tidegate/images\""),
        ("max_size", "write size = \"1GiB\""),
        ("max_pixels", "write max_megapixels = 40"),
    ],
    example: "",
};
