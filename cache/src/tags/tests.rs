//! The index of tags, against the plainest model too.

use super::*;
use crate::testing::{at, fields};
use proptest::prelude::*;

fn life(tags: &Tags, names: &[&str], since: u64) -> Life {
    tags.bind(names.iter().map(|name| name.as_bytes()), since)
}

#[test]
fn tags_are_split_at_spaces_and_commas_and_counted_once() {
    let reply = fields(&["surrogate-key: b a  a", "cache-tag: c,d, a", "x: no"]);
    let tags = read(&reply, &FIELDS).unwrap();
    let tags: Vec<&[u8]> = tags.iter().map(|tag| &**tag).collect();
    assert_eq!(tags, [&b"a"[..], b"b", b"c", b"d"]);
    assert!(read(&reply, &[]).unwrap().is_empty());
}

#[test]
fn too_many_tags_or_too_long_ones_are_refused() {
    let line = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        fields(&[&format!("xkey: {}", all.join(" "))])
    };
    assert_eq!(read(&line(MAX_TAGS), &FIELDS).unwrap().len(), MAX_TAGS);
    assert!(read(&line(MAX_TAGS + 1), &FIELDS).is_err());
    assert!(read(&line(10_000), &FIELDS).is_err());
    let long = format!("xkey: {}", "x".repeat(MAX_TAG_LENGTH + 1));
    assert!(read(&fields(&[&long]), &FIELDS).is_err());
}

#[test]
fn objects_are_counted_while_they_live() {
    let tags = Tags::new();
    let one = life(&tags, &["a", "b"], 0);
    let two = life(&tags, &["a"], 0);
    assert_eq!((tags.count(b"a"), tags.count(b"b")), (2, 1));
    drop(one);
    assert_eq!((tags.count(b"a"), tags.count(b"b")), (1, 0));
    let (top, total) = tags.top(10);
    assert_eq!((top[0].name.as_str(), top[0].objects, total), ("a", 1, 1));
    drop(two);
    tags.forget_unused(0);
    assert_eq!(tags.top(10).1, 0);
}

#[test]
fn a_hard_purge_takes_what_was_there_and_nothing_that_comes_after() {
    let tags = Tags::new();
    let old = life(&tags, &["a", "b"], tags.latest());
    let other = life(&tags, &["b"], tags.latest());
    assert_eq!(old.state(tags.latest()), State::Live);
    assert_eq!(tags.purge(b"a", Mode::Hard).0, 1);
    assert_eq!(old.state(tags.latest()), State::Gone);
    assert_eq!(other.state(tags.latest()), State::Live);
    let new = life(&tags, &["a"], tags.latest());
    assert_eq!(new.state(tags.latest()), State::Live);
    assert_eq!(tags.count(b"a"), 1, "only what was not purged counts");
    drop(old);
    assert_eq!(tags.count(b"a"), 1);
}

#[test]
fn a_soft_purge_makes_it_stale_from_then_on_until_it_is_fetched_anew() {
    let tags = Tags::new();
    let old = life(&tags, &["a"], tags.latest());
    assert_eq!(tags.purge(b"a", Mode::Soft(at(5))).0, 1);
    assert_eq!(
        tags.purge(b"a", Mode::Soft(at(9))).0,
        1,
        "it is still there"
    );
    let outdated = old.state(tags.latest());
    assert!(matches!(outdated, State::Outdated(_)), "{outdated:?}");
    let new = life(&tags, &["a"], tags.latest());
    assert_eq!(new.state(tags.latest()), State::Live);
    assert_eq!(tags.purge(b"a", Mode::Hard).0, 2);
    assert_eq!(old.state(tags.latest()), State::Gone);
}

#[test]
fn what_was_on_its_way_when_its_tag_was_purged_is_purged_too() {
    let tags = Tags::new();
    let began = tags.latest();
    assert_eq!(tags.purge(b"a", Mode::Hard).0, 0, "nothing has it yet");
    assert_eq!(tags.purge(b"b", Mode::Soft(at(5))).0, 0);
    tags.forget_unused(began);
    let gone = life(&tags, &["a"], began);
    assert_eq!(gone.state(tags.latest()), State::Gone);
    let late = life(&tags, &["b"], began);
    assert_eq!(late.state(tags.latest()), State::Outdated(at(5)));
    let after = life(&tags, &["a", "b"], tags.latest());
    assert_eq!(after.state(tags.latest()), State::Live);
    drop((gone, late, after));
    tags.forget_unused(tags.latest());
    assert!(tags.0.shards.iter().all(|shard| lock(shard).is_empty()));
}

#[test]
fn the_caches_own_tags_are_not_shown() {
    let tags = Tags::new();
    let host = of_host(b"shop.example");
    let object = tags.bind([ALL, host.as_slice(), b"a"], 0);
    assert_eq!(object.tags().collect::<Vec<_>>(), [b"a"]);
    assert_eq!(tags.top(9).1, 1);
    assert_eq!(tags.count(&host), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Bind(Vec<u8>),
    Drop(usize),
    Hard(u8),
    Soft(u8),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0u8..4, 0..4).prop_map(Step::Bind),
        1 => (0usize..8).prop_map(Step::Drop),
        1 => (0u8..4).prop_map(Step::Hard),
        1 => (0u8..4).prop_map(Step::Soft),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    /// Against the plainest model: a list of objects with their tags.
    #[test]
    fn the_index_is_exact(steps in prop::collection::vec(step(), 0..60)) {
        let tags = Tags::new();
        let mut objects: Vec<(Vec<u8>, bool, bool, Life)> = Vec::new();
        for step in steps {
            match step {
                Step::Bind(mut names) => {
                    names.sort_unstable();
                    names.dedup();
                    let all: Vec<[u8; 1]> = names.iter().map(|name| [*name + b'a']).collect();
                    let life = tags.bind(all.iter().map(<[u8; 1]>::as_slice), tags.latest());
                    objects.push((names, false, false, life));
                }
                Step::Drop(at) if at < objects.len() => drop(objects.remove(at)),
                Step::Drop(_) => {}
                Step::Hard(name) => {
                    let with = objects.iter().filter(|one| one.0.contains(&name) && !one.1);
                    let expected = with.count() as u64;
                    prop_assert_eq!(tags.purge(&[name + b'a'], Mode::Hard).0, expected);
                    for one in objects.iter_mut().filter(|one| one.0.contains(&name)) {
                        one.1 = true;
                    }
                }
                Step::Soft(name) => {
                    tags.purge(&[name + b'a'], Mode::Soft(at(1)));
                    for one in objects.iter_mut().filter(|one| one.0.contains(&name)) {
                        one.2 = true;
                    }
                }
                Step::Forget => tags.forget_unused(tags.latest()),
            }
            for (_, gone, soft, life) in &objects {
                let expected = match (gone, soft) {
                    (true, _) => State::Gone,
                    (false, true) => State::Outdated(at(1)),
                    (false, false) => State::Live,
                };
                prop_assert_eq!(life.state(tags.latest()), expected);
            }
        }
    }
}
