//! Life of the worker as a whole. Which steps it may take is decided here; the scheduler's core has the
//! same names, but only believes what it is told, in the spelling of every release.

/// What the worker as a whole is up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkerStatus {
    /// Not registered yet: takes orders, begins nothing.
    Init,
    /// Begins tasks and transfers.
    #[default]
    Running,
    /// Out of memory for the moment: what runs goes on, nothing new begins, data is handed out one
    /// request at a time.
    Paused,
    /// Handing over its data before it leaves; begins nothing.
    ClosingGracefully,
    /// Leaving.
    Closing,
    /// Gone.
    Closed,
}

impl WorkerStatus {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Init,
        Self::Running,
        Self::Paused,
        Self::ClosingGracefully,
        Self::Closing,
        Self::Closed,
    ];

    /// Stock's spelling, e.g. `closing_gracefully`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Reads stock's spelling.
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == s)
    }

    /// Whether the worker may go from `self` to `next`. There is no way back from closing; a retirement
    /// can be called off.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Init => true,
            Self::Running | Self::Paused | Self::ClosingGracefully => next != Self::Init,
            Self::Closing => matches!(next, Self::Closing | Self::Closed),
            Self::Closed => next == Self::Closed,
        }
    }
}
