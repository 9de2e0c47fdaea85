//! Data of a worker on the same machine: read from that process's memory, once, instead of through two
//! sockets. The system allows it to processes of one user, as a debugger's look; where it does not
//! (containers without the right, other namespaces), and between machines, data goes through the socket.
//!
//! Whoever asks for data says that it may be near. The answer is an [`Offer`]: where the frames lie, and
//! a number that lies there for as long as they do. It is read first, which shows that this is the
//! process meant, and again at the end, which shows that all the while nothing was given back. Until the
//! usual acknowledgement the frames stay; if it is not "OK", they are sent as always.

use std::io::{self, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use oxidask_wire::Value;
use oxidask_wire::connection::LandingPlace;

/// What a worker announces that can make offers.
pub(crate) const CAPABILITY: &str = "near-memory";
/// Argument of `get_data`: an offer is welcome.
pub(crate) const WELCOME: &str = "near_memory";
/// Status of an answer that is one.
pub(crate) const OFFERED: &str = "near";

/// Less data goes through the socket.
const WORTH: usize = 512 << 10;
/// Smaller frames are in the answer itself.
const LARGE: usize = 64 << 10;
/// Read at once: what stays in the processor's cache between looking at pages and copying them.
const STEP: usize = 1 << 20;
/// Larger data is read by a thread that may block.
pub(crate) const LONG: usize = 4 << 20;

/// Why data can not be read from a process nearby.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NearError {
    #[error("it is not to be read: {0}")]
    Refused(#[from] io::Error),
    #[error("another process is there, or it has given the data back")]
    Gone,
    #[error("the offer makes no sense")]
    Malformed,
    #[error("there is no memory for it")]
    NoMemory,
}

/// Frames that lie in this process, to be read by another.
pub(crate) struct Offer<'a> {
    frames: &'a [Bytes],
    mark: Box<[AtomicU64; 2]>,
}

impl<'a> Offer<'a> {
    /// Nothing if there is too little to be worth it.
    pub(crate) fn of(frames: &'a [Bytes]) -> Option<Self> {
        let large = frames.iter().map(Bytes::len).filter(|len| *len >= LARGE);
        if large.fold(0, usize::saturating_add) < WORTH {
            return None;
        }
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let mark = Box::new([AtomicU64::new(high), AtomicU64::new(low)]);
        Some(Self { frames, mark })
    }

    /// As it is answered.
    pub(crate) fn to_value(&self) -> Value {
        let place = |frame: &Bytes| match frame.len() < LARGE {
            true => Value::Bin(frame.clone()),
            false => Value::Array(vec![
                (frame.as_ptr() as u64).into(),
                (frame.len() as u64).into(),
            ]),
        };
        let mut mark = vec![Value::from(std::ptr::from_ref(&*self.mark) as u64)];
        mark.extend(
            self.mark
                .iter()
                .map(|word| Value::from(word.load(Ordering::Relaxed))),
        );
        Value::map([
            ("status", Value::from(OFFERED)),
            ("pid", std::process::id().into()),
            ("mark", Value::Array(mark)),
            (
                "frames",
                Value::Array(self.frames.iter().map(place).collect()),
            ),
        ])
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        // From here on the frames may be given back.
        self.mark
            .iter()
            .for_each(|word| word.store(0, Ordering::SeqCst));
    }
}

/// What another process offers.
#[derive(Debug)]
pub(crate) struct Offered {
    pid: Pid,
    mark_at: usize,
    mark: [u64; 2],
    frames: Vec<Frame>,
    /// Bytes that have to be read, with room between those that do not belong together.
    total: usize,
}

#[derive(Debug)]
enum Frame {
    Here(Bytes),
    /// Address there, place in our memory, length.
    There {
        from: usize,
        to: usize,
        length: usize,
    },
}

/// Every frame that does not continue the one before begins at a multiple of this.
const ALIGNMENT: usize = 64;

impl Offered {
    /// Reads an answer whose status is [`OFFERED`].
    ///
    /// # Errors
    /// [`NearError::Malformed`].
    pub(crate) fn from_value(value: &Value) -> Result<Self, NearError> {
        Self::read(value).ok_or(NearError::Malformed)
    }

    fn read(value: &Value) -> Option<Self> {
        let pid = i32::try_from(value.get("pid")?.as_u64()?).ok()?;
        let [mark_at, high, low] = value.get("mark")?.as_seq()? else {
            return None;
        };
        let address = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let (mut frames, mut end) = (Vec::new(), 0usize);
        let mut behind = None;
        for frame in value.get("frames")?.as_seq()? {
            if let Value::Bin(bytes) = frame {
                frames.push(Frame::Here(bytes.clone()));
                continue;
            }
            let [from, length] = frame.as_seq()? else {
                return None;
            };
            let (from, length) = (address(from)?, address(length)?);
            // Parts of one buffer stay together: the environment joins them without copying.
            let to = match behind == Some(from) {
                true => end,
                false => end.checked_next_multiple_of(ALIGNMENT)?,
            };
            end = to.checked_add(length)?;
            behind = Some(from.checked_add(length)?);
            frames.push(Frame::There { from, to, length });
        }
        Some(Self {
            pid: (pid > 0).then(|| Pid::from_raw(pid))?,
            mark_at: address(mark_at)?,
            mark: [high.as_u64()?, low.as_u64()?],
            frames,
            total: isize::try_from(end).is_ok().then_some(end)?,
        })
    }

    /// Bytes that have to be read.
    pub(crate) fn bytes(&self) -> usize {
        self.total
    }

