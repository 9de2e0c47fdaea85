//! Where to listen, and what address to tell peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use oxidask_cli::{PortSpec, SchedulerArgs};
use oxidask_config::Config;
use oxidask_wire::connection::{Scheme, Security};

use crate::security::has_tls_options;

/// Stock's port.
const DEFAULT_PORT: u16 = 8786;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not spoken here.
    #[error("protocol '{0}' is not supported; use tcp, tls, ws or wss")]
    Protocol(String),
    /// TLS without certificates.
    #[error(
        "protocol '{0}' needs a certificate: give --tls-ca-file, --tls-cert and --tls-key, or set \
         distributed.comm.tls.ca-file, distributed.comm.tls.scheduler.cert and .key"
    )]
    NoCertificate(Scheme),
    /// Encryption is required, and the protocol has none. The beginning is worded as in stock.
    #[error(
        "encryption required by Dask configuration, refusing communication from/to '{scheme}://{host}'; \
         use --protocol {instead}"
    )]
    NotEncrypted {
        /// What was asked for.
        scheme: Scheme,
        /// Where.
        host: String,
        /// The same with encryption.
        instead: Scheme,
    },
    /// No such host.
    #[error("--host {host}: {source}; give an address of this machine")]
    Host {
        /// As given.
        host: String,
        /// Why not.
        source: std::io::Error,
    },
    /// No such interface.
    #[error("--interface {0}: no such network interface with an address; see `ip addr`")]
    Interface(String),
    /// Not a number.
    #[error("'{0}' is not a port; give a number up to 65535")]
    Port(String),
}

/// What the options say of one listener.
#[derive(Debug)]
pub(super) struct ListenAddress {
    pub(super) scheme: Scheme,
    /// Name or number; empty for all interfaces.
    host: String,
    ports: PortSpec,
}

impl ListenAddress {
    /// One for each protocol; lists of protocols, ports and interfaces belong together one by one.
    pub(super) fn from_args(
        args: &SchedulerArgs,
        config: &Config,
        security: &Security,
    ) -> Result<Vec<Self>, AddressError> {
        let listeners = args.protocol.len().max(1);
        (0..listeners)
            .map(|index| Self::nth(index, args, config, security))
            .collect()
    }

