//! Where the scheduler is, and where a nanny listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use oxidask_cli::WorkerArgs;
use oxidask_config::Config;
use oxidask_wire::connection::{Address, Scheme};

/// Between two looks for a scheduler file that is not there yet.
const PAUSE: Duration = Duration::from_millis(100);
/// Port of a scheduler whose address has none.
const SCHEDULER_PORT: u16 = 8786;

/// Why an address is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(
        "Need to provide scheduler address like\n  dask-worker SCHEDULER_ADDRESS:8786\nor by --scheduler-file \
         or the variable DASK_SCHEDULER_ADDRESS"
    )]
    NoScheduler,
    #[error("--scheduler-file {0} is not there, or has no address, after {1} s (--death-timeout)")]
    NoSchedulerFile(String, f64),
    #[error("the scheduler's address is of no use: {0}")]
    Scheduler(#[from] oxidask_wire::error::AddressError),
    #[error("protocol '{0}' is not supported; use tcp or tls")]
    Protocol(String),
    #[error("--interface {0}: no such network interface with an address; see `ip addr`")]
    Interface(String),
    #[error("--host {0}: no such name or address")]
    Host(String),
}

/// The scheduler's address of the command line, its file or the configuration; with protocol and port.
/// Waits for a file that is not there yet.
pub(crate) fn scheduler(args: &WorkerArgs, config: &Config) -> Result<Address, AddressError> {
    let given = match (&args.scheduler_file, &args.scheduler) {
        (Some(file), _) => Some(in_file(file, args.death_timeout)?),
        (None, Some(address)) => Some(address.clone()),
        (None, None) => config.str("scheduler-address"),
    };
    let text = given
        .filter(|text| !text.is_empty())
        .ok_or(AddressError::NoScheduler)?;
    let default = config.str("distributed.comm.default-scheme");
    Ok(complete(&text, default.as_deref().unwrap_or("tcp"))?)
}

fn complete(text: &str, scheme: &str) -> Result<Address, oxidask_wire::error::AddressError> {
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("{scheme}://{text}"),
    };
    let host = text.split_once("://").map_or("", |(_, rest)| rest);
    // After the brackets of IPv6.
    let tail = host.rsplit_once(']').map_or(host, |(_, tail)| tail);
    let has_port = tail.contains(':');
    Address::parse(&match has_port {
        true => text,
        false => format!("{text}:{SCHEDULER_PORT}"),
    })
}

fn in_file(file: &Path, limit: Option<f64>) -> Result<String, AddressError> {
    let begin = Instant::now();
    loop {
        let found = std::fs::read_to_string(file).ok().and_then(|text| {
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            json.get("address")?.as_str().map(str::to_owned)
        });
        match (found, limit) {
            (Some(address), _) => return Ok(address),
            (None, Some(limit)) if begin.elapsed().as_secs_f64() >= limit => {
                let file = file.display().to_string();
                return Err(AddressError::NoSchedulerFile(file, limit));
            }
            (None, _) => std::thread::sleep(PAUSE),
        }
    }
}

/// How a nanny listens: by `--protocol`, else as the scheduler. Not for WebSocket connections: whoever can use
/// these can use those beneath.
pub(crate) fn scheme(args: &WorkerArgs, scheduler: &Address) -> Result<Scheme, AddressError> {
    let Some(protocol) = &args.protocol else {
        return Ok(beneath(scheduler.scheme));
    };
    let name = protocol.strip_suffix("://").unwrap_or(protocol);
    match Scheme::parse(name) {
        Some(scheme) => Ok(beneath(scheme)),
        None => Err(AddressError::Protocol(protocol.clone())),
    }
}

fn beneath(scheme: Scheme) -> Scheme {
    match scheme {
        Scheme::Tcp | Scheme::Ws => Scheme::Tcp,
        Scheme::Tls | Scheme::Wss => Scheme::Tls,
    }
}

/// Where a nanny listens: by `--host` or `--interface`, else the address that leads to the scheduler.
pub(crate) fn listen_ip(args: &WorkerArgs, scheduler: &Address) -> Result<IpAddr, AddressError> {
    if let Some(host) = &args.host {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = (bare, 0)
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next());
        return found
            .map(|address| address.ip())
            .ok_or_else(|| AddressError::Host(host.clone()));
    }
    if let Some(interface) = &args.interface {
        return interface_address(interface);
    }
    let target = (scheduler.host.as_str(), scheduler.port).to_socket_addrs();
    let target = target.ok().and_then(|mut all| all.next());
    Ok(target
        .and_then(own_address)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// The own address from which `target` would be reached. Nothing is sent.
fn own_address(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The first address of a network interface, IPv4 before IPv6.
fn interface_address(name: &str) -> Result<IpAddr, AddressError> {
    let missing = || AddressError::Interface(name.to_owned());
    let addresses = if_addrs::get_if_addrs().map_err(|_| missing())?;
    let named = addresses.into_iter().filter(|one| one.name == name);
    named
        .map(|interface| interface.ip())
        .min_by_key(IpAddr::is_ipv6)
        .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_and_port_are_completed() {
        let table = [
            ("dask-scheduler:8786", "tcp://dask-scheduler:8786"),
            ("dask-scheduler", "tcp://dask-scheduler:8786"),
            ("tls://10.0.0.1", "tls://10.0.0.1:8786"),
            ("tcp://[::1]", "tcp://[::1]:8786"),
            ("tcp://[::1]:1", "tcp://[::1]:1"),
        ];
        for (given, complete_) in table {
            let address = complete(given, "tcp").expect(given);
            assert_eq!(address.to_string(), complete_, "{given}");
        }
        assert!(complete("host:port", "tcp").is_err());
    }

    #[test]
    fn a_local_scheduler_is_reached_from_a_local_address() {
        let scheduler = Address::parse("tcp://127.0.0.1:8786").expect("an address");
        let target = (scheduler.host.as_str(), scheduler.port);
        let target = target.to_socket_addrs().expect("resolved").next();
        assert_eq!(
            own_address(target.expect("one")),
            Some(Ipv4Addr::LOCALHOST.into())
        );
    }

    #[test]
    fn an_address_is_read_from_the_schedulers_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("scheduler.json");
        let missing = in_file(&file, Some(0.0));
        assert!(matches!(missing, Err(AddressError::NoSchedulerFile(..))));
        std::fs::write(&file, r#"{"type": "Scheduler", "address": "tcp://h:1"}"#).expect("written");
        assert_eq!(in_file(&file, None).expect("read"), "tcp://h:1");
    }
}
