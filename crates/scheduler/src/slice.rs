//! Threads that others wait for ask the system for short turns on a core, so that whoever computes for long waits for them,
//! not they for it. They get no larger share of the cores.

/// Of a turn on a core, the shortest that Linux grants. Others have some milliseconds.
const SHORTEST: u64 = 100_000;

/// Asks for short turns for the calling thread, not for what it starts. Systems that know nothing of it (Linux before
/// 6.12) take no notice.
#[cfg(target_os = "linux")]
pub(crate) fn ask_for_short_turns() {
    let Some(mut attributes) = linux::attributes() else {
        return;
    };
    // Whoever was given another class of scheduling knows why. Whoever was given a larger share is served first anyway,
    // and what it starts would lose that share.
    if attributes.policy != linux::OTHER || attributes.nice < 0 {
        return;
    }
    attributes.runtime = SHORTEST;
    attributes.flags |= linux::RESET_ON_FORK;
    if let Err(error) = linux::set_attributes(&mut attributes) {
        tracing::debug!("no short turns: {error}");
    }
}

/// Other systems have nothing like it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ask_for_short_turns() {
    let _ = SHORTEST;
}

/// What the standard library and nix do not have.
#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    /// Threads that share the cores evenly.
    pub(super) const OTHER: u32 = 0;
    /// `SCHED_FLAG_RESET_ON_FORK`: what is started has the usual.
    pub(super) const RESET_ON_FORK: u64 = 1;

    /// `struct sched_attr` in its first version.
    #[repr(C)]
    #[derive(Debug, Default)]
    pub(super) struct Attributes {
        size: u32,
        pub(super) policy: u32,
        pub(super) flags: u64,
        pub(super) nice: i32,
        priority: u32,
        /// Nanoseconds of a turn, with [`OTHER`].
        pub(super) runtime: u64,
        deadline: u64,
        period: u64,
    }

    const SIZE: u32 = size_of::<Attributes>() as u32;

    /// Of the calling thread; nothing when the system does not tell.
    pub(super) fn attributes() -> Option<Attributes> {
        let mut attributes = Attributes::default();
        // SAFETY: the kernel writes at most `SIZE` bytes to what is as large as that, and any bytes are valid for it.
        let done =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
        (done == 0).then_some(attributes)
    }

    /// Of the calling thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn set_attributes(attributes: &mut Attributes) -> io::Result<()> {
        attributes.size = SIZE;
        // SAFETY: the kernel reads the size from the first field, and as many bytes, which are there. (It may write to
        // that field, which is why this is a mutable reference.)
        let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut *attributes, 0) };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_short_turns_and_what_it_starts_has_not() {
        let thread = std::thread::spawn(|| {
            let before = linux::attributes().expect("attributes");
            ask_for_short_turns();
            let after = linux::attributes().expect("attributes");
            let started = std::thread::spawn(|| linux::attributes().expect("attributes"));
            [before, after, started.join().expect("a thread")]
        });
        let [before, after, started] = thread.join().expect("a thread");
        // Systems that know nothing of it leave it as it was.
        let expected = match before.nice {
            ..0 => vec![before.runtime],
            0.. => vec![before.runtime, SHORTEST],
        };
        assert!(expected.contains(&after.runtime), "{after:?}");
        assert_eq!(after.nice, before.nice);
        assert_eq!(
            (started.nice, started.runtime),
            (before.nice, before.runtime)
        );
    }
}
