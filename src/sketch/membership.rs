//! The membership filter: may a text be among the keys of a segment? (spec 7.4)
//!
//! A split block Bloom filter: Putze, Sanders, Singler, Cache-, Hash- and Space-Efficient
//! Bloom Filters, Journal of Experimental Algorithmics 14 (2009), in the form that the
//! Parquet format specifies (BloomFilter.md): blocks of 256 bits in eight lanes, one bit
//! set in each. We differ in the hash, which is xxh3-64 with seed 0. "No" is certain;
//! "maybe" is wrong for about 3 in 100 keys that are not there.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::format::layout::{
    MEMBERSHIP_BITS_PER_KEY, MEMBERSHIP_BLOCK_BYTES, MEMBERSHIP_BLOCK_WORDS, MEMBERSHIP_BLOCKS_MAX,
    MEMBERSHIP_SALTS,
};

const SECTION: &str = "7.4";
const BLOCK_BITS: usize = MEMBERSHIP_BLOCK_BYTES * 8;

type Block = [u64; MEMBERSHIP_BLOCK_WORDS];

/// A set of texts that may say yes too often, and never no wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    blocks: Vec<Block>,
}

impl Membership {
    /// A filter with room for `keys` distinct texts.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let blocks = keys.div_ceil(BLOCK_BITS / MEMBERSHIP_BITS_PER_KEY);
        let blocks = blocks.clamp(1, MEMBERSHIP_BLOCKS_MAX);
        Self { blocks: vec![[0; MEMBERSHIP_BLOCK_WORDS]; blocks] }
    }

    /// Adds a text.
    pub(crate) fn insert(&mut self, key: &str) {
        let hash = hash(key);
        let index = self.block_index(hash);
        for (word, mask) in self.blocks[index].iter_mut().zip(mask(hash)) {
            *word |= mask;
        }
    }

    /// Whether the text may have been added; false is certain.
    pub(crate) fn contains(&self, key: &str) -> bool {
        let hash = hash(key);
        let block = self.blocks[self.block_index(hash)];
        block.iter().zip(mask(hash)).all(|(word, mask)| word & mask == mask)
    }

    /// The upper half of the hash chooses the block: a product instead of a remainder.
    fn block_index(&self, hash: u64) -> usize {
        // There are at most 2^20 blocks, so neither the product nor the cast overflows.
        let index = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        usize::try_from(index).unwrap_or(0)
    }

    /// The filter as stored: the words of each block in turn.
    pub(crate) fn to_words(&self) -> Vec<u64> {
        self.blocks.as_flattened().to_vec()
    }

    /// The filter of stored words.
    ///
    /// # Errors
    ///
    /// `Corrupt` when there is not a whole number of blocks from 1 to the limit.
    pub(crate) fn from_words(words: &[u64]) -> Result<Self> {
        let (blocks, rest) = words.as_chunks::<MEMBERSHIP_BLOCK_WORDS>();
        if !rest.is_empty() || !(1..=MEMBERSHIP_BLOCKS_MAX).contains(&blocks.len()) {
            return Err(Error::corrupt(
                SECTION,
                format!("membership filter of {} words", words.len()),
            ));
        }
        Ok(Self { blocks: blocks.to_vec() })
    }
}

fn hash(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// One bit in each of the eight lanes, chosen by the lower half of the hash.
fn mask(hash: u64) -> Block {
    let lower = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0);
    let bit = |salt: u32| 1u64 << (lower.wrapping_mul(salt) >> 27);
    let (pairs, _) = MEMBERSHIP_SALTS.as_chunks::<2>();
    let mut mask = [0; MEMBERSHIP_BLOCK_WORDS];
    for (word, [even, odd]) in mask.iter_mut().zip(pairs) {
        *word = bit(*even) | bit(*odd) << 32;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::spec_text;

    fn keys(count: usize, prefix: &str) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}-{number}")).collect()
    }

    fn filter_of<S: AsRef<str>>(keys: &[S]) -> Membership {
        let mut filter = Membership::with_capacity(keys.len());
        keys.iter().for_each(|key| filter.insert(key.as_ref()));
        filter
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        for count in [0, 1, 31, 32, 33, 10_000] {
            let keys = keys(count, "task");
            let filter = filter_of(&keys);
            assert_eq!(filter.blocks.len(), count.div_ceil(32).max(1));
            assert!(keys.iter().all(|key| filter.contains(key)));
            let wrong = self::keys(10_000, "other").iter().filter(|k| filter.contains(k)).count();
            assert!(wrong < 500, "{wrong} of 10000 with {count} keys");
            assert_eq!(Membership::from_words(&filter.to_words()).unwrap(), filter);
        }
    }

    #[test]
    fn neither_order_nor_repetition_matters() {
        let mut repeated = filter_of(&["b", "a"]);
        ["a", "b", "a"].iter().for_each(|key| repeated.insert(key));
        assert_eq!(repeated, filter_of(&["a", "b"]));
    }

    #[test]
    fn the_size_is_bounded() {
        assert_eq!(Membership::with_capacity(usize::MAX).blocks.len(), MEMBERSHIP_BLOCKS_MAX);
    }

    #[test]
    fn odd_words_are_rejected() {
        assert!(Membership::from_words(&[]).is_err());
        assert!(Membership::from_words(&[0; 5]).is_err());
        assert!(Membership::from_words(&vec![0; 4 * (MEMBERSHIP_BLOCKS_MAX + 1)]).is_err());
        assert!(!Membership::from_words(&[0; 4]).unwrap().contains("a"));
        assert!(Membership::from_words(&[u64::MAX; 4]).unwrap().contains("a"));
    }

    #[test]
    fn the_spec_example_is_what_is_written() {
        let filter = filter_of(&["task-1"]);
        let bytes: Vec<u8> = filter.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
        spec_text::assert_example("membership", &bytes);
        let text = spec_text::section("7-sketches.md");
        assert!(text.contains(&format!("{:016x}", hash("task-1"))), "{:016x}", hash("task-1"));
    }
}
