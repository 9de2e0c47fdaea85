//! Who can reach the scheduler and what they may make it do: the `--secure` preset, and the warning for
//! those who listen to everybody.

use std::net::SocketAddr;

use oxidask_cli::SchedulerArgs;
use oxidask_config::{Config, ConfigError, ConfigValue, Origin};

const SECURE: &str = "oxidask.security.secure";
const BLOCKED: &str = "distributed.scheduler.blocked-handlers";
const PYTHON: &str = "oxidask.python-host.mode";

/// Ops that run code of a client in the scheduler, or load it for later.
const CODE: [&str; 4] = [
    "feed",
    "run_function",
    "register_scheduler_plugin",
    "unregister_scheduler_plugin",
];

/// Applies the preset where it is asked for; says what it did, one line each.
///
/// # Errors
/// When a key cannot be set.
pub(super) fn secure(
    args: &SchedulerArgs,
    config: &mut Config,
) -> Result<Vec<String>, ConfigError> {
    if !config.bool(SECURE) {
        return Ok(Vec::new());
    }
    if has_client_certificates(args, config) {
        return Ok(vec![
            "secure: clients show TLS certificates, so no handler is blocked".to_owned(),
        ]);
    }
    let origin = || Origin::Option("--secure".to_owned());
    let mut blocked = config.str_list(BLOCKED);
    for op in CODE {
        if !blocked.iter().any(|known| known == op) {
            blocked.push(op.to_owned());
        }
    }
    let line = format!(
        "secure: no TLS with client certificates, so {} are blocked and graphs that need Python are refused",
        blocked.join(", ")
    );
    let blocked = blocked.into_iter().map(ConfigValue::Str).collect();
    config.set(BLOCKED, ConfigValue::List(blocked), origin())?;
    config.set(PYTHON, ConfigValue::Str("off".to_owned()), origin())?;
    Ok(vec![line])
}

/// Whether every connection is TLS; whoever speaks TLS to Dask shows a certificate.
fn has_client_certificates(args: &SchedulerArgs, config: &Config) -> bool {
    let host = args.host.as_deref().unwrap_or_default();
    let by_host = host.split_once("://").map(|(scheme, _)| scheme.to_owned());
    let protocols = match by_host {
        Some(scheme) => vec![scheme],
        None if args.protocol.is_empty() => {
            vec![
                config
                    .str("distributed.comm.default-scheme")
                    .unwrap_or_default(),
            ]
        }
        None => args.protocol.clone(),
    };
    let authority = config.str("distributed.comm.tls.ca-file");
    authority.is_some_and(|path| !path.is_empty())
        && protocols.iter().all(|protocol| protocol == "tls")
}

/// The warning for a scheduler that takes orders from a network in the clear.
pub(super) fn warning(encrypted: bool, bound: SocketAddr) -> Option<String> {
    if encrypted || bound.ip().is_loopback() {
        return None;
    }
    Some(format!(
        "listening on {bound} without TLS: whoever can reach this port can run code on the workers; keep it in a \
         private network, or use --protocol tls, --secure or --host 127.0.0.1"
    ))
}

#[cfg(test)]
mod tests {
    use oxidask_cli::{Outcome, parse_scheduler};
    use oxidask_config::Env;

    use super::*;

    type Options<'a> = &'a [&'a str];
    type Variables<'a> = &'a [(&'a str, &'a str)];

    /// The configuration after the preset, for these options and variables.
    fn configured(options: Options<'_>, variables: Variables<'_>) -> Config {
        let words = std::iter::once("dask-scheduler").chain(options.iter().copied());
        let words: Vec<String> = words.map(str::to_owned).collect();
        let Ok(Outcome::Run(parsed)) = parse_scheduler(&words) else {
            panic!("{options:?} is a command line");
        };
        let variables = variables
            .iter()
            .copied()
            .chain([("DASK_ROOT_CONFIG", "/nonexistent")]);
        let mut config = Config::load(&Env::new(variables)).expect("valid");
        parsed.args.apply(&mut config).expect("valid");
        secure(&parsed.args, &mut config).expect("valid");
        config
    }

    #[test]
    fn nothing_is_blocked_unless_asked_for() {
        let config = configured(&[], &[]);
        assert_eq!(config.str_list(BLOCKED), Vec::<String>::new());
        assert_eq!(config.str(PYTHON).as_deref(), Some("auto"));
    }

    #[test]
    fn secure_blocks_code_of_clients_and_keeps_what_was_blocked_already() {
        let blocked = (
            "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS",
            "['feed', 'broadcast']",
        );
        let config = configured(&["--secure"], &[blocked]);
        let expected = [
            "feed",
            "broadcast",
            "run_function",
            "register_scheduler_plugin",
            "unregister_scheduler_plugin",
        ];
        assert_eq!(config.str_list(BLOCKED), expected);
        assert_eq!(config.str(PYTHON).as_deref(), Some("off"));
    }

    #[test]
    fn secure_is_content_with_client_certificates() {
        let authority = ("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "/ca.pem");
        let scheme = ("DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME", "tls");
        let table: [(Options<'_>, Variables<'_>, bool); 5] = [
            (&["--secure", "--protocol", "tls"], &[authority], true),
            (&["--secure"], &[authority, scheme], true),
            (&["--secure", "--host", "tls://:8786"], &[authority], true),
            (&["--secure", "--protocol", "tls"], &[], false),
            (&["--secure"], &[authority], false),
        ];
        for (options, variables, open) in table {
            let config = configured(options, variables);
            assert_eq!(
                config.str_list(BLOCKED).is_empty(),
                open,
                "{options:?} {variables:?}"
            );
        }
    }

    #[test]
    fn only_clear_text_on_a_network_is_warned_of() {
        let table = [
            (false, "0.0.0.0:8786", true),
            (false, "127.0.0.1:8786", false),
            (false, "[::1]:8786", false),
            (true, "0.0.0.0:8786", false),
        ];
        for (encrypted, bound, warned) in table {
            let address = bound.parse().expect("an address");
            assert_eq!(
                warning(encrypted, address).is_some(),
                warned,
                "{encrypted} {bound}"
            );
        }
    }
}
