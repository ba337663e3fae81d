//! Values at stable small numbers, in chunks, so that growing moves nothing and wastes at most one chunk.

use std::{
    mem::size_of,
    ops::{Index, IndexMut},
};

use super::window::ALLOCATION;

const CHUNK: usize = 1_024;

#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    length: u32,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), length: 0 }
    }

    /// How many values are in use.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.length += 1;
        if let Some(at) = self.free.pop() {
            self[at] = value;
            return at;
        }
        // Nothing is free, so all that were ever made are in use.
        let at = self.length - 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(value),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
        }
        at
    }

    /// The value of a number, also of one that was given back, if it was ever made.
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.chunks.get(at as usize / CHUNK)?.get(at as usize % CHUNK)
    }

    /// Gives a number back; the value stays until the number is used again.
    pub(super) fn free(&mut self, at: u32) {
        self.length -= 1;
        self.free.push(at);
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * (CHUNK * size_of::<T>() + ALLOCATION)
            + self.chunks.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<u32>()
            + 2 * ALLOCATION
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}
