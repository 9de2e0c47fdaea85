//! Merging sources: nested update, the sameness of `-` and `_`, renamed keys.

use std::collections::BTreeMap;

use crate::config::Origin;
use crate::keys::{RENAMES, is_section};
use crate::value::{ConfigMap, ConfigValue};

/// Where each value came from, by [`normal`] path.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// Names differ only by `-` and `_`: one spelling for comparisons.
pub(crate) fn normal(name: &str) -> String {
    name.replace('_', "-")
}

/// The spelling of `name` that `map` has already, or `name` itself.
fn spelling<'a>(map: &'a ConfigMap, name: &'a str) -> &'a str {
    if map.contains_key(name) {
        return name;
    }
    let wanted = normal(name);
    map.keys()
        .find(|key| normal(key) == wanted)
        .map_or(name, String::as_str)
}

/// The value at a dotted path.
pub(crate) fn get<'a>(map: &'a ConfigMap, path: &str) -> Option<&'a ConfigValue> {
    let (first, rest) = split(path);
    let value = map.get(spelling(map, first))?;
    match rest {
        None => Some(value),
        Some(rest) => get(value.as_map()?, rest),
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

/// Sets a dotted path, making mappings on the way.
pub(crate) fn set(map: &mut ConfigMap, path: &str, value: ConfigValue) {
    let (first, rest) = split(path);
    let name = spelling(map, first).to_owned();
    let Some(rest) = rest else {
        map.insert(name, value);
        return;
    };
    let slot = map
        .entry(name)
        .or_insert_with(|| ConfigValue::Map(ConfigMap::new()));
    if !matches!(slot, ConfigValue::Map(_)) {
        *slot = ConfigValue::Map(ConfigMap::new());
    }
    if let ConfigValue::Map(inner) = slot {
        set(inner, rest, value);
    }
}

/// Takes the value at a dotted path out.
pub(crate) fn take(map: &mut ConfigMap, path: &str) -> Option<ConfigValue> {
    let (first, rest) = split(path);
    let name = spelling(map, first).to_owned();
    match rest {
        None => map.shift_remove(&name),
        Some(rest) => match map.get_mut(&name)? {
            ConfigValue::Map(inner) => take(inner, rest),
            _ => None,
        },
    }
}

/// Merges `new` over `old`: mappings into mappings, everything else replaces. Notes where each value
/// came from. An empty section of a file (`scheduler:` with all lines below commented out) says nothing.
///
/// # Errors
/// The path and the value that stands where declared keys need a mapping.
pub(crate) fn update(
    old: &mut ConfigMap,
    new: ConfigMap,
    origin: &Origin,
    origins: &mut Origins,
    path: &str,
) -> Result<(), (String, ConfigValue)> {
    for (key, value) in new {
        let name = spelling(old, &key).to_owned();
        let here = if path.is_empty() {
            normal(&name)
        } else {
            format!("{path}.{}", normal(&name))
        };
        match value {
            ConfigValue::Map(inner) => {
                let slot = old.entry(name).or_insert(ConfigValue::None);
                if !matches!(slot, ConfigValue::Map(_)) {
                    *slot = ConfigValue::Map(ConfigMap::new());
                }
                origins.insert(here.clone(), origin.clone());
                if let ConfigValue::Map(slot) = slot {
                    update(slot, inner, origin, origins, &here)?;
                }
            }
            ConfigValue::None if is_section(&here) => {}
            value if is_section(&here) => return Err((here, value)),
            value => {
                origins.insert(here, origin.clone());
                old.insert(name, value);
            }
        }
    }
    Ok(())
}

/// Moves values of renamed keys to their present names; tells which ones. Of several former names of one
/// key the first in the table counts: an old parent hands all of them down, each with its own default.
pub(crate) fn rename(layer: &mut ConfigMap) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&'static str, &'static str)> = Vec::new();
    for (old, new) in RENAMES {
        if let Some(value) = take(layer, old) {
            if !found.iter().any(|(_, known)| known == new) {
                set(layer, new, value);
            }
            found.push((*old, *new));
        }
    }
    found
}
