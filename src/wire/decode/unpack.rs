//! Bodies without their compression. What comes out is counted while it comes, so a small body
//! that would unpack to gigabytes costs no more than [`BODY_MAX`] of memory.
//!
//! Source: kombu `compression.py`. The crates read what anybody sends: a panic of theirs is an
//! error of the message.

use crate::bounds::BODY_MAX;
use crate::os::panics::contained;
use crate::wire::compression::{Compression, NAMES};
use crate::wire::message::Malformed;
use crate::wire::serializer::shown;
use brotli_decompressor::BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use std::io::{self, Read};

/// What a decoder of lzma may need in KiB: the window of its highest preset, and some more.
const LZMA_KIB: u32 = 66 * 1024;

/// Bytes that a decoder of brotli reads at once.
const BROTLI_BUFFER: usize = 4096;

/// The first bytes of gzip's framing, which kombu's `gzip` has not: it writes zlib's.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The first bytes of an .xz file.
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// The bytes behind a compression.
///
/// # Errors
/// Says that there is no such compression, that the bytes are none of it, or that they unpack to
/// too much.
pub(in crate::wire) fn unpack(name: &str, body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let shown = shown(name);
    let Some(form) = Compression::named(name) else {
        let all: Vec<&str> =
            NAMES.iter().map(|(name, _)| *name).filter(|name| !name.contains('/')).collect();
        let all = all.join(", ");
        return Err(Malformed(format!("compression {shown} is not supported; expected {all}")));
    };
    let why = match contained(|| read(form, body)) {
        Ok(Ok(bytes)) if bytes.len() <= BODY_MAX => return Ok(bytes),
        Ok(Err(error)) if error.kind() != io::ErrorKind::FileTooLarge => error.to_string(),
        Ok(_) => {
            format!("the body unpacks to more than the limit of {} MiB", BODY_MAX >> 20)
        }
        Err(_) => "the body cannot be read".into(),
    };
    Err(Malformed(format!("compression {shown}: {why}")))
}

/// All that comes out, up to one byte more than the limit.
fn read(form: Compression, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match form {
        Compression::Zlib if body.starts_with(GZIP) => take(MultiGzDecoder::new(body), &mut out)?,
        Compression::Zlib => take(ZlibDecoder::new(body), &mut out)?,
        Compression::Bzip2 => take(MultiBzDecoder::new(body), &mut out)?,
        Compression::Lzma if body.starts_with(XZ) => {
            take(XzReader::new_mem_limit(body, true, LZMA_KIB), &mut out)?;
        }
        Compression::Lzma => take(LzmaReader::new_mem_limit(body, LZMA_KIB, None)?, &mut out)?,
        Compression::Brotli => {
            let mut reader = brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER);
            reader.set_parameter(BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
            take(reader, &mut out)?;
        }
        Compression::Zstd => frames(body, &mut out)?,
    }
    Ok(out)
}

fn take(from: impl Read, out: &mut Vec<u8>) -> io::Result<()> {
    let left = (BODY_MAX + 1).saturating_sub(out.len());
    from.take(left as u64).read_to_end(out).map(drop)
}

/// The frames of zstd, one behind another; skippable ones say nothing.
fn frames(mut body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match StreamingDecoder::new_with_max_window_size(&mut body, BODY_MAX as u64) {
            Ok(frame) => take(frame, out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                body = body.get(length as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            // Such a window is as large as what it is for.
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        if body.is_empty() || out.len() > BODY_MAX {
            return Ok(());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    pub(in crate::wire::decode) fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// `hello hello hello hello` as Python's modules pack it.
    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        SAMPLES.iter().map(|(name, text)| (*name, hex(text))).collect()
    }

    const SAMPLES: &[(&str, &str)] = &[
        ("gzip", "789ccb48cdc9c957c8402701680308b1"),
        ("zlib", "1f8b0800000000000203cb48cdc9c957c8402701e3513d8d17000000"),
        (
            "bzip2",
            "425a683931415926535902f8b0bd000003910040000244a00030cd00548696719b38a3c5dc914e142400be2c2f40",
        ),
        (
            "xz",
            "fd377a585a000004e6d6b4460200210116000000742fe5a3e00016000b5d00341949ee8de9560ab5e00000008943dbea0334e4d000012717898290791fb6f37d010000000004595a",
        ),
        ("lzma", "5d00008000ffffffffffffffff00341949ee8de9560bd5c5a3ffff78a40000"),
        ("brotli", "1b1600f88d946ede445586966c206f214f1ce038"),
        ("zstd", "28b52ffd20176500003068656c6c6f200100994b11"),
    ];

    /// 200 MiB of zeros, packed by the same modules.
    const BOMBS: &[(&str, &[u8])] = &[
        ("brotli", include_bytes!("../../../tests/golden/bombs/zeros.br")),
        ("bzip2", include_bytes!("../../../tests/golden/bombs/zeros.bz2")),
        ("xz", include_bytes!("../../../tests/golden/bombs/zeros.xz")),
        ("zstd", include_bytes!("../../../tests/golden/bombs/zeros.zst")),
        ("zstd", include_bytes!("../../../tests/golden/bombs/zeros-known.zst")),
    ];

    #[test]
    fn every_form_is_read() {
        for (name, packed) in samples() {
            let text = unpack(name, &packed).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(text, b"hello hello hello hello", "{name}");
        }
        for (name, _) in NAMES {
            let error = unpack(name, b"no such thing").unwrap_err().0;
            assert!(error.starts_with(&format!("compression {name}: ")), "{error}");
        }
    }

    #[test]
    fn parts_that_follow_each_other_are_one() {
        for (name, packed) in
            samples().iter().filter(|(name, _)| ["bzip2", "xz", "zstd"].contains(name))
        {
            assert_eq!(unpack(name, &packed.repeat(2)).unwrap().len(), 46, "{name}");
        }
        let skippable = [&hex("502a4d1803000000")[..], b"abc"].concat();
        let zstd = samples().iter().find(|(name, _)| *name == "zstd").unwrap().1.clone();
        let all = [&skippable[..], &zstd, &skippable].concat();
        assert_eq!(unpack("zstd", &all).unwrap().len(), 23);
        assert!(unpack("zstd", &all[..all.len() - 1]).is_err());
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for (name, packed) in samples() {
            for length in 0..packed.len() {
                let cut = &packed[..length];
                // Checksums at the end may go unread, but never more than what was packed comes.
                if let Ok(text) = unpack(name, cut) {
                    assert!(
                        text.is_empty() || text == b"hello hello hello hello",
                        "{name} {length}"
                    );
                }
            }
            assert!(unpack(name, &packed[..packed.len() / 2]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zlib = zlib(&vec![0; 200 << 20]);
        let bombs = [("gzip", &zlib[..])].into_iter().chain(BOMBS.iter().copied());
        for (name, bomb) in bombs {
            assert!(bomb.len() < 300_000, "{name}: {}", bomb.len());
            let error = unpack(name, bomb).unwrap_err().0;
            assert_eq!(
                error,
                format!("compression {name}: the body unpacks to more than the limit of 64 MiB")
            );
        }
    }

    #[test]
    fn a_window_is_no_larger_than_a_body() {
        // An .lzma header that wants 4 GiB for its window.
        let greedy = hex("5dffffffffffffffffffffffff00");
        assert!(unpack("lzma", &greedy).is_err());
    }
}
