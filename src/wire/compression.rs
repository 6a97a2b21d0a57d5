//! The compressions that kombu has (`compression.py`): their names, and bytes in them. What comes
//! out of one is in [`super::decode`].

use brotli::enc::BrotliEncoderParams;
use lzma_rust2::{XzOptions, XzWriter};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{self, Write};

/// A compression of kombu's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zlib's framing, which kombu calls gzip.
    Zlib,
    /// bzip2
    Bzip2,
    /// .xz files
    Lzma,
    /// Brotli
    Brotli,
    /// Zstandard
    Zstd,
}

use Compression::{Brotli, Bzip2, Lzma, Zlib, Zstd};

/// Names of the header `compression`: content types and their aliases.
pub(super) const NAMES: &[(&str, Compression)] = &[
    ("application/x-gzip", Zlib),
    ("gzip", Zlib),
    ("zlib", Zlib),
    ("application/x-bz2", Bzip2),
    ("bzip2", Bzip2),
    ("bzip", Bzip2),
    ("application/x-lzma", Lzma),
    ("lzma", Lzma),
    ("xz", Lzma),
    ("application/x-brotli", Brotli),
    ("brotli", Brotli),
    ("application/zstd", Zstd),
    ("zstd", Zstd),
    ("zstandard", Zstd),
];

/// Quality and window of brotli, and the preset of xz: the defaults of Python's modules take
/// seconds for a megabyte where these take a tenth, and leave a few per cent more.
const BROTLI_QUALITY: i32 = 5;
const BROTLI_WINDOW: i32 = 22;
const XZ_PRESET: u32 = 6;

impl Compression {
    /// The one with this name or content type.
    pub fn named(word: &str) -> Option<Compression> {
        NAMES.iter().find(|(name, _)| *name == word).map(|(_, one)| *one)
    }

    /// The content type of the header `compression`.
    pub fn content_type(self) -> &'static str {
        match self {
            Zlib => "application/x-gzip",
            Bzip2 => "application/x-bz2",
            Lzma => "application/x-lzma",
            Brotli => "application/x-brotli",
            Zstd => "application/zstd",
        }
    }

    /// These bytes, compressed.
    ///
    /// # Errors
    /// The encoder has failed.
    pub(super) fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Zlib => {
                let level = flate2::Compression::default();
                let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
                writer.write_all(bytes)?;
                writer.finish()
            }
            Bzip2 => {
                let level = bzip2::Compression::best();
                let mut writer = bzip2::write::BzEncoder::new(Vec::new(), level);
                writer.write_all(bytes)?;
                writer.finish()
            }
            Lzma => {
                let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(XZ_PRESET))?;
                writer.write_all(bytes)?;
                writer.finish()
            }
            Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW,
                    ..BrotliEncoderParams::default()
                };
                let (mut from, mut out) = (bytes, Vec::new());
                brotli::BrotliCompress(&mut from, &mut out, &params)?;
                Ok(out)
            }
            // The only level that the crate has beside none at all.
            Zstd => Ok(compress_to_vec(bytes, CompressionLevel::Fastest)),
        }
    }
}
