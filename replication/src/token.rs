//! The causal token: what a session has seen, to be carried to another node.
//!
//! ```text
//!   session on node 1                                   session on node 2
//!   INSERT …, SELECT …
//!   SHOW amphora.token ─► a text ── the application ──► SET amphora.token = '…'
//!                                                       SELECT …   sees at least all that
//! ```
//!
//! A token is the position of the node it was taken on, which is at least that of each of its sessions: the newest
//! commit of strong tables that is applied there or was acknowledged through it, and of leaderless tables how many
//! commits of each origin are merged there. It costs statements nothing until it is asked for. A reader waits until its
//! own node has that much; it may then see more.

use std::fmt;

use amphora_storage::{Timestamp, codec};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::leaderless::VersionVector;

/// Bytes of the longest token that is looked at.
const MAX_TOKEN: usize = 64 << 10;

/// A position that reads can be made to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The cluster it is of
    pub cluster: Uuid,
    /// Strong tables: everything up to this commit
    pub strong: Timestamp,
    /// Leaderless tables: so many commits of each origin
    pub leaderless: VersionVector,
}

impl Token {
    /// At least what both stand for.
    pub fn join(&mut self, other: &Token) {
        self.strong = self.strong.max(other.strong);
        self.leaderless.join(&other.leaderless);
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self);
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token of amphora.token")]
pub struct NotAToken;

impl std::str::FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Token, NotAToken> {
        let text = text.trim().as_bytes();
        if text.len() > 2 * MAX_TOKEN || !text.len().is_multiple_of(2) {
            return Err(NotAToken);
        }
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Vec<u8> = text.chunks(2).map(byte).collect::<Option<_>>().ok_or(NotAToken)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(NotAToken)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
            return Err(NotAToken);
        }
        codec::decode(body).map_err(|_| NotAToken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token() -> Token {
        let mut leaderless = VersionVector::new();
        leaderless.advance(3, 70_000);
        Token { cluster: Uuid::from_u128(7), strong: Timestamp(1 << 60), leaderless }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        for (position, _) in text.char_indices() {
            let mut damaged = text.clone();
            let other = if damaged.as_bytes()[position] == b'0' { "1" } else { "0" };
            damaged.replace_range(position..=position, other);
            assert_eq!(damaged.parse::<Token>(), Err(NotAToken), "{damaged}");
        }
        for bad in ["", "0", "00", "é", "00000000", &text[2..], "zz"] {
            assert_eq!(bad.parse::<Token>(), Err(NotAToken), "{bad}");
        }
    }

    #[test]
    fn joined_it_stands_for_both() {
        let mut joined = Token { strong: Timestamp(2), ..Token::default() };
        joined.leaderless.advance(1, 5);
        joined.join(&token());
        assert_eq!(joined.strong, token().strong);
        assert_eq!((joined.leaderless.get(1), joined.leaderless.get(3)), (5, 70_000));
    }
}
