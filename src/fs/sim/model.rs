//! What of a simulated file system is durable, and what a crash leaves of it.
//!
//! Owns the state, the one function that changes it, and the choice that a crash
//! makes under each policy. Knows nothing of handles, locks and faults. The rules
//! are those at the top of `sim`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::CrashPolicy;
use crate::fs::EntryKind;

/// The root directory.
const ROOT: u64 = 1;

/// Bytes that a page cache writes at once, and by which a length may run ahead of its bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// The smaller sector of disks in use.
const SECTOR_BYTES: usize = 512;

/// All files and directories, as seen and as durable. Contents are shared between clones until
/// one of them changes.
#[derive(Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<u64, Node>,
    /// Changes of names that no sync of a directory has made durable, in order.
    names: Vec<NameChange>,
    next_inode: u64,
}

#[derive(Clone)]
pub(super) enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    /// As read.
    pub(super) content: Arc<Vec<u8>>,
    /// As synced.
    durable: Arc<Vec<u8>>,
    /// What lies between the two, in order.
    pending: Vec<Write>,
    pub(super) modified: u64,
}

#[derive(Clone)]
pub(super) struct Write {
    op: u64,
    offset: usize,
    bytes: Arc<[u8]>,
    /// A sync failed since: no later one makes this durable.
    given_up: bool,
}

#[derive(Clone, Default)]
pub(super) struct DirectoryNode {
    pub(super) entries: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pub(super) modified: u64,
}

/// A name in a directory, and what it shall stand for.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) directory: u64,
    pub(super) name: String,
    pub(super) inode: Option<u64>,
}

impl Slot {
    fn is_place_of(&self, other: &Self) -> bool {
        self.directory == other.directory && self.name == other.name
    }
}

/// Names that change together or not at all.
#[derive(Clone)]
struct NameChange {
    op: u64,
    slots: Vec<Slot>,
}

impl NameChange {
    fn shares_a_place_with(&self, other: &Self) -> bool {
        self.slots.iter().any(|slot| other.slots.iter().any(|place| slot.is_place_of(place)))
    }
}

/// What an operation changes.
pub(super) enum Effect {
    Names { made: Option<(u64, EntryKind)>, slots: Vec<Slot> },
    Write { inode: u64, offset: u64, bytes: Arc<[u8]> },
    SyncData { inode: u64 },
    SyncFailed { inode: u64 },
    SyncDirectory { inode: u64 },
    Settle { slot: Slot, content: Option<Arc<Vec<u8>>> },
}

impl Node {
    fn new(kind: EntryKind, op: u64) -> Self {
        match kind {
            EntryKind::File => Self::File(FileNode { modified: op, ..FileNode::default() }),
            EntryKind::Directory => {
                Self::Directory(DirectoryNode { modified: op, ..DirectoryNode::default() })
            }
        }
    }

    pub(super) fn kind(&self) -> EntryKind {
        match self {
            Self::File(_) => EntryKind::File,
            Self::Directory(_) => EntryKind::Directory,
        }
    }
}

impl State {
    pub(super) fn empty() -> Self {
        let root = Node::new(EntryKind::Directory, 0);
        Self { nodes: BTreeMap::from([(ROOT, root)]), names: Vec::new(), next_inode: ROOT + 1 }
    }

    pub(super) fn file(&self, inode: u64) -> Option<&FileNode> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn file_mut(&mut self, inode: u64) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn directory(&self, inode: u64) -> Option<&DirectoryNode> {
        match self.nodes.get(&inode) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, inode: u64) -> Option<&mut DirectoryNode> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn find(&self, names: &[&str]) -> Result<u64, Errno> {
        let mut inode = ROOT;
        for name in names {
            let directory = self.directory(inode).ok_or(Errno::NOTDIR)?;
            inode = *directory.entries.get(*name).ok_or(Errno::NOENT)?;
        }
        Ok(inode)
    }

    pub(super) fn entry(&self, slot: &Slot) -> Option<u64> {
        self.directory(slot.directory)?.entries.get(&slot.name).copied()
    }

    pub(super) fn free_inode(&self) -> u64 {
        self.next_inode
    }

    /// The one way in which a state changes, in a run and in a replay alike.
    pub(super) fn apply(&mut self, op: u64, effect: &Effect) {
        match effect {
            Effect::Names { made, slots } => self.change_names(op, *made, slots),
            Effect::Write { inode, offset, bytes } => {
                // Bounded by FILE_BYTES_MAX when it was recorded.
                let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                if let Some(file) = self.file_mut(*inode) {
                    file.write(op, offset, bytes);
                }
            }
            Effect::SyncData { inode } => {
                if let Some(file) = self.file_mut(*inode) {
                    file.sync();
                }
            }
            Effect::SyncFailed { inode } => {
                if let Some(file) = self.file_mut(*inode) {
                    file.pending.iter_mut().for_each(|write| write.given_up = true);
                }
            }
            Effect::SyncDirectory { inode } => self.sync_directory(*inode),
            Effect::Settle { slot, content } => self.settle(op, slot, content.as_ref()),
        }
    }

