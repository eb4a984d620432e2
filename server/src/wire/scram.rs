//! SCRAM-SHA-256, the server's part: a client proves that it knows a password without sending it.
//!
//! ```text
//!   client                                         server
//!     │ ◀── AuthenticationSASL  SCRAM-SHA-256 ─────── │
//!     │ ─── n,,n=,r=<client nonce> ─────────────────▶ │ first()
//!     │ ◀── r=<both nonces>,s=<salt>,i=<rounds> ───── │
//!     │ ─── c=biws,r=<both nonces>,p=<proof> ───────▶ │ last()
//!     │ ◀── v=<signature> ── AuthenticationOk ─────── │
//! ```
//!
//! The exchange holds no socket: it is given messages and gives messages. A role that does not exist, or has
//! no password, goes through the same steps and fails at the proof, so that nobody learns by asking which
//! roles there are.

use amphora_sql::error::{Result, SqlError};
use amphora_sql::scram::{Key, Verifier, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// The one mechanism; the variant with channel binding needs TLS.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// Random bytes in the server's half of the nonce.
const NONCE: usize = 18;

/// An exchange after its first step.
pub struct Exchange {
    verifier: Verifier,
    /// The client's first message without its header
    client_first: String,
    /// The header, as the client must repeat it
    header: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Takes the client's first message; gives the exchange and what to answer. 08P01, 0A000
    pub fn first(verifier: Verifier, message: &str) -> Result<(Exchange, String)> {
        let nonce = BASE64.encode(rand::random::<[u8; NONCE]>());
        Exchange::with_nonce(verifier, message, &nonce)
    }

    fn with_nonce(verifier: Verifier, message: &str, server_nonce: &str) -> Result<(Exchange, String)> {
        let mut parts = message.splitn(3, ',');
        let (binding, identity, bare) = (parts.next(), parts.next(), parts.next());
        let (Some(binding), Some(identity), Some(bare)) = (binding, identity, bare) else {
            return Err(malformed("The first message has no header."));
        };
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => {
                return Err(malformed("Channel binding was asked for on a connection without TLS."));
            }
            _ => return Err(malformed("The channel binding flag is none of n, y and p.")),
        }
        if !identity.is_empty() {
            return Err(SqlError::feature_not_supported(
                "client uses authorization identity, but it is not supported",
            ));
        }
        let mut attributes = bare.split(',');
        // The name is the one of the startup message, whatever stands here.
        match attributes.next() {
            Some(name) if name.starts_with("n=") => {}
            Some(name) if name.starts_with("m=") => {
                return Err(SqlError::feature_not_supported(
                    "client requires an unsupported SCRAM extension",
                ));
            }
            _ => return Err(malformed("The first message names no user.")),
        }
        let client_nonce = attributes.next().and_then(|a| a.strip_prefix("r=")).unwrap_or_default();
        let printable = |c: u8| (0x21..=0x7e).contains(&c);
        if client_nonce.is_empty() || !client_nonce.bytes().all(printable) {
            return Err(malformed("The client's nonce is missing or not printable."));
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let exchange = Exchange {
            verifier,
            client_first: bare.to_owned(),
            header: BASE64.encode(format!("{binding},,")),
            server_first: server_first.clone(),
            nonce,
        };
        Ok((exchange, server_first))
    }

    /// Takes the client's last message; gives the server's signature, or `None` if the proof is wrong. 08P01
    pub fn last(self, message: &str) -> Result<Option<String>> {
        let Some((without_proof, proof)) = message.rsplit_once(",p=") else {
            return Err(malformed("The last message has no proof."));
        };
        let mut attributes = without_proof.split(',');
        if attributes.next().and_then(|a| a.strip_prefix("c=")) != Some(self.header.as_str()) {
            return Err(malformed("The channel binding is not the one of the first message."));
        }
        if attributes.next().and_then(|a| a.strip_prefix("r=")) != Some(self.nonce.as_str()) {
            return Err(malformed("The nonce is not the one of this exchange."));
        }
        let proof = BASE64.decode(proof).ok().and_then(|bytes| Key::try_from(bytes).ok());
        let Some(proof) = proof else {
            return Err(malformed("The proof is not 32 bytes in base64."));
        };
        let conversation: [&[u8]; 5] = [
            self.client_first.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof.as_bytes(),
        ];
        let signature = sign(&self.verifier.stored_key, &conversation);
        let mut client_key = proof;
        client_key.iter_mut().zip(signature).for_each(|(key, s)| *key ^= s);
        let stored: Key = Sha256::digest(client_key).into();
        if !equal(&stored, &self.verifier.stored_key) {
            return Ok(None);
        }
        Ok(Some(format!("v={}", BASE64.encode(sign(&self.verifier.server_key, &conversation)))))
    }
}

/// Compares in a time that does not tell where they differ.
fn equal(a: &Key, b: &Key) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// A verifier that no password satisfies. The same role is given the same salt each time, as a real one
/// would be.
pub fn impossible(secret: &Key, user: &str) -> Verifier {
    let salt = sign(secret, &[user.as_bytes()]);
    Verifier {
        iterations: 4096,
        salt: salt[..16].to_vec(),
        stored_key: rand::random(),
        server_key: rand::random(),
    }
}

/// 08P01
fn malformed(detail: &str) -> SqlError {
    SqlError::protocol_violation("malformed SCRAM message").with_detail(detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// The verifier of "pencil" in RFC 7677: what makes its example's proof and signature right.
    fn pencil() -> Verifier {
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        Verifier::parse(text).unwrap()
    }

    fn started() -> Exchange {
        let (exchange, answer) =
            Exchange::with_nonce(pencil(), CLIENT_FIRST, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        exchange
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let signature = started().last(FINAL).unwrap();
        assert_eq!(signature.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn a_wrong_proof_is_no_error_of_the_protocol() {
        let wrong = FINAL.replace("p=dHz", "p=dHy");
        assert_eq!(started().last(&wrong).unwrap(), None);
        let (exchange, _) = Exchange::with_nonce(
            impossible(&[7; 32], "user"),
            CLIENT_FIRST,
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(exchange.last(FINAL).unwrap(), None);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for first in
            ["", "n", "n,,", "n,,n=", "n,,n=,r=", "n,a=x,n=,r=abc", "p=tls-unique,,n=,r=abc", "x,,n=,r=a"]
        {
            assert!(Exchange::first(pencil(), first).is_err(), "{first}");
        }
        for last in [
            String::new(),
            FINAL.replace("c=biws", "c=eSws"),
            FINAL.replace("r=rOpr", "r=xOpr"),
            FINAL.replace("p=dHzb", "p="),
            FINAL.replace(",p=", ",q="),
        ] {
            assert_eq!(started().last(&last).unwrap_err().sqlstate, "08P01", "{last}");
        }
    }

    #[test]
    fn an_unknown_role_keeps_its_salt() {
        assert_eq!(impossible(&[7; 32], "eve").salt, impossible(&[7; 32], "eve").salt);
        assert_ne!(impossible(&[7; 32], "eve").salt, impossible(&[7; 32], "bob").salt);
    }
}
