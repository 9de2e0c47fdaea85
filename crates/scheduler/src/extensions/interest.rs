//! Interests in keys that no client holds: what lies in a queue, a variable, a published dataset.

use std::sync::{Arc, OnceLock, Weak};

use oxidask_key::Key;
use oxidask_scheduler_core::event::Event;

use crate::context::Context;

/// A change of what a pseudo client wants. `owner` is its name in the scheduler's state, e.g.
/// `queue-x`; it has no stream and lives as long as it wants anything.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Interest {
    /// Keep these results.
    Desire {
        /// Name of the pseudo client.
        owner: String,
        /// What.
        keys: Vec<Key>,
    },
    /// These results may go.
    Release {
        /// Name of the pseudo client.
        owner: String,
        /// What.
        keys: Vec<Key>,
    },
    /// All its interests end; the pseudo client is dropped.
    Forget {
        /// Name of the pseudo client.
        owner: String,
    },
    /// A real client (named as it registered) takes over a key that was handed to it.
    HandOver {
        /// Name of the client.
        client: String,
        /// What.
        key: Key,
    },
}

/// Takes interests to the scheduler's state, in the order of the calls.
pub(crate) trait InterestSink: Send + Sync {
    /// Applies one change. Must not wait: it is called with the extension's state locked, so that
    /// the order of changes is the order of what caused them.
    fn apply(&self, interest: Interest);
}

/// Sends interests to the core as those of pseudo clients. Made before the scheduler is up, so it is
/// told later where the core is; before that there are no peers and no interests.
#[derive(Default)]
pub(crate) struct PseudoClients {
    context: OnceLock<Weak<Context>>,
}

impl PseudoClients {
    /// Connects to the core; the first call counts.
    pub(crate) fn bind(&self, context: &Arc<Context>) {
        let _ = self.context.set(Arc::downgrade(context));
    }
}

impl InterestSink for PseudoClients {
    fn apply(&self, interest: Interest) {
        let Some(context) = self.context.get().and_then(Weak::upgrade) else {
            tracing::error!(?interest, "the scheduler is not up, results are not kept");
            return;
        };
        let (clients, core) = (&context.clients, &context.core);
        match interest {
            Interest::Desire { owner, keys } => {
                let client = clients.pseudo(core, &owner);
                core.send(Event::ClientDesiresKeys { client, keys });
            }
            Interest::Release { owner, keys } => {
                if let Some(client) = clients.named(&owner) {
                    core.send(Event::ClientReleasesKeys {
                        client: client.id,
                        keys,
                        stimulus_id: format!("{owner}-release").into(),
                    });
                }
            }
            Interest::Forget { owner } => {
                if let Some(client) = clients.named(&owner) {
                    clients.remove(core, client.id, &format!("{owner}-delete"));
                }
            }
            Interest::HandOver { client, key } => {
                if let Some(client) = clients.named(&client) {
                    core.send(Event::ClientDesiresKeys {
                        client: client.id,
                        keys: vec![key],
                    });
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::extensions::wait::lock;
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    /// Remembers what each pseudo client wants.
    #[derive(Default)]
    pub(crate) struct Recorder {
        log: Mutex<Vec<Interest>>,
    }

    impl Recorder {
        /// The last change.
        pub(crate) fn last(&self) -> Option<Interest> {
            lock(&self.log).last().cloned()
        }
    }

    impl InterestSink for Recorder {
        fn apply(&self, interest: Interest) {
            lock(&self.log).push(interest);
        }
    }

    impl Recorder {
        /// The keys `owner` wants now, as sorted text.
        pub(crate) fn wanted(&self, owner: &str) -> Vec<String> {
            let mut wanted = BTreeSet::new();
            for interest in lock(&self.log).iter() {
                match interest {
                    Interest::Desire { owner: o, keys } if o == owner => {
                        wanted.extend(keys.iter().map(Key::to_text));
                    }
                    Interest::Release { owner: o, keys } if o == owner => {
                        for key in keys {
                            wanted.remove(&key.to_text());
                        }
                    }
                    Interest::Forget { owner: o } if o == owner => wanted.clear(),
                    Interest::HandOver { client, key } if client == owner => {
                        wanted.insert(key.to_text());
                    }
                    _ => {}
                }
            }
            wanted.into_iter().collect()
        }
    }
}
