//! What the launcher has found out for a worker process, beyond the command line that both read.

use serde::{Deserialize, Serialize};

/// The environment variable that a [`Plan`] travels in. The worker takes it out of its environment at once.
pub const PLAN_VARIABLE: &str = "OXIDASK_WORKER_PLAN";

/// A worker's name. What Python's `int()` reads is a number, as managers expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// `--name 3`.
    Number(i64),
    /// Any other.
    Text(String),
}

impl Name {
    /// Reads a name as stock's command line does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let digits = text.trim();
        let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        // `int()` takes single underscores between digits.
        let mut groups = unsigned.split('_');
        let plain =
            groups.all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
        match digits.replace('_', "").parse() {
            Ok(number) if plain => Self::Number(number),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// Settings of one worker process that are not words of its command line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Address of the scheduler, with its protocol.
    pub scheduler: String,
    /// Address of the nanny.
    pub nanny: Option<String>,
    /// Name; none: the worker's address.
    pub name: Option<Name>,
    /// Threads for tasks.
    pub nthreads: u32,
    /// Bytes; none: no limit.
    pub memory_limit: Option<u64>,
    /// Ports to try in order; empty: any.
    pub ports: Vec<u16>,
    /// Folder for files of workers and of nanny plugins, in which the worker makes its own.
    pub local_directory: Option<String>,
    /// Added in front of `sys.path`.
    pub sys_path: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_where_python_says_so() {
        let table = [
            ("3", Name::Number(3)),
            ("-3", Name::Number(-3)),
            (" 3 ", Name::Number(3)),
            ("1_000", Name::Number(1000)),
            ("1__0", Name::Text("1__0".into())),
            ("_1", Name::Text("_1".into())),
            ("3.0", Name::Text("3.0".into())),
            ("foo-0", Name::Text("foo-0".into())),
        ];
        for (text, name) in table {
            assert_eq!(Name::parse(text), name, "{text}");
        }
        // Only 64 bits travel as a number.
        let long = "99999999999999999999";
        assert_eq!(Name::parse(long), Name::Text(long.into()));
    }

    #[test]
    fn a_plan_survives_its_travel() {
        let plan = Plan {
            scheduler: "tcp://127.0.0.1:8786".into(),
            nanny: Some("tcp://127.0.0.1:1".into()),
            name: Some(Name::Number(3)),
            nthreads: 2,
            memory_limit: Some(1 << 40),
            ports: vec![3000, 3001],
            ..Plan::default()
        };
        let text = serde_json::to_string(&plan).expect("serialisable");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("the same"), plan);
    }
}
