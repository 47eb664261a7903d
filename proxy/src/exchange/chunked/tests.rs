//! Where a body ends, however it comes.

use proptest::prelude::*;

use super::{ChunkScanner, MAX_EXTENSION, MAX_TRAILER, Progress};
use crate::exchange::guard::Reject;

fn scan(body: impl AsRef<[u8]>) -> Result<Progress, Reject> {
    ChunkScanner::new().feed(body.as_ref())
}

#[track_caller]
fn ends(body: &str) {
    let followed = format!("{body}GET / HTTP/1.1\r\n");
    assert_eq!(
        scan(&followed),
        Ok(Progress {
            consumed: body.len(),
            done: true
        }),
        "{body:?}"
    );
}

#[track_caller]
fn refused(body: impl AsRef<[u8]>, reject: Reject) {
    let shown = String::from_utf8_lossy(body.as_ref()).into_owned();
    assert_eq!(scan(body), Err(reject), "{shown:?}");
}

#[test]
fn the_end_of_a_body_is_found() {
    ends("0\r\n\r\n");
    ends("000\r\n\r\n");
    ends("5\r\nhello\r\n0\r\n\r\n");
    ends("A\r\n0\r\n\r\n56789\r\n00\r\n\r\n");
    ends("1;a;b=c;d=\"e; \\\"\"\r\nx\r\n0;z\r\n\r\n");
    ends("1;chunk-signature=0a\r\nx\r\n0\r\nChecksum: abc\r\nX:\r\n\r\n");
}

#[test]
fn an_unfinished_body_goes_on_and_a_finished_one_takes_no_more() {
    let mut scanner = ChunkScanner::new();
    for part in ["5\r", "\nhel", "lo\r\n1", "0\r\n0123456789abcd"] {
        let progress = scanner.feed(part.as_bytes()).expect("well formed");
        assert_eq!(
            progress,
            Progress {
                consumed: part.len(),
                done: false
            }
        );
    }
    assert!(scanner.feed(b"ef\r\n0\r\n\r\n").expect("well formed").done);
    let after = scanner.feed(b"more").expect("done stays done");
    assert_eq!(
        after,
        Progress {
            consumed: 0,
            done: true
        }
    );
}

#[test]
fn malformed_sizes_are_refused() {
    for body in [
        "\r\n",
        "x\r\n",
        ";a\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "1 ;a\r\n",
        "fffffffffffffffff\r\n",
        "0000000000000001\r\n",
        "1_0\r\n",
        "1\0\r\n",
    ] {
        refused(body, Reject::BadChunkSize);
    }
    refused("1\nx\r\n", Reject::BareLf);
    refused("\n", Reject::BareLf);
    refused("1\rx", Reject::BareCr);
}

#[test]
fn malformed_extensions_are_refused() {
    for body in [
        "1;\r\n",
        "1;;a\r\n",
        "1;=a\r\n",
        "1; a\r\n",
        "1;a \r\n",
        "1;a=\r\n",
        "1;a=b=c\r\n",
        "1;a=\"\r\n",
        "1;a=\"b\"c\r\n",
        "1;a\0\r\n",
        "1;a=\"\0\"\r\n",
        "1;ä\r\n",
        "1;a=\"\\\r\n",
    ] {
        refused(body, Reject::BadChunkExtension);
    }
    refused("1;a\nx\r\n", Reject::BareLf);
    refused("1;a=\"\n", Reject::BareLf);
    refused("1;a\rx", Reject::BareCr);
    let most = "a".repeat(MAX_EXTENSION - 1);
    ends(&format!("1;{most}\r\nx\r\n0;{most}\r\n\r\n"));
    refused(format!("1;{most}a\r\n"), Reject::BadChunkExtension);
}

