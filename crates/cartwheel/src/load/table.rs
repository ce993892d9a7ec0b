//! CSV and its like.

use std::io::{self, Read};

use bytes::Bytes;
use csv::{ByteRecord, Reader, ReaderBuilder};
use serde::Serializer as _;

use super::record::{Item, RECORD_BYTES_MAX, Record, Shape, Start, TOO_LONG};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// How much that was parsed may be kept before it is let go.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a table as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("there is no header: the first line must name the columns")]
    NoHeader,
    #[error("the header {0}")]
    BadHeader(String),
    #[error("there is no column {name:?}: the header has {columns}")]
    NoColumn { name: String, columns: String },
}

/// The first line of a table.
#[derive(Clone, Debug)]
pub(super) struct Header {
    columns: Vec<String>,
    key: usize,
    value: Option<usize>,
    /// Where the records begin.
    pub(super) end: Start,
}

/// The records of a table.
pub(super) struct Table<R> {
    rows: Rows<R>,
    shape: Shape,
    header: Header,
}

impl Header {
    /// Reads the header of the table that `input` begins with.
    pub(super) fn read<R: Read>(input: R, delimiter: u8, shape: &Shape) -> Result<Self, TableError> {
        let mut rows = Rows::new(input, delimiter, Start::FILE);
        let row = rows.next()?.ok_or(TableError::NoHeader)?;
        row.fields.as_ref().map_err(|why| TableError::BadHeader(format!("cannot be read: {why}")))?;
        let texts = rows.record.iter().map(|field| std::str::from_utf8(field).map(str::to_owned));
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
        let (row, header) = (&self.rows.record, &self.header);
        if row.len() != header.columns.len() {
            let columns = header.columns.len();
            return Err(format!("there are {} fields, and {columns} columns in the header", row.len()));
        }
        let text = |at: usize| {
            std::str::from_utf8(&row[at]).map_err(|_| format!("the field {:?} is not UTF-8", header.columns[at]))
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

/// A row's place, and what is wrong with its quotes if anything is.
struct Row {
    line: u64,
    next_line: u64,
    end: u64,
    fields: Result<(), String>,
}

struct Rows<R> {
    reader: Reader<Window<R>>,
    record: ByteRecord,
    delimiter: u8,
    start: Start,
}

impl<R: Read> Rows<R> {
    fn new(input: R, delimiter: u8, start: Start) -> Self {
        let window = Window { input, kept: Vec::new(), from: 0, read_to: RECORD_BYTES_MAX };
        let reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(window);
        Self { reader, record: ByteRecord::new(), delimiter, start }
    }

    fn next(&mut self) -> io::Result<Option<Row>> {
        let begun = self.reader.position().clone();
        self.reader.get_mut().begin(begun.byte());
        let more = self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })?;
        if !more {
            return Ok(None);
        }
        let ended = self.reader.position();
        let raw = self.reader.get_ref().between(begun.byte(), ended.byte());
        // Blank lines before the record are taken along with it.
        let blank = raw.iter().take_while(|&&byte| byte == b'\n' || byte == b'\r');
        let blank_lines = blank.filter(|&&byte| byte == b'\n').count() as u64;
        Ok(Some(Row {
            line: self.start.line + begun.line() - 1 + blank_lines,
            next_line: self.start.line + ended.line() - 1,
            end: self.start.offset + ended.byte(),
            fields: check_quotes(raw, self.delimiter),
        }))
    }
}

/// The parser takes whatever comes after a closing quote for a part of the field, and the end of the file for a closing quote;
/// but who wrote that meant something else.
fn check_quotes(raw: &[u8], delimiter: u8) -> Result<(), String> {
    let mut bytes = raw.iter().copied().peekable();
    let mut at_field_start = true;
    while let Some(byte) = bytes.next() {
        if byte != b'"' || !at_field_start {
            at_field_start = byte == delimiter || byte == b'\n' || byte == b'\r';
            continue;
        }
        loop {
            match (bytes.next(), bytes.peek()) {
                (None, _) => return Err("a quote is opened and not closed".to_owned()),
                (Some(b'"'), Some(b'"')) => drop(bytes.next()),
                (Some(b'"'), None | Some(b'\n' | b'\r')) => break,
                (Some(b'"'), Some(&next)) if next == delimiter => break,
                (Some(b'"'), Some(_)) => {
                    return Err("something follows a closing quote: write a quote within quotes as \"\"".to_owned());
                }
                (Some(_), _) => {}
            }
        }
        at_field_start = false;
    }
    Ok(())
}

/// Keeps what was read of the current record, and ends where that becomes too much: an open quote must not take in a whole file.
struct Window<R> {
    input: R,
    kept: Vec<u8>,
    /// Where `kept` begins, in bytes since the first that was read.
    from: u64,
    /// How far may be read.
    read_to: u64,
}

impl<R> Window<R> {
    /// A record begins at `offset`: nothing before it is needed any more.
    fn begin(&mut self, offset: u64) {
        self.read_to = offset + RECORD_BYTES_MAX;
        let before = (offset - self.from) as usize;
        if before > KEPT_BYTES_MAX {
            self.kept.drain(..before);
            self.from = offset;
        }
    }

