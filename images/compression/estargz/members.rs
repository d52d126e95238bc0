//! Gzip members made side by side and written one after the other.

use std::io::{self, Write};
use std::thread::{Scope, ScopedJoinHandle};

use crate::compression::gzip::member;
use crate::compression::in_order::{Results, Workers};
use crate::digest::Digest;

/// Bytes from which on members go to another thread: many small files travel together.
const BATCH: usize = 256 << 10;

/// Where a member begins in the blob, and the digest of the file's data at its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) at: u64,
    pub(super) data: Digest,
}

/// Where a member begins in a batch, and how many bytes of a file's data it begins with.
type Start = (usize, usize);

struct Job {
    bytes: Vec<u8>,
    starts: Vec<Start>,
}

/// Members of a batch, with the length and the digest of data of each.
struct Made {
    bytes: Vec<u8>,
    members: Vec<(usize, Digest)>,
}

/// Where the members went, with where each began and where the last ended.
pub(super) type Written<W> = (W, Vec<Begun>, u64);

/// What is written ends up in members, the first of which is there from the beginning.
pub(super) struct Members {
    workers: Workers<Job, Made>,
    bytes: Vec<u8>,
    starts: Vec<Start>,
    /// How many members there are.
    count: usize,
}

impl Members {
    /// Starts `threads` workers, whose members go to `out` in order on one more thread. That one gives `out` back, with
    /// where the members began and where the last ends.
    pub(super) fn start<'scope, 'env, W: Write + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        level: u32,
        out: W,
    ) -> (Self, ScopedJoinHandle<'scope, io::Result<Written<W>>>) {
        let (workers, made) = Workers::start(scope, threads, move |job| make(level, &job));
        let writer = scope.spawn(move || write(made, out));
        (Self { workers, bytes: Vec::new(), starts: vec![(0, 0)], count: 1 }, writer)
    }

    /// Bytes of the newest member.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.starts.last().map_or(0, |(at, _)| *at)
    }

    /// Begins another member and gives its number.
    pub(super) fn begin(&mut self) -> io::Result<usize> {
        if self.bytes.len() >= BATCH {
            self.hand_on()?;
        }
        self.starts.push((self.bytes.len(), 0));
        self.count += 1;
        Ok(self.count - 1)
    }

    /// Adds bytes to the newest member.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds data of a file to a member that has nothing else yet.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, data)) = self.starts.last_mut() {
            *data += bytes.len();
        }
        self.write(bytes)
    }

    /// Ends the last member.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let (bytes, starts) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.starts));
        self.workers.give(Job { bytes, starts })
    }
}

fn make(level: u32, job: &Job) -> io::Result<Made> {
    let mut made = Made {
        bytes: Vec::with_capacity(job.bytes.len() / 2),
        members: Vec::with_capacity(job.starts.len()),
    };
    let ends = job.starts.iter().skip(1).map(|(at, _)| *at).chain([job.bytes.len()]);
    for ((at, data), end) in job.starts.iter().zip(ends) {
        let before = made.bytes.len();
        member(level, &job.bytes[*at..end], &mut made.bytes)?;
        made.members.push((made.bytes.len() - before, Digest::of(&job.bytes[*at..at + data])));
    }
    Ok(made)
}

fn write<W: Write>(batches: Results<Made>, mut out: W) -> io::Result<Written<W>> {
    let (mut begun, mut at) = (Vec::new(), 0);
    for made in batches {
        let made = made?;
        out.write_all(&made.bytes)?;
        for (len, data) in made.members {
            begun.push(Begun { at, data });
            at += len as u64;
        }
    }
    Ok((out, begun, at))
}
