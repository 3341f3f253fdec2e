//! The table of sessions at the end.

use crate::features::collector::SessionRecord;

use super::prelude::*;
use super::text;

/// Gaps of one session that are named.
const MAX_GAPS: usize = 8;

/// One line for each run of each session.
pub(super) fn table(sessions: &[impl AsRef<SessionRecord>]) -> String {
    let header = ["session", "events", "gaps", "duplicates", "errors", "ended"].map(str::to_owned);
    let rows: Vec<_> = [header]
        .into_iter()
        .chain(sessions.iter().map(|session| row(session.as_ref())))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..6)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let lines: Vec<_> = rows.iter().map(|row| aligned(row, &widths)).collect();
    lines.join("\n")
}

fn row(session: &SessionRecord) -> [String; 6] {
    let ended = if session.has_ended() { "yes" } else { "no" };
    let id = text::name(session.id(), false);
    let errors = session.events().iter();
    let errors = errors.filter(|event| matches!(event.severity(), "ERROR" | "CRITICAL"));
    [
        match session.run() {
            1 => id,
            run => format!("{id}#{run}"),
        },
        session.len().to_string(),
        gaps(session),
        session.duplicates().to_string(),
        errors.count().to_string(),
        ended.to_owned(),
    ]
}

/// The missing indices, `3-5,9`, or `-`.
fn gaps(session: &SessionRecord) -> String {
    let gaps = session.gaps();
    let mut ranges: Vec<_> = gaps
        .iter()
        .take(MAX_GAPS)
        .map(|gap| match (gap.start(), gap.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    if gaps.len() > MAX_GAPS {
        ranges.push(format!("… ({} gaps)", gaps.len()));
    }
    if ranges.is_empty() {
        "-".to_owned()
    } else {
        ranges.join(",")
    }
}

fn aligned(row: &[String; 6], widths: &[usize]) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .map(|(cell, &width)| format!("{cell:width$}"))
        .collect();
    cells.join("  ").trim_end().to_owned()
}
