//! The four compressions of Kafka's records, with a bound on what comes out.

use std::io::{self, Read};

use super::validate::BatchError;
use super::varint::Reader;

/// Windows of more than 8 MiB are refused: the decoder allocates what the frame claims.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Raw snappy turns three bytes into at most 64; a claim beyond that is a lie.
const SNAPPY_RATIO_MAX: usize = 32;

/// How the Java clients frame snappy: this, two version numbers, then blocks with a length.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub(crate) fn from_attributes(bits: u16) -> Result<Self, BatchError> {
        Ok(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return Err(BatchError::Compression { bits }),
        })
    }

    /// What `bytes` become, at most `bytes_max`.
    pub fn decompress(self, bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        match self {
            Self::None if bytes.len() > bytes_max => Err(BatchError::Inflated { bytes_max }),
            Self::None => Ok(bytes.to_vec()),
            Self::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), bytes_max),
            Self::Snappy => snappy(bytes, bytes_max),
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), bytes_max),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(bad)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
                read_bounded(decoder, bytes_max)
            }
        }
    }
}

fn bad(_: io::Error) -> BatchError {
    BatchError::Compressed
}

fn read_bounded(reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    let read = reader
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(bad)?;
    if read > bytes_max {
        Err(BatchError::Inflated { bytes_max })
    } else {
        Ok(out)
    }
}

fn snappy(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    let Some(framed) = bytes.strip_prefix(&XERIAL_MAGIC) else {
        snappy_block(bytes, bytes_max, &mut out)?;
        return Ok(out);
    };
    let mut reader = Reader::new(framed);
    reader.take(8).ok_or(BatchError::Compressed)?;
    while reader.left() > 0 {
        let len = reader.u32().ok_or(BatchError::Compressed)?;
        let block = reader.take(len as usize).ok_or(BatchError::Compressed)?;
        snappy_block(block, bytes_max, &mut out)?;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let len = snap::raw::decompress_len(block).map_err(|_| BatchError::Compressed)?;
    if len > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(BatchError::Compressed);
    }
    let start = out.len();
    if start.saturating_add(len) > bytes_max {
        return Err(BatchError::Inflated { bytes_max });
    }
    out.resize(start + len, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new()
        .decompress(block, room)
        .map_err(|_| BatchError::Compressed)?;
    Ok(())
}
