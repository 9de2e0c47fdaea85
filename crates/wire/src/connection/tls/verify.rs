//! Whose certificate is accepted: one that an authority of `ca-file` has issued, at any remove, and
//! that is valid now. Names in it do not matter.
//!
//! webpki decides, except for two kinds of certificates that clusters made by hand often have, that
//! OpenSSL (and so stock) accepts, and that webpki refuses on principle: those of X.509 version 1
//! (`openssl x509 -req` without extensions), and authorities that use their own certificate as a
//! server or client (`openssl req -x509`). These must come directly from an authority of `ca-file`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use crate::error::{TlsError, TlsItem};

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Client,
    Server,
}

/// Decides on certificates, for both sides.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    roots: Arc<RootCertStore>,
    authorities: Vec<CertificateDer<'static>>,
    callers: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for (number, authority) in authorities.iter().enumerate() {
            roots
                .add(authority.clone())
                .map_err(|error| TlsError::Malformed {
                    item: TlsItem::CaFile,
                    name: format!("certificate {}", number + 1),
                    detail: error.to_string(),
                })?;
        }
        let roots = Arc::new(roots);
        let callers =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(|error| TlsError::Setup(error.to_string()))?;
        Ok(Self {
            roots,
            authorities,
            callers,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// The second opinion on a certificate that webpki refuses with `refusal`.
    fn issued_directly(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
        purpose: Purpose,
        refusal: Error,
    ) -> Result<(), Error> {
        let Some(leaf) = parse(leaf) else {
            return Err(refusal);
        };
        if leaf.version() != X509Version::V1 && !leaf.is_ca() {
            return Err(refusal);
        }
        let issued = self
            .authorities
            .iter()
            .filter_map(parse)
            .any(|authority| has_issued(&authority, &leaf));
        if !issued {
            return Err(CertificateError::UnknownIssuer.into());
        }
        check_time(&leaf, now)?;
        check_extensions(&leaf, purpose)
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let first_version = parse(leaf).filter(|leaf| leaf.version() == X509Version::V1);
        let Some(leaf) = first_version else {
            return if is_tls13 {
                verify_tls13_signature(message, leaf, signed, &self.algorithms)
            } else {
                verify_tls12_signature(message, leaf, signed, &self.algorithms)
            };
        };
        let key = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
        if is_tls13 {
            return verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms);
        }
        let bad = || Error::from(CertificateError::BadSignature);
        let entity = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| bad())?;
        let mapping = self.algorithms.mapping.iter();
        let mut candidates = mapping
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter());
        let valid = candidates.any(|algorithm| {
            entity
                .verify_signature(*algorithm, message, signed.signature())
                .is_ok()
        });
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(bad())
        }
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

fn has_issued(authority: &X509Certificate<'_>, leaf: &X509Certificate<'_>) -> bool {
    let algorithm = &leaf.signature_algorithm.algorithm;
    // Collisions of SHA-1 can be made.
    let weak = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA];
    authority.subject().as_raw() == leaf.issuer().as_raw()
        && !weak.contains(algorithm)
        && leaf.signature_algorithm == leaf.tbs_certificate.signature
        && leaf.verify_signature(Some(authority.public_key())).is_ok()
}

fn check_time(leaf: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let Ok(now) = ASN1Time::from_timestamp(seconds) else {
        return Err(Error::FailedToGetCurrentTime);
    };
    if now < leaf.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > leaf.validity().not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn check_extensions(leaf: &X509Certificate<'_>, purpose: Purpose) -> Result<(), Error> {
    for extension in leaf.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let allowed = usage.any
                    || match purpose {
                        Purpose::Client => usage.client_auth,
                        Purpose::Server => usage.server_auth,
                    };
                if !allowed {
                    return Err(CertificateError::InvalidPurpose.into());
                }
            }
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_) => {}
            _ if extension.critical => {
                return Err(CertificateError::UnhandledCriticalExtension.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Attributes of the subject; those of unknown kinds have their number as a name.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<(String, String)>> {
    let certificate = parse(certificate)?;
    let attributes = certificate.subject().iter_attributes();
    let named = attributes.filter_map(|attribute| {
        let kind = attribute.attr_type();
        let name = oid2abbrev(kind, oid_registry());
        let name = name.map_or_else(|_| kind.to_id_string(), str::to_owned);
        Some((name, attribute.as_str().ok()?.to_owned()))
    });
    Some(named.collect())
}

/// Whether a certificate is for this key.
pub(super) fn has_public_key(
    certificate: &CertificateDer<'_>,
    key: &SubjectPublicKeyInfoDer<'_>,
) -> bool {
    parse(certificate).is_some_and(|certificate| certificate.public_key().raw == key.as_ref())
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.callers.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let first = self
            .callers
            .verify_client_cert(end_entity, intermediates, now);
        first.or_else(|refusal| {
            self.issued_directly(end_entity, now, Purpose::Client, refusal)?;
            Ok(ClientCertVerified::assertion())
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let first = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        });
        first.or_else(|refusal| self.issued_directly(end_entity, now, Purpose::Server, refusal))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
