//! What a certificate says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::extensions::{GeneralName, ParsedExtension};

/// The parts of a leaf certificate that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// DNS names, lower-case: the subject alternative names, as RFC 6125 section 6.4.4 wants.
    pub(crate) names: Vec<String>,
    /// From when it is valid.
    pub(crate) not_before: SystemTime,
    /// Until when.
    pub(crate) not_after: SystemTime,
    /// The serial number's content octets, as encoded.
    pub(crate) serial: Vec<u8>,
    /// Which of the authority's keys signed it, where it says so (RFC 5280 section 4.2.1.1).
    pub(crate) authority_key: Option<Vec<u8>>,
}

impl Leaf {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, leaf) =
            x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let names = leaf
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        let names = names
            .into_iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let authority_key =
            leaf.iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => {
                        Some(id.key_identifier.as_ref()?.0.to_vec())
                    }
                    _ => None,
                });
        let validity = leaf.validity();
        Ok(Self {
            names,
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
            serial: leaf.raw_serial().to_vec(),
            authority_key,
        })
    }
}

impl Leaf {
    /// How long it is valid in all.
    pub(crate) fn life(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }
}

/// Seconds since 1970; earlier is as bad as then.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_times_and_numbers_are_read() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["Shop.example".to_owned(), "*.shop.example".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2024, 4, 1);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(vec![0x7f, 1, 2].into());
        let issuer_key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        let issuer = rcgen::Issuer::new(authority, issuer_key);
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        let leaf = Leaf::read(certificate.der()).expect("read");
        assert_eq!(leaf.names, ["shop.example", "*.shop.example"]);
        assert_eq!(
            leaf.not_before,
            UNIX_EPOCH + Duration::from_secs(1_704_067_200)
        );
        assert_eq!(
            leaf.not_after.duration_since(leaf.not_before).ok(),
            Some(Duration::from_secs(91 * 86_400))
        );
        assert_eq!(leaf.serial, [0x7f, 1, 2]);
        assert!(leaf.authority_key.is_some_and(|id| !id.is_empty()));
        assert!(Leaf::read(b"no certificate").is_err());
    }
}
