//! Where to listen, and what address to tell peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use oxidask_cli::{PortSpec, SchedulerArgs};
use oxidask_config::Config;

/// Stock's port.
const DEFAULT_PORT: u16 = 8786;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Only TCP is spoken so far.
    #[error("protocol '{0}' is not supported yet; use tcp")]
    Protocol(String),
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

/// What the options say.
#[derive(Debug)]
pub(super) struct ListenAddress {
    /// Name or number; empty for all interfaces.
    host: String,
    ports: PortSpec,
}

impl ListenAddress {
    pub(super) fn from_args(args: &SchedulerArgs, config: &Config) -> Result<Self, AddressError> {
        let mut protocol = args.protocol.first().cloned();
        let mut host = args.host.clone().unwrap_or_default();
        if let Some((scheme, rest)) = host.clone().split_once("://") {
            protocol = Some(scheme.to_owned());
            host = rest.to_owned();
        }
        let protocol = protocol
            .or_else(|| config.str("distributed.comm.default-scheme"))
            .unwrap_or_else(|| "tcp".to_owned());
        if protocol != "tcp" {
            return Err(AddressError::Protocol(protocol));
        }
        let (host, own_port) = split_port(&host)?;
        let host = match args.interface.first() {
            Some(name) if host.is_empty() => interface_address(name)?.to_string(),
            _ => host,
        };
        let ports = match (&args.port, own_port) {
            (_, Some(port)) => PortSpec::List(vec![port]),
            (Some(ports), None) => ports.clone(),
            (None, None) => PortSpec::List(vec![DEFAULT_PORT]),
        };
        Ok(Self { host, ports })
    }

    /// Socket addresses to try in order.
    pub(super) async fn candidates(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let ip = self.ip().await?;
        let mut candidates: Vec<SocketAddr> = self
            .ports
            .candidates()
            .map(|port| SocketAddr::new(ip, port))
            .collect();
        if let PortSpec::List(_) = self.ports {
            // Several ports belong to as many protocols, of which we speak one.
            candidates.truncate(1);
        }
        Ok(candidates)
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
    pub(super) fn contact(&self, bound: SocketAddr, config: &Config) -> String {
        if let Some(contact) = config.str("distributed.scheduler.contact-address") {
            return if contact.contains("://") {
                contact
            } else {
                format!("tcp://{contact}")
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
        format!("tcp://{}", SocketAddr::new(ip, bound.port()))
    }
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
