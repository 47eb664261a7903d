//! The sections of the file, each read into its part of [`Config`].
//!
//! Named things (upstreams, directories, filters) are read before the routes
//! that name them; findings are sorted by place afterwards.

mod acme;
mod cache;
mod checks;
mod entry;
mod filter;
mod forward;
mod images;
mod listener;
mod names;
mod overload;
mod pages;
mod process;
mod route;
mod rules;
mod secret;
mod shop;
mod template;
mod tls;
mod upstream;

use crate::config::{Config, ErrorPagesId, TlsOptions};
use crate::courtesy::give_way;
use crate::keys;
use crate::read::Table;
use crate::shadow;

use names::Names;
pub(crate) use upstream::placed;

/// Reads the merged files. `None`: something is wrong, and was reported.
pub(crate) fn read(root: &Table<'_>) -> Option<Config> {
    let cx = root.cx;
    for item in root
        .entries_of("include")
        .flat_map(|_| root.list("include"))
        .flatten()
    {
        cx.parsed(item, "include", &keys::FILE_PATTERN, crate::read::not_empty);
    }
    let server_table = entry::single(root, "server", &keys::SERVER);
    let mut server = process::server(&server_table);
    let zoned = server_table.get("zone").is_some();
    let admin = root
        .entry("admin")
        .map(|_| process::admin(&entry::single(root, "admin", &keys::ADMIN)));
    let log = process::log(&entry::single(root, "log", &keys::LOG));
    let limits = process::limits(&entry::single(root, "limits", &keys::LIMITS), None);
    let (tls, tls_options) = match root.entry("tls") {
        Some(_) => {
            let (tls, options) = listener::tls(&entry::single(root, "tls", &keys::TLS));
            (Some(tls), options)
        }
        None => (None, TlsOptions::default()),
    };
    let listener_tables = entry::list(root, "listener", &keys::LISTENER);
    let (listener_names, mut listeners) =
        listener::listeners(root, &listener_tables, &limits, &tls_options);
    let overload = overload::overload(&entry::single(root, "overload", &keys::OVERLOAD));
    let (upstream_names, upstreams) =
        entry::named(root, "upstream", &keys::UPSTREAM, |table, name| {
            upstream::upstream(table, name, zoned)
        });
    let (static_names, statics) = entry::named(root, "static", &keys::STATIC, shop::site);
    let (filter_names, filters) = entry::named(root, "filter", &keys::FILTER, filter::filter);
    let (page_names, error_pages) =
        entry::named(root, "error_pages", &keys::ERROR_PAGES, pages::error_pages);
    let cache = cache::store(&entry::single(root, "cache", &keys::CACHE));
    let names = Names::new(
        listener_names,
        upstream_names,
        static_names,
        filter_names,
        page_names,
    );
    server.error_pages = server_table
        .get("error_pages")
        .and_then(|node| names.error_pages.find(cx, node))
        .map(ErrorPagesId);
    forward::forwards(&listener_tables, &mut listeners, &names, &upstreams);
    let routes = route::routes(root, &names, &upstreams, &cache, &server);

    give_way();
    checks::sections(root, &listeners, admin.as_ref(), &routes);
    acme::answered(root, tls.as_ref(), &listeners);
    checks::access_log(root, &log);
    checks::zone(root, server.zone.as_deref(), &upstreams);
    names.warn_of_unused(cx);
    give_way();
    shadow::warn(cx, &routes);

    Some(Config {
        server,
        admin: admin.flatten(),
        log,
        overload,
        listeners: whole(listeners.into_iter().map(|(_, listener)| listener))?,
        tls,
        upstreams: whole(upstreams)?,
        statics: whole(statics)?,
        error_pages: whole(error_pages)?,
        cache,
        filters: whole(filters)?,
        routes: whole(routes.into_iter().map(|(_, route)| route))?,
        warnings: Vec::new(),
        hash: 0,
    })
}

/// All or nothing; what is missing was reported where it was read.
fn whole<T>(parts: impl IntoIterator<Item = Option<T>>) -> Option<Vec<T>> {
    parts.into_iter().collect()
}
