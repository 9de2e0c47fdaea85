//! `--check-health`: the health check of images that have no other program.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use oxidask_cli::{Outcome, SchedulerArgs, parse_scheduler};
use oxidask_config::{Config, Env};
use oxidask_wire::connection::tls::connect_to_anybody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For connecting, asking and reading together.
const TIMEOUT: Duration = Duration::from_secs(4);
/// More is not read of an answer.
const MAX_ANSWER: u64 = 4096;
/// The command line of a container's main process, which a health check has not been told.
const MAIN_PROCESS: &str = "/proc/1/cmdline";

/// Asks the scheduler that was started with these words, or, if there are none besides
/// `--check-health`, the one that is this container's main process.
///
/// # Errors
/// Why it is not well, for a person.
pub(super) fn run(words: &[String], args: SchedulerArgs) -> Result<(), String> {
    let main = match words {
        [_, _] => std::fs::read(MAIN_PROCESS).ok(),
        _ => None,
    };
    let args = main.and_then(|line| args_of(&line)).unwrap_or(args);
    let config = Config::load(&Env::from_process()).map_err(|error| error.to_string())?;
    let certificate = config.str("distributed.scheduler.dashboard.tls.cert");
    let is_encrypted = certificate.is_some_and(|certificate| !certificate.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(ask(&args, is_encrypted))
}

/// Options of a scheduler in a command line whose words end with zeros, perhaps behind a launcher such
/// as `tini --`.
fn args_of(line: &[u8]) -> Option<SchedulerArgs> {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split_terminator('\0').collect();
    let program = |word: &&str| word.rsplit('/').next() == Some("dask-scheduler");
    let launcher = |pair: &[&str]| matches!(pair, [first, "scheduler"] if first.rsplit('/').next() == Some("dask"));
    let begin = words.iter().position(program);
    let begin = begin.or_else(|| Some(words.windows(2).position(launcher)? + 1))?;
    let words: Vec<String> = words
        .iter()
        .skip(begin)
        .map(|&word| word.to_owned())
        .collect();
    match parse_scheduler(&words) {
        Ok(Outcome::Run(parsed)) => Some(parsed.args),
        _ => None,
    }
}

async fn ask(args: &SchedulerArgs, is_encrypted: bool) -> Result<(), String> {
    let address = address(args)?;
    let folder = args.dashboard_prefix.trim_matches('/');
    let path = if folder.is_empty() {
        "/health".to_owned()
    } else {
        format!("/{folder}/health")
    };
    let scheme = if is_encrypted { "https" } else { "http" };
    let answer = timeout(TIMEOUT, request(address, &path, is_encrypted));
    let answer = answer.await.unwrap_or_else(|late| Err(late.into()));
    let answer =
        answer.map_err(|error| format!("no answer from {scheme}://{address}{path}: {error}"))?;
    let line = answer.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, said)| said);
    Err(format!("{scheme}://{address}{path} says {line:?} {said}"))
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

async fn request(address: SocketAddr, path: &str, is_encrypted: bool) -> io::Result<String> {
    let text = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let stream = TcpStream::connect(address).await?;
    if is_encrypted {
        exchange(connect_to_anybody(stream).await?, &text).await
    } else {
        exchange(stream, &text).await
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    match read {
        // TLS without a farewell.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

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
        let result = run(&words, parsed.args);
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

    #[test]
    fn options_are_those_of_the_main_process() {
        let port = |line: &str| {
            let line = line.replace(' ', "\0") + "\0";
            args_of(line.as_bytes()).map(|args| args.dashboard_address[0].port)
        };
        assert_eq!(port("dask-scheduler"), Some(8787));
        let options = "--port 1 --dashboard-address :9000";
        for program in [
            "dask-scheduler",
            "/opt/oxidask/bin/dask-scheduler",
            "/usr/local/bin/dask scheduler",
            "/sbin/docker-init -- dask-scheduler",
            "tini -g -- dask scheduler",
        ] {
            assert_eq!(
                port(&format!("{program} {options}")),
                Some(9000),
                "{program}"
            );
        }
        for other in [
            "/sbin/init",
            "dask-worker tcp://s:8786",
            "dask worker s:8786",
            "",
        ] {
            assert_eq!(port(other), None, "{other}");
        }
    }
}
