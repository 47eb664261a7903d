//! `[server]`, `[admin]`, `[log]` and `[limits]`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use crate::config::{
    AccessFormat, AccessLog, Admin, AdminAddress, Limits, Log, LogFormat, LogLevel, Server,
};
use crate::defaults;
use crate::environment::FileKind;
use crate::raw::{Node, Value};
use crate::read::{Finding, Table, not_empty};
use crate::text::{self, AdminText};

use super::{overload, pages, rules, secret};

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
        upgrade_timeout: table.duration_or("upgrade_timeout", defaults::UPGRADE_TIMEOUT),
        trusted_proxies: rules::networks(table, "trusted_proxies"),
        zone: table.text("zone", text::name),
        merge_slashes: table.flag("merge_slashes", true),
        // In the order of the key's choices.
        lane: table.choice("lane", &[true, false], true),
        // Once it is known which there are.
        error_pages: None,
        maintenance: table
            .table("maintenance")
            .and_then(|inner| pages::maintenance(&inner)),
    }
}

pub(super) fn admin(table: &Table<'_>) -> Option<Admin> {
    table.require("address");
    let address = table.text("address", text::admin_address);
    let token = secret::secret(table, "token", 1);
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
        request_timeout: defaults::REQUEST_TIMEOUT,
        min_rate: NonZeroU64::new(defaults::MIN_RATE),
        min_rate_grace: defaults::MIN_RATE_GRACE,
        idle_timeout: defaults::IDLE_TIMEOUT,
        max_header_size: defaults::MAX_HEADER_SIZE,
        max_headers: defaults::MAX_HEADERS,
        max_body_size: defaults::MAX_BODY_SIZE,
        max_connections: defaults::MAX_CONNECTIONS,
        max_connections_per_ip: defaults::MAX_CONNECTIONS_PER_IP,
        max_connection_rate_per_ip: NonZeroU64::new(defaults::MAX_CONNECTION_RATE_PER_IP),
        max_handshake_rate_per_ip: NonZeroU64::new(defaults::MAX_HANDSHAKE_RATE_PER_IP),
        max_requests_per_connection: rules::count(defaults::MAX_REQUESTS_PER_CONNECTION),
        max_concurrent_streams: rules::count(defaults::MAX_CONCURRENT_STREAMS),
        max_control_frame_rate: NonZeroU64::new(defaults::MAX_CONTROL_FRAME_RATE),
    };
    let outer = outer.unwrap_or(&standard);
    Limits {
        header_timeout: table.duration_or("header_timeout", outer.header_timeout),
        body_timeout: table.duration_or("body_timeout", outer.body_timeout),
        request_timeout: table.duration_or("request_timeout", outer.request_timeout),
        min_rate: rate(table, "min_rate", text::byte_rate, outer.min_rate),
        min_rate_grace: table.duration_or("min_rate_grace", outer.min_rate_grace),
        idle_timeout: table.duration_or("idle_timeout", outer.idle_timeout),
        max_header_size: table
            .size("max_header_size")
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(outer.max_header_size),
        max_headers: table.integer_or("max_headers", outer.max_headers),
        max_body_size: table.size_or("max_body_size", outer.max_body_size),
        max_connections: table.integer_or("max_connections", outer.max_connections),
        max_connections_per_ip: table
            .integer_or("max_connections_per_ip", outer.max_connections_per_ip),
        max_connection_rate_per_ip: rate(
            table,
            "max_connection_rate_per_ip",
            text::rate,
            outer.max_connection_rate_per_ip,
        ),
        max_handshake_rate_per_ip: rate(
            table,
            "max_handshake_rate_per_ip",
            text::rate,
            outer.max_handshake_rate_per_ip,
        ),
        max_requests_per_connection: table.count_or(
            "max_requests_per_connection",
            outer.max_requests_per_connection.get(),
        ),
        max_concurrent_streams: table
            .count_or("max_concurrent_streams", outer.max_concurrent_streams.get()),
        max_control_frame_rate: rate(
            table,
            "max_control_frame_rate",
            text::rate,
            outer.max_control_frame_rate,
        ),
    }
}

/// A rate, `false` for none, or what holds without it.
fn rate(
    table: &Table<'_>,
    name: &'static str,
    parse: fn(&str) -> Result<NonZeroU64, text::Wrong>,
    outer: Option<NonZeroU64>,
) -> Option<NonZeroU64> {
    match overload::is_off(table, name) {
        true => None,
        false => table.text(name, parse).or(outer),
    }
}
