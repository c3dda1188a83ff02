//! One JSON document of everything: nested by swarm and agent, or a list for each table.
//!
//! Owns the shape, and which agent belongs to which swarm: the one that the request says,
//! else the one that the newest row of the agent with a `swarm_id` in its metadata names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::export::rows::{Objects, written_order};
use crate::export::text::{push_count, push_json_text};
use crate::export::{Export, Sink, of_owner, owner};
use crate::query::filter::{Filter, Percentile};
use crate::query::scan::coded;
use crate::schema::Table;
use crate::time::Timestamp;

/// Arrays and objects, with line breaks where they are wanted. A row is always on one line.
pub(super) struct Nesting {
    pretty: bool,
    depth: usize,
    is_first: bool,
}

impl Nesting {
    pub(super) fn new(pretty: bool) -> Self {
        Self { pretty, depth: 0, is_first: true }
    }

    /// Before an entry of an array.
    pub(super) fn entry(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_first, false) {
            out.push(b',');
        }
        self.break_line(out);
    }

    /// Before the value of a member of an object.
    pub(super) fn key(&mut self, out: &mut Vec<u8>, name: &str) {
        self.entry(out);
        push_json_text(out, name);
        out.extend_from_slice(if self.pretty { b": " } else { b":" });
    }

    pub(super) fn open(&mut self, out: &mut Vec<u8>, bracket: u8) {
        out.push(bracket);
        self.depth += 1;
        self.is_first = true;
    }

    pub(super) fn close(&mut self, out: &mut Vec<u8>, bracket: u8) {
        self.depth -= 1;
        if !self.is_first {
            self.break_line(out);
        }
        self.is_first = false;
        out.push(bracket);
    }

    fn break_line(&self, out: &mut Vec<u8>) {
        if self.pretty {
            out.push(b'\n');
            out.resize(out.len() + 2 * self.depth, b' ');
        }
    }
}

/// What a document says of itself.
#[derive(Serialize)]
struct Info<'a> {
    format: &'a str,
    structure: &'a str,
    exported_at: Option<Timestamp>,
    time_range: Range,
}

/// The first moment inside and the first after, where the export is bounded.
#[derive(Serialize)]
struct Range {
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// What of metadata says where an agent belongs.
#[derive(Deserialize)]
struct Belonging<'a> {
    #[serde(borrow, default)]
    swarm_id: Option<Cow<'a, str>>,
}

/// The tables whose rows are under their agent.
const OF_AGENTS: [(Table, &str); 2] = [(Table::Task, "tasks"), (Table::Agent, "metrics")];

