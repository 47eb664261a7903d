//! Flights under concurrency, on a runtime of several threads.

mod purge;
mod unread;

use bytes::Bytes;

use super::object::{PIECE, compact};
use super::*;
use crate::head::Head;
use crate::store::Lookup;
use crate::testing::{at, fields, head_for, head_of, secs};

const LARGE: u64 = 1 << 20;

fn key(path: &str) -> Key {
    Key::new("https", "shop.example", path, None)
}

fn head(lines: &[&str]) -> Arc<Head> {
    Arc::new(head_of(200, lines))
}

fn join(flights: &Flights, path: &str, hint: &[u8]) -> Join {
    flights.join(key(path).as_key(), hint, LARGE, at(0), || None)
}

fn lead(flights: &Flights, path: &str) -> Writer {
    match join(flights, path, b"") {
        Join::Lead(writer) => writer,
        other => panic!("{other:?}"),
    }
}

fn follow(flights: &Flights, path: &str) -> Reader {
    match join(flights, path, b"") {
        Join::Follow(reader) => reader,
        other => panic!("{other:?}"),
    }
}

async fn read_all(mut reader: Reader) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(piece) = reader.next().await {
        body.extend_from_slice(&piece?);
    }
    Ok(body)
}

fn is_stored(store: &Store, path: &str) -> bool {
    matches!(
        store.lookup(key(path).as_key(), &fields(&[]), &[]),
        Lookup::Found(_)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_followers_read_the_same_bytes_from_one_fetch() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Arc::new(Store::new(1 << 24)),
    );
    let mut writer = lead(&flights, "/");
    let mut tasks = Vec::new();
    for _ in 0..200 {
        let mut reader = follow(&flights, "/");
        tasks.push(tokio::spawn(async move {
            let head = reader.head().await.unwrap();
            assert_eq!(head.status().as_u16(), 200);
            read_all(reader).await.unwrap()
        }));
    }
    writer.head(head(&[]), Arc::default());
    let mut expected = Vec::new();
    for number in 0..500u32 {
        let piece = number.to_le_bytes().repeat(37);
        expected.extend_from_slice(&piece);
        assert_eq!(writer.push(Bytes::from(piece)).await, Ok(Growth::Kept));
        if number % 50 == 0 {
            tokio::task::yield_now().await;
            let reader = follow(&flights, "/");
            tasks.push(tokio::spawn(async move { read_all(reader).await.unwrap() }));
        }
    }
    let stored = writer.finish(&store).unwrap().unwrap();
    assert_eq!(stored.len(), expected.len() as u64);
    assert!(stored.segments().len() <= 2, "crumbs were joined");
    for task in tasks {
        assert_eq!(task.await.unwrap(), expected);
    }
    assert!(is_stored(&store, "/"));
    assert!(flights.is_empty() && flights.buffered() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_fetch_is_made_twice_while_one_ends() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Arc::new(Store::new(1 << 26)),
    );
    let fetches = Arc::new(AtomicU64::new(0));
    for round in 0..50 {
        let path = format!("/{round}");
        let mut tasks = Vec::new();
        for _ in 0..16 {
            let (flights, store, fetches, path) = (
                flights.clone(),
                Arc::clone(&store),
                Arc::clone(&fetches),
                path.clone(),
            );
            tasks.push(tokio::spawn(async move {
                let key = key(&path);
                let recheck = || match store.lookup(key.as_key(), &fields(&[]), &[]) {
                    Lookup::Found(stored) => Some(stored),
                    Lookup::VaryMiss | Lookup::UriMiss => None,
                };
                match flights.join(key.as_key(), b"", LARGE, at(0), recheck) {
                    Join::Lead(mut writer) => {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        writer.head(head(&["content-length: 3"]), Arc::default());
                        writer.push(Bytes::from("abc")).await.unwrap();
                        writer.finish(&store).unwrap();
                    }
                    Join::Follow(reader) => assert_eq!(read_all(reader).await.unwrap(), b"abc"),
                    Join::Found(stored) => assert_eq!(stored.len(), 3),
                    Join::Alone(_) => panic!("nothing was marked"),
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 50);
}

#[tokio::test]
async fn a_writer_that_goes_fails_its_readers_after_what_it_sent() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    let mut reader = follow(&flights, "/");
    let mut waiting = follow(&flights, "/");
    writer.head(head(&[]), Arc::default());
    writer.push(Bytes::from("half")).await.unwrap();
    drop(writer);
    assert!(reader.head().await.is_ok());
    assert_eq!(reader.next().await, Some(Ok(Bytes::from("half"))));
    assert_eq!(reader.next().await, Some(Err(Failed)));
    assert_eq!(read_all(waiting.clone()).await, Err(Failed));
    assert!(waiting.head().await.is_ok() && waiting.stored().is_none());
    assert!(!is_stored(&store, "/"));
    drop(lead(&flights, "/"));
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_failure_before_the_head_is_one_for_all() {
    let flights = Flights::new(Limits::default(), Tags::new());
    let writer = lead(&flights, "/");
    let mut reader = follow(&flights, "/");
    drop(writer);
    assert_eq!(reader.head().await.unwrap_err(), NoHead::Failed);
}

#[tokio::test]
async fn a_body_of_the_wrong_length_is_a_failure() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    let reader = follow(&flights, "/");
    writer.head(head(&["content-length: 5"]), Arc::default());
    writer.push(Bytes::from("1234")).await.unwrap();
    assert_eq!(
        writer.push(Bytes::from("56")).await,
        Err(PushError::TooLong)
    );
    assert_eq!(writer.finish(&store).unwrap_err(), Incomplete);
    assert_eq!(read_all(reader).await, Err(Failed));
    assert!(!is_stored(&store, "/") && flights.is_empty());
}

#[tokio::test]
async fn released_followers_go_on_their_own_and_a_marker_keeps_others_from_waiting() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    let mut own = writer.reader();
    let mut follower = follow(&flights, "/");
    writer.release(at(0), secs(10));
    assert_eq!(follower.head().await.unwrap_err(), NoHead::Released);
    assert!(matches!(join(&flights, "/", b""), Join::Alone(_)));
    writer.head(
        head(&["cache-control: no-cache", "etag: \"a\""]),
        Arc::default(),
    );
    writer.push(Bytes::from("abc")).await.unwrap();
    assert!(own.head().await.is_ok(), "the leader's own client stays");
    assert!(
        writer.finish(&store).unwrap().is_some(),
        "it may still be stored"
    );
    assert_eq!(read_all(own).await.unwrap(), b"abc");
    let later = flights.join(key("/").as_key(), b"", LARGE, at(10), || None);
    assert!(
        matches!(later, Join::Lead(_)),
        "the marker has its own lifetime"
    );
}

#[tokio::test]
async fn what_is_uncacheable_releases_followers_who_already_wait() {
    let flights = Flights::new(Limits::default(), Tags::new());
    let writer = lead(&flights, "/");
    let mut follower = follow(&flights, "/");
    let waiting = tokio::spawn(async move { follower.head().await });
    tokio::task::yield_now().await;
    writer.uncacheable(at(0), secs(10));
    assert_eq!(waiting.await.unwrap().unwrap_err(), NoHead::Released);
    assert!(flights.is_empty());
    assert!(flights.is_marked(key("/").as_key(), at(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_too_large_passes_through_a_window_to_those_who_read() {
    let limits = Limits {
        window: 1000,
        ..Limits::default()
    };
    let (flights, store) = (Flights::new(limits, Tags::new()), Store::new(1 << 20));
    let Join::Lead(mut writer) = flights.join(key("/").as_key(), b"", 5000, at(0), || None) else {
        panic!("first to ask")
    };
    let readers: Vec<_> = (0..5)
        .map(|_| tokio::spawn(read_all(follow(&flights, "/"))))
        .collect();
    writer.head(head(&[]), Arc::default());
    let mut passing = 0;
    for number in 0..200u8 {
        match writer.push(Bytes::from(vec![number; 500])).await.unwrap() {
            Growth::Kept => assert!(number < 10),
            Growth::Passing => passing += 1,
        }
        let held = lock(&writer.flight.state).held;
        assert!(held <= 5500, "{held} bytes held");
    }
    assert_eq!(passing, 190);
    assert!(
        matches!(join(&flights, "/", b""), Join::Lead(_)),
        "nobody new joins"
    );
    assert!(writer.finish(&store).unwrap().is_none());
    for reader in readers {
        let body = reader.await.unwrap().unwrap();
        assert_eq!(body.len(), 100_000);
        assert!(
            body.chunks(500)
                .enumerate()
                .all(|(at, piece)| piece.iter().all(|one| usize::from(*one) == at))
        );
    }
    assert_eq!(flights.buffered(), 0);
}

#[tokio::test]
async fn a_fetch_for_the_store_goes_on_without_readers() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    drop(follow(&flights, "/"));
    assert!(!writer.has_readers());
    writer.head(head(&[]), Arc::default());
    writer.push(Bytes::from("abc")).await.unwrap();
    assert!(writer.finish(&store).unwrap().is_some());
}

#[tokio::test]
async fn all_flights_together_keep_to_the_budget() {
    let limits = Limits {
        max_buffered: 1000,
        ..Limits::default()
    };
    let flights = Flights::new(limits, Tags::new());
    let (mut one, mut two) = (lead(&flights, "/1"), lead(&flights, "/2"));
    let _readers = (one.reader(), two.reader());
    one.head(head(&[]), Arc::default());
    two.head(head(&[]), Arc::default());
    assert_eq!(one.push(Bytes::from(vec![0; 900])).await, Ok(Growth::Kept));
    assert_eq!(
        two.push(Bytes::from(vec![0; 200])).await,
        Ok(Growth::Passing)
    );
    drop((one, two, _readers));
    assert_eq!(flights.buffered(), 0);
}

#[tokio::test]
async fn a_validated_object_is_there_at_once_for_all() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let writer = lead(&flights, "/");
    let mut reader = follow(&flights, "/");
    let stored = Arc::new(Stored::new(
        head(&["etag: \"a\""]),
        vec![Bytes::from("abc")],
        Arc::default(),
    ));
    assert!(writer.complete(&store, Arc::clone(&stored), true));
    assert!(Arc::ptr_eq(&reader.head().await.unwrap(), stored.head()));
    assert!(Arc::ptr_eq(&reader.stored().unwrap(), &stored));
    assert_eq!(read_all(reader).await.unwrap(), b"abc");
    assert!(is_stored(&store, "/"));
}

#[tokio::test]
async fn different_hints_are_different_flights_and_the_head_tells_a_stranger() {
    let flights = Flights::new(Limits::default(), Tags::new());
    let mut german = match join(&flights, "/", b"de") {
        Join::Lead(writer) => writer,
        other => panic!("{other:?}"),
    };
    assert!(matches!(join(&flights, "/", b"en"), Join::Lead(_)));
    let Join::Follow(mut reader) = join(&flights, "/", b"de") else {
        panic!("same hint")
    };
    german.head(
        Arc::new(head_for(
            &["accept-language: de"],
            200,
            &["vary: accept-language"],
        )),
        Arc::default(),
    );
    let head = reader.head().await.unwrap();
    assert!(head.variant().matches(&fields(&["accept-language: de"])));
    assert!(!head.variant().matches(&fields(&["accept-language: fr"])));
}

#[tokio::test]
async fn a_clone_reads_on_from_the_same_place() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let mut writer = lead(&flights, "/");
    let mut reader = writer.reader();
    writer.head(head(&[]), Arc::default());
    writer.push(Bytes::from("ab")).await.unwrap();
    writer.push(Bytes::from("cd")).await.unwrap();
    writer.finish(&store).unwrap();
    assert_eq!(reader.next().await, Some(Ok(Bytes::from("ab"))));
    assert_eq!(read_all(reader.clone()).await.unwrap(), b"cd");
    assert_eq!(read_all(reader).await.unwrap(), b"cd");
}

#[tokio::test]
async fn a_refresh_in_the_background_is_made_once() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    let refresh_of = |current| flights.refresh(key("/").as_key(), b"", LARGE, || current);
    let refresh = || refresh_of(true);
    let mut writer = refresh().unwrap();
    assert!(refresh().is_none());
    assert!(
        flights
            .refresh(key("/").as_key(), b"other variant", LARGE, || true)
            .is_some()
    );
    writer.head(head(&[]), Arc::default());
    writer.finish(&store).unwrap();
    assert!(refresh_of(false).is_none(), "another has just ended");
    let _alone = flights.alone(key("/").as_key(), b"", LARGE);
    assert!(
        refresh().is_some(),
        "what one asks for alone may not be for all"
    );
}

#[test]
fn a_marker_is_put_anew_when_a_quarter_of_its_time_is_over() {
    let flights = Flights::new(Limits::default(), Tags::new());
    let page = key("/");
    let mark = |now, lifetime| flights.mark(page.as_key(), at(now), secs(lifetime));
    let is_marked = |now| flights.is_marked(page.as_key(), at(now));
    mark(0, 100);
    mark(20, 100);
    assert!(is_marked(99) && !is_marked(100));
    mark(26, 100);
    assert!(is_marked(125) && !is_marked(126));
    // Another configuration says less.
    mark(30, 10);
    assert!(is_marked(39) && !is_marked(40));
}

#[tokio::test]
async fn a_marker_goes_when_there_is_something_to_share() {
    let (flights, store) = (
        Flights::new(Limits::default(), Tags::new()),
        Store::new(1 << 20),
    );
    flights.mark(key("/").as_key(), at(0), secs(10));
    let Join::Alone(mut writer) = join(&flights, "/", b"") else {
        panic!("marked")
    };
    writer.head(head(&["cache-control: max-age=9"]), Arc::default());
    writer.finish(&store).unwrap();
    assert!(!flights.is_marked(key("/").as_key(), at(1)));
}

#[tokio::test]
async fn a_released_follower_holds_up_nobody() {
    let limits = Limits {
        window: 1000,
        ..Limits::default()
    };
    let flights = Flights::new(limits, Tags::new());
    let Join::Lead(mut writer) = flights.join(key("/").as_key(), b"", 100, at(0), || None) else {
        panic!("first to ask")
    };
    let (mut own, mut idle) = (writer.reader(), follow(&flights, "/"));
    writer.release(at(0), secs(10));
    writer.head(head(&[]), Arc::default());
    for _ in 0..10 {
        writer.push(Bytes::from(vec![0; 1000])).await.unwrap();
        assert!(own.next().await.unwrap().is_ok());
    }
    assert_eq!(idle.next().await, Some(Err(Failed)));
    assert_eq!(idle.clone().head().await.unwrap_err(), NoHead::Released);
}

mod schedules {
    //! Any order of writes, reads, arrivals and departures.

    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Join,
        Read(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..400).prop_map(Step::Push),
            1 => Just(Step::Join),
            4 => (0usize..8).prop_map(Step::Read),
            1 => (0usize..8).prop_map(Step::Leave),
        ]
    }

    fn once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// The body is the numbers from 0, each modulo 251.
    fn body(from: usize, length: usize) -> Bytes {
        (from..from + length)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect()
    }

    fn take(read: &mut (Reader, usize), piece: &Bytes) {
        assert_eq!(
            *piece,
            body(read.1, piece.len()),
            "bytes in order, none twice, none missing"
        );
        read.1 += piece.len();
    }

    proptest! {
        #[test]
        fn every_reader_sees_the_whole_in_order_or_a_failure(
            steps in prop::collection::vec(step(), 0..120), good: bool, max_object in 0u64..4000,
        ) {
            let limits = Limits { window: 600, ..Limits::default() };
            let (flights, store) = (Flights::new(limits, Tags::new()), Store::new(1 << 20));
            let Join::Lead(mut writer) = flights.join(key("/").as_key(), b"", max_object, at(0), || None)
            else { panic!("first to ask") };
            writer.head(head(&[]), Arc::default());
            let mut readers = vec![(writer.reader(), 0)];
            let (mut pushed, mut outgrown) = (0, false);
            for step in steps {
                match step {
                    Step::Push(length) => {
                        outgrown |= (pushed + length) as u64 > max_object;
                        match once(writer.push(body(pushed, length))) {
                        Some(Ok(_)) => pushed += length,
                        Some(Err(_)) => prop_assert!(readers.is_empty()),
                        None => prop_assert!(lock(&writer.flight.state).held >= 600),
                        }
                    }
                    Step::Join => {
                        if let Join::Follow(reader) = join(&flights, "/", b"") {
                            prop_assert!(!outgrown, "late to what is not kept");
                            readers.push((reader, 0));
                        }
                    }
                    Step::Read(at) => {
                        if let Some(read) = readers.get_mut(at)
                            && let Some(Some(Ok(piece))) = once(read.0.next())
                        {
                            take(read, &piece);
                        }
                    }
                    Step::Leave(at) if at < readers.len() => drop(readers.swap_remove(at)),
                    Step::Leave(_) => {}
                }
                prop_assert!(lock(&writer.flight.state).held <= max_object + 1000);
            }
            if good {
                let stored = writer.finish(&store).unwrap();
                prop_assert_eq!(stored.is_some(), !outgrown);
                if let Some(stored) = stored {
                    prop_assert_eq!(stored.segments().concat(), body(0, pushed));
                }
            } else {
                drop(writer);
            }
            for mut read in readers.drain(..) {
                loop {
                    match once(read.0.next()) {
                        Some(Some(Ok(piece))) => take(&mut read, &piece),
                        Some(None) => { prop_assert!(good && read.1 == pushed); break }
                        Some(Some(Err(Failed))) => { prop_assert!(!good); break }
                        None => prop_assert!(false, "an ended flight keeps nobody waiting"),
                    }
                }
            }
            prop_assert_eq!(flights.buffered(), 0);
            prop_assert!(flights.is_empty());
        }
    }
}

#[test]
fn pieces_are_joined_and_nothing_is_lost() {
    for (pieces, size, expected) in [
        (1, 10, 1),
        (1000, 7, 1),
        (100, 4096, 7),
        (3, PIECE, 3),
        (0, 0, 0),
    ] {
        let parts = vec![Bytes::from(vec![7; size]); pieces];
        let joined = compact(parts);
        assert_eq!(joined.len(), expected, "{pieces} x {size}");
        assert_eq!(joined.iter().map(Bytes::len).sum::<usize>(), pieces * size);
    }
}
