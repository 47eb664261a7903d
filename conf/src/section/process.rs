//! `[server]`, `[admin]`, `[log]` and `[limits]`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::config::{
    AccessFormat, AccessLog, Admin, AdminAddress, Limits, Log, LogFormat, LogLevel, Secret, Server,
};
use crate::defaults;
use crate::environment::{FileKind, reason};
use crate::raw::{Node, Value};
use crate::read::{Finding, Table, not_empty};
use crate::text::{self, AdminText};

use super::rules;

pub(super) fn server(table: &Table<'_>) -> Server {
    let user = table.text("user", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        match not_empty(text) {
            Ok(user) if user.chars().all(plain) => Ok(user),
            Ok(_) => Err(text::Wrong::new(
                format!("{} is not the name of an account", text::quoted(text)),
                "the name alone, as in \"tidegate\"",
            )),
            Err(wrong) => Err(wrong),
        }
    });
    Server {
        workers: table
            .integer("workers")
            .and_then(|n| NonZeroUsize::new(usize::try_from(n).ok()?))
            .unwrap_or_else(|| table.cx.environment.cores()),
        user,
        shutdown_timeout: table.duration_or("shutdown_timeout", defaults::SHUTDOWN_TIMEOUT),
        trusted_proxies: rules::networks(table, "trusted_proxies"),
        zone: None,
        merge_slashes: table.flag("merge_slashes", true),
    }
}

pub(super) fn admin(table: &Table<'_>) -> Option<Admin> {
    table.require("address");
    let address = table.text("address", text::admin_address);
    let token = table.get("token").and_then(|node| secret(table, node));
    Some(Admin {
        address: match address? {
            AdminText::Tcp(address) => AdminAddress::Tcp(address),
            AdminText::Unix(path) => AdminAddress::Unix(table.cx.sources.resolve(
                table.get("address").map_or(table.place, |n| n.place).file,
                &path,
            )),
        },
        token,
    })
}

/// `{ env = "NAME" }` or `{ file = "PATH" }`. The value itself is never part of a message.
fn secret(parent: &Table<'_>, node: &Node) -> Option<Secret> {
    if !matches!(node.value, Value::Table(_)) {
        parent.cx.error(
            Finding::error(node.place, "a secret does not stand in the configuration itself")
                .label("write { env = \"NAME\" } or { file = \"PATH\" }")
                .help("help: the file is shown, copied and kept in version control; the secret must not be. If this one was in use, choose a new one"),
        );
        return None;
    }
    let table = parent.table("token")?;
    let finding = match (table.get("env"), table.get("file")) {
        (Some(node), None) => return variable(&table, node),
        (None, Some(node)) => return secret_file(&table, node),
        (Some(_), Some(second)) => Finding::error(
            second.place,
            "a secret comes from `env` or from `file`, not from both",
        )
        .label("delete one of them"),
        (None, None) if table.has_unknown() => return None,
        (None, None) => Finding::error(node.place, "this does not say where the secret is")
            .label("write { env = \"NAME\" } or { file = \"PATH\" }"),
    };
    table.cx.error(finding);
    None
}

fn variable(table: &Table<'_>, node: &Node) -> Option<Secret> {
    let name = table.text("env", not_empty)?;
    let Some(value) = table.cx.environment.variable(&name) else {
        table.cx.error(
            Finding::error(
                node.place,
                format!("the environment variable {name} is not set"),
            )
            .label("set it before the start, or use { file = \"PATH\" }")
            .help("help: `sudo` and service managers pass no variables on unless told to"),
        );
        return None;
    };
    checked(
        table,
        node,
        &value,
        &format!("the environment variable {name}"),
    )
}

fn secret_file(table: &Table<'_>, node: &Node) -> Option<Secret> {
    let path = table.path("file")?;
    match table.cx.environment.read(&path) {
        Ok(bytes) => {
            let value = String::from_utf8_lossy(&bytes);
            let value = value.strip_suffix('\n').unwrap_or(&value);
            let value = value.strip_suffix('\r').unwrap_or(value);
            checked(table, node, value, &format!("the file {}", path.display()))
        }
        Err(error) => {
            table
                .cx
                .error(rules::unreadable(node.place, &path, &reason(&error)));
            None
        }
    }
}

