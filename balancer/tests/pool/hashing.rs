//! Where keys go: evenly, by weight, and as seldom elsewhere as possible.

use balancer::{EndpointSettings, PickContext, Pool, hash_key};

use crate::support::{Bench, RENDEZVOUS, assert_shares, endpoint, settings, start, weighted};

const KEYS: u32 = 50_000;

/// The address that each of many keys goes to.
fn homes(pool: &Pool) -> Vec<String> {
    let now = start();
    let home = |key: u32| {
        let context = PickContext {
            hash: Some(hash_key(&key.to_be_bytes())),
            tried: &[],
            ..PickContext::default()
        };
        pool.endpoint(pool.pick(&context, now, 0).expect("somebody is in service"))
            .id()
            .to_owned()
    };
    (0..KEYS).map(home).collect()
}

fn homes_among(endpoints: Vec<EndpointSettings>) -> Vec<String> {
    homes(&Bench::new(settings(endpoints, RENDEZVOUS)).pool)
}

fn tally(homes: &[String], endpoints: &[EndpointSettings]) -> Vec<usize> {
    endpoints
        .iter()
        .map(|endpoint| homes.iter().filter(|home| **home == endpoint.id).count())
        .collect()
}

#[test]
fn a_key_stays_with_its_endpoint_whatever_the_random_bits() {
    let mut bench = Bench::new(settings(weighted(&[1; 7]), RENDEZVOUS));
    let context = PickContext {
        hash: Some(hash_key(b"sid=1")),
        tried: &[],
        ..PickContext::default()
    };
    let home = bench.pick_with(&context);
    assert!((0..100).all(|_| bench.pick_with(&context) == home));
}

#[test]
fn keys_spread_evenly_over_few_and_over_many() {
    assert_shares(
        &tally(&homes_among(weighted(&[1; 3])), &weighted(&[1; 3])),
        &[1; 3],
        0.03,
    );
    assert_shares(
        &tally(&homes_among(weighted(&[1; 100])), &weighted(&[1; 100])),
        &[1; 100],
        0.25,
    );
}

#[test]
fn keys_spread_by_weight() {
    let endpoints = weighted(&[5, 3, 2]);
    assert_shares(
        &tally(&homes_among(endpoints.clone()), &endpoints),
        &[5, 3, 2],
        0.04,
    );
}

#[test]
fn small_numbers_serve_as_keys_too() {
    let mut bench = Bench::new(settings(weighted(&[1; 4]), RENDEZVOUS));
    let mut tally = [0; 4];
    for hash in 0..10_000 {
        tally[bench
            .pick_with(&PickContext {
                hash: Some(hash),
                tried: &[],
                ..PickContext::default()
            })
            .expect("all are in service")] += 1;
    }
    assert_shares(&tally, &[1; 4], 0.08);
}

#[test]
fn only_the_keys_of_an_endpoint_that_leaves_move_and_they_spread() {
    let all = weighted(&[1, 2, 1, 3, 1, 1, 1]);
    let mut left = all.clone();
    let gone = left.remove(3);
    let (before, after) = (homes_among(all), homes_among(left.clone()));
    let mut moved = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        if before == after {
            continue;
        }
        assert_eq!(*before, gone.id, "a key moved whose endpoint stayed");
        moved.push(after.clone());
    }
    assert!(
        moved.len() > KEYS as usize / 5,
        "it had three tenths of the keys"
    );
    assert_shares(&tally(&moved, &left), &[1, 2, 1, 1, 1, 1], 0.10);
}

#[test]
fn a_new_endpoint_takes_its_share_and_nothing_moves_between_the_others() {
    let before = weighted(&[1; 9]);
    let mut after = before.clone();
    after.insert(4, endpoint(500, 1));
    let moved = |(before, after): (&String, &String)| (before != after).then(|| after.clone());
    let moved: Vec<_> = homes_among(before)
        .iter()
        .zip(&homes_among(after))
        .filter_map(moved)
        .collect();
    assert!(moved.iter().all(|home| *home == endpoint(500, 1).id));
    assert_shares(&[moved.len(), KEYS as usize - moved.len()], &[1, 9], 0.08);
}

#[test]
fn a_greater_weight_only_attracts_keys() {
    let heavier = weighted(&[1, 2, 1, 1]);
    let before = homes_among(weighted(&[1; 4]));
    let after = homes_among(heavier.clone());
    let moved: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .collect();
    assert!(moved.iter().all(|(_, after)| **after == heavier[1].id));
    assert!(!moved.is_empty());
}

#[test]
fn a_dead_endpoint_moves_the_keys_that_its_removal_would_move() {
    let all = weighted(&[1, 4, 2, 1, 1]);
    let mut left = all.clone();
    left.remove(1);
    let bench = Bench::new(settings(all.clone(), RENDEZVOUS));
    bench.take_out(1);
    assert_eq!(homes(&bench.pool), homes_among(left));
    bench.pool.probed(bench.index(1), true, bench.now);
    assert_eq!(
        homes(&bench.pool),
        homes_among(all),
        "when it comes back, so do its keys"
    );
}

#[test]
fn neither_the_order_nor_the_names_in_the_file_matter() {
    let endpoints = weighted(&[1, 2, 3, 4]);
    let mut shuffled = endpoints.clone();
    shuffled.reverse();
    shuffled
        .iter_mut()
        .for_each(|endpoint| endpoint.name.push_str(".example"));
    assert_eq!(homes_among(endpoints), homes_among(shuffled));
}

#[test]
fn keys_are_where_they_were_in_earlier_versions() {
    // If this fails, an update of this program moves users to other endpoints while instances
    // differ.
    let mut bench = Bench::new(settings(weighted(&[1, 1, 2, 1, 3]), RENDEZVOUS));
    let mut home = |key: &[u8]| {
        bench.pick_with(&PickContext {
            hash: Some(hash_key(key)),
            tried: &[],
            ..PickContext::default()
        })
    };
    let keys = [
        "10.1.2.3",
        "10.1.2.4",
        "sid=a",
        "sid=b",
        "sid=c",
        "/index.html",
        "",
        "x",
    ];
    let homes: Vec<_> = keys
        .iter()
        .map(|key| home(key.as_bytes()).expect("all are in service"))
        .collect();
    assert_eq!(
        homes,
        [2, 3, 0, 3, 4, 3, 4, 3],
        "as reckoned by a program of its own from the module's description"
    );
}
