//! Addresses as text: `tcp://host:port`.

use std::fmt;

use crate::error::AddressError;

/// A parsed address. The text a peer registered with stays its identity; this is only for calling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or number, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// Reads `tcp://host:port`, `host:port`, `tcp://[::1]:8786`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let rest = match text.split_once("://") {
            Some(("tcp", rest)) => rest,
            Some((scheme, _)) => {
                return Err(AddressError::Scheme {
                    scheme: scheme.into(),
                    address: text.into(),
                });
            }
            None => text,
        };
        let bad = || AddressError::Port(text.into());
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "tcp://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "tcp://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, host, port, printed) in [
            (
                "tcp://10.0.0.1:8786",
                "10.0.0.1",
                8786,
                "tcp://10.0.0.1:8786",
            ),
            ("scheduler:8786", "scheduler", 8786, "tcp://scheduler:8786"),
            ("tcp://[::1]:80", "::1", 80, "tcp://[::1]:80"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), printed);
        }
        assert!(matches!(
            Address::parse("ucx://a:1"),
            Err(AddressError::Scheme { .. })
        ));
        for bad in ["tcp://a", "tcp://a:b", "", "tcp://a:99999"] {
            assert!(
                matches!(Address::parse(bad), Err(AddressError::Port(_))),
                "{bad}"
            );
        }
    }
}
