//! Graphs on their way from a client's session into the core: half of them in portions, with time for
//! others in between.

use std::collections::{BTreeMap, VecDeque};

use oxidask_scheduler_core::event::Event;
use oxidask_scheduler_core::graph::portions::{GraphId, Portions, Rest};
use oxidask_scheduler_core::graph::{GraphUpdate, numbering};

use super::{Occurrence, Sim};
use crate::rng::Rng;

/// What clients have not finished to submit, by client.
pub(super) struct Submissions {
    /// Its own, so that what else happens under a seed does not depend on portions.
    rng: Rng,
    graphs: u64,
    open: BTreeMap<u32, Submission>,
}

struct Submission {
    portions: Rest,
    /// What the client said since.
    backlog: VecDeque<Event>,
}

impl Submissions {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0x9047_1045),
            graphs: 0,
            open: BTreeMap::new(),
        }
    }
}

impl Sim {
    /// A message of a client, or the end of its session.
    pub(super) fn client_event(&mut self, client: u32, event: Event) -> Result<(), String> {
        if matches!(event, Event::RemoveClient { .. }) {
            self.submissions.open.remove(&client);
        }
        if let Some(open) = self.submissions.open.get_mut(&client) {
            open.backlog.push_back(event);
            return Ok(());
        }
        match event {
            Event::UpdateGraph(update) if self.submissions.rng.chance(0.5) => {
                self.begin_graph(client, *update)
            }
            event => self.core_event(event),
        }
    }

    fn begin_graph(&mut self, client: u32, update: GraphUpdate) -> Result<(), String> {
        self.submissions.graphs += 1;
        let graph = GraphId(self.submissions.graphs);
        let limit = 1 + self.submissions.rng.below(30);
        let numbering =
            numbering(&update.tasks, &update.keys).map_err(|error| error.to_string())?;
        let mut portions = match Portions::of(update, numbering, graph, limit) {
            Ok(portions) => portions,
            Err(update) => return self.core_event(Event::UpdateGraph(update)),
        };
        let states = self.core.tasks().map(|t| (t.key().clone(), t.state()));
        portions.found(&states.collect::<Vec<_>>());
        let (outline, portions) = portions.begin();
        let backlog = VecDeque::new();
        let submission = Submission { portions, backlog };
        self.submissions.open.insert(client, submission);
        self.core_event(Event::BeginGraph(Box::new(outline)))?;
        self.schedule_portion(client);
        Ok(())
    }

    fn schedule_portion(&mut self, client: u32) {
        let pause = self.submissions.rng.range(0.0, 0.05);
        self.schedule(self.now + pause, Occurrence::Portion(client));
    }

    pub(super) fn portion(&mut self, client: u32) -> Result<(), String> {
        let Some(open) = self.submissions.open.get_mut(&client) else {
            return Ok(());
        };
        if let Some(portion) = open.portions.next() {
            self.schedule_portion(client);
            return self.core_event(Event::ContinueGraph(Box::new(portion)));
        }
        let done = self.submissions.open.remove(&client);
        for event in done.map(|open| open.backlog).unwrap_or_default() {
            self.client_event(client, event)?;
        }
        Ok(())
    }
}
