//! Environment variables of worker processes (`distributed.nanny.environ`, `pre-spawn-environ`).

use std::collections::BTreeMap;

use oxidask_config::{Config, ConfigValue};

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// The seed of Python's hashes: the same in all workers, since they share data by hash. Stock's number.
const HASH_SEED: (&str, &str) = ("PYTHONHASHSEED", "6640");

/// What a nanny sets for its worker before any plugin: variables of the configuration, where the nanny's
/// own environment does not have them.
pub(crate) fn configured(config: &Config, own: impl Fn(&str) -> Option<String>) -> Variables {
    let mut variables = Variables::new();
    for key in [
        "distributed.nanny.pre-spawn-environ",
        "distributed.nanny.environ",
    ] {
        let Some(map) = config.get(key).and_then(ConfigValue::as_map) else {
            continue;
        };
        for (name, value) in map {
            if let Some(text) = text(value) {
                variables.insert(name.clone(), own(name).unwrap_or(text));
            }
        }
    }
    let (name, seed) = HASH_SEED;
    let given = own(name).or_else(|| variables.get(name).cloned());
    if given.is_none_or(|seed| seed == "0") {
        variables.insert(name.into(), seed.into());
    }
    variables
}

/// As Python's `str` writes it. None is a variable that is not set.
fn text(value: &ConfigValue) -> Option<String> {
    match value {
        ConfigValue::None => None,
        ConfigValue::Bool(true) => Some("True".into()),
        ConfigValue::Bool(false) => Some("False".into()),
        ConfigValue::Str(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxidask_config::Env;

    fn variables(vars: &[(&str, &str)], own: &[(&str, &str)]) -> Variables {
        let mut all = vec![("DASK_ROOT_CONFIG", "/nonexistent")];
        all.extend(vars);
        let config = Config::load(&Env::new(all)).expect("valid");
        let own: BTreeMap<&str, &str> = own.iter().copied().collect();
        configured(&config, |name| own.get(name).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_own_environment_outranks_the_configuration() {
        let made = variables(&[], &[("OMP_NUM_THREADS", "4")]);
        assert_eq!(made["OMP_NUM_THREADS"], "4");
        assert_eq!(made["MKL_NUM_THREADS"], "1");
        assert_eq!(made["MALLOC_TRIM_THRESHOLD_"], "65536");
    }

    #[test]
    fn variables_are_written_as_python_writes_them_and_none_unsets() {
        let given = "{'A': 1, 'B': True, 'C': None, 'D': 'text', 'E': 0.5}";
        let made = variables(&[("DASK_DISTRIBUTED__NANNY__ENVIRON", given)], &[]);
        let get = |name: &str| made.get(name).map(String::as_str);
        assert_eq!(get("A"), Some("1"));
        assert_eq!(get("B"), Some("True"));
        assert_eq!(get("C"), None);
        assert_eq!(get("D"), Some("text"));
        assert_eq!(get("E"), Some("0.5"));
    }

    #[test]
    fn hashes_are_the_same_in_all_workers() {
        assert_eq!(variables(&[], &[])["PYTHONHASHSEED"], "6640");
        assert_eq!(
            variables(&[], &[("PYTHONHASHSEED", "0")])["PYTHONHASHSEED"],
            "6640"
        );
        assert!(!variables(&[], &[("PYTHONHASHSEED", "5")]).contains_key("PYTHONHASHSEED"));
    }
}
