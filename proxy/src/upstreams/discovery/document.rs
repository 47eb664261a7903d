//! A list of endpoints in a file or behind a URL: whether to believe it.
//!
//! How it is written is the configuration's matter: an entry there is one here.

use conf::Endpoint;
use conf::discovered::{self, Format};

use super::Trouble;

/// Bytes of a list; as many endpoints as are taken fit.
pub(super) const LARGEST: u64 = 4 << 20;

/// The endpoints of a list, in its order.
///
/// # Errors
/// It cannot be read; or it is empty and may not be: a list that comes out empty is more often a
/// slip of what writes it than the end of a pool, so unless other endpoints stand beside it, it
/// is taken for one.
pub(super) fn read(
    text: &str,
    format: Format,
    may_be_empty: bool,
) -> Result<Vec<Endpoint>, (Trouble, String)> {
    let endpoints =
        discovered::parse(text, format).map_err(|reason| (Trouble::BadDocument, reason))?;
    match endpoints.is_empty() && !may_be_empty {
        true => {
            let reason = "it lists no endpoint, and there is none beside it";
            Err((Trouble::NotFound, reason.to_owned()))
        }
        false => Ok(endpoints),
    }
}