    fn change_names(&mut self, op: u64, made: Option<(u64, EntryKind)>, slots: &[Slot]) {
        if let Some((inode, kind)) = made {
            self.nodes.insert(inode, Node::new(kind, op));
            self.next_inode = self.next_inode.max(inode + 1);
        }
        for slot in slots {
            if let Some(directory) = self.directory_mut(slot.directory) {
                set_entry(&mut directory.entries, slot);
                directory.modified = op;
            }
        }
        self.names.push(NameChange { op, slots: slots.to_vec() });
    }

    /// Makes durable the changes in one directory, and those elsewhere that they need.
    fn sync_directory(&mut self, inode: u64) {
        let in_it = |change: &NameChange| change.slots.iter().any(|slot| slot.directory == inode);
        let chosen = self.with_what_they_need(self.names.iter().map(in_it).collect());
        let (synced, rest): (Vec<_>, Vec<_>) =
            mem::take(&mut self.names).into_iter().zip(chosen).partition(|(_, synced)| *synced);
        self.names = rest.into_iter().map(|(change, _)| change).collect();
        for slot in synced.iter().flat_map(|(change, _)| &change.slots) {
            if let Some(directory) = self.directory_mut(slot.directory) {
                set_entry(&mut directory.durable, slot);
            }
        }
    }

    /// Adds to the chosen changes of names the earlier ones of the same names.
    fn with_what_they_need(&self, mut chosen: Vec<bool>) -> Vec<bool> {
        for (index, later) in self.names.iter().enumerate().rev() {
            if !chosen[index] {
                continue;
            }
            for (earlier, chosen) in self.names[..index].iter().zip(&mut chosen) {
                *chosen |= earlier.shares_a_place_with(later);
            }
        }
        chosen
    }

    fn settle(&mut self, op: u64, slot: &Slot, content: Option<&Arc<Vec<u8>>>) {
        for change in &mut self.names {
            change.slots.retain(|pending| !pending.is_place_of(slot));
        }
        self.names.retain(|change| !change.slots.is_empty());
        if let Some(directory) = self.directory_mut(slot.directory) {
            set_entry(&mut directory.entries, slot);
            set_entry(&mut directory.durable, slot);
            directory.modified = op;
        }
        if let (Some(inode), Some(content)) = (slot.inode, content) {
            self.nodes.insert(inode, Node::File(FileNode::settled(Arc::clone(content), op)));
            self.next_inode = self.next_inode.max(inode + 1);
        }
    }

    /// The operations that a crash could undo, in order.
    pub(super) fn unsynced(&self) -> Vec<u64> {
        let mut ops: Vec<u64> = self.names.iter().map(|change| change.op).collect();
        for node in self.nodes.values() {
            if let Node::File(file) = node {
                ops.extend(file.pending.iter().map(|write| write.op));
            }
        }
        ops.sort_unstable();
        ops.dedup();
        ops
    }

    /// What a crash leaves: everything in it is durable.
    pub(super) fn after_crash(&self, policy: CrashPolicy, seed: u64) -> Self {
        let crash = Crash::new(policy, seed, self.unsynced());
        let chosen = self.names.iter().map(|change| crash.keeps_names(change.op)).collect();
        let chosen = self.with_what_they_need(chosen);
        let mut next = Self { nodes: BTreeMap::new(), names: Vec::new(), ..*self };
        for (&inode, node) in &self.nodes {
            next.nodes.insert(inode, crash.node(inode, node));
        }
        for (change, _) in self.names.iter().zip(chosen).filter(|(_, chosen)| *chosen) {
            for slot in &change.slots {
                if let Some(directory) = next.directory_mut(slot.directory) {
                    set_entry(&mut directory.entries, slot);
                    set_entry(&mut directory.durable, slot);
                }
            }
        }
        next.forget_unreachable(&BTreeSet::new());
        next
    }

