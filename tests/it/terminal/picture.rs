//! A screen as an SVG, for the README.

use std::fs;
use std::path::Path;

use crate::support::{Cell, Look, Screen};

const COLUMN: f64 = 8.4;
const ROW: f64 = 19.0;
const MARGIN: f64 = 16.0;
/// The eight colours of a terminal.
const COLOURS: [&str; 8] = ["#15141a", "#ff7b78", "#56d6ae", "#f0b95a", "#8fa8ff", "#d59bff", "#6fd3e8", "#eceaf2"];
const GROUND: &str = "#15141a";
const INK: &str = "#eceaf2";
const DIM: &str = "#8d8a99";

/// Compares the file with the picture of a screen, below a command.
#[track_caller]
pub(super) fn check(file: &str, command: &str, columns: u16, screen: &Screen) {
    let svg = svg(command, columns, screen);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &svg).expect("a picture");
    }
    let drawn = fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == svg, "{file} is not the picture of tests/golden/terminal/readme.ansi; UPDATE_GOLDEN=1 draws it");
}

fn svg(command: &str, columns: u16, screen: &Screen) -> String {
    let cell = |text: String| Cell { text, look: Look { is_bold: true, ..Look::default() }, columns: 1 };
    let first = format!("$ {command}").chars().map(|c| cell(c.to_string())).collect::<Vec<_>>();
    let rows: Vec<&[Cell]> = [first.as_slice()].into_iter().chain(screen.rows.iter().map(Vec::as_slice)).collect();
    let (width, height) = (2.0 * MARGIN + COLUMN * f64::from(columns), 2.0 * MARGIN + ROW * rows.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"10\" fill=\"{GROUND}\"/>\n"
    );
    for (index, row) in rows.iter().enumerate() {
        draw_row(&mut svg, MARGIN + ROW * index as f64, row);
    }
    svg + "</svg>\n"
}

/// Draws runs of characters that look the same. Bars are rectangles, so that no font leaves gaps.
fn draw_row(svg: &mut String, y: f64, row: &[Cell]) {
    let (mut x, mut at) = (MARGIN, 0);
    while at < row.len() {
        let block = |cell: &Cell| match cell.text.as_str() {
            "█" => Some((0.0, 1.0)),
            "▌" => Some((0.0, 0.5)),
            "▐" => Some((0.5, 0.5)),
            _ => None,
        };
        if let Some((from, part)) = block(&row[at]) {
            let (x0, w) = (x + from * COLUMN, part * COLUMN);
            let fill = fill(row[at].look);
            svg.push_str(&format!(
                "<rect x=\"{x0:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"11\" fill=\"{fill}\"/>\n",
                y + 4.0
            ));
            (x, at) = (x + COLUMN, at + 1);
            continue;
        }
        let run: Vec<&Cell> =
            row[at..].iter().take_while(|cell| cell.look == row[at].look && block(cell).is_none()).collect();
        let columns: usize = run.iter().map(|cell| cell.columns).sum();
        let text: String = run.iter().map(|cell| cell.text.as_str()).collect();
        let width = columns as f64 * COLUMN;
        if !text.trim().is_empty() {
            let weight = if row[at].look.is_bold { " font-weight=\"700\"" } else { "" };
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            svg.push_str(&format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" fill=\"{}\"{weight} xml:space=\"preserve\">{text}</text>\n",
                y + 14.0,
                fill(row[at].look)
            ));
        }
        (x, at) = (x + width, at + run.len());
    }
}

fn fill(look: Look) -> &'static str {
    match (look.colour, look.is_dim) {
        (Some(colour), _) => COLOURS[usize::from(colour) % COLOURS.len()],
        (None, true) => DIM,
        (None, false) => INK,
    }
}
