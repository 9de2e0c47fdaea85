//! The rules of stock: every case in `data/stock.json` was answered by dask 2026.8.0
//! (`data/generate.py`).

use oxidask_config::{
    Config, ConfigValue, Default, Env, KEYS, interpret_value, parse_bytes, parse_timedelta,
};
use serde_json::Value;

fn stock(section: &str) -> Value {
    let text = include_str!("data/stock.json")
        .replace("Infinity", "1e308")
        .replace("NaN", "null");
    let mut all: Value = serde_json::from_str(&text).expect("test data");
    all[section].take()
}

fn cases(section: &str) -> Vec<Vec<Value>> {
    serde_json::from_value(stock(section)).expect("test data")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("test data")
}

/// Compares as numbers where both are, since 2 and 2.0 are one to Python.
fn same(ours: &ConfigValue, stock: &Value) -> bool {
    match (ours, stock) {
        (ConfigValue::None, Value::Null) => true,
        (ConfigValue::Bool(ours), Value::Bool(stock)) => ours == stock,
        (ConfigValue::Int(ours), Value::Number(stock)) => stock.as_i64() == Some(*ours),
        (ConfigValue::Float(ours), Value::Number(stock)) => {
            !stock.is_i64() && stock.as_f64() == Some(ours.clamp(-1e308, 1e308))
        }
        (ConfigValue::Str(ours), Value::String(stock)) => ours == stock,
        (ConfigValue::List(ours), Value::Array(stock)) => {
            ours.len() == stock.len() && ours.iter().zip(stock).all(|(a, b)| same(a, b))
        }
        (ConfigValue::Map(ours), Value::Object(stock)) => {
            ours.len() == stock.len()
                && ours
                    .iter()
                    .all(|(key, value)| stock.get(key).is_some_and(|stock| same(value, stock)))
        }
        _ => false,
    }
}

#[test]
fn variables_parse_as_python_literals() {
    let cases = cases("literals");
    assert!(cases.len() > 100);
    for case in cases {
        let ours = interpret_value(text(&case[0]));
        if case[1] == "unrepresentable" {
            continue;
        }
        assert!(
            same(&ours, &case[1]),
            "{} gives {ours:?}, stock {}",
            case[0],
            case[1]
        );
    }
}

#[test]
fn plain_yaml_words_mean_what_pyyaml_makes_of_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for case in cases("plain") {
        // Times of day and decimal sexagesimals appear in no configuration; they stay text here.
        if case[1] == "unrepresentable" || text(&case[0]) == "12:30.5" {
            continue;
        }
        std::fs::write(
            folder.path().join("a.yaml"),
            format!("a: {}\n", text(&case[0])),
        )
        .expect("write");
        let env = Env::new([("DASK_ROOT_CONFIG", folder.path().to_str().expect("path"))]);
        let config = Config::load(&env).expect("valid");
        let ours = config.get("a").cloned().unwrap_or(ConfigValue::None);
        let both_nan =
            matches!(ours, ConfigValue::Float(value) if value.is_nan()) && text(&case[0]) == ".nan";
        assert!(
            both_nan || same(&ours, &case[1]),
            "{} gives {ours:?}, stock {}",
            case[0],
            case[1]
        );
    }
}

#[test]
fn sizes_are_those_of_parse_bytes() {
    for case in cases("sizes") {
        let ours = parse_bytes(text(&case[0])).ok();
        assert_eq!(ours, case[1].as_u64(), "{}", case[0]);
    }
}

#[test]
fn times_are_those_of_parse_timedelta() {
    for case in cases("times") {
        let ours = parse_timedelta(text(&case[0]), text(&case[1])).ok();
        assert_eq!(ours, case[2].as_f64(), "{} in {}", case[0], case[1]);
    }
}

#[test]
fn every_default_of_stock_is_declared_with_the_same_value() {
    let config = Config::defaults();
    let stock = stock("defaults");
    let stock = stock.as_object().expect("test data");
    for (path, value) in stock {
        let ours = config
            .get(path)
            .unwrap_or_else(|| panic!("{path} is not declared"));
        assert!(same(ours, value), "{path} is {ours:?}, stock {value}");
    }
    let ours_alone = |name: &str| {
        !stock
            .keys()
            .any(|path| path == name || path.starts_with(&format!("{name}.")))
    };
    for key in KEYS
        .iter()
        .filter(|key| key.default != Default::Absent && ours_alone(key.name))
    {
        let known =
            key.since == "oxidask" || key.until.is_some() || key.name == "temporary-directory";
        assert!(
            known,
            "{} is declared but not in stock's defaults",
            key.name
        );
    }
}

#[test]
fn environment_variables_become_nested_keys() {
    let env = Env::new([
        ("DASK_ROOT_CONFIG", "/nonexistent"),
        ("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "False"),
        (
            "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS",
            "['feed', 'run_function']",
        ),
        ("DASK_FOO__BAR_BAZ", "123"),
        ("DASK_FOO__QUX", "{'a-b': (1, 2)}"),
        ("DASK_TEMPORARY_DIRECTORY", "/scratch"),
        ("OTHER", "1"),
    ]);
    let config = Config::load(&env).expect("valid");
    let stock = stock("environment");
    for path in ["foo.bar_baz", "foo.qux", "temporary_directory"] {
        let pointer = format!("/{}", path.replace('.', "/"));
        let expected = stock.pointer(&pointer).expect("test data");
        assert!(same(config.get(path).expect("kept"), expected), "{path}");
    }
    assert!(!config.bool("distributed.scheduler.work-stealing"));
    assert_eq!(
        config.str_list("distributed.scheduler.blocked-handlers"),
        ["feed", "run_function"]
    );
    assert_eq!(config.get("other"), None);
}
