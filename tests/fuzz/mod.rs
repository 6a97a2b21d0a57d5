//! The short form of `scripts/fuzz`: every seed, every input that once was a find, and a few thousand
//! mutants of them, always the same ones, through the decoders of `targets.rs`.

mod growth;
mod targets;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Mutants of each target.
const MUTANTS: usize = 400;

/// Bytes of a mutant at most.
const LENGTH_MAX: usize = 8192;

/// What decoders have special cases for.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\x80",
    b"\x7f",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\"",
    b"\\",
    b"\\ud800",
    b"[",
    b"]",
    b"{",
    b"}",
    b", ",
    b": ",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"99999999999999999999",
    b"__type__",
    b"(",
    b".",
    b"\n",
    b"&a ",
    b"*a",
    b"<<: ",
    b"- ",
    b"\"task\": \"t\"",
    b"\"chord\"",
    b"\"chain\"",
    b"\"group\"",
];

/// What a target begins with.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let all: Value = serde_json::from_str(include_str!("seeds.json")).unwrap();
    let seeds = all[name].as_array().unwrap_or_else(|| panic!("no seeds of {name}"));
    let mut seeds: Vec<Vec<u8>> =
        seeds.iter().map(|text| STANDARD.decode(text.as_str().unwrap()).unwrap()).collect();
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found");
    let mut files: Vec<_> = fs::read_dir(found).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let of_target = |file: &Path| {
        let file = file.file_name().unwrap().to_str().unwrap();
        file.split_once('-').is_some_and(|(target, _)| target == name)
    };
    seeds.extend(files.iter().filter(|file| of_target(file)).map(|file| fs::read(file).unwrap()));
    seeds
}

fn mutant(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].repeat(random.usize(1..20));
                bytes.splice(at..at, part);
            }
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let part = other[from..(from + random.usize(..60)).min(other.len())].to_vec();
                bytes.splice(at..end, part);
            }
            _ => drop(bytes.splice(at..at, TOKENS[random.usize(..TOKENS.len())].iter().copied())),
        }
        bytes.truncate(LENGTH_MAX);
    }
    bytes
}

#[test]
fn what_others_send_is_read_or_refused() {
    let each = |target: &'static targets::Target| {
        move || {
            let seeds = seeds(target.name);
            seeds.iter().for_each(|input| (target.run)(input));
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..MUTANTS {
                (target.run)(&mutant(&seeds, &mut random));
            }
        }
    };
    let threads: Vec<_> =
        targets::ALL.iter().map(|target| (target.name, std::thread::spawn(each(target)))).collect();
    let failed: Vec<&str> = threads
        .into_iter()
        .filter_map(|(name, thread)| thread.join().err().map(|_| name))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}
