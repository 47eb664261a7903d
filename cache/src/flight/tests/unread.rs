//! Objects on their way that nobody reads.

use super::*;

#[tokio::test]
async fn nobody_joins_what_is_given_up_as_nobody_reads_it() {
    for unread in [true, false] {
        let flights = Flights::new(Limits::default(), Tags::new());
        let mut writer = lead(&flights, "/");
        writer.keep_not();
        let reader = writer.reader();
        writer.head(head(&[]), Arc::default());
        assert_eq!(writer.push(Bytes::from("x")).await, Ok(Growth::Kept));
        assert!(!writer.give_up_unread(), "somebody reads");
        let other = follow(&flights, "/");
        drop(reader);
        assert_eq!(writer.push(Bytes::from("x")).await, Ok(Growth::Kept));
        drop(other);
        match unread {
            true => assert!(writer.give_up_unread()),
            false => {
                let pushed = writer.push(Bytes::from("x")).await;
                assert_eq!(pushed, Err(PushError::Abandoned));
            }
        }
        assert!(matches!(join(&flights, "/", b""), Join::Lead(_)));
    }
}

#[tokio::test]
async fn when_nobody_reads_what_is_not_kept_the_writer_is_told() {
    let limits = Limits {
        window: 1000,
        ..Limits::default()
    };
    let flights = Flights::new(limits, Tags::new());
    let Join::Lead(mut writer) = flights.join(key("/").as_key(), b"", 100, at(0), || None) else {
        panic!("first to ask")
    };
    let reader = writer.reader();
    writer.head(head(&[]), Arc::default());
    assert_eq!(
        writer.push(Bytes::from(vec![0; 2000])).await,
        Ok(Growth::Passing)
    );
    let pushing = tokio::spawn(async move { writer.push(Bytes::from("x")).await });
    tokio::task::yield_now().await;
    assert!(!pushing.is_finished(), "the window is full");
    drop(reader);
    assert_eq!(pushing.await.unwrap(), Err(PushError::Abandoned));
}
