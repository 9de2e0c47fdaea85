//! TLS as stock has it: both sides show certificates, one configured authority vouches for both,
//! host names are not compared (peers call each other by number). TLS 1.2 and 1.3.
//!
//! Files and inline texts are read in `pem.rs`, cipher names in `ciphers.rs`; `verify.rs` decides
//! on certificates.

mod ciphers;
mod pem;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
pub use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, ServerConfig, SupportedProtocolVersion};
use rustls::{WantsVerifier, WantsVersions};
use tokio::io::{AsyncRead, AsyncWrite};
pub use tokio_rustls::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ReadSide, Scheme, Transport, TransportInfo, UncleanEnd, WriteSide};
use crate::error::{TlsError, TlsItem};
use verify::{Anybody, PeerVerifier};

/// What is configured for one role. Files are paths, or PEM text if there is a newline in them (as
/// `Security.temporary()` has it).
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// `tls.ca-file`: certificates of the authorities that peers' certificates come from.
    pub ca_file: Option<String>,
    /// `tls.<role>.cert`: our certificate, then those between it and the authority.
    pub cert: Option<String>,
    /// `tls.<role>.key`; None when it is in the file of the certificate.
    pub key: Option<String>,
    /// `tls.ciphers`: suites of TLS 1.2, in OpenSSL's spelling. Those of TLS 1.3 are not chosen.
    pub ciphers: Option<String>,
    /// `tls.min-version` (since 2022.01.0).
    pub min_version: TlsVersion,
    /// `tls.max-version` (since 2022.01.0); None: no limit.
    pub max_version: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsVersion {
    /// The version that a configuration writes as this number; None: no release of stock takes it.
    #[must_use]
    pub fn from_number(number: f64) -> Option<Self> {
        match number {
            1.2 => Some(Self::V1_2),
            1.3 => Some(Self::V1_3),
            _ => None,
        }
    }
}

/// How this process proves who it is, and whom it talks to.
#[derive(Clone, Default)]
pub struct Security {
    tls: Option<Tls>,
    require_encryption: bool,
}

#[derive(Clone)]
struct Tls {
    server: TlsServer,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("tls", &self.tls.is_some())
            .field("require_encryption", &self.require_encryption)
            .finish()
    }
}

impl Security {
    /// Reads what is configured. As in stock there is TLS only if both the authorities and a
    /// certificate are given.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn new(options: &TlsOptions, require_encryption: bool) -> Result<Self, TlsError> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let tls = if given(&options.ca_file) && given(&options.cert) {
            Some(Tls::new(options)?)
        } else {
            None
        };
        Ok(Self {
            tls,
            require_encryption,
        })
    }

    /// Whether connections without TLS are refused.
    pub fn require_encryption(&self) -> bool {
        self.require_encryption
    }

    /// The side that is called; None without certificates.
    pub fn server(&self) -> Option<&TlsServer> {
        self.tls.as_ref().map(|tls| &tls.server)
    }

    /// Calls over a stream that is connected already. `name`: what is asked for (SNI), for servers behind a
    /// proxy that goes by it; nothing is, like by stock, without one. None without certificates.
    ///
    /// # Errors
    /// Those of the handshake, and of a name that is none of a host.
    pub(super) async fn connect<S>(
        &self,
        name: Option<&str>,
        stream: S,
    ) -> Option<io::Result<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut client = Arc::clone(&self.tls.as_ref()?.client);
        // Neither sent nor compared.
        let mut server = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        if let Some(name) = name {
            Arc::make_mut(&mut client).enable_sni = true;
            server = match ServerName::try_from(name.to_owned()) {
                Ok(server) => server,
                Err(error) => {
                    return Some(Err(io::Error::new(io::ErrorKind::InvalidInput, error)));
                }
            };
        }
        let stream = TlsConnector::from(client).connect(server, stream).await;
        Some(stream.map(TlsStream::Client))
    }
}

impl Tls {
    fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(options.ciphers.as_deref())?);
        let authorities = pem::certificates(TlsItem::CaFile, options.ca_file.as_deref())?;
        let verifier = Arc::new(PeerVerifier::new(authorities, &provider)?);
        let identity = identity(options, &provider)?;

        let versions = versions(options)?;
        let mut server = builder(&provider, &versions, ServerConfig::builder_with_provider)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&identity) as _);
        no_resumption(&mut server);

        let mut client = builder(&provider, &versions, ClientConfig::builder_with_provider)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(identity);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self {
            server: TlsServer(Arc::new(server)),
            client: Arc::new(client),
        })
    }
}

