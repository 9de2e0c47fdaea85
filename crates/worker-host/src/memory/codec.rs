//! Compressing what goes to disk, by stock's rules of what is worth it.

use bytes::Bytes;

/// `distributed.worker.memory.spill-compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Off,
    /// LZ4 blocks (`auto` is this, too).
    #[default]
    Lz4,
    /// Snappy blocks.
    Snappy,
    /// Zstandard, level 3.
    Zstd,
    /// zlib.
    Zlib,
}

/// Smallest and largest size that is compressed at all.
const WORTH: std::ops::RangeInclusive<usize> = 10_000..=1 << 31;
/// Size and number of samples that are tried first.
const SAMPLE: usize = 10_000;
const SAMPLES: usize = 5;
/// Compressed to more than this part it is not worth it.
const RATIO: f64 = 0.7;

impl Compression {
    /// Reads the setting; nothing for a name that is none.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "auto" | "lz4" => Self::Lz4,
            "none" => Self::Off,
            "snappy" => Self::Snappy,
            "zstd" => Self::Zstd,
            "zlib" => Self::Zlib,
            _ => return None,
        })
    }

    /// Its name in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
            Self::Zlib => "zlib",
        }
    }

    /// Compressed, if that makes it sufficiently small.
    pub(crate) fn compress(self, data: &Bytes) -> Option<Vec<u8>> {
        let worth = |whole: usize, packed: &Vec<u8>| packed.len() as f64 <= RATIO * whole as f64;
        if self == Self::Off || !WORTH.contains(&data.len()) {
            return None;
        }
        let sample = sample(data);
        self.pack(&sample)
            .filter(|packed| worth(sample.len(), packed))?;
        self.pack(data).filter(|packed| worth(data.len(), packed))
    }

    fn pack(self, data: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Off => None,
            Self::Lz4 => Some(lz4_flex::block::compress_prepend_size(data)),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(data).ok(),
            Self::Zstd => zstd::bulk::compress(data, 3).ok(),
            Self::Zlib => {
                use std::io::Write;
                let fast = flate2::Compression::fast();
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(data).ok()?;
                encoder.finish().ok()
            }
        }
    }
}

/// Pieces of the data, evenly spread.
fn sample(data: &[u8]) -> Vec<u8> {
    let step = (data.len() / SAMPLES).max(1);
    let pieces = data.chunks(step).take(SAMPLES);
    let pieces = pieces.map(|piece| piece.get(..SAMPLE.min(piece.len())).unwrap_or(piece));
    pieces.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        let zeros = Bytes::from(vec![0u8; 100_000]);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(100_000)
        .collect();
        let noise = Bytes::from(noise);
        for name in ["lz4", "snappy", "zstd", "zlib"] {
            let codec = Compression::parse(name).expect(name);
            assert_eq!(codec.name(), name);
            let packed = codec.compress(&zeros).expect(name);
            let whole = oxidask_wire::decompress(name, &packed.into(), zeros.len());
            assert_eq!(whole.expect(name), zeros, "{name}");
            assert!(codec.compress(&noise).is_none(), "{name}");
            assert_eq!(codec.compress(&zeros.slice(..9_999)), None, "{name}");
        }
        assert_eq!(Compression::Off.compress(&zeros), None);
        assert_eq!(Compression::parse("lzma"), None);
    }
}
