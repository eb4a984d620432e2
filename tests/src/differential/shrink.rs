//! A failing case made small: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002) over the statements that led to a difference.
//!
//! ```text
//!   all statements ──▶ without a half? ──▶ without a quarter? ──▶ … ──▶ none can be left out
//!                      still differs: go on with what is left
//! ```

use super::Pair;
use super::wire::Mode;

/// A statement as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its text
    pub sql: String,
    /// Values of its parameters
    pub parameters: Vec<Option<String>>,
    /// How it was sent
    pub mode: Mode,
    /// Rows must come in the same order
    pub ordered: bool,
}

/// How often a case is tried at most.
const TRIES: usize = 150;

/// The schema in which cases are run again.
const SCHEMA: &str = "shrink";

/// The least part of the list, in its order, of which `fails` still holds: leaving out any one element, it does not.
/// Asks at most `tries` times.
pub fn smallest<T: Clone>(all: &[T], tries: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = all.to_vec();
    let mut size = kept.len().div_ceil(2);
    let mut left = tries;
    while size > 0 && !kept.is_empty() {
        let mut from = 0;
        let mut shorter = false;
        while from < kept.len() {
            if left == 0 {
                return kept;
            }
            left -= 1;
            let mut without = kept.clone();
            without.drain(from..(from + size).min(kept.len()));
            if fails(&without) {
                kept = without;
                shorter = true;
            } else {
                from += size;
            }
        }
        if !(shorter && size == 1) {
            size /= 2;
        }
    }
    kept
}

impl Pair {
    /// The fewest of the statements before the last after which the last still differs, as SQL to run. `None` if it does
    /// not differ when run again.
    pub fn shrink(&mut self, before: &[Sent], last: &Sent) -> Option<String> {
        if !self.differs_after(before, last) {
            return None;
        }
        let few = smallest(before, TRIES, |some| self.differs_after(some, last));
        let mut script = String::new();
        for sent in few.iter().chain([last]) {
            script += &sent.sql;
            script += ";\n";
            if !sent.parameters.is_empty() {
                script += &format!("-- with {:?}, {:?}\n", sent.parameters, sent.mode);
            }
        }
        Some(script)
    }

    /// Runs statements in a fresh schema on both, and says whether the last one's answers differ.
    fn differs_after(&mut self, before: &[Sent], last: &Sent) -> bool {
        let fresh = format!(
            "ROLLBACK; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}"
        );
        for sql in fresh.split("; ") {
            self.both(sql, &[], Mode::Simple);
        }
        for sent in before {
            self.both(&sent.sql, &sent.parameters, sent.mode);
        }
        let (expected, actual) = self.both(&last.sql, &last.parameters, last.mode);
        let case =
            super::known::Case { sql: &last.sql, mode: last.mode, expected: &expected, actual: &actual };
        let different = super::compare::difference(&expected, &actual, last.ordered).is_some()
            && super::known::explain(&case).is_none();
        for sql in ["ROLLBACK", "RESET search_path"] {
            self.both(sql, &[], Mode::Simple);
        }
        different
    }
}

#[cfg(test)]
mod tests {
    use super::smallest;

    #[test]
    fn what_is_needed_is_left_and_nothing_else() {
        let all: Vec<u32> = (0..100).collect();
        let needs = |part: &[u32]| [3, 41, 42, 97].iter().all(|n| part.contains(n));
        assert_eq!(smallest(&all, 1000, needs), [3, 41, 42, 97]);
        assert_eq!(smallest(&all, 1000, |_| true), Vec::<u32>::new());
        assert_eq!(smallest(&all, 1000, |part| part.len() == 100), all);
    }

    #[test]
    fn it_ends_after_so_many_tries() {
        let mut asked = 0;
        smallest(&(0..1000).collect::<Vec<u32>>(), 20, |_| {
            asked += 1;
            false
        });
        assert_eq!(asked, 20);
    }
}
