//! Requests for data to peers.

use oxidask_key::Key;

use super::{IdMap, TaskSet};
use crate::ids::{PeerId, Timestamp, TransferId};

/// One request.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) peer: PeerId,
    /// Whose data is expected from it. What was asked for and has been freed since is not among them.
    pub(crate) tasks: TaskSet,
    /// What was asked for and has been freed since: only for views.
    pub(crate) freed: Vec<Key>,
    /// Expected size.
    pub(crate) nbytes: u64,
    /// When to give up. Only if the peer is said to have left.
    pub(crate) deadline: Option<Timestamp>,
}

/// All requests under way.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    transfers: IdMap<TransferId, Transfer>,
    last: u64,
    nbytes: u64,
}

impl Transfers {
    pub(crate) fn begin(&mut self, transfer: Transfer) -> TransferId {
        self.last += 1;
        let id = TransferId(self.last);
        self.nbytes = self.nbytes.saturating_add(transfer.nbytes);
        self.transfers.insert(id, transfer);
        id
    }

    pub(crate) fn get(&self, id: TransferId) -> Option<&Transfer> {
        self.transfers.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.transfers.get_mut(&id)
    }

    pub(crate) fn end(&mut self, id: TransferId) -> Option<Transfer> {
        let transfer = self.transfers.swap_remove(&id)?;
        self.nbytes = match self.transfers.is_empty() {
            true => 0,
            false => self.nbytes.saturating_sub(transfer.nbytes),
        };
        Some(transfer)
    }

    pub(crate) fn len(&self) -> usize {
        self.transfers.len()
    }

    /// Bytes on their way.
    pub(crate) fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// How many there have been so far.
    pub(crate) fn begun(&self) -> u64 {
        self.last
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TransferId, &Transfer)> {
        self.transfers.iter().map(|(id, t)| (*id, t))
    }
}
