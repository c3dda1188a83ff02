//! `serve`: questions by line from standard input, answers as lines of JSON.
//!
//! Owns the protocol that `benches/README.md` describes, and the loop for profilers.

use std::io::Write;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::questions::{Question, Subject};
use crate::stores::{open, open_alone, prepare};

/// Answers until the end of the input.
pub(crate) fn serve(dir: &Path, rows: usize) {
    let asked = prepare(dir, rows);
    let (subject, _stores) = open(dir, &asked);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let id = line.trim();
        if id.is_empty() {
            continue;
        }
        writeln!(out, "{}", answer(&subject, id)).unwrap();
        out.flush().unwrap();
    }
}

fn answer(subject: &Subject, id: &str) -> Json {
    let Some(question) = Question::named(id) else {
        return json!({"q": id, "error": "no such question"});
    };
    let (took, reply) = question.timed(subject);
    json!({"q": id, "ms": took.as_secs_f64() * 1e3, "answer": reply.canonical()})
}

/// Asks one question many times and nothing else.
pub(crate) fn repeat(dir: &Path, rows: usize, question: &Question, times: usize) {
    let asked = prepare(dir, rows);
    let (subject, _stores) = open_alone(dir, &asked);
    let mut took: Vec<_> = (0..times).map(|_| question.timed(&subject).0).collect();
    took.sort_unstable();
    println!(
        "{}: {times} times, min {:.4} ms, median {:.4} ms",
        question.id,
        took[0].as_secs_f64() * 1e3,
        took[times / 2].as_secs_f64() * 1e3
    );
}
