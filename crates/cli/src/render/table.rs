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

/// Number of trained parameters, and of all if it differs: `0.87 M of 16.60 M parameters are trained`.
pub(crate) fn trained(n_trained: u64, n_parameters: u64) -> String {
    let all = millions(n_parameters);
    if n_trained == n_parameters {
        return format!("{all} parameters");
    }
    format!("{} of {all} parameters are trained", millions(n_trained))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_parameters_are_named_beside_all() {
        assert_eq!(trained(16_600_000, 16_600_000), "16.60 M parameters");
        assert_eq!(trained(870_000, 16_600_000), "870.0 k of 16.60 M parameters are trained");
    }

    #[test]
    fn columns_align_by_characters_not_bytes() {
        let rows = vec![vec!["é".into(), "1".into()], vec!["ab".into(), "22".into()]];
        assert_eq!(columns(&rows, &[1]), "é     1\nab   22\n");
    }
}
