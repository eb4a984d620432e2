//! From rows of datums to bytes.

use std::sync::Arc;

use amphora_storage::{DataType, Datum};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::options::{CopyFormat, CopyOptions, Header};
use super::{binary, csv, text};
use crate::error::Result;
use crate::plan::Field;
use crate::session::{Notice, Output};
use crate::types::{self, FormatContext};

/// What stands between a running query and a client that asked for its rows as COPY data: it encodes rows,
/// and makes the query's answer COPY's.
pub struct Encoder<'a> {
    out: &'a mut dyn Output,
    options: &'a CopyOptions,
    force_quote: &'a [bool],
    types: Vec<DataType>,
    format: FormatContext,
    record: Vec<u8>,
    value: String,
    binary: BytesMut,
    rows: u64,
}

impl<'a> Encoder<'a> {
    /// Encodes for `out`.
    pub fn new(out: &'a mut dyn Output, options: &'a CopyOptions, force_quote: &'a [bool]) -> Encoder<'a> {
        Encoder {
            out,
            options,
            force_quote,
            types: Vec::new(),
            format: FormatContext::default(),
            record: Vec::new(),
            value: String::new(),
            binary: BytesMut::new(),
            rows: 0,
        }
    }

    fn encode_text(&mut self, row: &[Datum]) {
        let csv = self.options.format == CopyFormat::Csv;
        for (i, (value, ty)) in row.iter().zip(&self.types).enumerate() {
            if i > 0 {
                self.record.push(self.options.delimiter);
            }
            if value.is_null() {
                self.record.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            let bytes = match value {
                Datum::Text(s) => s.as_bytes(),
                other => {
                    self.value.clear();
                    types::format(other, ty, &self.format, &mut self.value);
                    self.value.as_bytes()
                }
            };
            if csv {
                let force = self.force_quote.get(i).copied().unwrap_or(false);
                csv::write(bytes, self.options, force, row.len() == 1, &mut self.record);
            } else {
                text::write(bytes, self.options.delimiter, &mut self.record);
            }
        }
        self.record.push(b'\n');
    }

    fn encode_binary(&mut self, row: &[Datum]) {
        self.record.extend_from_slice(&(row.len() as i16).to_be_bytes());
        for (value, ty) in row.iter().zip(&self.types) {
            if value.is_null() {
                self.record.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            }
            self.binary.clear();
            types::format_binary(value, ty, &mut self.binary);
            self.record.extend_from_slice(&(self.binary.len() as u32).to_be_bytes());
            self.record.extend_from_slice(&self.binary);
        }
    }

    fn send(&mut self) {
        self.out.copy_out_data(&self.record);
        self.record.clear();
    }
}

#[async_trait]
impl Output for Encoder<'_> {
    fn fields(&mut self, fields: &Arc<[Field]>, _: &[i16], format: &FormatContext) {
        self.types = fields.iter().map(|f| f.ty.base()).collect();
        self.format = format.clone();
        let binary = self.options.format == CopyFormat::Binary;
        self.out.copy_out(binary, fields.len());
        if binary {
            self.record.extend_from_slice(binary::SIGNATURE);
            self.record.extend_from_slice(&[0; 8]);
        }
        if self.options.header != Header::Off {
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    self.record.push(self.options.delimiter);
                }
                let name = field.name.as_bytes();
                if self.options.is_csv() {
                    csv::write(name, self.options, false, fields.len() == 1, &mut self.record);
                } else {
                    text::write(name, self.options.delimiter, &mut self.record);
                }
            }
            self.record.push(b'\n');
            self.send();
        }
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            self.encode_binary(row);
        } else {
            self.encode_text(row);
        }
        self.rows += 1;
        self.send();
        Ok(())
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        self.out.flush_if_full().await
    }

    fn complete(&mut self, _: &str) {
        if self.options.format == CopyFormat::Binary {
            self.record.extend_from_slice(&(-1_i16).to_be_bytes());
            self.send();
        }
        self.out.copy_done();
        self.out.complete(&format!("COPY {}", self.rows));
    }

    fn suspended(&mut self) {
        self.out.suspended();
    }

    fn empty_query(&mut self) {
        self.out.empty_query();
    }

    fn notice(&mut self, notice: Notice) {
        self.out.notice(notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        self.out.parameter_status(name, value);
    }

    async fn copy_in(&mut self, binary: bool, columns: usize) -> Result<()> {
        self.out.copy_in(binary, columns).await
    }

    async fn copy_in_data(&mut self) -> Result<Option<Bytes>> {
        self.out.copy_in_data().await
    }
}
