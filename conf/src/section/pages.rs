//! `[error_pages.NAME]`, `maintenance` of `[server]`, and `early_hints` of a route.

use std::path::{Path, PathBuf};

use http::{HeaderValue, StatusCode};

use crate::config::{EarlyHints, ErrorPages, Maintenance, PageStatus};
use crate::defaults;
use crate::environment::{FileKind, reason};
use crate::keys::Kind;
use crate::raw::Entry;
use crate::read::{Finding, Table};
use crate::text::{self, Wrong, quoted};

use super::rules;
use super::shop::inside;

pub(super) fn error_pages(table: &Table<'_>, name: &str) -> Option<ErrorPages> {
    let root = table
        .require("root")
        .and_then(|_| rules::directory(table, "root"));
    table.require("pages");
    let mut pages: Vec<(PageStatus, PathBuf)> = Vec::new();
    for entry in table.map("pages") {
        let status = match page_status(&entry.key) {
            Ok(status) => status,
            Err(wrong) => {
                let finding = Finding::error(entry.place, wrong.what).label(wrong.fix);
                table.cx.error(finding);
                continue;
            }
        };
        let file = root.as_deref().and_then(|root| page(table, root, entry));
        pages.extend(file.map(|file| (status, file)));
    }
    root?;
    Some(ErrorPages {
        name: name.to_owned(),
        pages,
        upstream: table.flag("upstream", false),
    })
}

/// The file of a page, which is there.
fn page(table: &Table<'_>, root: &Path, entry: &Entry) -> Option<PathBuf> {
    let Kind::Map { of, .. } = table.kind("pages") else {
        return None;
    };
    let below = table
        .cx
        .parsed(&entry.node, "pages", of, |text| inside(text, "a page"))?;
    let path = root.join(below);
    if let Err(error) = table.cx.environment.open(&path) {
        let why = reason(&error);
        table.cx.error(
            Finding::error(
                entry.node.place,
                format!("cannot read {}: {why}", path.display()),
            )
            .label("a page is relative to root"),
        );
    }
    Some(path)
}

fn page_status(text: &str) -> Result<PageStatus, Wrong> {
    match text {
        "4xx" => return Ok(PageStatus::ClientError),
        "5xx" => return Ok(PageStatus::ServerError),
        _ => {}
    }
    let status = text.parse().ok().filter(|_| text.len() == 3);
    match status.and_then(|status: u16| StatusCode::from_u16(status).ok()) {
        Some(status) if status.is_client_error() || status.is_server_error() => {
            Ok(PageStatus::Exact(status))
        }
        Some(_) => Err(Wrong::new(
            format!("{text} is not the status of an error"),
            "write one from 400 to 599, \"4xx\" or \"5xx\"",
        )),
        None => Err(Wrong::new(
            format!("{} is not a status", quoted(text)),
            "write one such as \"404\", or \"4xx\" or \"5xx\" for all of a class",
        )),
    }
}

pub(super) fn maintenance(table: &Table<'_>) -> Option<Maintenance> {
    table.require("file");
    let file = table.path("file");
    if let (Some(file), Some(node)) = (&file, table.get("file"))
        && let Some(folder) = file.parent().filter(|it| !it.as_os_str().is_empty())
        && !matches!(table.cx.environment.kind(folder), Ok(FileKind::Directory))
    {
        table.cx.findings.add(
            Finding::warning(
                node.place,
                format!("the directory {} is not there", folder.display()),
            )
            .label("make it, or nobody can close the site"),
        );
    }
    let page = rules::readable_file(table, "page");
    Some(Maintenance {
        file: file?,
        page,
        retry_after: table.duration_or("retry_after", defaults::MAINTENANCE_RETRY_AFTER),
        allow: rules::networks(table, "allow"),
    })
}

pub(super) fn early_hints(table: &Table<'_>) -> EarlyHints {
    let links = rules::strings(table, "links", link);
    let learn = table.flag("learn", true);
    if !learn && table.get("links").is_none() {
        table.cx.error(
            Finding::error(table.place, "these early hints have nothing to tell")
                .label("write links = [\"</app.css>; rel=preload; as=style\"], or learn = true"),
        );
    }
    EarlyHints {
        links,
        learn,
        http1: table.flag("http1", false),
    }
}

/// The value of a Link field (RFC 8288): one link, with what it is for.
fn link(text: &str) -> Result<HeaderValue, Wrong> {
    const EXAMPLE: &str = "write one such as \"</app.css>; rel=preload; as=style\"";
    let parts = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let Some((target, parameters)) = parts.filter(|(target, _)| !target.is_empty()) else {
        return Err(Wrong::new(
            format!("{} does not begin with an address in <...>", quoted(text)),
            EXAMPLE,
        ));
    };
    if parameters.contains(",") && parameters.contains('<') {
        return Err(Wrong::new(
            "these are several links",
            "make each an item of the list",
        ));
    }
    let says_why = parameters
        .split(';')
        .any(|part| part.trim().to_ascii_lowercase().starts_with("rel="));
    if !says_why || target.contains(char::is_whitespace) {
        return Err(Wrong::new(
            format!("{} does not say what it is for", quoted(text)),
            EXAMPLE,
        ));
    }
    text::header_value(text)
}
