//! Something of the store in a file of its own. The file is not for other processes, and goes with the
//! last one who knows of it.
//!
//! Layout: for each frame the length of its name of compression (1 byte), that name, its lengths in the
//! file and uncompressed (8 bytes each, little endian), then its bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use oxidask_worker_core::opaque::WeakOpaque;
use parking_lot::Mutex;

use super::codec::Compression;
use super::numbers::{Activity, Numbers};
use crate::interpreter::Object;
use crate::store::Kind;

/// A value on disk.
#[derive(Debug)]
pub struct Spilled {
    path: PathBuf,
    disk_bytes: u64,
    kind: Kind,
    /// The object, as long as a task or a request still has it.
    object: Mutex<Option<WeakOpaque>>,
    /// Held while it is read, so that it is read once for all who want it.
    pub(crate) reading: tokio::sync::Mutex<()>,
    /// Removes the file: whoever lets go of it last is not to wait for the disk.
    runtime: tokio::runtime::Handle,
}

/// Frames, ready to be written.
pub(crate) struct Packed {
    frames: Vec<(Compression, usize, Bytes)>,
}

impl Packed {
    /// Compresses; takes a while.
    pub(crate) fn new(frames: Vec<Bytes>, compression: Compression, numbers: &Numbers) -> Self {
        let frames = numbers.timed(Activity::Compress, || {
            let packed = frames.into_iter().map(|frame| {
                let whole = frame.len();
                match compression.compress(&frame) {
                    Some(packed) => (compression, whole, packed.into()),
                    None => (Compression::Off, whole, frame),
                }
            });
            packed.collect()
        });
        Self { frames }
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        let length = |(codec, _, frame): &(Compression, usize, Bytes)| {
            (1 + codec.name().len() + 16 + frame.len()) as u64
        };
        self.frames.iter().map(length).sum()
    }

    /// Writes the file. What is there after an error is removed.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let written = self.write_all(path);
        if written.is_err() {
            std::fs::remove_file(path).ok();
        }
        written
    }

    fn write_all(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        for (codec, whole, frame) in &self.frames {
            let name = codec.name().as_bytes();
            let mut head = vec![name.len() as u8];
            head.extend(name);
            head.extend((frame.len() as u64).to_le_bytes());
            head.extend((*whole as u64).to_le_bytes());
            file.write_all(&head)?;
            file.write_all(frame)?;
        }
        Ok(())
    }
}

impl Spilled {
    /// A file that was written. On a runtime.
    pub(crate) fn new(path: PathBuf, disk_bytes: u64, object: &Object) -> Arc<Self> {
        Arc::new(Self {
            path,
            disk_bytes,
            kind: Kind {
                typename: Arc::clone(&object.typename),
                type_pickle: object.type_pickle.clone(),
            },
            object: Mutex::new(Some(object.value.downgrade())),
            reading: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Bytes of the file.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The object, if somebody still has it.
    pub fn object(&self) -> Option<Object> {
        let value = self.object.lock().as_ref()?.upgrade()?;
        Some(self.with(value))
    }

    /// The object of this value, which others may share from now on.
    pub fn object_of(&self, value: oxidask_worker_core::opaque::Opaque) -> Object {
        *self.object.lock() = Some(value.downgrade());
        self.with(value)
    }

    fn with(&self, value: oxidask_worker_core::opaque::Opaque) -> Object {
        Object {
            value,
            typename: Arc::clone(&self.kind.typename),
            type_pickle: self.kind.type_pickle.clone(),
        }
    }

    /// Reads the frames. Blocks.
    ///
    /// # Errors
    /// The file can not be read, or is not as it was written.
    pub fn read(&self, numbers: &Numbers) -> io::Result<Vec<Bytes>> {
        let stored = numbers.timed(Activity::DiskRead, || self.read_all())?;
        numbers.add(Activity::DiskRead, self.disk_bytes);
        let whole = |(name, whole, frame): (String, usize, Bytes)| match name.as_str() {
            "" => Ok(frame),
            name => oxidask_wire::decompress(name, &frame, whole).map_err(io::Error::other),
        };
        numbers.timed(Activity::Decompress, || {
            stored.into_iter().map(whole).collect()
        })
    }

    fn read_all(&self) -> io::Result<Vec<(String, usize, Bytes)>> {
        let mut file = File::open(&self.path)?;
        let mut left = self.disk_bytes;
        let mut frames = Vec::new();
        while left > 0 {
            let name = exactly(&mut file, 1, &mut left)?;
            let name = exactly(
                &mut file,
                name.first().copied().unwrap_or(0).into(),
                &mut left,
            )?;
            let name = String::from_utf8(name).map_err(io::Error::other)?;
            let length = number(&mut file, &mut left)?;
            let whole = usize::try_from(number(&mut file, &mut left)?).map_err(io::Error::other)?;
            let frame = exactly(&mut file, length, &mut left)?;
            frames.push((name, whole, frame.into()));
        }
        Ok(frames)
    }
}

fn number(file: &mut File, left: &mut u64) -> io::Result<u64> {
    let bytes = exactly(file, 8, left)?;
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| io::Error::other("a number is cut"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// So many bytes, which the file must still have.
fn exactly(file: &mut File, length: u64, left: &mut u64) -> io::Result<Vec<u8>> {
    *left = left
        .checked_sub(length)
        .ok_or_else(|| io::Error::other("it is shorter than it was written"))?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
    file.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(target: "distributed.spill", "{} stays: {error}", path.display());
            }
        };
        self.runtime.spawn_blocking(remove);
    }
}
