//! What threads ask of the system that shares out the cores: those that others wait for ask for short turns, so that whoever
//! computes for long waits for them, not they for it; and those that compute for long ask for a smaller share.

/// Of a turn on a core, the shortest that Linux grants. Others have some milliseconds.
const SHORTEST: u64 = 100_000;
/// Of the share of others, a third.
const SMALLER: i32 = 5;
/// There is no smaller share.
const SMALLEST: i32 = 19;

/// Asks for short turns for the calling thread, not for what it starts. Systems that know nothing of it (Linux before
/// 6.12, and others) take no notice.
pub(crate) fn ask_for_short_turns() {
    #[cfg(target_os = "linux")]
    ask(|attributes| {
        attributes.runtime = SHORTEST;
        attributes.flags |= linux::RESET_ON_FORK;
    });
}

/// Asks for a smaller share for the calling thread, which keeps it for life. Only Linux has shares of single threads.
pub(crate) fn ask_for_less() {
    #[cfg(target_os = "linux")]
    ask(|attributes| attributes.nice = (attributes.nice + SMALLER).min(SMALLEST));
}

#[cfg(target_os = "linux")]
fn ask(change: impl FnOnce(&mut linux::Attributes)) {
    let Some(mut attributes) = linux::attributes() else {
        return;
    };
    // Whoever was given another class of scheduling knows why.
    if attributes.policy != linux::OTHER {
        return;
    }
    change(&mut attributes);
    if let Err(error) = linux::set_attributes(&mut attributes) {
        tracing::debug!("the share of a core stays as it is: {error}");
    }
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

    /// What a new thread has before and after it asks.
    fn asks(ask: fn()) -> [linux::Attributes; 2] {
        let thread = std::thread::spawn(move || {
            let before = linux::attributes().expect("attributes");
            ask();
            [before, linux::attributes().expect("attributes")]
        });
        thread.join().expect("a thread")
    }

    #[test]
    fn a_thread_has_short_turns_and_else_what_it_had() {
        let [before, after] = asks(ask_for_short_turns);
        // Zero from systems that know nothing of it.
        assert!([0, SHORTEST].contains(&after.runtime), "{after:?}");
        assert_eq!(
            (after.nice, after.flags),
            (before.nice, linux::RESET_ON_FORK)
        );
    }

    #[test]
    fn a_thread_has_a_smaller_share_and_else_what_it_had() {
        let [before, after] = asks(ask_for_less);
        let nice = (before.nice + SMALLER).min(SMALLEST);
        assert_eq!((after.nice, after.runtime), (nice, before.runtime));
    }
}
