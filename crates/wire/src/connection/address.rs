//! Addresses as text: `tcp://host:port`.

use std::fmt;

use crate::error::AddressError;

/// A transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    #[default]
    Tcp,
    /// TLS over TCP, with the same framing inside.
    Tls,
    /// WebSocket (2020.12.0 and later).
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Scheme {
    /// Reads the part of an address before `://`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => return None,
        })
    }

    /// The part of an address before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether TLS protects it.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether frames travel as WebSocket messages.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A parsed address. The text a peer registered with stays its identity; this is only for calling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// How to connect.
    pub scheme: Scheme,
    /// Name or number, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// Reads `tcp://host:port`, `tls://host:port`, `host:port` (TCP), `tcp://[::1]:8786`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let known = Scheme::parse(scheme).ok_or_else(|| AddressError::Scheme {
                    scheme: scheme.into(),
                    address: text.into(),
                })?;
                (known, rest)
            }
            None => (Scheme::Tcp, text),
        };
        let bad = || AddressError::Port(text.into());
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, scheme, host, port, printed) in [
            (
                "tcp://10.0.0.1:8786",
                Scheme::Tcp,
                "10.0.0.1",
                8786,
                "tcp://10.0.0.1:8786",
            ),
            (
                "scheduler:8786",
                Scheme::Tcp,
                "scheduler",
                8786,
                "tcp://scheduler:8786",
            ),
            ("tcp://[::1]:80", Scheme::Tcp, "::1", 80, "tcp://[::1]:80"),
            ("tls://[::1]:80", Scheme::Tls, "::1", 80, "tls://[::1]:80"),
            ("ws://a:1", Scheme::Ws, "a", 1, "ws://a:1"),
            ("wss://a:1", Scheme::Wss, "a", 1, "wss://a:1"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.scheme, scheme, "{text}");
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), printed);
        }
        assert!(matches!(
            Address::parse("ucx://a:1"),
            Err(AddressError::Scheme { .. })
        ));
        for bad in ["tcp://a", "tcp://a:b", "", "tls://a:99999"] {
            assert!(
                matches!(Address::parse(bad), Err(AddressError::Port(_))),
                "{bad}"
            );
        }
    }
}
