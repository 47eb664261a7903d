//! The hash that turns a request's key (a client address, a header, a cookie) into a number for
//! [`Balance::Hash`].
//!
//! It is XXH64 with seed 0, as specified in the xxHash project's `doc/xxhash_spec.md`: fast on
//! short keys, with published test vectors, and at hand in every language, so that a test outside
//! this program can say where a key goes. It is not keyed: who may choose the key of a request can
//! find out which keys share an endpoint, as with every consistent hash that several instances have
//! to agree on.
//!
//! [`Balance::Hash`]: crate::Balance::Hash

use twox_hash::XxHash64;

/// Hashes a key: XXH64, seed 0. Equal across processes, machines and versions of this program.
///
/// For a client address hash its 4 or 16 octets, for a header or a cookie the bytes of its value.
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh64_with_seed_zero() {
        assert_eq!(hash_key(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash_key(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash_key(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn keys_beyond_one_block_are_xxh64_too() {
        assert_eq!(
            hash_key(b"Nobody inspects the spammish repetition"),
            0xfbce_a83c_8a37_8bf1,
            "39 bytes take the path with four lanes"
        );
    }
}
