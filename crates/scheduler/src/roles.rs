//! Roles by certificate (stock has nothing of the kind): a file of rules says what the holder of a
//! certificate may do, so that a client's cannot register a worker or run code in the scheduler's
//! place. Off unless `oxidask.roles.file` names such a file.
//!
//! What each role may do is in [`access`], and nowhere else. Rules and their file are described in
//! `docs/roles.md`. HTTP is not covered.

use std::fmt;
use std::path::Path;

use oxidask_config::{Config, ConfigError, ConfigMap, ConfigValue, parse_yaml};
use oxidask_wire::connection::tls::{self, CertificateDer};

/// What a caller may be; none, one or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

const NAMES: [(&str, Roles); 4] = [
    ("client", Roles::CLIENT),
    ("worker", Roles::WORKER),
    ("read-only", Roles::READ_ONLY),
    ("admin", Roles::ADMIN),
];

impl Roles {
    /// May do nothing.
    pub const NONE: Self = Self(0);
    /// Submits work, and manages workers and data.
    pub const CLIENT: Self = Self(1);
    /// Workers and their nannies.
    pub const WORKER: Self = Self(2);
    /// Looks at the state.
    pub const READ_ONLY: Self = Self(4);
    /// Everything.
    pub const ADMIN: Self = Self(8);

    /// Whether an op may be asked for.
    pub fn may(self, op: &str) -> bool {
        let allowed = match access(op) {
            Access::Anybody => Self(Self::CLIENT.0 | Self::WORKER.0 | Self::READ_ONLY.0),
            Access::Members => Self(Self::CLIENT.0 | Self::WORKER.0),
            Access::Watchers => Self(Self::CLIENT.0 | Self::READ_ONLY.0),
            Access::Clients => Self::CLIENT,
            Access::Workers => Self::WORKER,
            Access::Admins => Self::NONE,
        };
        self.has(Self(allowed.0 | Self::ADMIN.0))
    }

    /// Whether work may be submitted on a client's stream; otherwise it is only for looking.
    pub fn may_submit(self) -> bool {
        self.has(Self(Self::CLIENT.0 | Self::ADMIN.0))
    }

    /// Whether code of the holder may run in the scheduler's place.
    pub fn may_run_code(self) -> bool {
        self.has(Self::ADMIN)
    }

    fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().filter(|(_, role)| self.has(*role));
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        match names.as_slice() {
            [] => f.write_str("no role"),
            names => f.write_str(&names.join(" and ")),
        }
    }
}

/// Who may ask for an op. Admins always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Anybody,
    Members,
    Watchers,
    Clients,
    Workers,
    Admins,
}

/// The table of ops. What is not in it (locks, queues, variables, events, shuffles, …) is for
/// clients and workers.
fn access(op: &str) -> Access {
    match op {
        // Looking.
        "identity"
        | "versions"
        | "who_has"
        | "has_what"
        | "ncores"
        | "ncores_running"
        | "nbytes"
        | "processing"
        | "call_stack"
        | "profile"
        | "profile_metadata"
        | "events"
        | "logs"
        | "get_logs"
        | "worker_logs"
        | "get_story"
        | "get_cluster_state"
        | "get_task_status"
        | "get_task_stream"
        | "get_task_stream_index"
        | "get_task_prefix_states"
        | "adaptive_target"
        | "check_idle"
        | "workers_to_close"
        | "subscribe_worker_status"
        | "memory_sampler_start"
        | "memory_sampler_stop"
        | "close" => Access::Anybody,
        "register-client" => Access::Watchers,
        // The cluster, and data as a client sees them.
        "amm_handler"
        | "amm_run_once"
        | "amm_start"
        | "amm_stop"
        | "benchmark_hardware"
        | "broadcast"
        | "cancel"
        | "proxy"
        | "rebalance"
        | "register_nanny_plugin"
        | "register_worker_plugin"
        | "replicate"
        | "restart"
        | "restart_workers"
        | "retry"
        | "scatter"
        | "set_restrictions"
        | "start_task_metadata"
        | "stop_task_metadata"
        | "unregister_nanny_plugin"
        | "unregister_worker_plugin" => Access::Clients,
        "register-worker" | "register_nanny" | "heartbeat_worker" | "unregister" | "add_keys"
        | "set_resources" => Access::Workers,
        // Code in the scheduler's place, files written by it, and its end.
        "run_function"
        | "feed"
        | "register_scheduler_plugin"
        | "unregister_scheduler_plugin"
        | "dump_cluster_state_to_url"
        | "terminate" => Access::Admins,
        _ => Access::Members,
    }
}

