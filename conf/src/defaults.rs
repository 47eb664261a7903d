//! What holds where the file says nothing. Each figure has its reason beside it.
//!
//! The reference manual states the same values; a test spells every one of them
//! out in a file and compares what comes of it with a file that leaves them out.

use std::time::Duration;

use http::HeaderName;

use crate::config::{MemoryMark, Precompressed};

const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

/// A drain waits this long for requests in flight: longer than a slow page, shorter than what service managers wait before they kill.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A new process reads the configuration and looks names up within this: longer than a resolver that does not answer, shorter than people wait.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// The authority that most people mean; its certificates cost nothing.
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Most providers have a record on all of their servers by then.
pub const ACME_DNS_WAIT: Duration = Duration::from_secs(30);

/// A head comes in one or two packets; whoever needs longer is slow on purpose.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads of a body: bridges a hand-over of a mobile phone.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest body that is taken by default needs 4.7 KB/s to be through; nothing lasts for ever.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Bytes a second. The slowest of mobile networks (GPRS) has ten times as much.
pub const MIN_RATE: u64 = 500;
/// As long as `body_timeout`, so that a phone between two cells is not taken for a slow attacker.
pub const MIN_RATE_GRACE: Duration = Duration::from_secs(30);
/// Longer than the keep-alive of common load balancers (60 s), so that they close first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Holds the cookies that shops really send, with room.
pub const MAX_HEADER_SIZE: usize = 32 * KIB;
/// A browser sends 20, and proxies add as many.
pub const MAX_HEADERS: usize = 100;
/// Holds a photograph from a phone; larger uploads are asked for by route.
pub const MAX_BODY_SIZE: u64 = 16 * MIB;
/// About 200 MB at the size of an idle connection.
pub const MAX_CONNECTIONS: usize = 20_000;
/// High enough for an office or a mobile carrier behind one address.
pub const MAX_CONNECTIONS_PER_IP: usize = 2_000;
/// A second. Five thousand at once, and that much for ever, is what no office does.
pub const MAX_CONNECTION_RATE_PER_IP: u64 = 500;
/// A second: a twentieth of a core.
pub const MAX_HANDSHAKE_RATE_PER_IP: u64 = 100;
/// Then a client connects anew, and load spreads again.
pub const MAX_REQUESTS_PER_CONNECTION: u32 = 10_000;
/// The least that RFC 9113 section 6.5.2 recommends is 100.
pub const MAX_CONCURRENT_STREAMS: u32 = 128;
/// A second. Browsers ping once in many seconds; a page that is left resets a hundred streams at once.
pub const MAX_CONTROL_FRAME_RATE: u64 = 100;

/// What is left of a cgroup's memory then goes in a moment.
pub const OVERLOAD_MEMORY: MemoryMark = MemoryMark::Share(90);
/// A visitor sees it; a garbage collection of a neighbour is shorter.
pub const OVERLOAD_LAG: Duration = Duration::from_millis(500);
/// A visitor who reloads at once gets the same answer.
pub const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(5);
/// More handshakes at once than a shop's clients make, and less than a core does in a second.
pub const RETRY_ABOVE: usize = 1000;
/// Seconds for which clients remember that HTTP/3 is spoken: a day, as most servers say.
pub const ALT_SVC_MAX_AGE: u32 = 86_400;

