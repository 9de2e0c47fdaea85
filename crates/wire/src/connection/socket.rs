//! Socket options, as stock sets them.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a silent network is believed to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `distributed.comm.timeouts.tcp`.
    pub timeout: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
        }
    }
}

/// Sets no-delay, keep-alive (ten probes that end when the timeout does) and the limit for
/// unacknowledged data.
pub fn configure(stream: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    const PROBES: u32 = 10;
    stream.set_nodelay(true)?;
    let total = options.timeout.as_secs().max(1);
    let interval = ((total - (total / 4).max(2).min(total)) / u64::from(PROBES)).max(1);
    let idle = total.saturating_sub(interval * u64::from(PROBES)).max(2);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(PROBES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.timeout))?;
    Ok(())
}
