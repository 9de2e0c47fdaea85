//! Frames on a byte stream: lengths in front, no magic, no checksum.
//!
//! F1 (≤ 2021.02.0): `n`, `n` lengths, frames. F2 (≥ 2021.03.0): the same with a number in front
//! that says how much the reader shall take at once. We always write the total there, which every
//! reader accepts, and ignore what others write. All numbers are 64 bit, little endian.

use bytes::{Bytes, BytesMut};

use crate::error::ReadError;
use crate::release::Generation;

/// What we are willing to hold for one peer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all frames of a message.
    pub max_message: usize,
    /// Number of frames of a message.
    pub max_frames: usize,
}

impl Default for Limits {
    /// 4 GiB and a million frames: larger than what stock peers send to a scheduler in practice,
    /// since data travel between workers. Nothing is allocated before it arrives.
    fn default() -> Self {
        Self {
            max_message: 4 << 30,
            max_frames: 1 << 20,
        }
    }
}

const WORD: usize = 8;

fn word(buf: &[u8], index: usize) -> Option<u64> {
    let at = index.checked_mul(WORD)?;
    let bytes = buf.get(at..at.checked_add(WORD)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The lengths of a message whose frames may not have arrived yet.
#[derive(Debug)]
pub(crate) struct Prelude {
    /// Bytes before the first frame.
    pub(crate) start: usize,
    pub(crate) lengths: Vec<usize>,
    /// Bytes including the prelude.
    pub(crate) total: usize,
}

impl Prelude {
    /// Where the first frame of at least `large` bytes begins, or the first of all.
    pub(crate) fn first_large(&self, large: usize) -> usize {
        let mut at = self.start;
        for length in &self.lengths {
            if *length >= large {
                return at;
            }
            at += length;
        }
        self.start
    }
}

/// Result of looking at the beginning of a buffer.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// That many bytes must be there before there is more to say.
    Need(usize),
    Prelude(Prelude),
}

/// Reads the lengths at the beginning of `buf`.
pub(crate) fn parse(
    buf: &[u8],
    generation: Generation,
    limits: &Limits,
) -> Result<Parsed, ReadError> {
    let skip = usize::from(generation.has_total_length());
    let Some(count) = word(buf, skip) else {
        return Ok(Parsed::Need((skip + 1) * WORD));
    };
    let frames = bounded(count, "frames", limits.max_frames)?;
    if frames == 0 {
        return Err(ReadError::Framing("message without frames"));
    }
    let words = skip + 1 + frames;
    let start = words * WORD;
    if buf.len() < start {
        return Ok(Parsed::Need(start));
    }
    let mut lengths = Vec::with_capacity(frames);
    let mut sum = 0u64;
    for index in skip + 1..words {
        let length = word(buf, index).ok_or(ReadError::Framing("prelude ends early"))?;
        sum = sum.saturating_add(length);
        bounded(sum, "bytes", limits.max_message)?;
        lengths.push(usize::try_from(length).unwrap_or(usize::MAX));
    }
    let sum = bounded(sum, "bytes", limits.max_message)?;
    let total = start
        .checked_add(sum)
        .ok_or(ReadError::Framing("absurd length"))?;
    if skip == 1 {
        // The number covers the prelude at least and never more than the message.
        let announced = word(buf, 0).unwrap_or_default();
        let after = |n: usize| (n - WORD) as u64;
        if announced < after(start) || announced > after(total) {
            return Err(ReadError::Framing(
                "total length and frame lengths disagree",
            ));
        }
    }
    Ok(Parsed::Prelude(Prelude {
        start,
        lengths,
        total,
    }))
}

fn bounded(n: u64, unit: &'static str, limit: usize) -> Result<usize, ReadError> {
    match usize::try_from(n) {
        Ok(n) if n <= limit => Ok(n),
        _ => Err(ReadError::TooLarge {
            announced: n,
            unit,
            limit: limit as u64,
        }),
    }
}

/// Small messages are copied out, so that the read buffer stays in one piece and what is kept of a
/// message does not keep its neighbours.
const COPY_BELOW: usize = 16 << 10;
/// After messages from this size on the read buffer is a new one.
const LARGE: usize = 256 << 10;

/// Takes a message that has arrived whole out of the buffer.
pub(crate) fn take_frames(buf: &mut BytesMut, prelude: &Prelude) -> Vec<Bytes> {
    let whole = if prelude.total < COPY_BELOW {
        let copy = Bytes::copy_from_slice(&buf[..prelude.total]);
        bytes::Buf::advance(buf, prelude.total);
        copy
    } else {
        let whole = buf.split_to(prelude.total).freeze();
        if prelude.total >= LARGE && buf.len() < COPY_BELOW {
            // Else the buffer would stay as large as this message for good.
            *buf = BytesMut::from(&buf[..]);
        }
        whole
    };
    slices(&whole, prelude)
}

/// The frames of a message.
pub(crate) fn slices(whole: &Bytes, prelude: &Prelude) -> Vec<Bytes> {
    let mut at = prelude.start;
    let slice = |length: &usize| {
        let frame = whole.slice(at..at + length);
        at += length;
        frame
    };
    prelude.lengths.iter().map(slice).collect()
}

/// Appends the lengths of `frames` to `out`.
pub(crate) fn write_prelude(frames: &[Bytes], generation: Generation, out: &mut BytesMut) {
    write_lengths(frames.iter().map(Bytes::len), generation, out);
}

/// Appends these lengths of frames to `out`.
pub(crate) fn write_lengths(
    lengths: impl Iterator<Item = usize> + Clone,
    generation: Generation,
    out: &mut BytesMut,
) {
    let count = |(count, sum): (usize, usize), length| (count + 1, sum.saturating_add(length));
    let (count, sum) = lengths.clone().fold((0, 0), count);
    out.reserve((2 + count) * WORD);
    if generation.has_total_length() {
        let total = sum.saturating_add((1 + count) * WORD);
        out.extend_from_slice(&(total as u64).to_le_bytes());
    }
    out.extend_from_slice(&(count as u64).to_le_bytes());
    for length in lengths {
        out.extend_from_slice(&(length as u64).to_le_bytes());
    }
}

/// What the first bytes of a peer that speaks unasked say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniff {
    /// Too few bytes to tell.
    More,
    /// F1.
    Framing1,
    /// F2.
    Framing2,
    /// Neither.
    Foreign,
}

