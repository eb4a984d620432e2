//! What a password is checked against: SCRAM-SHA-256 (RFC 5802, RFC 7677), as PostgreSQL keeps it.
//!
//! ```text
//!   password ─PBKDF2(salt, iterations)─► salted ─┬─HMAC "Client Key"─► client key ─SHA-256─► stored key ┐
//!                                                └─HMAC "Server Key"──────────────────────► server key ┘ kept
//! ```
//!
//! A server that keeps the two keys can check a client that knows the password, and prove itself to it, but
//! cannot pass for the client; nor can who steals them, without breaking the password first. The verifier
//! is written in PostgreSQL's own form, so that clients may send it ready made (`\password` in psql does)
//! and the password itself never travels.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Rounds of PBKDF2 for a password that is hashed here: PostgreSQL's default.
const ITERATIONS: u32 = 4096;
/// Most rounds that a ready-made verifier may ask of clients.
const MAX_ITERATIONS: u32 = 10_000_000;
/// Bytes of salt.
const SALT: usize = 16;

/// A key or a signature.
pub type Key = [u8; 32];

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Rounds of PBKDF2
    pub iterations: u32,
    /// The salt
    pub salt: Vec<u8>,
    /// Hash of the client's key
    pub stored_key: Key,
    /// The server's key
    pub server_key: Key,
}

/// Keys are not for logs.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Verifier {
    /// The verifier of a password, with a salt of its own. Takes some milliseconds.
    pub fn of_password(password: &str) -> Verifier {
        let salt: [u8; SALT] = rand::random();
        Verifier::derive(password, &salt, ITERATIONS)
    }

    fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        // What SASLprep refuses is taken as it is, as PostgreSQL and its clients do.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let salted = salt_password(prepared.as_bytes(), salt, iterations);
        let client_key = sign(&salted, &[b"Client Key"]);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: sign(&salted, &[b"Server Key"]),
        }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`; `None` if it is not that.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        let iterations = iterations.parse().ok().filter(|i| (1..=MAX_ITERATIONS).contains(i))?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Verifier { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// Whether this is the password.
    pub fn accepts(&self, password: &str) -> bool {
        Verifier::derive(password, &self.salt, self.iterations) == *self
    }
}

/// As PostgreSQL writes it.
impl std::fmt::Display for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

/// HMAC-SHA-256 of the parts, one after the other.
pub fn sign(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = mac(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the error exists for other algorithms' sake.
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC refuses no key"))
}

/// PBKDF2 with HMAC-SHA-256, of one block.
fn salt_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let keyed = mac(password);
    let round = |parts: &[&[u8]]| -> Key {
        let mut mac = keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut last = round(&[salt, &1u32.to_be_bytes()]);
    let mut salted = last;
    for _ in 1..iterations {
        last = round(&[&last]);
        salted.iter_mut().zip(last).for_each(|(s, l)| *s ^= l);
    }
    salted
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: the password is "pencil".
    #[test]
    fn the_keys_are_those_of_the_rfc() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt, 4096);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = sign(&verifier.server_key, &[message.as_bytes()]);
        assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_verifier_is_read_as_it_was_written() {
        let verifier = Verifier::of_password("pässword \u{a0}x");
        assert_eq!(Verifier::parse(&verifier.to_string()).unwrap(), verifier);
        assert!(verifier.accepts("pässword  x"), "SASLprep maps a no-break space to a space");
        assert!(!verifier.accepts("pässword x"));
        for bad in ["", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:$x:y"] {
            assert!(Verifier::parse(bad).is_none(), "{bad}");
        }
    }
}
