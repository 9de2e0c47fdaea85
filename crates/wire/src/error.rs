//! Errors, one enum per operation: reading bytes into values, framing, connecting.

use std::io;
use std::time::Duration;

/// Why bytes are not a message. The connection they came from cannot be trusted any more, except
/// that a stock server answers an undecodable request with an error map.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a value.
    #[error("msgpack ends early at byte {at}")]
    Truncated {
        /// Offset of the value that is cut short.
        at: usize,
    },
    /// A byte that begins no value (`0xc1`), or an extension type, which Dask never uses.
    #[error("unexpected msgpack marker 0x{marker:02x} at byte {at}")]
    Marker {
        /// The byte.
        marker: u8,
        /// Its offset.
        at: usize,
    },
    /// Text that is not UTF-8.
    #[error("msgpack string at byte {at} is not UTF-8")]
    Utf8 {
        /// Offset of the string.
        at: usize,
    },
    /// Nesting beyond [`crate::value::MAX_DEPTH`].
    #[error("msgpack is nested deeper than {} levels", crate::value::MAX_DEPTH)]
    TooDeep,
    /// More values than [`crate::value::MAX_NODES`].
    #[error("msgpack holds more than {} values", crate::value::MAX_NODES)]
    TooMany,
    /// Bytes are left over after the value.
    #[error("{0} bytes follow the msgpack value")]
    Trailing(usize),
    /// A value of another type than the protocol has in that place.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What the protocol has there.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// A map lacks an entry that the protocol requires.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A marker such as `{"__Serialized__": 7}` points at no payload.
    #[error("marker refers to frame {0}, which holds no payload header")]
    NoSuchPayload(i64),
    /// The frames after the first do not form headers and payloads.
    #[error("payload frames are inconsistent: {0}")]
    Frames(&'static str),
    /// Compressed bytes could not be restored.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A typed message did not have the expected shape.
    #[error("message `{op}`: {detail}")]
    Message {
        /// Operation, as the peer named it.
        op: String,
        /// What is wrong.
        detail: String,
    },
}

/// Why compressed bytes could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// A name that is not one of `lz4`, `snappy`, `zstd`, `zlib`.
    #[error("compression `{0}` is not supported")]
    Unknown(String),
    /// The peer's bytes are not what the header says.
    #[error("{name} data is corrupt: {detail}")]
    Corrupt {
        /// Algorithm.
        name: &'static str,
        /// What the library said.
        detail: String,
    },
    /// The result would be larger than we accept.
    #[error("{name} data expands to more than {limit} bytes")]
    TooLarge {
        /// Algorithm.
        name: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why no (further) message could be read from a connection.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed between two messages: the ordinary end.
    #[error("connection closed by the peer")]
    Closed,
    /// The peer closed in the middle of a message.
    #[error("connection closed in the middle of a message")]
    Cut,
    /// The peer announces a message beyond [`crate::connection::Limits`].
    #[error("message of {announced} {unit} exceeds the limit of {limit}")]
    TooLarge {
        /// What the peer's prelude says.
        announced: u64,
        /// What was counted: bytes or frames.
        unit: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Lengths that cannot belong to the framing of this connection.
    #[error("not a frame of this protocol: {0}")]
    Framing(&'static str),
    /// Frames arrived whole but are not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadError {
    /// Whether the stream is still in step, so that stock answers with an error map instead of
    /// closing: only the content of one message was bad.
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Decode(_))
    }
}

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The message could not be put into the form of the peer's release.
    #[error("message cannot be encoded for this peer: {0}")]
    Encode(#[from] DecodeError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why an incoming connection did not become a usable one.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer closed before it said anything; port scanners and health checks do that.
    #[error("closed before the handshake")]
    ClosedEarly,
    /// The first bytes belong to no release of `distributed` (an HTTP request, TLS on a plain port…).
    #[error("does not speak the Dask protocol: {0}")]
    NotDask(&'static str),
    /// The peer was greeted in the newer framing and kept silent: it probably speaks the older one.
    /// Its address is remembered; workers come back by themselves.
    #[error(
        "greeting of releases from 2021.03.0 on was not answered; the next connection from this address is greeted as an older release"
    )]
    Unanswered,
    /// The handshake was not complete in time.
    #[error("handshake not complete after {0:?}")]
    Timeout(Duration),
    /// The handshake is not one.
    #[error("bad handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why an outgoing connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `tcp://host:port`.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answered in time.
    #[error("no connection to {address} within {timeout:?}")]
    Timeout {
        /// Whom we called.
        address: String,
        /// How long we tried.
        timeout: Duration,
    },
    /// The peer's handshake is not one.
    #[error("{address}: bad handshake: {source}")]
    Handshake {
        /// Whom we called.
        address: String,
        /// What was wrong.
        source: HandshakeError,
    },
    /// Reading the handshake failed.
    #[error("{address}: {source}")]
    Read {
        /// Whom we called.
        address: String,
        /// What failed.
        source: ReadError,
    },
    /// `distributed.comm.require-encryption` is set, and the address is not encrypted. Worded as
    /// stock does.
    #[error("encryption required by Dask configuration, refusing communication from/to '{0}'")]
    NotEncrypted(String),
    /// The address wants TLS, for which we have no certificate.
    #[error(
        "{0} wants TLS, but no certificate is configured (distributed.comm.tls.ca-file and .cert)"
    )]
    NoCertificate(String),
    /// No TLS with the peer: mostly certificates that one side does not accept.
    #[error("{address}: TLS handshake failed: {source}")]
    Tls {
        /// Whom we called.
        address: String,
        /// What failed.
        source: io::Error,
    },
    /// The peer does not take WebSocket connections.
    #[error("{address}: no WebSocket connection: {source}")]
    WebSocket {
        /// Whom we called.
        address: String,
        /// What failed.
        source: io::Error,
    },
    /// The socket failed.
    #[error("{address}: {source}")]
    Io {
        /// Whom we called.
        address: String,
        /// What failed.
        source: io::Error,
    },
}