#[test]
fn data_must_end_where_the_size_says() {
    for body in [
        "1\r\nxx\r\n",
        "1\r\nx\n",
        "1\r\nx\rx",
        "2\r\nx\r\n0\r\n\r\n",
    ] {
        refused(body, Reject::BadChunkEnd);
    }
}

#[test]
fn malformed_trailers_are_refused() {
    for trailer in [
        " a: b\r\n",
        "a : b\r\n",
        ": b\r\n",
        "a\r\n",
        "a: \0\r\n",
        "a: b\r\n c\r\n",
        "a: \u{7f}",
    ] {
        refused(format!("0\r\n{trailer}\r\n"), Reject::BadTrailer);
    }
    refused("0\r\na: b\n\r\n", Reject::BareLf);
    refused("0\r\n\n", Reject::BareLf);
    refused("0\r\n\rx", Reject::BareCr);
    refused("0\r\na: b\rc\r\n", Reject::BareCr);
    refused(
        format!("0\r\na: {}", "b".repeat(MAX_TRAILER)),
        Reject::TrailerTooLarge,
    );
}

#[test]
fn a_failed_scanner_stays_failed() {
    let mut scanner = ChunkScanner::new();
    assert_eq!(scanner.feed(b"x"), Err(Reject::BadChunkSize));
    assert_eq!(scanner.feed(b""), Err(Reject::BadChunkSize));
    assert_eq!(scanner.feed(b"0\r\n\r\n"), Err(Reject::BadChunkSize));
}

/// Chunks, a trailer, and what follows on the connection.
fn body() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..40),
        "(;[a-z]{1,4}(=[a-z]{1,4})?){0,2}",
    );
    let trailer = prop_oneof![Just(""), Just("x: y\r\n")];
    let chunks = proptest::collection::vec(chunk, 0..6);
    (chunks, trailer, "[ -~]{0,10}").prop_map(|(chunks, trailer, rest)| {
        let mut bytes = Vec::new();
        for (data, extension) in chunks {
            bytes.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
            bytes.extend_from_slice(&data);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        let len = bytes.len();
        bytes.extend_from_slice(rest.as_bytes());
        (bytes, len)
    })
}

/// Feeds in pieces of the given sizes, over and over.
fn in_pieces(bytes: &[u8], sizes: &[usize]) -> Result<Progress, Reject> {
    let mut scanner = ChunkScanner::new();
    let mut total = Progress {
        consumed: 0,
        done: false,
    };
    let mut sizes = sizes.iter().cycle();
    while total.consumed < bytes.len() && !total.done {
        let size = *sizes.next().expect("endless");
        let end = bytes.len().min(total.consumed + size);
        let progress = scanner.feed(&bytes[total.consumed..end])?;
        total.consumed += progress.consumed;
        total.done = progress.done;
    }
    Ok(total)
}

proptest! {
    #[test]
    fn a_well_formed_body_ends_where_it_ends_however_it_is_split(
        (bytes, len) in body(),
        sizes in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        prop_assert_eq!(in_pieces(&bytes, &sizes), Ok(Progress { consumed: len, done: true }));
    }

    #[test]
    fn any_octets_have_one_answer_however_they_are_split(
        bytes in "[0-3a;=\" x:\\r\\n\u{e4}\\t]{0,60}",
        sizes in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        prop_assert_eq!(in_pieces(bytes.as_bytes(), &sizes), scan(&bytes));
    }
}

#[test]
fn the_trailer_section_is_kept_however_it_is_cut() {
    let body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nGET";
    for size in 1..=body.len() {
        let mut scanner = ChunkScanner::new();
        for piece in body.chunks(size) {
            scanner.feed_all(piece).unwrap();
        }
        assert_eq!(scanner.take_trailer(), b"X-Sum: 1\r\nY: 2\r\n", "{size}");
    }
    let mut scanner = ChunkScanner::new();
    assert!(scanner.feed_all(b"0\r\n\r\n").unwrap().done);
    assert_eq!(scanner.take_trailer(), b"");
}
