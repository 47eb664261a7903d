//! Routes that can never match because another always wins.
//!
//! Only what is certain is told. A route loses against another for each host,
//! method and listener that it names when that other takes at least the same requests there
//! and comes before it in the order of precedence: same host pattern, and
//! either the same path and conditions and an earlier place in the file, or a
//! catch-all prefix (`/`), which beats every regular expression.

use crate::config::{FieldMatch, Match, PathPattern, Route, ValueMatch};
use crate::read::{Cx, Finding};
use crate::source::Place;

/// Warns of every route that is shadowed.
pub(crate) fn warn(cx: &Cx<'_>, routes: &[(Place, Option<Route>)]) {
    let known: Vec<(Place, &Route)> = routes
        .iter()
        .filter_map(|(place, route)| Some((*place, route.as_ref()?)))
        .collect();
    for (index, (place, route)) in known.iter().enumerate() {
        if let Some(winner) = shadowed_by(index, &known) {
            let (first, other) = known[winner];
            cx.findings.add(
                Finding::warning(
                    *place,
                    format!(
                        "the route \"{}\" can never match: \"{}\" takes all its requests",
                        route.name, other.name
                    ),
                )
                .label("narrow the other one, or delete this one")
                .also("the other one is at", first),
            );
        }
    }
}

/// A route that wins wherever the one at `index` could match; several may share the work.
fn shadowed_by(index: usize, routes: &[(Place, &Route)]) -> Option<usize> {
    let loser = &routes[index].1.matcher;
    let mut last = None;
    for host in each(&loser.hosts) {
        for method in each(&loser.methods) {
            for listener in each(&loser.listeners) {
                let winner = routes.iter().enumerate().position(|(other, (_, route))| {
                    let winner = &route.matcher;
                    let narrow = Narrow {
                        same_host: names(&winner.hosts, host),
                        same_method: names(&winner.methods, method),
                        same_listener: names(&winner.listeners, listener),
                    };
                    other != index && wins(winner, loser, other < index, narrow)
                });
                last = Some(winner?);
            }
        }
    }
    last
}

/// How a winner's alternatives compare with one choice of the loser's.
#[derive(Clone, Copy)]
struct Narrow {
    same_host: bool,
    same_method: bool,
    same_listener: bool,
}

/// Each alternative; `None` alone where everything is taken.
fn each<T>(alternatives: &[T]) -> Vec<Option<&T>> {
    match alternatives {
        [] => vec![None],
        some => some.iter().map(Some).collect(),
    }
}

/// Whether these alternatives take exactly that choice.
fn names<T: PartialEq>(alternatives: &[T], choice: Option<&T>) -> bool {
    match choice {
        None => alternatives.is_empty(),
        Some(choice) => alternatives.contains(choice),
    }
}

fn wins(winner: &Match, loser: &Match, earlier: bool, narrow: Narrow) -> bool {
    if !narrow.same_host {
        return false;
    }
    let root = |path: &PathPattern| matches!(path, PathPattern::Prefix(p) if p == "/");
    let same_path = match (&winner.path, &loser.path) {
        (PathPattern::Exact(a), PathPattern::Exact(b))
        | (PathPattern::Prefix(a), PathPattern::Prefix(b)) => a == b,
        (PathPattern::Regex(a), PathPattern::Regex(b)) => a.as_str() == b.as_str(),
        (PathPattern::Any, PathPattern::Any) => true,
        // A prefix is never less than no path at all.
        (prefix, PathPattern::Any) => root(prefix),
        _ => false,
    };
    if same_path {
        return earlier
            && narrow.same_method
            && narrow.same_listener
            && same_fields(&winner.headers, &loser.headers)
            && same_fields(&winner.query, &loser.query);
    }
    root(&winner.path)
        && matches!(loser.path, PathPattern::Regex(_))
        && (winner.methods.is_empty() || narrow.same_method)
        && (winner.listeners.is_empty() || narrow.same_listener)
        && winner.headers.is_empty()
        && winner.query.is_empty()
}

fn same_fields<N: PartialEq>(a: &[FieldMatch<N>], b: &[FieldMatch<N>]) -> bool {
    let in_b = |field: &FieldMatch<N>| {
        b.iter()
            .any(|other| other.name == field.name && same_value(&other.value, &field.value))
    };
    a.len() == b.len() && a.iter().all(in_b)
}

fn same_value(a: &ValueMatch, b: &ValueMatch) -> bool {
    match (a, b) {
        (ValueMatch::Present, ValueMatch::Present) | (ValueMatch::Absent, ValueMatch::Absent) => {
            true
        }
        (ValueMatch::Exact(a), ValueMatch::Exact(b)) => a == b,
        (ValueMatch::Regex(a), ValueMatch::Regex(b)) => a.as_str() == b.as_str(),
        _ => false,
    }
}