impl Export<'_> {
    /// A list for each table.
    pub(super) fn flat_document(&mut self) -> Result<()> {
        let mut nesting = Nesting::new(self.request.pretty);
        self.begin_document(&mut nesting, "flat")?;
        let mut counts = [0; Table::ALL.len()];
        for table in self.tables.clone() {
            nesting.key(&mut self.sink.buffer, table.name());
            let filter = self.request.filter.clone();
            counts[table.index()] = self.write_list(&mut nesting, table, &filter)?;
        }
        self.end_document(&mut nesting, counts)
    }

    /// Swarms with their gauges and agents, and under each agent its tasks and gauges.
    pub(super) fn nested_document(&mut self) -> Result<()> {
        let mut nesting = Nesting::new(self.request.pretty);
        self.begin_document(&mut nesting, "nested")?;
        let mut counts = [0; Table::ALL.len()];
        let mut swarms: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
        for (agent, swarm) in self.belongings()? {
            swarms.entry(swarm).or_default().push(agent);
        }
        let ungrouped = swarms.remove(&None).unwrap_or_default();
        if self.tables.contains(&Table::Swarm) {
            for swarm in self.owners(Table::Swarm)? {
                swarms.entry(Some(swarm)).or_default();
            }
        }
        nesting.key(&mut self.sink.buffer, "swarms");
        nesting.open(&mut self.sink.buffer, b'[');
        for (swarm, agents) in swarms {
            let swarm = swarm.unwrap_or_default();
            let out = &mut self.sink.buffer;
            nesting.entry(out);
            nesting.open(out, b'{');
            nesting.key(out, "swarm_id");
            push_json_text(out, &swarm);
            if self.tables.contains(&Table::Swarm) {
                nesting.key(out, "metrics");
                let filter = of_owner(Table::Swarm, &self.filter(), &swarm);
                counts[Table::Swarm.index()] +=
                    self.write_list(&mut nesting, Table::Swarm, &filter)?;
            }
            self.agents(&mut nesting, &agents, &mut counts)?;
            nesting.close(&mut self.sink.buffer, b'}');
        }
        nesting.close(&mut self.sink.buffer, b']');
        nesting.key(&mut self.sink.buffer, "ungrouped");
        nesting.open(&mut self.sink.buffer, b'{');
        self.agents(&mut nesting, &ungrouped, &mut counts)?;
        nesting.close(&mut self.sink.buffer, b'}');
        self.end_document(&mut nesting, counts)
    }

    fn agents(
        &mut self,
        nesting: &mut Nesting,
        agents: &[String],
        counts: &mut [u64; 3],
    ) -> Result<()> {
        nesting.key(&mut self.sink.buffer, "agents");
        nesting.open(&mut self.sink.buffer, b'[');
        for agent in agents {
            let out = &mut self.sink.buffer;
            nesting.entry(out);
            nesting.open(out, b'{');
            nesting.key(out, "agent_id");
            push_json_text(out, agent);
            for (table, name) in OF_AGENTS {
                if self.tables.contains(&table) {
                    nesting.key(&mut self.sink.buffer, name);
                    let filter = of_owner(table, &self.filter(), agent);
                    counts[table.index()] += self.write_list(nesting, table, &filter)?;
                }
            }
            nesting.close(&mut self.sink.buffer, b'}');
            self.sink.settle()?;
        }
        nesting.close(&mut self.sink.buffer, b']');
        Ok(())
    }

    /// The rows of a filter as an array.
    fn write_list(&mut self, nesting: &mut Nesting, table: Table, filter: &Filter) -> Result<u64> {
        let columns = written_order(table);
        let rows = self.ordered(table, filter, columns)?;
        let mut objects = Objects::new(table, columns, &rows);
        nesting.open(&mut self.sink.buffer, b'[');
        let written = self.write_rows(table, rows, |sink: &mut Sink<'_>, columns, row| {
            nesting.entry(&mut sink.buffer);
            objects.push(&mut sink.buffer, columns, row);
        })?;
        nesting.close(&mut self.sink.buffer, b']');
        Ok(written)
    }

    /// What is known before a row is read: `export_info` and `summary`.
    fn begin_document(&mut self, nesting: &mut Nesting, structure: &str) -> Result<()> {
        let filter = &self.request.filter;
        let info = Info {
            format: "json",
            structure,
            exported_at: self.request.exported_at,
            time_range: Range { start: filter.from, end: filter.to },
        };
        let summary = if self.tables.contains(&Table::Task) {
            let answer = self.snapshot.summary_stats(Percentile::Exact, &self.figure_filter())?;
            self.note(Table::Task, answer.coverage);
            Some(answer.value)
        } else {
            None
        };
        let out = &mut self.sink.buffer;
        nesting.open(out, b'{');
        nesting.key(out, "export_info");
        push_value(out, &info);
        nesting.key(out, "summary");
        push_value(out, &summary);
        Ok(())
    }

    /// What is known when all is written: `record_counts`.
    fn end_document(&mut self, nesting: &mut Nesting, counts: [u64; 3]) -> Result<()> {
        let out = &mut self.sink.buffer;
        nesting.key(out, "record_counts");
        let mut before = b'{';
        for table in Table::ALL {
            out.push(before);
            push_json_text(out, table.name());
            out.push(b':');
            push_count(out, counts[table.index()]);
            before = b',';
        }
        out.push(b'}');
        nesting.close(out, b'}');
        out.push(b'\n');
        self.sink.settle()
    }

    /// The agents or swarms that have rows of a table.
    fn owners(&mut self, table: Table) -> Result<BTreeSet<String>> {
        let mut owners = BTreeSet::new();
        let mut columns = self.snapshot.columns(table, &self.filter(), Some(&[owner(table)]))?;
        for block in columns.by_ref() {
            let block = block?;
            let (codes, names) = coded(&block.columns[0])?;
            let mut seen = vec![false; names.len()];
            codes.iter().for_each(|code| seen[*code as usize] = true);
            let fresh =
                names.iter().zip(seen).filter(|(name, seen)| *seen && !owners.contains(*name));
            let fresh: Vec<String> = fresh.map(|(name, _)| name.to_owned()).collect();
            owners.extend(fresh);
        }
        if let Some(coverage) = columns.coverage().cloned() {
            self.note(table, coverage);
        }
        Ok(owners)
    }

    /// The agents that have rows, each with its swarm where it has one.
    fn belongings(&mut self) -> Result<BTreeMap<String, Option<String>>> {
        let mut agents: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
        for (table, _) in OF_AGENTS {
            if !self.tables.contains(&table) {
                continue;
            }
            agents.extend(self.owners(table)?.into_iter().map(|agent| (agent, None)));
            let names = ["timestamp", "agent_id", "metadata"];
            for block in self.snapshot.columns(table, &self.filter(), Some(&names))? {
                let block = block?;
                for row in block.rows() {
                    let Some(swarm) = row.text(2).and_then(swarm_in) else { continue };
                    let (Some(stamp), Some(agent)) = (row.int(0), row.text(1)) else { continue };
                    let found = (stamp, swarm.into_owned());
                    match newest.get_mut(agent) {
                        Some(known) if *known >= found => {}
                        Some(known) => *known = found,
                        None => drop(newest.insert(agent.to_owned(), found)),
                    }
                }
            }
        }
        for (agent, (_, swarm)) in newest {
            agents.insert(agent, Some(swarm));
        }
        for (agent, swarm) in &self.request.swarms {
            agents.entry(agent.clone()).and_modify(|known| *known = Some(swarm.clone()));
        }
        Ok(agents)
    }
}

/// The swarm that metadata names.
fn swarm_in(metadata: &str) -> Option<Cow<'_, str>> {
    if !metadata.contains("swarm_id") {
        return None;
    }
    serde_json::from_str::<Belonging<'_>>(metadata).ok()?.swarm_id.filter(|name| !name.is_empty())
}

/// Appends a small value.
fn push_value(out: &mut Vec<u8>, value: &impl Serialize) {
    // Neither a buffer in memory nor these values can fail.
    let text = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_may_name_a_swarm() {
        for (json, expected) in [
            (r#"{"swarm_id":"s"}"#, Some("s")),
            (r#" {"x": {"swarm_id": "inner"}, "swarm_id": "\u0041\n"}"#, Some("A\n")),
            (r#"{"swarm_id":5}"#, None),
            (r#"{"swarm_id":""}"#, None),
            (r#"{"swarm_id":null}"#, None),
            (r#""swarm_id""#, None),
            (r#"{"swarm":"s"}"#, None),
        ] {
            assert_eq!(swarm_in(json).as_deref(), expected, "{json}");
        }
    }
}
