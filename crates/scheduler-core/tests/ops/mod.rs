//! What can happen to a cluster under test, and how often.
#![allow(missing_docs, unreachable_pub)]

use proptest::prelude::*;

/// A number that chooses among what is there when its turn comes.
pub type Pick = u16;

#[derive(Clone, Debug)]
pub enum Op {
    Submit {
        client: Pick,
        /// Dependencies of each task, among earlier ones.
        tasks: Vec<(Vec<Pick>, Pick)>,
        wanted: Vec<Pick>,
        group: u8,
        drop_lost: bool,
    },
    /// A worker finishes, fails, secedes or gives back one of its tasks.
    Finish(Pick, Pick),
    Err(Pick, Pick),
    Secede(Pick, Pick),
    Reschedule(Pick, Pick),
    /// A message that came before comes again.
    Repeat(Pick),
    AddWorker(u8),
    LoseWorker(Pick, bool),
    Status(Pick, Pick),
    Release(Pick, Vec<Pick>),
    Desire(Pick, Vec<Pick>),
    Cancel(Pick, Vec<Pick>, bool),
    Retry(Vec<Pick>),
    Scatter(Pick, Pick),
    DropData(Pick, Pick),
    FetchData(Pick, Pick),
    AddClient,
    LoseClient(Pick),
    Restrict(Pick, Option<Pick>),
    Retire(Pick),
    Restart,
    /// The next portion of a graph comes.
    Continue(Pick),
    Heartbeat(Pick, u32),
    Pass(u8),
}

fn picks(max: usize) -> impl Strategy<Value = Vec<Pick>> {
    prop::collection::vec(any::<Pick>(), 0..max)
}

pub fn op() -> impl Strategy<Value = Op> {
    let tasks = prop::collection::vec((picks(4), any::<Pick>()), 1..12);
    prop_oneof![
        8 => (any::<Pick>(), tasks, picks(4), any::<u8>(), any::<bool>()).prop_map(
            |(client, tasks, wanted, group, drop_lost)| Op::Submit { client, tasks, wanted, group, drop_lost }
        ),
        24 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Finish(a, b)),
        3 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Err(a, b)),
        1 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Secede(a, b)),
        1 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Reschedule(a, b)),
        3 => any::<Pick>().prop_map(Op::Repeat),
        4 => any::<u8>().prop_map(Op::AddWorker),
        3 => (any::<Pick>(), any::<bool>()).prop_map(|(a, b)| Op::LoseWorker(a, b)),
        2 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Status(a, b)),
        4 => (any::<Pick>(), picks(6)).prop_map(|(a, b)| Op::Release(a, b)),
        2 => (any::<Pick>(), picks(4)).prop_map(|(a, b)| Op::Desire(a, b)),
        2 => (any::<Pick>(), picks(3), any::<bool>()).prop_map(|(a, b, c)| Op::Cancel(a, b, c)),
        2 => picks(4).prop_map(Op::Retry),
        2 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::Scatter(a, b)),
        2 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::DropData(a, b)),
        3 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Op::FetchData(a, b)),
        1 => Just(Op::AddClient),
        1 => any::<Pick>().prop_map(Op::LoseClient),
        1 => (any::<Pick>(), any::<Option<Pick>>()).prop_map(|(a, b)| Op::Restrict(a, b)),
        1 => any::<Pick>().prop_map(Op::Retire),
        1 => Just(Op::Restart),
        8 => any::<Pick>().prop_map(Op::Continue),
        2 => (any::<Pick>(), any::<u32>()).prop_map(|(a, b)| Op::Heartbeat(a, b)),
        4 => any::<u8>().prop_map(Op::Pass),
    ]
}
