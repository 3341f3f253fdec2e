//! `ls` and `cat`: what a spool's directory holds. Both only read, and print nothing raw.

use alloc::collections::BTreeMap;
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::json;

use crate::features::collector::EventRecord;
use crate::features::spool::look::{Found, Look, Reader, State, Tally};

use super::args::{CatArgs, LsArgs};
use super::line::{self, Style};
use super::prelude::*;
use super::{Failure, Outcome, output, text};

/// What one process has of one session.
#[derive(Default)]
struct Row {
    tally: Tally,
    segments: u64,
}

/// Folder, session and destination; those without a head have no session.
type Key = (String, State, Option<String>, Option<u64>);

pub(super) fn ls(options: &LsArgs) -> Outcome {
    let look = look(&options.directory)?;
    let mut rows: Vec<(Key, Row)> = Vec::new();
    let mut problems = strange(&look);
    for folder in &look.folders {
        let mut of_folder = BTreeMap::<_, Row>::new();
        for segment in &folder.segments {
            let read = Reader::open(segment).and_then(|mut reader| {
                let tally = reader.tally(segment)?;
                Ok((reader.whose, tally))
            });
            match read {
                Ok((whose, tally)) => {
                    let (session, to) = whose.map(|whose| (whose.session, whose.to.bits())).unzip();
                    let row = of_folder.entry((session, to)).or_default();
                    add(&mut row.tally, tally);
                    row.segments += 1;
                }
                Err(error) => problems.push(format!("{}: {error}", segment.path.display())),
            }
        }
        rows.extend(
            of_folder.into_iter().map(|((session, to), row)| {
                ((folder.name.clone(), folder.state, session, to), row)
            }),
        );
    }
    let lines = match options.json {
        true => rows.iter().map(|(key, row)| json_row(key, row)).collect(),
        false => table(&rows),
    };
    let damaged: u64 = rows.iter().map(|(_, row)| row.tally.damaged).sum();
    print(lines)?;
    for problem in &problems {
        output::say(&text::visible(problem));
    }
    match damaged == 0 && problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::Code(1)),
    }
}

pub(super) fn cat(options: &CatArgs) -> Outcome {
    let look = look(&options.directory)?;
    let style = Style {
        full: options.print.full,
        colours: output::has_colours(&io::stdout()) && !options.print.json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut damaged, mut problems) = (0_u64, strange(&look));
    let mut result = Ok(());
    let segments = look.folders.iter().flat_map(|folder| &folder.segments);
    for segment in segments {
        let read = Reader::open(segment).and_then(|mut reader| {
            damaged += reader.tally(segment)?.damaged;
            let session = reader.whose.as_ref().map(|whose| whose.session.clone());
            let is_other = options.session.is_some() && options.session != session;
            let session = session.unwrap_or_else(|| "?".to_owned());
            reader.read(|found| {
                let Found::Event { json, .. } = found else {
                    return true;
                };
                if is_other {
                    return false;
                }
                // Intact, and yet none of this crate's: a checksum is no signature.
                let Some(event) = EventRecord::read(json) else {
                    damaged += 1;
                    return true;
                };
                let line = match options.print.json {
                    true => json_line(&session, &event),
                    false => line::event_lines(&session, 1, &event, style),
                };
                result = writeln!(out, "{line}");
                result.is_ok()
            })
        });
        if let Err(error) = read {
            problems.push(format!("{}: {error}", segment.path.display()));
        }
        // The reader has gone.
        if result.is_err() {
            return Ok(());
        }
    }
    if out.flush().is_err() {
        return Ok(());
    }
    if damaged > 0 {
        problems.push(format!(
            "{} {} damaged and {} left out",
            text::count(damaged, "event"),
            text::is_or_are(damaged),
            text::was_or_were(damaged)
        ));
    }
    for problem in &problems {
        output::say(&text::visible(problem));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::Code(1)),
    }
}

fn look(directory: &Path) -> Result<Look, Failure> {
    Look::new(directory).map_err(|error| {
        Failure::Failed(format!(
            "cannot read the directory {}: {error}",
            directory.display()
        ))
    })
}

fn strange(look: &Look) -> Vec<String> {
    let strange = look.strange.iter();
    strange
        .map(|(path, what)| format!("{} {what}", path.display()))
        .collect()
}

fn add(sum: &mut Tally, other: Tally) {
    sum.events += other.events;
    sum.settled += other.settled;
    sum.damaged += other.damaged;
    sum.bytes += other.bytes;
    sum.is_torn |= other.is_torn;
}

/// The events of a row that are still to be sent.
const fn pending(tally: &Tally) -> u64 {
    tally.events - tally.settled
}

fn state(state: State) -> &'static str {
    match state {
        State::Alive => "alive",
        State::Ended => "ended",
        State::Rejected => "rejected",
    }
}

/// The first digits of a destination's hash: enough to tell two of them apart.
fn destination(to: Option<u64>) -> String {
    match to {
        Some(0) => "any".to_owned(),
        Some(to) => format!("{:08x}", to >> 32),
        None => "-".to_owned(),
    }
}

fn json_row((folder, of, session, to): &Key, row: &Row) -> String {
    let Row { tally, segments } = row;
    let row = json!({
        "folder": folder, "state": state(*of), "session": session, "to": destination(*to), "segments": segments,
        "events": tally.events, "to_send": pending(tally), "settled": tally.settled, "damaged": tally.damaged,
        "is_torn": tally.is_torn, "bytes": tally.bytes,
    });
    ascii(&row.to_string())
}

/// A line for each row, with columns as wide as need be, and the sums.
fn table(rows: &[(Key, Row)]) -> Vec<String> {
    let header = [
        "folder", "state", "session", "to", "events", "to send", "settled", "damaged", "bytes",
    ];
    let mut sum = Tally::default();
    let mut cells = Vec::from([header.map(str::to_owned)]);
    for ((folder, of, session, to), Row { tally, .. }) in rows {
        add(&mut sum, *tally);
        cells.push([
            text::name(folder, false),
            state(*of).to_owned(),
            session
                .as_deref()
                .map_or("-".to_owned(), |session| text::name(session, false)),
            destination(*to),
            tally.events.to_string(),
            pending(tally).to_string(),
            tally.settled.to_string(),
            tally.damaged.to_string(),
            tally.bytes.to_string(),
        ]);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..header.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let aligned = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths).enumerate();
        // Numbers to the right.
        let cells: Vec<_> = cells
            .map(|(column, (cell, &width))| match column {
                0..=3 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<_> = cells.iter().map(aligned).collect();
    lines.push(format!(
        "{}, {} to send, {} settled, {} damaged",
        text::count(sum.events, "event"),
        pending(&sum),
        sum.settled,
        sum.damaged
    ));
    lines
}

fn print(lines: Vec<String>) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

fn json_line(session: &str, event: &EventRecord) -> String {
    let session = serde_json::Value::from(session);
    ascii(&format!(
        r#"{{"session":{session},"event":{}}}"#,
        text::compact(event.json())
    ))
}

/// JSON that says the same in ASCII, so that no terminal takes anything in it for more than text.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for char in json.chars() {
        if char == '\u{7f}' || !char.is_ascii() {
            let mut units = [0; 2];
            // Characters like these are in texts alone.
            for unit in char.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            ascii.push(char);
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_ascii_and_says_the_same() {
        let json = "{\"session\":\"a\u{202e}b\u{7f}\",\"e\":\"é\u{1f980}\"}";
        let ascii = ascii(json);
        assert!(ascii.is_ascii(), "{ascii}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert_eq!(read(&ascii), read(json));
    }
}
