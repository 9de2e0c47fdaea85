//! The last log lines, bounded by number and by bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One line kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Seconds since 1970.
    pub created: f64,
    /// `INFO`, `WARNING`, …
    pub level: &'static str,
    /// The whole line without its end.
    pub text: Arc<str>,
}

/// Shared ring of lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogBuffer {
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    max_lines: usize,
    max_bytes: usize,
}

/// What a line costs besides its text.
const LINE_OVERHEAD: usize = size_of::<LogLine>() + 16;

impl LogBuffer {
    /// An empty buffer for at most so many lines and bytes.
    #[must_use]
    pub fn new(max_lines: Option<usize>, max_bytes: usize) -> Self {
        let max_lines = max_lines.unwrap_or(usize::MAX);
        let ring = Ring {
            lines: VecDeque::new(),
            bytes: 0,
            max_lines,
            max_bytes,
        };
        Self {
            ring: Arc::new(Mutex::new(ring)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A line is pushed or popped whole: the ring is sound even if a holder panicked.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line and drops the oldest beyond the bounds.
    pub fn push(&self, line: LogLine) {
        let mut ring = self.lock();
        ring.bytes = ring.bytes.saturating_add(line.text.len() + LINE_OVERHEAD);
        ring.lines.push_back(line);
        while ring.lines.len() > ring.max_lines || ring.bytes > ring.max_bytes {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes = ring.bytes.saturating_sub(oldest.text.len() + LINE_OVERHEAD);
        }
    }

    /// The newest lines first, at most `limit` (None, or 0 as in stock: all), none older than `start`
    /// (seconds since 1970).
    #[must_use]
    pub fn newest(&self, start: f64, limit: Option<usize>) -> Vec<LogLine> {
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let ring = self.lock();
        ring.lines
            .iter()
            .rev()
            .take(limit)
            .take_while(|line| line.created >= start)
            .cloned()
            .collect()
    }
}
