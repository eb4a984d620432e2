//! How many bytes the entries of the log have, without reading them.

use std::collections::VecDeque;

/// Consecutive entries are counted together up to so many bytes.
const GRAIN: u64 = 1 << 20;

/// Some consecutive entries.
struct Mark {
    last: u64,
    bytes: u64,
}

/// Sizes of entries, about: a grain exact.
#[derive(Default)]
pub(super) struct Sizes {
    marks: VecDeque<Mark>,
}

impl Sizes {
    /// What is there when the log is opened.
    pub(super) fn new(bounds: Option<(u64, u64)>, bytes: u64) -> Sizes {
        let marks = bounds.into_iter().map(|(_, last)| Mark { last, bytes });
        Sizes { marks: marks.collect() }
    }

    pub(super) fn append(&mut self, index: u64, bytes: u64) {
        match self.marks.back_mut() {
            Some(mark) if mark.bytes + bytes <= GRAIN => {
                mark.last = index;
                mark.bytes += bytes;
            }
            _ => self.marks.push_back(Mark { last: index, bytes }),
        }
    }

    pub(super) fn truncate(&mut self, from: u64) {
        while let Some(mark) = self.marks.pop_back_if(|mark| mark.last >= from) {
            let first = self.marks.back().map(|before| before.last + 1);
            if first.is_some_and(|first| first < from) {
                // What is left of it has that many bytes at most.
                self.marks.push_back(Mark { last: from - 1, bytes: mark.bytes });
                return;
            }
        }
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while self.marks.front().is_some_and(|mark| mark.last <= upto) {
            self.marks.pop_front();
        }
    }

    /// Bytes of the entries after an index.
    pub(super) fn after(&self, index: u64) -> u64 {
        self.marks.iter().rev().take_while(|mark| mark.last > index).map(|mark| mark.bytes).sum()
    }

    /// The first of the newest entries that together have no more than `bytes`; `None` if all do.
    pub(super) fn first_within(&self, bytes: u64) -> Option<u64> {
        let mut sum = 0;
        for mark in self.marks.iter().rev() {
            sum += mark.bytes;
            if sum > bytes {
                return Some(mark.last + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_to_a_grain() {
        let mut sizes = Sizes::new(Some((1, 10)), 5 << 20);
        for index in 11..=30 {
            sizes.append(index, 1 << 19);
        }
        assert_eq!(sizes.after(30), 0);
        assert_eq!(sizes.after(0), 15 << 20);
        assert_eq!(sizes.after(10), 10 << 20);
        assert_eq!(sizes.first_within(4 << 20), Some(23));
        assert_eq!(sizes.first_within(100 << 20), None);
        sizes.truncate(22);
        assert_eq!(sizes.after(10), 6 << 20, "half of a grain counts as all of it");
        sizes.append(22, 1 << 19);
        sizes.purge(10);
        assert_eq!(sizes.after(0), 6 << 20 | 1 << 19);
        sizes.truncate(0);
        assert_eq!(sizes.after(0), 0);
    }
}
