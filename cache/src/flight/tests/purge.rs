//! Purges while objects are on their way.

use super::*;

#[tokio::test]
async fn what_is_on_its_way_when_its_url_is_purged_is_not_stored() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    let reader = follow(&flights, "/");
    writer.head(head(&[]), Arc::default());
    writer.push(Bytes::from("old")).await.unwrap();
    assert_eq!(flights.purge(&store, key("/").as_key(), Mode::Hard), 0);
    let fresh = lead(&flights, "/");
    assert!(writer.finish(&store).unwrap().is_none());
    assert_eq!(
        read_all(reader).await.unwrap(),
        b"old",
        "who read it reads it to its end"
    );
    assert!(!is_stored(&store, "/"));
    assert!(
        matches!(join(&flights, "/", b""), Join::Follow(_)),
        "the new fetch is untouched"
    );
    drop(fresh);
}

#[tokio::test]
async fn a_purge_of_everything_reaches_what_is_on_its_way() {
    let store = Store::new(1 << 20);
    let flights = Flights::new(Limits::default(), store.tags().clone());
    store.insert(
        key("/a").as_key(),
        Arc::new(Stored::new(
            head(&[]),
            Vec::new(),
            store.life(key("/a").as_key(), &[], 0, false),
        )),
    );
    let mut writer = lead(&flights, "/b");
    let life = store.life(key("/b").as_key(), &[], writer.since(), false);
    writer.head(head(&[]), life);
    assert_eq!(flights.purge_tag(&store, tags::ALL, Mode::Hard), 2);
    assert!(
        matches!(join(&flights, "/b", b""), Join::Lead(_)),
        "nobody new joins what may be older than the purge"
    );
    assert!(writer.finish(&store).unwrap().is_none());
    assert!(!is_stored(&store, "/a") && !is_stored(&store, "/b"));
}

#[tokio::test]
async fn what_is_on_its_way_when_its_tag_is_purged_is_judged_by_its_tags() {
    let store = Store::new(1 << 20);
    let flights = Flights::new(Limits::default(), store.tags().clone());
    let mut fetches: Vec<Writer> = ["/hard", "/soft", "/none"]
        .iter()
        .map(|path| lead(&flights, path))
        .collect();
    flights.purge_tag(&store, b"t-/hard", Mode::Hard);
    flights.purge_tag(&store, b"t-/soft", Mode::Soft(at(5)));
    store.sweep(flights.oldest());
    for (path, mut writer) in ["/hard", "/soft", "/none"]
        .into_iter()
        .zip(fetches.drain(..))
    {
        let tag: Box<[u8]> = format!("t-{path}").into_bytes().into();
        let life = store.life(key(path).as_key(), &[tag], writer.since(), false);
        writer.head(head(&["cache-control: max-age=60"]), life);
        writer.finish(&store).unwrap();
    }
    assert!(!is_stored(&store, "/hard"));
    for (path, fresh) in [("/soft", false), ("/none", true)] {
        let Lookup::Found(stored) = store.lookup(key(path).as_key(), &fields(&[]), &[]) else {
            panic!("{path} is not stored");
        };
        assert_eq!(stored.freshness().is_fresh(at(6)), fresh, "{path}");
    }
}

#[tokio::test]
async fn a_soft_purge_of_a_url_makes_what_is_on_its_way_stale() {
    let store = Store::new(1 << 20);
    let flights = Flights::new(Limits::default(), store.tags().clone());
    let mut writer = lead(&flights, "/");
    writer.head(
        head(&["cache-control: max-age=60"]),
        store.life(key("/").as_key(), &[], writer.since(), false),
    );
    flights.purge(&store, key("/").as_key(), Mode::Soft(at(5)));
    let stored = writer.finish(&store).unwrap().expect("it is kept");
    assert!(!stored.freshness().is_fresh(at(6)));
}