    /// Drops the files and directories that have no name, now or after a crash, and are not
    /// among `kept`.
    pub(super) fn forget_unreachable(&mut self, kept: &BTreeSet<u64>) {
        let mut reached: BTreeSet<u64> = kept.clone();
        reached.extend(self.names.iter().flat_map(|change| &change.slots).filter_map(|s| s.inode));
        reached.insert(ROOT);
        let mut todo: Vec<u64> = reached.iter().copied().collect();
        while let Some(inode) = todo.pop() {
            if let Some(directory) = self.directory(inode) {
                let below = directory.entries.values().chain(directory.durable.values());
                todo.extend(below.filter(|&&inode| reached.insert(inode)));
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    /// Calls `visit` with everything that has a name, parents first, by name.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Path, &Node)) {
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, inode)) = todo.pop() {
            let Some(node) = self.nodes.get(&inode) else { continue };
            visit(&path, node);
            if let Node::Directory(directory) = node {
                let below = directory.entries.iter().rev();
                todo.extend(below.map(|(name, &inode)| (path.join(name), inode)));
            }
        }
    }
}

fn set_entry(entries: &mut BTreeMap<String, u64>, slot: &Slot) {
    match slot.inode {
        Some(inode) => entries.insert(slot.name.clone(), inode),
        None => entries.remove(&slot.name),
    };
}

impl FileNode {
    /// A file of which everything is durable.
    fn settled(content: Arc<Vec<u8>>, modified: u64) -> Self {
        Self { durable: Arc::clone(&content), content, pending: Vec::new(), modified }
    }

    fn write(&mut self, op: u64, offset: usize, bytes: &Arc<[u8]>) {
        overlay(Arc::make_mut(&mut self.content), offset, bytes);
        let bytes = Arc::clone(bytes);
        self.pending.push(Write { op, offset, bytes, given_up: false });
        self.modified = op;
    }

    fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        let (given_up, synced): (Vec<Write>, Vec<Write>) =
            mem::take(&mut self.pending).into_iter().partition(|write| write.given_up);
        for write in &synced {
            overlay(durable, write.offset, &write.bytes);
        }
        // The length is durable even where the bytes were given up.
        durable.resize(self.content.len(), 0);
        // What was written again since is durable with that.
        self.pending = synced.iter().fold(given_up, |rest, write| {
            rest.into_iter().flat_map(|old| old.outside(write)).collect()
        });
    }
}

impl Write {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    /// The parts of this write that another does not cover.
    fn outside(self, other: &Self) -> Vec<Self> {
        if other.end() <= self.offset || self.end() <= other.offset {
            return vec![self];
        }
        [(self.offset, other.offset), (other.end(), self.end())]
            .into_iter()
            .filter(|(start, end)| start < end)
            .map(|(start, end)| Self { offset: start, bytes: self.part(start, end), ..self })
            .collect()
    }

    /// The bytes that this write puts between two offsets inside it.
    fn part(&self, start: usize, end: usize) -> Arc<[u8]> {
        self.bytes.get(start - self.offset..end - self.offset).unwrap_or_default().into()
    }
}