/// Looks at the first two numbers of a connection.
pub(crate) fn sniff(buf: &[u8]) -> Sniff {
    // The top bytes of both numbers are zero in either framing; text and TLS records differ within
    // the first eight bytes.
    const ABSURD: u64 = 1 << 48;
    let (Some(first), second) = (word(buf, 0), word(buf, 1)) else {
        let is_text = buf.len() >= 4 && buf.iter().all(|b| *b >= 0x20);
        return if is_text { Sniff::Foreign } else { Sniff::More };
    };
    if first == 0 || first > ABSURD {
        return Sniff::Foreign;
    }
    let Some(second) = second else {
        return Sniff::More;
    };
    if second > ABSURD {
        return Sniff::Foreign;
    }
    // F2: total, then the number of frames, which the total must have room for. F1: number of
    // frames, then the length of the small header, nearly always 0.
    if second >= 1 && first >= 8 + 8 * second {
        Sniff::Framing2
    } else {
        Sniff::Framing1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(frames: &[Bytes], generation: Generation) -> BytesMut {
        let mut out = BytesMut::new();
        write_prelude(frames, generation, &mut out);
        frames.iter().for_each(|f| out.extend_from_slice(f));
        out
    }

    fn recorded(words: &[u64], tail: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        out.extend_from_slice(tail);
        out
    }

    #[test]
    fn first_bytes_tell_the_framing() {
        assert_eq!(sniff(&recorded(&[2, 0, 42], b"\x83")), Sniff::Framing1);
        assert_eq!(
            sniff(&recorded(&[2, 0, 20], b"\x82\xa2op")),
            Sniff::Framing1
        );
        assert_eq!(sniff(&recorded(&[2, 18, 20], b"")), Sniff::Framing1);
        assert_eq!(sniff(&recorded(&[5000, 0], b"")), Sniff::Framing1);
        assert_eq!(sniff(&recorded(&[58, 1, 42], b"\x83")), Sniff::Framing2);
        assert_eq!(sniff(&[58, 0, 0]), Sniff::More);
        assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniff::Foreign);
        assert_eq!(sniff(b"GET /"), Sniff::Foreign);
        assert_eq!(
            sniff(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            Sniff::Foreign
        );
        assert_eq!(sniff(&[0; 16]), Sniff::Foreign);
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_anything_is_allocated() {
        let limits = Limits {
            max_message: 1000,
            max_frames: 10,
        };
        let check = |words: &[u64], generation| parse(&recorded(words, b""), generation, &limits);
        for words in [
            &[11u64][..],
            &[u64::MAX],
            &[2, 500, 501],
            &[2, u64::MAX, u64::MAX],
        ] {
            let error = check(words, Generation::M1).expect_err("too large");
            assert!(
                matches!(error, ReadError::TooLarge { .. }),
                "{words:?}: {error}"
            );
        }
        assert!(matches!(
            check(&[0], Generation::M1),
            Err(ReadError::Framing(_))
        ));
        for words in [[15, 1, 8], [25, 1, 8], [u64::MAX, 1, 8]] {
            let result = check(&words, Generation::M3);
            assert!(matches!(result, Err(ReadError::Framing(_))), "{words:?}");
        }
        assert!(
            matches!(check(&[16, 1, 8], Generation::M3), Ok(Parsed::Prelude(_))),
            "partial total"
        );
    }

    #[test]
    fn the_buffer_does_not_stay_as_large_as_the_largest_message() {
        let frames = [Bytes::from(vec![1; 2 * LARGE])];
        let mut buf = framed(&frames, Generation::M3);
        buf.extend_from_slice(b"next");
        let parsed = parse(&buf, Generation::M3, &Limits::default());
        let Ok(Parsed::Prelude(prelude)) = parsed else {
            panic!("all lengths are there");
        };
        assert_eq!(take_frames(&mut buf, &prelude), frames);
        buf.reserve(1);
        assert_eq!(&buf[..], b"next");
        assert!(buf.capacity() < LARGE);
    }

    proptest! {
        #[test]
        fn frames_come_back_whatever_arrives_together(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20),
            old: bool,
            rest in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let generation = if old { Generation::M1 } else { Generation::M3 };
            let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            let limits = Limits::default();
            let mut buf = framed(&frames, generation);
            for cut in 0..buf.len() {
                match parse(&buf[..cut], generation, &limits).expect("valid") {
                    Parsed::Need(n) => prop_assert!(n > cut),
                    Parsed::Prelude(p) => prop_assert!(p.total > cut),
                }
            }
            buf.extend_from_slice(&rest);
            let Parsed::Prelude(prelude) = parse(&buf, generation, &limits).expect("valid") else {
                panic!("all lengths are there");
            };
            prop_assert_eq!(take_frames(&mut buf, &prelude), frames);
            prop_assert_eq!(&buf[..], &rest[..]);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(
            buf in proptest::collection::vec(any::<u8>(), 0..100), old: bool,
        ) {
            let generation = if old { Generation::M1 } else { Generation::M3 };
            let _ = parse(&buf, generation, &Limits::default());
            let _ = sniff(&buf);
        }
    }
}
