//! The options of COPY: what they may be together, in PostgreSQL's order of complaints.

use crate::error::{Result, SqlError};
use crate::parser::{CopyOption, OptionValue};

/// How records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// A line a row, tabs between values, backslash escapes
    Text,
    /// Comma separated values, quoted
    Csv,
    /// Lengths and binary values
    Binary,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// A row
    #[default]
    Off,
    /// The columns' names
    On,
    /// The columns' names, which must be those of the table
    Match,
}

/// All options, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT
    pub format: CopyFormat,
    /// DELIMITER
    pub delimiter: u8,
    /// NULL
    pub null: String,
    /// HEADER
    pub header: Header,
    /// QUOTE
    pub quote: u8,
    /// ESCAPE
    pub escape: u8,
    /// FORCE_QUOTE
    pub(crate) force_quote: Columns,
    /// FORCE_NOT_NULL
    pub(crate) force_not_null: Columns,
    /// FORCE_NULL
    pub(crate) force_null: Columns,
}

/// Columns named in an option.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Columns {
    /// None
    #[default]
    None,
    /// `*`
    All,
    /// These
    Named(Vec<String>),
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::invalid_parameter_value(message)
}

fn unsupported(message: impl Into<String>) -> SqlError {
    SqlError::feature_not_supported(message)
}

/// The options as written, each at most once.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<Header>,
    quote: Option<String>,
    escape: Option<String>,
    freeze: Option<bool>,
    encoding: Option<()>,
    force_quote: Option<Columns>,
    force_not_null: Option<Columns>,
    force_null: Option<Columns>,
}

impl CopyOptions {
    /// Reads and checks options. 42601, 22023, 0A000
    pub(crate) fn read(from: bool, options: &[CopyOption]) -> Result<CopyOptions> {
        let mut given = Given::default();
        for option in options {
            let at = |error: SqlError| match option.position {
                Some(position) => error.at(position),
                None => error,
            };
            given.take(from, option).map_err(|e| if e.sqlstate == "0A000" { e } else { at(e) })?;
        }
        given.check(from)
    }

    /// True of CSV.
    pub fn is_csv(&self) -> bool {
        self.format == CopyFormat::Csv
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    if slot.is_some() {
        return Err(SqlError::syntax_error("conflicting or redundant options"));
    }
    *slot = Some(value);
    Ok(())
}

fn text(option: &CopyOption) -> Result<String> {
    match &option.value {
        OptionValue::Text(text) => Ok(text.clone()),
        OptionValue::Absent => Err(SqlError::syntax_error(format!("{} requires a parameter", option.name))),
        OptionValue::Star => Ok("*".into()),
        OptionValue::List(names) => Ok(names.join(", ")),
    }
}

fn boolean(option: &CopyOption) -> Option<bool> {
    match &option.value {
        OptionValue::Absent => Some(true),
        OptionValue::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Some(true),
            "false" | "off" | "0" => Some(false),
            _ => None,
        },
        OptionValue::Star | OptionValue::List(_) => None,
    }
}

fn columns(option: &CopyOption, star: bool) -> Result<Columns> {
    match &option.value {
        OptionValue::Star if star => Ok(Columns::All),
        OptionValue::List(names) => Ok(Columns::Named(names.clone())),
        _ => Err(invalid(format!("argument to option \"{}\" must be a list of column names", option.name))),
    }
}