/// Puts bytes at an offset, making the file longer where needed.
fn overlay(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset.saturating_add(bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Puts the part of the bytes that lies inside the file as it is.
fn overlay_inside(content: &mut [u8], offset: usize, bytes: &[u8]) {
    let end = content.len().min(offset.saturating_add(bytes.len()));
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(&bytes[..place.len()]);
    }
}

/// What one crash does.
struct Crash {
    policy: CrashPolicy,
    seed: u64,
    /// The operations that may be lost, in order.
    unsynced: Vec<u64>,
}

impl Crash {
    fn new(policy: CrashPolicy, seed: u64, unsynced: Vec<u64>) -> Self {
        Self { policy, seed, unsynced }
    }

    /// Whether operation `op` is among those that a prefix or a single one keeps.
    fn keeps(&self, op: u64) -> bool {
        match self.policy {
            CrashPolicy::Prefix(count) => self.unsynced.get(count).is_none_or(|&end| op < end),
            CrashPolicy::Only(index) => self.unsynced.get(index) == Some(&op),
            _ => false,
        }
    }

    fn keeps_names(&self, op: u64) -> bool {
        match self.policy {
            CrashPolicy::None | CrashPolicy::DataWithoutNames => false,
            CrashPolicy::Prefix(_) | CrashPolicy::Only(_) => self.keeps(op),
            CrashPolicy::Random | CrashPolicy::Torn => match mix(self.seed, 1) % 4 {
                0 => true,
                1 => false,
                _ => mix(self.seed ^ 0x6E61_6D65, op) & 1 == 0,
            },
            _ => true,
        }
    }

    fn node(&self, inode: u64, node: &Node) -> Node {
        match node {
            Node::File(file) => {
                Node::File(FileNode::settled(self.content(inode, file), file.modified))
            }
            Node::Directory(directory) => Node::Directory(DirectoryNode {
                entries: directory.durable.clone(),
                durable: directory.durable.clone(),
                modified: directory.modified,
            }),
        }
    }

    fn content(&self, inode: u64, file: &FileNode) -> Arc<Vec<u8>> {
        if file.pending.is_empty() {
            return Arc::clone(&file.durable);
        }
        let (old, new) = (file.durable.len(), file.content.len());
        match self.policy {
            CrashPolicy::None | CrashPolicy::NamesWithoutData => Arc::clone(&file.durable),
            CrashPolicy::All | CrashPolicy::DataWithoutNames => Arc::clone(&file.content),
            CrashPolicy::SizeWithoutData => resized(&file.durable, new),
            CrashPolicy::DataWithoutSize => resized(&file.content, old),
            CrashPolicy::ZeroTail => {
                resized(&file.durable, new.min(old.next_multiple_of(PAGE_BYTES)))
            }
            CrashPolicy::Prefix(_) | CrashPolicy::Only(_) => {
                let mut content = file.durable.to_vec();
                for write in file.pending.iter().filter(|write| self.keeps(write.op)) {
                    overlay(&mut content, write.offset, &write.bytes);
                }
                Arc::new(content)
            }
            CrashPolicy::Random | CrashPolicy::Torn => Arc::new(self.sectors(inode, file)),
        }
    }

    /// Each sector as some of the writes to it left it.
    fn sectors(&self, inode: u64, file: &FileNode) -> Vec<u8> {
        let random = mix(self.seed, inode << 8 | 2);
        let sector_bytes = if random & 1 == 0 { SECTOR_BYTES } else { PAGE_BYTES };
        let whole = match (random >> 1) % 8 {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        };
        let mut content = file.durable.to_vec();
        content.resize(random_len(random >> 8, file), 0);
        let writes = file.pending.len() as u64;
        for (index, write) in file.pending.iter().enumerate() {
            let mut start = write.offset;
            while start < write.end() {
                let sector = start / sector_bytes;
                let end = write.end().min((sector + 1) * sector_bytes);
                let fate = mix(random, sector as u64);
                let survives = whole.unwrap_or_else(|| survives(fate, index as u64, writes));
                let part = write.part(start, end);
                if self.policy == CrashPolicy::Torn {
                    let fate = mix(fate, index as u64);
                    tear(&mut content, start, &part, survives, fate);
                } else if survives {
                    overlay_inside(&mut content, start, &part);
                }
                start = end;
            }
        }
        content
    }
}

/// A length between the old and the new one that the disk may know of.
fn random_len(random: u64, file: &FileNode) -> usize {
    let (old, new) = (file.durable.len(), file.content.len());
    let len = match random % 4 {
        0 => old,
        1 => new,
        2 => file.pending[pick(random >> 8, file.pending.len())].end(),
        _ => {
            let pages = pick(random >> 8, 1 + (new - old) / PAGE_BYTES);
            old.next_multiple_of(PAGE_BYTES) + PAGE_BYTES * pages
        }
    };
    len.clamp(old, new)
}

/// Whether the sector of that fate is as it was after write `index` or a later one: a third of
/// the sectors never reached the disk, a third is up to date, the rest was written in between.
fn survives(fate: u64, index: u64, writes: u64) -> bool {
    match fate % 3 {
        0 => false,
        1 => true,
        _ => index < (fate >> 8) % (writes + 1),
    }
}

/// Writes a sector's part, or part of it, or something else in its place.
fn tear(content: &mut [u8], start: usize, part: &[u8], survives: bool, fate: u64) {
    match fate % 16 {
        // Half of it.
        0 | 1 => overlay_inside(content, start, &part[..part.len() / 2]),
        // What the disk held there before, or what belongs elsewhere.
        2 => overlay_inside(content, start, &vec![0xFF; part.len()]),
        3 => {
            let noise = |index: usize| mix(fate, index as u64).to_le_bytes()[0];
            overlay_inside(content, start, &(0..part.len()).map(noise).collect::<Vec<u8>>());
        }
        4 => {
            let from = pick(fate >> 8, start + 1);
            let other = content.get(from..).unwrap_or_default();
            let other = other[..other.len().min(part.len())].to_vec();
            overlay_inside(content, start, &other);
        }
        _ if survives => overlay_inside(content, start, part),
        _ => {}
    }
}

fn resized(content: &[u8], len: usize) -> Arc<Vec<u8>> {
    let mut content = content.to_vec();
    content.resize(len, 0);
    Arc::new(content)
}

/// A number below `count`, which is not 0, made from a random one.
pub(super) fn pick(random: u64, count: usize) -> usize {
    usize::try_from(random % count as u64).unwrap_or(0)
}

/// A number that looks random, from two (the finaliser of SplitMix64: Steele, Lea, Flood,
/// 2014).
pub(super) fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
