//! Whose certificate is accepted: one that an authority of `ca-file` has issued, at any remove, when
//! both are valid now. Names in it do not matter.
//!
//! webpki decides, with OpenSSL's idea (and so stock's) of what an authority is: a certificate in
//! `ca-file` that is none, such as that of `Security.temporary()`, stands for itself alone, and one
//! that has expired for nobody.
//!
//! Two kinds of certificates that clusters made by hand often have are accepted by OpenSSL and
//! refused by webpki on principle: those of X.509 version 1 (`openssl x509 -req` without extensions),
//! and authorities that use their own certificate as a server or client (`openssl req -x509`). These
//! must be in `ca-file` themselves, or come directly from an authority there.

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
    known: Vec<Known>,
    /// Those that may issue, whenever they are valid.
    issuers: Trust,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

/// A certificate of `ca-file`.
#[derive(Debug)]
struct Known {
    der: CertificateDer<'static>,
    may_issue: bool,
}

/// webpki with some authorities.
#[derive(Debug)]
struct Trust {
    roots: Arc<RootCertStore>,
    /// None without authorities.
    callers: Option<Arc<dyn ClientCertVerifier>>,
}

impl Trust {
    fn new<'a>(
        authorities: impl Iterator<Item = &'a Known>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.der.clone())?;
        }
        let roots = Arc::new(roots);
        let callers = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(provider),
            );
            let built = builder.build();
            Some(built.map_err(|error| Error::General(error.to_string()))?)
        };
        Ok(Self { roots, callers })
    }

    fn check(
        &self,
        shown: &Shown<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let Shown {
            leaf,
            intermediates,
            now,
            purpose,
        } = *shown;
        match (purpose, &self.callers) {
            (Purpose::Client, None) => Err(CertificateError::UnknownIssuer.into()),
            (Purpose::Client, Some(callers)) => callers
                .verify_client_cert(leaf, intermediates, now)
                .map(|_| ()),
            (Purpose::Server, _) => {
                let parsed = ParsedCertificate::try_from(leaf)?;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &self.roots,
                    intermediates,
                    now,
                    algorithms.all,
                )
            }
        }
    }
}

/// What the other side shows, when, and for what.
#[derive(Clone, Copy)]
struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
    purpose: Purpose,
}

impl PeerVerifier {
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let malformed = |number: usize, detail: String| TlsError::Malformed {
            item: TlsItem::CaFile,
            name: format!("certificate {}", number + 1),
            detail,
        };
        let mut known = Vec::new();
        let mut every = RootCertStore::empty();
        for (number, der) in authorities.into_iter().enumerate() {
            let added = every.add(der.clone());
            added.map_err(|error| malformed(number, error.to_string()))?;
            let parsed = parse(&der).ok_or_else(|| malformed(number, "no X.509".to_owned()))?;
            let may_issue = may_issue(&parsed);
            known.push(Known { der, may_issue });
        }
        let issuers = Trust::new(known.iter().filter(|known| known.may_issue), provider)
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        Ok(Self {
            known,
            issuers,
            hints: every.subjects(),
            provider: Arc::clone(provider),
        })
    }

    fn check(&self, shown: &Shown<'_>) -> Result<(), Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match self.issuers.check(shown, algorithms) {
            Ok(()) => self.check_issuers_are_valid(shown, algorithms),
            Err(refusal) => self.known_or_issued_directly(shown, refusal),
        }
    }

    /// webpki does not look at the dates of authorities; OpenSSL does.
    fn check_issuers_are_valid(
        &self,
        shown: &Shown<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let issuers = || self.known.iter().filter(|known| known.may_issue);
        if issuers().all(|known| known.is_valid(shown.now)) {
            return Ok(());
        }
        let valid = issuers().filter(|known| known.is_valid(shown.now));
        Trust::new(valid, &self.provider)?
            .check(shown, algorithms)
            .map_err(|_| CertificateError::Expired.into())
    }

    /// The second opinion on a certificate that webpki refuses with `refusal`.
    fn known_or_issued_directly(&self, shown: &Shown<'_>, refusal: Error) -> Result<(), Error> {
        let Some(leaf) = parse(shown.leaf) else {
            return Err(refusal);
        };
        if !self.known.iter().any(|known| known.der == *shown.leaf) {
            if leaf.version() != X509Version::V1 && !leaf.is_ca() {
                return Err(refusal);
            }
            let issuers = self.known.iter().filter(|known| known.may_issue);
            let mut issuers = issuers.filter_map(|known| Some((known, parse(&known.der)?)));
            let Some((issuer, _)) = issuers.find(|(_, issuer)| has_issued(issuer, &leaf)) else {
                return Err(CertificateError::UnknownIssuer.into());
            };
            if !issuer.is_valid(shown.now) {
                return Err(CertificateError::Expired.into());
            }
        }
        check_time(&leaf, shown.now)?;
        check_extensions(&leaf, shown.purpose)
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let first_version = parse(leaf).filter(|leaf| leaf.version() == X509Version::V1);
        let Some(leaf) = first_version else {
            return if is_tls13 {
                verify_tls13_signature(message, leaf, signed, algorithms)
            } else {
                verify_tls12_signature(message, leaf, signed, algorithms)
            };
        };
        let key = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
        if is_tls13 {
            return verify_tls13_signature_with_raw_key(message, &key, signed, algorithms);
        }
        let bad = || Error::from(CertificateError::BadSignature);
        let entity = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| bad())?;
        let mapping = algorithms.mapping.iter();
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

