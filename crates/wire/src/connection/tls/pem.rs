//! Certificates and keys from PEM files or inline PEM text.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{TlsError, TlsItem};

/// What a configured text stands for.
struct Source {
    item: TlsItem,
    /// Path, or what to call inline text.
    name: String,
    pem: Vec<u8>,
}

impl Source {
    fn read(item: TlsItem, text: Option<&str>) -> Result<Self, TlsError> {
        let text = text.unwrap_or_default();
        if text.contains('\n') {
            return Ok(Self {
                item,
                name: "inline PEM text".to_owned(),
                pem: text.as_bytes().to_vec(),
            });
        }
        let pem = std::fs::read(text).map_err(|source| TlsError::File {
            item,
            path: text.to_owned(),
            source,
        })?;
        Ok(Self {
            item,
            name: text.to_owned(),
            pem,
        })
    }

    fn malformed(&self, detail: impl ToString) -> TlsError {
        TlsError::Malformed {
            item: self.item,
            name: self.name.clone(),
            detail: detail.to_string(),
        }
    }

    fn contains(&self, text: &str) -> bool {
        self.pem
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }
}

/// All certificates, at least one.
pub(super) fn certificates(
    item: TlsItem,
    text: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let source = Source::read(item, text)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&source.pem).collect();
    let certificates = certificates.map_err(|error| source.malformed(error))?;
    if certificates.is_empty() {
        return Err(source.malformed("it holds no certificate"));
    }
    Ok(certificates)
}

/// The key of its own file, or of the certificate's.
pub(super) fn private_key(
    key: Option<&str>,
    cert: Option<&str>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let own = key.filter(|text| !text.is_empty());
    let item = if own.is_some() {
        TlsItem::Key
    } else {
        TlsItem::Cert
    };
    let source = Source::read(item, own.or(cert))?;
    if source.contains("BEGIN ENCRYPTED PRIVATE KEY") || source.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey {
            item,
            name: source.name,
        });
    }
    match PrivateKeyDer::from_pem_slice(&source.pem) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(source.malformed("it holds no private key"))
        }
        Err(error) => Err(source.malformed(error)),
    }
}
