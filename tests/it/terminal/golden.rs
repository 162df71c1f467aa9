//! Screens in `tests/golden/terminal`. They are real ones, so numbers, ids and bars differ each time.
//! These are masked before two screens are compared. `UPDATE_GOLDEN=1` rewrites a screen that is
//! different apart from them.

use std::fs;
use std::path::Path;

use crate::support::{Cell, Look, Screen};

/// Compares a screen with the golden one, and returns that.
#[track_caller]
pub(super) fn check(name: &str, columns: u16, screen: &Screen) -> Screen {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/terminal/{name}.ansi"));
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let golden = Screen::after(golden.replace('\n', "\r\n").as_bytes(), columns);
    if masked(&golden, columns) == masked(screen, columns) {
        return golden;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, screen.ansi()).expect("a golden file");
        return screen.clone();
    }
    panic!("{name} is not as in {}:\n{}\nUPDATE_GOLDEN=1 accepts:\n{}", path.display(), golden.ansi(), screen.ansi());
}

/// The rows, with the same characters for what differs each time.
fn masked(screen: &Screen, columns: u16) -> Vec<Vec<Cell>> {
    screen.rows.iter().map(|row| mask(row, columns)).collect()
}

fn mask(row: &[Cell], columns: u16) -> Vec<Cell> {
    let mut row = row.to_vec();
    let is = |cell: &Cell, test: &dyn Fn(char) -> bool| cell.text.chars().all(test);
    // A bar and a duration: `   ▐█▌      0.21 ms`.
    if let Some(end) = row.iter().rposition(|cell| ["█", "▌", "▐"].contains(&cell.text.as_str())) {
        let unit = row[end..].iter().position(|cell| cell.text == "s").map(|at| end + at + 1);
        let unit = unit.expect("a duration is behind a bar");
        let begin = unit - 8 - 1 - usize::from(columns / 8);
        row[begin..unit].fill(Cell { text: "#".to_owned(), look: Look::default(), columns: 1 });
    }
    // Ids: runs of hexadecimal digits, with or without hyphens.
    let mut at = 0;
    while at < row.len() {
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-');
        let length = row[at..].iter().take_while(|cell| is(cell, &is_hex)).count();
        let run = &mut row[at..at + length];
        let is_id = length >= 5 && run.iter().any(|cell| is(cell, &|c| c.is_ascii_digit()));
        for cell in run.iter_mut().filter(|cell| is_id || is(cell, &|c| c.is_ascii_digit())) {
            cell.text = "0".to_owned();
        }
        at += length.max(1);
    }
    row
}
