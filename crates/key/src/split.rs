//! Dask's rules for what a key's *prefix* and *group* are (`key_split`, `key_split_group`).
//!
//! The prefix gathers tasks of one kind (`"inc"`), the group those of one call (`"inc-2f8a…"` for
//! tuple keys). Both feed duration estimates, root-task detection, metrics and the dashboard.

use crate::Key;

impl Key {
    /// Name of the kind of task, e.g. `"inc"` for `"inc-03d935909bba38f9a49655e867cbf56a"`.
    pub fn prefix(&self) -> String {
        match self {
            Self::Str(s) => split_text(s),
            Self::Bytes(b) => std::str::from_utf8(b).map_or_else(|_| other(), split_text),
            Self::Tuple(items) => items.first().map_or_else(other, Key::prefix),
            _ => other(),
        }
    }

    /// Name of the collection the task belongs to: the first element of a tuple key, else mostly
    /// the same as [`Key::prefix`].
    pub fn group(&self) -> String {
        match self {
            Self::Tuple(items) => items.first().map_or_else(other, Key::to_text),
            Self::Str(s) => group_text(s),
            Self::Bytes(b) => std::str::from_utf8(b).map_or_else(|_| other(), group_text),
            _ => other(),
        }
    }
}

fn other() -> String {
    "Other".to_owned()
}

fn is_hash(s: &str) -> bool {
    s.len() == 32
        && s.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `"<module.submodule.myclass object at 0xdaf372"` → `"myclass"`.
fn class_name(s: &str) -> Option<String> {
    let word = s.trim_matches(['<', '>']).split_whitespace().next()?;
    word.rsplit('.').next().map(str::to_owned)
}

fn split_text(s: &str) -> String {
    let mut words = s.split('-');
    let first = words.next().unwrap_or_default();
    let Some(initial) = first.chars().next() else {
        return other();
    };
    let mut result = if initial.is_alphabetic() {
        first.to_owned()
    } else {
        let head = first.split(',').next().unwrap_or_default();
        head.trim_matches(['_', '\'', '(', ')', '"']).to_owned()
    };
    for word in words {
        let alphabetic = !word.is_empty() && word.chars().all(char::is_alphabetic);
        // Upstream matches its pattern at the start only: eight letters beginning with a hex letter.
        let hex = word.chars().count() == 8 && word.starts_with(|c| ('a'..='f').contains(&c));
        if !alphabetic || hex {
            break;
        }
        result.push('-');
        result.push_str(word);
    }
    if is_hash(&result) {
        return "data".to_owned();
    }
    match result.chars().next() {
        None => other(),
        Some('<') => class_name(&result).unwrap_or_else(other),
        Some(_) => result,
    }
}

fn group_text(s: &str) -> String {
    match s.chars().next() {
        None => other(),
        Some('(') => {
            let head = s.split(',').next().unwrap_or_default();
            head.trim_matches(['(', ')', '"', '\'']).to_owned()
        }
        Some(_) if is_hash(s) => "data".to_owned(),
        Some('<') => class_name(s).unwrap_or_else(other),
        Some(_) => split_text(s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_a_key() {
        let cases = [
            ("x", "x"),
            ("x-1", "x"),
            ("x-1-2-3", "x"),
            ("('x-2', 1)", "x"),
            ("('x', 1)", "x"),
            ("hello-world-1", "hello-world"),
            ("ae05086432ca935f6eba409a8ecd4896", "data"),
            ("<module.submodule.myclass object at 0xdaf372", "myclass"),
            ("x-abcdefab", "x"),
            ("_(x)", "x"),
            ("", "Other"),
        ];
        for (key, prefix) in cases {
            assert_eq!(Key::from(key).prefix(), prefix, "{key}");
        }
        assert_eq!(
            Key::from([Key::from("x-2"), Key::Int(1)]).prefix(),
            "x",
            "tuple"
        );
        assert_eq!(Key::Int(3).prefix(), "Other");
    }

    #[test]
    fn group_of_a_key() {
        let cases = [
            ("('x-2', 1)", "x-2"),
            ("ae05086432ca935f6eba409a8ecd4896", "data"),
            ("<module.submodule.myclass object at 0xdaf372", "myclass"),
            ("x", "x"),
            ("x-1", "x"),
        ];
        for (key, group) in cases {
            assert_eq!(Key::from(key).group(), group, "{key}");
        }
        assert_eq!(Key::from([Key::from("x-2"), Key::Int(1)]).group(), "x-2");
    }
}
