//! Whatever is kept: what is found is what the store has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

/// What `key` is, near or far; `far` is asked where it is not at hand.
fn get(near: &Near<Arc<u32>>, key: &[u8], far: &dyn Fn() -> Option<u32>) -> (Option<u32>, bool) {
    match near.look(key, |_| true) {
        Look::Here(value) => (Some(*value), true),
        Look::Ask(mark) => {
            let found = far();
            if let Some(value) = found {
                near.keep(key, mark, || Some(Arc::new(value)));
            }
            (found, false)
        }
    }
}

/// Asks until it is at hand.
fn warm(near: &Near<Arc<u32>>, key: &[u8], value: u32) {
    let mut asked = 0;
    while !get(near, key, &|| Some(value)).1 {
        asked += 1;
        assert!(asked < 2 * KEPT + 2, "never kept");
    }
}

#[test]
fn what_is_asked_for_again_is_at_hand_and_the_store_is_asked_now_and_then() {
    let near = Near::default();
    warm(&near, b"a", 1);
    let asked = (0..10 * FAR)
        .filter(|_| !get(&near, b"a", &|| Some(1)).1)
        .count();
    assert_eq!(asked, 10);
}

#[test]
fn a_change_is_seen_at_once_by_every_thread() {
    let near = Arc::new(Near::default());
    warm(&near, b"a", 1);
    let (other, changed) = (Arc::clone(&near), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&changed);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        warm(&other, b"a", 1);
        ready.send(()).expect("somebody waits");
        while !seen.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        get(&other, b"a", &|| Some(2)).0
    });
    is_ready.recv().expect("it is warm");
    near.change(b"a");
    changed.store(true, Ordering::Release);
    assert_eq!(thread.join().expect("it ended"), Some(2));
    assert_eq!(get(&near, b"a", &|| Some(2)).0, Some(2));
}

#[test]
fn what_changes_while_it_is_looked_up_is_not_kept() {
    let near = Near::default();
    for _ in 0..4 * KEPT {
        let Look::Ask(mark) = near.look(b"a", |_| true) else {
            panic!("an old value is at hand");
        };
        // It was read, then it changed, then it is kept.
        near.change(b"a");
        near.keep(b"a", mark, || Some(Arc::new(1)));
    }
}

#[test]
fn what_is_not_to_be_kept_is_asked_for_each_time() {
    let near: Near<Arc<u32>> = Near::default();
    for _ in 0..4 * KEPT {
        let Look::Ask(mark) = near.look(b"a", |_| true) else {
            panic!("it was kept");
        };
        near.keep(b"a", mark, || None);
    }
}

#[test]
fn what_is_used_seldom_is_asked_for_each_time() {
    let near = Near::default();
    warm(&near, b"a", 1);
    for _ in 0..10 {
        for other in 0..SELDOM {
            get(&near, &other.to_le_bytes(), &|| None);
        }
        assert!(!get(&near, b"a", &|| Some(1)).1);
    }
}

/// `count` keys of which no two have the same place: the last one kept would win it.
fn apart(near: &Near<Arc<u32>>, count: usize) -> Vec<[u8; 1]> {
    let mut taken = std::collections::HashSet::new();
    let keys: Vec<_> = (0..=u8::MAX)
        .map(|key| [key])
        .filter(|key| taken.insert(place_of(near.mark(key))))
        .take(count)
        .collect();
    assert_eq!(keys.len(), count);
    keys
}

#[test]
fn what_is_not_kept_takes_nobodys_turn() {
    let near = Near::default();
    let keys = apart(&near, 4);
    let (never, kept) = keys.split_first().expect("four keys");
    for _ in 0..4 * KEPT {
        for key in &keys {
            if let Look::Ask(mark) = near.look(key, |_| true) {
                near.keep(key, mark, || (key != never).then(|| Arc::new(1)));
            }
        }
    }
    for key in kept {
        assert!((0..2).any(|_| matches!(near.look(key, |_| true), Look::Here(_))));
    }
}

#[test]
fn all_may_have_changed() {
    let near = Near::default();
    warm(&near, b"a", 1);
    near.change_all();
    assert_eq!(get(&near, b"a", &|| None), (None, false));
}

#[test]
fn what_is_not_good_any_more_is_asked_for_and_kept_anew() {
    let near = Near::default();
    warm(&near, b"a", 1);
    assert!(matches!(
        near.look(b"a", |value| **value != 1),
        Look::Ask(_)
    ));
    assert!(
        matches!(near.look(b"a", |_| true), Look::Ask(_)),
        "it is let go of"
    );
    warm(&near, b"a", 2);
    assert!(matches!(near.look(b"a", |_| true), Look::Here(value) if *value == 2));
}

#[test]
fn values_are_let_go_of_with_the_table() {
    let value = Arc::new(());
    let near = Near::default();
    for _ in 0..KEPT {
        let Look::Ask(mark) = near.look(b"a", |_| true) else {
            panic!("kept before its turn");
        };
        near.keep(b"a", mark, || Some(Arc::clone(&value)));
    }
    assert_eq!(Arc::strong_count(&value), 2);
    drop(near);
    assert_eq!(Arc::strong_count(&value), 1);
}

proptest! {
    /// Whatever is asked for, put in and taken out, in whatever order: what is found is what the store
    /// has.
    #[test]
    fn it_never_says_anything_else_than_the_store(
        steps in proptest::collection::vec((0_u8..200, any::<Option<Option<u32>>>()), 1..400)
    ) {
        let near = Near::default();
        let mut store: HashMap<u8, u32> = HashMap::new();
        for (key, step) in steps {
            match step {
                Some(Some(value)) => {
                    store.insert(key, value);
                    near.change(&[key]);
                }
                Some(None) => {
                    store.remove(&key);
                    near.change(&[key]);
                }
                None => {
                    let far = store.get(&key).copied();
                    prop_assert_eq!(get(&near, &[key], &|| far).0, far);
                }
            }
        }
    }
}
