//! Plugins that peers run: pickles kept for workers and nannies that come later, and how each
//! release wants them in its registration reply.

use bytes::Bytes;
use indexmap::IndexMap;
use oxidask_wire::release::Release;
use oxidask_wire::value::Value;
use parking_lot::RwLock;

/// `pickle.dumps(distributed.shuffle._worker_plugin.ShuffleWorkerPlugin())`, recorded from 2026.8.0.
/// Workers from 2023.7.1 on have no P2P shuffle without it.
const SHUFFLE_PLUGIN: &[u8] = b"\x80\x05\x95A\x00\x00\x00\x00\x00\x00\x00\x8c\"distributed.shuffle._worker_plugin\x94\x8c\x13ShuffleWorkerPlugin\x94\x93\x94)\x81\x94.";
/// First release that expects the shuffle plugin from the scheduler.
const SHUFFLE_PLUGIN_SINCE: Release = Release::new(2023, 7, 1);

/// Named pickles.
pub type Plugins = IndexMap<String, Bytes>;

/// What was registered.
#[derive(Debug, Default)]
pub struct PluginStore {
    /// For workers.
    pub workers: RwLock<Plugins>,
    /// For nannies.
    pub nannies: RwLock<Plugins>,
}

impl PluginStore {
    /// `worker-plugins` of the reply to `register-worker`.
    pub fn for_worker(&self, release: Release) -> Value {
        let plugins = self.workers.read();
        let mut all: Vec<(String, Bytes)> = Vec::new();
        if release >= SHUFFLE_PLUGIN_SINCE && !plugins.contains_key("shuffle") {
            all.push(("shuffle".to_owned(), Bytes::from_static(SHUFFLE_PLUGIN)));
        }
        all.extend(
            plugins
                .iter()
                .map(|(name, plugin)| (name.clone(), plugin.clone())),
        );
        drop(plugins);
        if release >= Release::new(2021, 5, 0) {
            Value::map(all)
        } else if release >= Release::new(2, 27, 0) {
            let item = |(name, plugin)| {
                Value::map([("plugin", Value::Bin(plugin)), ("name", Value::Str(name))])
            };
            Value::array(all.into_iter().map(item))
        } else {
            Value::array(all.into_iter().map(|(_, plugin)| plugin))
        }
    }

    /// `nanny-plugins` of the reply to `register_nanny`.
    pub fn for_nanny(&self) -> Value {
        let plugins = self.nannies.read();
        Value::map(
            plugins
                .iter()
                .map(|(name, plugin)| (name.clone(), plugin.clone())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_follows_the_release() {
        let store = PluginStore::default();
        store
            .workers
            .write()
            .insert("p".to_owned(), Bytes::from_static(b"x"));
        let plugin = || Value::from(Bytes::from_static(b"x"));
        assert_eq!(
            store.for_worker(Release::new(2, 17, 0)),
            Value::array([plugin()])
        );
        assert_eq!(
            store.for_worker(Release::new(2, 30, 1)),
            Value::array([Value::map([("plugin", plugin()), ("name", "p".into())])])
        );
        assert_eq!(
            store.for_worker(Release::new(2022, 12, 0)),
            Value::map([("p", plugin())])
        );
        let newest = store.for_worker(Release::new(2026, 8, 0));
        assert_eq!(
            newest.get("shuffle").and_then(Value::as_bin).unwrap().len(),
            76
        );
        assert_eq!(newest.get("p"), Some(&plugin()));
    }
}