impl Given {
    fn take(&mut self, from: bool, option: &CopyOption) -> Result<()> {
        match option.name.as_str() {
            "format" => {
                let format = match text(option)?.as_str() {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    other => return Err(invalid(format!("COPY format \"{other}\" not recognized"))),
                };
                once(&mut self.format, format)
            }
            "freeze" => {
                let on = boolean(option)
                    .ok_or_else(|| SqlError::syntax_error("freeze requires a Boolean value"))?;
                once(&mut self.freeze, on)
            }
            "delimiter" => once(&mut self.delimiter, text(option)?),
            "null" => once(&mut self.null, text(option)?),
            "header" => {
                let header = match (boolean(option), &option.value) {
                    (Some(true), _) => Header::On,
                    (Some(false), _) => Header::Off,
                    (None, OptionValue::Text(word)) if word.eq_ignore_ascii_case("match") => {
                        if !from {
                            let message = "cannot use \"match\" with HEADER in COPY TO";
                            return Err(unsupported(message));
                        }
                        Header::Match
                    }
                    _ => {
                        return Err(SqlError::syntax_error("header requires a Boolean value or \"match\""));
                    }
                };
                once(&mut self.header, header)
            }
            "quote" => once(&mut self.quote, text(option)?),
            "escape" => once(&mut self.escape, text(option)?),
            "force_quote" => once(&mut self.force_quote, columns(option, true)?),
            "force_not_null" => once(&mut self.force_not_null, columns(option, false)?),
            "force_null" => once(&mut self.force_null, columns(option, false)?),
            "encoding" => {
                let name = text(option)?;
                let plain: String =
                    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
                match plain.as_str() {
                    "utf8" | "unicode" | "sqlascii" => once(&mut self.encoding, ()),
                    _ => Err(unsupported(format!("COPY in the encoding \"{name}\" is not supported"))
                        .with_hint("Convert the data to UTF8.")),
                }
            }
            other => Err(SqlError::syntax_error(format!("option \"{other}\" not recognized"))),
        }
    }

    fn check(self, from: bool) -> Result<CopyOptions> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let (csv, binary) = (format == CopyFormat::Csv, format == CopyFormat::Binary);
        if binary && self.delimiter.is_some() {
            return Err(SqlError::syntax_error("cannot specify DELIMITER in BINARY mode"));
        }
        if binary && self.null.is_some() {
            return Err(SqlError::syntax_error("cannot specify NULL in BINARY mode"));
        }
        let null = self.null.unwrap_or_else(|| if csv { String::new() } else { "\\N".into() });
        let delimiter = self.delimiter.unwrap_or_else(|| if csv { ",".into() } else { "\t".into() });
        let delimiter = one_byte(&delimiter, "COPY delimiter must be a single one-byte character")?;
        if matches!(delimiter, b'\r' | b'\n') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if null.contains(['\r', '\n']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        // They would be taken for escapes, or for the end marker.
        if !csv
            && (delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit() || b"\\.".contains(&delimiter))
        {
            return Err(invalid(format!("COPY delimiter cannot be \"{}\"", delimiter as char)));
        }
        let header = self.header.unwrap_or_default();
        if binary && header != Header::Off {
            return Err(unsupported("cannot specify HEADER in BINARY mode"));
        }
        if !csv && self.quote.is_some() {
            return Err(unsupported("COPY quote available only in CSV mode"));
        }
        let quote = self.quote.as_deref().unwrap_or("\"");
        let quote = one_byte(quote, "COPY quote must be a single one-byte character")?;
        if csv && delimiter == quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if !csv && self.escape.is_some() {
            return Err(unsupported("COPY escape available only in CSV mode"));
        }
        let escape = match &self.escape {
            Some(escape) => one_byte(escape, "COPY escape must be a single one-byte character")?,
            None => quote,
        };
        for (given, what, direction, allowed) in [
            (&self.force_quote, "force quote", "COPY TO", !from),
            (&self.force_not_null, "force not null", "COPY FROM", from),
            (&self.force_null, "force null", "COPY FROM", from),
        ] {
            if given.is_some() && !csv {
                return Err(unsupported(format!("COPY {what} available only in CSV mode")));
            }
            if given.is_some() && !allowed {
                return Err(unsupported(format!("COPY {what} only available using {direction}")));
            }
        }
        if null.as_bytes().contains(&delimiter) {
            return Err(unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if csv && null.as_bytes().contains(&quote) {
            return Err(unsupported("CSV quote character must not appear in the NULL specification"));
        }
        Ok(CopyOptions {
            format,
            delimiter,
            null,
            header,
            quote,
            escape,
            force_quote: self.force_quote.unwrap_or_default(),
            force_not_null: self.force_not_null.unwrap_or_default(),
            force_null: self.force_null.unwrap_or_default(),
        })
    }
}

fn one_byte(text: &str, otherwise: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(unsupported(otherwise)),
    }
}