impl Known {
    fn is_valid(&self, now: UnixTime) -> bool {
        parse(&self.der).is_some_and(|parsed| check_time(&parsed, now).is_ok())
    }
}

/// OpenSSL's idea of an authority. Without it, who has the key of a member's certificate that is in
/// `ca-file` could make others, with any name.
fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    let Ok(usage) = certificate.key_usage() else {
        return false;
    };
    let signs = usage.map(|usage| usage.value.key_cert_sign());
    match certificate.basic_constraints() {
        Err(_) => false,
        Ok(Some(constraints)) => constraints.value.ca && signs != Some(false),
        Ok(None) if certificate.version() == X509Version::V1 => {
            certificate.subject().as_raw() == certificate.issuer().as_raw()
        }
        Ok(None) => signs == Some(true),
    }
}

/// Whether a signature is an authority's. One that may issue only certain names is not asked here.
fn has_issued(authority: &X509Certificate<'_>, leaf: &X509Certificate<'_>) -> bool {
    let algorithm = &leaf.signature_algorithm.algorithm;
    // Collisions of SHA-1 can be made.
    let weak = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA];
    authority.subject().as_raw() == leaf.issuer().as_raw()
        && matches!(authority.name_constraints(), Ok(None))
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

/// As OpenSSL does for a certificate of that purpose.
fn check_extensions(leaf: &X509Certificate<'_>, purpose: Purpose) -> Result<(), Error> {
    for extension in leaf.extensions() {
        let allowed = match (extension.parsed_extension(), purpose) {
            (ParsedExtension::ExtendedKeyUsage(usage), Purpose::Client) => usage.client_auth,
            (ParsedExtension::ExtendedKeyUsage(usage), Purpose::Server) => usage.server_auth,
            (ParsedExtension::KeyUsage(usage), _) => {
                usage.digital_signature()
                    || usage.key_agreement()
                    || purpose == Purpose::Server && usage.key_encipherment()
            }
            (ParsedExtension::BasicConstraints(_), _)
            | (ParsedExtension::SubjectAlternativeName(_), _) => true,
            (ParsedExtension::ParseError { .. }, _) => {
                return Err(CertificateError::BadEncoding.into());
            }
            _ if extension.critical => {
                return Err(CertificateError::UnhandledCriticalExtension.into());
            }
            _ => true,
        };
        if !allowed {
            return Err(CertificateError::InvalidPurpose.into());
        }
    }
    Ok(())
}

/// Attributes of the subject; those of unknown kinds have their number as a name. None if any of them
/// cannot be read, so that no rule decides on a part.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<(String, String)>> {
    let certificate = parse(certificate)?;
    let attributes = certificate.subject().iter_attributes();
    let named = attributes.map(|attribute| {
        let kind = attribute.attr_type();
        let name = oid2abbrev(kind, oid_registry());
        let name = name.map_or_else(|_| kind.to_id_string(), str::to_owned);
        Some((name, attribute.as_str().ok()?.to_owned()))
    });
    named.collect()
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
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(&Shown {
            leaf: end_entity,
            intermediates,
            now,
            purpose: Purpose::Client,
        })?;
        Ok(ClientCertVerified::assertion())
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
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
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
        self.check(&Shown {
            leaf: end_entity,
            intermediates,
            now,
            purpose: Purpose::Server,
        })?;
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
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Takes any certificate; that the other side has its key is looked at all the same.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
