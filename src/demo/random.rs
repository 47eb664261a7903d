//! Random names, from the TLS provider's generator.

use anyhow::anyhow;
use rustls::crypto::aws_lc_rs::default_provider;

/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the system has no randomness to give.
pub(crate) fn hex() -> Result<String, anyhow::Error> {
    let mut bytes = [0; 16];
    default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_differ() {
        assert_ne!(hex().expect("random"), hex().expect("random"));
        assert_eq!(hex().expect("random").len(), 32);
    }
}
