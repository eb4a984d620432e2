//! `--leader-preference`: how much a node is preferred as the leader, by region.
//!
//! ```text
//!   7                    this node
//!   eu=10,us=5           a node of region eu 10, one of us 5, any other 0: the same on all nodes
//!   eu=10,-1             a node of region eu 10, any other -1
//! ```

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Preferences of regions, and of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderPreference {
    regions: BTreeMap<String, i32>,
    others: Option<i32>,
}

impl LeaderPreference {
    /// Of a node of this region.
    pub fn of(&self, region: &str) -> i32 {
        self.regions.get(region).copied().or(self.others).unwrap_or(0)
    }
}

impl FromStr for LeaderPreference {
    type Err = String;

    fn from_str(text: &str) -> Result<LeaderPreference, String> {
        let expected = "expected a number, or numbers by region, as in eu=10,us=5";
        let number = |n: &str| n.trim().parse::<i32>().map_err(|_| format!("{expected}, not \"{text}\""));
        let mut preference = LeaderPreference::default();
        for part in text.split(',') {
            let again = match part.split_once('=') {
                Some((region, n)) if !region.trim().is_empty() => {
                    preference.regions.insert(region.trim().to_owned(), number(n)?).is_some()
                }
                Some(_) => return Err(expected.to_owned()),
                None => preference.others.replace(number(part)?).is_some(),
            };
            if again {
                return Err(format!("\"{}\" is there twice", part.trim()));
            }
        }
        Ok(preference)
    }
}

impl<'de> Deserialize<'de> for LeaderPreference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LeaderPreference, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Number(i32),
            List(String),
        }
        match Value::deserialize(deserializer)? {
            Value::Number(n) => Ok(LeaderPreference { others: Some(n), ..LeaderPreference::default() }),
            Value::List(list) => list.parse().map_err(serde::de::Error::custom),
        }
    }
}
