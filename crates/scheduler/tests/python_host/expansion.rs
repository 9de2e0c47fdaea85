//! Graphs expanded by local processes.

use std::time::{Duration, Instant};

use oxidask_scheduler::python_host::{HostError, Mode, PythonHost, PythonHostConfig};

use crate::stock::Release;

fn local(release: &Release) -> PythonHost {
    PythonHost::new(release.local(), None, None)
}

async fn expands_like_stock<const N: usize>(release: &'static str, graphs: [&'static str; N]) {
    let Some(release) = Release::find(release) else {
        return;
    };
    let host = local(&release);
    let mut expanded = Vec::new();
    for submission in release.submit(&graphs) {
        match host.expand(&submission.request).await {
            Ok(graph) => expanded.push((submission, graph)),
            Err(error) => panic!("{}: {error}", submission.name),
        }
    }
    release.check(&expanded);
}

#[tokio::test]
async fn expressions_of_2026_8_0_become_the_tasks_that_stock_makes() {
    expands_like_stock(
        Release::NEW,
        [
            "groupby",
            "shuffle",
            "join",
            "array",
            "large-array",
            "bag",
            "delayed",
            "annotated",
            "lambda",
            "uncalled",
        ],
    )
    .await;
}

#[tokio::test]
async fn layers_of_2022_12_0_become_the_tasks_that_stock_makes() {
    expands_like_stock(
        Release::MID,
        ["groupby", "shuffle", "join", "array", "bag", "delayed"],
    )
    .await;
}

#[tokio::test]
async fn only_the_wanted_tasks_come_back() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let [submission] = release.submit(&["uncalled"]);
    let expanded = local(&release).expand(&submission.request).await.unwrap();
    assert_eq!(expanded.tasks.len(), 1);
}

#[tokio::test]
async fn output_of_user_code_does_not_disturb() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let host = local(&release);
    let [noisy, quiet] = release.submit(&["shouts", "delayed"]);
    let expanded = host.expand(&noisy.request).await.unwrap();
    assert_eq!(expanded.tasks.len(), 1);
    quiet.check(&host.expand(&quiet.request).await.unwrap());
}

#[tokio::test]
async fn an_exception_of_the_graph_is_told_as_stock_would() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let host = local(&release);
    let submissions = release.submit(&["unloadable", "raises"]);
    for (submission, expected) in submissions.iter().zip([
        "RuntimeError: Error during deserialization",
        "ZeroDivisionError: no graph today",
    ]) {
        match host.expand(&submission.request).await {
            Err(HostError::Raised(raised)) => {
                assert!(raised.text.starts_with(expected), "{}", raised.text);
                assert!(!raised.message.is_empty());
            }
            other => panic!("{}: {other:?}", submission.name),
        }
    }
}

#[tokio::test]
async fn a_crash_fails_one_graph_and_the_next_one_is_served() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let host = local(&release);
    let [bad, good] = release.submit(&["exits", "delayed"]);
    assert!(matches!(
        host.expand(&bad.request).await,
        Err(HostError::Crashed { .. })
    ));
    good.check(&host.expand(&good.request).await.unwrap());
}

#[tokio::test]
async fn a_hanging_graph_is_ended_and_holds_up_nobody() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let host = PythonHost::new(
        PythonHostConfig {
            timeout: Duration::from_secs(40),
            ..release.local()
        },
        None,
        None,
    );
    let [bad, good] = release.submit(&["hangs", "delayed"]);
    let started = Instant::now();
    let (hung, (served, took)) = tokio::join!(host.expand(&bad.request), async {
        (host.expand(&good.request).await, started.elapsed())
    });
    assert!(matches!(hung, Err(HostError::TimedOut { .. })), "{hung:?}");
    assert!(took < Duration::from_secs(40), "{took:?}");
    good.check(&served.unwrap());
    good.check(&host.expand(&good.request).await.unwrap());
}

#[tokio::test]
async fn a_python_that_talks_nonsense_is_reported() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let [submission] = release.submit(&["delayed"]);
    for python in ["/bin/cat", "/bin/false", "/nonexistent/python"] {
        let host = PythonHost::new(
            PythonHostConfig {
                python: Some(python.into()),
                start_timeout: Duration::from_secs(2),
                ..release.local()
            },
            None,
            None,
        );
        let error = host
            .expand(&submission.request)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(python), "{error}");
        assert!(error.contains("--python PATH"), "{error}");
    }
}

#[tokio::test]
async fn a_local_python_of_another_release_is_not_used() {
    let (Some(new), Some(mid)) = (Release::find(Release::NEW), Release::find(Release::MID)) else {
        return;
    };
    let error = local(&mid)
        .expand(&new.submit(&["delayed"])[0].request)
        .await
        .unwrap_err();
    assert!(matches!(error, HostError::NoBackend { .. }));
    let text = error.to_string();
    assert!(text.contains("has distributed 2022.12.0"), "{text}");
}

#[tokio::test]
async fn off_means_off() {
    let Some(release) = Release::find(Release::NEW) else {
        return;
    };
    let host = PythonHost::new(
        PythonHostConfig {
            mode: Mode::Off,
            ..release.local()
        },
        None,
        None,
    );
    let error = host.expand(&release.submit(&["exits"])[0].request).await;
    assert!(matches!(error, Err(HostError::Off)));
}
