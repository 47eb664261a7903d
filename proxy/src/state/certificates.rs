//! Certificates, for operators: what is in use, how long it lasts, and how the next one comes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::acme::{Managed, Orders};
use crate::admin::OrderAsked;
use crate::clock;
use crate::listen::{Certificates, Leaf, Live};
use crate::observe::metrics::{CertificateState, StapleState};
use crate::ocsp::Outcome;
use crate::snapshot::Snapshot;

/// One entry for each certificate: those from files first.
pub(crate) fn overview(
    certificates: Option<&Certificates>,
    obtained: &[Arc<Managed>],
    now: SystemTime,
) -> Value {
    let files = certificates.into_iter().flat_map(Certificates::files);
    let staples = certificates.is_some_and(Certificates::staples);
    let files = files.map(|(pair, live)| {
        let mut entry = life(Some(&live.leaf), now);
        entry["source"] = json!("file");
        entry["names"] = json!(live.leaf.names);
        entry["ocsp"] = staple(live, staples, now);
        entry["file"] = json!(pair.cert.to_string_lossy());
        entry
    });
    let managed = obtained.iter().map(|one| managed(one, staples, now));
    files.chain(managed).collect()
}

fn managed(one: &Managed, staples: bool, now: SystemTime) -> Value {
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
    entry["ocsp"] = json!(current.as_ref().map(|live| staple(live, staples, now)));
    entry
}

/// What is stapled to it, or why nothing is.
fn staple(live: &Live, staples: bool, now: SystemTime) -> Value {
    let shown = live.staple.shown(now);
    let why_not = match (staples, &shown.not, shown.revoked, &shown.error) {
        (false, ..) => Some("[tls] has ocsp_stapling = false".to_owned()),
        (_, Some(not), ..) => Some(not.to_string()),
        (_, _, Some(since), _) => Some(format!("the certificate is REVOKED since {}", date(since))),
        (_, _, _, Some(error)) => Some(error.clone()),
        (true, None, None, None) if shown.response.is_none() => {
            Some("the responder was not asked yet".to_owned())
        }
        _ => None,
    };
    let response = shown.response.filter(|_| staples);
    json!({
        "stapled": response.is_some(),
        "must_staple": live.staple.must_staple,
        "responder": shown.responder,
        "this_update": response.as_ref().map(|one| date(one.this_update)),
        "next_update": response.as_ref().map(|one| date(one.next_update)),
        "next_try": shown.next.filter(|_| staples).map(date),
        "failures": shown.failures,
        "revoked": shown.revoked.is_some(),
        "why_not": why_not,
    })
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
    let certificates = snapshot.certificates.as_ref();
    let staples = certificates.is_some_and(|all| all.staples());
    Ok(wanted
        .map(|one| {
            let before = managed(one, staples, now);
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
    for (_, live) in snapshot.certificates.iter().flat_map(|all| all.files()) {
        for name in &live.leaf.names {
            add(name, "file", &live.leaf);
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
        staples: staples(snapshot, clock::wall()),
        orders: match snapshot.managed.is_empty() {
            true => Vec::new(),
            false => orders
                .ended()
                .map(|(outcome, count)| (outcome.as_str(), count))
                .collect(),
        },
    }
}

/// Those that a responder is asked about.
fn staples(snapshot: &Snapshot, now: SystemTime) -> Vec<StapleState> {
    let Some(all) = snapshot.certificates.as_ref().filter(|all| all.staples()) else {
        return Vec::new();
    };
    let files = all.files().iter().map(|(_, live)| ("file", live.clone()));
    let managed = snapshot.managed.iter();
    let managed = managed.filter_map(|one| Some(("acme", one.current()?)));
    let mut states: BTreeMap<(String, &'static str), StapleState> = BTreeMap::new();
    for (source, live) in files.chain(managed) {
        let shown = live.staple.shown(now);
        if shown.not.is_some() {
            continue;
        }
        let life = shown.response.as_ref();
        let life = life.map(|one| (seconds(one.this_update), seconds(one.next_update)));
        let name = live.name().to_owned();
        let fetches = Outcome::ALL.iter().map(|one| one.as_str()).zip(shown.ended);
        let state = StapleState {
            name: name.clone(),
            source,
            response: life,
            is_revoked: shown.revoked.is_some(),
            fetches: fetches.collect(),
        };
        match states.entry((name, source)) {
            Entry::Vacant(entry) => drop(entry.insert(state)),
            Entry::Occupied(mut entry) => join(entry.get_mut(), &state),
        }
    }
    states.into_values().collect()
}

/// Where two have a name, what is worse is to be looked at.
fn join(known: &mut StapleState, other: &StapleState) {
    known.response = match (known.response, other.response) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.min(other.1))),
        _ => None,
    };
    known.is_revoked |= other.is_revoked;
    let counts = known.fetches.iter_mut().zip(&other.fetches);
    counts.for_each(|((_, known), (_, other))| *known += other);
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
