//! Keys of what is answered beside or in place of an app's reply: error pages, the page of a site that
//! is closed, early hints.

use super::{Form, Kind, NETWORKS, Shape, TIME, default, optional, required};

const FOLDER: Form = Form {
    noun: "a directory",
    example: "errors",
    pattern: ".",
};
const PAGE: Form = Form {
    noun: "a file below root",
    example: "404.html",
    pattern: "^[^/].*$",
};

pub(crate) static ERROR_PAGES: Shape = Shape {
    title: "[error_pages.NAME]",
    id: "error_pages",
    doc: "Pages that stand in for the bodies of error replies. Routes name them, or `[server]` for all routes. The files are read when the configuration is loaded, and again with each reload; `{status}`, `{reason}` and `{request_id}` in them are filled in. A client whose Accept names `application/json` and not `text/html` gets an object with these three instead.",
    keys: &[
        required(
            "root",
            Kind::Text(&FOLDER),
            "The directory that the pages are in.",
        ),
        required(
            "pages",
            Kind::Map {
                what: "statuses",
                of: &Kind::Text(&PAGE),
            },
            "Which file for which status: `\"404\"` for one, `\"4xx\"` and `\"5xx\"` for all that have none of their own. At most 256 KiB each.",
        ),
        default(
            "upstream",
            Kind::Bool,
            "false",
            "Whether error replies of an app get a page, too. What is not HTML, plain text or empty stays as the app sent it, and so does every reply to a client that wants JSON.",
        ),
    ],
    foreign: &[
        ("path", "write root = \"errors\""),
        ("dir", "write root = \"errors\""),
        ("directory", "write root = \"errors\""),
        ("files", "write pages = { \"404\" = \"404.html\" }"),
        ("status", "write pages = { \"404\" = \"404.html\" }"),
        ("codes", "write pages = { \"404\" = \"404.html\" }"),
        ("page", "write pages = { \"404\" = \"404.html\" }"),
        ("intercept_errors", "write upstream = true"),
        ("proxy_intercept_errors", "write upstream = true"),
    ],
    example: r#"[error_pages.shop]
root = "errors"
pages = { "404" = "404.html", "5xx" = "50x.html" }
upstream = true
"#,
};

const SWITCH: Form = Form {
    noun: "a path",
    example: "/run/tidegate/maintenance",
    pattern: ".",
};
const CLOSED_PAGE: Form = Form {
    noun: "a file",
    example: "maintenance.html",
    pattern: ".",
};

pub(super) static MAINTENANCE: Shape = Shape {
    title: "maintenance",
    id: "maintenance",
    doc: "A file whose presence closes the site: every route but those with `maintenance = false` answers 503 with a page and `Retry-After`. `tidegate maintenance on` makes the file, `off` removes it; any other way of making it is as good.",
    keys: &[
        required(
            "file",
            Kind::Text(&SWITCH),
            "The file. It is looked for once a second; what is in it does not matter. Its folder must be one that a reboot or a deployment does not empty by accident.",
        ),
        optional(
            "page",
            Kind::Text(&CLOSED_PAGE),
            "the error page of 503, else plain text",
            "The page, read when the configuration is loaded; at most 256 KiB. `{status}`, `{reason}` and `{request_id}` in it are filled in.",
        ),
        default(
            "retry_after",
            TIME,
            "\"10m\"",
            "When clients and crawlers are told to come again.",
        ),
        optional(
            "allow",
            NETWORKS,
            "closed to everybody",
            "Client networks that see the site as usual.",
        ),
    ],
    foreign: &[
        ("path", "write file = \"/run/tidegate/maintenance\""),
        (
            "enabled",
            "the site is closed while the file is there: write file = \"/run/tidegate/maintenance\"",
        ),
        ("body", "write page = \"maintenance.html\""),
        ("whitelist", "write allow = [\"10.0.0.0/8\"]"),
        ("status", "it is always 503"),
    ],
    example: "",
};

const LINK: Form = Form {
    noun: "a link",
    example: "</app.css>; rel=preload; as=style",
    pattern: "^<[^>]+>;",
};

pub(super) static EARLY_HINTS: Shape = Shape {
    title: "early_hints",
    id: "early_hints",
    doc: "Tells browsers which styles, scripts and fonts a page will want while the app still makes it: a `103 Early Hints` (RFC 8297) before the app is asked. Only to clients that say `Sec-Fetch-Mode: navigate`, and not for what the cache has.",
    keys: &[
        optional(
            "links",
            Kind::List {
                of: &Kind::Text(&LINK),
                empty: false,
            },
            "only what is learned",
            "Links of every page of this route, each the value of a Link header.",
        ),
        default(
            "learn",
            Kind::Bool,
            "true",
            "Whether the `preload`, `modulepreload` and `preconnect` links that the app's own pages send are told to later visitors of the same page. Learned only from pages that say nothing of one visitor.",
        ),
        default(
            "http1",
            Kind::Bool,
            "false",
            "Whether HTTP/1.1 clients are told, too. There are programs between browsers and servers that take an interim reply for the final one.",
        ),
    ],
    foreign: &[
        (
            "link",
            "write links = [\"</app.css>; rel=preload; as=style\"]",
        ),
        (
            "preload",
            "write links = [\"</app.css>; rel=preload; as=style\"]",
        ),
        (
            "headers",
            "write links = [\"</app.css>; rel=preload; as=style\"]",
        ),
    ],
    example: "",
};
