//! Certificates, for operators: what is in use, how long it lasts, and how the next one comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::acme::{Managed, Orders};
use crate::admin::OrderAsked;
use crate::listen::{Certificates, Leaf};
use crate::observe::metrics::CertificateState;
use crate::snapshot::Snapshot;

/// One entry for each certificate: those from files first.
pub(crate) fn overview(
    certificates: Option<&Certificates>,
    obtained: &[Arc<Managed>],
    now: SystemTime,
) -> Value {
    let files = certificates.into_iter().flat_map(Certificates::files);
    let files = files.map(|(pair, leaf)| {
        let mut entry = life(Some(leaf), now);
        entry["source"] = json!("file");
        entry["names"] = json!(leaf.names);
        entry["file"] = json!(pair.cert.to_string_lossy());
        entry
    });
    let managed = obtained.iter().map(|one| managed(one, now));
    files.chain(managed).collect()
}

fn managed(one: &Managed, now: SystemTime) -> Value {
    let current = one.current();
    let progress = one.progress();
    let mut entry = life(current.as_ref().map(|live| &live.leaf), now);
    entry["source"] = json!("acme");
    entry["names"] = json!(one.settings().hosts);
    entry["directory"] = json!(one.directory());
    entry["next_order_seconds"] = json!(progress.next.map(seconds));
    entry["next_order"] = json!(progress.next.map(date));
    entry["next_order_by"] = json!(match (&current, progress.failures, progress.is_by_window) {
        (_, 1.., _) => "failure",
        (None, ..) => "missing",
        (_, _, true) => "authority",
        (_, _, false) => "lifetime",
    });
    entry["orders"] = json!(progress.orders);
    entry["ordering"] = json!(progress.is_ordering);
    entry["failures"] = json!(progress.failures);
    entry["error"] = json!(progress.error);
    entry
}

fn life(leaf: Option<&Leaf>, now: SystemTime) -> Value {
    json!({
        "not_after_seconds": leaf.map(|leaf| seconds(leaf.not_after)),
        "not_after": leaf.map(|leaf| date(leaf.not_after)),
        "days_left": leaf.map(|leaf| days(leaf.not_after, now).floor()),
    })
}

/// Orders what is asked for, and says what that is.
pub(super) fn order(
    snapshot: &Snapshot,
    asked: &OrderAsked,
    now: SystemTime,
) -> Result<Value, String> {
    if snapshot.managed.is_empty() {
        return Err(
            "no certificate is obtained by itself here: add acme to [tls] of the configuration"
                .into(),
        );
    }
    let is_named = |one: &&Arc<Managed>| match &asked.name {
        None => true,
        Some(name) => one.settings().hosts.contains(name),
    };
    let named: Vec<_> = snapshot.managed.iter().filter(is_named).collect();
    if named.is_empty() {
        let there: Vec<&str> = snapshot
            .managed
            .iter()
            .flat_map(|one| &one.settings().hosts)
            .map(String::as_str)
            .collect();
        return Err(format!(
            "no certificate that is obtained by itself has the name {:?}; there are {}",
            asked.name.as_deref().unwrap_or_default(),
            there.join(", ")
        ));
    }
    let is_wanted = |one: &&Arc<Managed>| {
        let is_good = one.current().is_some_and(|live| live.leaf.not_after > now);
        !(asked.missing && is_good)
    };
    let wanted = named.into_iter().filter(is_wanted);
    Ok(wanted
        .map(|one| {
            let before = managed(one, now);
            one.order_now();
            before
        })
        .collect())
}

/// For the metrics.
pub(super) fn state(snapshot: &Snapshot, orders: &Orders) -> CertificateState {
    let mut not_after: BTreeMap<(String, &'static str), SystemTime> = BTreeMap::new();
    let mut add = |name: &str, source, leaf: &Leaf| {
        // Where two have a name, the one that ends first is what is to be looked at.
        let known = not_after.entry((name.to_owned(), source));
        let known = known.or_insert(leaf.not_after);
        *known = leaf.not_after.min(*known);
    };
    for (_, leaf) in snapshot.certificates.iter().flat_map(|all| all.files()) {
        for name in &leaf.names {
            add(name, "file", leaf);
        }
    }
    for one in &snapshot.managed {
        if let Some(live) = one.current() {
            for name in &one.settings().hosts {
                add(name, "acme", &live.leaf);
            }
        }
    }
    let managed = snapshot.managed.iter().map(|one| {
        let progress = one.progress();
        let name = one.settings().hosts.first().cloned();
        let next = progress.next.map(seconds);
        (name.unwrap_or_default(), progress.failures, next)
    });
    CertificateState {
        lives: not_after
            .into_iter()
            .map(|((name, source), at)| (name, source, seconds(at)))
            .collect(),
        managed: managed.collect(),
        orders: match snapshot.managed.is_empty() {
            true => Vec::new(),
            false => orders
                .ended()
                .map(|(outcome, count)| (outcome.as_str(), count))
                .collect(),
        },
    }
}

/// As HTTP writes it (RFC 9110 section 5.6.7). It has no words for years without four digits, and
/// what an authority says is anything.
fn date(at: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(at.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Below zero where it is over.
fn days(until: SystemTime, now: SystemTime) -> f64 {
    const DAY: f64 = 86_400.0;
    match until.duration_since(now) {
        Ok(left) => left.as_secs_f64() / DAY,
        Err(over) => -over.duration().as_secs_f64() / DAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_written() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(date(far), "Fri, 31 Dec 9999 23:59:59 GMT");
        let early = UNIX_EPOCH - Duration::from_secs(1 << 36);
        assert_eq!(date(early), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(seconds(early), 0);
        assert!((days(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(43_200)) + 0.5).abs() < 1e-9);
    }
}
