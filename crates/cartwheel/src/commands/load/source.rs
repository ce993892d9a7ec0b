//! The source of records: a file or standard input, in any format.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use super::jsonl::JsonLines;
use super::record::{Item, Shape, Start};
use super::table::{Header, Table, TableError};
use super::{FileFormat, LoadError};

type Input = BufReader<Box<dyn Read + Send>>;

pub(super) enum Source {
    Lines(JsonLines<Input>),
    Table(Box<Table<Input>>),
}

impl Source {
    /// The records of the file `path` from `start` on; without `start`, from the beginning.
    pub(super) fn open(path: &Path, format: FileFormat, shape: Shape, start: Option<Start>) -> Result<Self, LoadError> {
        let cannot_read = |error| LoadError::Read(path.to_path_buf(), error);
        let mut file = File::open(path).map_err(cannot_read)?;
        let header = match delimiter(format) {
            None => None,
            Some(delimiter) => {
                let header = Header::read(BufReader::new(&file), delimiter, &shape);
                Some(header.map_err(|error| table_error(path, error))?)
            }
        };
        let start = start.unwrap_or(header.as_ref().map_or(Start::FILE, |header| header.end));
        file.seek(SeekFrom::Start(start.offset)).map_err(cannot_read)?;
        Ok(Self::new(Box::new(file), format, shape, header, start))
    }

    /// The records of standard input.
    pub(super) fn stdin(format: FileFormat, shape: Shape) -> Result<Self, LoadError> {
        let mut input = io::stdin();
        let Some(delimiter) = delimiter(format) else {
            return Ok(Self::new(Box::new(input), format, shape, None, Start::FILE));
        };
        // The header's reader reads ahead. These bytes are kept, since standard input cannot be read again.
        let mut kept = Keep { input: &mut input, kept: Vec::new() };
        let header = Header::read(&mut kept, delimiter, &shape).map_err(|error| table_error(Path::new("-"), error))?;
        let rest = kept.kept.split_off(header.end.offset as usize);
        let start = header.end;
        Ok(Self::new(Box::new(io::Cursor::new(rest).chain(input)), format, shape, Some(header), start))
    }

    fn new(
        input: Box<dyn Read + Send>,
        format: FileFormat,
        shape: Shape,
        header: Option<Header>,
        start: Start,
    ) -> Self {
        let input = BufReader::new(input);
        match header.zip(delimiter(format)) {
            None => Self::Lines(JsonLines::new(input, shape, start)),
            Some((header, delimiter)) => Self::Table(Box::new(Table::new(input, delimiter, shape, header, start))),
        }
    }

    /// The next record; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Table(table) => table.next(),
        }
    }
}

fn delimiter(format: FileFormat) -> Option<u8> {
    match format {
        FileFormat::Jsonl | FileFormat::Export => None,
        FileFormat::Csv => Some(b','),
        FileFormat::Tsv => Some(b'\t'),
    }
}

fn table_error(path: &Path, error: TableError) -> LoadError {
    match error {
        TableError::Io(error) => LoadError::Read(path.to_path_buf(), error),
        other => LoadError::Table(path.to_path_buf(), other.to_string()),
    }
}

/// A reader that keeps a copy of everything read.
struct Keep<'a> {
    input: &'a mut io::Stdin,
    kept: Vec<u8>,
}

impl Read for Keep<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}
