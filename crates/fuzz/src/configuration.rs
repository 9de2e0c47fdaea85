//! What administrators and launchers write: configuration files, variables, command lines, rules of
//! roles.

use std::path::Path;

use oxidask_cli::{parse_dashboard_address, parse_scheduler, parse_worker};
use oxidask_config::{
    Config, Env, MemoryLimit, interpret_value, parse_bytes, parse_number, parse_timedelta,
    parse_yaml,
};
use oxidask_scheduler::roles::RoleRules;

use crate::choice;

/// The first byte says what kind of text the rest is.
pub fn configuration(data: &[u8]) {
    let (kind, data) = choice(data);
    let text = String::from_utf8_lossy(data);
    match kind % 5 {
        0 => {
            let _ = parse_yaml(Path::new("fuzz.yaml"), &text);
        }
        1 => values(&text),
        2 => variables(&text),
        3 => words(&text),
        _ => {
            let _ = RoleRules::parse("roles.yaml", &text);
        }
    }
}

fn values(text: &str) {
    let _ = interpret_value(text);
    let _ = parse_bytes(text);
    let _ = parse_number(text);
    for unit in ["seconds", "ms", ""] {
        let _ = parse_timedelta(text, unit);
    }
    if let Ok(limit) = MemoryLimit::parse(text) {
        let _ = limit.resolve(1 << 30, 3, 2);
    }
    let _ = parse_dashboard_address(text);
}

/// A line is a variable; no file is read.
fn variables(text: &str) {
    let lines = text.lines().take(50);
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        // A file of this machine is no input of ours.
        let own = name.starts_with("DASK_") && !name.ends_with("CONFIG");
        let name = if own || name == "DASK_INTERNAL_INHERIT_CONFIG" {
            name.to_owned()
        } else {
            format!("DASK_DISTRIBUTED__{name}")
        };
        (name, value.to_owned())
    });
    let nowhere = ("DASK_ROOT_CONFIG".to_owned(), "/nonexistent".to_owned());
    let env = Env::new(pairs.chain([nowhere]));
    if let Ok(config) = Config::load(&env) {
        let _ = config.notices();
        let _ = config.str_list("distributed.scheduler.blocked-handlers");
        let _ = config
            .origin("distributed.scheduler.blocked-handlers")
            .to_string();
    }
}

fn words(text: &str) {
    let words: Vec<String> = text.split('\n').take(50).map(str::to_owned).collect();
    let _ = parse_scheduler(&words);
    let _ = parse_worker(&words);
}