    fn nth(
        index: usize,
        args: &SchedulerArgs,
        config: &Config,
        security: &Security,
    ) -> Result<Self, AddressError> {
        let host = args.host.clone().unwrap_or_default();
        let (own_scheme, host) = match host.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_owned()), rest.to_owned()),
            None => (None, host),
        };
        // As in stock: a protocol outranks that of the host, and the options of TLS mean TLS.
        let implied =
            security.require_encryption() || (args.host.is_none() && has_tls_options(args));
        let protocol = args
            .protocol
            .get(index)
            .cloned()
            .or_else(|| implied.then(|| "tls".to_owned()))
            .or(own_scheme)
            .or_else(|| config.str("distributed.comm.default-scheme"))
            .unwrap_or_else(|| "tcp".to_owned());
        let name = protocol.strip_suffix("://").unwrap_or(&protocol);
        let scheme = Scheme::parse(name).ok_or_else(|| AddressError::Protocol(name.to_owned()))?;
        check_encryption(scheme, &host, security)?;
        let (host, own_port) = split_port(&host)?;
        let interface = args.interface.get(index).or(args.interface.first());
        let host = match interface {
            Some(name) if host.is_empty() => interface_address(name)?.to_string(),
            _ => host,
        };
        let ports = match (&args.port, own_port) {
            (_, Some(port)) => PortSpec::List(vec![port]),
            (Some(PortSpec::List(ports)), None) => {
                PortSpec::List(vec![ports.get(index).copied().unwrap_or(0)])
            }
            (Some(range), None) => range.clone(),
            (None, None) if index == 0 => PortSpec::List(vec![DEFAULT_PORT]),
            (None, None) => PortSpec::List(vec![0]),
        };
        Ok(Self {
            scheme,
            host,
            ports,
        })
    }

    /// Socket addresses to try in order.
    pub(super) async fn candidates(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let ip = self.ip().await?;
        let ports = self.ports.candidates();
        Ok(ports.map(|port| SocketAddr::new(ip, port)).collect())
    }

    async fn ip(&self) -> Result<IpAddr, AddressError> {
        if self.host.is_empty() {
            return Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        if let Ok(ip) = self.host.parse() {
            return Ok(ip);
        }
        let failed = |source| AddressError::Host {
            host: self.host.clone(),
            source,
        };
        let found = tokio::net::lookup_host((self.host.as_str(), 0)).await;
        let mut found = found.map_err(failed)?;
        let address = found.next();
        address
            .map(|address| address.ip())
            .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    /// What peers are told: the configured contact address, else the address listened on; for all
    /// interfaces the one that leads to the outside.
    pub(super) fn contact(&self, bound: SocketAddr, configured: Option<String>) -> String {
        if let Some(contact) = configured {
            return if contact.contains("://") {
                contact
            } else {
                format!("{}://{contact}", self.scheme)
            };
        }
        let ip = match bound.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => outside_address(Ipv4Addr::UNSPECIFIED.into(), "8.8.8.8:80")
                .unwrap_or(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(_) => {
                outside_address(Ipv6Addr::UNSPECIFIED.into(), "[2001:4860:4860::8888]:80")
                    .unwrap_or(Ipv6Addr::LOCALHOST.into())
            }
        };
        format!("{}://{}", self.scheme, SocketAddr::new(ip, bound.port()))
    }
}

/// Whether the protocol can be spoken with the certificates there are, and may be.
fn check_encryption(scheme: Scheme, host: &str, security: &Security) -> Result<(), AddressError> {
    if scheme.is_encrypted() {
        return match security.server() {
            Some(_) => Ok(()),
            None => Err(AddressError::NoCertificate(scheme)),
        };
    }
    if security.require_encryption() {
        let instead = match scheme {
            Scheme::Ws | Scheme::Wss => Scheme::Wss,
            Scheme::Tcp | Scheme::Tls => Scheme::Tls,
        };
        return Err(AddressError::NotEncrypted {
            scheme,
            host: host.to_owned(),
            instead,
        });
    }
    Ok(())
}

/// The own address from which `target` would be reached. Nothing is sent.
fn outside_address(any: IpAddr, target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn split_port(host: &str) -> Result<(String, Option<u16>), AddressError> {
    let number = |text: &str| -> Result<Option<u16>, AddressError> {
        if text.is_empty() {
            return Ok(None);
        }
        let port = text
            .parse()
            .map_err(|_| AddressError::Port(text.to_owned()))?;
        Ok(Some(port))
    };
    if let Some(rest) = host.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return Ok((ip.to_owned(), number(rest.strip_prefix(':').unwrap_or(""))?));
    }
    match host.split_once(':') {
        // More than one colon: a bare IPv6 address.
        Some((_, port)) if port.contains(':') => Ok((host.to_owned(), None)),
        Some((name, port)) => Ok((name.to_owned(), number(port)?)),
        None => Ok((host.to_owned(), None)),
    }
}

/// The first address of a network interface, IPv4 before IPv6.
fn interface_address(name: &str) -> Result<IpAddr, AddressError> {
    let missing = || AddressError::Interface(name.to_owned());
    let addresses = if_addrs::get_if_addrs().map_err(|_| missing())?;
    let mut own: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|interface| interface.name == name)
        .map(|interface| interface.ip())
        .collect();
    own.sort_by_key(IpAddr::is_ipv6);
    own.into_iter().next().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_may_carry_a_port() {
        let table = [
            ("", "", None),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("name:0", "name", Some(0)),
            (":8786", "", Some(8786)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
        ];
        for (text, host, port) in table {
            let split = split_port(text).unwrap();
            assert_eq!(split, (host.to_owned(), port), "{text}");
        }
        assert!(split_port("name:x").is_err());
    }
}
