//! Cipher lists in OpenSSL's spelling, of which rustls has the suites with forward secrecy and
//! authenticated encryption. As in OpenSSL they choose among the suites of TLS 1.2 only.

use rustls::{CipherSuite, SupportedCipherSuite};

use crate::error::TlsError;

/// OpenSSL's names.
const NAMES: &[(CipherSuite, &str)] = &[
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

/// Keeps the suites that the list allows, and those of TLS 1.3.
///
/// # Errors
/// When the list allows none that we have.
pub(super) fn retain(suites: &mut Vec<SupportedCipherSuite>, list: &str) -> Result<(), TlsError> {
    let allowed = select(list);
    suites.retain(|suite| {
        matches!(suite, SupportedCipherSuite::Tls13(_)) || allowed.contains(&suite.suite())
    });
    if allowed.is_empty() {
        let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        return Err(TlsError::Ciphers {
            list: list.to_owned(),
            known: names.join(", "),
        });
    }
    Ok(())
}

fn select(list: &str) -> Vec<CipherSuite> {
    let mut chosen = Vec::new();
    let mut killed = Vec::new();
    let words = list.split([':', ',', ';', ' ']);
    for word in words.filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let (sign, word) = match word.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+"), rest)) => (sign, rest),
            _ => ("", word),
        };
        for (suite, name) in NAMES {
            if !word.split('+').all(|part| is_kind(name, part)) {
                continue;
            }
            match sign {
                "!" => {
                    killed.push(*suite);
                    chosen.retain(|other| other != suite);
                }
                "-" => chosen.retain(|other| other != suite),
                // Only moves it to the end; the order is ours.
                "+" => {}
                _ if killed.contains(suite) || chosen.contains(suite) => {}
                _ => chosen.push(*suite),
            }
        }
    }
    chosen
}

/// Whether a suite is the one named, or of the kind named.
fn is_kind(name: &str, word: &str) -> bool {
    match word {
        "ALL" | "DEFAULT" | "HIGH" | "FIPS" | "TLSv1.2" | "ECDHE" | "EECDH" | "kECDHE"
        | "kEECDH" | "PROFILE=SYSTEM" => true,
        "ECDSA" | "aECDSA" => name.contains("-ECDSA-"),
        "aRSA" => name.contains("-RSA-"),
        "AES" | "AESGCM" => name.contains("-AES"),
        "AES128" => name.contains("-AES128-"),
        "AES256" => name.contains("-AES256-"),
        "CHACHA20" => name.contains("-CHACHA20-"),
        word => name == word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        let chosen = select(list);
        let name = |suite| NAMES.iter().find(|(other, _)| other == suite);
        chosen
            .iter()
            .filter_map(name)
            .map(|(_, name)| *name)
            .collect()
    }

    #[test]
    fn lists_of_openssl_are_understood() {
        let rsa128 = "ECDHE-RSA-AES128-GCM-SHA256";
        let rsa256 = "ECDHE-RSA-AES256-GCM-SHA384";
        let table: &[(&str, &[&str])] = &[
            (rsa128, &[rsa128]),
            (
                "ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA:NO-SUCH-SUITE",
                &[rsa256],
            ),
            ("ECDHE+AESGCM:!aNULL:!ECDSA:@SECLEVEL=2", &[rsa256, rsa128]),
            ("HIGH:!AES128:!CHACHA20:!aECDSA", &[rsa256]),
            ("!AES256:aRSA+AESGCM", &[rsa128]),
            ("AES128-SHA:RC4", &[]),
            ("", &[]),
        ];
        for (list, expected) in table {
            assert_eq!(names(list), *expected, "{list}");
        }
        assert_eq!(names("DEFAULT").len(), NAMES.len());
    }

    #[test]
    fn a_list_without_any_suite_of_ours_is_an_error_that_names_ours() {
        let mut suites = rustls::crypto::ring::default_provider().cipher_suites;
        let error = retain(&mut suites, "AES128-SHA").expect_err("none");
        assert!(
            error.to_string().contains("ECDHE-RSA-AES128-GCM-SHA256"),
            "{error}"
        );
        let mut suites = rustls::crypto::ring::default_provider().cipher_suites;
        retain(&mut suites, "ECDHE-RSA-AES128-GCM-SHA256").expect("one");
        let old = |suite: &&SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls12(_));
        assert_eq!(suites.iter().filter(old).count(), 1);
        assert!(suites.len() > 1, "those of TLS 1.3 stay");
    }
}
