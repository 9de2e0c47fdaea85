//! Precedence, renames, types and errors of the configuration.

use std::fs;
use std::path::Path;

use oxidask_config::{
    Config, ConfigError, ConfigValue, Env, KEYS, MemoryLimit, Origin, RENAMES, declaration,
    interpret_value,
};
use proptest::prelude::*;

fn load(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut all = vec![("DASK_ROOT_CONFIG", "/nonexistent")];
    all.extend(vars);
    Config::load(&Env::new(all))
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).expect("folder");
    fs::write(folder.join(name), text).expect("write");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("path")
}

#[test]
fn later_places_win_over_earlier_ones_and_variables_over_files() {
    let top = tempfile::tempdir().expect("folder");
    let (root, prefix, home, named) = (
        top.path().join("root"),
        top.path().join("venv"),
        top.path().join("home"),
        top.path().join("named"),
    );
    write(
        &root,
        "a.yaml",
        "x: root\ny: root\nz: root\nv: root\nw: root\n",
    );
    write(
        &prefix.join("etc/dask"),
        "a.yaml",
        "y: prefix\nz: prefix\nv: prefix\nw: prefix\n",
    );
    write(
        &home.join(".config/dask"),
        "a.yml",
        "z: home\nv: home\nw: home\n",
    );
    write(&named, "a.json", "{\"v\": \"a\", \"w\": \"a\"}");
    write(&named, "b.YAML", "v: b\nw: b\n");
    write(&named, "c.txt", "v: c\n");
    let config = Config::load(&Env::new([
        ("DASK_ROOT_CONFIG", text(&root)),
        ("VIRTUAL_ENV", text(&prefix)),
        ("HOME", text(&home)),
        ("DASK_CONFIG", text(&named)),
        ("DASK_W", "variable"),
    ]))
    .expect("valid");
    for (key, value) in [
        ("x", "root"),
        ("y", "prefix"),
        ("z", "home"),
        ("v", "b"),
        ("w", "variable"),
    ] {
        assert_eq!(config.str(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(*config.origin("v"), Origin::File(named.join("b.YAML")));
    assert_eq!(*config.origin("w"), Origin::Variable("DASK_W".to_owned()));
}

#[test]
fn a_file_may_be_named_directly_and_absent_places_are_passed_over() {
    let folder = tempfile::tempdir().expect("folder");
    write(
        folder.path(),
        "my.conf",
        "distributed: {scheduler: {worker_ttl: 60s}}",
    );
    let file = folder.path().join("my.conf");
    let config = load(&[("DASK_CONFIG", text(&file))]).expect("valid");
    assert_eq!(
        config.seconds("distributed.scheduler.worker-ttl"),
        Some(60.0)
    );
    assert!(load(&[("DASK_CONFIG", "/nonexistent/file.yaml")]).is_ok());
}

#[test]
fn the_prefix_of_an_installed_program_is_searched() {
    let env = Env::new([("DASK_ROOT_CONFIG", "/r")]).with_executable("/opt/env/bin/dask-scheduler");
    let paths = env.search_path();
    assert_eq!(paths, [Path::new("/r"), Path::new("/opt/env/etc/dask")]);
}

#[test]
fn inherited_configuration_ranks_below_other_variables_and_keeps_infinity() {
    let mut parent =
        load(&[("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "7")]).expect("valid");
    parent
        .set(
            "distributed.scheduler.validate",
            ConfigValue::Bool(true),
            Origin::Default,
        )
        .expect("valid");
    let inherited = parent.to_inherit();
    let child = load(&[
        ("DASK_INTERNAL_INHERIT_CONFIG", inherited.as_str()),
        ("DASK_DISTRIBUTED__SCHEDULER__VALIDATE", "False"),
    ])
    .expect("valid");
    assert_eq!(
        child.count("distributed.scheduler.allowed-failures"),
        Some(7)
    );
    assert!(!child.bool("distributed.scheduler.validate"));
    assert_eq!(
        child.f64("distributed.adaptive.maximum"),
        Some(f64::INFINITY)
    );
}

#[test]
fn former_names_that_an_older_parent_hands_down_are_taken_silently() {
    // What 2022.12.0 serialises, abridged: all three lead to admin.low-level-log-length.
    let parent = "{\"distributed\": {\"scheduler\": {\"transition-log-length\": 100000, \"events-log-length\": \
                  100000}, \"comm\": {\"recent-messages-log-length\": 0}}}";
    let inherited = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, parent);
    let config = load(&[("DASK_INTERNAL_INHERIT_CONFIG", inherited.as_str())]).expect("valid");
    assert_eq!(
        config.count("distributed.admin.low-level-log-length"),
        Some(100_000)
    );
    assert!(config.notices().is_empty());
}

#[test]
fn text_that_python_escaped_survives_inheritance() {
    // dask.config.serialize({"a": {"b": "\U0001F600 Infinity \"NaN\"", "c": float("-inf")}})
    let inherited =
        "eyJhIjogeyJiIjogIlx1ZDgzZFx1ZGUwMCBJbmZpbml0eSBcIk5hTlwiIiwgImMiOiAtSW5maW5pdHl9fQ==";
    let config = load(&[("DASK_INTERNAL_INHERIT_CONFIG", inherited)]).expect("valid");
    assert_eq!(config.str("a.b").as_deref(), Some("😀 Infinity \"NaN\""));
    assert_eq!(config.f64("a.c"), Some(f64::NEG_INFINITY));
}

#[test]
fn broken_inherited_configuration_names_its_variable() {
    for value in ["%%%", "bm90IGpzb24=", "WzFd"] {
        let error = load(&[("DASK_INTERNAL_INHERIT_CONFIG", value)]).expect_err("wrong");
        assert!(
            error.to_string().contains("DASK_INTERNAL_INHERIT_CONFIG"),
            "{error}"
        );
    }
}

#[test]
fn hyphen_and_underscore_are_the_same() {
    let config = load(&[("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "False")]).expect("valid");
    assert!(!config.bool("distributed.scheduler.work_stealing"));
    assert!(
        config
            .get("distributed.scheduler")
            .and_then(ConfigValue::as_map)
            .is_some_and(|map| {
                map.contains_key("work-stealing") && !map.contains_key("work_stealing")
            })
    );
}

#[test]
fn renamed_keys_set_the_present_ones_and_say_so() {
    let config = load(&[
        ("DASK_WORK_STEALING", "False"),
        ("DASK_DISTRIBUTED__SCHEDULER__TRANSITION_LOG_LENGTH", "5"),
        ("DASK_TICK_TIME", "50"),
    ])
    .expect("valid");
    assert!(!config.bool("distributed.scheduler.work-stealing"));
    assert_eq!(
        config.count("distributed.admin.low-level-log-length"),
        Some(5)
    );
    assert_eq!(
        config.seconds("distributed.admin.tick.interval"),
        Some(0.05)
    );
    assert_eq!(config.notices().len(), 3);
    assert!(
        config.notices()[0].contains("transition-log-length"),
        "{:?}",
        config.notices()
    );
}

#[test]
fn a_present_name_in_a_higher_place_wins_over_a_former_one_below() {
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), "a.yaml", "work-stealing: false\n");
    let config = load(&[
        ("DASK_CONFIG", text(folder.path())),
        ("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "True"),
    ])
    .expect("valid");
    assert!(config.bool("distributed.scheduler.work-stealing"));
}

#[test]
fn every_rename_of_a_distributed_key_leads_to_a_declared_one() {
    let unchecked = ["distributed.ucx", "distributed.rmm", "distributed.comm.ucx"];
    for (old, new) in RENAMES
        .iter()
        .filter(|(_, new)| new.starts_with("distributed."))
    {
        let known =
            declaration(new).is_some() || unchecked.iter().any(|part| new.starts_with(part));
        assert!(known, "{old} leads to {new}, which is not declared");
    }
}

#[test]
fn the_table_is_sound() {
    let mut seen = std::collections::HashSet::new();
    for key in KEYS {
        assert!(seen.insert(key.name), "{} is declared twice", key.name);
        assert!(!key.doc.is_empty() && !key.since.is_empty(), "{}", key.name);
        let absent = key.default == oxidask_config::Default::Absent;
        assert!(
            absent || key.kind.accepts(&key.default.value()),
            "{} has a wrong default",
            key.name
        );
    }
}

#[test]
fn a_wrong_type_names_key_value_and_place() {
    let folder = tempfile::tempdir().expect("folder");
    write(
        folder.path(),
        "d.yaml",
        "distributed:\n  scheduler:\n    worker-ttl: [1]\n",
    );
    let error = load(&[("DASK_CONFIG", text(folder.path()))])
        .expect_err("wrong")
        .to_string();
    let file = folder.path().join("d.yaml");
    assert_eq!(
        error,
        format!(
            "configuration key distributed.scheduler.worker-ttl must be a duration such as 500ms, 30s \
             or 1h, or null, but file {} sets it to [1]",
            file.display()
        )
    );
    let error =
        load(&[("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "many")]).expect_err("wrong");
    assert_eq!(
        error.to_string(),
        "configuration key distributed.scheduler.allowed-failures must be a whole number, but \
         environment variable DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES sets it to \"many\""
    );
}

#[test]
fn wrong_values_by_type() {
    for (name, value) in [
        ("DISTRIBUTED__SCHEDULER__WORK_STEALING", "maybe"),
        ("DISTRIBUTED__SCHEDULER__WORKER_TTL", "5 parsecs"),
        ("DISTRIBUTED__SCHEDULER__DEFAULT_DATA_SIZE", "5 parsecs"),
        ("DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "high"),
        ("DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", "{'a': 1}"),
        (
            "DISTRIBUTED__SCHEDULER__DEFAULT_TASK_DURATIONS",
            "{'a': 'b'}",
        ),
        ("DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "-1"),
        ("DISTRIBUTED__COMM__TLS__MIN_VERSION", "old"),
        ("DISTRIBUTED__COMM", "1"),
        ("OXIDASK__COMM__SILENT_PEER_FRAMING", "f3"),
    ] {
        let name = format!("DASK_{name}");
        let error = load(&[(&name, value)]).expect_err(&name);
        assert!(
            matches!(error, ConfigError::WrongType { .. }),
            "{name}: {error}"
        );
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[test]
fn accepted_values_by_type() {
    let config = load(&[
        ("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "inf"),
        ("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "None"),
        ("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING_INTERVAL", "250"),
        ("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", "my.module"),
        ("DASK_DISTRIBUTED__WORKER__MEMORY__SPILL", "False"),
        ("DASK_DISTRIBUTED__COMM__SHARD", "1 MiB"),
        (
            "DASK_DISTRIBUTED__SCHEDULER__DEFAULT_TASK_DURATIONS",
            "{'inc': '2s'}",
        ),
    ])
    .expect("valid");
    assert_eq!(
        config.f64("distributed.scheduler.worker-saturation"),
        Some(f64::INFINITY)
    );
    assert_eq!(config.seconds("distributed.scheduler.worker-ttl"), None);
    assert_eq!(
        config.seconds("distributed.scheduler.work-stealing-interval"),
        Some(0.25)
    );
    assert_eq!(
        config.str_list("distributed.scheduler.preload"),
        ["my.module"]
    );
    assert_eq!(config.fraction("distributed.worker.memory.spill"), None);
    assert_eq!(
        config.fraction("distributed.worker.memory.target"),
        Some(0.6)
    );
    assert_eq!(config.bytes("distributed.comm.shard"), Some(1 << 20));
    let durations = config.durations("distributed.scheduler.default-task-durations");
    assert!(
        durations.contains(&("inc".to_owned(), 2.0)),
        "{durations:?}"
    );
    assert!(
        durations.contains(&("rechunk-split".to_owned(), 1e-6)),
        "merged with the defaults"
    );
}

#[test]
fn an_empty_section_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    write(
        folder.path(),
        "a.yaml",
        "distributed:\n  scheduler:\n  # validate: true\n",
    );
    write(folder.path(), "b.yaml", "# nothing at all\n");
    let config = load(&[("DASK_CONFIG", text(folder.path()))]).expect("valid");
    assert_eq!(
        config.count("distributed.scheduler.allowed-failures"),
        Some(3)
    );
}

#[test]
fn malformed_files_are_reported_in_one_line_with_their_place() {
    for (content, part) in [
        ("a: [1, 2\nb: 3\n", "line "),
        ("a: 1\n b: 2\n", "line 2"),
        ("- 1\n- 2\n", "must hold a mapping"),
        ("a: !!python/object:os.system x\n", "unsupported tag"),
        ("a: 1\n---\nb: 2\n", "more than one document"),
        ("a: &x [*x]\n", "line "),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "d.yaml", content);
        let error = load(&[("DASK_CONFIG", text(folder.path()))])
            .expect_err(content)
            .to_string();
        assert!(
            error.contains(part) && error.contains("d.yaml"),
            "{content:?}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
    }
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    for content in [bomb, deep] {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "d.yaml", &content);
        let error = load(&[("DASK_CONFIG", text(folder.path()))]).expect_err("refused");
        assert!(matches!(error, ConfigError::Malformed { .. }), "{error}");
    }
}

#[test]
fn anchors_and_merge_keys_work() {
    let folder = tempfile::tempdir().expect("folder");
    write(
        folder.path(),
        "a.yaml",
        "base: &b {x: 1, y: 2}\nall:\n  <<: *b\n  y: 3\n",
    );
    let config = load(&[("DASK_CONFIG", text(folder.path()))]).expect("valid");
    assert_eq!(config.int("all.x"), Some(1));
    assert_eq!(config.int("all.y"), Some(3));
}

#[test]
fn memory_limits() {
    for (text, limit, resolved) in [
        ("auto", MemoryLimit::Auto, Some(500)),
        ("0", MemoryLimit::Unlimited, None),
        ("none", MemoryLimit::Unlimited, None),
        ("None", MemoryLimit::Unlimited, None),
        ("0.5", MemoryLimit::Fraction(0.5), Some(500)),
        ("1", MemoryLimit::Fraction(1.0), Some(1000)),
        ("1.0", MemoryLimit::Fraction(1.0), Some(1000)),
        ("700", MemoryLimit::Bytes(700), Some(700)),
        ("10Gi", MemoryLimit::Bytes(10 << 30), Some(1000)),
        ("4GB", MemoryLimit::Bytes(4_000_000_000), Some(1000)),
    ] {
        let parsed = MemoryLimit::parse(text).expect(text);
        assert_eq!(parsed, limit, "{text}");
        assert_eq!(parsed.resolve(1000, 2, 4), resolved, "{text}");
    }
    assert!(MemoryLimit::parse("lots").is_err());
    assert!(MemoryLimit::parse("-1").is_err());
}

#[test]
fn a_change_of_the_wrong_type_is_refused_and_changes_nothing() {
    let mut config = Config::defaults();
    let wrong = config.set(
        "distributed.scheduler.idle-timeout",
        ConfigValue::Str("soon".to_owned()),
        Origin::Option("--idle-timeout".to_owned()),
    );
    assert!(
        wrong
            .expect_err("wrong")
            .to_string()
            .contains("option --idle-timeout")
    );
    assert_eq!(config.seconds("distributed.scheduler.idle-timeout"), None);
}

proptest! {
    /// Whatever a variable holds, loading neither panics nor takes long.
    #[test]
    fn any_variable_is_harmless(value in "[\\[\\](){}'\"a-z0-9,:.+_ \\\\#-]{0,60}") {
        let _ = interpret_value(&value);
        let _ = load(&[("DASK_FOO__BAR", &value), ("DASK_INTERNAL_INHERIT_CONFIG", &value)]);
    }

    /// Whatever a file holds, loading answers with a configuration or one line.
    #[test]
    fn any_file_is_harmless(content in "[\\[\\]{}&*!|>'\"a-z0-9,:.\\-? \n#%@`]{0,80}") {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "a.yaml", &content);
        if let Err(error) = load(&[("DASK_CONFIG", text(folder.path()))]) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
