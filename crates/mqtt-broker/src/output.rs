//! Bytes waiting for one socket.
//!
//! For: appending packets without a system call or an allocation each, and handing all of them to
//!   one vectored write. Small payloads are copied, big ones wait as shared chunks.
//! Holds: an empty Output that was left alone for a while owns no memory. One that was full takes
//!   no message before half of it is written, so that a Client which reads slowly is read again.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroUsize;

use bytes::{Buf, Bytes, BytesMut};

/// Payloads from this length on are not copied. Below it a copy is cheaper than one more chunk.
pub(crate) const CHUNK_BYTES_MIN: usize = 4 << 10;

/// Bytes waiting for one socket, as a [`Buf`]: write `chunks_vectored`, then `advance`.
#[derive(Debug, Default)]
pub struct Output {
    /// Before `tail`.
    chunks: VecDeque<Bytes>,
    chunks_bytes: usize,
    tail: BytesMut,
    /// It was full: what waits for it goes on when less than this is left.
    relief_at: Option<NonZeroUsize>,
    // Few bits each, because a connection that is idle has them too.
    /// Its length when what was put here was counted, less what was written since; wraps.
    counted: u32,
    /// Answers put here since they were counted: a turn's reads cause no more than this holds.
    answers: u16,
    /// Packets put here since it was empty; stands still at its end.
    packets: u16,
}

impl Output {
    /// One more packet was put here, and counted.
    pub(crate) fn note_packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// One more packet was put here, to be counted by `take_counts`.
    pub(crate) fn note_answer(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.note_packet();
    }

    /// Answers, and bytes of all packets, that were put here since this was asked last.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        let len = low_bits(self.len());
        let bytes = len.wrapping_sub(std::mem::replace(&mut self.counted, len));
        let answers = std::mem::take(&mut self.answers);
        (u64::from(answers), u64::from(bytes))
    }

    /// Packets that may wait for the socket: at most those since it was empty.
    pub(crate) fn packets_waiting(&self) -> u64 {
        if self.is_empty() {
            0
        } else {
            u64::from(self.packets)
        }
    }

    pub fn len(&self) -> usize {
        self.chunks_bytes + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the next packet is appended.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends without copying.
    pub(crate) fn push_chunk(&mut self, chunk: Bytes) {
        let head = self.tail.split().freeze();
        for part in [head, chunk] {
            if !part.is_empty() {
                self.chunks_bytes += part.len();
                self.chunks.push_back(part);
            }
        }
    }

    /// Whether one more message may go in, where `coming` bytes are on their way to it already.
    pub(crate) fn takes_message(&mut self, coming: usize, bytes_max: usize) -> bool {
        if self.relief_at.is_none() && self.len() + coming >= bytes_max {
            self.relief_at = Some(NonZeroUsize::MIN.saturating_add(bytes_max / 2));
        }
        self.relief_at.is_none()
    }

    /// Whether somebody waits for it and may go on: tell the shard
    /// [`Drained`](crate::Input::Drained).
    pub fn is_relieved(&self) -> bool {
        self.relief_at.is_some_and(|at| self.len() < at.get())
    }

    /// Whether it was full and has not been relieved.
    pub(crate) fn is_congested(&self) -> bool {
        self.relief_at.is_some()
    }

    /// Takes messages again, if enough of it is written.
    pub(crate) fn relieve(&mut self) {
        if self.is_relieved() {
            self.relief_at = None;
        }
    }

    /// Gives the memory of an empty Output back.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.chunks = VecDeque::new();
            self.tail = BytesMut::new();
        }
    }

    /// Whether there is memory to give back.
    pub(crate) fn owns_memory(&self) -> bool {
        self.tail.capacity() > 0 || self.chunks.capacity() > 0
    }
}

/// All that differences of less than 4 GiB need.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn low_bits(length: usize) -> u32 {
    length as u32
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks
            .front()
            .map_or(&self.tail[..], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let all = self.chunks.iter().map(|chunk| &chunk[..]).chain(tail);
        let mut filled = 0;
        for (slot, chunk) in dst.iter_mut().zip(all) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.counted = self.counted.wrapping_sub(low_bits(count));
        if count >= self.len() {
            self.packets = 0;
        }
        while let Some(front) = self.chunks.front_mut() {
            if count == 0 {
                return;
            }
            let step = count.min(front.len());
            front.advance(step);
            self.chunks_bytes -= step;
            count -= step;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        if count >= self.tail.len() {
            // Keeps the buffer for the next round instead of moving through it.
            self.tail.clear();
        } else {
            self.tail.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut output = Output::default();
        output.tail().extend_from_slice(b"head1");
        output.push_chunk(Bytes::from_static(b"payload1"));
        output.tail().extend_from_slice(b"head2");
        output.push_chunk(Bytes::from_static(b"payload2"));
        output.tail().extend_from_slice(b"end");
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(output.chunks_vectored(&mut slices), 5);
        let mut all = Vec::new();
        while !output.is_empty() {
            let first = output.chunk()[0];
            all.push(first);
            output.advance(1);
        }
        assert_eq!(all, b"head1payload1head2payload2end");
    }

    #[test]
    fn released_output_owns_nothing() {
        let mut output = Output::default();
        output.tail().extend_from_slice(&[0; 100]);
        output.release();
        assert!(output.owns_memory(), "what waits is never dropped");
        output.advance(100);
        output.release();
        assert!(!output.owns_memory());
    }

    #[test]
    fn a_full_output_takes_the_next_message_when_half_is_written() {
        let mut output = Output::default();
        output.tail().extend_from_slice(&[0; 99]);
        assert!(output.takes_message(0, 100));
        assert!(!output.takes_message(1, 100), "one byte is coming");
        assert!(!output.takes_message(0, 100), "full until relieved");
        output.advance(48);
        assert!(!output.is_relieved(), "51 left");
        output.advance(1);
        assert!(output.is_relieved());
        output.relieve();
        assert!(output.takes_message(0, 100));
    }
}