/// The side of TLS that is called.
#[derive(Clone)]
pub struct TlsServer(Arc<ServerConfig>);

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer")
    }
}

impl TlsServer {
    /// A server that asks nobody for a certificate, as for HTTPS. Only certificate and key of
    /// `options` are used.
    ///
    /// # Errors
    /// As [`Security::new`].
    pub fn for_anybody(options: &TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(None)?);
        let identity = identity(options, &provider)?;
        let versions = versions(options)?;
        let mut server = builder(&provider, &versions, ServerConfig::builder_with_provider)?
            .with_no_client_auth()
            .with_cert_resolver(identity);
        no_resumption(&mut server);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(server)))
    }

    /// The handshake with a caller. Wrap it in a timeout.
    ///
    /// # Errors
    /// When the caller speaks no TLS, breaks off, or shows no certificate that we accept.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0));
        Ok(TlsStream::Server(acceptor.accept(stream).await?))
    }
}

/// TLS with whoever answers, whatever its certificate: for asking a process on this machine how it is, and
/// for nothing that is to be kept from others.
///
/// # Errors
/// When the other side speaks no TLS that we know.
pub async fn connect_to_anybody<S>(stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Anybody(provider.signature_verification_algorithms);
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream);
    Ok(TlsStream::Client(stream.await?))
}

/// Stock peers never resume sessions, and each connection is to prove itself anew.
fn no_resumption(server: &mut ServerConfig) {
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
}

fn provider(ciphers: Option<&str>) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(ciphers) = ciphers.filter(|text| !text.trim().is_empty()) {
        ciphers::retain(&mut provider.cipher_suites, ciphers)?;
    }
    Ok(provider)
}

fn versions(options: &TlsOptions) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let allowed = |version: TlsVersion| {
        version >= options.min_version && options.max_version.is_none_or(|max| version <= max)
    };
    let mut versions = Vec::new();
    if allowed(TlsVersion::V1_2) {
        versions.push(&rustls::version::TLS12);
    }
    if allowed(TlsVersion::V1_3) {
        versions.push(&rustls::version::TLS13);
    }
    if versions.is_empty() {
        return Err(TlsError::NoVersion);
    }
    Ok(versions)
}

fn builder<Side: ConfigSide>(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    begin: fn(Arc<CryptoProvider>) -> ConfigBuilder<Side, WantsVersions>,
) -> Result<ConfigBuilder<Side, WantsVerifier>, TlsError> {
    begin(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// Our certificate with its key.
fn identity(
    options: &TlsOptions,
    provider: &CryptoProvider,
) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let chain = pem::certificates(TlsItem::Cert, options.cert.as_deref())?;
    let key = pem::private_key(options.key.as_deref(), options.cert.as_deref())?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| TlsError::UnusableKey(error.to_string()))?;
    let public = key.public_key();
    if let (Some(public), Some(leaf)) = (public, chain.first())
        && !verify::has_public_key(leaf, &public)
    {
        return Err(TlsError::KeyMismatch);
    }
    // `CertifiedKey::from_der` would refuse certificates of X.509 version 1.
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        chain, key,
    ))))
}

impl<S> Transport for TlsStream<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: Scheme::Tls,
            certificate: peer_certificate(self),
        }
    }

    fn into_halves(self) -> (ReadSide, WriteSide) {
        let (read, write) = tokio::io::split(self);
        (
            ReadSide::Other(Box::new(UncleanEnd(read))),
            WriteSide::Other(Box::new(write)),
        )
    }
}

/// Attributes of a certificate's subject with their short names (`CN`, `O`, …), in order. None if it
/// cannot be read.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<(String, String)>> {
    verify::subject(certificate)
}

/// What the other side has shown.
pub fn peer_certificate<S>(stream: &TlsStream<S>) -> Option<CertificateDer<'static>> {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates()?;
    chain.first().map(|leaf| leaf.clone().into_owned())
}
