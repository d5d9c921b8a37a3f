//! Tables for people: a header, and columns as wide as what is in them.

use anyhow::Result;

use crate::print::{self, one_line};

/// Most characters of a cell, but for the last column.
const CELL_CHARACTERS_MAX: usize = 60;

/// Rows under a header.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|name| (*name).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell).into_owned()).collect());
    }

    /// Prints it, if it has a row; else `nothing`, for people.
    pub(crate) fn print(&self, nothing: &str) -> Result<()> {
        if self.rows.len() == 1 {
            print::note(nothing);
            return Ok(());
        }
        self.lines().into_iter().try_for_each(print::line)
    }

    fn lines(&self) -> Vec<String> {
        let cut = |cell: &String| cell.chars().count().min(CELL_CHARACTERS_MAX);
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(cut).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
                if at + 1 == columns {
                    return cell.clone();
                }
                let text: String = cell.chars().take(CELL_CHARACTERS_MAX).collect();
                format!("{text:<width$}")
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_are_one_line() {
        let mut table = Table::new(&["ID", "REASON"]);
        table.row(["1".into(), "two\nlines".into()]);
        table.row(["1000".into(), String::new()]);
        assert_eq!(table.lines(), ["ID    REASON", "1     two lines", "1000"]);
    }
}
