//! What holds where the file says nothing. Each figure has its reason beside it.
//!
//! The reference manual states the same values; a test spells every one of them
//! out in a file and compares what comes of it with a file that leaves them out.

use std::time::Duration;

use http::HeaderName;

use crate::config::Precompressed;

const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

/// A drain waits this long for requests in flight: longer than a slow page, shorter than what service managers wait before they kill.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A head comes in one or two packets; whoever needs longer is slow on purpose.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads of a body: bridges a hand-over of a mobile phone.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the keep-alive of common load balancers (60 s), so that they close first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Holds the cookies that shops really send, with room.
pub const MAX_HEADER_SIZE: usize = 32 * KIB;
/// Holds a photograph from a phone; larger uploads are asked for by route.
pub const MAX_BODY_SIZE: u64 = 16 * MIB;
/// About 200 MB at the size of an idle connection.
pub const MAX_CONNECTIONS: usize = 20_000;
/// High enough for an office or a mobile carrier behind one address.
pub const MAX_CONNECTIONS_PER_IP: usize = 2_000;
/// Then a client connects anew, and load spreads again.
pub const MAX_REQUESTS_PER_CONNECTION: u32 = 10_000;
/// The least that RFC 9113 section 6.5.2 recommends is 100.
pub const MAX_CONCURRENT_STREAMS: u32 = 128;

/// App nodes are near: what takes longer is down.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A slow page is slow; a page slower than this is stuck.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two reads of a reply.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept for an upstream and worker.
pub const KEEPALIVE_MAX_IDLE: usize = 128;
/// Common app servers keep theirs longer than a minute or close at once; a stale one is noticed and replaced.
pub const KEEPALIVE_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Share of requests of an endpoint that says nothing.
pub const WEIGHT: u32 = 1;

/// Between two checks of one endpoint.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// A health page that needs longer belongs to a node that is not well.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// One lost packet takes no node out.
pub const UNHEALTHY_AFTER: u32 = 3;
/// One lucky answer brings none back.
pub const HEALTHY_AFTER: u32 = 2;
/// What an HTTP check asks for.
pub const HEALTH_PATH: &str = "/";

/// Errors in a row until a node is ejected.
pub const CONSECUTIVE_ERRORS: u32 = 5;
/// How long it stays out.
pub const EJECTION_TIME: Duration = Duration::from_secs(10);
/// Percentage of a pool that may be out: when more fail, it is not the nodes.
pub const MAX_EJECTED: u8 = 50;
/// Attempts for one request, the first included.
pub const RETRY_ATTEMPTS: u32 = 2;

/// File tried for a directory.
pub const INDEX: &str = "index.html";
/// Encodings looked for beside a file, the densest first.
pub const PRECOMPRESSED: [Precompressed; 3] = [
    Precompressed::Brotli,
    Precompressed::Zstd,
    Precompressed::Gzip,
];
/// Bytes of files a site keeps in memory.
pub const STATIC_MEMORY: u64 = 64 * MIB;
/// Larger files are streamed from the disk, where the kernel caches them.
pub const MAX_MEMORY_FILE: u64 = 256 * 1024;

/// Bytes of stored responses.
pub const CACHE_MEMORY: u64 = 256 * MIB;
/// Larger responses are passed and not stored.
pub const MAX_OBJECT_SIZE: u64 = 8 * MIB;

/// Response fields that carry tags: Fastly's, that of Cloudflare and others, Varnish's.
pub const CACHE_TAGS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];
/// How long nobody waits for a response that was not to be shared.
pub const HIT_FOR_MISS: Duration = Duration::from_secs(10);

/// Permanent, and the method is kept (RFC 9110 section 15.4.9).
pub const REDIRECT_STATUS: u16 = 308;
/// Of a fixed reply.
pub const RESPOND_STATUS: u16 = 200;
/// Of a fixed reply.
pub const RESPOND_CONTENT_TYPE: &str = "text/plain; charset=utf-8";
