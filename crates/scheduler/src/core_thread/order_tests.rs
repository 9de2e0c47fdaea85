//! What overtakes what.

use std::sync::mpsc;

use super::*;
use crate::observers;

/// A core that is held up until the sender is dropped, so that what follows queues up.
fn held() -> (CoreHandle, mpsc::SyncSender<()>) {
    let (sender, _) = observers::channel();
    let workers = Arc::<WorkerTable>::default();
    let core = start(CoreConfig::default(), workers, sender, None).expect("a core");
    let (hold, held) = mpsc::sync_channel::<()>(1);
    let (began, begins) = mpsc::sync_channel(1);
    core.inspect(move |_| {
        began.send(()).expect("somebody waits");
        assert!(held.recv().is_err(), "only the end is waited for");
    });
    begins.recv().expect("held");
    (core, hold)
}

fn report() -> Event {
    let worker = WorkerId(7);
    Event::WorkerSeen { worker }
}

/// Events that were handled when the question was answered.
fn handled(core: &CoreHandle) -> impl FnOnce(&Scheduler) -> u64 + Send + 'static {
    let core = core.clone();
    move |_| core.events_handled()
}

#[tokio::test]
async fn a_look_does_not_wait_for_what_workers_have_told_and_a_query_does() {
    let (core, hold) = held();
    for _ in 0..1000 {
        core.send(report());
    }
    let (query, look) = (core.query(handled(&core)), core.look(handled(&core)));
    let release = async { drop(hold) };
    let (queried, looked, ()) = tokio::join!(query, look, release);
    assert_eq!((looked, queried), (Ok(0), Ok(1000)));
}

#[tokio::test]
async fn a_look_sees_what_was_ordered_before() {
    let (core, hold) = held();
    core.send(report());
    let client = ClientId(1);
    let name = "Client-1".into();
    core.send(Event::AddClient { client, name });
    let keys = vec!["x".into()];
    core.send(Event::ClientDesiresKeys { client, keys });
    core.send(report());
    let look = core.look(|state| state.client(ClientId(1)).is_some());
    let count = core.look(handled(&core));
    let (looked, counted, ()) = tokio::join!(look, count, async { drop(hold) });
    assert_eq!((looked, counted), (Ok(true), Ok(3)));
}
