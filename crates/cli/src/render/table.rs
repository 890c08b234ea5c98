//! Tables and short forms of numbers. Without colour, so that a table can be piped.

pub(crate) use watch::{bytes, clock, millions, thousands};

/// Aligns rows in columns. `right` lists the columns that are aligned to the right.
pub(crate) fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - width(cell));
            if column > 0 {
                line += "   ";
            }
            if right.contains(&column) {
                line += &padding;
                line += cell;
            } else {
                line += cell;
                line += &padding;
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// A number with its noun, in the plural unless the number is 1.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_characters_not_bytes() {
        let rows = vec![vec!["é".into(), "1".into()], vec!["ab".into(), "22".into()]];
        assert_eq!(columns(&rows, &[1]), "é     1\nab   22\n");
    }
}
