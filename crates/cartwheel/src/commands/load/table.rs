//! CSV and TSV.

use std::io::{self, Read};

use bytes::Bytes;
use serde::Serializer as _;

use super::record::{Item, RECORD_BYTES_MAX, Record, Shape, Start, TOO_LONG};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The number of bytes per read.
const READ_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &str = "\u{feff}";

#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no header: the first line must name the columns")]
    NoHeader,
    #[error("the header {0}")]
    BadHeader(String),
    #[error("no column {name:?}: the header has {columns}")]
    NoColumn { name: String, columns: String },
}

#[derive(Clone, Debug)]
pub(super) struct Header {
    columns: Vec<String>,
    key: usize,
    value: Option<usize>,
    /// The position of the first record.
    pub(super) end: Start,
}

pub(super) struct Table<R> {
    rows: Rows<R>,
    shape: Shape,
    header: Header,
}

impl Header {
    /// Reads the header at the beginning of `input`.
    pub(super) fn read<R: Read>(input: R, delimiter: u8, shape: &Shape) -> Result<Self, TableError> {
        let mut rows = Rows::new(input, delimiter, Start::FILE);
        rows.skip_byte_order_mark()?;
        let row = rows.next()?.ok_or(TableError::NoHeader)?;
        row.fields.as_ref().map_err(|why| TableError::BadHeader(format!("cannot be read: {why}")))?;
        let texts = rows.fields.iter().map(|field| std::str::from_utf8(field).map(str::to_owned));
        let columns: Vec<String> =
            texts.collect::<Result<_, _>>().map_err(|_| TableError::BadHeader("is not UTF-8".to_owned()))?;
        for (at, name) in columns.iter().enumerate() {
            if columns[..at].contains(name) {
                return Err(TableError::BadHeader(format!("names the column {name:?} twice")));
            }
        }
        let find = |name: &String| {
            let missing = || TableError::NoColumn { name: name.clone(), columns: columns.join(", ") };
            columns.iter().position(|column| column == name).ok_or_else(missing)
        };
        let (key, value) = (find(&shape.key)?, shape.value.as_ref().map(find).transpose()?);
        Ok(Self { key, value, end: Start { offset: row.end, line: row.next_line }, columns })
    }
}

impl<R: Read> Table<R> {
    /// Reads records from `input`, which begins at `start` of a table with this header.
    pub(super) fn new(input: R, delimiter: u8, shape: Shape, header: Header, start: Start) -> Self {
        Self { rows: Rows::new(input, delimiter, start), shape, header }
    }

    /// The next record; none at the end of the table.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        let Some(Row { line, next_line, end, fields }) = self.rows.next()? else { return Ok(None) };
        let record = fields.and_then(|()| self.record());
        Ok(Some(Item { line, next_line, end, record }))
    }

    fn record(&self) -> Result<Record, String> {
        let (row, header) = (&self.rows.fields, &self.header);
        if row.len() != header.columns.len() {
            let columns = header.columns.len();
            return Err(format!("{} fields, but {columns} columns in the header", row.len()));
        }
        let text = |at: usize| {
            std::str::from_utf8(row.get(at)).map_err(|_| format!("the field {:?} is not UTF-8", header.columns[at]))
        };
        let key = Bytes::copy_from_slice(text(header.key)?.as_bytes());
        if let Some(at) = header.value {
            return self.shape.record(key, Bytes::copy_from_slice(text(at)?.as_bytes()), TEXT);
        }
        let texts = (0..row.len()).map(text).collect::<Result<Vec<_>, _>>()?;
        let mut object = Vec::new();
        serde_json::Serializer::new(&mut object)
            .collect_map(header.columns.iter().zip(texts))
            .map_err(|error| error.to_string())?;
        self.shape.record(key, object.into(), JSON)
    }
}

/// The position of a row, and the error if it cannot be split into fields.
struct Row {
    line: u64,
    next_line: u64,
    end: u64,
    fields: Result<(), String>,
}

/// The fields of one row, in one buffer that is reused for the next row.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[at]]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }
}

/// The state of the reader within a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Before a field's first byte: only here does a quote open a quoted field.
    FieldStart,
    /// In an unquoted field.
    Plain,
    /// In a quoted field.
    Quotes,
    /// After a quote in a quoted field: it closes the field, unless another quote follows.
    AfterQuote,
}

