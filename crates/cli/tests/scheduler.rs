//! Command lines of `dask-scheduler` that deployments use, and mistakes in them.

use oxidask_cli::{
    HostAndPort, LogFormat, Outcome, Parsed, PortSpec, PythonHostMode, SchedulerArgs, UsageError,
    parse_scheduler,
};
use oxidask_config::Config;
use proptest::prelude::*;

fn parse(words: &[&str]) -> Result<Outcome<SchedulerArgs>, UsageError> {
    let words: Vec<String> = std::iter::once("/usr/bin/dask-scheduler")
        .chain(words.iter().copied())
        .map(str::to_owned)
        .collect();
    parse_scheduler(&words)
}

fn run(words: &[&str]) -> Parsed<SchedulerArgs> {
    match parse(words) {
        Ok(Outcome::Run(parsed)) => parsed,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn mistake(words: &[&str]) -> String {
    match parse(words) {
        Err(error) => error.message,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn address(host: &str, port: u16) -> HostAndPort {
    HostAndPort {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn without_options_everything_has_its_default() {
    let Parsed { args, warnings } = run(&[]);
    assert_eq!(args.port, None);
    assert_eq!(args.dashboard_address, [address("", 8787)]);
    assert!(args.dashboard && !args.jupyter);
    assert_eq!(args.host, None);
    assert!(warnings.is_empty());
}

#[test]
fn values_stand_after_a_blank_or_an_equals_sign_and_the_last_counts() {
    for words in [
        &["--port", "1", "--port=8786"][..],
        &["--port=1", "--port", "8786"],
    ] {
        assert_eq!(
            run(words).args.port,
            Some(PortSpec::List(vec![8786])),
            "{words:?}"
        );
    }
}

#[test]
fn ports() {
    for (text, ports) in [
        ("0", vec![0]),
        ("8786", vec![8786]),
        ("8786,0", vec![8786, 0]),
        ("8786:8788", vec![8786, 8787, 8788]),
    ] {
        let args = run(&[
            "--protocol",
            if text.contains(',') { "tcp,ws" } else { "tcp" },
            "--port",
            text,
        ])
        .args;
        let port = args.port.expect("given");
        assert_eq!(port.candidates().collect::<Vec<_>>(), ports, "{text}");
    }
    assert_eq!(run(&["--port", ""]).args.port, None);
    for text in ["x", "70000", "2:1", "1:2:3", "-1", "8786,8787"] {
        assert!(
            mistake(&["--port", text]).starts_with("Invalid value for '--port': "),
            "{text}"
        );
    }
}

#[test]
fn dashboard_addresses() {
    for (text, expected) in [
        ("8788", vec![address("", 8788)]),
        (":8788", vec![address("", 8788)]),
        ("0.0.0.0:8787", vec![address("0.0.0.0", 8787)]),
        ("[::1]:8787", vec![address("::1", 8787)]),
        ("localhost", vec![address("localhost", 0)]),
        (":8787,:8887", vec![address("", 8787), address("", 8887)]),
        ("", vec![address("", 8787)]),
    ] {
        assert_eq!(
            run(&["--dashboard-address", text]).args.dashboard_address,
            expected,
            "{text}"
        );
    }
    for text in ["http://x:1", "a:b", "::1", "x:99999"] {
        assert!(
            mistake(&["--dashboard-address", text]).contains("--dashboard-address"),
            "{text}"
        );
    }
}

#[test]
fn pairs_take_the_last_one_given() {
    assert!(!run(&["--dashboard", "--no-dashboard"]).args.dashboard);
    assert!(run(&["--no-dashboard", "--dashboard"]).args.dashboard);
    assert!(
        run(&["--no-dashboard", "--no-dashboard", "--dashboard"])
            .args
            .dashboard
    );
}

#[test]
fn empty_texts_count_as_not_given() {
    let args = run(&[
        "--host",
        "",
        "--pid-file=",
        "--scheduler-file",
        "",
        "--interface",
        "",
    ])
    .args;
    assert_eq!(args.host, None);
    assert_eq!(args.pid_file, None);
    assert_eq!(args.scheduler_file, None);
    assert!(args.interface.is_empty());
}

#[test]
fn older_spellings_work_and_warn() {
    let Parsed { args, warnings } = run(&[
        "--bokeh-port",
        "8888",
        "--no-bokeh",
        "--show",
        "--use-xheaders",
        "yes",
    ]);
    assert_eq!(args.dashboard_address, [address("", 8888)]);
    assert!(!args.dashboard);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].contains("renamed to --dashboard/--no-dashboard"));
}

#[test]
fn each_option_without_effect_warns_once() {
    for (words, option) in [
        (&["--jupyter"][..], "--jupyter"),
        (&["--no-show"], "--show/--no-show"),
        (&["--use-xheaders=False"], "--use-xheaders"),
    ] {
        let warnings = run(words).warnings;
        assert_eq!(warnings.len(), 1, "{words:?}: {warnings:?}");
        assert!(
            warnings[0].contains(option) && warnings[0].contains("no effect"),
            "{warnings:?}"
        );
    }
}

#[test]
fn words_and_unknown_options_go_to_a_preload_wherever_it_stands() {
    for words in [
        &["--preload", "m", "--my-option", "5", "x", "--port", "1"][..],
        &["--my-option", "--port=1", "5", "x", "--preload=m"],
        &["--port=1", "--preload=m", "--", "--my-option", "5", "x"],
    ] {
        let args = run(words).args;
        assert_eq!(args.preload, ["m"], "{words:?}");
        assert_eq!(args.preload_argv, ["--my-option", "5", "x"], "{words:?}");
        assert_eq!(args.port, Some(PortSpec::List(vec![1])), "{words:?}");
    }
}

#[test]
fn mistakes_read_as_those_of_click() {
    for (words, message) in [
        (&["--foo"][..], "No such option: --foo"),
        (&["--foo=1"], "No such option: --foo=1"),
        (&["x", "-y"], "No such option: -y"),
        (&["--port"], "Option '--port' requires an argument."),
        (&["--show=1"], "Option '--show' does not take a value."),
        (
            &["--use-xheaders", "maybe"],
            "Invalid value for '--use-xheaders': 'maybe' is not a valid boolean.",
        ),
        (
            &["--tls-cert", "/nope"],
            "Invalid value for '--tls-cert': Path '/nope' does not exist.",
        ),
    ] {
        assert_eq!(mistake(words), message, "{words:?}");
    }
    assert!(mistake(&["a", "b"]).starts_with("Got unexpected extra arguments: (a b)."));
    assert!(
        mistake(&["--idle-timeout", "soon"]).starts_with("Invalid value for '--idle-timeout': ")
    );
    assert!(mistake(&["--python-host", "x"]).starts_with("Invalid value for '--python-host': "));
    assert!(mistake(&["--bokeh-port", "x"]).starts_with("Invalid value for '--bokeh-port': "));
}

#[test]
fn a_mistake_shows_usage_and_where_help_is() {
    let error = parse(&["--foo"]).expect_err("wrong");
    assert_eq!(
        error.to_string(),
        "Usage: dask-scheduler [OPTIONS] [PRELOAD_ARGV]...\n\
         Try 'dask-scheduler --help' for help.\n\n\
         Error: No such option: --foo"
    );
    assert_eq!(UsageError::EXIT_CODE, 2);
}

#[test]
fn help_and_version_are_printed_before_values_are_looked_at() {
    for (words, part) in [
        (&["--port", "x", "--help"][..], "Launch a Dask scheduler."),
        (&["-h"], "--python-host"),
        (&["--version", "--help"], "dask-scheduler, version "),
        (&["word", "--version"], "dask-scheduler, version "),
    ] {
        let Ok(Outcome::Print(text)) = parse(words) else {
            panic!("{words:?}")
        };
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_value_of_an_option_is_the_next_word_whatever_it_looks_like() {
    assert_eq!(
        run(&["--dashboard-prefix", "--help"]).args.dashboard_prefix,
        "--help"
    );
}

#[test]
fn our_options_and_some_of_stock_reach_the_configuration() {
    let certificate = tempfile::NamedTempFile::new().expect("file");
    let certificate = certificate.path().to_str().expect("path");
    let args = run(&[
        "--python-host=delegated",
        "--python",
        "/opt/python",
        "--record",
        "events.rec",
        "--log-format",
        "json",
        "--idle-timeout",
        "30 minutes",
        "--tls-cert",
        certificate,
        "--preload",
        "m",
        "x",
    ])
    .args;
    assert_eq!(args.python_host, Some(PythonHostMode::Delegated));
    assert_eq!(args.log_format, Some(LogFormat::Json));
    let mut config = Config::defaults();
    args.apply(&mut config).expect("checked values");
    assert_eq!(
        config.str("oxidask.scheduler.record").as_deref(),
        Some("events.rec")
    );
    assert_eq!(
        config.str("oxidask.python-host.mode").as_deref(),
        Some("delegated")
    );
    assert_eq!(
        config.str("oxidask.python-host.python").as_deref(),
        Some("/opt/python")
    );
    assert_eq!(config.str("oxidask.log.format").as_deref(), Some("json"));
    assert_eq!(
        config.seconds("distributed.scheduler.idle-timeout"),
        Some(1800.0)
    );
    assert_eq!(config.str_list("distributed.scheduler.preload"), ["m"]);
    assert_eq!(config.str_list("distributed.scheduler.preload-argv"), ["x"]);
    assert!(config.str("distributed.comm.tls.scheduler.cert").is_some());
}

proptest! {
    /// No words make the parser panic.
    #[test]
    fn any_words_are_harmless(words in proptest::collection::vec(
        prop_oneof!["--[a-z]{0,3}", "--(port|host|show|preload|help|dashboard)(=[a-z0-9:,é]{0,4})?", "[ -~]{0,6}"], 0..6)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = parse(&words);
    }
}