/// App nodes are near: what takes longer is down.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A slow page is slow; a page slower than this is stuck.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two reads of a reply.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept for an endpoint and worker.
pub const KEEPALIVE_MAX_IDLE: usize = 128;
/// Common app servers keep theirs longer than a minute or close at once; a stale one is noticed and replaced.
pub const KEEPALIVE_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Share of requests of an endpoint that says nothing.
pub const WEIGHT: u32 = 1;
/// A name that moves is followed within half a minute, also where its records have long lives.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Between two polls of a list of endpoints.
pub const DISCOVERY_EVERY: Duration = Duration::from_secs(10);
/// A registry that needs longer is not well; the last list holds.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Two choices take most of what can be had (Mitzenmacher, "The power of two choices", 2001).
pub const LEAST_REQUEST_CHOICES: u32 = 2;
/// Percentage of the own zone in service below which others help: the rest can bear half as much again.
pub const ZONE_OVERFLOW_BELOW: u8 = 70;
/// What most HTTP/2 servers allow (RFC 9113 section 6.5.2 recommends no less).
pub const UPSTREAM_STREAMS: u32 = 100;
/// Somebody who waits longer for a turn has gone.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Below this a limit could not be told from an outage.
pub const ADAPTIVE_MIN: u32 = 4;
/// No app server does better with more requests at once.
pub const ADAPTIVE_MAX: u32 = 1000;

/// Between two checks of one endpoint.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// A health page that needs longer belongs to a node that is not well.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval of an endpoint that is out is this at most, so that it is back soon.
pub const HEALTH_DOWN_INTERVAL: Duration = Duration::from_secs(1);
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
/// What rates and latencies of a node are taken from: long enough for a figure, short enough to act.
pub const OUTLIER_WINDOW: Duration = Duration::from_secs(10);
/// With fewer requests a rate is chance.
pub const OUTLIER_MIN_REQUESTS: u32 = 20;
/// Attempts for one request, the first included.
pub const RETRY_ATTEMPTS: u32 = 2;
/// Percentage of requests that may be sent again: an outage grows by a fifth, not twofold.
pub const RETRY_BUDGET: u8 = 20;
/// Bytes of a request's body kept to be sent again: forms fit, uploads do not.
pub const RETRY_MAX_BODY_SIZE: u64 = 64 * 1024;
/// One request in twenty is sent twice (Dean and Barroso, "The tail at scale", 2013).
pub const HEDGE_PERCENTILE: u8 = 95;
/// Where every reply is faster than this, a second attempt gains nothing.
pub const HEDGE_MIN_DELAY: Duration = Duration::from_millis(5);

/// A crawler that is told so comes again, and takes nothing out of its index meanwhile.
pub const MAINTENANCE_RETRY_AFTER: Duration = Duration::from_secs(600);

/// File tried for a directory.
pub const INDEX: &str = "index.html";
/// Encodings looked for beside a file, the densest first.
pub const PRECOMPRESSED: [Precompressed; 3] = [
    Precompressed::Brotli,
    Precompressed::Zstd,
    Precompressed::Gzip,
];
/// Files whose content may change under their name: a short life, then the client asks.
pub const STATIC_CACHE_CONTROL: &str = "public, max-age=60";
/// Files that never change under their name: a year, and no question on a reload (RFC 8246).
pub const IMMUTABLE_CACHE_CONTROL: &str = "public, max-age=31536000, immutable";
/// Bytes of files a site keeps in memory.
pub const STATIC_MEMORY: u64 = 64 * MIB;
/// Larger files are streamed from the disk, where the kernel caches them.
pub const MAX_MEMORY_FILE: u64 = 256 * 1024;
/// Room for some ten thousand pictures as pages show them.
pub const IMAGES_SIZE: u64 = 1024 * MIB;
/// Hard to tell from the original on a screen, in each of the formats.
pub const IMAGES_QUALITY: u8 = 70;
/// Holds what most cameras take.
pub const IMAGES_MAX_MEGAPIXELS: u32 = 40;

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
/// A body for the store of a cache that no client reads.
pub const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long nobody waits for a response that was not to be shared.
pub const HIT_FOR_MISS: Duration = Duration::from_secs(10);

/// Permanent, and the method is kept (RFC 9110 section 15.4.9).
pub const REDIRECT_STATUS: u16 = 308;
/// Of a fixed reply.
pub const RESPOND_STATUS: u16 = 200;
/// Of a fixed reply.
pub const RESPOND_CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// `forward.idle_timeout`
pub const FORWARD_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
