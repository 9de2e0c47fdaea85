//! What peers tell about their environment.

use oxidask_wire::{Release, Value};

/// `versions` of a registration.
pub(crate) fn versions(release: &Release) -> Value {
    let packages = [
        ("python", "3.12.1.final.0".to_owned()),
        ("dask", release.to_string()),
        ("distributed", release.to_string()),
    ];
    Value::map([
        ("host", Value::map([("OS", "Linux")])),
        ("packages", Value::map(packages)),
    ])
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
