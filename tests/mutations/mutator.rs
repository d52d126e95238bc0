//! Changes to bytes, by chance that can be repeated.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Most changes at once. Few keep the rest meaningful.
const MOST_CHANGES: usize = 6;

/// Bytes that a changed text may have.
const LONGEST: usize = 64 << 10;

/// Bytes that more often mean something than others do.
const TELLING: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'/', b'.', b'"', b'0'];

/// Changes bytes. The same seed gives the same changes.
pub struct Mutator {
    random: StdRng,
    words: &'static [&'static str],
}

impl Mutator {
    /// One that also puts in `words`.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Mutator { random: StdRng::seed_from_u64(seed), words }
    }

    /// One of the seeds, changed; pieces of the others may come in.
    pub fn next(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=MOST_CHANGES) {
            self.change(&mut bytes, seeds);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let kind = if bytes.is_empty() { 4 } else { self.random.random_range(0..9) };
        match kind {
            0 => {
                let at = self.place(bytes);
                bytes[at] ^= 1 << self.random.random_range(0..8);
            }
            1 => {
                let at = self.place(bytes);
                bytes[at] = *TELLING.choose(&mut self.random).unwrap_or(&0);
            }
            2 => {
                let at = self.place(bytes);
                bytes[at] = bytes[at].wrapping_add(self.random.random_range(1..=255));
            }
            3 => {
                let (from, to) = self.piece(bytes);
                bytes.drain(from..to);
            }
            4 => {
                let at = self.random.random_range(0..=bytes.len());
                let length = self.random.random_range(1..16);
                let noise: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
                bytes.splice(at..at, noise);
            }
            5 => {
                let (from, to) = self.piece(bytes);
                let piece = bytes[from..to].to_vec();
                let at = self.random.random_range(0..=bytes.len());
                let times = self.random.random_range(1..4);
                bytes.splice(at..at, piece.repeat(times));
            }
            6 => {
                let Some(other) = seeds.choose(&mut self.random).filter(|other| !other.is_empty()) else {
                    return;
                };
                let (from, to) = self.piece(other);
                let at = self.random.random_range(0..=bytes.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            7 => {
                let at = self.random.random_range(0..=bytes.len());
                let Some(word) = self.words.choose(&mut self.random) else { return };
                let end = if self.random.random() { at } else { (at + word.len()).min(bytes.len()) };
                bytes.splice(at..end, word.bytes());
            }
            _ => bytes.truncate(self.place(bytes)),
        }
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        self.random.random_range(0..bytes.len())
    }

    /// Mostly short: a long one leaves little of the rest.
    fn piece(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.place(bytes);
        let most = if self.random.random_ratio(1, 4) { bytes.len() } else { 32 };
        (from, (from + self.random.random_range(1..=most)).min(bytes.len()))
    }
}