    /// Reads all of it. Blocks for as long as copying takes.
    ///
    /// # Errors
    /// What can not be had this way; the socket is left.
    pub(crate) fn fetch(self, place: &dyn LandingPlace) -> Result<Vec<Bytes>, NearError> {
        self.is_there()?;
        let memory = place.landing(self.total, 0);
        let mut memory = memory.ok_or(NearError::NoMemory)?;
        let mut at = 0;
        for frame in &self.frames {
            let Frame::There { from, to, length } = *frame else {
                continue;
            };
            // What lies between frames.
            memory.filled(to.saturating_sub(at));
            at = to;
            let (mut from, end) = (from, to.saturating_add(length));
            while at < end {
                let room = memory.room();
                let step = room.len().min(STEP).min(end - at);
                let room = room.get_mut(..step).ok_or(NearError::Malformed)?;
                let read = self.copy(from, room)?;
                memory.filled(read);
                at += read;
                from = from.saturating_add(read);
            }
        }
        self.is_there()?;
        let whole = memory.whole();
        let frame = |frame: Frame| match frame {
            Frame::Here(bytes) => bytes,
            Frame::There { to, length, .. } => whole.slice(to..to + length),
        };
        Ok(self.frames.into_iter().map(frame).collect())
    }

    fn is_there(&self) -> Result<(), NearError> {
        let mut mark = [0; 16];
        let read = self.copy(self.mark_at, &mut mark)?;
        let [high, low] = self.mark.map(u64::to_ne_bytes);
        match read == mark.len() && mark == *[high, low].as_flattened() {
            true => Ok(()),
            false => Err(NearError::Gone),
        }
    }

    fn copy(&self, from: usize, to: &mut [u8]) -> Result<usize, NearError> {
        let there = [RemoteIoVec {
            base: from,
            len: to.len(),
        }];
        match process_vm_readv(self.pid, &mut [IoSliceMut::new(to)], &there) {
            Ok(0) => Err(NearError::Gone),
            Ok(read) => Ok(read),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::landing::Pool;
    use crate::memory::Thresholds;

    fn data(nbytes: usize, seed: usize) -> Bytes {
        let byte = |n: usize| (n * 7 + seed) as u8;
        (0..nbytes).map(byte).collect::<Vec<_>>().into()
    }

    fn pool() -> Pool {
        Pool::new(&Thresholds::default())
    }

    fn with(value: &Value, name: &str, new: Value) -> Value {
        let mut value = value.clone();
        value.insert(name, new);
        value
    }

    #[test]
    fn frames_are_read_from_where_they_lie() {
        let large = data(3 << 20, 1);
        // One buffer in two parts, of an odd length.
        let frames = [
            data(100, 2),
            large.slice(..1_000_001),
            large.slice(1_000_001..),
            data(10, 3),
            data(70_001, 4),
            Bytes::new(),
        ];
        let offer = Offer::of(&frames).expect("worth it");
        let offered = Offered::from_value(&offer.to_value()).expect("an offer");
        assert!(offered.bytes() >= (3 << 20) + 70_001);
        let read = offered.fetch(&pool()).expect("this process may be read");
        assert!(read == frames);
        assert_eq!(read[1].as_ptr_range().end, read[2].as_ptr());
        for frame in [&read[1], &read[4]] {
            assert_eq!(frame.as_ptr() as usize % ALIGNMENT, 0);
        }
    }

    #[test]
    fn little_data_is_not_offered() {
        assert!(Offer::of(&[data(WORTH - 1, 0)]).is_none());
        let small: Vec<Bytes> = (0..100).map(|n| data(LARGE - 1, n)).collect();
        assert!(Offer::of(&small).is_none());
        assert!(Offer::of(&[data(WORTH, 0)]).is_some());
    }

    #[test]
    fn data_that_was_given_back_or_is_elsewhere_is_noticed() {
        let frames = [data(1 << 20, 0)];
        let offer = Offer::of(&frames).expect("worth it");
        let value = offer.to_value();
        let fetch = |value: &Value| Offered::from_value(value).expect("an offer").fetch(&pool());
        let parent = Value::from(std::os::unix::process::parent_id());
        assert!(fetch(&with(&value, "pid", parent)).is_err(), "no such data");
        let wild = Value::Array(vec![Value::Array(vec![16u64.into(), (1u64 << 20).into()])]);
        let error = fetch(&with(&value, "frames", wild)).expect_err("nothing is there");
        assert!(matches!(error, NearError::Refused(_)), "{error}");
        assert!(fetch(&value).is_ok());
        drop(offer);
        assert!(fetch(&value).is_err());
    }

    #[test]
    fn nonsense_is_no_offer() {
        let frames = [data(1 << 20, 0)];
        let offer = Offer::of(&frames).expect("worth it");
        let value = offer.to_value();
        let place = |from: u64, length: u64| Value::Array(vec![from.into(), length.into()]);
        for (name, nonsense) in [
            ("pid", Value::Nil),
            ("pid", 0.into()),
            ("pid", u64::MAX.into()),
            ("mark", Value::Array(vec![1.into()])),
            ("frames", Value::Nil),
            ("frames", Value::Array(vec![Value::Array(vec![1.into()])])),
            ("frames", Value::Array(vec![place(u64::MAX, 2)])),
            ("frames", Value::Array(vec![place(1, u64::MAX - 1)])),
            (
                "frames",
                Value::Array(vec![place(1, 1 << 62), place(3, 1 << 62)]),
            ),
        ] {
            let error = Offered::from_value(&with(&value, name, nonsense.clone()));
            assert!(error.is_err(), "{name}: {nonsense:?}");
        }
        // More than any machine has.
        let huge = Value::Array(vec![place(4096, 1 << 60)]);
        let huge = Offered::from_value(&with(&value, "frames", huge)).expect("an offer");
        let error = huge.fetch(&pool()).expect_err("too large");
        assert!(matches!(error, NearError::NoMemory), "{error}");
    }
}
