//! `--check-health`: the health check of images that have no other program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use oxidask_cli::SchedulerArgs;

/// For each of connecting, asking and reading.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More is not read of an answer.
const MAX_ANSWER: u64 = 4096;

/// Asks the scheduler that was started with the same options for `/health`.
///
/// # Errors
/// Why it is not well, for a person.
pub(super) fn ask(args: &SchedulerArgs) -> Result<(), String> {
    let address = address(args)?;
    let folder = args.dashboard_prefix.trim_matches('/');
    let path = if folder.is_empty() {
        "/health".to_owned()
    } else {
        format!("/{folder}/health")
    };
    let answer = request(address, &path)
        .map_err(|error| format!("no answer from http://{address}{path}: {error}"))?;
    let line = answer.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, said)| said);
    Err(format!("http://{address}{path} says {line:?} {said}"))
}

/// The dashboard's address as this machine reaches it.
fn address(args: &SchedulerArgs) -> Result<SocketAddr, String> {
    let Some(wanted) = args.dashboard_address.first() else {
        return Err("--check-health needs a dashboard address".to_owned());
    };
    let host = match wanted.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let mut found = (host, wanted.port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    found.next().ok_or_else(|| format!("{host}: no address"))
}

fn request(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use oxidask_cli::{Outcome, parse_scheduler};

    use super::*;

    /// What the check says of a server that answers with this.
    fn checked(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).expect("a request");
            stream.write_all(answer.as_bytes()).expect("it reads");
            String::from_utf8_lossy(asked.get(..length).unwrap_or_default()).into_owned()
        });
        let words = [
            "dask-scheduler".to_owned(),
            "--check-health".to_owned(),
            "--dashboard-prefix=/x/".to_owned(),
            format!("--dashboard-address=:{port}"),
        ];
        let Ok(Outcome::Run(parsed)) = parse_scheduler(&words) else {
            panic!("a command line");
        };
        let result = ask(&parsed.args);
        (result, serving.join().expect("it served"))
    }

    #[test]
    fn a_scheduler_is_well_when_it_says_so() {
        let (result, asked) = checked("HTTP/1.1 200 OK\r\n\r\nok");
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with("GET /x/health HTTP/1.1\r\n"), "{asked}");
    }

    #[test]
    fn a_sick_scheduler_is_quoted() {
        let (result, _) = checked("HTTP/1.1 503 Service Unavailable\r\n\r\ncore is silent");
        let problem = result.expect_err("not well");
        assert!(
            problem.contains("503") && problem.contains("core is silent"),
            "{problem}"
        );
        let (result, _) = checked("");
        assert!(result.is_err());
    }
}
