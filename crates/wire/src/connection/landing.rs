//! Memory that large messages are read into, where the owner of a connection has something better than
//! a buffer that grows.

use bytes::Bytes;

/// Gives memory for large messages; see [`Reader::land_in`](super::Reader::land_in).
pub trait LandingPlace: Send + Sync {
    /// Memory for a message of `nbytes` bytes, the one at `aligned` on a boundary that suits numbers of
    /// every size. Nothing: the message is read like a small one.
    ///
    /// A peer has only announced so much yet: nothing that costs may be done for bytes that have not
    /// arrived, beyond as much again as have.
    fn landing(&self, nbytes: usize, aligned: usize) -> Option<Box<dyn Landing>>;
}

/// Memory of one message, filled from its beginning.
pub trait Landing: Send {
    /// What is not filled yet; empty when the message is whole.
    fn room(&mut self) -> &mut [u8];

    /// The first bytes of the room have been filled.
    fn filled(&mut self, nbytes: usize);

    /// The message, which must be whole. The memory is nobody else's.
    fn whole(self: Box<Self>) -> Bytes;
}