/// Rows as in RFC 4180, except that a line may end with CR, LF or both. An invalid row ends with the line on which its last quote was
/// opened, so that a stray quote loses that line and not the rest of the file.
struct Rows<R> {
    input: R,
    delimiter: u8,
    /// The position of the next row.
    start: Start,
    /// A buffer of bytes read ahead. The bytes from `used` on begin at `start`.
    ahead: Vec<u8>,
    used: usize,
    fields: Fields,
}

impl<R: Read> Rows<R> {
    fn new(input: R, delimiter: u8, start: Start) -> Self {
        Self { input, delimiter, start, ahead: Vec::new(), used: 0, fields: Fields::default() }
    }

    /// Reads the next row into `fields`; none at the end of the table.
    fn next(&mut self) -> io::Result<Option<Row>> {
        self.skip_blank_lines()?;
        if self.peek(0)?.is_none() {
            return Ok(None);
        }
        let line = self.start.line;
        let fields = self.read_row()?;
        let line = fields.as_ref().err().map_or(line, |bad| bad.line);
        let Start { offset: end, line: next_line } = self.start;
        Ok(Some(Row { line, next_line, end, fields: fields.map_err(|bad| bad.why.to_owned()) }))
    }

    /// Reads one row and advances past it.
    fn read_row(&mut self) -> io::Result<Result<(), BadRow>> {
        self.fields.clear();
        let (mut at, mut within, mut line) = (0, Within::FieldStart, self.start.line);
        // The position where the last quote was opened; before the first quote, the beginning of the row.
        let mut quote = (0, line);
        let mut after_return = false;
        let why = loop {
            let byte = self.peek(at)?;
            match (within, byte) {
                (Within::Quotes, None) => break NOT_CLOSED,
                _ if at as u64 >= RECORD_BYTES_MAX => {
                    break if within == Within::Quotes { NOT_CLOSED_SOON } else { TOO_LONG };
                }
                (Within::Quotes, Some(b'"')) => within = Within::AfterQuote,
                (Within::Quotes, Some(byte)) => {
                    self.fields.bytes.push(byte);
                    line += u64::from(byte == b'\r' || (byte == b'\n' && !after_return));
                    after_return = byte == b'\r';
                }
                (Within::AfterQuote, Some(b'"')) => {
                    self.fields.bytes.push(b'"');
                    (within, after_return) = (Within::Quotes, false);
                }
                (_, None | Some(b'\r' | b'\n')) => {
                    self.fields.end_field();
                    self.advance(at);
                    self.start.line = line;
                    self.end_line()?;
                    return Ok(Ok(()));
                }
                (_, Some(byte)) if byte == self.delimiter => {
                    self.fields.end_field();
                    within = Within::FieldStart;
                }
                (Within::FieldStart, Some(b'"')) => (within, quote, after_return) = (Within::Quotes, (at, line), false),
                (Within::AfterQuote, Some(_)) => break AFTER_QUOTE,
                (Within::FieldStart | Within::Plain, Some(byte)) => {
                    self.fields.bytes.push(byte);
                    within = Within::Plain;
                }
            }
            at += 1;
        };
        let (at, line) = quote;
        self.advance(at);
        self.start.line = line;
        self.end_line()?;
        Ok(Err(BadRow { line, why }))
    }

    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        for (at, &byte) in BYTE_ORDER_MARK.as_bytes().iter().enumerate() {
            if self.peek(at)? != Some(byte) {
                return Ok(());
            }
        }
        self.advance(BYTE_ORDER_MARK.len());
        Ok(())
    }

    fn skip_blank_lines(&mut self) -> io::Result<()> {
        while matches!(self.peek(0)?, Some(b'\r' | b'\n')) {
            self.end_line()?;
        }
        Ok(())
    }

    /// Advances past the end of the line.
    fn end_line(&mut self) -> io::Result<()> {
        while let Some(byte) = self.peek(0)? {
            self.advance(1);
            if byte == b'\r' && self.peek(0)? == Some(b'\n') {
                self.advance(1);
            }
            if byte == b'\r' || byte == b'\n' {
                self.start.line += 1;
                break;
            }
        }
        Ok(())
    }

    fn advance(&mut self, count: usize) {
        self.used += count;
        self.start.offset += count as u64;
    }

    /// The byte at this distance ahead; none after the last one.
    fn peek(&mut self, at: usize) -> io::Result<Option<u8>> {
        while self.ahead.len() - self.used <= at {
            self.ahead.drain(..std::mem::take(&mut self.used));
            let read = self.ahead.len();
            self.ahead.resize(read + READ_BYTES, 0);
            let count = self.input.read(&mut self.ahead[read..]);
            self.ahead.truncate(read + count.as_ref().copied().unwrap_or(0));
            match count {
                Ok(0) => return Ok(None),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(Some(self.ahead[self.used + at]))
    }
}

/// Why a row is invalid, and the line with the error.
struct BadRow {
    line: u64,
    why: &'static str,
}

const NOT_CLOSED: &str = "a quote is not closed";
const NOT_CLOSED_SOON: &str = "a quote is not closed within 16 MiB";
const AFTER_QUOTE: &str = "text after a closing quote: write a quote inside a quoted field as \"\"";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(text: &[u8], shape: &Shape) -> Result<Vec<Item>, TableError> {
        let header = Header::read(text, b',', shape)?;
        let start = header.end;
        Ok(from(text, shape, header, start))
    }

    fn from(text: &[u8], shape: &Shape, header: Header, start: Start) -> Vec<Item> {
        let mut table = Table::new(&text[start.offset as usize..], b',', shape.clone(), header, start);
        std::iter::from_fn(|| table.next().unwrap()).collect()
    }

    #[test]
    fn each_row_is_an_object_and_a_column_of_it_is_the_key() {
        let text = "\u{feff}id,\"na\"\"me\"\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n2,5\" disk\r\n";
        let found = items(text.as_bytes(), &Shape::of("id", None)).unwrap();
        let records: Vec<_> = found.iter().map(|item| item.record.clone().unwrap()).collect();
        assert_eq!(records[0].value, r#"{"id":"1","na\"me":"a, \"b\"\nc"}"#);
        assert_eq!(records[1].value, r#"{"id":"2","na\"me":"5\" disk"}"#);
        assert_eq!((records[1].key.as_ref(), &*records[1].content_type), (&b"2"[..], JSON));
        assert_eq!(found.iter().map(|item| item.line).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(found.iter().map(|item| item.next_line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(found[1].end, text.len() as u64);
    }

    #[test]
    fn a_single_column_can_be_the_value() {
        let found = items(b"k,v\na,\xc3\xa9\n", &Shape::of("k", Some("v"))).unwrap();
        let record = found[0].record.as_ref().unwrap();
        assert_eq!((&record.value[..], &*record.content_type), ("é".as_bytes(), TEXT));
    }

    #[test]
    fn a_bad_row_is_reported_and_the_next_row_is_read() {
        let long_key = format!("{},1", "x".repeat(4_097));
        for (bad, why) in [
            (&b"a"[..], "1 fields, but 2 columns"),
            (b"a,1,2", "3 fields, but 2 columns"),
            (b"\"a\"b,1", "text after a closing quote"),
            (b",1", "the key is 0 bytes long"),
            (long_key.as_bytes(), "the key is 4097 bytes long"),
            (b"a,\xff", "the field \"v\" is not UTF-8"),
        ] {
            let found = items(&[b"k,v\n", bad, b"\ngood,1\n"].concat(), &Shape::of("k", None)).unwrap();
            let said = found[0].record.as_ref().unwrap_err();
            assert!(said.contains(why), "{said}");
            assert_eq!(found[1].record.as_ref().unwrap().key, "good");
            assert_eq!(found[1].line, 3);
        }
    }

    #[test]
    fn an_unclosed_quote_loses_only_the_line_it_is_on() {
        for (text, bad_line, good) in [
            (&b"k,v\na,\"1\nb,2\nc,3\n"[..], 2, &["b", "c"][..]),
            (b"k,v\r\na,1\r\nb,\"2\r\nc,3", 3, &["a", "c"]),
            // The next quote closes it at a position where no closing quote is valid.
            (b"k,v\na,\"1\nb,\"2\"\nc,3\n", 2, &["b", "c"]),
            // Only the line of the row's last quote has the error.
            (b"k,v\n\"a\nb\",\"1\nc,3\n", 3, &["c"]),
            (b"k,v\ra,\"1\rb,2\r", 2, &["b"]),
        ] {
            let (bad, read): (Vec<_>, Vec<_>) =
                items(text, &Shape::of("k", None)).unwrap().into_iter().partition(|item| item.record.is_err());
            assert_eq!(bad.iter().map(|item| item.line).collect::<Vec<_>>(), [bad_line]);
            let keys: Vec<_> = read.into_iter().map(|item| item.record.unwrap().key).collect();
            assert_eq!(keys, good);
        }
    }

    #[test]
    fn a_bad_header_is_reported() {
        for (text, why) in [
            (&b""[..], "no header"),
            (b"\n\n", "no header"),
            (b"a,b\n1,2\n", "no column \"k\": the header has a, b"),
            (b"k,a,a\n", "names the column \"a\" twice"),
            (b"k,\"a\n1,2\n", "a quote is not closed"),
            (b"k,\xff\n", "not UTF-8"),
        ] {
            let said = items(text, &Shape::of("k", None)).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_row_that_is_too_long_takes_bounded_memory_and_the_next_row_is_read() {
        let shape = Shape::of("k", None);
        let header = Header::read(&b"k\n"[..], b',', &shape).unwrap();
        for (begin, why) in [(&b"\""[..], NOT_CLOSED_SOON), (b"x", TOO_LONG)] {
            let input = begin.chain(io::repeat(b'x').take(3 * RECORD_BYTES_MAX)).chain(&b"\ngood\n"[..]);
            let mut table = Table::new(input, b',', shape.clone(), header.clone(), Start { offset: 2, line: 2 });
            let bad = table.next().unwrap().unwrap();
            assert_eq!((bad.line, bad.record), (2, Err(why.to_owned())));
            let good = table.next().unwrap().unwrap();
            assert_eq!((good.line, good.record.unwrap().key), (3, "good".into()));
            assert!(table.rows.ahead.capacity() as u64 <= 3 * RECORD_BYTES_MAX);
        }
    }

    #[test]
    fn the_buffer_of_a_long_table_is_freed_as_it_is_read() {
        let shape = Shape::of("k", None);
        let header = Header::read(&b"k\n"[..], b',', &shape).unwrap();
        let text = "0123456789\n".repeat(400_000);
        let mut table = Table::new(text.as_bytes(), b',', shape, header, Start::FILE);
        let mut count = 0;
        while let Some(item) = table.next().unwrap() {
            count += 1;
            assert_eq!((item.line, item.end), (count, count * 11));
        }
        assert_eq!(count, 400_000);
        assert!(table.rows.ahead.capacity() <= 4 * READ_BYTES);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_the_end_and_resumed_at_any_item(
            text in proptest::collection::vec(
                prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..200),
        ) {
            let shape = Shape::of("k", None);
            let text = [b"k,v\n", &text[..]].concat();
            let header = Header::read(&text[..], b',', &shape).unwrap();
            let all = items(&text, &shape).unwrap();
            for (number, item) in all.iter().enumerate() {
                let rest = from(&text, &shape, header.clone(), Start { offset: item.end, line: item.next_line });
                let ends = |items: &[Item]| items.iter().map(|item| (item.end, item.record.clone())).collect::<Vec<_>>();
                prop_assert_eq!(ends(&rest), ends(&all[number + 1..]));
            }
            let end = all.last().map_or(header.end.offset, |item| item.end) as usize;
            prop_assert!(text[end..].iter().all(|byte| b"\r\n".contains(byte)));
        }

        #[test]
        fn tables_from_a_csv_writer_are_read_back(rows in proptest::collection::vec(("\\PC{1,20}", "[\\PC\n\"]*"), 1..20)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["k", "v"]).unwrap();
            for (key, value) in &rows {
                writer.write_record([key, value]).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let found = items(&text, &Shape::of("k", Some("v"))).unwrap();
            prop_assert_eq!(found.len(), rows.len());
            for (item, (key, value)) in found.into_iter().zip(&rows) {
                let record = item.record.unwrap();
                prop_assert_eq!((&record.key[..], &record.value[..]), (key.as_bytes(), value.as_bytes()));
            }
        }
    }
}