/// Why the rules are unusable: one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// The file cannot be read.
    #[error("cannot read {path} (configuration key oxidask.roles.file): {source}")]
    File {
        /// Where.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error(transparent)]
    Yaml(#[from] ConfigError),
    /// It does not say what such a file says.
    #[error("{path} (configuration key oxidask.roles.file): {problem}; see docs/roles.md")]
    Rule {
        /// Where.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// What a file of rules says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRules {
    rules: Vec<Rule>,
    default: Roles,
}

/// All attributes must match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subject: Vec<(String, String)>,
    roles: Roles,
}

/// What a certificate gives its holder.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What the holder may be.
    pub roles: Roles,
    /// Whose certificate it is, for messages.
    pub subject: String,
}

impl RoleRules {
    /// Those of `oxidask.roles.file`, if it is set.
    ///
    /// # Errors
    /// When the file cannot be read or says something else.
    pub fn from_config(config: &Config) -> Result<Option<Self>, RolesError> {
        let Some(path) = config.str("oxidask.roles.file").filter(|p| !p.is_empty()) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&path).map_err(|source| RolesError::File {
            path: path.clone(),
            source,
        })?;
        Self::parse(&path, &text).map(Some)
    }

    /// The rules in the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// When the text says something else.
    pub fn parse(path: &str, text: &str) -> Result<Self, RolesError> {
        let map = parse_yaml(Path::new(path), text)?.unwrap_or_default();
        read(&map).map_err(|problem| RolesError::Rule {
            path: path.to_owned(),
            problem,
        })
    }

    /// What a caller with this certificate (none: without TLS) may be: by the first rule that
    /// matches, else by `default`.
    pub fn grant(&self, certificate: Option<&CertificateDer<'_>>) -> Granted {
        let nobody = |subject: &str| Granted {
            roles: Roles::NONE,
            subject: subject.to_owned(),
        };
        let Some(certificate) = certificate else {
            return nobody("no certificate");
        };
        let Some(subject) = tls::subject(certificate) else {
            return nobody("a certificate whose subject cannot be read");
        };
        let matching = self.rules.iter().find(|rule| rule.matches(&subject));
        let text: Vec<String> = subject
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Granted {
            roles: matching.map_or(self.default, |rule| rule.roles),
            subject: format!("the certificate of {}", text.join(",")),
        }
    }
}

