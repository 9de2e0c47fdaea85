//! Restoring compressed frames. We announce no compression, so only peers of 2.22 and older (which
//! never ask) send compressed bytes; we never send any. Every expansion has a limit.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the place with the limits"
)]

use std::io::Read;

use bytes::Bytes;

use crate::error::CompressionError;

/// Restores `data`, compressed with the algorithm that stock calls `name`. Fails rather than
/// produce more than `limit` bytes.
///
/// `lz4` is a block with the size in front (4 bytes, little endian); `snappy` a raw block; `zstd`
/// a frame; `zlib` a zlib stream. `blosc` (≤ 2021.12) is not supported.
pub fn decompress(name: &str, data: &Bytes, limit: usize) -> Result<Bytes, CompressionError> {
    match name {
        "lz4" => lz4(data, limit),
        "snappy" => snappy(data, limit),
        "zstd" => {
            let decoder = zstd::stream::read::Decoder::new(data.as_ref());
            let mut decoder = decoder.map_err(|e| corrupt("zstd", e))?;
            // Window sizes are the peer's choice too; 2^27 is what stock's library allows.
            decoder.window_log_max(27).map_err(|e| corrupt("zstd", e))?;
            bounded("zstd", decoder, limit)
        }
        "zlib" => bounded("zlib", flate2::read::ZlibDecoder::new(data.as_ref()), limit),
        other => Err(CompressionError::Unknown(other.to_owned())),
    }
}

fn lz4(data: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let name = "lz4";
    let (size, _) = lz4_flex::block::uncompressed_size(data).map_err(|e| corrupt(name, e))?;
    // LZ4 expands at most 255 times; a larger promise is a lie that would only cost memory.
    if size > limit || size / 255 > data.len() {
        return Err(CompressionError::TooLarge { name, limit });
    }
    let out = lz4_flex::block::decompress_size_prepended(data).map_err(|e| corrupt(name, e))?;
    Ok(out.into())
}

fn snappy(data: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let name = "snappy";
    let size = snap::raw::decompress_len(data).map_err(|e| corrupt(name, e))?;
    // A snappy copy of 3 bytes makes at most 64.
    if size > limit || size / 64 > data.len() {
        return Err(CompressionError::TooLarge { name, limit });
    }
    let out = snap::raw::Decoder::new()
        .decompress_vec(data)
        .map_err(|e| corrupt(name, e))?;
    Ok(out.into())
}

fn bounded(name: &'static str, from: impl Read, limit: usize) -> Result<Bytes, CompressionError> {
    let mut out = Vec::new();
    let ceiling = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(ceiling)
        .read_to_end(&mut out)
        .map_err(|e| corrupt(name, e))?;
    if out.len() > limit {
        return Err(CompressionError::TooLarge { name, limit });
    }
    Ok(out.into())
}

fn corrupt(name: &'static str, error: impl std::fmt::Display) -> CompressionError {
    CompressionError::Corrupt {
        name,
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).expect("to memory");
        encoder.finish().expect("to memory")
    }

    fn samples(data: &[u8]) -> [(&'static str, Bytes); 4] {
        [
            ("lz4", lz4_flex::block::compress_prepend_size(data).into()),
            (
                "snappy",
                snap::raw::Encoder::new()
                    .compress_vec(data)
                    .expect("to memory")
                    .into(),
            ),
            ("zstd", zstd::encode_all(data, 3).expect("to memory").into()),
            ("zlib", zlib(data).into()),
        ]
    }

    #[test]
    fn every_algorithm_restores_what_it_compressed() {
        let data = b"abc".repeat(10_000);
        for (name, packed) in samples(&data) {
            assert!(packed.len() < data.len(), "{name}");
            assert_eq!(
                decompress(name, &packed, data.len()).expect(name),
                data,
                "{name}"
            );
        }
    }

    #[test]
    fn limits_hold_and_garbage_is_an_error() {
        let data = vec![0u8; 1 << 20];
        for (name, packed) in samples(&data) {
            let error = decompress(name, &packed, data.len() - 1).expect_err(name);
            assert!(
                matches!(error, CompressionError::TooLarge { .. }),
                "{name}: {error}"
            );
            let cut = packed.slice(..packed.len() / 2);
            assert!(decompress(name, &cut, data.len()).is_err(), "{name}");
        }
        let lie = Bytes::from_static(b"\xff\xff\xff\x7f\x00");
        assert!(decompress("lz4", &lie, 1 << 31).is_err());
        assert!(matches!(
            decompress("blosc", &Bytes::new(), 1),
            Err(CompressionError::Unknown(_))
        ));
    }
}