impl ConnectError {
    /// Whether trying again would not help, so that stock says at once what is wrong.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotEncrypted(_) | Self::NoCertificate(_) | Self::Address(_) => true,
            // A refusal of rustls; anything else may be a connection that broke.
            Self::Tls { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            _ => false,
        }
    }
}

/// What of a TLS configuration is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsItem {
    /// The certificates of the authorities.
    CaFile,
    /// Our certificate.
    Cert,
    /// Our key.
    Key,
}

impl std::fmt::Display for TlsItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CaFile => "ca-file",
            Self::Cert => "cert",
            Self::Key => "key",
        })
    }
}

/// Why a TLS configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {item} of TLS, {path}: {source}")]
    File {
        /// Which.
        item: TlsItem,
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A text is not what it should be.
    #[error("the {item} of TLS ({name}) is unusable: {detail}")]
    Malformed {
        /// Which.
        item: TlsItem,
        /// Path, or what it is.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A key with a pass phrase.
    #[error(
        "the private key of TLS ({name}) is encrypted, and nobody can be asked for its pass phrase; \
         decrypt it with `openssl pkey -in KEY -out NEW_KEY`"
    )]
    EncryptedKey {
        /// Which text held it.
        item: TlsItem,
        /// Path, or what it is.
        name: String,
    },
    /// A key of a kind that is not supported.
    #[error("the private key of TLS is unusable: {0}")]
    UnusableKey(String),
    /// Key and certificate do not belong together.
    #[error("the private key of TLS does not belong to the certificate")]
    KeyMismatch,
    /// No suite that we have.
    #[error("no cipher of '{list}' is supported; those of TLS 1.2 are {known}")]
    Ciphers {
        /// As given.
        list: String,
        /// What there is.
        known: String,
    },
    /// The limits leave no version.
    #[error("the TLS min-version is above the max-version")]
    NoVersion,
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Why a handshake is unusable.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not msgpack.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Not a map with `pickle-protocol`.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A scheme this build does not speak.
    #[error("protocol `{scheme}` of address `{address}` is not supported; use tcp, tls, ws or wss")]
    Scheme {
        /// What was asked for.
        scheme: String,
        /// The whole text.
        address: String,
    },
    /// No port, or not a number.
    #[error("address `{0}` has no usable port")]
    Port(String),
}
