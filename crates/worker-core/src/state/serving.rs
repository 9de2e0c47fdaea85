//! Requests for our data that are being served.

use super::IdMap;
use crate::ids::RequestId;

/// Transfers from us.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// Bytes of each.
    requests: IdMap<RequestId, u64>,
    nbytes: u64,
    total: u64,
}

impl Serving {
    pub(crate) fn begin(&mut self, request: RequestId, nbytes: u64) {
        let old = self.requests.insert(request, nbytes).unwrap_or_default();
        self.nbytes = self.nbytes.saturating_sub(old).saturating_add(nbytes);
        self.total += 1;
    }

    pub(crate) fn end(&mut self, request: RequestId) {
        let nbytes = self.requests.swap_remove(&request).unwrap_or_default();
        self.nbytes = match self.requests.is_empty() {
            true => 0,
            false => self.nbytes.saturating_sub(nbytes),
        };
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn nbytes(&self) -> u64 {
        self.nbytes
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}