    fn between(&self, begin: u64, end: u64) -> &[u8] {
        &self.kept[(begin - self.from) as usize..(end - self.from) as usize]
    }
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.from + self.kept.len() as u64 > self.read_to {
            return Err(io::Error::other(TOO_LONG));
        }
        let count = self.input.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

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
    fn a_row_is_an_object_and_a_column_its_key() {
        let text = "\u{feff}id,\"na\"\"me\"\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n2,5\" disk\r\n";
        let found = items(text.as_bytes(), &Shape::of("id", None)).unwrap();
        let records: Vec<_> = found.iter().map(|item| item.record.clone().unwrap()).collect();
        assert_eq!(records[0].value, r#"{"id":"1","na\"me":"a, \"b\"\nc"}"#);
        assert_eq!(records[1].value, r#"{"id":"2","na\"me":"5\" disk"}"#);
        assert_eq!((records[1].key.as_ref(), &*records[1].content_type), (&b"2"[..], JSON));
        assert_eq!(found.iter().map(|item| item.line).collect::<Vec<_>>(), [2, 5]);
        // The parser leaves the second half of a line end to the next row.
        assert_eq!(found[1].end, text.len() as u64 - 1);
    }

    #[test]
    fn one_column_as_the_value() {
        let found = items(b"k,v\na,\xc3\xa9\n", &Shape::of("k", Some("v"))).unwrap();
        let record = found[0].record.as_ref().unwrap();
        assert_eq!((&record.value[..], &*record.content_type), ("é".as_bytes(), TEXT));
    }

    #[test]
    fn what_is_wrong_with_a_row_is_said_and_the_next_is_read() {
        let long_key = format!("{},1", "x".repeat(4_097));
        for (bad, why) in [
            (&b"a"[..], "1 fields, and 2 columns"),
            (b"a,1,2", "3 fields, and 2 columns"),
            (b"\"a\"b,1", "something follows a closing quote"),
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
        let open = items(b"k,v\na,\"1\nb,2\n", &Shape::of("k", None)).unwrap();
        assert_eq!(open[0].record, Err("a quote is opened and not closed".to_owned()));
        assert_eq!(open.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_header_is_said() {
        for (text, why) in [
            (&b""[..], "no header"),
            (b"\n\n", "no header"),
            (b"a,b\n1,2\n", "no column \"k\": the header has a, b"),
            (b"k,a,a\n", "names the column \"a\" twice"),
            (b"k,\"a\n1,2\n", "a quote is opened"),
            (b"k,\xff\n", "not UTF-8"),
        ] {
            let said = items(text, &Shape::of("k", None)).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn an_open_quote_does_not_take_in_a_whole_file() {
        let shape = Shape::of("k", None);
        let header = Header::read(&b"k\n"[..], b',', &shape).unwrap();
        let input = (&b"\""[..]).chain(io::repeat(b'x'));
        let mut table = Table::new(input, b',', shape, header, Start::FILE);
        assert_eq!(table.next().unwrap_err().to_string(), TOO_LONG);
    }

    #[test]
    fn a_long_table_is_let_go_as_it_is_read() {
        let shape = Shape::of("k", None);
        let header = Header::read(&b"k\n"[..], b',', &shape).unwrap();
        let mut table = Table::new(io::repeat(b'\n').take(0), b',', shape.clone(), header.clone(), Start::FILE);
        assert_eq!(table.next().unwrap(), None);
        let text = "0123456789\n".repeat(400_000);
        let mut table = Table::new(text.as_bytes(), b',', shape, header, Start::FILE);
        let mut count = 0;
        while let Some(item) = table.next().unwrap() {
            count += 1;
            assert_eq!((item.line, item.end), (count, count * 11));
        }
        assert_eq!(count, 400_000);
        assert!(table.rows.reader.get_ref().kept.len() < 2 * KEPT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end_and_from_any_item_on(
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
        fn what_the_writer_writes_is_read_back(rows in proptest::collection::vec(("\\PC{1,20}", "[\\PC\n\"]*"), 1..20)) {
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
