//! The Python sources of the host, carried in the binary and sent to wherever they run.

use std::sync::LazyLock;

/// Starts a local host: reads the loader and the sources from stdin, then runs the module named by
/// its second argument. Small on purpose: it is what `ps` shows.
pub(super) const BOOTSTRAP: &str = include_str!("python/bootstrap.py");

/// Makes a package out of the sources; see its head.
pub(super) const LOADER: &str = include_str!("python/loader.py");

/// Module names and sources; a module imports only what stands before it.
const MODULES: &[(&str, &str)] = &[
    ("frames", include_str!("python/frames.py")),
    ("errors", include_str!("python/errors.py")),
    ("expand", include_str!("python/expand.py")),
    ("serve", include_str!("python/serve.py")),
    ("mirror", include_str!("python/mirror.py")),
    ("spans", include_str!("python/spans.py")),
    ("plugins", include_str!("python/plugins.py")),
    ("shell", include_str!("python/shell.py")),
    ("preloads", include_str!("python/preloads.py")),
    ("server", include_str!("python/server.py")),
    ("session", include_str!("python/session.py")),
    ("delegate", include_str!("python/delegate.py")),
];

/// The sources as JSON, and the package name they are loaded under.
pub(super) struct Bundle {
    /// Carries a digest of the sources: a delegate may still hold those of an older scheduler.
    pub(super) name: String,
    /// `[[module, source], …]`.
    pub(super) json: String,
}

/// The one bundle of this binary.
pub(super) static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let json = serde_json::to_string(MODULES).unwrap_or_default();
    let digest = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a: it must only tell versions of our own sources apart.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Bundle {
        name: format!("oxidask_python_host_{digest:016x}"),
        json,
    }
});