/// A bearer token is one word of visible ASCII characters (RFC 6750 section 2.1).
fn checked(table: &Table<'_>, node: &Node, value: &str, from: &str) -> Option<Secret> {
    let what = if value.is_empty() {
        format!("{from} is empty")
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        format!("{from} holds spaces, line breaks or characters that cannot stand in a token")
    } else {
        return Some(Secret::new(value.to_owned()));
    };
    table.cx.error(
        Finding::error(node.place, what).label("it must hold one word of letters and digits"),
    );
    None
}

pub(super) fn log(table: &Table<'_>) -> Log {
    const LEVELS: [LogLevel; 5] = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    Log {
        level: table.choice("level", &LEVELS, LogLevel::Info),
        format: table.choice(
            "format",
            &[LogFormat::Text, LogFormat::Json],
            LogFormat::Text,
        ),
        access: table.table("access").and_then(|table| access(&table)),
    }
}

fn access(table: &Table<'_>) -> Option<AccessLog> {
    let format = table.choice(
        "format",
        &[AccessFormat::Json, AccessFormat::Combined],
        AccessFormat::Json,
    );
    let node = table.require("path")?;
    if matches!(&node.value, Value::Text(text) if text == "-") {
        return Some(AccessLog {
            path: PathBuf::from("-"),
            format,
        });
    }
    let path = table.path("path")?;
    log_place(table, node, &path);
    Some(AccessLog { path, format })
}

/// The file need not exist yet, its directory must.
fn log_place(table: &Table<'_>, node: &Node, path: &std::path::Path) {
    let environment = table.cx.environment;
    if let Ok(FileKind::Directory) = environment.kind(path) {
        table.cx.error(
            Finding::error(node.place, format!("{} is a directory", path.display()))
                .label("add the name of a file in it"),
        );
        return;
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => std::path::Path::new("."),
    };
    if !matches!(environment.kind(directory), Ok(FileKind::Directory)) {
        table.cx.error(
            Finding::error(
                node.place,
                format!("the directory {} is not there", directory.display()),
            )
            .label("create it first, writable for the user that runs tidegate"),
        );
    }
}

/// `[limits]`, or those of a listener, where `outer` holds for what they leave out.
pub(super) fn limits(table: &Table<'_>, outer: Option<&Limits>) -> Limits {
    let standard = Limits {
        header_timeout: defaults::HEADER_TIMEOUT,
        body_timeout: defaults::BODY_TIMEOUT,
        idle_timeout: defaults::IDLE_TIMEOUT,
        max_header_size: defaults::MAX_HEADER_SIZE,
        max_body_size: defaults::MAX_BODY_SIZE,
        max_connections: defaults::MAX_CONNECTIONS,
        max_connections_per_ip: defaults::MAX_CONNECTIONS_PER_IP,
        max_requests_per_connection: rules::count(defaults::MAX_REQUESTS_PER_CONNECTION),
        max_concurrent_streams: rules::count(defaults::MAX_CONCURRENT_STREAMS),
    };
    let outer = outer.unwrap_or(&standard);
    Limits {
        header_timeout: table.duration_or("header_timeout", outer.header_timeout),
        body_timeout: table.duration_or("body_timeout", outer.body_timeout),
        idle_timeout: table.duration_or("idle_timeout", outer.idle_timeout),
        max_header_size: table
            .size("max_header_size")
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(outer.max_header_size),
        max_body_size: table.size_or("max_body_size", outer.max_body_size),
        max_connections: table.integer_or("max_connections", outer.max_connections),
        max_connections_per_ip: table
            .integer_or("max_connections_per_ip", outer.max_connections_per_ip),
        max_requests_per_connection: table.count_or(
            "max_requests_per_connection",
            outer.max_requests_per_connection.get(),
        ),
        max_concurrent_streams: table
            .count_or("max_concurrent_streams", outer.max_concurrent_streams.get()),
    }
}
