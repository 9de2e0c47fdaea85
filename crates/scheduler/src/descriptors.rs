//! File descriptors: each worker takes two (its stream, its heartbeats), each client two or three.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is kept for other than connections that were accepted: those to workers, files, pipes.
const MOST_RESERVED: u64 = 2000;
/// Part of the limit that is kept at most.
const RESERVED_SHARE: u64 = 4;
/// Connections that are accepted whatever the limit.
const LEAST: u64 = 64;
/// Without a limit, or with one that cannot be read.
const UNLIMITED: u64 = 1 << 20;

/// Raises the limit of this process as far as it may: many systems begin with 1,024, which is 300 workers, and allow far
/// more. Returns the limit in force.
pub(crate) fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return UNLIMITED;
    };
    if soft < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => return hard,
            Err(error) => tracing::debug!("limit of open files stays {soft}: {error}"),
        }
    }
    soft
}

/// Connections that are accepted at the same time under a limit of descriptors.
pub(crate) fn for_connections(limit: u64) -> usize {
    let reserved = (limit / RESERVED_SHARE).min(MOST_RESERVED);
    let connections = (limit - reserved).clamp(LEAST, UNLIMITED);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_descriptors_are_for_connections() {
        assert_eq!(for_connections(10), 64);
        assert_eq!(for_connections(1024), 768);
        assert_eq!(for_connections(20_000), 18_000);
        assert_eq!(for_connections(u64::MAX), 1 << 20);
    }

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let limit = raise_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        assert_eq!((limit, soft), (hard, hard));
    }
}
