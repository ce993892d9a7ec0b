//! Tables of text.

use comfy_table::{CellAlignment, Row, Table, presets};

/// The space between columns.
const GAP: u16 = 2;

/// Formats a table. Each column is as wide as its widest cell.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    text(columns(header, rows))
}

/// Formats a table with numbers in all columns but the first. Numbers are aligned on the right.
pub fn table_of_numbers<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = columns(header, rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    text(table)
}

/// Formats a table whose columns are known only at run time. Each row has as many cells as the header.
pub fn table_of(header: Vec<&str>, rows: Vec<Vec<String>>) -> String {
    text(columns(header, rows))
}

fn columns(header: impl Into<Row>, rows: impl IntoIterator<Item: Into<Row>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

fn text(table: Table) -> String {
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bcd"], ["long", ""], ["é日本", "x y"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(["X", "Y"], rows), "X      Y\na      bcd\nlong\né日本  x y\n");
        let rows = [["a", "1"], ["long", "1000.5"]].map(|row| row.map(str::to_owned));
        assert_eq!(table_of_numbers(["X", "MS"], rows), "X         MS\na          1\nlong  1000.5\n");
    }
}
