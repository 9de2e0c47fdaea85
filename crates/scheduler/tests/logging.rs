//! Log lines, levels and the buffer for `get_logs`.

use std::io::Write;
use std::sync::{Arc, Mutex};

use oxidask_config::{Config, Env};
use oxidask_scheduler::logging::{LogBuffer, LogLine, LogOptions, logger_name, subscriber};

#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Lines on stderr and in the buffer of what `events` logs under these variables.
fn log(vars: &[(&str, &str)], events: impl FnOnce()) -> (Vec<String>, LogBuffer) {
    let mut all = vec![("DASK_ROOT_CONFIG", "/nonexistent")];
    all.extend(vars);
    let config = Config::load(&Env::new(all)).expect("valid");
    let (options, problems) = LogOptions::from_config(&config);
    assert_eq!(problems, Vec::<String>::new());
    let out = Out::default();
    let (subscriber, buffer) = subscriber(options, Box::new(out.clone()));
    tracing::subscriber::with_default(subscriber, events);
    let text = String::from_utf8(out.0.lock().expect("lock").clone()).expect("text");
    (text.lines().map(str::to_owned).collect(), buffer)
}

#[test]
fn a_line_reads_as_one_of_stock() {
    let (lines, _) = log(
        &[],
        || tracing::info!(target: "distributed.scheduler", "  Scheduler at:   {}", "tcp://x:1"),
    );
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    let (time, rest) = line.split_at(23);
    assert_eq!(
        rest,
        " - distributed.scheduler - INFO -   Scheduler at:   tcp://x:1"
    );
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00 00:00:00,000");
}

#[test]
fn the_format_of_older_releases_and_widths() {
    let vars = [(
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT",
        "%(levelname)-8s|%(name)s|%(levelno)5d|%(lineno)d|100%%|%x|%(message)s",
    )];
    let (lines, _) = log(&vars, || tracing::warn!(target: "distributed.core", "hm"));
    assert_eq!(lines, ["WARNING |distributed.core|   30||100%|%x|hm"]);
}

#[test]
fn our_modules_log_under_the_names_of_stock() {
    for (target, name) in [
        (
            "oxidask_scheduler::session::worker",
            "distributed.scheduler",
        ),
        ("oxidask_scheduler::http::server", "distributed.http"),
        ("oxidask_scheduler::httpx", "distributed.scheduler"),
        ("oxidask_wire::frames", "distributed.comm"),
        ("dask_scheduler", "distributed.scheduler"),
        ("distributed.stealing", "distributed.stealing"),
        ("hyper::proto", "hyper.proto"),
    ] {
        assert_eq!(logger_name(target), name, "{target}");
    }
}

#[test]
fn levels_are_those_of_stock_unless_configured() {
    let events = || {
        tracing::info!(target: "distributed.scheduler", "a");
        tracing::debug!(target: "distributed.scheduler", "b");
        tracing::info!(target: "hyper::proto", "c");
        tracing::warn!(target: "hyper::proto", "d");
    };
    let messages = |vars: &[(&str, &str)]| -> String {
        log(vars, events)
            .0
            .iter()
            .filter_map(|line| line.chars().last())
            .collect()
    };
    assert_eq!(messages(&[]), "ad");
    assert_eq!(messages(&[("DASK_LOGGING__DISTRIBUTED", "debug")]), "abd");
    assert_eq!(
        messages(&[(
            "DASK_DISTRIBUTED__LOGGING",
            "{'distributed.scheduler': 40, 'hyper': 'info'}"
        )]),
        "cd"
    );
    let new = "{'version': 1, 'loggers': {'distributed': {'level': 'WARNING'}}, 'root': {'level': 'DEBUG'}}";
    assert_eq!(messages(&[("DASK_LOGGING", new)]), "cd");
}

#[test]
fn a_level_that_is_none_is_reported() {
    let config = Config::load(&Env::new([
        ("DASK_ROOT_CONFIG", "/nonexistent"),
        ("DASK_LOGGING__DISTRIBUTED", "loud"),
    ]))
    .expect("valid");
    let (_, problems) = LogOptions::from_config(&config);
    assert!(
        problems.len() == 1 && problems[0].contains("loud"),
        "{problems:?}"
    );
}

#[test]
fn json_lines_hold_message_and_fields() {
    let (lines, buffer) = log(&[("DASK_OXIDASK__LOG__FORMAT", "json")], || {
        tracing::error!(target: "distributed.scheduler", worker = "tcp://w:1", tasks = 3, "lost \"it\"");
    });
    let object: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(object["level"], "ERROR");
    assert_eq!(object["logger"], "distributed.scheduler");
    assert_eq!(object["message"], "lost \"it\"");
    assert_eq!(
        (&object["worker"], &object["tasks"]),
        (&"tcp://w:1".into(), &3.into())
    );
    assert!(
        chrono::DateTime::parse_from_rfc3339(object["timestamp"].as_str().expect("text")).is_ok()
    );
    let kept = buffer.newest(0.0, None);
    assert!(
        kept[0]
            .text
            .ends_with(" - distributed.scheduler - ERROR - lost \"it\" worker=tcp://w:1 tasks=3")
    );
}

#[test]
fn clients_are_told_what_the_scheduler_logged_and_what_went_wrong_elsewhere() {
    let (lines, buffer) = log(&[], || {
        tracing::info!(target: "distributed.scheduler", "one");
        tracing::info!(target: "distributed.core", "two");
        tracing::warn!(target: "distributed.core", "three");
    });
    assert_eq!(lines.len(), 3);
    let kept: Vec<String> = buffer
        .newest(0.0, None)
        .iter()
        .filter_map(|line| line.text.rsplit(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(kept, ["three", "one"]);
}

#[test]
fn the_buffer_gives_the_newest_first_and_honours_start_and_limit() {
    let buffer = LogBuffer::new(Some(3), usize::MAX);
    for created in 1..=5_u8 {
        let line = LogLine {
            created: f64::from(created),
            level: "INFO",
            text: created.to_string().into(),
        };
        buffer.push(line);
    }
    let texts = |start, limit| -> String {
        buffer
            .newest(start, limit)
            .iter()
            .map(|line| line.text.to_string())
            .collect()
    };
    assert_eq!(texts(0.0, None), "543");
    assert_eq!(texts(0.0, Some(0)), "543");
    assert_eq!(texts(0.0, Some(2)), "54");
    assert_eq!(texts(4.0, None), "54");
}

#[test]
fn the_buffer_keeps_to_its_bytes() {
    let buffer = LogBuffer::new(None, 10_000);
    for _ in 0..1000 {
        buffer.push(LogLine {
            created: 0.0,
            level: "INFO",
            text: "x".repeat(1000).into(),
        });
    }
    let kept = buffer.newest(0.0, None).len();
    assert!((5..10).contains(&kept), "{kept}");
    buffer.push(LogLine {
        created: 0.0,
        level: "INFO",
        text: "x".repeat(20_000).into(),
    });
    assert!(buffer.newest(0.0, None).is_empty());
}
