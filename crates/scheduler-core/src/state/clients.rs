//! Clients and pseudo clients.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::dense::IdArray;
use crate::ids::{ClientId, TaskId};
use crate::sets::OrderedIdSet;

/// Name of the pseudo client that wants tasks until they are done, and no longer.
pub(crate) const FIRE_AND_FORGET: &str = "fire-and-forget";

/// One client.
pub(crate) struct Client {
    pub(crate) name: Arc<str>,
    /// Mostly tasks of few graphs, whose ids lie close together.
    pub(crate) wants_what: OrderedIdSet<TaskId, IdArray>,
}

/// All clients.
#[derive(Default)]
pub(crate) struct ClientTable {
    slots: Vec<Option<Box<Client>>>,
    by_name: HashMap<Arc<str>, ClientId, foldhash::fast::FixedState>,
    pub(crate) fire_and_forget: Option<ClientId>,
}

impl ClientTable {
    pub(crate) fn add(&mut self, id: ClientId, name: Arc<str>) {
        let at = id.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if &*name == FIRE_AND_FORGET {
            self.fire_and_forget = Some(id);
        }
        self.by_name.insert(Arc::clone(&name), id);
        if let Some(slot @ None) = self.slots.get_mut(at) {
            *slot = Some(Box::new(Client {
                name,
                wants_what: OrderedIdSet::default(),
            }));
        }
    }

    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Box<Client>> {
        let client = self.slots.get_mut(id.0 as usize)?.take()?;
        if self.by_name.get(&client.name) == Some(&id) {
            self.by_name.remove(&client.name);
        }
        if self.fire_and_forget == Some(id) {
            self.fire_and_forget = None;
        }
        Some(client)
    }

    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<ClientId> {
        self.by_name.get(name).copied()
    }

    /// In order of their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, c)| c.is_some())
            .map(|(i, _)| ClientId(i as u32))
    }
}
