//! What happens because time passes.

use crate::Worker;
use crate::effect::Effect;
use crate::event::GatherOutcome;
use crate::ids::{Timestamp, TransferId};

impl Worker {
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        let busy = self.busy_peers.iter().filter_map(|&p| {
            let busy = self.peers.get(p)?.busy?;
            Some(busy.until)
        });
        let deadlines = self.transfers.iter().filter_map(|(_, t)| t.deadline);
        busy.chain(deadlines)
            .map(Some)
            .fold(self.ask_at, Timestamp::earliest)
    }

    pub(crate) fn run_due_timers(&mut self) {
        self.end_departed_transfers();
        self.end_busy();
        if self.ask_at.is_some_and(|at| at <= self.now) {
            self.ask_at = None;
            self.stimulus = format!("find-missing-{}", self.now.0).into();
            for i in 0..self.missing.len() {
                if let Some(&id) = self.missing.get_index(i) {
                    self.tasks[id].asked = None;
                    self.to_ask.insert(id);
                }
            }
        }
    }

    fn end_busy(&mut self) {
        let now = self.now;
        for peer in std::mem::take(&mut self.busy_peers) {
            let Some(busy) = self.peers.get(peer).and_then(|p| p.busy) else {
                continue;
            };
            if busy.until > now {
                self.busy_peers.push(peer);
                continue;
            }
            self.stimulus = format!("retry-busy-worker-{}", now.0).into();
            self.peers[peer].busy = None;
            self.peers.forget_if_idle(peer);
        }
    }

    fn end_departed_transfers(&mut self) {
        let due: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.deadline.is_some_and(|at| at <= self.now))
            .map(|(id, _)| id)
            .collect();
        for transfer in due {
            self.stimulus = format!("departed-worker-{}", self.now.0).into();
            self.out.push(Effect::AbortGather { transfer });
            self.gathered(transfer, GatherOutcome::Unreachable);
        }
    }
}