impl Rule {
    fn matches(&self, subject: &[(String, String)]) -> bool {
        self.subject.iter().all(|(name, pattern)| {
            subject
                .iter()
                .any(|(other, value)| other == name && fits(pattern, value))
        })
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

fn read(map: &ConfigMap) -> Result<RoleRules, String> {
    only(map, &["rules", "default"])?;
    let default = match map.get("default") {
        Some(value) => roles(value)?,
        None => Roles::NONE,
    };
    let rules = map.get("rules").and_then(ConfigValue::as_list);
    let rules = rules.ok_or("`rules` must be a list")?;
    let rules: Result<Vec<Rule>, String> = rules.iter().map(rule).collect();
    Ok(RoleRules {
        rules: rules?,
        default,
    })
}

fn rule(value: &ConfigValue) -> Result<Rule, String> {
    let map = value
        .as_map()
        .ok_or("each rule must be a mapping with `subject` and `roles`")?;
    only(map, &["subject", "roles"])?;
    let subject = map.get("subject").and_then(ConfigValue::as_map);
    let subject = subject
        .filter(|subject| !subject.is_empty())
        .ok_or("`subject` must be a mapping such as {CN: 'worker-*'}")?;
    let attribute = |(name, pattern): (&String, &ConfigValue)| match pattern.as_str() {
        Some(pattern) => Ok((name.clone(), pattern.to_owned())),
        None => Err(format!("the pattern of {name} must be text; quote it")),
    };
    let subject: Result<Vec<_>, String> = subject.iter().map(attribute).collect();
    let granted = map.get("roles").ok_or("a rule lacks `roles`")?;
    Ok(Rule {
        subject: subject?,
        roles: roles(granted)?,
    })
}

fn roles(value: &ConfigValue) -> Result<Roles, String> {
    let single = std::slice::from_ref(value);
    let names = value.as_list().unwrap_or(single);
    let mut roles = Roles::NONE;
    for name in names {
        let known = NAMES.iter().find(|(known, _)| name.as_str() == Some(known));
        let (_, role) = known.ok_or_else(|| {
            format!("{name} is not a role; there are client, worker, read-only and admin")
        })?;
        roles.0 |= role.0;
    }
    Ok(roles)
}

fn only(map: &ConfigMap, known: &[&str]) -> Result<(), String> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("`{key}` is unknown here")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        attributes.iter().map(owned).collect()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let text = "
            default: read-only
            rules:
              - {subject: {CN: 'worker-*', O: Dask}, roles: worker}
              - {subject: {CN: 'worker-*'}, roles: []}
              - {subject: {CN: alice}, roles: [client, worker]}
        ";
        let rules = RoleRules::parse("roles.yaml", text).expect("valid");
        let both = Roles(Roles::CLIENT.0 | Roles::WORKER.0);
        for (subject, roles) in [
            (&[("O", "Dask"), ("CN", "worker-7")][..], Roles::WORKER),
            (&[("O", "Other"), ("CN", "worker-7")], Roles::NONE),
            (&[("CN", "alice")], both),
            (&[("CN", "alice2")], Roles::READ_ONLY),
            (&[("OU", "alice")], Roles::READ_ONLY),
        ] {
            let subject = named(subject);
            let rule = rules.rules.iter().find(|rule| rule.matches(&subject));
            let granted = rule.map_or(rules.default, |rule| rule.roles);
            assert_eq!(granted, roles, "{subject:?}");
        }
        assert_eq!(rules.grant(None).roles, Roles::NONE, "no certificate");
    }

    #[test]
    fn patterns_have_stars() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn each_role_may_do_its_own() {
        let (client, worker) = (Roles::CLIENT, Roles::WORKER);
        let (watcher, admin) = (Roles::READ_ONLY, Roles::ADMIN);
        for (op, who) in [
            ("identity", &[client, worker, watcher][..]),
            ("register-client", &[client, watcher]),
            ("queue_get", &[client, worker]),
            ("gather", &[client, worker]),
            ("broadcast", &[client]),
            ("scatter", &[client]),
            ("register-worker", &[worker]),
            ("heartbeat_worker", &[worker]),
            ("run_function", &[]),
            ("terminate", &[]),
            ("an op of a later release", &[client, worker]),
        ] {
            for role in [client, worker, watcher] {
                assert_eq!(role.may(op), who.contains(&role), "{op} by {role}");
            }
            assert!(admin.may(op) && !Roles::NONE.may(op), "{op}");
        }
        assert!(client.may_submit() && !watcher.may_submit());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, problem) in [
            ("", "`rules` must be a list"),
            ("rule: []", "`rule` is unknown here"),
            ("rules: [alice]", "each rule must be a mapping"),
            ("rules: [{roles: client}]", "`subject` must be a mapping"),
            ("rules: [{subject: {}, roles: client}]", "`subject` must be"),
            ("rules: [{subject: {CN: a}}]", "lacks `roles`"),
            ("rules: [{subject: {CN: 7}, roles: client}]", "quote it"),
            ("rules: [{subject: {CN: a}, roles: boss}]", "boss"),
            ("rules: [", "malformed"),
        ] {
            let error = RoleRules::parse("roles.yaml", text).expect_err(text);
            let error = error.to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("roles.yaml"), "{error}");
        }
    }
}
